"""Many recipes from few words: an experiment's arms under its seeds, and the grid of its learning rates."""

from dataclasses import dataclass
from typing import Any

from ..names import known
from .build import merged
from .profiles import experiment_section, experiments, parameters_file, recipe_of, seeds_of, tuned
from .schema import Recipe

OF_A_GRID = ("seed", "learning_rate", "data.validation")  # what a tuning says of each of its runs


@dataclass(frozen=True)
class Requested:
    """A recipe that a sweep is asked for, the arm of params.yaml that it belongs to, and where a copy of its row goes
    within a folder of copies ("": under the run's fingerprint)."""

    recipe: Recipe
    arm: str
    copy: str = ""


def arms_and_seeds(
    experiment: str,
    profile: str,
    arms: list[str] | None = None,
    seeds: list[int] | None = None,
    settings: dict[str, Any] | None = None,
) -> list[Requested]:
    """Each arm of an experiment, or of every experiment of the profile (`all`), under each of its seeds: those of
    params.yaml where `arms` or `seeds` are not said. `settings` change every recipe; a seed among them stands for
    `seeds`.

    Raises ValueError naming an unknown experiment, arm or recipe key.
    """
    settings = settings or {}
    requested = []
    for name in experiments(profile) if experiment == "all" else [experiment]:
        section = experiment_section(name, profile)
        folder = f"{name}/" if experiment == "all" else ""
        names = [known("arm", arm, section["arms"]) for arm in arms or section["arms"]]
        asked = seeds or ([recipe_of(name, profile, names[0], **settings).seed] if "seed" in settings else [])
        seeds_by_arm = {arm: asked or seeds_of(section["arms"][arm], section["seeds"]) for arm in names}
        for seed in dict.fromkeys(seed for arm_seeds in seeds_by_arm.values() for seed in arm_seeds):
            for arm in names:
                if seed in seeds_by_arm[arm]:
                    recipe = recipe_of(name, profile, arm, **settings | {"seed": seed})
                    requested.append(Requested(recipe, arm, f"{folder}{arm}/{seed}.json"))
    return requested


def tuning(
    experiment: str, profile: str, arms: list[str] | None = None, settings: dict[str, Any] | None = None
) -> list[Requested]:
    """The grid of each arm of an experiment, or of every experiment that has a grid (`all`); see `grid`. Raises
    ValueError for settings that the grid has itself."""
    for key in OF_A_GRID:
        value: Any = settings or {}
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            raise ValueError(f"--set {key}: the grid says it, see tuning in {parameters_file(profile)}; leave it out")
    names = [name for name in experiments(profile) if tuned(name, profile)] if experiment == "all" else [experiment]
    if not names:
        raise ValueError(f"{parameters_file(profile)} has no section tuning; write a grid there")
    requested = []
    for name in names:
        _grid_section(name, profile)
        for arm in arms or arms_with_grids(name, profile):
            requested += [Requested(recipe, arm) for recipe in grid(name, profile, arm, settings)]
    return requested


def _grid_section(experiment: str, profile: str) -> dict:
    section = tuned(experiment, profile)
    if not section:
        raise ValueError(f"{parameters_file(profile)} has no section tuning.{experiment}; write its grid there")
    return section


def arms_with_grids(experiment: str, profile: str) -> list[str]:
    """The arms that a tuning runs unless it is told which: those whose optimizer has a grid, under the preset `fixed`,
    on Bi-Real blocks, at the section's own scale. Other arms have the rate of their estimator."""
    grids = tuned(experiment, profile).get("learning_rates", {})
    arms = experiment_section(experiment, profile)["arms"]
    recipes = {arm: recipe_of(experiment, profile, arm) for arm, changes in arms.items() if "scale" not in changes}
    return [
        arm
        for arm, recipe in recipes.items()
        if recipe.optimizer in grids and (recipe.preset, recipe.block) == (Recipe.preset, Recipe.block)
    ]


def grid(experiment: str, profile: str, arm: str, settings: dict[str, Any] | None = None) -> list[Recipe]:
    """The recipes of an arm's tuning: every rate under every seed. Raises ValueError where the profile has no grid."""
    known("arm", arm, experiment_section(experiment, profile)["arms"])
    section, recipe_of_arm = _grid_section(experiment, profile), recipe_of(experiment, profile, arm)
    if recipe_of_arm.optimizer not in section["learning_rates"]:
        raise ValueError(
            f"tuning.{experiment}.learning_rates has no grid for {recipe_of_arm.optimizer}, the optimizer of {arm}"
        )
    held_out = {"data": {"validation": section["validation"]}}
    return [
        recipe_of(experiment, profile, arm, **merged(settings or {}, held_out, {"seed": seed, "learning_rate": rate}))
        for rate in section["learning_rates"][recipe_of_arm.optimizer]
        for seed in section["seeds"]
    ]
