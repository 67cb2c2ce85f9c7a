"""`pack`: a trained binary network as one whose binary layers are computed by bits."""

import json
import math
import operator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ..binarizers.base import Binarizer
from ..layers.binary import BinaryConv2d, BinaryLinear
from ..layers.ends import WEIGHTED, channels_of, checked_model, tensors_in
from ..training import memory
from .agreement import CLOSE, Reference, compare, copy_of, difference_of, line_of, own_outputs, packed_outputs
from .description import described, plan_from
from .engine import (
    Engine,
    Kept,
    as_operator,
    check_images,
    chosen,
    kernels_at_hand,
    refuse_converted,
    refuse_transformed,
)
from .packing import Plan, plan_of
from .replacement import pack_layers

__all__ = ["PackedNetwork", "Report", "compare", "pack"]

TRIES = 4  # batches of random images of one size, for one that has no tie
SMALLEST = 32  # px, of the images for which a program is tried when larger ones have ties


@dataclass
class Report:
    """What `pack` did: a line for each layer (name, packed or float, why), the kernel and why, bytes of the float
    network and of the packed one, and how the outputs compare with float64's on random images (of another size than
    asked for: `compared_at`), or why they were not compared."""

    kernel: str
    why: str
    tier: str
    layers: list[tuple[str, str, str]]
    packed_bytes: int
    float_bytes: int = 0
    difference: float = math.nan
    ties: dict[str, int] = field(default_factory=dict)
    not_compared: str = ""
    compared_at: tuple[int, int] | None = None
    no_program: str = ""

    @property
    def agrees(self) -> bool:
        """Whether outputs agree with float64's to `CLOSE` of the largest, signs within rounding of 0 being taken to be
        what they are in the packed network."""
        return self.difference <= CLOSE

    def __str__(self) -> str:
        packed = [name for name, kind, _ in self.layers if kind == "packed"]
        lines = [f"{len(packed)} binary layers by bits ({self.tier}), kernel {self.kernel}: {self.why}"]
        if self.float_bytes:
            lines.append(
                f"{self.float_bytes / 1e6:.2f} MB -> {self.packed_bytes / 1e6:.2f} MB, "
                f"{self.float_bytes / self.packed_bytes:.1f} times smaller"
            )
        lines += [f"float: {name}, {why}" for name, kind, why in self.layers if kind == "float"]
        if self.no_program:
            lines.append(f"no program as a whole: {self.no_program}")
        if not math.isnan(self.difference):
            where = f", for images of {' x '.join(map(str, self.compared_at))}" if self.compared_at else ""
            lines.append(f"largest difference to float64: {self.difference:.1e} of the largest output{where}")
        if self.not_compared:
            lines.append(f"not compared: {self.not_compared}")
        if self.ties:
            counts = ", ".join(f"{count} of {name}" for name, count in self.ties.items())
            lines.append(f"inputs within rounding of 0, whose sign may fall either way: {counts}")
        return "\n".join(lines)


class PackedNetwork(nn.Module):
    """Images (N, C, H, W), float32 on the CPU -> what the network gives: logits (N, K) or heatmaps (N, K, H', W').

    `plan` is None where the network was packed layer by layer; `network` then is a copy with packed layers. Its
    state is `bits` and `floats`. `report` says what is packed, and what stays float and why.
    """

    bits: Tensor
    floats: Tensor

    def __init__(self, plan: Plan | None, kernel: str | None = None, network: nn.Module | None = None) -> None:
        super().__init__()
        kernels_at_hand()
        self.kernel, why = chosen(kernel)
        self.plan, self.network, self.description = plan, network, ""
        if plan is not None:
            bits, floats, self.description = described(plan)
            self.register_buffer("bits", torch.from_numpy(bits))
            self.register_buffer("floats", torch.from_numpy(floats))
        tier = "the whole network as one program" if plan is not None else "layer by layer inside torch"
        self.report = Report(self.kernel, why, tier, plan.layers if plan else [], bytes_of(self))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        refuse_transformed(images)
        # A conversion takes all numbers with it, so one of the float rest tells; packed layers look at their own.
        if self.network is not None:
            refuse_converted(images, *islice(self.network.parameters(), 1))
            return self.network(images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images)
        assert self.plan is not None
        refuse_converted(images, self.bits, self.floats)
        check_images(images, self.plan)
        return packed_network(images, self.bits, self.floats, self.description, self.kernel)

    def train(self, mode: bool = True) -> "PackedNetwork":
        """Raises ValueError for True: a packed network is for evaluation."""
        if mode:
            raise ValueError("a packed network cannot be trained: train the network it was packed from, and pack again")
        return super().train(False)


def pack(
    network: nn.Module, input_size: tuple[int, int], *, kernel: str | None = None, check: bool = True
) -> PackedNetwork:
    """`network`, trained and in evaluation mode, for images of `input_size` (H, W), with its binary layers by bits.

    ResNet classifiers and SBPN become one program; in any other network, and in those that were hooked or changed, the
    binary layers are replaced one by one. `kernel`: "popcount" (any processor) or "tables" (AVX2); the faster one for
    this processor unless named. With `check` the outputs for random images must agree with float64's; where rounding
    moves even the network's own outputs, or it does not take such images, `PackedNetwork.report` says so. A program for
    which ties leave that open gives way to single layers. `network` is left as it is. Raises ValueError for a network
    in training mode, on a GPU, in another precision than float32, or without a binary layer that bits can compute, for
    one that cannot be copied or is compiled by torch.jit, whose outputs are not finite or are not what its packed
    layers give, and where numba is missing.
    """
    checked_model(network)
    for name, module in network.named_modules():
        if module.training:
            where = f", and its {name} is in training" if name and not network.training else ""
            raise ValueError(f"a network is packed in evaluation mode{where}: call .eval() first")
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.device.type != "cpu":
            raise ValueError(f"packed inference runs on the CPU, {name} is on {tensor.device}: call .cpu() first")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ValueError(f"a network is packed from float32, {name} is {tensor.dtype}: call .float() first")
    size = _size(input_size)
    memory.refuse_above(
        3 * 8 * 2 * size[0] * size[1] / 2**20,
        f"two images of {size[0]} x {size[1]} px in float64, for the comparison",
        "pack for smaller ones",
        torch.device("cpu"),
    )
    kernels_at_hand()
    plan = plan_of(network, size)
    if not check:
        return _as_program(plan, network, kernel) if plan else _layer_by_layer(network, kernel)
    no_program = ""
    if plan:
        packed = _as_program(plan, network, kernel)
        no_program = _program_differs(network, packed, plan)
        if not no_program:
            return packed
    for folded in (True, False):
        packed = _layer_by_layer(network, kernel, folded)
        packed.report.no_program = no_program
        if not _layers_differ(network, packed, size, plan.channels if plan else 0):
            return packed
    raise ValueError(
        f"packed, this network's outputs differ by {packed.report.difference:.1e} of the largest, which no rounding "
        "explains: look for a global hook, or a forward that does with a binary layer more than to call it, and take "
        "it away or keep that layer float"
    )


def _as_program(plan: Plan, network: nn.Module, kernel: str | None) -> PackedNetwork:
    packed = PackedNetwork(plan, kernel)
    packed.report.float_bytes = bytes_of(network)
    return packed


def _layer_by_layer(network: nn.Module, kernel: str | None, folded: bool = True) -> PackedNetwork:
    """A copy of `network` whose binary layers are replaced one by one, and norms folded. Raises ValueError where no
    layer can be."""
    copied = copy_of(network)
    if isinstance(copied, (BinaryConv2d, BinaryLinear)):
        copied = nn.Sequential(copied)  # a layer alone has no parent that another could be put into
    packed = PackedNetwork(None, kernel, copied)
    packed.report.layers = pack_layers(copied, kernel, fold_norms=folded)
    packed.report.packed_bytes, packed.report.float_bytes = bytes_of(packed), bytes_of(network)
    if all(kind == "float" for _, kind, _ in packed.report.layers):
        reasons = "; ".join(f"{name}: {why}" for name, _, why in packed.report.layers[:3])
        raise ValueError(f"no layer of this network can be computed by bits ({reasons or 'it has no binary layer'})")
    within = {part for module in copied.modules() if isinstance(module, Binarizer) for part in module.modules()}
    packed.report.layers += [
        (name, "float", "it was not made binary")
        for name, module in copied.named_modules()
        if isinstance(module, WEIGHTED)
        and not isinstance(module, (BinaryConv2d, BinaryLinear))
        and module not in within
    ]
    return packed


def _size(input_size: tuple[int, int]) -> tuple[int, int]:
    try:
        height, width = map(operator.index, input_size)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(f"input_size is (height, width) in px, two positive integers, got {input_size!r}")
    return height, width


def bytes_of(network: nn.Module) -> int:
    """The bytes of all parameters and buffers."""
    tensors = {id(tensor): tensor for tensor in [*network.parameters(), *network.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _random(seed: int, channels: int, size: tuple[int, int]) -> Tensor:
    """Images that a packed network is tried with: two of the first seed, one of any other."""
    draw = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(1 if seed else 2, channels, *size, generator=draw, dtype=torch.float32, device="cpu")


def _refuse_not_finite(expected: Any) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in tensors_in(expected)):
        raise ValueError(
            "this network gives outputs that are not finite, which nothing can be compared with: look for NaN in its "
            "weights and the statistics of its norms"
        )


def _program_differs(network: nn.Module, packed: PackedNetwork, plan: Plan) -> str:
    """Why a program is not taken; empty where its outputs agree. The report is filled in.

    A batch decides only if it has no tie and the network's own float32 outputs agree with float64's. Large images have
    ties in each, so smaller ones are tried after them, with the same weights.
    """
    reference, report, kernel, size = Reference(network), packed.report, packed.kernel, plan.size
    undecided = "signs within rounding of 0 leave open whether its outputs agree"
    while True:
        for seed in range(TRIES):
            images = _random(seed, plan.channels, size)
            try:
                expected, ties = reference(images)
            except ValueError:  # a pose network takes sizes of whole strides alone
                if size == plan.size:
                    raise
                return undecided
            _refuse_not_finite(expected)
            difference = difference_of(packed_outputs(packed, images)[0], expected)
            if seed == 0 and size == plan.size:
                report.ties = ties
            if difference <= CLOSE:
                report.difference, report.compared_at = difference, None if size == plan.size else size
                return ""
            if not ties and difference_of(own_outputs(network, images)[0], expected) <= CLOSE:
                return f"its outputs differ by {difference:.1e} of the largest"
        smaller = size[0] // 2, size[1] // 2
        other = plan_of(network, smaller) if min(smaller) >= SMALLEST else None
        if other is None:
            return undecided
        size, packed = smaller, PackedNetwork(other, kernel)


def _layers_differ(network: nn.Module, packed: PackedNetwork, size: tuple[int, int], channels: int) -> bool:
    """Whether outputs differ by more than rounding explains, each sign within rounding of 0 being what the packed
    layers made it; the report is filled in. Raises ValueError where only the packed network fails."""
    reference, report = Reference(network), packed.report
    images = _random(0, channels or channels_of(network, size), size)
    try:
        expected, report.ties = reference(images)
    except Exception as error:  # the images are guessed: a network may take others
        report.not_compared = f"on images {tuple(images.shape)} the network itself fails in float64, {line_of(error)}"
        return False
    if not list(tensors_in(expected)):
        report.not_compared = f"the network gives a {type(expected).__name__} without tensors"
        return False
    _refuse_not_finite(expected)
    outputs, near = packed_outputs(packed, images)
    report.difference = difference_of(outputs, expected)
    if report.difference > CLOSE:
        report.difference = difference_of(outputs, reference(images, near)[0])
    if report.difference <= CLOSE:
        return False
    own, near = own_outputs(network, images)
    moved = difference_of(own, reference(images, near)[0])
    if moved > CLOSE and min(report.difference, difference_of(outputs, own)) <= 2 * moved:
        report.not_compared = f"rounding moves even the network's own outputs by {moved:.1e} of the largest"
        return False
    return True


_engines = Kept(8)


@as_operator("packed_network(Tensor images, Tensor bits, Tensor floats, str description, str kernel) -> Tensor")
def packed_network(images: Tensor, bits: Tensor, floats: Tensor, description: str, kernel: str) -> Tensor:
    """A whole packed network, (N, C, H, W) -> (N, ...); the rest as `description.described` writes it."""
    arrays = bits.numpy(), floats.numpy()
    return _engines((bits, floats), (kernel, description), lambda: Engine(plan_from(*arrays, description), kernel))(
        images
    )


@torch.library.register_fake(packed_network)
def _(images: Tensor, bits: Tensor, floats: Tensor, description: str, kernel: str) -> Tensor:
    return images.new_empty(len(images), *json.loads(description)["output"])
