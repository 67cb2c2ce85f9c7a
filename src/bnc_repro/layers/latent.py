"""What a binary layer makes of its weight before the sign: centring, standardisation, scale.

Source: XNOR-Net (1603.05279) for the per-channel scale; the centring and the detached scale follow the
released code of Binarizing by Classification (2205.07433), `MetaConv_v2`.
Legend: O output channels.
"""

import torch
from torch import Tensor

from ..binarizers.sign import memory_order
from ..binarizers.table import Range

HALVES = (torch.float16, torch.bfloat16)


def center(weight: Tensor) -> Tensor:
    """weight (O, I, k, k) or (O, I) minus its mean over each output channel."""
    return weight - weight.mean(dim=tuple(range(1, weight.dim())), keepdim=True)


def standardize(weight: Tensor) -> Tensor:
    """weight (O, ...) with mean 0 and standard deviation 1 over each output channel (IR-Net, 1909.10788).

    The gradient flows through the mean and the deviation. A constant channel stays 0. Halves are computed in float32:
    a float16 has no number as small as what is added, and none as the squares of small weights.
    """
    if weight.dtype in HALVES:
        return standardize(weight.float()).to(weight.dtype)
    centered = center(weight)
    axes = tuple(range(1, weight.dim()))
    return centered * (centered.square().mean(dim=axes, keepdim=True) + 1e-12).rsqrt()


def channel_scale(weight: Tensor) -> Tensor:
    """alpha = mean abs(weight) over each output channel, (O, 1, ...), without gradient."""
    return weight.detach().abs().mean(dim=tuple(range(1, weight.dim())), keepdim=True)


@torch.no_grad()
def latent_range(weight: Tensor, standardized: bool) -> Range:
    """`Range` of the centred or standardised weight (O, ...), from the weight itself: nothing of its size is made. The
    radius may be short by the rounding of a channel's deviation."""
    weight = weight.float() if weight.dtype in HALVES else weight
    channels = weight.permute(memory_order(weight)).flatten(1)  # (O, n)
    mean, count = channels.mean(1), channels.shape[1]
    radius = torch.maximum(channels.amax(1) - mean, mean - channels.amin(1))
    square = torch.linalg.vector_norm(channels, dim=1).square() / count - mean.square()
    if standardized:
        deviation = (square.clamp(min=0) + 1e-12).sqrt()
        radius, square = radius / deviation, square / deviation.square()
    return Range(radius.amax(), square.sum() * count, torch.full_like(mean[0], weight.numel()))
