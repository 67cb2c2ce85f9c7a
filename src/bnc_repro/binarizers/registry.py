"""Every binarizer by its name, the presets of the learnt ones, and classes of one's own from a file.

The presets `paper` and `fixed` are our construction where they differ from the released code.
"""

import ast
import inspect
import sys
import sysconfig
from functools import partial
from pathlib import Path
from types import ModuleType

from ..names import known
from ..recipe.clone import project_root
from ..recipe.schema import LEARNT
from .base import Binarizer
from .classifier import Classifier
from .dsq import DSQ
from .hand_made import Surrogate
from .surrogates import SURROGATES, constants_of

PRESETS = {"official": {}, "paper": {"argmax": True}, "fixed": {"monotone": True, "normalised": True}}
# name -> class with its fixed arguments; a preset's fields are added to the learnt ones
BINARIZERS = {name: partial(Surrogate, name) for name in SURROGATES} | {
    "dsq": DSQ,
    "linear": partial(Classifier, hidden=0),
    "mlp": partial(Classifier, hidden=100),
}
LEFT_OUT = {
    "MetaQuant": "its network is trained through one unrolled step of the weights' optimizer, so it is no function of "
    "the number and its gradient alone (NeurIPS 2019)"
}


def get(binarizer: str | Binarizer | None, *, preset: str = "fixed", **options) -> Binarizer | None:
    """A binarizer from its name in `BINARIZERS`, or from FILE.py:NAME, a class of one's own without arguments; an
    instance and None (float) are returned as they are.

    `preset` (official, paper, fixed) sets the fields of "linear" and "mlp"; `options` override single fields.
    Raises ValueError for an unknown name or preset, the nearest known name first, for a file without such a class or
    one that imports others, and for what is neither a name nor a binarizer.
    """
    if binarizer is None or isinstance(binarizer, Binarizer):
        return binarizer
    if not isinstance(binarizer, str):
        kind = getattr(binarizer, "__name__", type(binarizer).__name__)
        raise ValueError(
            f"a binarizer is a name such as 'ste', FILE.py:NAME, an instance of Binarizer or None (float), not {kind}"
        )
    file = own_file(binarizer)
    if file:
        return _of_file(file, binarizer.rpartition(":")[2])(**options)
    make = BINARIZERS[known("binarizer", binarizer, BINARIZERS)]
    preset = known("preset", preset, PRESETS)
    if binarizer in LEARNT:
        options = PRESETS[preset] | options
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
    before = set(sys.modules)
    # From its text: kept bytecode is the old one's where a file is edited twice in a second.
    exec(compile(file.read_bytes(), str(file), "exec"), vars(module))
    _refuse_other_files(file, before)
    classes = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, Binarizer)]
    return getattr(module, known(f"class of {file}", name, [key for key in classes if key != "Binarizer"]))


def _refuse_other_files(file: Path, before: set[str]) -> None:
    """Raise ValueError where a file has imported another one that is neither installed nor this package's: a run knows
    the file by its content, and no other. `before`: the modules that were there without it."""
    tree = ast.walk(ast.parse(file.read_bytes()))
    named = {
        name.partition(".")[0]
        for node in tree
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    known_by_version = [Path(sysconfig.get_path("stdlib")).resolve(), Path(__file__).resolve().parents[1]]
    for name in sorted(named | (set(sys.modules) - before)):
        place = getattr(sys.modules.get(name), "__file__", None)
        if not place or {"site-packages", "dist-packages"} & set(Path(place).parts):
            continue
        if not any(Path(place).resolve().is_relative_to(folder) for folder in known_by_version):
            raise ValueError(
                f"{file} imports {name} from {place}, whose changes no run would notice: put what it needs into "
                f"{file.name} itself"
            )


def describe() -> list[str]:
    """A line per binarizer: name, constants or number of learnt parameters, the operands that its paper uses it for,
    source; then what is left out and why."""
    lines = [f"{'name':16} {'parameters':34} {'domain':6} source"]
    for name in BINARIZERS:
        binarizer = get(name)
        assert binarizer is not None
        learnt = sum(parameter.numel() for parameter in binarizer.parameters())
        constants = ", ".join(f"{key}={value}" for key, value in constants_of(name).items()) or "-"
        shown = f"{learnt} learnt" if learnt else constants
        lines.append(f"{name:16} {shown:34} {binarizer.facts.domain:6} {binarizer.facts.source}")
    return lines + [f"left out: {name}: {reason}" for name, reason in LEFT_OUT.items()]
