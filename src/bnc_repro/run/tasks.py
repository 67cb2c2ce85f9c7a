"""Which module makes the task of an experiment: `images.task` or `poses.task`, of the same three functions."""

from types import ModuleType


def task_module(experiment: str) -> ModuleType:
    """The module with `build`, `make_network` and `predict_pictures` for an experiment; the other is not imported."""
    if experiment == "coco_pose":
        from ..poses import task
    else:
        from ..images import task
    return task
