"""Binarizers that learn their backward pass: the paper's classifier, and DSQ.

Source: Binarizing by Classification (2205.07433) and its released code, `MetaConv_v2` (gated) and `MetaConv_v3`
(argmax). `monotone`, `normalised`, the table and the rules beyond "gated" and "sum" are ours.
Legend: M numbers, 2 outputs, R functions.
"""

import math
from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import chebyshev
from .config import known
from .ops import on_cpu, sign
from .straight_through import Binarizer, real
from .tables import Pieces, TabulatedSign, extent, nodes

NODES = 2049
CHUNK = 65_536
MANY = 1_000_000
STEEP = 1.5


RULE_NAMES = ("gated", "sum", "difference", "expected")
UNITS = {  # name -> (h, its slope from z and h(z)); each is odd with slope 1 at 0
    "tanh": (torch.tanh, lambda z, h: h.square().neg_().add_(1)),
    "atan": (torch.atan, lambda z, h: 1 / (1 + z.square())),
}


class Classifier(Binarizer):
    """The learnt binarizer: a classifier f: R -> R^2 of a scalar into the classes -1 and +1.

    f is 1 -> 2 (`hidden=0`, the linear one) or 1 -> hidden -> ... -> 2 with `depth` hidden layers of `unit`
    (tanh, atan), without biases.
    forward: sign(x); with `argmax`, +1 where f2 >= f1, else -1.
    backward: straight-through on F, dL/dx = g F'(x), and the classifier's own parameters get the gradient of F
    too. `rule` "gated": F = sum_j hardtanh(f_j), the released one; "sum": F = f1 + f2, the same without gates;
    "difference": F = f2 - f1; "expected": F = p2 - p1 = tanh((f2 - f1) / 2), the expected label (softmax).
    `monotone`: weights enter by their size (abs + 0.001; the class -1 falls where the rule subtracts it), so
    F' >= 0: the estimator cannot turn round. Ours.
    `normalised`: no hidden unit is steeper than 1 and no output is steeper than 1 at 0, so no gate closes within
    abs(x) < 1; F is divided by its slope at 0, so F'(0) = 1 and it cannot collapse. Ours.
    `tabulated`: through a table of NODES nodes a call; on a CPU and for MANY elements through a polynomial, where F
    is smooth enough over their range. Else exactly, in chunks that are evaluated again in the backward. Raises
    ValueError for sizes that are none, unknown names, and `normalised` without `monotone`.
    """

    def __init__(
        self, hidden: int = 100, *, depth: int = 1, unit: str = "tanh", argmax: bool = False, rule: str = "gated",
        monotone: bool = False, normalised: bool = False, tabulated: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if hidden < 0:
            raise ValueError(f"hidden must be 0 (linear) or a number of units, not {hidden}")
        if depth < 1 or (depth > 1 and not hidden):
            raise ValueError(
                f"depth counts hidden layers, at least 1, not {depth}; hidden=0, the linear classifier, has no second"
            )
        if normalised and not monotone:
            raise ValueError("normalised=True divides by the slope at 0, which only monotone=True keeps positive")
        self.rule_name, self.unit = known("rule", rule, RULE_NAMES), known("unit", unit, UNITS)
        self.argmax, self.tabulated = argmax, tabulated
        self.monotone, self.normalised = monotone, normalised
        widths = [1, *[hidden] * (depth if hidden else 0), 2]
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in zip(widths, widths[1:], strict=False))

    @property
    def gated(self) -> bool:
        """Whether each output is clipped to -1..1 before the sum, and its gradient stops there."""
        return self.rule_name == "gated"

    def _weights(self, dtype: torch.dtype) -> list[Tensor]:
        weights = [layer.weight.to(dtype) for layer in self.layers]
        if self.monotone:
            weights = [weight.abs() + 1e-3 for weight in weights]
            if self.rule_name in ("difference", "expected"):
                weights[-1] = torch.cat([-weights[-1][:1], weights[-1][1:]])
        if self.normalised:
            for i, weight in enumerate(weights[:-1]):
                weights[i] = weight / weight.sum(1).amax().clamp(min=1)
        return weights

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f (2, M), its slopes (2, M) without gradient at x (M,), and the scale () of F."""
        weights = self._weights(x.dtype)
        f, slopes = self._through(weights, x)
        if not self.normalised:
            return f, slopes, x.new_ones(())
        steepness = reduce(lambda before, weight: weight @ before, weights)  # (2, 1): f'(0), as h'(0) = 1
        bound = steepness.abs().clamp(min=1)
        f, slopes, steepness = f / bound, slopes / bound.detach(), steepness / bound
        return f, slopes, 1 / self.combine(torch.zeros_like(steepness), steepness)[1].sum()

    def _through(self, weights: list[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        unit, unit_slope = UNITS[self.unit]
        value, slope = x[None], torch.ones_like(x)[None]  # (1, M)
        for i, weight in enumerate(weights):
            z, slope = weight @ value, weight.detach() @ slope
            value = z if i == len(weights) - 1 else unit(z)
            if value is not z:
                slope = unit_slope(z.detach(), value.detach()).mul_(slope)
        return value, slope

    def combine(self, f: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        """The functions (R, M) whose sum is F / scale before gating, and their slopes: R is 2 when gated, else 1."""
        if self.rule_name == "gated":
            return f, slopes
        if self.rule_name == "sum":
            return f.sum(0, keepdim=True), slopes.sum(0, keepdim=True)
        apart, steep = f[1:] - f[:1], slopes[1:] - slopes[:1]
        if self.rule_name == "difference":
            return apart, steep
        label = torch.tanh(apart / 2)
        return label, steep * (1 - label.detach().square()) / 2

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

    def forward(self, x: Tensor, step: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Through `step`, if this step's is made, for several tensors."""
        own = real(x).to(self._precision())  # autocast hands over half precision
        with torch.autocast(x.device.type, enabled=False):
            if not self.tabulated:
                made = self._exact(own)
            elif not torch.is_grad_enabled():
                made = self.hard(own)
            else:
                if step is None:
                    whole = extent(own)
                    step = self.step(own.numel(), lambda: whole[0], lambda: [whole])
                made = step(own)
            return made.to(x.dtype)

    def _precision(self) -> torch.dtype:
        return torch.promote_types(self.layers[0].weight.dtype, torch.float32)

    def step(
        self, count: int, reach: Callable[[], Tensor], extents: Callable[[], list[Tensor]]
    ) -> Callable[[Tensor], Tensor]:
        """What all tensors of a step pass through, each when it is needed, so that its backward comes then too: the
        fitted F, or the table. `count` elements in all, none larger than `reach`; their `tables.extent`s."""
        if count >= MANY and not self.argmax and on_cpu(self.layers[0].weight):
            with torch.autocast("cpu", enabled=False):
                fitted = self._fitted(reach().item())
            if fitted is not None:
                memory: dict = {}
                return lambda x: chebyshev.FittedSign.apply(x, *fitted, memory)
        return self.table(extents())

    def _fitted(self, reach: float) -> tuple[Tensor, chebyshev.Fit] | None:
        """F at the nodes of 0..reach, with gradient, and its fit; None where a gate closes within them, or where F or
        the steepest hidden unit, which the parameters' gradients are made of, is not smooth enough."""
        with torch.no_grad():
            slopes, steep = torch.ones(1, 1, dtype=torch.float64), 0.0
            for weight in self._weights(torch.float64)[:-1]:
                slopes = weight.abs() @ slopes
                steep = max(steep, slopes.max().item())
        if not 0 < reach < math.inf or not steep * reach < STEEP:
            return None
        x = chebyshev.nodes(reach)
        f, slopes, scale = self.outputs(x)
        parts = self.combine(f, slopes)[0]
        if self.gated and not parts.detach().abs().amax() <= 0.99:
            return None
        values = scale * parts.sum(0)
        numbers = values.detach().numpy()
        steepest = UNITS[self.unit][0](steep * x).numpy() if steep else numbers
        count = chebyshev.terms(np.stack([numbers, steepest]), self.normalised)
        return None if count > chebyshev.TERMS else (values, chebyshev.fit(numbers, reach, count))

    def table(self, extents: list[Tensor]) -> Callable[[Tensor], Tensor]:
        """A step's table for all tensors of these `tables.extent`s."""
        with torch.autocast(extents[0].device.type, enabled=False):
            grid = nodes([one.to(self._precision()) for one in extents], NODES)
            f, slopes, scale = self.outputs(grid[len(grid) // 2 :])  # odd units, no biases: F is odd, F' even
            parts, slopes = self.combine(f, slopes)
            parts, slopes = (
                torch.cat([-parts.flip(1)[:, :-1], parts], 1), torch.cat([slopes.flip(1)[:, :-1], slopes], 1)
            )  # fmt: skip
            apart = (f[1] - f[0]).detach()
            margin = torch.cat([-apart.flip(0)[:-1], apart]) if self.argmax else None
            lines, cuts = Pieces.apply(parts, slopes, scale, self.gated)
        memory = None if torch.compiler.is_compiling() else {}
        return lambda x: TabulatedSign.apply(x, grid, lines, cuts, margin, memory)

    def _exact(self, x: Tensor) -> Tensor:
        parts = [
            checkpoint(self.soft, part, use_reentrant=False, preserve_rng_state=False)
            for part in x.flatten().split(CHUNK)
        ]
        soft = torch.cat(parts)
        return _Once.apply(self.hard(x) + (soft - soft.detach()).view_as(x))

    @torch.no_grad()
    def hard(self, x: Tensor) -> Tensor:
        if not self.argmax:
            return sign(x)
        f = torch.cat([self.outputs(part)[0] for part in x.flatten().split(CHUNK)], dim=1)
        return sign(f[1] - f[0]).view_as(x)

    def extra_repr(self) -> str:
        names = ("argmax", "monotone", "normalised", "tabulated")
        widths = " -> ".join(str(layer.in_features) for layer in self.layers)
        return ", ".join([f"{widths} -> 2", self.rule_name, *(name for name in names if getattr(self, name))])


class _Once(torch.autograd.Function):
    """x, through which no second derivative is taken."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad


class DSQ(Binarizer):
    """Differentiable soft quantization at one bit: a tanh whose sharpness is learnt.

    forward: sign(x). gradient: straight-through on F(x) = s tanh(k x) for abs(x) <= 1, s = 1 / (1 - a),
    k = ln(2/a - 1) / 2: dL/dx = g k s (1 - tanh(k x)^2), 0 beyond; dL/da = sum g dF/da. Schedule: none, a is
    learnt from `start` and kept in 0.001..0.5. Domain: W, A. Source: DSQ (1908.05033), one interval of length 2.
    """

    def __init__(self, start: float = 0.2) -> None:
        super().__init__()
        if not 1e-3 <= start <= 0.5:
            raise ValueError(f"dsq starts with a sharpness of 0.001 to 0.5, not {start}")
        self.sharpness = nn.Parameter(torch.tensor(start))

    def soft(self, x: Tensor) -> Tensor:
        """F(x), the function the backward pass goes straight through; any shape."""
        _, s, k = self.constants(self.sharpness)
        return s * torch.tanh(x.clamp(-1, 1) * k)

    def derivative(self, x: Tensor) -> Tensor:
        _, s, k = self.constants(self.sharpness.detach())
        return (1 - torch.tanh(x * k).square()) * (k * s) * (x.abs() <= 1)

    @staticmethod
    def constants(sharpness: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """a within its range, s and k."""
        a = sharpness.clamp(1e-3, 0.5)
        return a, 1 / (1 - a), (2 / a - 1).log() / 2

    def forward(self, x: Tensor) -> Tensor:
        return _DSQSign.apply(real(x), self.sharpness)


class _DSQSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, sharpness: Tensor) -> Tensor:
        ctx.save_for_backward(x, sharpness)
        return sign(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        x, sharpness = ctx.saved_tensors
        a, s, k = DSQ.constants(sharpness)
        inner = x.clamp(-1, 1)
        t = torch.tanh(inner * k)
        along = t.square().mul_(-s).add_(s).mul_(grad)  # g dF/d(k x) for abs(x) <= 1
        beyond = inner != x
        # dF/da = s^2 t + s (1 - t^2) x dk/da; at the ends of its range a gets no gradient
        wide = torch.promote_types(x.dtype, torch.float32)
        of_a = s.square() * t.mul_(grad).sum(dtype=wide) - inner.mul_(along).sum(dtype=wide) / (a * (2 - a))
        return along.masked_fill_(beyond, 0).mul_(k), of_a * (sharpness == a)
