"""Names that a user types: the one that is meant, or a sentence that lists the known ones, the nearest first."""

import difflib
from collections.abc import Collection


def known(kind: str, name: str, table: Collection[str]) -> str:
    """`name` if `table` has it, else ValueError with the known names, the nearest first."""
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; known, nearest first: {nearest_first(name, table)}")
    return name


def nearest_first(name: str, table: Collection[str]) -> str:
    """The names of `table` in one line, those most like `name` first."""
    return ", ".join(difflib.get_close_matches(str(name), list(table), n=len(table), cutoff=0.0))
