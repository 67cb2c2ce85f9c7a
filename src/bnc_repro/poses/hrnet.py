"""BHRNet: a binary high-resolution network, whose branches keep their resolution and exchange what they see.

2205.07433 names BHRNet but does not publish its architecture; what stands here is ours, in the shape of HRNet-W32
(1902.09212): a stem to a quarter of the size, a first stage at 64 channels, then stages of 2, 3 and 4 branches, each
branch of half the size and twice the width of the one before, every module ending in an exchange between all branches.
Our choices: a Bi-Real block (one binary 3x3 convolution with a shortcut) for each convolution of HRNet's residual
units, in the first stage too, where HRNet has bottlenecks; exchanges are binary convolutions, 1x1 before an upsampling
and 3x3 of stride 2 down, added to the branch's own float values; only the first convolution and the last are float,
beside the 1x1 shortcuts where a block changes the width.
Legend: N crops, K keypoints, H and W rows and columns in px, C channels; heatmaps are a quarter of the input.
"""

from torch import Tensor, nn

from ..layers.backbone import BinaryNetwork, Block, initialise
from ..layers.binary import BinaryConv2d

FIRST = 64  # channels of the stem and the first stage
UNITS = 8  # blocks of a branch in a module: HRNet's four units of two convolutions


def check_size(x: Tensor, stride: int) -> None:
    """Raises ValueError for crops (N, 3, H, W) whose sides are no multiples of the network's stride."""
    if x.shape[-2] % stride or x.shape[-1] % stride:
        sides = list(x.shape[-2:])
        near = [max(round(side / stride), 1) * stride for side in sides]
        raise ValueError(
            f"crops of {sides[0]} x {sides[1]} px (height, width) do not divide by the stride {stride}: set the recipe "
            f"key data.image_size to multiples of it, for instance {near}"
        )


def conversion(before: int, after: int, doublings: int, **binary) -> nn.Sequential:
    """From a branch to another: x (N, before, H, W) -> (N, after, H 2^doublings, W 2^doublings); negative: halvings."""
    if doublings >= 0:
        layers = [BinaryConv2d(before, after, 1, bias=False, **binary), nn.BatchNorm2d(after)]
        return nn.Sequential(*layers, nn.Upsample(scale_factor=2**doublings))
    layers = []
    for halving in range(-doublings):
        out = after if halving == -doublings - 1 else before
        layers += [BinaryConv2d(before, out, 3, 2, padding=1, bias=False, **binary), nn.BatchNorm2d(out), nn.PReLU(out)]
    return nn.Sequential(*layers[:-1])  # the sum of all branches is activated, not each part


class Exchange(nn.Module):
    """A module: `units` blocks in each branch, then the first `receivers` branches receive all others; the rest end
    here. Widths (C, 2C, 4C, ...)."""

    def __init__(self, widths: list[int], units: int, receivers: int, **binary) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(Block(width, width, 1, **binary) for _ in range(units))) for width in widths
        )
        self.given = nn.ModuleList(
            nn.ModuleDict(
                {
                    str(there): conversion(before, after, there - here, **binary)
                    for there, before in enumerate(widths)
                    if there != here
                }
            )
            for here, after in enumerate(widths[:receivers])
        )
        self.activations = nn.ModuleList(nn.PReLU(width) for width in widths[:receivers])

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        xs = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        received = []
        for branch, conversions, activation in zip(xs, self.given, self.activations, strict=False):
            assert isinstance(conversions, nn.ModuleDict)
            received.append(activation(branch + sum(convert(xs[int(there)]) for there, convert in conversions.items())))
        return received


class BHRNet(BinaryNetwork):
    """Crops x (N, 3, H, W) -> heatmaps (N, K, H/4, W/4). H and W must be multiples of 4 * 2^len(blocks).

    `blocks`: modules of each stage after the first, HRNet's are 1, 4 and 3. `width`: channels at the highest
    resolution. `units`: blocks of a branch in a module. Raises ValueError for a `stem` or `head`: it has its own.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        width: int,
        *,
        num_keypoints: int,
        channels: int = 3,
        units: int = UNITS,
        stem: str = "",
        head: int = 0,
        weight_binarizer=None,
        activation_binarizer=None,
        preset: str = "fixed",
        standardize: bool = False,
        block: str = "bireal",
    ) -> None:
        if stem or head or block != "bireal":
            raise ValueError(
                "bhrnet has its own stem and blocks, and no head: leave the recipe keys stem, block and head out"
            )
        super().__init__()
        binary = self.shared(weight_binarizer, activation_binarizer, preset, standardize)
        first = min(FIRST, 2 * width)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, first, 3, 2, 1, bias=False),
            nn.BatchNorm2d(first),
            nn.PReLU(first),
            Block(first, first, 2, **binary),
            *(Block(first, first, 1, **binary) for _ in range(units)),
        )
        self.enter, self.stages, before = nn.ModuleList(), nn.ModuleList(), first
        widths = [width]
        self.first = Block(first, width, 1, **binary)
        for stage, count in enumerate(blocks, 1):
            self.enter.append(Block(before if len(widths) == 1 else widths[-1], 2 * widths[-1], 2, **binary))
            widths = [*widths, 2 * widths[-1]]
            self.stages.append(
                nn.ModuleList(
                    Exchange(widths, units, 1 if (stage, module) == (len(blocks), count) else len(widths), **binary)
                    for module in range(1, count + 1)
                )
            )
        self.stride = 4 * 2 ** len(blocks)
        self.heatmaps = nn.Conv2d(width, num_keypoints, 1)
        initialise(self)
        nn.init.normal_(self.heatmaps.weight, std=1e-3)  # start near empty heatmaps, as most of a target is

    def forward(self, x: Tensor) -> Tensor:
        check_size(x, self.stride)
        x = self.stem(x)
        branches, lowest = [self.first(x)], x
        for enter, modules in zip(self.enter, self.stages, strict=True):
            branches = [*branches, enter(lowest)]
            assert isinstance(modules, nn.ModuleList)
            for module in modules:
                branches = module(branches)
            lowest = branches[-1]
        return self.heatmaps(branches[0])
