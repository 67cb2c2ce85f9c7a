"""Optimizers and rates. The network and its classifier each have their own; a rate is a function of the step.

Source of the defaults: the released code of 2205.07433 (Adam for both). Every parameter is claimed exactly once:
weight decay falls on weights of convolutions and linear layers, nothing else.
"""

import math

import torch
from torch import nn

from ..binarizers.base import Binarizer
from ..recipe.schema import Recipe

# fused: one kernel for all parameters, and no wait for the device under float16
OPTIMIZERS = {
    "adam": lambda groups, rate, momentum, fused: torch.optim.Adam(groups, lr=rate, fused=fused),
    "adamw": lambda groups, rate, momentum, fused: torch.optim.AdamW(groups, lr=rate, fused=fused),
    "sgd": lambda groups, rate, momentum, fused: torch.optim.SGD(groups, lr=rate, momentum=momentum, fused=fused),
}


def groups(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Parameters by kind: "classifier" (of binarizers), "decayed" (weights), "plain" (the rest)."""
    kinds: dict[str, list[nn.Parameter]] = {"classifier": [], "decayed": [], "plain": []}
    claimed: set[int] = set()
    learnt = [module for module in network.modules() if isinstance(module, Binarizer)]
    for binarizer in learnt:
        kinds["classifier"] += _unclaimed(binarizer.parameters(), claimed)
    for module in network.modules():
        weighted = isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
        for name, parameter in module.named_parameters(recurse=False):
            kinds["decayed" if weighted and name == "weight" else "plain"] += _unclaimed([parameter], claimed)
    return kinds


def _unclaimed(parameters, claimed: set[int]) -> list[nn.Parameter]:
    new = [parameter for parameter in parameters if id(parameter) not in claimed]
    claimed.update(map(id, new))
    return new


def optimizers(
    network: nn.Module,
    *,
    optimizer: str,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    classifier_learning_rate: float,
) -> list[torch.optim.Optimizer]:
    """One optimizer for the network and, if it learns its binarizer, an Adam for the classifier."""
    kinds = groups(network)
    network_groups = [
        {"params": kinds["decayed"], "weight_decay": weight_decay},
        {"params": kinds["plain"], "weight_decay": 0.0},
    ]
    network_groups = [group for group in network_groups if group["params"]]
    fused = next(network.parameters()).device.type == "cuda"
    steppers = [OPTIMIZERS[optimizer](network_groups, learning_rate, momentum, fused)]
    if kinds["classifier"]:
        steppers.append(OPTIMIZERS["adam"](kinds["classifier"], classifier_learning_rate, 0.0, fused))
    return steppers


def batch_factor(optimizer: str, batch_size: int, base_batch_size: int) -> float:
    """What a batch of another size than the learning rate is meant for does to that rate: proportional for SGD (Goyal
    et al., 1706.02677), its square root for Adam (Malladi et al., 2205.10287). 1 for a base of 0."""
    ratio = batch_size / base_batch_size if base_batch_size else 1.0
    return ratio if optimizer == "sgd" else math.sqrt(ratio)


def rate(
    step: int,
    *,
    steps_per_epoch: int,
    epochs: int,
    schedule: str,
    warmup_epochs: float = 0.0,
    milestones: tuple[int, ...] = (),
    released_schedule: bool = False,
) -> float:
    """The factor 0..1 of the base learning rate at `step`, counted from 0.

    linear: 1 - s/S, cosine: (1 + cos(pi s/S))/2, steps: a tenth at each of `milestones`, constant: 1; after
    `warmup_epochs` of a linear rise. `released_schedule` holds the linear rate over an epoch and steps before
    it, as the released code does: 1 - (e+1)/E in epoch e, so the last epoch trains at 0.
    """
    total = steps_per_epoch * epochs
    epoch = step // steps_per_epoch
    if released_schedule:
        return 1 - (epoch + 1) / epochs
    warm = warmup_epochs * steps_per_epoch
    if step < warm:
        return (step + 1) / warm
    if schedule == "steps":
        return 0.1 ** sum(epoch >= milestone for milestone in milestones)
    share = (step - warm) / max(1, total - warm)
    return {"linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2, "constant": 1.0}[schedule]


def set_rates(steppers: list, recipe: Recipe, step: int, steps_per_epoch: int) -> None:
    """The network's rate by the recipe's schedule, the classifier's by its own milestones."""
    factor = rate(
        step,
        steps_per_epoch=steps_per_epoch,
        epochs=recipe.epochs,
        schedule=recipe.schedule,
        warmup_epochs=recipe.warmup_epochs,
        milestones=recipe.milestones,
        released_schedule=recipe.released_schedule,
    )
    classifier_factor = rate(
        step,
        steps_per_epoch=steps_per_epoch,
        epochs=recipe.epochs,
        schedule="steps",
        milestones=recipe.classifier_milestones,
    )
    factor *= batch_factor(recipe.optimizer, recipe.batch_size, recipe.base_batch_size)
    rates = [recipe.learning_rate * factor, recipe.classifier_learning_rate * classifier_factor]
    for stepper, value in zip(steppers, rates, strict=False):
        for group in stepper.param_groups:
            group["lr"] = value
