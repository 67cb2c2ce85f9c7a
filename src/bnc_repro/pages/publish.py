"""From runs/ to what git keeps: rows in results/, the README's table and figure, the notebooks' outputs."""

import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from ..evidence import plots, speed, tables, verdict
from ..evidence.rows import published
from ..recipe.build import make_recipe, recipe_identity
from ..recipe.clone import project_root
from ..recipe.expansion import arms_with_grids, grid
from ..recipe.profiles import arm_fields, experiment_section, experiments, recipe_of, seeds_of
from ..recipe.schema import EXPERIMENTS, PROFILES, Recipe
from ..run.identity import data_fingerprint, folder_of
from ..run.ledger import read_row
from ..training.checkpoint import atomic, write_json
from ..training.progress import log
from . import models, notebook, sources

MARKS = "<!-- {}:begin -->", "<!-- {}:end -->"
PAGES = ("README.md", "docs/real-data-verdict.md", "docs/how-to/pack.md")  # hold tables between marks
FIGURE, FIGURE_ROWS = "results/figures/verdict.png", "results/sample"
ROWS = "Rows"  # of a figure's PNG text: the digest of the rows that it was drawn from
STANDS_ON = {  # block -> the published rows that it is made from
    "verdict": ("results/sample", "results/presets/linear_vs_soft", "results/packed.csv"),
    "times": ("results/sample", "results/small"),
    "small": ("results/small",),
    "answer": ("results/small/linear_vs_soft",),
    "speed": ("results/packed.csv",),
    "balance": ("results/packed.csv",),
}


def publish(remove: bool = False) -> list[Path]:
    """Copy each profile's current rows to results/, in place of older rows of the same recipe; then the pages.

    Published rows that belong to no arm and seed of the profile any more are named, and stay until `remove` says
    otherwise (git keeps them).
    """
    root, written = project_root(), []
    for profile in PROFILES:
        for name, recipes in _wanted(profile).items():
            folder = root / "results" / profile / name
            places = {recipe.data.folder for recipe in recipes}
            data = {place: data_fingerprint(place) for place in places if place.is_dir()}
            rows = {
                folder_of(recipe, data=data[recipe.data.folder]) / "row.json": fields
                for recipe, fields in recipes.items()
                if recipe.data.folder in data
            }
            written += _copied({path: fields for path, fields in rows.items() if path.is_file()}, folder)
            for path in of_no_arm(folder, recipes):
                if remove:
                    path.unlink()
                else:
                    log.warning(f"{path} is of no arm and seed of {profile} any more; `publish --remove` takes it away")
        written += models.pack_published(profile)
    return [*written, *write_pages(root)]


def of_no_arm(folder: Path, recipes: Iterable[Recipe]) -> list[Path]:
    """The rows in a folder of results/ whose recipe is none of `recipes`."""
    wanted = {json.dumps(recipe_identity(recipe)) for recipe in recipes}
    paths = sorted(folder.glob("*.json"))
    return [path for path in paths if json.dumps(recipe_identity(_recipe(read_row(path)))) not in wanted]


def _recipe(row: dict) -> Recipe:
    return make_recipe(**row["recipe"])


def _wanted(profile: str) -> dict[str, dict[Recipe, dict]]:
    """Folder in results/<profile>/ -> the recipes whose rows belong there, an experiment's or those of its tuning, each
    with the fields of its arm (of several arms with one recipe, the first's)."""
    wanted: dict[str, dict[Recipe, dict]] = {}
    for experiment in experiments(profile):
        section, with_grids = experiment_section(experiment, profile), arms_with_grids(experiment, profile)
        recipes = wanted[experiment] = {}
        for arm, changes in section["arms"].items():
            for seed in seeds_of(changes, section["seeds"]):
                recipes.setdefault(recipe_of(experiment, profile, arm, seed=seed), arm_fields(arm, changes))
            if arm in with_grids:
                for recipe in grid(experiment, profile, arm):
                    wanted.setdefault("tuning", {}).setdefault(recipe, arm_fields(arm, changes))
    return wanted


def _copied(rows: dict[Path, dict], folder: Path) -> list[Path]:
    """The rows' copies in `folder` with the fields of their arms, each in place of an older row of the same recipe."""
    older, copies = {_recipe(read_row(path)): path for path in folder.glob("*.json")}, []
    for path, fields in rows.items():
        row, copy = read_row(path), folder / f"{path.parent.name}.json"
        write_json(copy, row | fields)
        replaced = older.get(_recipe(row), copy)
        if replaced != copy:
            replaced.unlink()
        copies.append(copy)
    return copies


def write_pages(root: Path) -> list[Path]:
    """The tables of `PAGES` and the verdict's figure from the published rows, and the outputs of executed notebooks."""
    written = [root / page for page in PAGES]
    texts = blocks()
    for page in written:
        text = with_results(page.read_text(encoding="utf-8"), texts)
        with atomic(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
    plots.style()
    figure = plots.verdict_figure(*published_rows())
    picture = root / FIGURE
    picture.parent.mkdir(parents=True, exist_ok=True)
    told = {"Software": None, ROWS: sources.digest(root / FIGURE_ROWS)}
    figure.savefig(picture, dpi=80, bbox_inches="tight", metadata=told)
    for name in notebook.STAGES:
        executed = root / "runs" / "sample" / "notebooks" / f"{name}.ipynb"
        if executed.is_file():
            written.append(keep_outputs(executed, root / "notebooks" / f"{name}.ipynb"))
    return [*written, picture]


def published_rows(profile: str = "sample") -> list[list[dict]]:
    """The published rows of the three experiments, [] for one that a profile has not run yet. Raises ValueError when
    the sample lacks one."""
    experiments = [published(profile, experiment) for experiment in EXPERIMENTS]
    if profile == "sample" and not all(experiments):
        raise ValueError("results/sample lacks an experiment's rows: run `make repro`, then `make publish`")
    return experiments


def with_results(text: str, texts: dict[str, str]) -> str:
    """`text` with the `blocks` between those marks that it has."""
    for name, lines in texts.items():
        begin, end = (mark.format(name) for mark in MARKS)
        if begin in text:
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}\n{lines}\n{end}{rest.partition(end)[2]}"
    return text


def block_of(name: str, text: str) -> str | None:
    """What a page says between the marks of a block; None for a page without them."""
    begin, end = (mark.format(name) for mark in MARKS)
    return text.partition(begin)[2].partition(end)[0].strip("\n") if begin in text else None


def blocks() -> dict[str, str]:
    """What the published rows say, by the name of its marks: verdicts, the title's answer, costs, speeds. Each ends
    with the rows that it stands on."""
    (images, poses, ablation), small = published_rows(), published_rows("small")
    presets, measured = published("presets", "linear_vs_soft"), speed.headline(speed.published())
    times = tables.times([images, poses, ablation, *small])
    texts = {
        "verdict": tables.markdown(verdict.table(images, poses, ablation, presets, speed.claim(measured))),
        "times": tables.markdown(times),
        "small": tables.markdown(verdict.table(small[0], small[1], small[2])),
        "answer": verdict.title(small[2]),
        "speed": speed.page(speed.published()),
        "balance": "\n".join(f"- {sentence}" for sentence in speed.balance(measured)),
    }
    return {name: f"{text}\n\nRows: `{'`, `'.join(STANDS_ON[name])}`." for name, text in texts.items()}


def keep_outputs(executed: Path, source: Path) -> Path:
    """Copy the outputs of an executed notebook into the committed one, cell by cell, without times or paths, and sign
    them with the rows that they stand on (`sources`): rows that are newer than the page leave it stale.

    Raises ValueError if a cell's text differs: the outputs would not be its own.
    """
    import nbformat  # seconds, which what only reads the pages need not wait

    page = nbformat.read(executed, 4)
    executed_cells = {cell["id"]: cell for cell in page.cells}
    kept = nbformat.read(source, 4)
    for count, cell in enumerate([cell for cell in kept.cells if cell.cell_type == "code"], 1):
        if cell.id not in executed_cells or executed_cells[cell.id].source != cell.source:
            raise ValueError(f"{source.name}, cell {cell.id}: changed since it was run; run `make repro` first")
        cell.outputs, cell.execution_count = _stable(executed_cells[cell.id], count), count
    sources.sign(kept.cells, project_root(), page.metadata.get(sources.KEY, {}))
    nbformat.write(kept, source)
    return source


def _stable(cell, count: int) -> list:
    """A cell's outputs without what differs at each run (progress of trainings), and with small pictures."""
    trains = notebook.TRAINS in cell.metadata.get("tags", [])
    outputs = [output for output in cell.outputs if not (trains and output.output_type == "stream")]
    for output in outputs:
        if output.output_type == "execute_result":
            output.execution_count = count
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = _small(output.data["image/png"])
    return outputs


def _small(picture: str) -> str:
    """A base64 PNG in 128 colours, a third of the bytes."""
    small, image = io.BytesIO(), Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()
