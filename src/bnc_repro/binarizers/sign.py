"""Two-valued sign, and how a tensor lies in memory."""

import torch
from torch import Tensor


def sign(x: Tensor) -> Tensor:
    """Two-valued sign: +1 where x >= 0 (also at -0), -1 where x < 0, NaN where x is NaN.

    `torch.sign` has three values; the tie at 0 is decided here once, for every network of the project.
    """
    two_valued = torch.sign(x).add_(0.5).sign_()  # -1, 0, 1 -> -0.5, 0.5, 1.5: far faster than torch.where
    return two_valued.add_(x.clamp(-1, 1), alpha=0)  # nothing but NaN survives the factor 0


def on_cpu(x: Tensor) -> bool:
    """Where a look at a number is no wait, and nothing is being compiled."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def memory_order(x: Tensor) -> list[int]:
    """The axes of x as they lie in memory, the first one first: to permute and flatten x so copies nothing."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return [0, 2, 3, 1]
    return list(range(x.dim()))
