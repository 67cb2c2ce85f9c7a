"""The paper's binarizer: a learnt classifier of a scalar.

Source: Binarizing by Classification (2205.07433) and its released code, `MetaConv_v2` (gated) and `MetaConv_v3`
(argmax). `monotone`, `normalised`, the table and the rule "expected" are ours.
Legend: M numbers, 2 outputs, R functions.
"""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..names import known
from ..recipe.schema import MOST_GATES
from .base import Binarizer, Facts, once, pushed, real, transformed
from .sign import sign
from .table import Evaluator, Range, nodes, pieces

NODES = 2049
CHUNK = 65_536
SMALLEST = 1e-3  # size of a monotone classifier's weight
RULES = ("gated", "sum", "expected")


class Classifier(Binarizer):
    """The learnt binarizer: a classifier f: R -> R^2 of a scalar into the classes -1 and +1.

    f is 1 -> 2 (`hidden=0`, the linear one) or 1 -> hidden -> 2 with tanh between, without biases.
    forward: sign(x); with `argmax`, +1 where f2 >= f1, else -1.
    backward: straight-through on F, dL/dx = g F'(x), and the classifier's own parameters get the gradient of F
    too. `rule` "gated": F = sum_j hardtanh(f_j), the released one; "sum": F = f1 + f2, the same without gates;
    "expected": F = p2 - p1 = tanh((f2 - f1) / 2), the expected label (softmax).
    `monotone`: weights enter by their size (abs + 0.001; the class -1 falls where the rule subtracts it), so
    F' >= 0: the estimator cannot turn round. Ours.
    `normalised`: no hidden unit is steeper than 1 and no output is steeper than 1 at 0, so no gate closes within
    abs(x) < 1; F is divided by its slope at 0, so F'(0) = 1 and it cannot collapse. Ours.
    `gates` (linear, gated, without argmax): where both gates stand at the start, in units of x, from 1 to 100; None: a
    random start, as torch's. Both outputs then stay equal: F is one clipped line whose clip is learnt. Ours.
    `tabulated`: through a table of NODES nodes a call. Else exactly, in chunks that are evaluated again in the
    backward. Raises ValueError for a negative `hidden`, unknown names, `gates` out of range or where it means nothing,
    and `normalised` without `monotone`.
    """

    facts = Facts("W", "Binarizing by Classification (2205.07433)")

    def __init__(
        self,
        hidden: int = 100,
        *,
        argmax: bool = False,
        rule: str = "gated",
        monotone: bool = False,
        normalised: bool = False,
        gates: float | None = None,
        tabulated: bool = True,
    ) -> None:
        super().__init__()
        if hidden < 0:
            raise ValueError(f"hidden must be 0 (linear) or a number of units, not {hidden}")
        if normalised and not monotone:
            raise ValueError("normalised=True divides by the slope at 0, which only monotone=True keeps positive")
        if gates is not None and (hidden or not 1 <= gates <= MOST_GATES):
            raise ValueError(f"gates is of the linear classifier, from 1 to {MOST_GATES}, got {gates} ({hidden=})")
        if gates is not None and (argmax or rule != "gated"):
            raise ValueError("gates starts both outputs alike: it needs the gated rule, and a forward that is sign")
        self.rule_name = known("rule", rule, RULES)
        self.argmax, self.tabulated = argmax, tabulated
        self.monotone, self.normalised = monotone, normalised
        widths = [1, hidden, 2] if hidden else [1, 2]
        start = None if gates is None else 1 / gates - (SMALLEST if monotone else 0)
        self.layers = nn.ModuleList(_Weight(a, b, start) for a, b in zip(widths, widths[1:], strict=False))

    def reset_parameters(self) -> None:
        """A new start, drawn as the first one was."""
        for layer in self.layers:
            assert isinstance(layer, _Weight)
            layer.reset_parameters()

    @property
    def gated(self) -> bool:
        """Whether each output is clipped to -1..1 before the sum, and its gradient stops there."""
        return self.rule_name == "gated"

    def _weights(self, dtype: torch.dtype) -> list[Tensor]:
        weights = [layer().to(dtype) for layer in self.layers]
        if self.monotone:
            weights = [weight.abs() + SMALLEST for weight in weights]
            if self.rule_name == "expected":
                weights[-1] = torch.cat([-weights[-1][:1], weights[-1][1:]])
        if self.normalised:
            for i, weight in enumerate(weights[:-1]):
                weights[i] = weight / weight.sum(1).amax().clamp(min=1)
        return weights

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f (2, M), its slopes (2, M) without gradient at x (M,), and the scale () of F."""
        weights = self._weights(x.dtype)
        f, slopes = _through(weights, x)
        if not self.normalised:
            return f, slopes, x.new_ones(())
        steepness = reduce(lambda before, weight: weight @ before, weights)  # (2, 1): f'(0), as tanh'(0) = 1
        bound = steepness.abs().clamp(min=1)
        f, slopes, steepness = f / bound, slopes / bound.detach(), steepness / bound
        return f, slopes, 1 / self.combine(torch.zeros_like(steepness), steepness)[1].sum()

    def combine(self, f: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        """The functions (R, M) whose sum is F / scale before gating, and their slopes: R is 2 when gated, else 1."""
        if self.rule_name == "gated":
            return f, slopes
        if self.rule_name == "sum":
            return f.sum(0, keepdim=True), slopes.sum(0, keepdim=True)
        label = torch.tanh((f[1:] - f[:1]) / 2)
        return label, (slopes[1:] - slopes[:1]) * (1 - label.detach().square()) / 2

    def soft(self, x: Tensor) -> Tensor:
        """F(x), the function the backward pass goes straight through; any shape."""
        f, slopes, scale = self.outputs(x.flatten())
        parts = self.combine(f, slopes)[0]
        return (scale * (parts.clamp(-1, 1) if self.gated else parts).sum(0)).view_as(x)

    @torch.no_grad()
    def derivative(self, x: Tensor) -> Tensor:
        def of_part(x: Tensor) -> Tensor:
            f, slopes, scale = self.outputs(x)
            parts, slopes = self.combine(f, slopes)
            return scale * (slopes * (parts.abs() < 1) if self.gated else slopes).sum(0)

        return torch.cat([of_part(part) for part in x.flatten().split(CHUNK)]).view_as(x)

    def forward(self, x: Tensor, evaluator: Evaluator | None = None) -> Tensor:
        """-1 or +1, of the shape of x. `evaluator`: one made for several tensors of a step, x among them."""
        values = real(x).to(self._precision())  # autocast hands over half precision
        if not self.takes_gradient():
            return self.hard(values).to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            if transformed() or not values.numel():
                soft = self.soft(values.flatten()).view_as(values)
                through = _PushedOnce if pushed() else _Once
                binary = through.apply(self.hard(values) + (soft - soft.detach()))
            elif not self.tabulated:
                binary = self._exact(values)
            else:
                binary = (evaluator or self.evaluator([Range.of(values)]))(values)
            return binary.to(x.dtype)

    def _precision(self) -> torch.dtype:
        return torch.promote_types(next(self.parameters()).dtype, torch.float32)

    def evaluator(self, ranges: Sequence[Range]) -> Evaluator:
        """F of this step, tabulated, for all tensors of these ranges. The parameters' gradient flows through it."""
        with torch.autocast(ranges[0].radius.device.type, enabled=False):
            grid = nodes([values.to(self._precision()) for values in ranges], NODES)
            f, slopes, scale = self.outputs(grid[len(grid) // 2 :])  # tanh is odd, no biases: F is odd, F' even
            parts, slopes = self.combine(f, slopes)
            parts = torch.cat([-parts.flip(1)[:, :-1], parts], 1)
            slopes = torch.cat([slopes.flip(1)[:, :-1], slopes], 1)
            apart = (f[1] - f[0]).detach()
            margin = torch.cat([-apart.flip(0)[:-1], apart]) if self.argmax else None
            return Evaluator(grid, *pieces(parts, slopes, scale, self.gated), margin)

    def _exact(self, x: Tensor) -> Tensor:
        parts = [
            checkpoint(self.soft, part, use_reentrant=False, preserve_rng_state=False)
            for part in x.flatten().split(CHUNK)
        ]
        soft = torch.cat(parts)
        return _Once.apply(self.hard(x) + (soft - soft.detach()).view_as(x))

    def hard(self, x: Tensor) -> Tensor:
        if not self.argmax:
            return sign(x.detach())
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            f = torch.cat([self.outputs(part)[0] for part in x.flatten().split(CHUNK)], dim=1)
        return sign(f[1] - f[0]).view_as(x)

    def extra_repr(self) -> str:
        names = ("argmax", "monotone", "normalised", "tabulated")
        widths = " -> ".join(str(layer.in_features) for layer in self.layers)
        return ", ".join([f"{widths} -> 2", self.rule_name, *(name for name in names if getattr(self, name))])


def _through(weights: list[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """f (2, M) at x (M,), and its slopes (2, M) without gradient."""
    value, slope = x[None], torch.ones_like(x)[None]  # (1, M)
    *hidden, last = weights
    for weight in hidden:
        value, slope = torch.tanh(weight @ value), weight.detach() @ slope
        slope = value.detach().square().neg_().add_(1).mul_(slope)
    return last @ value, last.detach() @ slope


class _Weight(nn.Module):
    """The weight (outputs, inputs) of a layer of the classifier. No nn.Linear, or what is done to all of a network's
    linear layers (norms, pruning, quantization) would be done to it."""

    def __init__(self, inputs: int, outputs: int, start: float | None) -> None:
        super().__init__()
        self.in_features, self.start = inputs, start
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The start of nn.Linear, or one number where one is told."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.start is not None:
            nn.init.constant_(self.weight, self.start)

    def forward(self) -> Tensor:
        return self.weight


class _Once(torch.autograd.Function):
    """x, through which no second derivative is taken."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)  # it has what the gradient hangs on; a layer keeps these numbers anyway

    @staticmethod
    @once
    def backward(ctx, saved, grad: Tensor) -> Tensor:
        return grad


class _PushedOnce(_Once):
    @staticmethod
    def jvp(ctx, tangent: Tensor) -> Tensor:
        return tangent.view_as(tangent)
