"""How packed outputs compare with those of the same network in float64, and which signs rounding leaves open."""

import copy
import math
from functools import partial

import torch
from torch import Tensor, nn

from ..layers.binary import BinaryConv2d, BinaryLinear
from ..layers.ends import tensors_in
from ..layers.inspect import evaluating

TIE = 1e-6  # of the deviation of a layer's inputs: so near to 0 they may be rounded to the other side


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


def own_outputs(network: nn.Module, images: Tensor):
    """What a copy of `network` gives in float32."""
    copied = copy_of(network)
    with evaluating(copied):
        return copied(images)


def packed_outputs(packed: nn.Module, images: Tensor):
    """What the packed network gives. Raises ValueError where it fails, with what may be the reason."""
    try:
        with torch.no_grad():
            return packed(images)
    except Exception as error:
        raise ValueError(
            f"packed, this network fails where it did not before ({line_of(error)}): let its forward call its binary "
            "layers with float32 on the CPU and read nothing else of them, or keep them float"
        ) from error


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
    """A copy of a network in float64: images -> its outputs, and the ties by layer."""

    def __init__(self, network: nn.Module) -> None:
        self._exact, self._ties = copy_of(network), {}
        for layer in self._exact.modules():
            if isinstance(layer, (BinaryConv2d, BinaryLinear)):
                _hold_weight(layer)
        self._exact.double()
        for name, layer in self._exact.named_modules():
            if isinstance(layer, (BinaryConv2d, BinaryLinear)) and layer.activation_binarizer is not None:
                layer.register_forward_pre_hook(partial(self._look, name), with_kwargs=True)

    def _look(self, name: str, _: nn.Module, inputs: tuple, named: dict) -> None:
        x = next(tensors_in((inputs, named)))
        values = x.abs()
        near = int(((values > 0) & (values <= TIE * x.std())).sum()) if values.numel() > 1 else 0
        if near:
            self._ties[name] = self._ties.get(name, 0) + near

    def __call__(self, images: Tensor):
        self._ties = {}
        with evaluating(self._exact):
            return self._exact(images.double()), self._ties


def compare(network: nn.Module, packed: nn.Module, images: Tensor) -> tuple[float, dict[str, int]]:
    """The largest difference of the packed outputs to those of `network` in float64, as a share of the largest output;
    and the ties of these images: for each binary layer how many of its inputs are within rounding of 0, if any.

    Outputs may be tensors in nested lists, tuples, mappings and dataclasses; each is compared as a share of its own
    largest number. A sign within rounding of 0 may fall to either side, in torch's float32 as here; what follows
    differs then by far more than rounding. Exact zeros are no ties. Weights keep the signs of float32: centring in
    float64 turns those within rounding of their mean.
    """
    expected, ties = Reference(network)(images)
    with torch.no_grad():
        return difference_of(packed(images), expected), ties
