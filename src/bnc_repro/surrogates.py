"""The literature's soft functions: what stands in for the derivative of sign, one pure function each.

Every function takes x (any shape), the training progress 0..1 and its own constants, and returns d(x), the
factor that multiplies the incoming gradient: dL/dx = g * d(x). The forward is always `ops.sign`.
"""

import math

import torch
from torch import Tensor


def identity(x: Tensor, progress: float = 1.0) -> Tensor:
    """d = 1. Source: Bengio, Leonard, Courville 2013 (1308.3432), straight-through estimator."""
    return torch.ones_like(x)


def ste(x: Tensor, progress: float = 1.0, *, clip: float = 1.0) -> Tensor:
    """d = 1 for abs(x) <= clip, else 0. Source: BinaryNet (1602.02830), section 1.3, the clipped form."""
    return (x.abs() <= clip).to(x.dtype)


def approx_sign(x: Tensor, progress: float = 1.0) -> Tensor:
    """d = 2 - 2 abs(x) for abs(x) < 1, else 0. Source: Bi-Real Net (1808.00278), section 3.3.

    The authors use it for activations; their weights keep the clipped straight-through estimator.
    """
    return x.abs().mul_(-2).add_(2).clamp_(min=0)


def sign_swish(x: Tensor, progress: float = 1.0, *, beta: float = 5.0) -> Tensor:
    """d = beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x)). Source: BNN+ (1812.11800), equation 6.

    The derivative is negative beyond abs(beta x) of about 2.4. cosh is capped at 1e30 against overflow.
    """
    z = beta * x
    return beta * (2 - z * torch.tanh(z / 2)) / (1 + torch.cosh(z.clamp(-69, 69)))


def ede(x: Tensor, progress: float = 1.0, *, start: float = 0.1, end: float = 10.0) -> Tensor:
    """d = k t (1 - tanh(t x)^2), t = start (end/start)^progress, k = max(1/t, 1).

    Source: IR-Net (1909.10788), error decay estimator, equations 9 and 10. The authors' code starts at 1e-3
    for ResNet-20 and at 1e-1 for VGG-Small and standardises the weights first (that is the layer's).
    """
    t = start * (end / start) ** progress
    return max(1 / t, 1.0) * t * (1 - torch.tanh(t * x).square())


def fda(x: Tensor, progress: float = 1.0, *, frequency: float = 0.1, first: int = 9, last: int = 18) -> Tensor:
    """d = (4 w / pi) sum_{i=0..n} cos((2i+1) w x), n from `first` to `last` with progress.

    Source: FDA-BNN (2103.00841), equation 5, without its noise module. The sum is evaluated in closed form,
    sin(2(n+1) w x) / (2 sin(w x)), and by its limit n+1 where w x is a multiple of pi.
    """
    terms = first + round((last - first) * progress) + 1
    z = frequency * x
    small = torch.sin(z).abs() < 1e-6
    ratio = torch.sin(2 * terms * z) / (2 * torch.sin(z.masked_fill(small, 1.0)))
    limit = terms * torch.cos((2 * terms - 1) * z)  # both ends of the ratio, by l'Hopital at 0 and at pi
    return 4 * frequency / math.pi * torch.where(small, limit, ratio)


def reste(x: Tensor, progress: float = 1.0, *, end: float = 3.0, clip: float = 1.5, floor: float = 0.1) -> Tensor:
    """d = abs(x)^((1-o)/o) / o for floor < abs(x) <= clip, floor^(1/o) / floor below, 0 beyond.

    o = 1 + (1 - cos(pi progress / 2)) (end - 1). Source: ReSTE (2308.06689), equations 8 and 13.
    """
    o = 1 + (1 - math.cos(math.pi * progress / 2)) * (end - 1)
    size = x.abs()
    power = size.clamp(min=floor) ** ((1 - o) / o) / o
    return torch.where(size <= floor, floor ** (1 / o) / floor, power) * (size <= clip)


SURROGATES = {
    "identity": identity,
    "ste": ste,
    "approx_sign": approx_sign,
    "sign_swish": sign_swish,
    "ede": ede,
    "fda": fda,
    "reste": reste,
}
