"""A scalar classifier evaluated through a table: its price no longer depends on the number of weights.

The classifier f: R -> R^2 is a function of one number. Its two outputs and their slopes are computed at M
nodes once a step; every element interpolates between its two nodes and is gated by its interpolated outputs
(a table of the gated sum is wrong near each closing gate). The outputs at the nodes are an autograd input, so
gradients of the classifier's parameters flow through the table, under accumulation and DDP as everywhere.
Ours; the released code evaluates the classifier element by element.
Legend: M nodes, P pieces of the M - 1 cells between them, ... any shape of x, R outputs (1 or 2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .base import once
from .sign import memory_order, on_cpu, sign

PART = 262_144
DENSE = 6.0


@dataclass(frozen=True)
class Range:
    """What a grid must know of a tensor: `radius`, the largest absolute value, the sum of `squares` and the `count` of
    its elements, each () and without gradient."""

    radius: Tensor
    squares: Tensor
    count: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Range":
        """The range of x, any shape."""
        flat = x.detach().permute(memory_order(x)).flatten()
        low, high = torch.aminmax(flat)
        squares = torch.linalg.vector_norm(flat).square()
        return cls(torch.maximum(-low, high), squares, torch.full_like(squares, len(flat)))

    def to(self, dtype: torch.dtype) -> "Range":
        """The same in another floating type."""
        return Range(self.radius.to(dtype), self.squares.to(dtype), self.count.to(dtype))


def nodes(ranges: Sequence[Range], count: int) -> Tensor:
    """Nodes (M,) over [-r, r], M - 1 a multiple of 8, for all tensors of these ranges: three quarters of the cells lie
    within DENSE root mean squares, so that single large elements make no cell coarse but their own; evenly spaced where
    there are none. r lies a hair beyond the largest radius, so that no element is rounded to a place outside; 1 if
    there is a NaN or an infinity (nothing learns from such a step)."""
    largest, squares, counts = (
        torch.stack([getattr(values, name) for values in ranges]) for name in ("radius", "squares", "count")
    )
    radius = largest.amax().clamp(min=1e-6) * (1 + 1e-5)
    radius = torch.where(radius.isfinite(), radius, 1)
    dense = (DENSE * (squares.sum() / counts.sum()).sqrt()).nan_to_num(1).clamp(1e-3 * radius, 0.75 * radius)
    steps = torch.linspace(0, 1, count // 8 * 3 + 1, dtype=radius.dtype, device=radius.device)
    half = torch.cat([steps * dense, dense + steps[3::3] * (radius - dense)])
    return torch.cat([-half.flip(0)[:-1], half])


class Evaluator:
    """What evaluates F in one step, for every tensor within its range: sign forward, F' backward.

    grid (M,), lines (P, 2) and cuts (M-1, 2) or None as `Pieces` makes them; margin (M,) decides the forward, None:
    sign does. One tensor's backward leaves its buffers for the next one's.
    """

    def __init__(self, grid: Tensor, lines: Tensor, cuts: Tensor | None, margin: Tensor | None) -> None:
        self.grid, self.lines, self.cuts, self.margin = grid, lines, cuts, margin
        self.memory: dict | None = None if torch.compiler.is_compiling() else {}

    def __call__(self, x: Tensor) -> Tensor:
        """-1 or +1, of the shape of x."""
        return TabulatedSign.apply(x, self.grid, self.lines, self.cuts, self.margin, self.memory)


def pieces(outputs: Tensor, slopes: Tensor, scale: Tensor, gated: bool) -> tuple[Tensor, Tensor | None]:
    """Lines and cuts of a table: see `Pieces`."""
    return Pieces.apply(outputs, slopes, scale, gated)


class _Room:
    """What is known of up to `size` elements and a grid, in memory that each part uses again: to allocate it every time
    costs as much as to fill it."""

    def __init__(self, grid: Tensor, size: int) -> None:
        self.place, self.pair = grid.new_empty(size), grid.new_empty(size, 2)
        self.whole = grid.new_empty(size, dtype=torch.int32)
        self.cell = grid.new_empty(size, dtype=torch.int64)
        self.count = len(grid) - 1
        # Where a place of 1 is a cell: x by `wide` everywhere, and abs(x) up to `dense` by `more` on top.
        dense, radius = grid[-1 - self.count // 8], grid[-1]
        self.wide = self.count / 8 / (radius - dense)
        self.more = self.count / 8 * 3 / dense - self.wide
        self.low: Any = -dense.item() if on_cpu(grid) else -dense
        self.high: Any = dense.item() if on_cpu(grid) else dense

    def cells(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Each element's cell, 0..M-2, and its position 0..1 within; both of the shape of x (rows, n). NaN stands in
        some cell, with a position that is NaN."""
        size = x.numel()
        position = torch.clamp(x, self.low, self.high, out=self.place[:size].view(x.shape))
        position.mul_(self.more).addcmul_(x, self.wide).add_(self.count / 2)
        cell = self.whole[:size].view(x.shape).copy_(position).clamp_(0, self.count - 1)
        return self.cell[:size].view(x.shape).copy_(cell), position.frac_()

    def two(self, table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """table[index] of both columns of a table (P, 2), index (rows, n): one gather, as one complex number is
        fetched, by a thread per row. Overwritten by the next call."""
        pair = torch.view_as_complex(self.pair[: index.numel()]).view(index.shape)
        torch.gather(torch.view_as_complex(table).expand(len(index), -1), 1, index, out=pair)
        near, far = torch.view_as_real(pair).unbind(-1)
        return near, far


def _cuts(outputs: Tensor) -> Tensor:
    """Where in each cell one of two outputs passes -1 or 1, so that its gate switches: shares 0..1 in rising order
    (M-1, 2), 2 where none does. An interpolated output passes one level of a cell at most once."""
    near, far = outputs[:, :-1], outputs[:, 1:]
    inside = outputs.abs() < 1
    level = torch.where(inside[:, :-1], far, near).sign()
    switches = inside[:, :-1] != inside[:, 1:]
    share = torch.where(switches, (level - near) / (far - near), 2)
    return torch.stack([torch.minimum(*share), torch.maximum(*share)], 1)


class Pieces(torch.autograd.Function):
    """A table's cells, cut where a gate switches, so that within a piece the gates are constant and the derivative of
    F = scale sum_j h(f_j) is linear: slope + rise * share of the cell. h is hardtanh if gated, else the identity.

    forward: outputs (R, M) and scale () with gradient, slopes (R, M) without -> lines (P, 2), slope and rise of each
    piece, and cuts (M-1, 2), None where no gate switches and each cell is one piece; P is M-1 or three times that.
    backward: the sums (P, 2) over each piece of g and of g times the share take the place of a gradient of lines.
    dL/doutputs is g scale gate_j shared between the two nodes beside each element; dL/dscale = sum g sum_j h(f_j).
    """

    @staticmethod
    def forward(ctx, outputs: Tensor, slopes: Tensor, scale: Tensor, gated: bool) -> tuple[Tensor, Tensor | None]:
        near, far = outputs[:, None, :-1], outputs[:, None, 1:]  # (R, 1, M-1)
        middle, cuts = torch.full_like(near[0], 0.5), None
        if gated:
            cuts = _cuts(outputs)
        if cuts is not None and on_cpu(outputs) and (cuts > 1).all():
            cuts = None
        if cuts is not None:
            ends = nn.functional.pad(cuts.clamp(max=1).T, (0, 0, 1, 0))
            ends = nn.functional.pad(ends, (0, 0, 0, 1), value=1.0)
            middle = (ends[:-1] + ends[1:]) / 2  # (3, M-1)
            ctx.mark_non_differentiable(cuts)
        value = torch.lerp(near, far, middle)  # (R, 1 or 3, M-1)
        gate = (value.abs() < 1).to(value.dtype) if gated else torch.ones_like(value)
        ctx.save_for_backward(outputs, scale, value, gate)
        lines = [(gate * part[:, None]).sum(0).flatten() * scale for part in (slopes[:, :-1], slopes.diff())]
        return torch.stack(lines, 1), cuts

    @staticmethod
    @once
    def backward(ctx, saved, sums: Tensor, _):
        outputs, scale, value, gate = saved
        near, far = outputs[:, None, :-1], outputs[:, None, 1:]
        total, right = (part.view_as(value[0]) for part in sums.unbind(1))
        to_near, to_far = gate * (total - right), gate * right
        of_scale = (to_near * near + to_far * far + (1 - gate) * total * value.sign()).sum()
        scattered = torch.zeros_like(outputs)
        scattered[:, :-1] += scale * to_near.sum(1)
        scattered[:, 1:] += scale * to_far.sum(1)
        return scattered, None, of_scale, None


class TabulatedSign(torch.autograd.Function):
    """forward: sign(x), or +1 where margin(x) >= 0 and -1 elsewhere. backward: straight-through on F, whose derivative
    are the lines of its `Pieces`: dL/dx = g (slope + rise * share).

    grid (M,), lines (P, 2), cuts (M-1, 2) or None; margin (M,) decides the forward, None: sign(x) does. `memory`: a
    dict in which one tensor's backward leaves its buffers for the next one's.
    """

    @staticmethod
    def forward(ctx, x, grid, lines, cuts, margin, memory: dict | None) -> Tensor:
        ctx.save_for_backward(x, grid, lines, cuts)
        ctx.memory = memory
        if margin is None:
            return sign(x)
        return sign(_between(x, grid, torch.stack([margin[:-1], margin[1:]], 1)))

    @staticmethod
    @once
    def backward(ctx, saved, grad: Tensor):
        x, grid, lines, cuts = saved
        memory = {} if ctx.memory is None else ctx.memory
        longest = min(PART if on_cpu(grid) else 32 * PART, x.numel())
        if "room" not in memory or len(memory["room"].place) < longest:
            memory["room"] = _Room(grid, longest)
        threads = torch.get_num_threads() if on_cpu(grid) else 1
        sums = torch.view_as_complex(lines.new_zeros(2 ** (threads.bit_length() - 1), *lines.shape))
        derivative = _by_piece(x, grad, cuts, lines, sums, memory["room"])
        return derivative, None, torch.view_as_real(sums.sum(0)), None, None, None


def _between(x: Tensor, grid: Tensor, ends: Tensor) -> Tensor:
    """Interpolated from the values at both ends of each cell (M-1, 2)."""
    room = _Room(grid, x.numel())
    cell, share = room.cells(x.reshape(1, -1))
    return torch.lerp(*room.two(ends, cell), share).view_as(x)


def _by_piece(x: Tensor, grad: Tensor, cuts: Tensor | None, lines: Tensor, sums: Tensor, room: _Room) -> Tensor:
    """All that is done element by element: g (slope + rise share), of the shape of x; adds g and g share, as a complex
    number, to each piece's sum (T, P), T threads. x and grad (...); cuts (M-1, 2) or None; lines (P, 2) slope and
    rise. Done in parts of the size of `room`, which on a CPU fits in a cache."""
    order = memory_order(x)
    x = x if x.permute(order).is_contiguous() else x.contiguous()
    derivative = torch.empty_like(x)
    flat = [values.permute(order).flatten() for values in (x, grad, derivative)]
    for part, g, out in zip(*(values.split(len(room.place)) for values in flat), strict=True):
        rows = len(sums) if len(g) % len(sums) == 0 else 1
        g, out = g.view(rows, -1), out.view(rows, -1)
        piece, share = room.cells(part.view(rows, -1))
        if cuts is not None:
            for cut in room.two(cuts, piece):
                piece.add_(cut <= share, alpha=len(cuts))
        slope, rise = room.two(lines, piece)
        torch.addcmul(slope, rise, share, out=out).mul_(g)
        pair = torch.view_as_complex(room.pair[: g.numel()]).view(g.shape)
        sums[:rows].scatter_add_(1, piece, torch.complex(g, share.mul_(g), out=pair))
    return derivative
