"""What a network costs at one input size: bits of its weights, binary and float operations.

A multiply-accumulate counts once. BOPs are those of layers whose weights and inputs are both two-valued; FLOPs
are all others, in layers and in functions such as attention. OPs = FLOPs + BOPs / 64, as Bi-Real Net (1808.00278)
counts: a 64-bit word takes 64 binary products at a time. Batch normalisation, activations, pooling and scales are
not counted, as in that paper, nor is the binarizer, a comparison at inference whatever it was in training.
Operations are seen by torch's own flop counter in one forward pass.
Bits: 1 for a binary weight, 32 for every other parameter, scales (one per output channel) included.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .binarizers.sign import sign
from .layers.binary import BinaryConv2d, BinaryLinear
from .layers.inspect import checked_size, evaluating, passing, placed

WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear, nn.RNNBase)
BITS = 32


@dataclass(frozen=True)
class Cost:
    """The cost of one layer, or of a whole network: `layer` names it."""

    layer: str
    kind: str
    parameters: int
    bits: int
    bops: int
    flops: int

    @property
    def ops(self) -> float:
        """FLOPs + BOPs / 64."""
        return self.flops + self.bops / 64


def cost(network: nn.Module, input_size: tuple[int, ...]) -> list[Cost]:
    """The costs of each layer with weights, of `the rest`, and last of the `total`, for one input (C, H, W).

    The network is left as it was. Raises ValueError if an input of this size does not pass through it, and for a size
    that is none.
    """
    size = checked_size(input_size)
    layers = {name: module for name, module in network.named_modules() if isinstance(module, WEIGHTED)}
    counter = FlopCounterMode(display=False)
    with (
        passing(size),
        evaluating(network),
        _counted_as_sign(network),
        _recurrent(layers) as of_recurrent,
        sdpa_kernel(SDPBackend.MATH),
        counter,
    ):
        network(placed(network, torch.zeros(1, *size)))
    counted = counter.get_flop_counts()
    top = type(network).__name__
    costs, unseen = [], 0
    for name, layer in layers.items():
        seen = sum(counted.get(f"{top}.{name}" if name else top, {}).values()) // 2
        products = of_recurrent.get(name, seen)
        unseen += products - seen
        operations = (products, 0) if is_binary(layer) else (0, products)
        weights = channels = 0
        if isinstance(layer, (BinaryConv2d, BinaryLinear)) and has_binary_weight(layer):
            weights, channels = layer.weight.numel(), layer.weight.shape[0]
        parameters = sum(p.numel() for p in layer.parameters(recurse=False))
        bits = weights + BITS * (parameters - weights + channels)
        costs.append(Cost(name, type(layer).__name__, parameters, bits, *operations))
    products = sum(counted.get("Global", {}).values()) // 2 + unseen - sum(layer.bops + layer.flops for layer in costs)
    parameters = sum(p.numel() for p in network.parameters()) - sum(layer.parameters for layer in costs)
    costs.append(Cost("the rest", "norms, activations, functions", parameters, BITS * parameters, 0, products))
    sums = (sum(getattr(layer, key) for layer in costs) for key in ("parameters", "bits", "bops", "flops"))
    return [*costs, Cost("total", type(network).__name__, *sums)]


@contextmanager
def _recurrent(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, int]]:
    """The products of recurrent layers by name, of which torch's counter sees a part: each weight once a step."""
    products: dict[str, int] = {}

    def count(name: str, layer: nn.Module, inputs: tuple, named: dict) -> None:
        sequence = inputs[0] if inputs else named["input"]
        steps = sequence.data if isinstance(sequence, nn.utils.rnn.PackedSequence) else sequence
        weights = sum(parameter.numel() for parameter in layer.parameters() if parameter.dim() > 1)
        products[name] = products.get(name, 0) + steps.shape[:-1].numel() * weights

    handles = [
        layer.register_forward_pre_hook(partial(count, name), with_kwargs=True)
        for name, layer in layers.items()
        if isinstance(layer, nn.RNNBase)
    ]
    try:
        yield products
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _counted_as_sign(network: nn.Module) -> Iterator[None]:
    layers = [module for module in network.modules() if isinstance(module, (BinaryConv2d, BinaryLinear))]
    operands = {layer.weight_binarizer for layer in layers} | {layer.activation_binarizer for layer in layers}
    binarizers = [binarizer for binarizer in operands if binarizer is not None]
    for binarizer in binarizers:
        binarizer.forward = sign
    try:
        yield
    finally:
        for binarizer in binarizers:
            del binarizer.forward


def has_binary_weight(layer: nn.Module) -> bool:
    """Whether two values per output channel multiply this layer's input."""
    return isinstance(layer, (BinaryConv2d, BinaryLinear)) and layer.weight_binarizer is not None


def is_binary(layer: nn.Module) -> bool:
    """Whether both operands of this layer are two-valued."""
    return has_binary_weight(layer) and layer.activation_binarizer is not None


def table(costs: list[Cost]) -> str:
    """A line per layer with its bits, BOPs, FLOPs and OPs."""
    lines = [("layer", "kind", "parameters", "bits", "BOPs", "FLOPs", "OPs")]
    lines += [
        (c.layer, c.kind, f"{c.parameters:,}", f"{c.bits:,}", f"{c.bops:,}", f"{c.flops:,}", f"{c.ops:,.0f}")
        for c in costs
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    form = "  ".join(f"{{:{'<' if i < 2 else '>'}{width}}}" for i, width in enumerate(widths))
    return "\n".join(form.format(*line) for line in lines)
