"""How packed outputs compare with those of the same network in float64, and which signs rounding leaves open.

A sign within rounding of 0 may fall to either side, in torch's float32 as in a packed network's; what follows differs
then by far more than rounding. So the network in float64 can be asked again with the signs that another one took there:
what still differs no tie explains.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.binary import BinaryConv2d, BinaryLinear
from ..layers.ends import tensors_in
from ..layers.inspect import evaluating
from .layers import PackedConv2d, PackedLinear

TIE = 1e-6  # of the deviation of a layer's inputs: so near to 0 they may be rounded to the other side
NEAR = 1e-4  # of the same: where inputs of many layers' rounding may be
CLOSE = 1e-4  # of the largest output: what rounding without a tie explains

Near = dict[str, list[tuple[Tensor, Tensor]]]  # by layer and call: which inputs are near to 0 (flat), and what they are


def copy_of(network: nn.Module) -> nn.Module:
    """A deep copy. Raises ValueError, with the remedy, for a network that refuses it."""
    try:
        return copy.deepcopy(network)
    except Exception as error:  # whatever a foreign module or tensor makes of it
        raise ValueError(
            f"this network cannot be copied ({line_of(error)}), and packing works on a copy: delete outputs that it "
            "keeps as attributes, and put torch.nn.utils.parametrizations.weight_norm in place of the older weight_norm"
        ) from error


def line_of(error: Exception) -> str:
    """The first line of an error's message, or its class."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def own_outputs(network: nn.Module, images: Tensor) -> tuple[Any, Near]:
    """What a copy of `network` gives in float32, and the inputs of its layers near 0."""
    copied = copy_of(network)
    with evaluating(copied), _near(copied) as near:
        return copied(images), near


def packed_outputs(packed: nn.Module, images: Tensor) -> tuple[Any, Near]:
    """What the packed network gives, and the inputs of its layers near 0, as far as it has layers. Raises ValueError
    where it fails, with what may be the reason."""
    try:
        network = getattr(packed, "network", None)
        with torch.no_grad(), _near(packed if network is None else network) as near:
            return packed(images), near
    except Exception as error:
        raise ValueError(
            f"packed, this network fails where it did not before ({line_of(error)}): let its forward call its binary "
            "layers with float32 on the CPU and read nothing else of them, or keep them float"
        ) from error


def _watched(network: nn.Module, hook: Callable) -> list:
    """Handles of `hook(name, layer, inputs, named)` before each call of each layer that takes signs, packed or not."""
    kinds = (BinaryConv2d, BinaryLinear, PackedConv2d, PackedLinear)
    return [
        layer.register_forward_pre_hook(partial(hook, name), with_kwargs=True)
        for name, layer in network.named_modules()
        if isinstance(layer, kinds) and getattr(layer, "activation_binarizer", layer) is not None
    ]


@contextmanager
def _near(network: nn.Module) -> Iterator[Near]:
    """Collects the inputs of layers near 0 from the calls within."""
    near: Near = defaultdict(list)

    def look(name: str, _: nn.Module, inputs: tuple, named: dict) -> None:
        x = next(tensors_in((inputs, named))).detach().flatten()
        where = (x.abs() <= 2 * NEAR * x.std()).nonzero().flatten() if x.numel() > 1 else x.new_empty(0).long()
        near[name].append((where, x[where]))

    handles = _watched(network, look)
    try:
        yield near
    finally:
        for handle in handles:
            handle.remove()


def difference_of(outputs, expected) -> float:
    """The largest difference of two outputs, each tensor's as a share of its largest number; inf for other shapes."""
    pairs = list(tensors_in(outputs)), list(tensors_in(expected))
    if [tensor.shape for tensor in pairs[0]] != [tensor.shape for tensor in pairs[1]]:
        return math.inf
    largest = 0.0
    for output, tensor in zip(*pairs, strict=True):
        if tensor.numel():
            wide = torch.complex128 if tensor.is_complex() else torch.float64
            tensor = tensor.to(wide)
            size = tensor.abs().amax().item()
            apart = (output.to(wide) - tensor).abs().amax().item()
            share = apart / size if size else (math.inf if apart else 0.0)
            largest = max(largest, math.inf if math.isnan(share) else share)
    return largest


def _hold_weight(layer: BinaryConv2d | BinaryLinear) -> None:
    """From now on the layer's binary weight is today's, in float64."""
    weight = layer.binary_weight().detach().double()
    layer.binary_weight = lambda: weight


class Reference:
    """A copy of a network in float64: images, and inputs near 0 to take from another one -> its outputs, and the ties
    by layer."""

    def __init__(self, network: nn.Module) -> None:
        self._exact = copy_of(network)
        self._ties: dict[str, int] = {}
        self._taken: Near = {}
        for layer in self._exact.modules():
            if isinstance(layer, (BinaryConv2d, BinaryLinear)):
                _hold_weight(layer)
        self._exact.double()
        _watched(self._exact, self._look)

    def _look(self, name: str, _: nn.Module, inputs: tuple, named: dict) -> tuple[tuple, dict]:
        x = next(tensors_in((inputs, named)))
        deviation = x.std() if x.numel() > 1 else x.new_zeros(())
        near = int(((x != 0) & (x.abs() <= TIE * deviation)).sum())
        if near:
            self._ties[name] = self._ties.get(name, 0) + near
        if calls := self._taken.get(name):
            other = _taken(x, *calls.pop(0), NEAR * float(deviation))
            inputs = tuple(other if value is x else value for value in inputs)
            named = {key: other if value is x else value for key, value in named.items()}
        return inputs, named

    def __call__(self, images: Tensor, near: Near | None = None) -> tuple[Any, dict[str, int]]:
        self._ties, self._taken = {}, {name: list(calls) for name, calls in (near or {}).items()}
        with evaluating(self._exact):
            return self._exact(images.double()), self._ties


def _taken(x: Tensor, where: Tensor, values: Tensor, near: float) -> Tensor:
    """x with those of another's `values` at the places `where` that are the same but for rounding, and within `near`
    of 0."""
    flat = x.flatten().clone()
    inside = where < len(flat)
    where, values = where[inside], values[inside].to(x.dtype)
    same = (flat[where].abs() <= near) & ((flat[where] - values).abs() <= near)
    flat[where[same]] = values[same]
    return flat.view(x.shape)


def compare(network: nn.Module, packed: nn.Module, images: Tensor) -> tuple[float, dict[str, int]]:
    """The largest difference of the packed outputs to those of `network` in float64, as a share of the largest output;
    and the ties of these images: for each binary layer how many of its inputs are within rounding of 0, if any.

    Outputs may be tensors in nested lists, tuples, mappings and dataclasses; each is compared as a share of its own
    largest number. Exact zeros are no ties. Weights keep the signs of float32: centring in float64 turns those within
    rounding of their mean.
    """
    expected, ties = Reference(network)(images)
    with torch.no_grad():
        return difference_of(packed(images), expected), ties
