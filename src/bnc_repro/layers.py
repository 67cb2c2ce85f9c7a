"""Binary convolution and linear layer: torch's own layers with a binarizer before each operand.

forward: y = conv(b_a(x), alpha b_w(w_c)), w_c = weight minus its mean per output channel, alpha = mean abs(w_c)
per output channel without gradient (2205.07433, released code; the scale is XNOR-Net's). With
`standardize=True` the weights are divided by their deviation too before they are binarized (IR-Net).
`None` for both binarizers is the float layer. `weight` stays `weight`, so float checkpoints load.
A layer owns the binarizers it makes from names; an instance belongs to whoever made it (a network holds its
shared classifier once, at the top, unless `own_binarizers` gives each layer a copy). Zero padding comes after
the sign: border inputs are 0, as everywhere in this field; bit-packed inference must know.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import ops
from .binarizers import get
from .learnt import Classifier
from .straight_through import Binarizer


class _BinaryOperands(nn.Module):
    """What both binary layers share: the two binarizers and the binary weight."""

    table: Callable[[Tensor], Tensor] | None = None  # this step's, or its polynomial, if `share_tables` made one

    def _set_binarizers(self, weight_binarizer, activation_binarizer, standardize: bool) -> None:
        self.standardize = standardize
        for name, given in (("weight_binarizer", weight_binarizer), ("activation_binarizer", activation_binarizer)):
            made = get(given)
            if isinstance(given, Binarizer):
                object.__setattr__(self, name, made)  # not registered: the giver holds it
            else:
                setattr(self, name, made)

    def binary_weight(self) -> Tensor:
        """alpha b_w(w_c), two values per output channel; the plain weight if it stays float."""
        if self.weight_binarizer is None:
            return self.weight
        latent, scale = self.latent_and_scale()
        return scale * (self.weight_binarizer(latent, self.table) if self.table else self.weight_binarizer(latent))

    def latent_and_scale(self) -> tuple[Tensor, Tensor]:
        """`latent_weight`, and alpha (O, 1, ...)."""
        centered = ops.center(self.weight)
        latent = ops.standardize(self.weight) if self.standardize else centered
        return latent, ops.channel_scale(centered)

    def latent_weight(self) -> Tensor:
        """What the weight binarizer sees: the centred (or standardised) weight."""
        return self.latent_and_scale()[0]

    def binary_input(self, x: Tensor) -> Tensor:
        """b_a(x), or x if it stays float."""
        return x if self.activation_binarizer is None else self.activation_binarizer(x)


class BinaryConv2d(_BinaryOperands, nn.Conv2d):
    """nn.Conv2d (same arguments) with binary weights and inputs: x (N, C, H, W) -> (N, O, H', W')."""

    def __init__(
        self, *args, weight_binarizer=None, activation_binarizer=None, standardize: bool = False, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        self._set_binarizers(weight_binarizer, activation_binarizer, standardize)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(self.binary_input(x), self.binary_weight(), self.bias)


class BinaryLinear(_BinaryOperands, nn.Linear):
    """nn.Linear (same arguments) with binary weights and inputs: x (N, ..., I) -> (N, ..., O)."""

    def __init__(
        self, *args, weight_binarizer=None, activation_binarizer=None, standardize: bool = False, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        self._set_binarizers(weight_binarizer, activation_binarizer, standardize)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.binary_input(x), self.binary_weight(), self.bias)


def share_tables(network: nn.Module) -> None:
    """From now on one table, or polynomial, a step serves all layers that share the network's learnt binarizer;
    evaluation needs none.
    A part of `network` that is computed twice (activation checkpointing) would find it gone: not for use together."""
    network.register_forward_pre_hook(_make_table)
    network.register_forward_hook(_forget, always_call=True)  # an evaluator left behind would be of old weights


def _sharing(network: nn.Module) -> list[_BinaryOperands]:
    shared = network.weight_binarizer
    return [m for m in network.modules() if isinstance(m, _BinaryOperands) and m.weight_binarizer is shared]


def _forget(network: nn.Module, *_) -> None:
    for layer in _sharing(network):
        layer.table = None


def _make_table(network: nn.Module, inputs: tuple) -> None:
    shared, layers = network.weight_binarizer, _sharing(network)
    if layers and isinstance(shared, Classifier) and shared.tabulated and torch.is_grad_enabled():
        table = shared.step(
            sum(layer.weight.numel() for layer in layers),
            lambda: torch.stack([ops.latent_reach(layer.weight, layer.standardize) for layer in layers]).amax(),
            lambda: [ops.latent_extent(layer.weight, layer.standardize) for layer in layers],
        )
        for layer in layers:
            layer.table = table


def own_binarizers(network: nn.Module) -> None:
    """Give each binary layer of `network` its own copy of the binarizers it shared; the shared ones are dropped."""
    for module in network.modules():
        for name in ("weight_binarizer", "activation_binarizer"):
            if isinstance(module, _BinaryOperands):
                shared = getattr(module, name)
                module.__dict__.pop(name, None)
                setattr(module, name, copy.deepcopy(shared))
            elif hasattr(module, name):
                setattr(module, name, None)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """`network` in evaluation, without gradients and without the fused attention that calls no layer; afterwards each
    module is in the mode it was in."""
    modes = {module: module.training for module in network.modules()}
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, mode in modes.items():
            module.training = mode


def watch(network: nn.Module, x: Tensor) -> list[dict]:
    """Pass x through `network` and report every binary layer as it is really used: the distinct values that enter
    it, and the largest number of distinct values per output channel that multiply them."""
    seen, handles = [], []

    def look(name: str, layer: _BinaryOperands, inputs: tuple) -> None:
        weight = layer.binary_weight()
        seen.append({
            "layer": name, "input values": layer.binary_input(inputs[0]).unique().tolist(),
            "weight values per channel": max(len(channel.unique()) for channel in weight), "weights": weight.numel(),
        })  # fmt: skip

    for name, module in network.named_modules():
        if isinstance(module, _BinaryOperands) and module.weight_binarizer is not None:
            handles.append(module.register_forward_pre_hook(lambda m, inputs, name=name: look(name, m, inputs)))
    with evaluating(network):
        network(x)
    for handle in handles:
        handle.remove()
    return seen
