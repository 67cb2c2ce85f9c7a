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
from .layers.ends import checked_model
from .layers.inspect import checked_size, evaluating, passing, placed

COUNTED = (nn.modules.conv._ConvNd, nn.Linear, nn.RNNBase)  # layers with a line of their own
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

    The network is left as it was. Raises ValueError if an input of this size does not pass through it, for a size that
    is none, and for what is no model.
    """
    checked_model(network)
    size = checked_size(input_size)
    layers = {name: module for name, module in network.named_modules() if isinstance(module, COUNTED)}
    counter = FlopCounterMode(display=False)
    with (
        passing(size),
        evaluating(network),
        buffers_kept(network),
        _counted_as_sign(network),
        _products(layers, counter) as seen,
        _recurrent(layers) as of_recurrent,
        sdpa_kernel(SDPBackend.MATH),
        counter,
    ):
        network(placed(network, torch.zeros(1, *size)))
    bits_and_parameters = _stored(layers)
    costs = []
    for name, layer in layers.items():
        products = of_recurrent.get(name, seen.get(name, 0))
        operations = (products, 0) if is_binary(layer) else (0, products)
        bits, parameters = bits_and_parameters[name]
        costs.append(Cost(name, type(layer).__name__, parameters, bits, *operations))
    products = counter.get_total_flops() // 2 - sum(seen.values())
    parameters = sum(p.numel() for p in network.parameters()) - sum(layer.parameters for layer in costs)
    costs.append(Cost("the rest", "norms, activations, functions", parameters, BITS * parameters, 0, products))
    sums = (sum(getattr(layer, key) for layer in costs) for key in ("parameters", "bits", "bops", "flops"))
    return [*costs, Cost("total", type(network).__name__, *sums)]


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Every buffer of `network` is afterwards as before, whatever its forward writes into it or puts in its place."""
    held = [
        (module, name, buffer, buffer.detach().clone())
        for module in network.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, value in held:
                buffer.copy_(value)
                module._buffers[name] = buffer


def _stored(layers: Mapping[str, nn.Module]) -> dict[str, tuple[int, int]]:
    """Bits and number of each layer's parameters. A tensor of several layers is the first one's, and float if one of
    them takes it as float; what a parametrization makes a weight of is the weight's."""
    binary = {name: layer for name, layer in layers.items() if has_binary_weight(layer)}
    as_bits = {id(layer._parameters.get("weight")) for layer in binary.values()}
    as_floats = {
        id(parameter)
        for name, layer in layers.items()
        for key, parameter in layer._parameters.items()
        if name not in binary or key != "weight"
    }
    stored, counted = {}, set()
    for name, layer in layers.items():
        parametrized = layer._modules.get("parametrizations")
        made_of = dict(parametrized.named_parameters()) if parametrized is not None else {}
        uncounted = [p for p in (*layer.parameters(recurse=False), *made_of.values()) if id(p) not in counted]
        counted |= {id(parameter) for parameter in uncounted}
        parameters = sum(parameter.numel() for parameter in uncounted)
        floats, bits = parameters, 0
        if name in binary:
            single = [parameter for key, parameter in made_of.items() if key.startswith("weight.")]
            single = single or [p for p in uncounted if id(p) in as_bits - as_floats]
            if single:
                weight = layer.weight
                assert isinstance(weight, torch.Tensor)
                floats += weight.shape[0] - sum(parameter.numel() for parameter in single)
                bits = weight.numel()
        stored[name] = bits + BITS * floats, parameters
    return stored


@contextmanager
def _products(layers: Mapping[str, nn.Module], counter: FlopCounterMode) -> Iterator[dict[str, int]]:
    """The products of each layer by name, in all its calls, whoever makes them."""
    products: dict[str, int] = {}

    def start(name: str, *_) -> None:
        products[name] = products.get(name, 0) - counter.get_total_flops() // 2

    def end(name: str, *_) -> None:
        products[name] += counter.get_total_flops() // 2

    handles = []
    for name, layer in layers.items():
        handles.append(layer.register_forward_pre_hook(partial(start, name)))
        handles.append(layer.register_forward_hook(partial(end, name)))
    try:
        yield products
    finally:
        for handle in handles:
            handle.remove()


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
