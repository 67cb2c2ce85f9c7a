"""Packed layers in place of binary ones, in networks that are no program of their own.

A BatchNorm that follows a packed layer alone is folded into its scale and shift, as one behind a float convolution is
into its weights. Everything between stays torch's, in channels_last.
"""

import contextlib
import inspect
from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..layers.binary import BinaryConv2d, BinaryLinear
from .agreement import copy_of
from .layers import PackedConv2d, PackedLinear
from .packing import foldable, hooked, why_float


def pack_layers(model: nn.Module, kernel: str | None = None, *, fold_norms: bool = True) -> list[tuple[str, str, str]]:
    """Replace the binary layers within `model` that bits can compute, in place; a line each: name, packed or float,
    why. One that has several names is one packed layer under all of them. What stays float learns no more. With
    `fold_norms` what follows them, and float convolutions, may be folded; see `_fold_norms`."""
    lines = []
    packed: dict[nn.Module, nn.Module] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if not isinstance(module, (BinaryConv2d, BinaryLinear)):
            continue
        why = why_float(module)
        if not why and module not in packed:
            kind = PackedConv2d if isinstance(module, BinaryConv2d) else PackedLinear
            packed[module] = kind(module, name, kernel)  # pyright: ignore[reportArgumentType]
        lines.append((name, "float" if why else "packed", why or ""))
    _replace(model, packed)
    if packed and fold_norms:
        _fold_norms(model)
    model.requires_grad_(False)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.dim() == 4:  # `.to` would refuse a model that has five dimensions somewhere
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return lines


def _replace(model: nn.Module, others: dict[nn.Module, nn.Module]) -> None:
    """Put other modules in the places of some, under every name that these have."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in others:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, others[module])


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True  # a statistic that the forward reads stands in the graph, as a weight does

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (PackedConv2d, PackedLinear)) or super().is_leaf_module(m, module_qualified_name)


def _traced(model: nn.Module, **arguments) -> fx.Graph | None:
    """What a forward of `model` calls, `arguments` being fixed; None for one that cannot be traced, as with branches
    that look at numbers, or with modules that it holds elsewhere than among its children."""
    with contextlib.suppress(Exception):  # whatever a foreign forward does with proxies
        # On a copy: what a forward keeps as attributes would be proxies.
        return _Tracer().trace(copy_of(model), concrete_args=arguments or None)
    return None


def _ways(model: nn.Module) -> list[fx.Graph | None]:
    """The graphs of `model` called with images alone, and with all that its forward may be given."""
    others = list(inspect.signature(model.forward).parameters.values())[1:]
    defaults = {other.name: other.default for other in others if other.default is not other.empty}
    return [_traced(model), *([_traced(model, **defaults)] if defaults else [])]


def _fold_norms(model: nn.Module) -> None:
    """Fold each BatchNorm that alone takes the output of a packed layer, or of a float convolution, by every way
    through the forward; both called once, without hooks, and with weights that nothing else reads.

    A model that cannot be traced keeps its norms, as do classes derived from torch's. So does one that calls, once they
    are folded, something else than before: a module that it holds in a list, say, which cannot be replaced there.
    """
    graphs = _ways(model)
    if None in graphs:
        return
    pairs = set.intersection(*(_pairs(model, graph) for graph in graphs if graph))
    others: dict[nn.Module, nn.Module] = {}
    for layer, norm in pairs:
        others[layer], others[norm] = _folded(layer, norm), nn.Identity()
    before = [_calls(graph) for graph in graphs]
    _replace(model, others)
    if [_calls(graph) for graph in _ways(model)] != before:
        _replace(model, {other: module for module, other in others.items()})


def _calls(graph: fx.Graph | None) -> list[tuple]:
    return [(node.op, str(node.target), str(node.args)) for node in graph.nodes] if graph else []


def _pairs(model: nn.Module, graph: fx.Graph) -> set[tuple[nn.Module, nn.Module]]:
    """Each layer whose output a norm alone takes, with that norm, as far as they may be folded."""
    modules = {node: model.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"}
    calls = Counter(modules.values())
    read = {id(_attribute(model, str(node.target))) for node in graph.nodes if node.op == "get_attr"}

    def alone(module: nn.Module) -> bool:
        tensors = {id(tensor) for tensor in [*module.parameters(), *module.buffers()]}
        return calls[module] == 1 and not hooked(module) and not tensors & read

    pairs = set()
    for node, norm in modules.items():
        before = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        if not isinstance(before, fx.Node) or before not in modules or len(before.users) != 1 or not foldable(norm):
            continue
        layer = modules[before]
        takes = isinstance(layer, PackedConv2d) or type(layer) is nn.Conv2d
        if takes and alone(layer) and alone(norm):
            pairs.add((layer, norm))
    return pairs


def _attribute(model: nn.Module, name: str) -> object:
    parent, _, attribute = name.rpartition(".")
    return getattr(model.get_submodule(parent), attribute, None)


def _folded(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """A layer of its own that gives what `norm` gives of the output of `layer`."""
    assert isinstance(norm, nn.BatchNorm2d)
    if not isinstance(layer, PackedConv2d):
        assert isinstance(layer, nn.Conv2d)
        return fuse_conv_bn_eval(layer, norm)
    folded = copy_of(layer)
    assert isinstance(folded, PackedConv2d)
    folded.fold(norm)
    return folded
