"""The first and the last layers of a network, as its forward pass has them.

First is a layer that reads the input and nothing that another weighted layer computed: both towers of a network with
two, all branches of a re-parametrized stem. Last is, for each number that leaves the network, the layer called last of
those that it comes from through no other weighted layer: each head of several, in tensors of their own or joined in
one. Of two that meet in the same numbers, as in a sum or a product, it is the one called later.

Both are seen with autograd, on a copy: where the outputs of weighted layers are cut off, what still wants a gradient
comes from the input alone; where their inputs are cut off, a gradient from an output reaches its last layers.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .inspect import evaluating, placed

# Modules that multiply their input by weights, whether or not they have a binary form.
WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def checked_model(model: Any) -> None:
    """Raise ValueError, with the remedy, for what is no model whose layers can be replaced."""
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}, not one made of it" if isinstance(model, type) else type(model).__name__
        raise ValueError(f"a model is a torch.nn.Module, got {what}")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValueError(
            "a model that torch.jit has compiled keeps its layers as they are: take the model that it was made from"
        )


def channels_of(network: nn.Module, size: tuple[int, int]) -> int:
    """The channels that the images (H, W) of a network have, guessed from its first layer."""
    first = next((module for module in network.modules() if isinstance(module, WEIGHTED)), None)
    if isinstance(first, nn.Linear) and first.in_features % math.prod(size) == 0:
        return first.in_features // math.prod(size)
    return getattr(first, "in_channels", 3)


def ends(model: nn.Module, x: Tensor) -> tuple[list[str], list[str]]:
    """The names of the first and of the last weighted layers of `model` for the input x, in the order of their calls.

    Either is empty where autograd cannot follow the pass: one under `no_grad`, with activation checkpointing, or that
    writes into views of its input; and for a model that cannot be copied, as one that holds a lock or an open file.
    `model` is left as it was.
    """
    try:
        reading, fed = _Pass(model, x, cut_outputs=True), _Pass(model, x, cut_outputs=False)
        last = list(dict.fromkeys(name for output in tensors_in(fed.output) for name in _last_of(output, fed.leaves)))
    except RuntimeError:
        return [], []
    first = [name for name in reading.wanting if name not in fed.wanting]
    start = fed.called[:1]
    if start and start[0] not in (*reading.wanting, *fed.wanting):  # called under `no_grad`
        first = list(dict.fromkeys(start + first))
    return first, last


def leaving(model: nn.Module, x: Tensor, kinds: tuple[type[nn.Module], ...]) -> set[str]:
    """The names of those modules of `kinds`, activations, whose numbers leave `model` and reach no weighted layer.

    Each activation's output is multiplied by a probe, a number 1 that wants a gradient. Probes in the graph of a
    layer's input feed that layer; those in the graph of an output leave. None is named where the graph does not show
    it: where a layer reads what is cut off from every probe (detached features, numbers that were looked up), and for
    a model that cannot be copied or does not pass with gradients on.
    """
    names: dict[Tensor, str] = {}  # of the probes' modules
    fed: set[Tensor] = set()
    cut_off = False

    def mark(name: str, layer: nn.Module, inputs: tuple, output: Any) -> Any:
        probe = torch.ones((), requires_grad=True)  # on the CPU, as a number is: it takes any tensor's type and place
        names[probe] = name
        if getattr(layer, "inplace", False) and output.is_floating_point():
            return output.mul_(probe)  # who holds the input sees it too
        return _replaced(output, lambda tensor: tensor * probe if tensor.is_floating_point() else tensor)

    def look(layer: nn.Module, inputs: tuple, named: dict) -> None:
        nonlocal cut_off
        read = [tensor for tensor in tensors_in((inputs, named)) if tensor.is_floating_point()]
        leaves = _leaves_of(read, seen)
        foreign = leaves - names.keys() - {entering}
        cut_off |= bool(foreign) or any(tensor.grad_fn is None for tensor in read) or not torch.is_grad_enabled()
        fed.update(leaves)

    entering = torch.ones((), requires_grad=True)
    seen: set[Any] = set()  # nodes of the graph, which layers share
    try:
        model = copy.deepcopy(model).requires_grad_(False)
        for name, layer in model.named_modules():
            if isinstance(layer, WEIGHTED):
                layer.register_forward_pre_hook(look, with_kwargs=True)
            elif isinstance(layer, kinds):
                layer.register_forward_hook(partial(mark, name), prepend=True)  # before whoever keeps its output
        with evaluating(model), torch.enable_grad():
            output = model(placed(model, x) * entering)
    except Exception:  # whatever a model raises of gradients that it did not expect, or its classes of being copied
        return set()
    if cut_off:
        return set()
    left, feeding = (
        {names[probe] for probe in probes & names.keys()} for probes in (_leaves_of(tensors_in(output), set()), fed)
    )
    return left - feeding  # by name: one instance may be called in several places


def _leaves_of(tensors: Iterable[Tensor], seen: set[Any]) -> set[Tensor]:
    """The leaves that the graphs of `tensors` end in, but for what lies beyond the nodes in `seen`, which grows."""
    leaves, waiting = set(), [tensor.grad_fn for tensor in tensors]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaves.add(leaf)
        waiting += [after for after, _ in node.next_functions]
    return leaves


def _last_of(output: Tensor, leaves: list[tuple[str, Tensor]]) -> list[str]:
    """The layers that an output's numbers come from last: of the layer called last its numbers, of the one before it
    those that are left, and so on."""
    if not output.requires_grad or not output.numel():
        return []
    output = torch.view_as_real(output) if output.is_complex() else output
    weights = torch.ones_like(output, requires_grad=True)
    tensors = [leaf for _, leaf in leaves]
    gradients = torch.autograd.grad(output, tensors, weights, allow_unused=True, create_graph=True)
    reached = [(name, g) for (name, _), g in zip(leaves, gradients, strict=True) if g is not None]
    left, last = torch.ones_like(output, dtype=torch.bool), []
    draw = torch.Generator(output.device).manual_seed(0)
    for name, gradient in reversed(reached):
        # The gradient is linear in the weights of the outputs; how, says which outputs the layer reaches.
        direction = torch.randn(gradient.shape, generator=draw, device=gradient.device, dtype=gradient.dtype)
        (touched,) = torch.autograd.grad(
            (gradient * direction).sum(), weights, allow_unused=True, retain_graph=True, materialize_grads=True
        )
        if bool((left & (touched != 0)).any()):
            last.append(name)
            left &= touched == 0
    return last[::-1]


class _Pass:
    """One forward pass of a copy with the outputs of weighted layers, or their inputs, cut off from what was before."""

    def __init__(self, model: nn.Module, x: Tensor, *, cut_outputs: bool) -> None:
        self.called: list[str] = []
        self.wanting: dict[str, None] = {}  # layers whose input wants a gradient, in the order of their calls
        self.leaves: list[tuple[str, Tensor]] = []  # outputs of layers, each a leaf of its own
        self._cut_outputs = cut_outputs
        try:
            model = copy.deepcopy(model).requires_grad_(False)
        except Exception as error:  # whatever the classes of its attributes raise
            raise RuntimeError("the model cannot be copied") from error
        within = {child for module in model.modules() if isinstance(module, WEIGHTED) for child in module.children()}
        for name, layer in model.named_modules():
            if isinstance(layer, WEIGHTED) and layer not in within:  # an attention's own projection is a part of it
                layer.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True)
                layer.register_forward_hook(partial(self._leave, name))
        x = placed(model, x).clone().requires_grad_(cut_outputs)
        with evaluating(model), torch.enable_grad():
            self.output = model(x * 1)  # times 1: what is changed in place is no leaf

    def _enter(self, name: str, layer: nn.Module, inputs: tuple, named: dict) -> None:
        self.called.append(name)
        if any(tensor.requires_grad for tensor in tensors_in((inputs, named))):
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


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def _replaced(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A layer's output, a tensor or nested tuples of tensors, with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_replaced(item, change) for item in value)
    return value
