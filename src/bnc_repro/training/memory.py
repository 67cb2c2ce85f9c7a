"""How much memory a run will take, counted before any of it is taken, and how much there is."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from ..recipe.build import float_twin
from ..recipe.schema import Recipe
from . import distributed

CGROUPS = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
COPIES = {"adam": 4, "adamw": 4, "sgd": 3}  # of the weights: themselves, their gradients, the optimizer's moments


def free_mib() -> int | None:
    """Memory that new processes could take, in MiB: the system's, or what the control group leaves; None if unknown."""
    left = [most - taken for most, taken in _limits() if taken is not None]
    return min([*_meminfo("MemAvailable"), *(max(0, size) // 2**20 for size in left)], default=None)


def whole_mib(device: torch.device) -> int | None:
    """All the memory of a device in MiB, whoever uses it now: the GPU's, else the system's, or as much as the control
    group may have. None if unknown."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory // 2**20
    return min([*_meminfo("MemTotal"), *(most // 2**20 for most, _ in _limits())], default=None)


def _meminfo(name: str) -> list[int]:
    lines = MEMINFO.read_text().splitlines() if MEMINFO.is_file() else ()
    return [int(line.split()[1]) // 1024 for line in lines if line.startswith(f"{name}:")]


def _limits() -> Iterator[tuple[int, int | None]]:
    """What each control group of this process may have at most and has taken now, in bytes."""
    for folder, limit, used in (
        *((folder, "memory.max", "memory.current") for folder in control_groups("")),
        *((folder, "memory.limit_in_bytes", "memory.usage_in_bytes") for folder in control_groups("memory")),
    ):
        if (most := number_in(folder / limit)) is not None:
            yield most, number_in(folder / used)


def check_training(recipe: Recipe, make_network: Callable[[Recipe, int], nn.Module], device: torch.device) -> None:
    """Raises ValueError, with the numbers, for a network or a batch that all of the device's memory would not hold.

    make_network makes a recipe's network with so many outputs and sends an image through it; here it makes the float
    twin with one output on the meta device, which allocates nothing. Counted are the weights with what the optimizer
    keeps of each, and what the layers put out for one micro-batch. A run takes more, so none that fits is refused.
    """
    distinct: dict[int, Tensor] = {}  # an identity puts out what it was given

    def add(module: nn.Module, inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor) and not list(module.children()):
            distinct[id(output)] = output

    hook = register_module_forward_hook(add)
    try:
        with torch.device("meta"):
            network = make_network(float_twin(recipe), 1)
    finally:
        hook.remove()
    weights = sum(parameter.nbytes for parameter in network.parameters())
    outputs = sum(output.nbytes for output in distinct.values()) // (1 if recipe.precision == "float32" else 2)
    images = max(1, recipe.batch_size // (recipe.accumulate * distributed.size()))
    refuse_above(
        (weights * COPIES[recipe.optimizer] + outputs * images) / 2**20,
        f"this recipe's network has {weights / 4e6:.1f} million weights, and its layers put out "
        f"{outputs / 2**20:.1f} MiB for each of {images} images at once",
        "lower width, blocks, data.image_size or batch_size, or raise accumulate",
        device,
    )


def evaluation_batch(most: int, size: tuple[int, int]) -> int:
    """So many images of `size` (H, W) at once in evaluation, `most` unless they alone would take more than a GiB."""
    return max(1, min(most, 2**30 // (3 * 4 * size[0] * size[1])))


def refuse_above(needed_mib: float, what: str, remedy: str, device: torch.device) -> None:
    """Raises ValueError when `needed_mib` is more than all of the device's memory."""
    whole_gib = (whole_mib(device) or math.inf) / 1024
    if needed_mib / 1024 > whole_gib:
        raise ValueError(
            f"{what}: that takes at least {needed_mib / 1024:,.1f} GiB of memory, and {device.type} has "
            f"{whole_gib:,.1f} GiB; {remedy}"
        )


def control_groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those above it: version 1's of `controller`, or version 2's
    ("")."""
    listed = Path("/proc/self/cgroup")
    for line in listed.read_text().splitlines() if listed.is_file() else ():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            root = CGROUPS / controller
            inner = root / path.lstrip("/")
            yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root) and folder.is_dir())


def number_in(path: Path) -> int | None:
    """The natural number in a file; None for a file that is not there, or that says there is no limit."""
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdecimal() else None
