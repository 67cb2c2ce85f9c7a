"""What packed inference is judged by: the same network with activations in float64, written out independently.

Signs of weights are taken from float32, as the network has them; everything after is double precision.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnc_repro.layers import BinaryConv2d, BinaryLinear


def plus_minus(x: Tensor) -> Tensor:
    """-1 below 0, else +1, also at -0."""
    return torch.where(x < 0, -1.0, 1.0).to(x.dtype)


class Exact(nn.Module):
    """A binary layer's sum of ±1 products times alpha plus bias, in float64; `signed` notes what it saw."""

    def __init__(self, layer: BinaryConv2d | BinaryLinear) -> None:
        super().__init__()
        weight = layer.weight.detach()
        axes = tuple(range(1, weight.dim()))
        centered = weight - weight.mean(axes, keepdim=True)
        self.signs = plus_minus(centered).double()
        self.alpha = centered.abs().mean(axes).double()
        self.bias = None if layer.bias is None else layer.bias.detach().double()
        self.layer, self.seen = [layer], torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        (layer,) = self.layer
        if isinstance(layer, BinaryLinear):
            y = F.linear(plus_minus(x), self.signs) * self.alpha
            return y if self.bias is None else y + self.bias
        y = F.conv2d(plus_minus(x), self.signs, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        y = y * self.alpha[:, None, None]
        return y if self.bias is None else y + self.bias[:, None, None]


def exact(network: nn.Module) -> nn.Module:
    """A copy of `network` in evaluation and float64 whose binary layers are `Exact`."""
    twin = copy.deepcopy(network).eval()
    if isinstance(twin, (BinaryConv2d, BinaryLinear)):
        return Exact(twin)
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, (BinaryConv2d, BinaryLinear)):
                setattr(module, name, Exact(child))
    return twin.double().requires_grad_(False)


def margin(twin: nn.Module) -> float:
    """How near to 0 the nearest input of a binary layer was in the last forward pass, in its layer's deviations."""
    layers = [module for module in twin.modules() if isinstance(module, Exact)]
    return min(float(layer.seen.abs().min() / layer.seen.std()) for layer in layers)


def untied(build: Callable[[], nn.Module], images: Tensor) -> tuple[nn.Module, Tensor]:
    """A network from `build` and its output in float64, of the first seed for which no binary layer has an input so
    near to 0 that float32 may take it for the other sign."""
    for seed in range(50):
        torch.manual_seed(seed)
        network = build()
        twin = exact(network)
        expected = twin(images.double())
        if margin(twin) > 3e-7:
            return network, expected
    raise AssertionError("every seed has a near tie")


@torch.no_grad()
def as_if_trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """`network` in evaluation with statistics, scales and slopes of both signs in place of the initial ones."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=draw) * (high - low) + low

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.copy_(uniform(module.weight, 0.5, 1.5) * plus_minus(uniform(module.weight, -0.2, 0.8)))
            module.bias.copy_(uniform(module.bias, -0.5, 0.5))
            module.running_mean.copy_(uniform(module.running_mean, -0.5, 0.5))
            module.running_var.copy_(uniform(module.running_var, 0.5, 2.0))
        elif isinstance(module, nn.PReLU):
            module.weight.copy_(uniform(module.weight, -0.3, 0.5))
    return network.eval()


def noise(*size: int, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))
