"""The network of a checkpoint, and any network judged: its metrics on a data set, its predictions."""

from collections.abc import Collection, Iterator, Sequence
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
    labels = state["labels"]
    try:
        recipe = make_recipe(**state["recipe"])
    except ValueError as error:
        raise ValueError(f"{path} has a recipe that is none today: {error}") from error
    for name in (recipe.weight_binarizer, recipe.activation_binarizer):
        if own_file(name) and name not in own:
            raise ValueError(
                f"{path} was trained with {name}, a file that it would run: look at the file, then say --own {name}"
            )
    network = task_module(recipe.experiment).make_network(recipe, len(labels))
    load_weights(network, state["network"], f"{path} does not fit the network of its own recipe")
    broken = [name for name, value in state["network"].items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"{path} holds numbers that are not finite, first in {broken[0]}: its run diverged")
    return on_device(network, device).eval(), recipe, state


def load_weights(network: nn.Module, weights: dict, misfit: str) -> None:
    """Load weights by name. Raises ValueError, `misfit` and the first difference, where they are another network's."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        expected = network.state_dict()
        shapes = {name: (_shape(expected.get(name)), _shape(weights.get(name))) for name in [*weights, *expected]}
        odd = {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}
        if not odd:
            raise ValueError(f"{misfit}: {error}") from error
        # One that both have says most.
        name, (wanted, given) = next(((name, pair) for name, pair in odd.items() if all(pair)), next(iter(odd.items())))
        more = f", and {len(odd) - 1} more differ" if len(odd) > 1 else ""
        raise ValueError(
            f"{misfit}: {name} is {given or 'missing'} in the file, and {wanted or 'missing'} in the network{more}; "
            "name a checkpoint of the same network, width, blocks, stem, binarizers and number of labels"
        ) from error


def _shape(value: object) -> str:
    """The shape of a tensor in words, "" of what is none."""
    if not isinstance(value, torch.Tensor):
        return ""
    return "of any shape" if nn.parameter.is_lazy(value) else f"of shape {list(value.shape)}"


def other_labels(path: str | Path, labels: list[str], wanted: Sequence[str], of: str) -> str:
    """ "" where a checkpoint's labels are those of a data set, in the same order; else the sentence that says how they
    differ. `of` names the data."""
    if list(labels) == list(wanted):
        return ""
    pairs = [pair for pair in zip(labels, wanted, strict=False) if pair[0] != pair[1]]
    differ = f"; the first that differs is {pairs[0][0]} there and {pairs[0][1]} here" if pairs else ""
    return (
        f"{path} was trained on {len(labels)} labels ({', '.join(labels[:3])} ...), {of} has {len(wanted)} "
        f"({', '.join(wanted[:3])} ...){differ}"
    )


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
    if sentence := other_labels(path, labels, task.labels, str(recipe.data.folder)):
        raise ValueError(f"{sentence}; name data with the same labels")
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
