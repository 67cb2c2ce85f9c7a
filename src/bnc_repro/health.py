"""How a network fares while it is trained: its binary weights, its learnt estimators, and where it broke."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .layers import BinaryConv2d, BinaryLinear
from .straight_through import Binarizer


@torch.no_grad()
def first_nonfinite(network: nn.Module, forward: Callable[[], Tensor]) -> str | None:
    """The first layer, in the order of `forward`, whose parameters or output are not finite; None: all are."""
    found, handles = [], []

    def look(name: str, layer: nn.Module, output: Tensor) -> None:
        broken = [key for key, value in layer.named_parameters(recurse=False) if not value.isfinite().all()]
        if broken:
            found.append(f"{name}.{broken[0]}".lstrip("."))
        elif isinstance(output, Tensor) and not output.isfinite().all():
            found.append(f"the output of {name}")

    for name, module in network.named_modules():
        if all(isinstance(child, Binarizer) for child in module.children()):
            handles.append(module.register_forward_hook(lambda m, _, output, name=name: look(name, m, output)))
    forward()
    for handle in handles:
        handle.remove()
    return found[0] if found else None


def _binary_weights(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, (BinaryConv2d, BinaryLinear)) and m.weight_binarizer]


@torch.no_grad()
def weight_signs(network: nn.Module) -> list[Tensor]:
    """On which side of 0 every binary weight is, layer by layer."""
    return [layer.latent_weight() >= 0 for layer in _binary_weights(network)]


@torch.no_grad()
def weight_health(network: nn.Module, before: list[Tensor]) -> dict[str, float]:
    """Of all binary weights, the share that changed sides since `before`, the share beyond 1, where clipped
    straight-through stops, and the share that this binarizer lets learn."""
    layers = _binary_weights(network)
    if not layers:
        return {}
    counts = torch.zeros(3, dtype=torch.float64)
    for layer, sides in zip(layers, before, strict=True):
        latent = layer.latent_weight()
        found = ((latent >= 0) != sides, latent.abs() > 1, layer.weight_binarizer.derivative(latent))
        counts += torch.stack([values.count_nonzero() for values in found]).cpu()
    shares = counts / sum(sides.numel() for sides in before)
    return dict(zip(("flip_share", "saturated_share", "open_share"), shares.tolist(), strict=True))


@torch.no_grad()
def estimator_state(network: nn.Module) -> dict:
    """What the learnt binarizers (the first, if each layer has its own) have become: slope at 0 and F' over -3..3 (F is
    its integral from 0, as F(0) = 0), those of activations by names of their own; and the weights' histogram."""
    layers = [m for m in network.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    learnt = [m for m in layers if _learns(m.weight_binarizer)]
    state = {}
    for prefix, binarizers in (
        ("", [m.weight_binarizer for m in learnt]),
        ("activation_", [m.activation_binarizer for m in layers if _learns(m.activation_binarizer)]),
    ):
        if binarizers:
            grid = torch.linspace(-3, 3, 121, device=next(network.parameters()).device)
            state[f"{prefix}slope_at_0"] = binarizers[0].derivative(grid.new_zeros(1)).item()
            state[f"{prefix}estimator"] = {"range": [-3.0, 3.0], "derivative": _rounded(binarizers[0].derivative(grid))}
    if learnt:
        weights = torch.cat([layer.latent_weight().flatten() for layer in learnt])
        state["estimator"]["weights"] = _rounded(torch.histc(weights, 48, -3, 3) / len(weights))
    return state


def _learns(binarizer: Binarizer | None) -> bool:
    return binarizer is not None and any(True for _ in binarizer.parameters())


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
