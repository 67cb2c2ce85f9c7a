"""The Bi-Real trunk: four stages of blocks with one 3x3 convolution each and a shortcut around every one.

block "bireal": sign -> binary conv 3x3 -> BN -> + shortcut -> PReLU per channel, after the addition; where the size
changes the shortcut is AvgPool2d(2) -> float 1x1 -> BN. Stem float. Xavier-uniform weights.
block "reactnet": the same with RSign in place of sign and RPReLU in place of PReLU.
Source: Bi-Real Net (1808.00278); PReLU after the addition and the initialisation as in the released code of
2205.07433; ReActNet (2003.03488, equations 3 and 4). The stems for small images and the `width` are ours.
Legend: N images, C channels, H and W rows and columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..binarizers.base import Binarizer
from ..binarizers.registry import get
from ..names import known
from .binary import BinaryConv2d
from .sharing import share_evaluator

BLOCKS = ("bireal", "reactnet")
STEMS = {"imagenet": (7, 2), "half": (3, 2), "full": (3, 1)}  # kernel and stride


class Shift(nn.Module):
    """x (N, C, H, W) - shift, one learnt number per channel, 0 at the start. Before a sign it is ReActNet's RSign."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.shift


class RPReLU(nn.Module):
    """prelu(x - shift) - lift per channel, x (N, C, H, W): ReActNet's activation; its zeta is -lift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift, self.prelu, self.lift = Shift(channels), nn.PReLU(channels), Shift(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.lift(self.prelu(self.shift(x)))


class Block(nn.Module):
    """x (N, C, H, W) -> (N, O, H/stride, W/stride). `block` is one of BLOCKS; ValueError for another name."""

    def __init__(self, channels: int, out: int, stride: int, *, block: str = "bireal", **binary) -> None:
        super().__init__()
        learnt_shifts = known("block", block, BLOCKS) == "reactnet"
        self.shift = Shift(channels) if learnt_shifts else nn.Identity()
        self.conv = BinaryConv2d(channels, out, 3, stride, padding=1, bias=False, **binary)
        self.norm = nn.BatchNorm2d(out)
        self.activation = RPReLU(out) if learnt_shifts else nn.PReLU(out)
        self.shortcut = nn.Identity()
        if stride != 1 or channels != out:
            pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(self.shift(x))) + self.shortcut(x))


def stem(kind: str, channels: int, width: int) -> nn.Sequential:
    """The float entrance. imagenet: 7x7/2 and pooling, a quarter of the size; half: 3x3/2; full: 3x3/1."""
    size, stride = STEMS[known("stem", kind, STEMS)]
    layers = [nn.Conv2d(channels, width, size, stride, size // 2, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)]
    if kind == "imagenet":
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    return nn.Sequential(*layers)


class Trunk(nn.Module):
    """The stem and one stage per entry of `blocks`, halving the size and doubling the width from the second on.

    x (N, channels, H, W) -> (N, width * 2^(stages-1), ...). `features` is that last width; `binary` is what each block
    takes. Raises ValueError for blocks and a width that make no network.
    """

    def __init__(self, blocks: tuple[int, ...], width: int, stem_kind: str, channels: int = 3, **binary) -> None:
        super().__init__()
        if not isinstance(blocks, Sequence) or not blocks or any(type(n) is not int or n < 1 for n in blocks):
            raise ValueError(f"blocks counts the blocks of each stage, such as (2, 2, 2, 2), got {blocks!r}")
        if type(width) is not int or width < 1:
            raise ValueError(f"width counts the channels of the first stage, a whole number from 1 on, got {width!r}")
        self.stem = stem(stem_kind, channels, width)
        self.stages = nn.ModuleList()
        before = width
        for i, count in enumerate(blocks):
            after = width * 2**i
            strides = [1 if i == 0 else 2] + [1] * (count - 1)
            sizes = [before] + [after] * (count - 1)
            self.stages.append(
                nn.Sequential(*(Block(a, after, s, **binary) for a, s in zip(sizes, strides, strict=True)))
            )
            before = after
        self.features = before

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x


class BinaryNetwork(nn.Module):
    """A network whose binary layers share their two binarizers, and one evaluator a step."""

    def shared(self, weight_binarizer, activation_binarizer, preset: str, standardize: bool) -> dict:
        """What each binary layer takes: weight_binarizer, activation_binarizer (one of each), standardize."""
        share_evaluator(self)
        return {
            "weight_binarizer": get(weight_binarizer, preset=preset),
            "activation_binarizer": get(activation_binarizer, preset=preset),
            "standardize": standardize,
        }

    @property
    def weight_binarizer(self) -> Binarizer | None:
        """The first binary layer's, which all share unless each has its own; None: float."""
        return next((m.weight_binarizer for m in self.modules() if isinstance(m, BinaryConv2d)), None)

    @property
    def activation_binarizer(self) -> Binarizer | None:
        """As `weight_binarizer`."""
        return next((m.activation_binarizer for m in self.modules() if isinstance(m, BinaryConv2d)), None)


def initialise(network: nn.Module) -> None:
    """Xavier-uniform convolutions and linear layers, biases 0; a classifier keeps its own start."""
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)) and "binarizer" not in name:
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
