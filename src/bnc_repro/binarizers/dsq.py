"""DSQ, the one hand-made function with a learnt sharpness."""

import torch
from torch import Tensor, nn

from .base import Binarizer, Facts, once, pushed, real
from .sign import sign


class DSQ(Binarizer):
    """Differentiable soft quantization at one bit: a tanh whose sharpness is learnt.

    forward: sign(x). gradient: straight-through on F(x) = s tanh(k x) for abs(x) <= 1, s = 1 / (1 - a),
    k = ln(2/a - 1) / 2: dL/dx = g k s (1 - tanh(k x)^2), 0 beyond; dL/da = sum g dF/da. Schedule: none, a is
    learnt from `start` and kept in 0.001..0.5. One interval of length 2.
    """

    facts = Facts("W, A", "DSQ (1908.05033)")

    def __init__(self, start: float = 0.2) -> None:
        super().__init__()
        if not 1e-3 <= start <= 0.5:
            raise ValueError(f"dsq starts with a sharpness of 0.001 to 0.5, not {start}")
        self.start = start
        self.sharpness = nn.Parameter(torch.tensor(start))

    def reset_parameters(self) -> None:
        """The sharpness of the start."""
        nn.init.constant_(self.sharpness, self.start)

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
        if not self.takes_gradient():
            return self.hard(real(x))
        return (_PushedDSQSign if pushed() else _DSQSign).apply(real(x), self.sharpness)


class _DSQSign(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, sharpness: Tensor) -> Tensor:
        return sign(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once
    def backward(ctx, saved, grad: Tensor):
        x, sharpness = saved
        a, s, k = DSQ.constants(sharpness)
        inner = x.clamp(-1, 1)
        t = torch.tanh(inner * k)
        along = t.square().mul_(-s).add_(s) * grad  # g dF/d(k x) for abs(x) <= 1
        beyond = inner != x
        # dF/da = s^2 t + s (1 - t^2) x dk/da; at the ends of its range a gets no gradient
        wide = torch.promote_types(x.dtype, torch.float32)
        of_a = s.square() * (t * grad).sum(dtype=wide) - (inner * along).sum(dtype=wide) / (a * (2 - a))
        return along.masked_fill_(beyond, 0) * k, of_a * (sharpness == a)


class _PushedDSQSign(_DSQSign):
    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _DSQSign.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx, of_x: Tensor | None, of_sharpness: Tensor | None) -> Tensor:
        x, sharpness = ctx.saved_tensors
        a, s, k = DSQ.constants(sharpness)
        inner = x.clamp(-1, 1)
        t = torch.tanh(inner * k)
        along = s * (1 - t.square())
        tangent = torch.zeros_like(t)
        if of_x is not None:
            tangent = tangent + along * k * (inner == x) * of_x
        if of_sharpness is not None:
            tangent = tangent + (s.square() * t - along * inner / (a * (2 - a))) * (sharpness == a) * of_sharpness
        return tangent.to(x.dtype)
