"""A smooth scalar classifier over many numbers: F as an odd polynomial over the range that they take.

F is odd, and over a small enough range it is smooth: the coefficients of its Chebyshev polynomials then fall
geometrically, and what is cut off bounds the error (Trefethen, Approximation Theory and Approximation Practice,
2013, chapters 3 and 8). Its slope and the sums that the gradient of its values needs are a few products an element,
where a table takes a gather and a scatter. Ours.
Legend: K nodes, T terms, t = x / reach in -1..1, u = t^2.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .ops import memory_order, sign

NODES = 16
TERMS = 6
TOLERANCE = 2e-5
PART = 262_144

_ORDERS = 2 * np.arange(NODES) + 1
_ANGLES = (np.arange(NODES) + 0.5) * np.pi / (2 * NODES)
POINTS = np.cos(_ANGLES)
_ANALYSIS = 2 / NODES * np.cos(np.outer(_ORDERS, _ANGLES))  # (K, K): values -> coefficients of T_1, T_3, ...
_SLOPES = _ORDERS * np.sin(np.outer(_ANGLES, _ORDERS)) / np.sin(_ANGLES)[:, None]  # (K, K): coefficients -> dF/dt
_POWERS = np.array([  # (T, T): T_1, T_3, ... in powers t, t u, t u^2, ...
    np.pad(np.polynomial.chebyshev.cheb2poly(np.eye(2 * TERMS)[order])[1::2], (0, TERMS - 1 - order // 2))
    for order in _ORDERS[:TERMS]
])  # fmt: skip


class Fit(NamedTuple):
    """F(x) = t sum_k b_k u^k: `slopes` (T) of dF/dx in powers of u; `share` (T, K), how b depends on the values."""

    reach: float
    slopes: list[float]
    share: Tensor


def nodes(reach: float) -> Tensor:
    """The Chebyshev points of 0..reach, (K,) in float64."""
    return reach * torch.from_numpy(POINTS)


def terms(values: np.ndarray, normalised: bool) -> int:
    """How many terms, at least 1, of the functions with these values (F, K) are needed so that what is cut off changes
    no slope by more than TOLERANCE of the root mean square of those near 0; more than TERMS if that many do not do.
    The parameters of a `normalised` F do not feel its slope at 0: there it is that of what the slopes differ from it
    (of elements a hundred times smaller than the reach the parameters' gradients are then good to 1e-3).
    """
    coefficients = values @ _ANALYSIS.T
    left = np.cumsum((np.abs(coefficients) * _ORDERS**2)[:, ::-1], 1)[:, ::-1]  # |dT_n/dt| <= n^2
    slopes = coefficients @ _SLOPES.T
    near = slopes[:, POINTS < 0.5] - (slopes[:, -1:] if normalised else 0)
    enough = left <= TOLERANCE * np.sqrt(np.mean(near**2, 1, keepdims=True)) + 1e-10 * np.abs(slopes[:, -1:])
    return max(1, int(np.argmax(np.append(enough.all(0), True))))


def fit(values: np.ndarray, reach: float, count: int) -> Fit:
    """The first `count` terms of the function with these values (K,)."""
    share = _POWERS[:count, :count].T @ _ANALYSIS[:count]
    slopes = share @ values * _ORDERS[:count] / reach
    return Fit(reach, slopes.tolist(), torch.from_numpy(share))


class FittedSign(torch.autograd.Function):
    """forward: sign(x). backward: straight-through on F of a `Fit` to `values` (K,): dL/dx = g F'(x), and
    dL/dvalues = share^T m with the moments m_k = sum g t u^k. `memory`: a dict in which one tensor's backward leaves
    its buffers for the next one's."""

    @staticmethod
    def forward(ctx, x: Tensor, values: Tensor, fit: Fit, memory: dict) -> Tensor:
        ctx.save_for_backward(x)
        ctx.fit, ctx.memory = fit, memory
        return sign(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        (x,), fit = ctx.saved_tensors, ctx.fit
        longest = min(PART, x.numel())
        if "room" not in ctx.memory or ctx.memory["room"].shape[1] < longest:
            ctx.memory["room"] = x.new_empty(2, longest)
        done, moments = _by_part(x, grad, fit, ctx.memory["room"])
        return done, fit.share.T @ moments, None, None


def _by_part(x: Tensor, grad: Tensor, fit: Fit, room: Tensor) -> tuple[Tensor, Tensor]:
    """g F'(x), of the shape of x, and the moments (T,); in parts of the size of `room` (2, n), which fit in a cache."""
    order = memory_order(x)
    x = x if x.permute(order).is_contiguous() else x.contiguous()
    done = torch.empty_like(x)
    flat = [whole.permute(order).flatten().split(room.shape[1]) for whole in (x, grad, done)]
    moments = x.new_empty(len(flat[0]), len(fit.slopes))
    *upper, lowest = fit.slopes[::-1]
    for part, g, out, sums in zip(*flat, moments, strict=True):
        t, u = room[:, : len(part)]
        torch.mul(part, 1 / fit.reach, out=t)
        if upper:
            torch.mul(t, t, out=u)
            torch.mul(u, upper[0], out=out)
            for slope in upper[1:]:
                out.add_(slope).mul_(u)
            out.add_(lowest).mul_(g)
        else:
            torch.mul(g, lowest, out=out)
        torch.sum(t.mul_(g), 0, out=sums[0])
        for moment in sums[1:]:
            torch.sum(t.mul_(u), 0, out=moment)
    return done, moments.double().sum(0)
