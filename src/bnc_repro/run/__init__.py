"""From a recipe to its row: `run` trains, or returns the row of the same run if it is finished."""

from .execute import run, run_arms
from .identity import folder_of
from .judge import evaluate, load_network, predict

__all__ = ["evaluate", "folder_of", "load_network", "predict", "run", "run_arms"]
