"""Models that travel: a packed file for each published binary arm, with a card made from its row.

results/models/<profile>/<data>-<arm>.safetensors and .md; `bnc_repro.load("small/cifar10-binary")` opens one. The arm's
first seed is packed, never its best.
"""

from pathlib import Path

from ..evidence.conditions import BLOCK
from ..evidence.rows import binarizers_of, published
from ..recipe.clone import project_root
from ..recipe.profiles import experiments
from ..run import packed
from ..training import checkpoint
from ..training.checkpoint import atomic

NAMES = {"top1": "top-1, %", "AP": "AP", "PCK": "PCK@0.2"}
LIMITS = (
    "Trained for a claim about estimators, with few epochs and a narrow network: no state of the art. It knows its "
    "data set and nothing else. Inputs within rounding of 0 may fall to either side of a sign: on another machine "
    "single images may be judged otherwise."
)


def pack_published(profile: str) -> list[Path]:
    """Pack the first seed of each binary arm whose published row is of a run in runs/, and write its card; the files.

    An arm whose checkpoint is not here keeps the file that it has.
    """
    written = []
    for name, row in of_rows(profile).items():
        run = project_root() / "runs" / profile / row["experiment"] / row["fingerprint"]
        if not (run / checkpoint.NAMES[0]).is_file():
            continue
        target = packed.models() / profile / f"{name}{packed.SUFFIX}"
        target.parent.mkdir(parents=True, exist_ok=True)
        _, report, size = packed.pack_checkpoint(run / checkpoint.NAMES[0], target)
        target.chmod(0o644)  # as git keeps it
        card_file = target.with_suffix(".md")
        with atomic(card_file) as temporary:
            temporary.write_text(card(f"{profile}/{name}", row, report.float_bytes, size), encoding="utf-8")
        written += [target, card_file]
    return written


def of_rows(profile: str) -> dict[str, dict]:
    """A name for the first finished row of each arm with binary weights and inputs, on blocks that a file holds: those
    of ReactNet are packed layer by layer, within torch."""
    rows: dict[str, dict] = {}
    for experiment in experiments(profile):
        for row in published(profile, experiment):
            bireal = row["recipe"].get("block", BLOCK) == BLOCK
            if row["status"] == "finished" and all(binarizers_of(row)) and bireal:
                rows.setdefault(packed.name_of(row), row)
    return rows


def card(name: str, row: dict, float_bytes: int, file_bytes: int) -> str:
    """What a model's file is, from the row of its run."""
    recipe, headline = row["recipe"], row["headline"]
    height, width = recipe["data"]["image_size"]
    value = row["metrics"][headline]
    shown = f"{value:.2f}" if headline == "top1" else f"{value:.4f}"
    keys = ("network", "stem", "width", "weight_binarizer", "activation_binarizer", "preset", "optimizer", "epochs")
    lines = [
        f"# {name}",
        "",
        "```python",
        "import bnc_repro",
        "from bnc_repro.images.pictures import normalise",
        "",
        f'network = bnc_repro.load("{name}")',
        f'outputs = network(normalise(images, "{recipe["data"]["kind"]}"))  # images uint8 (N, C, {height}, {width})',
        "```",
        "",
        f"`python -m bnc_repro predict results/models/{name}.safetensors PICTURE` says what it sees in a picture file.",
        "",
        "| | |",
        "| --- | --- |",
        f"| {NAMES[headline]}, of its run after the last epoch | {shown} |",
        f"| file | {file_bytes / 1e3:.0f} kB, float32 {float_bytes / 1e3:.0f} kB |",
        f"| data | {Path(recipe['data']['root']).name}, {height}×{width} px, validation images |",
        f"| recipe | {', '.join(f'{key} {recipe[key]}' for key in keys)}, learning rate {recipe['learning_rate']:g} |",
        f"| run | {row['experiment']}, arm {row['arm']}, seed {row['seed']}, fingerprint {row['fingerprint']} |",
        f"| trained by | commit {row['commit']}, {row['device']}, torch {row['versions']['torch']} |",
        "",
        LIMITS,
    ]
    return "\n".join(lines) + "\n"
