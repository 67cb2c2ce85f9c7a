"""The hand-made soft functions as binarizers, and the few whose forward is not sign."""

import torch
from torch import Tensor

from ..names import known
from .base import Binarizer, transformed
from .sign import memory_order, sign
from .surrogates import RULES, SURROGATES, constants_of

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _above_median(x: Tensor, progress: float) -> Tensor:
    size = x.abs()
    # Formats and transforms know a sort, and no bits.
    looked_at = torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export() or torch._C._get_tracing_state()
    if looked_at or transformed():
        ordered = size.flatten(min(1, x.dim() - 1)).sort(dim=-1).values
        median = ordered[..., (ordered.shape[-1] - 1) // 2].view(-1, *[1] * (x.dim() - 1))
        return -sign(median - size)
    channels = size.permute(memory_order(size)).flatten(min(1, x.dim() - 1))
    # Numbers that are not negative stand in the order of their bits, and integers are selected faster.
    bits = channels.view(INTEGERS[x.element_size()]).median(dim=-1).values
    median = bits.view(x.dtype).view(-1, *[1] * (x.dim() - 1))
    return sign(size.neg_().add_(median)).neg_()  # -1 at the median itself


def _steepening(x: Tensor, progress: float) -> Tensor:
    return sign(x) if progress == 1 else (x * 4 ** (10 * progress)).clamp_(-1, 1)


def _periodic(x: Tensor, progress: float, *, frequency: float = 20.0) -> Tensor:
    return sign(torch.sin(x * frequency))


FORWARDS = {"biper": _periodic, "siman": _above_median, "progressive": _steepening}


class Surrogate(Binarizer):
    """A hand-made soft function by its name in `SURROGATES`; its docstring has the formulas.

    Parameters: none; `options` are the function's constants. Raises ValueError for a constant it does not have, or
    one that is not above 0.
    """

    def __init__(self, name: str, **options: float) -> None:
        super().__init__()
        for option, value in options.items():
            known(f"constant of {name}", option, constants_of(name))
            if not isinstance(value, (int, float)) or not value > 0:
                raise ValueError(f"constant {option} of {name} is a number above 0, got {value!r}")
        self.name, self.options, self.facts = name, options, SURROGATES[name].facts
        if name == "progressive":
            self.forward_values = ()  # in training not two-valued before the end of its schedule

    def derivative(self, x: Tensor) -> Tensor:
        if self.name in RULES:
            return RULES[self.name](torch.ones_like(x), x, self.progress, **self.options)
        return SURROGATES[self.name](x, self.progress, **self.options)

    def rule(self, grad: Tensor, x: Tensor) -> Tensor:
        if self.name in RULES:
            return RULES[self.name](grad, x, self.progress, **self.options)
        return self.derivative(x) * grad

    def tangent(self, tangent: Tensor, x: Tensor) -> Tensor:
        """As the base's. Raises RuntimeError for a rule of the backward pass, which is no product with d(x)."""
        if self.name in RULES:
            raise RuntimeError(
                f"{self.name} is a rule of the backward pass and has no forward-mode derivative: take torch.func.vjp "
                "or jacrev in place of jvp or jacfwd"
            )
        return super().tangent(tangent, x)

    def hard(self, x: Tensor) -> Tensor:
        """The forward value; outside of training that of the schedule's end."""
        progress = self.progress if self.training else 1.0
        return FORWARDS[self.name](x, progress, **self.options) if self.name in FORWARDS else sign(x)

    def extra_repr(self) -> str:
        return ", ".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])
