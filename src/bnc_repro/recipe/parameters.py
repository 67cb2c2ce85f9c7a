"""The form of params.yaml, checked once where it is read: every mistake is a sentence with the file, the key and the
remedy. Below this, sections are what they claim to be.
"""

import reprlib
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, get_type_hints

from ..names import nearest_first
from .build import read_yaml
from .schema import EXPERIMENTS, Recipe

SECTION = ("seeds", "recipe", "arms")
GRID = ("seeds", "validation", "learning_rates")
ARM_FIELDS = ("estimator", "placement", "scale", "seeds")
PLACEMENTS = ("weights", "activations", "both")
OF_THE_RUN = ("experiment", "profile", "seed")  # keys of a recipe that no section says


def read_parameters(file: Path) -> dict:
    """The sections of a profile's params.yaml. Raises ValueError for a file of another form."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ValueError(f"{file} cannot be read ({why}); take it from git again") from error
    try:
        return deepcopy(_sections(text))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


@lru_cache
def _sections(text: str) -> dict:
    sections = read_yaml(text)
    _mapping(sections, "the file", "experiments")
    # A section whose name begins with a dot holds what others refer to.
    _keys({key: 0 for key in sections if not str(key).startswith(".")}, (*EXPERIMENTS, "tuning"), "section")
    for name in sections.keys() & set(EXPERIMENTS):
        _section(sections[name], name)
    for name, grid in _mapping(sections.get("tuning", {}), "tuning", "experiments").items():
        _keys({name: grid}, EXPERIMENTS, "section of tuning")
        _grid(grid, f"tuning.{name}")
    return sections


def _mapping(value: Any, name: str, of: str, *, empty: bool = True) -> dict:
    if not isinstance(value, dict) or not (value or empty):
        raise ValueError(f"{name} must hold {of} by name, got {_short(value)}")
    return value


def _keys(values: dict, allowed: tuple[str, ...], kind: str) -> None:
    for key in values:
        if key not in allowed:
            raise ValueError(f"unknown {kind} {_short(key)}; known, nearest first: {nearest_first(key, allowed)}")


def _short(value: Any) -> str:
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _section(section: Any, name: str) -> None:
    _keys(_mapping(section, name, "seeds, recipe and arms"), SECTION, f"key of {name}")
    for key in SECTION:
        if key not in section:
            raise ValueError(f"{name} has no {key}: a section holds seeds, recipe and arms")
    _seeds(section["seeds"], f"{name}.seeds")
    _recipe(section["recipe"], f"{name}.recipe", ())
    for arm, changes in _mapping(section["arms"], f"{name}.arms", "arms", empty=False).items():
        if not isinstance(arm, str) or not arm.strip():
            raise ValueError(f"{name}.arms names its arms in text, got {_short(arm)}: quote it")
        if arm == "all" or arm.startswith(".") or not arm.isprintable() or set(arm) & set("/\\"):
            raise ValueError(
                f"{name}.arms has an arm called {_short(arm)}: folders are called by arms, and all of them 'all', so "
                "take a name without slashes that begins with no dot"
            )
        _recipe(changes, f"{name}.arms.{arm}", ARM_FIELDS)
        if "seeds" in changes:
            _seeds(changes["seeds"], f"{name}.arms.{arm}.seeds")
        for key in changes.keys() & set(ARM_FIELDS) - {"seeds"}:
            if not isinstance(changes[key], str) or not changes[key].strip():
                raise ValueError(f"{name}.arms.{arm}.{key} must be text, got {_short(changes[key])}")
        if changes.get("placement", PLACEMENTS[0]) not in PLACEMENTS:
            raise ValueError(f"{name}.arms.{arm}.placement must be one of {', '.join(PLACEMENTS)}")


def _recipe(values: Any, name: str, more: tuple[str, ...]) -> None:
    known = tuple(key for key in get_type_hints(Recipe) if key not in OF_THE_RUN)
    for key in _mapping(values, name, "keys of a recipe"):
        if key in OF_THE_RUN:
            raise ValueError(f"{name} names {key}, which the command line or the section says; take it out")
        if key not in (*known, *more):
            raise ValueError(f"unknown key {_short(key)} in {name}; known, nearest first: {nearest_first(key, known)}")


def _seeds(seeds: Any, name: str) -> None:
    right = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not right or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"{name} must be a list of different whole numbers from 0 on, such as [0, 1], got {_short(seeds)}"
        )


def _grid(grid: Any, name: str) -> None:
    _keys(_mapping(grid, name, ", ".join(GRID)), GRID, f"key of {name}")
    for key in GRID:
        if key not in grid:
            raise ValueError(f"{name} has no {key}: a grid holds {', '.join(GRID)}")
    _seeds(grid["seeds"], f"{name}.seeds")
    if type(grid["validation"]) not in (int, float) or not 0 < grid["validation"] <= 0.5:
        raise ValueError(f"{name}.validation is a share above 0 and at most 0.5, got {_short(grid['validation'])}")
    for optimizer, rates in _mapping(grid["learning_rates"], f"{name}.learning_rates", "lists", empty=False).items():
        right = isinstance(rates, list) and rates and all(type(rate) in (int, float) and rate > 0 for rate in rates)
        if not isinstance(optimizer, str) or not right:
            raise ValueError(
                f"{name}.learning_rates.{optimizer} must be a list of numbers above 0, got {_short(rates)}"
            )
