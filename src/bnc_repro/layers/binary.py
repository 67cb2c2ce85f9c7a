"""Binary convolution and linear layer: torch's own layers with a binarizer before each operand.

forward: y = conv(b_a(x), alpha b_w(w_c)), w_c = weight minus its mean per output channel, alpha = mean abs(w_c)
per output channel without gradient (2205.07433, released code; the scale is XNOR-Net's). With
`standardize=True` the weights are divided by their deviation too before they are binarized (IR-Net).
`None` for both binarizers is the float layer. `weight` stays `weight`, so float checkpoints load.
A layer holds its binarizers as modules. An instance that several layers are given is one module that all of them hold,
as torch has it for shared weights: its parameters count once, and stand in the state of each layer.
In evaluation a layer keeps its binary weight until what decides it changes (`kept`): no state, in no copy.
Zero padding comes after the sign: border inputs are 0, as everywhere in this field; bit-packed inference must know.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ..binarizers.base import Binarizer
from ..binarizers.registry import get
from ..binarizers.table import Evaluator
from .kept import KeptWeight, sources_of
from .latent import center, channel_scale, standardize


def pruned(layer: nn.Module) -> bool:
    """Whether a mask (torch.nn.utils.prune) or a parametrization of `layer` sets weights to exactly 0 that are not 0
    themselves. A weight that is a parameter is nobody's product, whatever its values are."""
    mask = layer._buffers.get("weight_mask")
    if mask is not None:
        return not mask.is_meta and bool((mask == 0).any())
    if not parametrize.is_parametrized(layer, "weight"):
        return False
    weight, parts = layer.weight, layer.get_submodule("parametrizations.weight")
    if not isinstance(weight, Tensor) or weight.is_meta:
        return False
    zero = weight.detach() == 0
    originals = [original for original in parts.parameters(recurse=False) if original.shape == zero.shape]
    return any(bool((zero & (original != 0)).any()) for original in originals)


def _refuse_single_weights(weight: Tensor, binarizer) -> None:
    if binarizer is not None and math.prod(weight.shape[1:]) == 1:
        raise ValueError(
            "each output channel of this layer has one weight, which centring makes 0 for ever: leave weight_binarizer "
            "None, or take torch's own layer"
        )


class _BinaryOperands(nn.Module):
    """What both binary layers share: the two binarizers and the binary weight."""

    weight: nn.Parameter
    weight_binarizer: Binarizer | None
    activation_binarizer: Binarizer | None
    evaluator: Evaluator | None = None  # this forward's, if `share_evaluator` made one
    last_evaluator: Evaluator | None = None  # of the last call with gradients, whose backward may still come
    kept_weight: KeptWeight | None = None  # of the evaluations before

    def __getstate__(self) -> dict:
        """Without evaluators and a kept weight, which are no state: a copy, or what is pickled, makes its own."""
        passing = ("evaluator", "last_evaluator", "kept_weight")
        return {key: value for key, value in self.__dict__.items() if key not in passing}

    def __prepare_scriptable__(self):
        """torch.jit.script asks for this. Raises ValueError with what does the same."""
        raise ValueError(
            "a binary layer looks at numbers, which torch.jit.script cannot compile: take torch.jit.trace or "
            "torch.export"
        )

    def train(self, mode: bool = True):
        """As torch's; drops the kept weight, whatever the mode."""
        self.kept_weight = None
        return super().train(mode)

    def _set_binarizers(self, weight_binarizer, activation_binarizer, standardize: bool) -> None:
        # torch.fx takes an instance whose module is torch.nn's for a leaf; inside, a binarizer looks at numbers.
        self.__dict__["__module__"] = "torch.nn.binary"
        self.standardize = standardize
        self.weight_binarizer, self.activation_binarizer = get(weight_binarizer), get(activation_binarizer)

    def binary_weight(self) -> Tensor:
        """alpha b_w(w_c), two values per output channel; the plain weight if it stays float."""
        if self.weight_binarizer is None:
            return self.weight
        computes_as_here = type(self).latent_and_scale is _BinaryOperands.latent_and_scale
        sources = sources_of(self, self.weight_binarizer, [self.standardize]) if computes_as_here else None
        if sources is None:
            return self._computed_weight(self.weight_binarizer)
        value = self.kept_weight.value_for(sources) if self.kept_weight else None
        if value is None:
            with torch.inference_mode(False), torch.no_grad():  # a tensor of inference alone could serve no gradient
                value = self._computed_weight(self.weight_binarizer)
                self.kept_weight = KeptWeight(value, sources)
        return value

    def _computed_weight(self, weight_binarizer: Binarizer) -> Tensor:
        if pruned(self):
            raise ValueError(
                "some weights of this layer are pruned: binary weights are -alpha or +alpha, and none is 0; keep the "
                "layer float, or leave out whole channels instead"
            )
        latent, scale = self.latent_and_scale()
        evaluator = self._evaluator_of_the_forward()
        return scale * (weight_binarizer(latent, evaluator) if evaluator else weight_binarizer(latent))

    def _evaluator_of_the_forward(self) -> Evaluator | None:
        """This call's evaluator, if it has one. In a backward pass that of the layer's last call with gradients:
        activation checkpointing computes a part again there, and must find what the forward had, evaluator or none."""
        if torch.compiler.is_compiling():
            return self.evaluator
        if torch._C._current_graph_task_id() != -1:
            return self.evaluator or self.last_evaluator
        if torch.is_grad_enabled() or self.evaluator:
            # A part without gradients in a forward with them (use_reentrant=True) has a backward of its own, which
            # would free the others' evaluator.
            self.last_evaluator = self.evaluator if torch.is_grad_enabled() else None
        return self.evaluator

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
    """A convolution with binary weights and inputs, x (N, C, H, W) -> (N, O, H', W'), or one image (C, H, W). Takes
    what nn.Conv2d takes. Raises ValueError for weights to binarize of which each output channel has one."""

    def __init__(
        self, *args, weight_binarizer=None, activation_binarizer=None, standardize: bool = False, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        _refuse_single_weights(self.weight, weight_binarizer)
        self._set_binarizers(weight_binarizer, activation_binarizer, standardize)

    def binary_input(self, x: Tensor) -> Tensor:
        """b_a(x), or x if it stays float; one image (C, H, W) is a batch of one."""
        return super().binary_input(x[None])[0] if x.dim() == 3 else super().binary_input(x)

    def forward(self, input: Tensor) -> Tensor:  # torch's name: it may be called by it
        return self._conv_forward(self.binary_input(input), self.binary_weight(), self.bias)


class BinaryLinear(_BinaryOperands, nn.Linear):
    """A linear layer with binary weights and inputs, x (N, ..., I) -> (N, ..., O). Takes what nn.Linear takes. Raises
    ValueError for weights to binarize of which each output has one."""

    def __init__(
        self, *args, weight_binarizer=None, activation_binarizer=None, standardize: bool = False, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        _refuse_single_weights(self.weight, weight_binarizer)
        self._set_binarizers(weight_binarizer, activation_binarizer, standardize)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(self.binary_input(input), self.binary_weight(), self.bias)
