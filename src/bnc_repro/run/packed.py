"""Packed networks as files: made from checkpoints, judged as checkpoints are, and loaded by name.

No training imports this: what packed inference is made of stands in no run's fingerprint.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ..names import known
from ..packed import PackedNetwork, Report, benchmark, files, pack
from ..recipe.build import as_dict, make_recipe
from ..recipe.clone import project_root
from ..recipe.schema import Recipe
from . import judge

CPU = torch.device("cpu")
SUFFIX = ".safetensors"


class Model(NamedTuple):
    """A network with what its file says of it, and where it runs: a packed network on the CPU."""

    network: nn.Module
    recipe: Recipe
    labels: list[str]
    skeleton: dict | None
    device: torch.device


def load_network(path: str | Path, device: torch.device, own: Collection[str] = ()) -> Model:
    """What a checkpoint or a packed file holds. Raises ValueError as `judge.load_network` and `files.load` do."""
    if not files.is_packed(path):
        network, recipe, state = judge.network_and_state(path, device, own)
        return Model(network, recipe, state["labels"], state.get("skeleton"), device)
    loaded = files.load(path)
    if not loaded.recipe:
        raise ValueError(f"{path} carries no recipe, so its data is not known; pack it from a checkpoint")
    return Model(loaded.network, make_recipe(**loaded.recipe), loaded.labels, loaded.skeleton, CPU)


def evaluate(path: str | Path, data: str | None, device: torch.device, own: Collection[str] = ()) -> dict:
    """The metrics of a checkpoint or a packed file on the data it was judged by, or on another folder of the same kind;
    `own` as in `judge.load_network`."""
    network, recipe, labels, _, device = load_network(path, device, own)
    if data is None:
        try:
            folder = recipe.data.folder
        except ValueError as error:  # a relative one, outside of a clone
            raise ValueError(f"{error}, or name data for {path} with --data FOLDER") from error
        if not folder.is_dir():
            raise ValueError(f"{path} was judged on {folder}, which is not there: name the data with --data FOLDER")
    return judge.evaluate_network(network, recipe, labels, path, data, device)


def predict(path: str | Path, pictures: list[Path], device: torch.device, own: Collection[str] = ()) -> Iterator[dict]:
    """As `judge.predict_with`, of a checkpoint or a packed file."""
    network, recipe, labels, skeleton, device = load_network(path, device, own)
    facts = {"skeleton": skeleton} if skeleton else {}
    yield from judge.predict_with(network, recipe, labels, pictures, device, **facts)


def pack_checkpoint(path: Path, file: Path | None = None, own: Collection[str] = ()) -> tuple[Path, Report, int]:
    """Pack the network of a checkpoint into `file`, the checkpoint's name with .safetensors unless given; the file,
    what `pack` reports and the file's size in bytes. Raises ValueError for a network that is no program as a whole."""
    network, recipe, labels, skeleton, _ = load_unpacked(path, own)
    file = file or file_for(path)
    if file.resolve() == path.resolve():
        raise ValueError(f"{file} is the checkpoint itself; name another file for the packed network")
    packed = pack(network, recipe.data.image_size)
    return file, packed.report, files.save(packed, file, as_dict(recipe), list(labels), skeleton)


def compare(
    path: Path, *, batch: int = 1, rounds: int = 15, threads: int = 1, own: Collection[str] = ()
) -> tuple[Report, benchmark.Comparison]:
    """What packing the network of a checkpoint buys on this machine; see `packed.benchmark.compare`."""
    network, recipe, *_ = load_unpacked(path, own)
    size = recipe.data.image_size
    packed = pack(network, size)
    return packed.report, benchmark.compare(packed, network, size, batch=batch, rounds=rounds, threads=threads)


def file_for(checkpoint: Path) -> Path:
    """Where the packed network of a checkpoint is put unless a file is named. Raises ValueError for a device."""
    if checkpoint.absolute().is_relative_to("/dev") or checkpoint.absolute().is_relative_to("/proc"):
        raise ValueError(f"{checkpoint} has no folder of its own: name a FILE{SUFFIX} for the packed network")
    return checkpoint.with_suffix(SUFFIX)


def load_unpacked(path: Path, own: Collection[str]) -> Model:
    """As `load_network`, of a checkpoint alone."""
    if files.is_packed(path):
        raise ValueError(f"{path} is packed already; name the checkpoint that it was packed from")
    return load_network(path, CPU, own)


def models() -> Path:
    """The folder of published packed networks, results/models in the clone."""
    return project_root() / "results" / "models"


def published() -> list[str]:
    """The names of published packed networks, as in small/cifar10-binary."""
    return sorted(str(path.relative_to(models()).with_suffix("")) for path in models().glob(f"*/*{SUFFIX}"))


def name_of(row: dict) -> str:
    """The name of a row's packed network: <data>-<arm>, with `ablation` between them for arms of `linear_vs_soft`."""
    data = Path(row["recipe"]["data"]["root"]).name
    arm = row["arm"].partition(" on ")[0]
    middle = "ablation-" if row["experiment"] == "linear_vs_soft" else ""
    return f"{data}-{middle}{arm}".lower().replace(" ", "-")


def load(name_or_path: str | Path, kernel: str | None = None) -> PackedNetwork:
    """A packed network from its file, or by the name of a published one such as "small/cifar10-binary"; `kernel` as
    `pack` takes it. Raises ValueError for a name that is not published and for a damaged file."""
    if files.is_file(Path(name_or_path)):
        return files.load(name_or_path, kernel).network
    if Path(name_or_path).suffix:
        raise ValueError(f"there is no file {name_or_path}; pack a checkpoint by `python -m bnc_repro pack CHECKPOINT`")
    names = published()
    if not names:
        raise ValueError(f"there is no packed network {name_or_path}: nothing is published in {models()}")
    return files.load(models() / f"{known('packed network', str(name_or_path), names)}{SUFFIX}", kernel).network
