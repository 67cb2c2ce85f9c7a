"""What is asked for: a recipe, from params.yaml and the command line. Nothing here imports torch."""

from .build import as_dict, make_recipe, recipe_identity
from .clone import project_root
from .profiles import experiment_section, recipe_of
from .schema import EXPERIMENTS, PROFILES, Data, Pose, Recipe

__all__ = [
    "EXPERIMENTS",
    "PROFILES",
    "Data",
    "Pose",
    "Recipe",
    "as_dict",
    "experiment_section",
    "make_recipe",
    "project_root",
    "recipe_identity",
    "recipe_of",
]
