"""Every way to watch a forward pass: its input, evaluation mode, call order, operands, health, the first number that
is none."""

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..binarizers.base import Binarizer
from .binary import _BinaryOperands


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


def placed(network: nn.Module, x: Tensor) -> Tensor:
    """x on the device and in the floating type of the first floating parameter of `network`, if it has one."""
    first = next((parameter for parameter in network.parameters() if parameter.is_floating_point()), None)
    return x if first is None else x.to(first.device, first.dtype if x.is_floating_point() else None)


def checked_size(input_size: Sequence[int]) -> tuple[int, ...]:
    """`input_size` as a tuple. Raises ValueError for anything but one or more positive whole numbers."""
    try:
        size = tuple(operator.index(length) for length in input_size)
    except TypeError:
        size = ()
    if not size or min(size) < 1:
        raise ValueError(f"input_size takes positive whole numbers such as (3, 224, 224), not {input_size!r}")
    return size


@contextmanager
def passing(input_size: tuple[int, ...], network: str = "the network") -> Iterator[None]:
    """Whatever a forward pass raises becomes a ValueError of one sentence that names the input's size."""
    try:
        yield
    except Exception as error:
        why = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(f"an input of size {input_size} does not pass through {network}: {why}") from error


def watch(network: nn.Module, x: Tensor) -> list[dict]:
    """Pass x through `network` and report every binary layer as it is really used: the distinct values that enter
    it, and the largest number of distinct values per output channel that multiply them."""
    seen, handles = [], []

    def look(name: str, layer: nn.Module, inputs: tuple) -> None:
        assert isinstance(layer, _BinaryOperands)
        weight = layer.binary_weight()
        seen.append(
            {
                "layer": name,
                "input values": layer.binary_input(inputs[0]).unique().tolist(),
                "weight values per channel": max(len(channel.unique()) for channel in weight),
                "weights": weight.numel(),
            }
        )

    for name, module in network.named_modules():
        if isinstance(module, _BinaryOperands) and module.weight_binarizer is not None:
            handles.append(module.register_forward_pre_hook(partial(look, name)))
    with evaluating(network):
        network(x)
    for handle in handles:
        handle.remove()
    return seen


def called(model: nn.Module, layers: dict[str, nn.Module], x: Tensor) -> list[str]:
    """The names of `layers` in the order of their calls in a forward pass, each as often as it is called."""
    order: list[str] = []
    handles = [
        layer.register_forward_pre_hook(lambda *_, name=name: order.append(name)) for name, layer in layers.items()
    ]
    try:
        with evaluating(model):
            model(placed(model, x))
    finally:
        for handle in handles:
            handle.remove()
    return order


class _Operands(TorchFunctionMode):
    """Notes with what convolutions and linear functions are really called inside the layer named `inside`."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: str | None = None
        self.seen: dict[str, tuple[int, int]] = {}  # layer -> values of the input, values per channel of the weight

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.conv2d, nn.functional.linear) and self.inside is not None:
            with torch._C.DisableTorchFunctionSubclass():
                x, weight = args[0].detach(), args[1].detach()
                self.seen[self.inside] = (distinct(x.flatten()[None]), distinct(weight.flatten(1)))
        return function(*args, **(kwargs or {}))


def distinct(rows: Tensor) -> int:
    """The largest number of distinct values in a row of `rows` (n, m)."""
    return int((rows.sort(dim=1).values.diff(dim=1) != 0).sum(1).max()) + 1


def prove(model: nn.Module, layers: dict[str, nn.Module], x: Tensor) -> tuple[list[str], list[str]]:
    """Of `layers`, those called with at most two values per output channel of the weight and two of the input
    (an operand that was left float is not asked), and those whose input had a single value."""
    operands, handles = _Operands(), []

    def enter(name: str | None) -> None:
        operands.inside = name

    for name, layer in layers.items():
        handles.append(layer.register_forward_pre_hook(lambda *_, name=name: enter(name)))
        handles.append(layer.register_forward_hook(lambda *_: enter(None)))
    try:
        with evaluating(model), operands:
            model(placed(model, x))
    finally:
        for handle in handles:
            handle.remove()
    fine = [
        name
        for name, (inputs, weights) in operands.seen.items()
        if (weights <= 2 or layers[name].weight_binarizer is None)
        and (inputs <= 2 or layers[name].activation_binarizer is None)
    ]
    return fine, [name for name, (inputs, _) in operands.seen.items() if inputs == 1]


@torch.no_grad()
def first_nonfinite(network: nn.Module, forward: Callable[[], Tensor]) -> str | None:
    """The first layer, in the order of `forward`, whose parameters or output are not finite; None: all are."""
    broken_places, handles = [], []

    def look(name: str, layer: nn.Module, output: Tensor) -> None:
        broken = [key for key, value in layer.named_parameters(recurse=False) if not value.isfinite().all()]
        if broken:
            broken_places.append(f"{name}.{broken[0]}".lstrip("."))
        elif isinstance(output, Tensor) and not output.isfinite().all():
            broken_places.append(f"the output of {name}")

    for name, module in network.named_modules():
        if all(isinstance(child, Binarizer) for child in module.children()):
            handles.append(module.register_forward_hook(lambda m, _, output, name=name: look(name, m, output)))
    forward()
    for handle in handles:
        handle.remove()
    return broken_places[0] if broken_places else None


def _binary_weights(network: nn.Module) -> list[tuple[_BinaryOperands, Binarizer]]:
    layers = [m for m in network.modules() if isinstance(m, _BinaryOperands)]
    return [(layer, layer.weight_binarizer) for layer in layers if layer.weight_binarizer is not None]


@torch.no_grad()
def weight_signs(network: nn.Module) -> list[Tensor]:
    """On which side of 0 every binary weight is, layer by layer."""
    return [layer.latent_weight() >= 0 for layer, _ in _binary_weights(network)]


@torch.no_grad()
def weight_health(network: nn.Module, before: list[Tensor]) -> dict[str, float]:
    """Of all binary weights, the share that changed sides since `before`, the share beyond 1, where clipped
    straight-through stops, and the share that this binarizer lets learn."""
    layers = _binary_weights(network)
    if not layers:
        return {}
    counts = torch.zeros(3, dtype=torch.float64)
    for (layer, binarizer), sides in zip(layers, before, strict=True):
        latent = layer.latent_weight()
        marked = ((latent >= 0) != sides, latent.abs() > 1, binarizer.derivative(latent))
        counts += torch.stack([values.count_nonzero() for values in marked]).cpu()
    shares = counts / sum(sides.numel() for sides in before)
    return dict(zip(("flip_share", "saturated_share", "open_share"), shares.tolist(), strict=True))


@torch.no_grad()
def estimator_state(network: nn.Module) -> dict:
    """What the learnt binarizers (the first, if each layer has its own) have become: slope at 0 and F' over -3..3 (F is
    its integral from 0, as F(0) = 0), those of activations by names of their own; and the weights' histogram."""
    layers = [m for m in network.modules() if isinstance(m, _BinaryOperands)]
    learnt = [layer for layer in layers if _learns(layer.weight_binarizer)]
    state = {}
    for prefix, binarizers in (
        ("", [layer.weight_binarizer for layer in learnt]),
        ("activation_", [layer.activation_binarizer for layer in layers if _learns(layer.activation_binarizer)]),
    ):
        first = binarizers[0] if binarizers else None
        if first is not None:
            grid = torch.linspace(-3, 3, 121, device=next(network.parameters()).device)
            state[f"{prefix}slope_at_0"] = first.derivative(grid.new_zeros(1)).item()
            state[f"{prefix}estimator"] = {"range": [-3.0, 3.0], "derivative": _rounded(first.derivative(grid))}
    if learnt:
        weights = torch.cat([layer.latent_weight().flatten() for layer in learnt])
        state["estimator"]["weights"] = _rounded(torch.histc(weights, 48, -3, 3) / len(weights))
    return state


def _learns(binarizer: Binarizer | None) -> bool:
    return binarizer is not None and any(True for _ in binarizer.parameters())


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
