"""A scalar classifier evaluated through a table: its price no longer depends on the number of weights.

The classifier f: R -> R^2 is a function of one number. Its two outputs and their slopes are computed at M
nodes once a step; every element interpolates between its two nodes, and only THEN is gated (a table of the
gated sum is wrong near each closing gate). The outputs at the nodes are an autograd input, so gradients of
the classifier's parameters flow through the table, under accumulation and DDP as everywhere.
Ours; the released code evaluates the classifier element by element.
Legend: M nodes, ... any shape of x, 2 outputs.
"""

import torch
from torch import Tensor

from .ops import sign


def nodes(x: Tensor, count: int) -> Tensor:
    """Evenly spaced nodes (M,) over [-r, r], r = the largest abs(x) of this call: no element lies outside."""
    radius = x.detach().abs().amax().clamp(min=1e-6)
    return torch.linspace(-1, 1, count, dtype=x.dtype, device=x.device) * radius


def _cells(x: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Index of each element's left node, and its position 0..1 within the cell; both (n,)."""
    place = (x.flatten() - grid[0]) * ((grid.numel() - 1) / (grid[-1] - grid[0]))
    left = place.floor().clamp_(0, grid.numel() - 2)
    return left.long(), place.sub_(left)


def _interpolate(table: Tensor, left: Tensor, share: Tensor) -> Tensor:
    """One column of a table (M,) between the nodes: (n,). `index_select` is by far the fastest gather on a CPU."""
    return torch.lerp(table.index_select(0, left), table.index_select(0, left + 1), share)


class TabulatedSign(torch.autograd.Function):
    """forward: sign(x), or +1 where f2 >= f1 and -1 elsewhere. backward: straight-through on F.

    F(x) = scale sum_j h(f_j(x)), h = hardtanh if gated, else the identity. x (...), grid (M,), outputs (2, M)
    and scale () with gradient, slopes (2, M) without. dL/dx = g scale sum_j gate_j f_j'(x); dL/doutputs is
    g scale gate_j scattered to the two nodes beside each element; dL/dscale = sum g sum_j h(f_j).
    """

    @staticmethod
    def forward(ctx, x, grid, outputs, slopes, scale, gated: bool, argmax: bool) -> Tensor:
        ctx.save_for_backward(x, grid, outputs, slopes, scale)
        ctx.gated = gated
        if not argmax:
            return sign(x)
        return sign(_interpolate(outputs[1] - outputs[0], *_cells(x, grid))).view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        x, grid, outputs, slopes, scale = ctx.saved_tensors
        left, share = _cells(x, grid)
        incoming = (grad * scale).flatten()
        derivative, total, scattered = torch.zeros_like(incoming), torch.zeros_like(incoming), torch.zeros_like(outputs)
        for j in range(2):
            value, slope = _interpolate(outputs[j], left, share), _interpolate(slopes[j], left, share)
            flowing = incoming
            if ctx.gated:
                gate = (value.abs() < 1).to(value.dtype)
                value, slope, flowing = value.clamp(-1, 1), slope * gate, flowing * gate
            derivative += slope
            total += value
            right = flowing * share
            scattered[j].scatter_add_(0, left, flowing - right).scatter_add_(0, left + 1, right)
        return (incoming * derivative).view_as(x), None, scattered, None, grad.flatten() @ total, None, None
