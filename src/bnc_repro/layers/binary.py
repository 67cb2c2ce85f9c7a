"""Binary convolution and linear layer: torch's own layers with a binarizer before each operand.

forward: y = conv(b_a(x), alpha b_w(w_c)), w_c = weight minus its mean per output channel, alpha = mean abs(w_c)
per output channel without gradient (2205.07433, released code; the scale is XNOR-Net's). With
`standardize=True` the weights are divided by their deviation too before they are binarized (IR-Net).
`None` for both binarizers is the float layer. `weight` stays `weight`, so float checkpoints load.
A layer owns the binarizers it makes from names; an instance belongs to whoever made it (a network holds its
shared classifier once, at the top, unless `own_binarizers` gives each layer a copy). Zero padding comes after
the sign: border inputs are 0, as everywhere in this field; bit-packed inference must know.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from ..binarizers.base import Binarizer
from ..binarizers.registry import get
from ..binarizers.table import Evaluator
from .latent import center, channel_scale, standardize


class _BinaryOperands(nn.Module):
    """What both binary layers share: the two binarizers and the binary weight."""

    weight: nn.Parameter
    weight_binarizer: Binarizer | None
    activation_binarizer: Binarizer | None
    evaluator: Evaluator | None = None  # this step's, if `share_evaluator` made one

    def _set_binarizers(self, weight_binarizer, activation_binarizer, standardize: bool) -> None:
        self.standardize = standardize
        for name, binarizer in (("weight_binarizer", weight_binarizer), ("activation_binarizer", activation_binarizer)):
            if isinstance(binarizer, Binarizer):
                object.__setattr__(self, name, binarizer)  # not registered: the giver holds it
            else:
                setattr(self, name, get(binarizer))

    def binary_weight(self) -> Tensor:
        """alpha b_w(w_c), two values per output channel; the plain weight if it stays float."""
        if self.weight_binarizer is None:
            return self.weight
        latent, scale = self.latent_and_scale()
        shared = (self.evaluator,) if self.evaluator else ()
        return scale * self.weight_binarizer(latent, *shared)

    def latent_and_scale(self) -> tuple[Tensor, Tensor]:
        """`latent_weight`, and alpha (O, 1, ...)."""
        centered = center(self.weight)
        latent = standardize(self.weight) if self.standardize else centered
        return latent, channel_scale(centered)

    def latent_weight(self) -> Tensor:
        """What the weight binarizer sees: the centred (or standardised) weight."""
        return self.latent_and_scale()[0]

    def binary_input(self, x: Tensor) -> Tensor:
        """b_a(x), or x if it stays float."""
        return x if self.activation_binarizer is None else self.activation_binarizer(x)


class BinaryConv2d(_BinaryOperands, nn.Conv2d):
    """nn.Conv2d (same arguments) with binary weights and inputs: x (N, C, H, W) -> (N, O, H', W')."""

    def __init__(
        self, *args, weight_binarizer=None, activation_binarizer=None, standardize: bool = False, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        self._set_binarizers(weight_binarizer, activation_binarizer, standardize)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(self.binary_input(x), self.binary_weight(), self.bias)


class BinaryLinear(_BinaryOperands, nn.Linear):
    """nn.Linear (same arguments) with binary weights and inputs: x (N, ..., I) -> (N, ..., O)."""

    def __init__(
        self, *args, weight_binarizer=None, activation_binarizer=None, standardize: bool = False, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        self._set_binarizers(weight_binarizer, activation_binarizer, standardize)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.binary_input(x), self.binary_weight(), self.bias)
