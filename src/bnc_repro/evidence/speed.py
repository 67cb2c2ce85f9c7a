"""What packing buys, in rows: measured on this machine, or published from others in results/packed.csv.

A row is one contestant on one network: milliseconds of processor time of one thread with quartiles, the ratio to the
packed network within a round, bytes and operations of both networks, and the device. The networks are as initialised:
time does not depend on the weights.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from ..convert import binarize
from ..cost import cost
from ..networks import create_network
from ..packed import PackedNetwork, pack
from ..packed.benchmark import CHANNELS_LAST, EAGER, ONNXRUNTIME, PACKED, Comparison, compare, torch_threads
from ..packed.latency import StepTime
from ..recipe.build import make_recipe
from ..recipe.clone import project_root
from ..run import packed as run_packed
from ..run.device import device_name
from ..run.identity import folder_of
from ..training import checkpoint
from ..training.checkpoint import atomic
from . import tables
from .rows import binarizers_of

BINARY = {"weight_binarizer": "ste", "activation_binarizer": "approx_sign"}
CONVERTED = "torchvision resnet18"  # by `binarize`: packed layer by layer, its twin is torchvision's own
NETWORKS = {  # name: (H, W), outputs
    "bireal18": ((224, 224), {"num_classes": 1000}),
    "bireal34": ((224, 224), {"num_classes": 1000}),
    "resnet20": ((32, 32), {"num_classes": 10}),
    "sbpn": ((256, 192), {"num_keypoints": 17}),
    CONVERTED: ((224, 224), {"num_classes": 1000}),
}
BALANCED = "bireal18"  # whose cost stands for the paper's claim
KEY = ["device", "network", "batch", "kernel", "contestant"]  # what names a row


def networks(name: str) -> tuple[nn.Module, nn.Module]:
    """The binary network, and the one whose float twin is the measure: itself, or the model before its conversion."""
    size, outputs = NETWORKS[name]
    torch.manual_seed(0)
    if name == CONVERTED:
        from torchvision.models import resnet18

        original = resnet18(**outputs).eval()
        network = copy.deepcopy(original)
        binarize(network, **BINARY, input_size=(3, *size))
        return network.eval(), original
    network = create_network(name, **outputs, **BINARY).eval()
    return network, network


@dataclass(frozen=True)
class Measured:
    """One network packed, its time beside the others' on this machine, and the operations of both networks."""

    name: str
    batch: int
    packed: PackedNetwork
    comparison: Comparison
    float_ops: float
    binary_ops: float

    def rows(self) -> pd.DataFrame:
        """A row for each contestant."""
        height, width = NETWORKS[self.name][0]
        with torch_threads(1):
            device = device_name(torch.device("cpu"))
        lines = []
        for contestant, values in self.comparison.milliseconds.items():
            lower, median, upper = self.comparison.quartiles(contestant)
            low, ratio, high = self.comparison.ratio(contestant)
            lines.append(
                {
                    "device": device,
                    "network": self.name,
                    "batch": self.batch,
                    "kernel": self.packed.kernel,
                    "contestant": contestant,
                    "height": height,
                    "width": width,
                    "ms": median,
                    "ms_lower": lower,
                    "ms_upper": upper,
                    "ratio": ratio,
                    "ratio_lower": low,
                    "ratio_upper": high,
                    "rounds": len(values),
                    "float_bytes": self.packed.report.float_bytes,
                    "packed_bytes": self.packed.report.packed_bytes,
                    "float_ops": self.float_ops,
                    "binary_ops": self.binary_ops,
                    "torch": torch.__version__,
                }
            )
        return pd.DataFrame(lines)


def compared(
    name: str, *, rounds: int = 25, batch: int = 1, kernel: str | None = None, rivals: tuple[str, ...] = ()
) -> Measured:
    """Pack one network and time it; `rivals` and `kernel` as in `packed.benchmark.compare` and `pack`."""
    size, outputs = NETWORKS[name]
    network, original = networks(name)
    packed = pack(network, size, kernel=kernel)
    comparison = compare(packed, original, size, batch=batch, rounds=rounds, names=rivals)
    twin = create_network(name, **outputs) if original is network else original
    binary_ops, float_ops = (cost(one, (3, *size))[-1].ops for one in (network, twin))
    return Measured(name, batch, packed, comparison, float_ops, binary_ops)


def measure(name: str, *, rounds: int = 25, rivals: tuple[str, ...] = ()) -> tuple[pd.DataFrame, PackedNetwork]:
    """The rows of one network on this machine, one image at a time, and the packed network."""
    measured = compared(name, rounds=rounds, rivals=rivals)
    return measured.rows(), measured.packed


def keep(frame: pd.DataFrame) -> None:
    """Put rows into results/packed.csv, in place of older ones of the same device, network, batch, kernel and
    contestant."""
    path = project_root() / "results" / "packed.csv"
    rounded = frame.copy()
    for column in ("ms", "ms_lower", "ms_upper", "ratio", "ratio_lower", "ratio_upper"):
        rounded[column] = rounded[column].map(lambda value: float(f"{value:.4g}"))
    rows = pd.concat([published(), rounded]) if path.is_file() else rounded
    rows = rows.drop_duplicates(KEY, keep="last").sort_values(KEY[:4], kind="stable")
    with atomic(path) as temporary:
        rows.to_csv(temporary, index=False)


def published() -> pd.DataFrame:
    """The rows of results/packed.csv."""
    return pd.read_csv(project_root() / "results" / "packed.csv")


def of_runs(rows: list[dict]) -> pd.DataFrame:
    """The first seed of each binary arm as a packed file, made from the run's checkpoint where that is here, else the
    published one: bytes, and its headline on the validation images beside the one that the run ended with."""
    lines, seen = [], set()
    for row in rows:
        name = run_packed.name_of(row)
        if name in seen or not all(binarizers_of(row)):
            continue
        seen.add(name)
        recipe = make_recipe(**row["recipe"])
        file = folder_of(recipe) / checkpoint.NAMES[0]
        published_file = run_packed.models() / recipe.profile / f"{name}{run_packed.SUFFIX}"
        file = run_packed.pack_checkpoint(file)[0] if file.is_file() else published_file
        value = run_packed.evaluate(file, None, torch.device("cpu"))[row["headline"]]
        digits = 2 if row["headline"] == "top1" else 4
        lines.append(
            {
                "run": f"{name}, seed {row['seed']}",
                "float32 parameters, kB": f"{4 * row['parameters'] / 1e3:,.0f}",
                "packed file, kB": f"{file.stat().st_size / 1e3:,.0f}",
                "measure": row["headline"],
                "run's end": f"{row['metrics'][row['headline']]:.{digits}f}",
                "packed file": f"{value:.{digits}f}",
            }
        )
    return pd.DataFrame(lines).set_index("run").rename_axis(None)


def here(profile: str) -> pd.DataFrame:
    """The rows that notebook 07 measured on this machine, where it did; else the published ones."""
    file = measured_here(profile)
    return pd.read_csv(file) if file.is_file() else published()


def measured_here(profile: str) -> Path:
    """The file of what notebook 07 measured."""
    return project_root() / "runs" / profile / "packed.csv"


def keep_here(frame: pd.DataFrame, profile: str) -> None:
    """Write what notebook 07 measured, for the verdict."""
    with atomic(measured_here(profile)) as temporary:
        frame.to_csv(temporary, index=False)


def best_int8(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each device, network, batch and kernel the fastest int8 contestant; its name says it."""
    int8 = rows[rows["contestant"].str.endswith("int8")]
    return int8.sort_values("ms").drop_duplicates(KEY[:4])


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One machine's networks, a line each: milliseconds packed, how many times that the others take, operations and
    bytes of the float twin over those of the binary network."""
    lines = []
    fastest = best_int8(rows).set_index(KEY[:4])
    for key, group in rows.groupby(KEY[:4], sort=False):
        contestants = group.set_index("contestant")
        first = contestants.loc[PACKED]
        line = {
            "network": f"{first['network']}, {first['height']}×{first['width']}",
            "kernel": first["kernel"],
            "packed, ms": f"{first['ms']:.3g}",
        }
        for title, name in (("torch", EAGER), ("channels_last", CHANNELS_LAST), ("onnxruntime", ONNXRUNTIME)):
            line[title] = f"{contestants.loc[name, 'ratio']:.1f}" if name in contestants.index else "–"
        line["fastest int8"] = "–"
        if key in fastest.index:
            name = fastest.loc[key, "contestant"].removesuffix(" int8")
            line["fastest int8"] = f"{fastest.loc[key, 'ratio']:.1f} ({name})"
        line["fewer OPs"] = f"{first['float_ops'] / first['binary_ops']:.1f}"
        line["fewer bytes"] = f"{first['float_bytes'] / first['packed_bytes']:.1f}"
        lines.append(line)
    return pd.DataFrame(lines).set_index("network").rename_axis(None)


def fastest_kernel(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the kernel that `pack` chose or that was the fastest there, of each device, network and batch."""
    packed = rows[rows["contestant"] == PACKED].sort_values("ms").drop_duplicates(KEY[:3])
    return rows.merge(packed[KEY[:4]], on=KEY[:4])


def floor(times: list[StepTime]) -> str:
    """Amdahl's law in a sentence: what would be left if binary convolutions cost nothing."""
    bits, floats, twin = (sum(getattr(step, name) for step in times) for name in ("bits", "floats", "twin"))
    share = 100 * floats / (bits + floats)
    return (
        f"Binary convolutions take {bits:.2f} ms, the float rest {floats:.2f} ms ({share:.0f} % of the time). If the "
        f"binary convolutions cost nothing, the network would be {twin / floats:.0f} times as fast as torch's float32 "
        f"instead of {twin / (bits + floats):.1f} times: the float stem and shortcuts are the floor."
    )


def balance(rows: pd.DataFrame) -> list[str]:
    """Performance against complexity, a sentence for each network: operations, time and bytes, twin over binary."""
    sentences = []
    for _, group in fastest_kernel(rows).groupby(KEY[:3], sort=False):
        contestants = group.set_index("contestant")
        first = contestants.loc[PACKED]
        sentence = f"{first['network']}: {first['float_ops'] / first['binary_ops']:.1f} times fewer OPs"
        sentence += f", {contestants.loc[EAGER, 'ratio']:.1f} times as fast as its float twin in torch"
        best = best_int8(group)
        if len(best):
            runtime = best.iloc[0]["contestant"].removesuffix(" int8")
            sentence += f", {best.iloc[0]['ratio']:.1f} times as fast as in int8 ({runtime})"
        sentences.append(f"{sentence}, {first['float_bytes'] / first['packed_bytes']:.1f} times smaller.")
    return sentences


def claim(rows: pd.DataFrame) -> tuple[str, str]:
    """The paper's claim of a better balance: what its network costs beside its float twin, and the verdict. At
    inference every estimator is sign, so that estimators are compared at equal cost, by accuracy alone."""
    rows = rows[rows["network"] == BALANCED]
    sentences = balance(rows)
    rivals = fastest_kernel(rows)
    rivals = rivals[rivals["contestant"].isin((EAGER, CHANNELS_LAST))]
    cheaper = len(rivals) > 0 and (rivals["ratio_lower"] > 1).all()
    return (
        f"{'; '.join(sentence.rstrip('.') for sentence in sentences)}; the same for every estimator",
        f"{'cheaper than float' if cheaper else 'not shown to be cheaper than float'}, as measured; between estimators "
        "the cost is equal, and the accuracy decides",
    )


def page(rows: pd.DataFrame) -> str:
    """A table for each machine, as Markdown."""
    parts = []
    for device, measured in fastest_kernel(rows).groupby("device", sort=False):
        parts += [f"**{device}**", tables.markdown(summary(measured).reset_index(names="network"))]
    return "\n\n".join(parts)


def headline(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one machine, for pages that have room for one: of those that measured the most networks the one on
    which `BALANCED` gains least over torch's float32."""
    counts = rows.groupby("device")["network"].nunique()
    complete = rows[rows["device"].isin(counts[counts == counts.max()].index)]
    gains = fastest_kernel(complete).query("network == @BALANCED and contestant == @EAGER").set_index("device")["ratio"]
    return rows[rows["device"] == (gains.idxmin() if len(gains) else complete["device"].iloc[0])]
