"""One module per way to binarize: the forward is two-valued, the backward is what the literature argues about.

A binarizer maps x (any shape) to -1 and +1 (+1 at ties) and never scales: centring, standardisation and the
scale belong to the layer. `get("mlp")` and `BINARIZERS` are the way in; `None` means "stay float".
Source: `surrogates` for the hand-made functions, `learnt` for the learnt ones. The presets `paper` and `fixed`
are our construction where they differ from the released code.
"""

import inspect
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from .config import known, project_root
from .learnt import DSQ, Classifier
from .ops import memory_order, sign
from .straight_through import Binarizer
from .surrogates import RULES, SURROGATES

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _above_median(x: Tensor, progress: float) -> Tensor:
    size = x.abs()
    channels = size.permute(memory_order(size)).flatten(min(1, x.dim() - 1))
    # Numbers that are not negative stand in the order of their bits, and integers are selected faster.
    bits = channels.view(INTEGERS[x.element_size()]).median(dim=-1).values
    median = bits.view(x.dtype).view(-1, *[1] * (x.dim() - 1))
    return sign(size.neg_().add_(median)).neg_()  # -1 at the median itself


def _steepening(x: Tensor, progress: float) -> Tensor:
    return sign(x) if progress == 1 else (x * 4 ** (10 * progress)).clamp_(-1, 1)


def _periodic(x: Tensor, progress: float, *, frequency: float = 20.0) -> Tensor:
    return sign(torch.sin(x * frequency))


FORWARDS = {"biper": _periodic, "siman": _above_median, "progressive": _steepening}


class Surrogate(Binarizer):
    """A hand-made soft function by its name in `SURROGATES`; its docstring has the formulas.

    Parameters: none; `options` are the function's constants. Raises ValueError for a constant it does not have.
    """

    def __init__(self, name: str, **options: float) -> None:
        super().__init__()
        for option in options:
            known(f"constant of {name}", option, SURROGATES[name].__kwdefaults__ or {})
        self.name, self.options = name, options
        if name == "progressive":
            self.forward_values = ()  # in training not two-valued before the end of its schedule

    def derivative(self, x: Tensor) -> Tensor:
        if self.name in RULES:
            return RULES[self.name](torch.ones_like(x), x, self.progress, **self.options)
        return SURROGATES[self.name](x, self.progress, **self.options)

    def rule(self, grad: Tensor, x: Tensor) -> Tensor:
        if self.name in RULES:
            return RULES[self.name](grad, x, self.progress, **self.options)
        return self.derivative(x).mul_(grad)

    def hard(self, x: Tensor) -> Tensor:
        """The forward value; outside of training that of the schedule's end."""
        progress = self.progress if self.training else 1.0
        return FORWARDS[self.name](x, progress, **self.options) if self.name in FORWARDS else sign(x)

    def extra_repr(self) -> str:
        return ", ".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])


PRESETS = {
    "official": {},
    "paper": {"argmax": True},
    "fixed": {"monotone": True, "normalised": True},
}

# name -> class with its fixed arguments; a preset's fields are added to the learnt ones
BINARIZERS = {name: partial(Surrogate, name) for name in SURROGATES} | {
    "dsq": DSQ,
    "linear": partial(Classifier, 0),
    "mlp": partial(Classifier, 100),
}
LEARNT = ("linear", "mlp")
LEFT_OUT = {
    "MetaQuant": "its network is trained through one unrolled step of the weights' optimizer, so it is no function of "
    "the number and its gradient alone (NeurIPS 2019)",
}


def get(binarizer: str | Binarizer | None, *, preset: str = "fixed", **options) -> Binarizer | None:
    """A binarizer from its name in `BINARIZERS`, or from FILE.py:NAME, a class of one's own without arguments; an
    instance and None (float) are returned as they are.

    `preset` (official, paper, fixed) sets the fields of "linear" and "mlp"; `options` override single fields.
    Raises ValueError for an unknown name or preset, the nearest known name first, and for a file without such a class.
    """
    if binarizer is None or isinstance(binarizer, Binarizer):
        return binarizer
    if own_file(binarizer):
        return _of_file(own_file(binarizer), binarizer.rpartition(":")[2])(**options)
    make = BINARIZERS[known("binarizer", binarizer, BINARIZERS)]
    if binarizer in LEARNT:
        options = PRESETS[known("preset", preset, PRESETS)] | options
    if binarizer not in SURROGATES:
        for option in options:
            known(f"option of {binarizer}", option, inspect.signature(make).parameters)
    return make(**options)


def own_file(name: str | None) -> Path | None:
    """The file of a binarizer called FILE.py:NAME, relative to the clone; None for every other name."""
    file, _, _ = (name or "").rpartition(":")
    if not file.endswith(".py"):
        return None
    return Path(file) if Path(file).is_absolute() else project_root() / file


def _of_file(file: Path, name: str) -> type[Binarizer]:
    if not file.is_file():
        raise ValueError(f"there is no file {file}; FILE.py:NAME names a class of one's own, from the clone's folder")
    module = ModuleType(f"own_{file.stem}")
    module.__file__ = str(file)
    # From its text: kept bytecode is the old one's where a file is edited twice in a second.
    exec(compile(file.read_bytes(), str(file), "exec"), vars(module))
    classes = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, Binarizer)]
    return getattr(module, known(f"class of {file}", name, [key for key in classes if key != "Binarizer"]))


def describe() -> list[str]:
    """A line per binarizer: name, constants or number of learnt parameters, the domain its paper uses it in, source;
    then what is left out and why."""
    lines = [f"{'name':16} {'parameters':34} {'domain':6} source"]
    for name in BINARIZERS:
        made = get(name)
        learnt = sum(parameter.numel() for parameter in made.parameters())
        if name in SURROGATES:
            said = dict(line.strip().split(": ", 1) for line in SURROGATES[name].__doc__.splitlines() if ": " in line)
            constants = ", ".join(f"{k}={v}" for k, v in (SURROGATES[name].__kwdefaults__ or {}).items()) or "-"
            domain, source = said["domain"].partition(" (")[0], said["source"].partition(";")[0]
        elif name == "dsq":
            constants, domain, source = f"{learnt} learnt", "W, A", "DSQ (1908.05033)"
        else:
            constants, domain, source = f"{learnt} learnt", "W", "Binarizing by Classification (2205.07433)"
        lines.append(f"{name:16} {constants:34} {domain:6} {source}")
    return lines + [f"left out: {name}: {reason}" for name, reason in LEFT_OUT.items()]
