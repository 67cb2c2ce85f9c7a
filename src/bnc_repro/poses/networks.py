"""Pose networks: SBPN, a Bi-Real trunk and a binary upsampling head that ends in one heatmap per keypoint; BHRNet.

2205.07433 names SBPN but does not publish its architecture; what stands here is ours, after Simple Baselines
(1804.06208): where that network has deconvolutions, each step doubles the size by nearest neighbours and runs
one Bi-Real block, so that every 3x3 convolution but the first is binary. First and last layer stay float.
Legend: N crops, K keypoints, H and W rows and columns in px; heatmaps are a quarter of the input.
"""

import math
from functools import partial

from torch import Tensor, nn

from ..layers.backbone import BinaryNetwork, Block, Trunk, initialise
from .hrnet import BHRNet, check_size


class SBPN(BinaryNetwork):
    """Crops x (N, 3, H, W) -> heatmaps (N, K, H/4, W/4). H and W must be multiples of the trunk's stride,
    which is 4 at least (ValueError).

    `head` channels follow each upsampling step, 4 * width unless given (256 at full width).
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        width: int,
        stem: str,
        *,
        num_keypoints: int,
        channels: int = 3,
        head: int = 0,
        weight_binarizer=None,
        activation_binarizer=None,
        preset: str = "fixed",
        standardize: bool = False,
        block: str = "bireal",
    ) -> None:
        super().__init__()
        binary = self.shared(weight_binarizer, activation_binarizer, preset, standardize)
        self.trunk = Trunk(blocks, width, stem, channels, block=block, **binary)
        self.stride = {"imagenet": 4, "half": 2, "full": 1}[stem] * 2 ** (len(blocks) - 1)
        if self.stride < 4:
            raise ValueError(
                f"recipe keys stem and blocks make a trunk that leaves 1/{self.stride} of each side, and heatmaps are "
                f"a quarter: take a stem or stages (blocks, now {len(blocks)}) that halve more"
            )
        head, steps, before = head or 4 * width, round(math.log2(self.stride / 4)), self.trunk.features
        self.head = nn.Sequential()
        for _ in range(steps):
            self.head.append(nn.Upsample(scale_factor=2))
            self.head.append(Block(before, head, 1, block=block, **binary))
            before = head
        self.heatmaps = nn.Conv2d(before, num_keypoints, 1)
        initialise(self)
        nn.init.normal_(self.heatmaps.weight, std=1e-3)  # start near empty heatmaps, as most of a target is

    def forward(self, x: Tensor) -> Tensor:
        check_size(x, self.stride)
        return self.heatmaps(self.head(self.trunk(x)))


# every entry takes num_keypoints=, weight_binarizer=, activation_binarizer=, preset=, standardize=, and accepts
# blocks=, width= (and sbpn stem=) to make it smaller; sbpn takes block= for ReActNet's blocks
POSENETS = {
    "sbpn": partial(SBPN, blocks=(4, 4, 4, 4), width=64, stem="imagenet"),
    "sbpn34": partial(SBPN, blocks=(6, 8, 12, 6), width=64, stem="imagenet"),
    "bhrnet": partial(BHRNet, blocks=(1, 4, 3), width=32),
}
