"""The network of a checkpoint, and any network judged: its metrics on a data set, its predictions."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..binarizers.registry import own_file
from ..recipe.build import make_recipe
from ..recipe.schema import Recipe, missing_data
from ..training import checkpoint
from ..training.task import on_device
from .tasks import task_module


def load_network(
    path: str | Path, device: torch.device, own: Collection[str | None] = ()
) -> tuple[nn.Module, Recipe, list[str]]:
    """The network of a checkpoint, its recipe, and the names of its classes or keypoints.

    A checkpoint may name a binarizer of somebody's own, FILE.py:NAME. That file runs only if the user names it too, in
    `own`. Raises ValueError otherwise, and for a damaged checkpoint.
    """
    network, recipe, state = network_and_state(path, device, own)
    return network, recipe, state["labels"]


def network_and_state(
    path: str | Path, device: torch.device, own: Collection[str | None]
) -> tuple[nn.Module, Recipe, dict]:
    """As `load_network`, with all that the checkpoint holds: its labels, for keypoints its `skeleton`."""
    state = checkpoint.load(path)
    recipe, labels = make_recipe(**state["recipe"]), state["labels"]
    for name in (recipe.weight_binarizer, recipe.activation_binarizer):
        if own_file(name) and name not in own:
            raise ValueError(
                f"{path} was trained with {name}, a file that it would run: look at the file, then say --own {name}"
            )
    network = task_module(recipe.experiment).make_network(recipe, len(labels))
    try:
        network.load_state_dict(state["network"])
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the network of its own recipe: {error}") from error
    broken = [name for name, value in state["network"].items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"{path} holds numbers that are not finite, first in {broken[0]}: its run diverged")
    return on_device(network, device).eval(), recipe, state


def evaluate_network(
    network: nn.Module, recipe: Recipe, labels: list[str], path: str | Path, data: str | None, device: torch.device
) -> dict:
    """The metrics of a network on the data of its recipe, or of another folder; `path` is the file it comes from, for
    messages. Raises ValueError where there is no data, or data with other labels."""
    if data is not None:
        recipe = replace(recipe, data=replace(recipe.data, root=str(Path(data).resolve())))
    if not recipe.data.folder.is_dir():
        raise ValueError(missing_data(recipe))
    task = task_module(recipe.experiment).build(recipe, device)
    if list(task.labels) != list(labels):
        raise ValueError(
            f"{path} was trained on {len(labels)} labels ({', '.join(labels[:3])} ...), {recipe.data.folder} has "
            f"{len(task.labels)} ({', '.join(task.labels[:3])} ...); name data with the same labels"
        )
    return task.evaluate(network)


def predict_with(
    network: nn.Module, recipe: Recipe, labels: list[str], pictures: list[Path], device: torch.device, **facts: dict
) -> Iterator[dict]:
    """One dict per picture: its probabilities by class, best first, or the keypoints of the person that fills it. The
    network comes with its recipe and labels, and with what its file says of poses (`skeleton`)."""
    module = task_module(recipe.experiment)
    predictions = module.predict_pictures(network, recipe, labels, pictures, device, **facts)
    for picture, prediction in zip(pictures, predictions, strict=True):
        yield {"picture": str(picture), **prediction}
