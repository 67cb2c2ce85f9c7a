"""Where numba is needed: the choice of a kernel, and a plan that runs on the images of a batch.

Imported where it is used; `kernels_at_hand` says what is missing.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.autograd import forward_ad

from ..names import install_line
from .packing import Plan

KERNELS = ("popcount", "tables")


def kernels_at_hand() -> None:
    """Raise ValueError, with the line that installs it, where numba is missing."""
    try:
        import numba  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"packed inference needs numba, which is not installed: {install_line('numba', 'safetensors')}; in a clone "
            "`make install` brings it"
        ) from error


def as_operator(schema: str) -> Callable[[Callable], Callable]:
    """Makes an operator of torch, bnc_repro::<schema>, of what computes it on a CPU; `torch.export` and `torch.compile`
    take it as one step. Nothing flows back through it; `refuse_gradients` says so.

    `torch.library.custom_op` would do the same and import the compiler at the first call, a second or more.
    """
    name = f"bnc_repro::{schema.partition('(')[0]}"

    def registered(compute: Callable) -> Callable:
        torch.library.define(name, schema.partition(name.rpartition(":")[2])[2], tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(name, "CPU", compute)
        return getattr(torch.ops.bnc_repro, name.rpartition(":")[2]).default

    return registered


def refuse_transformed(x: Tensor) -> None:
    """Raise ValueError for an input that asks for a gradient or carries a derivative, which bits do not have, and for
    one image of many under vmap."""
    derivative = x.requires_grad and torch.is_grad_enabled()
    if not torch.compiler.is_compiling():
        if _functorch.is_batchedtensor(x):
            raise ValueError("a packed network takes a whole batch at once: call it without torch.vmap")
        derivative |= forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None
    if derivative:
        raise ValueError(
            "packed inference has no gradient: call it under torch.no_grad(), or detach its input; to train, take the "
            "network that it was packed from"
        )


def refuse_converted(x: Tensor, *tensors: Tensor) -> None:
    """Raise ValueError where .half(), .double(), .to("meta") or the like has changed a packed network's own `tensors`,
    its bits (uint8) and floats, so that they no longer serve an input x."""
    for tensor in tensors:
        if tensor.dtype != torch.float32 and (tensor.is_floating_point() or tensor.is_complex()):
            raise ValueError(
                f"packed inference computes in float32, and this packed network was turned to {tensor.dtype}: pack the "
                "network again and leave it as it is"
            )
        if tensor.device != x.device and x.device.type == "cpu":
            raise ValueError(
                f"packed inference runs on the CPU, and this packed network was moved to {tensor.device}: pack the "
                "network again and leave it where it is"
            )


def check_images(images: Tensor, plan: Plan) -> None:
    """Raise ValueError for images that are not what `plan` takes, float32 (N, C, H, W) on the CPU."""
    expected = (plan.channels, *plan.size)
    if images.dim() != 4 or tuple(images.shape[1:]) != expected or images.dtype != torch.float32:
        remedy = "" if images.dtype == torch.float32 else ": call .float()"
        raise ValueError(
            f"packed for float32 images (N, {', '.join(map(str, expected))}), got {images.dtype} of "
            f"{tuple(images.shape)}{remedy}"
        )
    if images.device.type not in ("cpu", "meta"):
        raise ValueError(f"packed inference runs on the CPU, got images on {images.device}: call .cpu()")


def not_finite(x: Tensor, read: str) -> ValueError:
    """The error for x (N, ...) that holds NaN or infinity; `read`: where to look for the reason."""
    nan = x.isnan().flatten(1).any(1)
    what, images = ("NaN, which has no sign", nan) if nan.any() else ("infinity", x.isinf().flatten(1).any(1))
    return ValueError(f"image {int(images.nonzero()[0])} of {len(x)} holds {what}: look at {read}")


def chosen(kernel: str | None) -> tuple[str, str]:
    """The kernel that serves this processor best, or the one that is asked for, and why."""
    from .lanes import HOST

    if kernel is not None:
        if kernel not in KERNELS:
            raise ValueError(f"unknown kernel {kernel!r}; known: {', '.join(KERNELS)}")
        if kernel == "tables" and not HOST.avx2:
            raise ValueError(f"kernel 'tables' needs AVX2, which {HOST.name} lacks; take 'popcount', it runs anywhere")
        return kernel, "as asked for"
    if HOST.counts_bits:
        return "popcount", f"{HOST.name} counts the bits of eight words in one instruction"
    if HOST.avx2:
        return "tables", f"{HOST.name} has AVX2, and no instruction that counts bits of vectors"
    return "popcount", f"{HOST.name} has no AVX2: the portable kernel"


class Engine:
    """A plan with its weights in a kernel's order, and a program for each thread that runs at the same time."""

    def __init__(self, plan: Plan, kernel: str) -> None:
        from .arrangement import Weights
        from .buffers import Program

        self.plan, self._weights, self._program = plan, Weights(plan, kernel), Program
        first = Program(plan, self._weights)
        self.shape = first.shape
        self._idle = [first]  # a list's pop and append are one step each, whatever other threads do
        _compile(first, plan)

    def __call__(self, images: Tensor) -> Tensor:
        """images (N, C, H, W) float32 -> (N, *shape), the images of a batch shared out to torch's number of threads.

        Raises ValueError for images of another type or size, as an exported program may be given, and for one that is
        not finite.
        """
        check_images(images, self.plan)
        images = images.contiguous()
        results = images.new_empty(len(images), *self.shape)  # whatever torch's default precision is
        if images.requires_grad:
            images = images.detach()
        if any(shared_out(self._run, [(images[i].data_ptr(), results[i].data_ptr()) for i in range(len(images))])):
            raise not_finite(images, "how it was read")
        return results

    def _run(self, x: int, y: int) -> int:
        try:
            program = self._idle.pop()
        except IndexError:
            program = self._program(self.plan, self._weights)
        wrong = program(x, y)
        self._idle.append(program)
        return wrong


MOST_COMPARED = 4096  # numbers of a tensor whose changes torch counts


class Kept:
    """The last `most` things made of tensors. The tensors are kept, so that their addresses name them as long as they
    are unchanged.

    Torch counts what is written in place, but not in inference mode, whose tensors are compared number by number, nor
    through `.data` and NumPy: of any other tensor up to 4096 numbers at equal distances are compared.
    """

    def __init__(self, most: int) -> None:
        self._most, self._made = most, OrderedDict()
        self._order = Lock()

    def __call__(self, tensors: tuple[Tensor, ...], key: tuple, make: Callable[[], Any]) -> Any:
        """What `make` gives, or gave for these very tensors and this key."""
        states = [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
        name, numbers = (*states, *key), [_numbers(tensor) for tensor in tensors]
        entry = self._made.get(name)
        if entry is None or not all(map(torch.equal, numbers, entry[1])):
            entry = tensors, [part.clone() for part in numbers], make()
        with self._order:
            self._made[name] = entry
            self._made.move_to_end(name)
            while len(self._made) > self._most:
                self._made.popitem(last=False)
        return entry[2]


def _numbers(tensor: Tensor) -> Tensor:
    """What of `tensor` is compared."""
    step = 1 if tensor.is_inference() else max(1, tensor.numel() // MOST_COMPARED)
    return tensor.detach().flatten()[::step]


def shared_out(function: Callable[..., Any], calls: Sequence[tuple]) -> list:
    """What function(*call) gives for each call, on torch's number of threads. The kernels hold no lock of the
    interpreter."""
    threads = min(torch.get_num_threads(), len(calls))
    if threads < 2:
        return [function(*call) for call in calls]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda call: function(*call), calls))


_compiled = False


def _compile(program, plan: Plan) -> None:
    """Run once on an empty image, so that the first one does not wait; the first time ever it is said."""
    global _compiled
    from . import program as operations

    if not _compiled and not operations.kept_on_disk():
        logging.getLogger("bnc_repro").info("compiling the kernels of packed inference, once for this machine ...")
    _compiled = True
    x = np.zeros((plan.channels, *plan.size), np.float32)
    y = np.zeros(program.shape, np.float32)
    program(x.ctypes.data, y.ctypes.data)
