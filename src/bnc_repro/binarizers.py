"""One module per way to binarize: the forward is two-valued, the backward is what the literature argues about.

A binarizer maps x (any shape) to -1 and +1 (+1 at ties) and never scales: centring, standardisation and the
scale belong to the layer. `get("mlp")` and `BINARIZERS` are the way in; `None` means "stay float".
Source: Binarizing by Classification (2205.07433) and its released code for the classifier, `surrogates` for
the hand-made functions. The presets `paper` and `fixed` are our construction where they differ from the code.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .config import known
from .ops import sign
from .surrogates import SURROGATES
from .tables import TabulatedSign, nodes

NODES = 513
CHUNK = 65_536


class _SurrogateSign(torch.autograd.Function):
    """sign(x) forward, g * d(x) backward; x is the one tensor kept."""

    @staticmethod
    def forward(ctx, x: Tensor, derivative) -> Tensor:
        ctx.save_for_backward(x)
        ctx.derivative = derivative
        return sign(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        return grad * ctx.derivative(*ctx.saved_tensors), None


class Binarizer(nn.Module):
    """Base of all binarizers: x (...) -> -1 or +1, and `derivative(x)`, the factor of the backward pass.

    `progress` (0..1) drives the schedules; `set_progress` sets it for a whole network.
    """

    forward_values = (-1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.progress = 0.0

    def derivative(self, x: Tensor) -> Tensor:
        """d(x) of dL/dx = g d(x), same shape as x, without gradient."""
        raise TypeError(f"{type(self).__name__} must define derivative(x)")

    def _load_from_state_dict(self, state, prefix, metadata, strict, missing, unexpected, errors) -> None:
        """A float twin's checkpoint has no classifier: its parameters then keep their start."""
        if not any(key.startswith(prefix) for key in state):
            state.update({prefix + key: value for key, value in self.state_dict().items()})
        super()._load_from_state_dict(state, prefix, metadata, strict, missing, unexpected, errors)


class Surrogate(Binarizer):
    """A hand-made soft function by its name in `SURROGATES`.

    forward: sign(x). backward: dL/dx = g d(x, progress). Parameters: none. Source: see the function.
    """

    def __init__(self, name: str, **options: float) -> None:
        super().__init__()
        self.name, self.options = name, options

    def derivative(self, x: Tensor) -> Tensor:
        return SURROGATES[self.name](x, self.progress, **self.options)

    def forward(self, x: Tensor) -> Tensor:
        return _SurrogateSign.apply(_real(x), self.derivative)

    def extra_repr(self) -> str:
        return ", ".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])


class Classifier(Binarizer):
    """The learnt binarizer: a classifier f: R -> R^2 of a scalar into the classes -1 and +1.

    f is 1 -> 2 (`hidden=0`, the linear one) or 1 -> hidden -> 2 with tanh, without biases.
    forward: sign(x); with `argmax`, +1 where f2 >= f1, else -1.
    backward: straight-through on F(x) = sum_j h(f_j(x)), h = hardtanh if `gated`, else the identity:
    dL/dx = g F'(x), and the classifier's own parameters get the gradient of F too (the released rule).
    `monotone`: weights enter by their size (abs + 0.001), so F' >= 0: the estimator cannot turn round. Ours.
    `normalised`: no hidden unit is steeper than 1 and no output is steeper than 1 at 0, so no gate closes within
    abs(x) < 1; F is divided by its slope at 0, so F'(0) = 1 and it cannot collapse. Ours.
    `tabulated`: through a table of NODES nodes a call, else exactly, in chunks that are evaluated again in the
    backward. Raises ValueError for a negative `hidden`, and `normalised` without `monotone`.
    """

    def __init__(
        self, hidden: int = 100, *, argmax: bool = False, gated: bool = True,
        monotone: bool = False, normalised: bool = False, tabulated: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if hidden < 0:
            raise ValueError(f"hidden must be 0 (linear) or a number of units, not {hidden}")
        if normalised and not monotone:
            raise ValueError("normalised=True divides by the slope at 0, which only monotone=True keeps positive")
        self.argmax, self.gated, self.tabulated = argmax, gated, tabulated
        self.monotone, self.normalised = monotone, normalised
        widths = [1, hidden, 2] if hidden else [1, 2]
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in zip(widths, widths[1:], strict=False))

    def _weights(self) -> list[Tensor]:
        weights = [layer.weight for layer in self.layers]
        if self.monotone:
            weights = [weight.abs() + 1e-3 for weight in weights]
        if self.normalised and len(weights) > 1:
            weights[0] = weights[0] / weights[0].amax().clamp(min=1)
        return weights

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f (2, M) and its slopes (2, M) at x (M,), and the scale () of F = scale sum_j h(f_j)."""
        weights = self._weights()
        if not self.normalised:
            return *_forward(weights, x), x.new_ones(())
        steepness = _forward(weights, x.new_zeros(1))[1]  # (2, 1)
        f, slope = _forward(weights, x)
        bound = steepness.clamp(min=1)
        return f / bound, slope / bound, 1 / (steepness / bound).sum()

    def soft(self, x: Tensor) -> Tensor:
        """F(x), the function the backward pass goes straight through; any shape."""
        f, _, scale = self.outputs(x.flatten())
        return (scale * (f.clamp(-1, 1) if self.gated else f).sum(0)).view_as(x)

    def derivative(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            f, slope, scale = self.outputs(x.flatten())
        return (scale * (slope * (f.abs() < 1) if self.gated else slope).sum(0)).view_as(x)

    def forward(self, x: Tensor) -> Tensor:
        dtype, x = _real(x).dtype, x.to(self.layers[0].weight.dtype)  # autocast hands over half precision
        with torch.autocast(x.device.type, enabled=False):
            return (self._tabulated(x) if self.tabulated else self._exact(x)).to(dtype)

    def _tabulated(self, x: Tensor) -> Tensor:
        grid = nodes(x, NODES)
        f, slope, scale = self.outputs(grid)
        return TabulatedSign.apply(x, grid, f, slope.detach(), scale, self.gated, self.argmax)

    def _exact(self, x: Tensor) -> Tensor:
        soft = torch.cat([checkpoint(self.soft, part, use_reentrant=False) for part in x.flatten().split(CHUNK)])
        return self._hard(x) + (soft - soft.detach()).view_as(x)

    @torch.no_grad()
    def _hard(self, x: Tensor) -> Tensor:
        if not self.argmax:
            return sign(x)
        f = torch.cat([self.outputs(part)[0] for part in x.flatten().split(CHUNK)], dim=1)
        return sign(f[1] - f[0]).view_as(x)

    def extra_repr(self) -> str:
        names = ("argmax", "gated", "monotone", "normalised", "tabulated")
        kind = f"hidden={len(self.layers[0].weight)}" if len(self.layers) > 1 else "linear"
        return ", ".join([kind, *(name for name in names if getattr(self, name))])


def _forward(weights: list[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The classifier and its slope, carried through the layers together: x (M,) -> (2, M), (2, M)."""
    value, slope = x[None], torch.ones_like(x)[None]  # (1, M)
    for i, weight in enumerate(weights):
        value, slope = weight @ value, weight @ slope
        if i < len(weights) - 1:
            value = torch.tanh(value)
            slope = slope * (1 - value.detach().square())
    return value, slope


def _real(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise ValueError(f"a binarizer takes real numbers, got a tensor of {x.dtype}; convert it with .float()")
    return x


PRESETS = {
    "official": {},
    "paper": {"argmax": True},
    "fixed": {"monotone": True, "normalised": True},
}

# name -> class with its fixed arguments; a preset's fields are added to the learnt ones
BINARIZERS = {name: partial(Surrogate, name) for name in SURROGATES} | {
    "linear": partial(Classifier, 0),
    "mlp": partial(Classifier, 100),
}
LEARNT = ("linear", "mlp")


def get(binarizer: str | Binarizer | None, *, preset: str = "fixed", **options) -> Binarizer | None:
    """A binarizer from its name in `BINARIZERS`; an instance and None (float) are returned as they are.

    `preset` (official, paper, fixed) sets the fields of "linear" and "mlp"; `options` override single fields.
    Raises ValueError for an unknown name or preset, the nearest known name first.
    """
    if binarizer is None or isinstance(binarizer, Binarizer):
        return binarizer
    make = BINARIZERS[known("binarizer", binarizer, BINARIZERS)]
    if binarizer in LEARNT:
        options = PRESETS[known("preset", preset, PRESETS)] | options
    return make(**options)


def describe() -> list[str]:
    """A line per binarizer: name, constants or parameters, source."""
    lines = []
    for name in BINARIZERS:
        made = get(name)
        if name in LEARNT:
            learnt = sum(parameter.numel() for parameter in made.parameters())
            constants, source = f"{learnt} learnt", "Binarizing by Classification (2205.07433)"
        else:
            constants = ", ".join(f"{k}={v}" for k, v in (SURROGATES[name].__kwdefaults__ or {}).items()) or "-"
            source = SURROGATES[name].__doc__.partition("Source: ")[2].partition(")")[0] + ")"
        lines.append(f"{name:12} {constants:36} {' '.join(source.split())}")
    return lines


def set_progress(network: nn.Module, progress: float) -> None:
    """Tell every binarizer of `network` the training progress, 0 at the start, 1 at the end."""
    if not 0 <= progress <= 1:
        raise ValueError(f"progress runs from 0 to 1, got {progress}")
    for module in network.modules():
        if isinstance(module, Binarizer):
            module.progress = progress
