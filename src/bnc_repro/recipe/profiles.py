"""Profiles and arms: what params.yaml says of an experiment."""

from pathlib import Path
from typing import Any

from ..names import known
from .build import make_recipe, merged
from .clone import project_root
from .parameters import ARM_FIELDS, read_parameters
from .schema import EXPERIMENTS, PROFILES, Recipe


def recipe_of(experiment: str, profile: str = "sample", arm: str | None = None, **changes: Any) -> Recipe:
    """The recipe of one run of `experiment` under `profile`, changed by the arm's and then by `changes`.

    Raises ValueError naming the key, what is wrong with it and what would be right.
    """
    section = experiment_section(experiment, profile)
    of_arm = without_arm_fields(section["arms"][known("arm", arm, section["arms"])]) if arm is not None else {}
    return make_recipe(experiment=experiment, profile=profile, **merged(section["recipe"], of_arm, changes))


def experiment_section(experiment: str, profile: str) -> dict:
    """The section {seeds, recipe, arms} of an experiment in a profile's params.yaml."""
    known("experiment", experiment, EXPERIMENTS)
    sections = _sections(profile)
    return sections[known(f"experiment of the profile {profile}", experiment, sections)]


def experiments(profile: str) -> tuple[str, ...]:
    """The experiments that a profile has."""
    sections = _sections(profile)
    return tuple(name for name in EXPERIMENTS if name in sections)


def _sections(profile: str) -> dict:
    return read_parameters(parameters_file(profile))


def parameters_file(profile: str) -> Path:
    """params.yaml of the sample, pipelines/<profile>/params.yaml of the others."""
    known("profile", profile, PROFILES)
    name = "params.yaml" if profile == "sample" else f"pipelines/{profile}/params.yaml"
    return project_root() / name


def seeds_of(arm: dict, seeds: list[int]) -> list[int]:
    """The seeds of an arm of params.yaml: its own, or the section's."""
    return arm.get("seeds", seeds)


def arm_fields(name: str, changes: dict) -> dict[str, str]:
    """What a row says of its arm beside the recipe: `arm`, its `estimator` (the arm's own name unless params.yaml says
    another), the operand it stands for, `placement`: weights (unless said otherwise), activations or both, and its
    `scale`, where that is not the one of the other arms."""
    fields = {
        "arm": name,
        "estimator": changes.get("estimator", name),
        "placement": changes.get("placement", "weights"),
    }
    return fields | ({"scale": changes["scale"]} if "scale" in changes else {})


def without_arm_fields(changes: dict) -> dict:
    """The keys of an arm that are the recipe's."""
    return {key: value for key, value in changes.items() if key not in ARM_FIELDS}


def tuned(experiment: str, profile: str) -> dict:
    """The profile's section of the grid, {seeds, validation, learning_rates by optimizer}; empty if it has none."""
    return _sections(profile).get("tuning", {}).get(experiment, {})
