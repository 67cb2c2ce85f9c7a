"""Nested values, as they are read from YAML, into dataclasses: every mistake is one sentence that names the key."""

import difflib
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints


def build(cls: type, values: dict, prefix: str = ""):
    """An instance of the dataclass `cls` from nested values; `prefix` stands before the keys in messages.

    Raises ValueError for unknown keys, the nearest known ones first, and for values of another type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"recipe key {prefix.rstrip('.')} holds several keys, got {values!r}")
    hints = get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise ValueError(f"unknown recipe key {prefix}{key}; known, nearest first: {_near(key, hints)}")
    built = {key: _typed(hints[key], value, prefix + key) for key, value in values.items()}
    return cls(**built)


def _typed(hint: Any, value: Any, key: str) -> Any:
    if is_dataclass(hint):
        return build(hint, value, key + ".")
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        fits = isinstance(value, (list, tuple)) and (kinds[-1] is ... or len(value) == len(kinds))
        if fits and all(type(item) is int for item in value):
            return tuple(value)
        wanted = "a list of whole numbers" if kinds[-1] is ... else f"a list of {len(kinds)} whole numbers"
        raise ValueError(f"recipe key {key} must be {wanted}, got {value!r}")
    kinds = get_args(hint) or (hint,)
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) in kinds:
        return value
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    raise ValueError(f"recipe key {key} must be {' or '.join(names[kind] for kind in kinds)}, got {value!r}")


def known(kind: str, name: str, table) -> str:
    """`name` if `table` has it, else ValueError with the known names, the nearest first."""
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; known, nearest first: {_near(name, table)}")
    return name


def _near(name: str, table) -> str:
    return ", ".join(difflib.get_close_matches(str(name), list(table), n=len(table), cutoff=0.0))
