"""`binarize`: any torch model made binary in place, with a report of what became binary and what did not.

Convolutions and linear layers change their class and keep their parameters, so a checkpoint of the float model
loads strictly. The first and the last of them stay float, as everywhere in this field. ReLU and ReLU6 become
Hardtanh, as in BinaryNet (1602.02830): after a ReLU no input is negative, and sign would see a constant.
One whose numbers reach no layer with weights, an output's, stays.
A layer whose weights are used without calling it, as attention does, stays float.
"""

import fnmatch
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from .binarizers.base import Binarizer
from .binarizers.registry import get
from .cost import Cost, buffers_kept, cost
from .layers.binary import BinaryConv2d, BinaryLinear, pruned
from .layers.ends import WEIGHTED, checked_model, ends, leaving
from .layers.inspect import called, checked_size, passing, placed, prove
from .layers.latent import center
from .layers.sharing import share_evaluator

BINARY = {nn.Conv2d: BinaryConv2d, nn.Linear: BinaryLinear}
ONE_SIDED = (nn.ReLU, nn.ReLU6)
WITHOUT_BINARY_FORM = (
    *(nn.Conv1d, nn.Conv3d, nn.modules.conv._ConvTransposeNd, nn.Bilinear),
    *(nn.RNNBase, nn.RNNCellBase),
)


@dataclass
class Report:
    """What `binarize` did. `proved` names the layers that were called with two-valued weights and inputs in a forward
    pass, `constant` those of them whose input had one value only (their inputs carry nothing)."""

    binary: list[str]
    kept: dict[str, str]  # layer -> why it stays float
    replaced: dict[str, str]  # activation -> what it became
    one_sided: dict[str, str] = field(default_factory=dict)  # activation that stays -> why
    proved: list[str] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)
    before: Cost | None = None
    after: Cost | None = None

    def __str__(self) -> str:
        lines = [f"{len(self.binary)} layers became binary, {len(self.kept)} stay float:"]
        lines += [f"  {name}: {why}" for name, why in self.kept.items()]
        lines.append(f"{len(self.replaced)} one-sided activations became Hardtanh.")
        lines += [f"  {name} stays: {why}" for name, why in self.one_sided.items()]
        if self.before is None or self.after is None:
            lines.append(
                "Nothing was run, and a layer whose weights are used without calling it goes on in float: give "
                "input_size=(C, H, W) to see every layer at work, and its cost."
            )
            return "\n".join(lines)
        lines.append(f"{len(self.proved)} of {len(self.binary)} were seen called with two-valued weights and inputs.")
        if len(self.proved) < len(self.binary):
            lines.append(f"Not seen so: {', '.join(name for name in self.binary if name not in self.proved)}.")
        if self.constant:
            lines.append(f"One value only enters {', '.join(self.constant)}: a one-sided function stands before.")
        for name, old, new in (("bits", self.before.bits, self.after.bits), ("OPs", self.before.ops, self.after.ops)):
            lines.append(f"{name}: {old:.3g} before, {new:.3g} after ({old / new:.1f} times less)")
        return "\n".join(lines)


def binarize(
    model: nn.Module,
    *,
    weight_binarizer="mlp",
    activation_binarizer="approx_sign",
    keep_float: str | Sequence[str] | None = (),
    keep_ends: bool = True,
    preset: str = "fixed",
    standardize: bool = False,
    replace_relu: bool = True,
    input_size: tuple[int, ...] | None = None,
) -> Report:
    """Make the convolutions and linear layers of `model` binary, in place.

    weight_binarizer, activation_binarizer: names, instances or None (that operand stays float); one of each is
    shared by all layers, so give its parameters to the optimizer. A second call makes binary what the first left float
    (activations first, weights later), and changes nothing else. keep_float: names of
    layers, or patterns such as "encoder.*", that stay float; keep_ends: the first and the last one too.
    input_size: (C, H, W) of one input; with it first and last are those of the forward pass, not of the modules'
    order: every layer that reads the input itself, and the last one before each output. Layers that the pass does not
    call stay float, another pass proves each binary layer, and costs are counted; buffers are afterwards as before.
    replace_relu: put Hardtanh in place of ReLU and ReLU6, if a layer of the model takes signs of its inputs; one
    whose numbers reach no layer with weights, an output's, stays (by autograd; where that cannot follow, one that is
    only called after the last layer with weights). Without input_size that is known of nested nn.Sequential alone: an
    output's ReLU in any other model is replaced too.
    Raises ValueError for a pattern that matches no layer, for a model without a layer to make binary, for weights that
    are not finite, and for an input_size that does not pass through it; the model is then as it was.
    """
    checked_model(model)
    patterns = (keep_float,) if isinstance(keep_float, str) else tuple(keep_float or ())
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"keep_float takes names of layers and patterns such as 'encoder.*', not {keep_float!r}")
    if weight_binarizer is None and activation_binarizer is None:
        raise ValueError("weight_binarizer and activation_binarizer are both None: name one, or nothing becomes binary")
    asked = {
        "weight_binarizer": get(weight_binarizer, preset=preset),
        "activation_binarizer": get(activation_binarizer, preset=preset),
    }
    layers = _weighted(model)
    size, x, order = None, None, list(layers)
    output_activations = {*model.modules()} - _before_the_last(model)
    if input_size is not None:
        if any(parameter.is_meta for parameter in model.parameters()):
            raise ValueError("a model on meta has no numbers to run: leave input_size out, or load its weights first")
        size = checked_size(input_size)
        with passing(size):  # or its memory cannot be had
            x = placed(model, torch.randn(2, *size, generator=torch.Generator().manual_seed(0)))
        watched: dict[str, nn.Module] = {
            name: m for name, m in model.named_modules() if isinstance(m, (*WEIGHTED, *ONE_SIDED))
        }
        with passing(size), buffers_kept(model):
            calls = called(model, watched, x)
        order = [name for name in dict.fromkeys(calls) if name in layers]
        end = max((i for i, name in enumerate(calls) if isinstance(watched[name], WEIGHTED)), default=0)
        output_activations = {watched[name] for name in calls[end:]} - {watched[name] for name in calls[:end]}
        if replace_relu:  # of one head of several, too, which is called before another's layers
            output_activations |= {watched[name] for name in leaving(model, x, ONE_SIDED)}
    kept = reasons(model, layers, order, patterns)
    if keep_ends:
        kept |= _ends(model, layers, order, kept, x)
    kept |= {name: why for name, layer in layers.items() if name not in kept and (why := _nothing_to_do(layer, asked))}
    chosen = {name: layer for name, layer in layers.items() if name not in kept}
    if not chosen:
        whys = "; ".join(dict.fromkeys(kept.values())) or "the model has none"
        raise ValueError(f"no layer is left to make binary: {whys}")
    _refuse_what_is_not_finite(chosen)
    before = cost(model, size)[-1] if size else None
    report = Report(list(chosen), kept, {}, before=before)
    with _undone_on_failure([model, *(binarizer for binarizer in asked.values() if binarizer is not None)]):
        share_evaluator(model)
        for layer in chosen.values():
            _make_binary(layer, asked, standardize)
        if replace_relu:
            report.replaced, report.one_sided = _two_sided(model, patterns, output_activations)
        if x is not None and size:
            with passing(size, "the network with its new binary layers (the model is as it was)"), buffers_kept(model):
                report.proved, report.constant = prove(model, chosen, x)
            report.after = cost(model, size)[-1]
    return report


@contextmanager
def _undone_on_failure(roots: Iterable[nn.Module]) -> Iterator[None]:
    """Where the block raises, every module of `roots` has its class, attributes, children and hooks of before."""
    modules = {module: type(module) for root in roots for module in root.modules()}
    attributes = {module: dict(vars(module)) for module in modules}
    # Emptied and filled again, not replaced: who holds a hook's handle removes it from this very table.
    tables = [t for held in attributes.values() for t in held.values() if type(t) in (dict, OrderedDict)]
    before = [dict(table) for table in tables]
    try:
        yield
    except BaseException:
        for module, kind in modules.items():
            module.__class__ = kind
            vars(module).clear()
            vars(module).update(attributes[module])
        for table, content in zip(tables, before):
            table.clear()
            table.update(content)
        raise


def _make_binary(layer: nn.Module, asked: dict[str, Binarizer | None], standardize: bool) -> None:
    """Change the class of a float layer; give a binary one the operand that it lacks."""
    if isinstance(layer, (BinaryConv2d, BinaryLinear)):  # the second step of two: what is binary stays as it is
        operands = {name: binarizer or asked[name] for name, binarizer in _binarizers_of(layer).items()}
        layer._set_binarizers(**operands, standardize=standardize or layer.standardize)
        return
    layer.__class__ = BINARY[type(layer)]
    assert isinstance(layer, (BinaryConv2d, BinaryLinear))
    layer._set_binarizers(**asked, standardize=standardize)
    if not layer.weight.is_meta:  # there a classifier would lose its start
        layer.to(layer.weight.device)  # of a model that was moved before; the classifier keeps its own type
    layer.train(layer.training)
    layer.register_forward_hook(_is_called)


def _refuse_what_is_not_finite(layers: dict[str, nn.Module]) -> None:
    weights = {name: layer.weight.detach() for name, layer in layers.items() if isinstance(layer.weight, torch.Tensor)}
    broken = [name for name, weight in weights.items() if not weight.is_meta and not bool(weight.isfinite().all())]
    if broken:
        raise ValueError(
            f"weights of {', '.join(broken)} are not finite: load others, or name the layers in keep_float"
        )


def _weighted(model: nn.Module) -> dict[str, nn.Module]:
    """The convolutions and linear layers of a model by name, without those that learnt binarizers are made of."""
    within = {child for module in model.modules() if isinstance(module, Binarizer) for child in module.modules()}
    kinds = tuple(BINARY)
    return {name: m for name, m in model.named_modules() if isinstance(m, kinds) and m not in within}


def _binarizers_of(layer: BinaryConv2d | BinaryLinear) -> dict[str, Binarizer | None]:
    """By operand, None for one that stays float."""
    return {"weight_binarizer": layer.weight_binarizer, "activation_binarizer": layer.activation_binarizer}


def _nothing_to_do(layer: nn.Module, asked: dict[str, Binarizer | None]) -> str:
    """Why a layer would not change, "" if it would: it is binary already, or its weights would be zero for ever."""
    if isinstance(layer, (BinaryConv2d, BinaryLinear)):
        present = _binarizers_of(layer)
        if not any(binarizer is not None and present[name] is None for name, binarizer in asked.items()):
            return "is binary already"
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    if not weight.is_floating_point():
        return f"its weights are {str(weight.dtype).removeprefix('torch.')}"
    if asked["weight_binarizer"] is not None and not weight.is_meta:
        if pruned(layer):
            return "is pruned, and binary weights have no 0"
        if weight[0].numel() == 1:
            return "has one weight per output channel, which centring makes 0 for ever"
        if bool((center(weight.detach()) == 0).all()):
            return "its weights are the same within each channel, which centring makes 0 for ever"
    return ""


def _is_called(*_) -> None:
    """Does nothing; a layer with a hook is always called, where a fused transformer would read its weight instead."""


def reasons(
    model: nn.Module, layers: dict[str, nn.Module], order: list[str], patterns: tuple[str, ...]
) -> dict[str, str]:
    """The layers that stay float, each with its reason; `order` lists those that are called."""
    kept = {name: "its weights are used without calling it" for name in layers if name not in order}
    for name, layer in layers.items():
        if type(layer) not in (*BINARY, *BINARY.values()):
            kept[name] = f"a {type(layer).__name__} is more than its base class"
    for pattern in patterns:
        matches = fnmatch.filter(layers, pattern)
        if not matches:
            raise ValueError(f"keep_float {pattern!r} matches no layer; there are {', '.join(layers)}")
        kept |= dict.fromkeys(matches, f"kept by {pattern!r}")
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            kept[name + ".out_proj"] = "attention uses its weights as a function's argument"
            kept[name + ".in_proj_weight"] = "attention uses its weights as a function's argument"
        elif isinstance(module, WITHOUT_BINARY_FORM):
            kept[name] = f"there is no binary {type(module).__name__}"
    return kept


def _ends(
    model: nn.Module, layers: dict[str, nn.Module], order: list[str], kept: dict[str, str], x: torch.Tensor | None
) -> dict[str, str]:
    """The first and the last layers with their reasons: of the forward pass of x, all that there are; without x, or
    where the pass does not show them, those of the order."""
    first, last = ([], []) if x is None else ends(model, x)
    candidates = [name for name in order if name not in kept or kept[name].startswith("kept by")]
    first, last = first or candidates[:1], last or candidates[-1:]
    which = {}
    for names, word in ((first, "first"), (last, "last")):
        reason = f"the {word} layer" if len(names) == 1 else f"one of the {len(names)} {word} layers"
        which |= dict.fromkeys((name for name in names if name in candidates), reason)
    return which


def _before_the_last(module: nn.Module) -> set[nn.Module]:
    """What a chain of Sequentials calls before its last layer with weights; of any other module, all within."""
    if type(module).forward is not nn.Sequential.forward:
        return {*module.modules()}
    children = [child for child in module._modules.values() if child is not None]  # repeated ones too
    weighted = [i for i, child in enumerate(children) if any(isinstance(m, WEIGHTED) for m in child.modules())]
    if not weighted:
        return set()
    before = {m for child in children[: weighted[-1]] for m in child.modules()}
    return before | _before_the_last(children[weighted[-1]])


def _two_sided(
    model: nn.Module, patterns: tuple[str, ...], output_activations: Collection[nn.Module]
) -> tuple[dict[str, str], dict[str, str]]:
    """Put Hardtanh in place of one-sided activations, one for all places of an instance, with its hooks; those of
    outputs stay, and those of a module whose layers keep_float all names. Without a layer that takes signs of its
    inputs, all stay. What was replaced, and what stays as its class adds to ReLU."""
    binary = [module for module in model.modules() if isinstance(module, (BinaryConv2d, BinaryLinear))]
    if all(layer.activation_binarizer is None for layer in binary):
        return {}, {}
    replaced, stays, hardtanh_of = {}, {}, {}
    layers = _weighted(model)
    kept = {name for pattern in patterns for name in fnmatch.filter(layers, pattern)}
    for path, parent in list(model.named_modules()):
        below = {name for name in layers if path and name.startswith(f"{path}.")}
        if below and below <= kept:
            continue
        for name, child in list(parent._modules.items()):  # named_children leaves out what comes again
            where = f"{path}.{name}".lstrip(".")
            if isinstance(child, ONE_SIDED) and child not in output_activations:
                if type(child) not in ONE_SIDED:
                    stays[where] = f"a {type(child).__name__} is more than a ReLU, and signs of its outputs are all +1"
                    continue
                if child not in hardtanh_of:
                    hardtanh_of[child] = nn.Hardtanh().train(child.training)
                    vars(hardtanh_of[child]).update({k: v for k, v in vars(child).items() if "hook" in k})
                setattr(parent, name, hardtanh_of[child])
                replaced[where] = "Hardtanh"
    return replaced, stays
