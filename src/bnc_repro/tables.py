"""A scalar classifier evaluated through a table: its price no longer depends on the number of weights.

The classifier f: R -> R^2 is a function of one number. Its two outputs and their slopes are computed at M
nodes once a step; every element interpolates between its two nodes and is gated by its interpolated outputs
(a table of the gated sum is wrong near each closing gate). The outputs at the nodes are an autograd input, so
gradients of the classifier's parameters flow through the table, under accumulation and DDP as everywhere.
Ours; the released code evaluates the classifier element by element.
Legend: M nodes, P pieces of the M - 1 cells between them, ... any shape of x (n elements), R outputs (1 or 2).
"""

import torch
from torch import Tensor, nn

from .ops import sign

PART = 131_072


def nodes(x: Tensor, count: int) -> Tensor:
    """Evenly spaced nodes (M,) over [-r, r], r = the largest abs(x) of this call: no element lies outside."""
    low, high = torch.aminmax(x.detach())
    radius = torch.maximum(-low, high).clamp(min=1e-6)
    return torch.linspace(-1, 1, count, dtype=x.dtype, device=x.device) * radius


def _cells(x: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Each element's left node, a whole number kept as float, and its position 0..1 within the cell; both (n,).
    NaN stands at node 0, with a position that is NaN."""
    per_unit = (grid.numel() - 1) / (grid[-1] - grid[0])
    place = (x - grid[0]).mul_(per_unit)
    left = place.floor().clamp_(0, grid.numel() - 2).nan_to_num_(0)
    return left, place.sub_(left)


def _two(table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """table[index] of both columns of a table (P, 2) in one gather, as one complex number is fetched."""
    return torch.view_as_real(torch.view_as_complex(table).index_select(0, index)).unbind(1)


def _cuts(outputs: Tensor) -> Tensor:
    """Where in each cell one of two outputs passes -1 or 1, so that its gate switches: shares 0..1 in rising order
    (M-1, 2), 2 where none does. An interpolated output passes one level of a cell at most once."""
    near, far = outputs[:, :-1], outputs[:, 1:]
    inside = outputs.abs() < 1
    level = torch.where(inside[:, :-1], far, near).sign()
    switches = inside[:, :-1] != inside[:, 1:]
    share = torch.where(switches, (level - near) / (far - near), 2)
    return torch.stack([torch.minimum(*share), torch.maximum(*share)], 1)


class TabulatedSign(torch.autograd.Function):
    """forward: sign(x), or +1 where margin(x) >= 0 and -1 elsewhere. backward: straight-through on F.

    F(x) = scale sum_j h(f_j(x)), h = hardtanh if gated, else the identity. x (...), grid (M,), outputs (R, M)
    and scale () with gradient, slopes (R, M) without; margin (M,) decides the forward, None: sign(x) does.
    dL/dx = g scale sum_j gate_j f_j'(x); dL/doutputs is
    g scale gate_j shared between the two nodes beside each element; dL/dscale = sum g sum_j h(f_j).
    Each cell is cut where a gate switches. Within such a piece the gates are constant, so an element needs its
    piece and its share of the cell, and all the rest is done on P pieces instead of n elements.
    """

    @staticmethod
    def forward(ctx, x, grid, outputs, slopes, scale, gated: bool, margin) -> Tensor:
        ctx.save_for_backward(x, grid, outputs, slopes, scale)
        ctx.gated = gated
        if margin is None:
            return sign(x)
        left, share = _cells(x.flatten(), grid)
        near, far = _two(torch.stack([margin[:-1], margin[1:]], 1), left.int())
        return sign(torch.lerp(near, far, share)).view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        x, grid, outputs, slopes, scale = ctx.saved_tensors
        near, far = outputs[:, None, :-1], outputs[:, None, 1:]  # (R, 1, M-1)
        middle, cuts = torch.full_like(near[0], 0.5), None
        if ctx.gated:
            cuts = _cuts(outputs)
        may_look = x.device.type == "cpu" and not torch.compiler.is_compiling()  # elsewhere a look would be a wait
        if may_look and cuts is not None and (cuts > 1).all():
            cuts = None  # no gate switches within the data: each cell is one piece
        if cuts is not None:
            ends = nn.functional.pad(cuts.clamp(max=1).T, (0, 0, 1, 0))
            ends = nn.functional.pad(ends, (0, 0, 0, 1), value=1.0)
            middle = (ends[:-1] + ends[1:]) / 2  # (3, M-1)
        value = torch.lerp(near, far, middle)  # (R, 1 or 3, M-1), P = 1 or 3 times M-1
        gate = (value.abs() < 1).to(value.dtype) if ctx.gated else torch.ones_like(value)

        # In a piece the derivative is linear: slope + rise * share.
        slope, rise = ((gate * part[:, None]).sum(0).flatten() * scale for part in (slopes[:, :-1], slopes.diff()))
        derivative, sums = _by_piece(x, grad, grid, cuts, torch.stack([slope, rise], 1))
        total, right = sums[:, 0].view_as(middle), sums[:, 1].view_as(middle)  # of g, of g * share

        to_near, to_far = gate * (total - right), gate * right
        scale_grad = (to_near * near + to_far * far + (1 - gate) * total * value.sign()).sum()
        scattered = torch.zeros_like(outputs)
        scattered[:, :-1] += scale * to_near.sum(1)
        scattered[:, 1:] += scale * to_far.sum(1)
        return derivative, None, scattered, None, scale_grad, None, None


def _by_piece(x: Tensor, grad: Tensor, grid: Tensor, cuts: Tensor | None, lines: Tensor) -> tuple[Tensor, Tensor]:
    """All that is done element by element. x and grad (...); cuts (M-1, 2) or None; lines (P, 2) slope and rise.
    Returns g (slope + rise share) of the shape of x, and the sums of g and of g share over each piece (P, 2)."""
    sums, flat = torch.zeros_like(lines), (x.flatten(), grad.flatten())
    done = torch.empty_like(flat[0])
    size = PART if x.device.type == "cpu" else len(done)  # parts that stay in a CPU's cache
    for x_part, g, out in zip(*(whole.split(size) for whole in (*flat, done)), strict=True):
        left, share = _cells(x_part, grid)
        if cuts is not None:
            for cut in _two(cuts, left.int()):
                left.add_(cut.le_(share), alpha=len(cuts))
        piece = left.int()
        slope, rise = _two(lines, piece)
        torch.addcmul(slope, rise, share, out=out).mul_(g)
        torch.view_as_complex(sums).scatter_add_(0, piece.long(), torch.complex(g, share.mul_(g)))
    return done.view_as(x), sums
