"""The form of every binarizer: two values forward, and backward a rule instead of sign's derivative.

Source: the straight-through estimator, Bengio, Leonard, Courville 2013 (1308.3432), with any factor in its place.
"""

import copy
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from .sign import sign


@dataclass(frozen=True)
class Facts:
    """What is known of an estimator: the operands that its paper uses it for (W weights, A activations), the paper."""

    domain: str
    source: str


class _Refused(torch.autograd.Function):
    """A gradient (any shape), which differentiates no further: `causes` are the tensors that it was computed from."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, *causes: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError(
            "a binarizer has no second derivative: its gradient is a rule of its own, so gradients of gradients "
            "(hessian, hvp, MAML's second order) are refused; take first derivatives alone, or keep the layers float"
        )

    jvp = backward


def once(backward: Callable) -> Callable:
    """A Function's backward, from one that takes (ctx, saved tensors, *gradients): what it returns is computed without
    a graph, and whoever differentiates it gets a RuntimeError of one sentence, never a zero."""

    @functools.wraps(backward)
    def refusing(ctx, *gradients: Tensor):
        saved = ctx.saved_tensors
        with torch.no_grad():
            inward = backward(ctx, saved, *gradients)
        if torch.compiler.is_compiling() or not (torch.is_grad_enabled() or pushed()):
            return inward
        causes = [tensor for tensor in (*gradients, *saved) if isinstance(tensor, Tensor)]
        if isinstance(inward, Tensor):
            return _Refused.apply(inward, *causes)
        return tuple(_Refused.apply(part, *causes) if isinstance(part, Tensor) else part for part in inward)

    return refusing


class _RuledSign(torch.autograd.Function):
    """hard(x) forward, rule(g, x) backward; x is the one tensor kept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, hard, rule, tangent) -> Tensor:
        return hard(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, _, ctx.rule, _ = inputs
        ctx.save_for_backward(x)

    @staticmethod
    @once
    def backward(ctx, saved, grad: Tensor):
        return ctx.rule(grad, *saved), None, None, None


class _PushedSign(_RuledSign):
    """The same with tangent(t, x) in forward mode: apart, as compilers refuse a Function that has one."""

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _RuledSign.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[0])
        ctx.tangent = inputs[3]

    @staticmethod
    def jvp(ctx, tangent: Tensor, *_):
        return ctx.tangent(tangent, *ctx.saved_tensors)


class Binarizer(nn.Module):
    """Base of all binarizers: x (...) -> -1 or +1, and `derivative(x)`, the factor of the backward pass.

    `progress` (0..1) drives the schedules; `set_progress` sets it for a whole network. For one of your own
    override `derivative` and nothing else. Gradients of gradients are refused.
    """

    facts = Facts("W, A", "your own")
    forward_values: tuple[float, ...] = (-1.0, 1.0)
    _blank: list[int] | None = None  # versions of the parameters that `to_empty` made of some on meta

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

    def tangent(self, tangent: Tensor, x: Tensor) -> Tensor:
        """dy from dx in forward mode, both of the shape of x."""
        return self.derivative(x) * tangent

    def hard(self, x: Tensor) -> Tensor:
        """The forward value."""
        return sign(x)

    def forward(self, x: Tensor) -> Tensor:
        if not self.takes_gradient():
            return self.hard(real(x))
        return (_PushedSign if pushed() else _RuledSign).apply(real(x), self.hard, self.rule, self.tangent)

    def takes_gradient(self) -> bool:
        """Whether a derivative may be asked for: not in no_grad (but for forward mode), nor where a network in
        evaluation is exported or traced, as what is kept then holds the forward value alone."""
        exporting = (
            torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage] (it is documented)
        )
        return (torch.is_grad_enabled() or pushed()) and (self.training or not exporting)

    def _apply(self, fn, recurse: bool = True):
        """As torch's, but `to_empty` leaves the parameters their numbers where there are some: those of a model on meta
        are loaded afterwards, and a start may be in no checkpoint."""
        blank, before = self._is_blank(), [value.detach() for value in self.parameters()]
        super()._apply(fn, recurse)
        after = list(self.parameters())
        if blank:
            self._blank = _versions(after)
        elif getattr(fn, "__qualname__", "").startswith("Module.to_empty."):
            with torch.no_grad():
                for value, old in zip(after, before, strict=True):
                    value.copy_(old)
        return self

    def _is_blank(self) -> bool:
        """Whether the parameters have no numbers, or those of memory that nobody has written since `to_empty`."""
        parameters = list(self.parameters())
        if any(value.is_meta for value in parameters):
            return True
        return self._blank is not None and _versions(parameters) == self._blank

    def _load_from_state_dict(self, state, prefix, metadata, strict, missing, unexpected, errors) -> None:
        """A float twin's checkpoint has no classifier: its parameters then keep their start, or get one where they have
        none (a model from meta), which is said."""
        if not any(key.startswith(prefix) for key in state):
            name, initial, keeps = prefix.rstrip("."), self.state_dict(), "keeps its start"
            if initial and self._is_blank():
                initial, keeps = self._started(metadata.get("assign_to_params_buffers", False)), "starts anew"
            if initial is None:
                errors.append(
                    f"{name} came from meta without a start, and the checkpoint has none: define reset_parameters() in "
                    f"{type(self).__name__}, or load a state that has it"
                )
                return
            state.update({prefix + key: value for key, value in initial.items()})
            if initial:
                logging.getLogger("bnc_repro").info(f"{name} {keeps}: the checkpoint has none")
        super()._load_from_state_dict(state, prefix, metadata, strict, missing, unexpected, errors)
        self._blank = None

    def _started(self, assign: bool) -> dict | None:
        """The state of a start drawn anew, on this module's device, or on torch's default one where it is assigned to
        one on meta; None without `reset_parameters`."""
        if not hasattr(self, "reset_parameters"):
            return None
        device = next(self.parameters()).device
        if assign and device.type == "meta":
            device = torch.get_default_device()
        fresh = copy.deepcopy(self).to_empty(device=device)
        fresh.reset_parameters()  # pyright: ignore[reportCallIssue]
        return fresh.state_dict()


def _versions(parameters: list[nn.Parameter]) -> list[int]:
    return [0 if value.is_inference() else value._version for value in parameters]


def real(x: Tensor) -> Tensor:
    """x itself. Raises ValueError for integers, complex numbers, eight-bit floats and sparse tensors."""
    if not x.is_floating_point() or x.element_size() < 2:
        raise ValueError(f"a binarizer takes real numbers, got a tensor of {x.dtype}; convert it with .float()")
    if x.layout not in (torch.strided, torch.jagged):
        raise ValueError(f"a binarizer takes dense tensors, got one of {x.layout}; convert it with .to_dense()")
    return x


def pushed() -> bool:
    """Whether derivatives are taken in forward mode now."""
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def transformed() -> bool:
    """Whether a transform of torch.func, or forward mode, is at work: neither takes tables or recomputation."""
    return pushed() or (
        not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]
    )


def set_progress(network: nn.Module, progress: float) -> None:
    """Tell every binarizer of `network` the training progress, 0 at the start, 1 at the end."""
    if not 0 <= progress <= 1:
        raise ValueError(f"progress runs from 0 to 1, got {progress}")
    for module in network.modules():
        if isinstance(module, Binarizer):
            module.progress = progress
