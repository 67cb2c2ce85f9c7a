"""What a run is about: a network, what it is trained on, how it is judged; `images.task` and `poses.task` make it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from ..binarizers.registry import LEARNT, get
from ..layers.sharing import own_binarizers
from ..names import known
from ..recipe.schema import Recipe
from .streams import stream


class TrainSet(Protocol):
    """What a run is trained on."""

    def __len__(self) -> int: ...

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Fix the random draws of this epoch."""

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]: ...


@dataclass
class Task:
    """All that the loop and the row know of an experiment. `train_set` None: there is nothing to train."""

    network: nn.Module
    train_set: TrainSet | None
    loss: Callable[[nn.Module, dict], Tensor] | None
    evaluate: Callable[[nn.Module], dict]  # metrics by name, `headline` among them
    headline: str
    labels: Sequence[str]  # names of the classes, or of the keypoints
    sample: Callable[[], Tensor] | None = None  # a few inputs, as the network sees them
    examples: Callable[[nn.Module], list] = lambda network: []  # a few predictions for the row's pictures
    chance: float = 0.0  # the headline of a guess
    facts: dict = field(default_factory=dict)  # what a checkpoint must know beside labels, plain values


def classifier_options(recipe: Recipe, name: str | None) -> dict:
    """What the recipe says of the learnt binarizer `name` beyond its preset: `hidden` of the mlp, `gates` of linear."""
    shape: dict = {"hidden": recipe.hidden} if name == "mlp" else {"gates": recipe.gates}
    options = {"rule": recipe.rule, **shape} if name in LEARNT else {}
    return {key: value for key, value in options.items() if value}


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """`network`, moved, its convolutions' weights laid out as channels_last."""
    return network.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def build_network(networks: dict, recipe: Recipe, channels: int, **outputs: int) -> nn.Module:
    """The recipe's network out of `networks`: its weights and its classifier come each from a stream of their own.

    One empty image goes through it, so a size that does not fit is told before training. Raises ValueError for an
    unknown network or binarizer, the nearest known name first.
    """
    known("network", recipe.network, networks)
    torch.manual_seed(stream(recipe.seed, "classifier"))
    binarizers = {
        key: get(name, preset=recipe.preset, **classifier_options(recipe, name))
        for key, name in (
            ("weight_binarizer", recipe.weight_binarizer),
            ("activation_binarizer", recipe.activation_binarizer),
        )
    }
    shape = {key: getattr(recipe, key) for key in ("width", "blocks", "stem", "head", "block")}
    torch.manual_seed(stream(recipe.seed, "network"))
    network = networks[recipe.network](
        channels=channels,
        standardize=recipe.standardize,
        **outputs,
        **binarizers,
        **{key: value for key, value in shape.items() if value != getattr(Recipe, key)},
    )
    if recipe.per_layer:
        own_binarizers(network)
    with torch.no_grad():
        network.eval()(torch.zeros(1, channels, *recipe.data.image_size))
    return network
