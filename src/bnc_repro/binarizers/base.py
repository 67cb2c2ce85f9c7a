"""The form of every binarizer: two values forward, and backward a rule instead of sign's derivative.

Source: the straight-through estimator, Bengio, Leonard, Courville 2013 (1308.3432), with any factor in its place.
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .sign import sign


@dataclass(frozen=True)
class Facts:
    """What is known of an estimator: the operands that its paper uses it for (W weights, A activations), the paper."""

    domain: str
    source: str


class _RuledSign(torch.autograd.Function):
    """hard(x) forward, rule(g, x) backward; x is the one tensor kept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, hard, rule) -> Tensor:
        return hard(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, _, ctx.rule = inputs
        ctx.save_for_backward(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        return ctx.rule(grad, *ctx.saved_tensors), None, None


class Binarizer(nn.Module):
    """Base of all binarizers: x (...) -> -1 or +1, and `derivative(x)`, the factor of the backward pass.

    `progress` (0..1) drives the schedules; `set_progress` sets it for a whole network. For one of your own
    override `derivative` and nothing else. Gradients of gradients are refused.
    """

    facts = Facts("W, A", "your own")
    forward_values: tuple[float, ...] = (-1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["__module__"] = "torch.nn.binary"  # a leaf for torch.fx: it looks at numbers
        self.progress = 0.0

    def derivative(self, x: Tensor) -> Tensor:
        """d(x) of dL/dx = g d(x), same shape as x, without gradient."""
        raise TypeError(f"{type(self).__name__} must define derivative(x)")

    def rule(self, grad: Tensor, x: Tensor) -> Tensor:
        """dL/dx from g = dL/dy, both of the shape of x."""
        return self.derivative(x) * grad

    def hard(self, x: Tensor) -> Tensor:
        """The forward value."""
        return sign(x)

    def forward(self, x: Tensor) -> Tensor:
        return _RuledSign.apply(real(x), self.hard, self.rule) if self.takes_gradient() else self.hard(real(x))

    def takes_gradient(self) -> bool:
        """Whether a backward pass may come: not in no_grad, nor where a network in evaluation is exported or traced, as
        what is kept then holds the forward value alone."""
        exporting = (
            torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage] (it is documented)
        )
        return torch.is_grad_enabled() and (self.training or not exporting)

    def _load_from_state_dict(self, state, prefix, metadata, strict, missing, unexpected, errors) -> None:
        """A float twin's checkpoint has no classifier: its parameters then keep their start, which is said."""
        if not any(key.startswith(prefix) for key in state):
            initial = self.state_dict()
            state.update({prefix + key: value for key, value in initial.items()})
            if initial:
                logging.getLogger("bnc_repro").info(f"{prefix.rstrip('.')} keeps its start: the checkpoint has none")
        super()._load_from_state_dict(state, prefix, metadata, strict, missing, unexpected, errors)


def real(x: Tensor) -> Tensor:
    """x itself. Raises ValueError for integers and complex numbers."""
    if not x.is_floating_point():
        raise ValueError(f"a binarizer takes real numbers, got a tensor of {x.dtype}; convert it with .float()")
    return x


def set_progress(network: nn.Module, progress: float) -> None:
    """Tell every binarizer of `network` the training progress, 0 at the start, 1 at the end."""
    if not 0 <= progress <= 1:
        raise ValueError(f"progress runs from 0 to 1, got {progress}")
    for module in network.modules():
        if isinstance(module, Binarizer):
            module.progress = progress
