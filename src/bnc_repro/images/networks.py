"""Classification networks: Bi-Real ResNet-18 and 34 in ImageNet form, ResNet-20 and 18 for small images.

Binary and float come from one function: `None` for both binarizers is the float twin, same parameters' names.
Source: Bi-Real Net (1808.00278) with the released code's blocks, [4, 4, 4, 4] and [6, 8, 12, 6] single
convolutions; ResNet-20 is three stages of six (1512.03385, section 4.2). First and last layer stay float.
"""

from functools import partial

from torch import Tensor, nn

from ..layers.backbone import BinaryNetwork, Trunk, initialise


class ResNet(BinaryNetwork):
    """Images x (N, channels, H, W) -> logits (N, num_classes)."""

    def __init__(
        self,
        blocks: tuple[int, ...],
        width: int,
        stem: str,
        *,
        num_classes: int,
        channels: int = 3,
        weight_binarizer=None,
        activation_binarizer=None,
        preset: str = "fixed",
        standardize: bool = False,
        block: str = "bireal",
    ) -> None:
        super().__init__()
        binary = self.shared(weight_binarizer, activation_binarizer, preset, standardize)
        self.trunk = Trunk(blocks, width, stem, channels, block=block, **binary)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.trunk.features, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.trunk(x)).flatten(1))


class SoftmaxRegression(nn.Module):
    """Softmax regression: one linear layer from pixels to logits, x (N, C, H, W) -> (N, num_classes).

    The floor that every network must beat. The first batch fixes the number of pixels; binarizers and sizes do not
    apply to it and are ignored.
    """

    def __init__(self, *, num_classes: int, **ignored) -> None:
        super().__init__()
        self.fc = nn.LazyLinear(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


# every entry takes num_classes=, channels=, weight_binarizer=, activation_binarizer=, preset=, standardize=,
# and accepts blocks=, width=, stem= to make it smaller and block= for ReActNet's blocks
CLASSIFIERS = {
    "bireal18": partial(ResNet, blocks=(4, 4, 4, 4), width=64, stem="imagenet"),
    "bireal34": partial(ResNet, blocks=(6, 8, 12, 6), width=64, stem="imagenet"),
    "resnet18": partial(ResNet, blocks=(4, 4, 4, 4), width=64, stem="full"),
    "softmax_regression": SoftmaxRegression,
    "resnet20": partial(ResNet, blocks=(6, 6, 6), width=16, stem="full"),
}
