"""Names that a user types: the one that is meant, or a sentence that lists the known ones, the nearest first. And how
to install what is not there."""

import difflib
import re
from collections.abc import Collection
from importlib import metadata


def known(kind: str, name: str, table: Collection[str]) -> str:
    """`name` if `table` has it, else ValueError with the known names, the nearest first."""
    if name not in table:
        others = f"known, nearest first: {nearest_first(name, table)}" if table else "there is none"
        raise ValueError(f"unknown {kind} {name!r}; {others}")
    return name


def nearest_first(name: str, table: Collection[str]) -> str:
    """The names of `table` in one line, those most like `name` first."""
    return ", ".join(difflib.get_close_matches(str(name), list(table), n=len(table) or 1, cutoff=0.0))


def install_line(*modules: str) -> str:
    """The command that installs modules which extras of this package bring, as in pip install 'numba>=0.66' (extra
    `packed`). Raises ValueError for a module of no extra."""
    packages = {module.partition(".")[0] for module in modules}
    requirements, extras = {}, {}
    for requirement in metadata.requires("bnc_repro") or ():
        package, _, extra = requirement.partition("; extra == ")
        name = re.split(r"[^\w.-]", package)[0]
        if extra and name in packages:
            requirements[name], extras[extra.strip("'\"")] = f"'{package.strip()}'", None
    if packages - requirements.keys():
        raise ValueError(f"no extra of bnc_repro brings {', '.join(sorted(packages - requirements.keys()))}")
    of = ("extra" if len(extras) == 1 else "extras") + f" `{'`, `'.join(extras)}`"
    return f"pip install {' '.join(sorted(requirements.values()))} ({of})"
