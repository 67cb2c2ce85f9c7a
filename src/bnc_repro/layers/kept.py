"""The binary weight that evaluation keeps: computed once, and anew as soon as anything that decides it has changed.

What decides it is the latent weight, the binarizer's parameters, buffers and settings, and the layer's own. Numbers are
compared with a copy: torch's version counters miss what is written through `.data`, NumPy, a flat buffer that the
weight is a view of, or by a shard's gathering. To compare costs far less than to binarize.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch._functorch import pyfunctorch
from torch.autograd import forward_ad

from ..binarizers.base import Binarizer, Facts

OURS = f"{__name__.partition('.')[0]}."
PLAIN = (str, bool, int, float, tuple, dict, Facts, type(None))


@dataclass
class Sources:
    """What a binary weight is computed from: tensors, and settings that compare by value."""

    tensors: list[Tensor]
    settings: list
    states: list = field(init=False)

    def __post_init__(self) -> None:
        # A version alone proves nothing: it is there to say no without a look at the numbers.
        self.states = [(t._version, t.dtype, t.device, t.shape, t.stride()) for t in self.tensors]

    def copied(self) -> "Sources":
        """The same with the numbers of now, in memory of their own, under the states of the originals."""
        copies = Sources([tensor.detach().clone() for tensor in self.tensors], self.settings)
        copies.states = self.states
        return copies

    def same_as(self, other: "Sources") -> bool:
        """Whether both have the same numbers, laid out alike, under the same settings; NaN equals nothing."""
        alike = self.states == other.states and self.settings == other.settings
        return alike and all(torch.equal(a, b) for a, b in zip(self.tensors, other.tensors, strict=True))


class KeptWeight:
    """A binary weight (O, ...) and a copy of what it was computed from."""

    def __init__(self, value: Tensor, sources: Sources) -> None:
        self._value, self._version, self._sources = value, value._version, sources.copied()

    def value_for(self, sources: Sources) -> Tensor | None:
        """The weight, if computing it anew would give the same bits; else None."""
        unchanged = self._value._version == self._version and sources.same_as(self._sources)
        return self._value.detach() if unchanged else None


def sources_of(layer: nn.Module, binarizer: Binarizer, settings: list) -> Sources | None:
    """What the binary weight of `layer` is computed from; None where it must be computed at each call: in training,
    where a gradient is wanted, where the computation itself is looked at (traced, transformed, recorded), and where not
    all that decides it can be seen (a weight that is computed, or in memory that other processes write; a binarizer
    with code of somebody's own)."""
    if layer.training or _looked_at():
        return None
    weight = layer._parameters.get("weight")
    if type(weight) is not nn.Parameter:
        return None
    of_binarizer = _settings(binarizer)
    tensors = [weight, *binarizer.parameters(), *binarizer.buffers()]
    if of_binarizer is None or not all(_is_followed(tensor) for tensor in tensors):
        return None
    autocast = torch.is_autocast_enabled(weight.device.type)
    return Sources(tensors, [*settings, autocast, of_binarizer])


def _looked_at() -> bool:
    """Whether tensors are traced, transformed or intercepted now."""
    return bool(
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or pyfunctorch.retrieve_all_functorch_interpreters()
        or forward_ad._current_level >= 0
        or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())
    )


def _is_followed(tensor: Tensor) -> bool:
    """Whether the tensor has numbers to compare, which no other process writes, and it wants no gradient now."""
    if tensor.is_meta or tensor.is_inference() or (tensor.device.type == "cpu" and tensor.is_shared()):
        return False
    return not (torch.is_grad_enabled() and tensor.requires_grad)


def _settings(binarizer: Binarizer) -> list | None:
    """Type and public attributes of a binarizer and its modules; None where its forward value may depend on more."""
    kind = type(binarizer)
    forward_is_ours = kind.forward is Binarizer.forward and kind.hard is Binarizer.hard
    if not (forward_is_ours or kind.__module__.startswith(OURS)):
        return None
    settings = []
    for module in binarizer.modules():
        public = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        hooked = module._forward_hooks or module._forward_pre_hooks
        if hooked or not all(isinstance(value, PLAIN) for value in public.values()):
            return None
        settings.append((type(module), {k: dict(v) if isinstance(v, dict) else v for k, v in public.items()}))
    return settings
