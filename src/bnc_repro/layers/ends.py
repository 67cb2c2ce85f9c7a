"""The first and the last layers of a network, as its forward pass has them.

First is a layer that reads the input and nothing that another weighted layer computed: both towers of a network with
two, all branches of a re-parametrized stem. Last is, for each tensor that leaves the network, the layer called last of
those whose output reaches it through no other weighted layer: each head of several.

Both are seen in one pass each with autograd: where the outputs of weighted layers are cut off, what still wants a
gradient comes from the input alone; where their inputs are cut off, a gradient from an output reaches its last layers.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .inspect import evaluating

# Modules that multiply their input by weights, whether or not they have a binary form.
WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def ends(model: nn.Module, x: Tensor) -> tuple[list[str], list[str]]:
    """The names of the first and of the last weighted layers of `model` for the input x, in the order of their calls.

    Either is empty where the pass keeps no gradients (a forward under `no_grad`, outputs that are no tensors).
    """
    reading, fed = _Pass(model, x, cut_outputs=True), _Pass(model, x, cut_outputs=False)
    first = [name for name in reading.wanting if name not in fed.wanting]
    last: dict[str, None] = {}
    for output in _tensors(fed.output):
        if output.requires_grad and output.numel():
            leaves = [leaf for _, leaf in fed.leaves]
            gradients = torch.autograd.grad(output.sum(), leaves, allow_unused=True, retain_graph=True)
            reaching = [name for (name, _), gradient in zip(fed.leaves, gradients, strict=True) if gradient is not None]
            last |= dict.fromkeys(reaching[-1:])
    return first, list(last)


class _Pass:
    """One forward pass with the outputs of weighted layers, or their inputs, cut off from what was before."""

    def __init__(self, model: nn.Module, x: Tensor, *, cut_outputs: bool) -> None:
        self.wanting: dict[str, None] = {}  # layers whose input wants a gradient, in the order of their calls
        self.leaves: list[tuple[str, Tensor]] = []  # outputs of layers, each a leaf of its own
        self._cut_outputs = cut_outputs
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        handles, device = [], next(model.parameters()).device
        within = {child for module in model.modules() if isinstance(module, WEIGHTED) for child in module.children()}
        for name, layer in model.named_modules():
            if isinstance(layer, WEIGHTED) and layer not in within:  # an attention's own projection is a part of it
                handles.append(layer.register_forward_pre_hook(partial(self._enter, name)))
                handles.append(layer.register_forward_hook(partial(self._leave, name)))
        try:
            for parameter in parameters:
                parameter.requires_grad_(False)
            with evaluating(model), torch.enable_grad():
                # Times 1: what is computed in place is no leaf.
                self.output = model(x.to(device).clone().requires_grad_(cut_outputs) * 1)
        finally:
            for parameter in parameters:
                parameter.requires_grad_()
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, layer: nn.Module, inputs: tuple) -> None:
        if any(tensor.requires_grad for tensor in _tensors(inputs)):
            self.wanting.setdefault(name)

    def _leave(self, name: str, layer: nn.Module, inputs: tuple, output: Any) -> Any:
        return _replaced(output, lambda tensor: self._cut(name, tensor))

    def _cut(self, name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        if self._cut_outputs:
            return tensor.detach().clone()
        leaf = tensor.detach().clone().requires_grad_()
        self.leaves.append((name, leaf))
        return leaf * 1


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _replaced(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return type(value)((key, _replaced(item, change)) for key, item in value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_replaced(item, change) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(item, change) for item in value)
    return value
