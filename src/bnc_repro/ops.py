"""Pure functions of a binary layer: sign, centring and scale of the weights.

Source: XNOR-Net (1603.05279) for the per-channel scale; the centring and the detached scale follow the
released code of Binarizing by Classification (2205.07433), `MetaConv_v2`.
Legend: O output channels, I input channels (of one group), k kernel size.
"""

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


def center(weight: Tensor) -> Tensor:
    """weight (O, I, k, k) or (O, I) minus its mean over each output channel."""
    return weight - weight.mean(dim=tuple(range(1, weight.dim())), keepdim=True)


def standardize(weight: Tensor) -> Tensor:
    """weight (O, ...) with mean 0 and standard deviation 1 over each output channel (IR-Net, 1909.10788).

    The gradient flows through the mean and the deviation. A constant channel stays 0.
    """
    centered = center(weight)
    axes = tuple(range(1, weight.dim()))
    return centered * (centered.square().mean(dim=axes, keepdim=True) + 1e-12).rsqrt()


@torch.no_grad()
def latent_extent(weight: Tensor, standardized: bool) -> Tensor:
    """`tables.extent` of the centred or standardised weight (O, ...), (3,), from the weight itself: nothing of its size
    is made. A size may be short by the rounding of a channel's deviation."""
    channels = weight.permute(memory_order(weight)).flatten(1)  # (O, n)
    mean, count = channels.mean(1), channels.shape[1]
    size = torch.maximum(channels.amax(1) - mean, mean - channels.amin(1))
    square = torch.linalg.vector_norm(channels, dim=1).square() / count - mean.square()
    if standardized:
        deviation = (square.clamp(min=0) + 1e-12).sqrt()
        size, square = size / deviation, square / deviation.square()
    return torch.stack([size.amax(), square.sum() * count, torch.full_like(mean[0], weight.numel())])


@torch.no_grad()
def latent_reach(weight: Tensor, standardized: bool) -> Tensor:
    """What no element of the centred or standardised weight (O, ...) is larger than, ()."""
    if standardized:
        return standardize(weight).abs().amax()
    low, high = torch.aminmax(weight.permute(memory_order(weight)).flatten())
    return 2 * torch.maximum(-low, high)  # no mean is larger than the largest


def channel_scale(weight: Tensor) -> Tensor:
    """alpha = mean abs(weight) over each output channel, (O, 1, ...), without gradient."""
    return weight.detach().abs().mean(dim=tuple(range(1, weight.dim())), keepdim=True)
