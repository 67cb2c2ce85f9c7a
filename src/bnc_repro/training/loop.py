"""The one training loop: forward, loss, backward, step; evaluate after every epoch; go on where it stopped.

Every random draw of epoch e comes from (seed, e), so a run that is killed and resumed is the run that was not.
"""

import copy
import time
from collections.abc import Callable, Mapping
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..binarizers.base import set_progress
from ..layers.inspect import estimator_state, first_nonfinite, weight_health, weight_signs
from ..recipe.build import as_dict
from ..recipe.schema import Recipe
from . import checkpoint, distributed
from .loader import loader
from .optim import optimizers, set_rates
from .progress import log, progress_bar
from .streams import stream
from .task import Task

CHECK_EVERY = 50  # steps between looks at the loss: each look waits for the device
SAVE_SECONDS = 60
CHANCE_EPOCH = 5  # when a run that has learnt nothing says so, and at its end


class Diverged(ValueError):
    """The loss is no number any more; epoch and step are counted from 1."""


def train(task: Task, recipe: Recipe, folder: Path, device: torch.device) -> list[dict]:
    """Train `task` under `recipe`, keeping checkpoints in `folder`; the curve, one dict per epoch.

    `batch_size` is that of all processes and of all `accumulate` pieces together. Raises ValueError for a batch that
    is larger than the data or cannot be shared evenly, and Diverged when the loss becomes NaN or infinite.
    """
    network, train_set, loss_of = task.network, task.train_set, task.loss
    assert train_set is not None, "there is nothing to train"
    assert loss_of is not None, "there is nothing to train by"
    steps_per_epoch = steps(len(train_set), recipe)
    steppers = optimizers(
        network,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        classifier_learning_rate=recipe.classifier_learning_rate,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
    curve: list[dict] = []
    epoch, steps_taken, losses = 0, 0, torch.zeros(steps_per_epoch, device=device)
    seconds, cpu_seconds = (0.0, 0.0)  # of training; the second is the process's own, whoever is beside it
    signs = weight_signs(network)

    # Go on where the last process stopped.
    state = checkpoint.latest(folder)
    if state is not None:
        with checkpoint.fitting(folder):
            network.load_state_dict(state["network"])
            for stepper, saved in zip(steppers, state["optimizers"], strict=True):
                stepper.load_state_dict(saved)
            scaler.load_state_dict(state["scaler"])
            curve, epoch, steps_taken = list(state["curve"]), state["epoch"], state["done"]
            fits = len(curve) == epoch <= recipe.epochs and 0 <= steps_taken < steps_per_epoch
            if not fits or state["losses"].shape != losses.shape:
                raise ValueError(f"it is at step {steps_taken} of epoch {epoch}, with {len(curve)} epochs of a curve")
            seconds, cpu_seconds = float(state["seconds"]), float(state["cpu_seconds"])
            losses.copy_(state["losses"])
            signs = [sign.to(device) for sign in state["signs"]]
            torch.Generator().set_state(state["random"])
    if len(set(distributed.gathered([(folder.name, epoch, steps_taken)]))) > 1:
        raise ValueError(f"the processes see different checkpoints in {folder}: do all machines see the same folder?")
    if recipe.sync_batch_norm:
        distributed.sync_batch_norm(network, device)
    model = network
    mixed = partial(torch.autocast, device.type, getattr(torch, recipe.precision), recipe.precision != "float32")
    if recipe.compile:
        piece = list(range(recipe.batch_size // (distributed.size() * recipe.accumulate)))
        model = compiled(network, loss_of, next(loader(train_set, piece, len(piece), 0, device)), mixed)
    model = distributed.parallel(model, device)

    def save() -> None:
        if distributed.rank() == 0:
            checkpoint.save(
                folder,
                {
                    "fingerprint": folder.name,
                    "recipe": as_dict(recipe),
                    "labels": list(task.labels),
                    **task.facts,
                    "network": network.state_dict(),
                    "optimizers": [stepper.state_dict() for stepper in steppers],
                    "scaler": scaler.state_dict(),
                    "curve": curve,
                    "epoch": epoch,
                    "done": steps_taken,
                    "losses": losses.cpu(),
                    "seconds": seconds,
                    "cpu_seconds": cpu_seconds,
                    "signs": signs,
                    "random": torch.get_rng_state(),
                },
            )

    while epoch < recipe.epochs:
        started, cpu_started = time.monotonic() - seconds, time.process_time() - cpu_seconds
        saved, looked_at = time.monotonic(), steps_taken
        network.train()

        # The order and the augmentation of this epoch, from its own streams.
        torch.manual_seed(stream(recipe.seed, f"epoch {epoch}"))
        train_set.set_epoch(stream(recipe.seed, "augmentation"), epoch)
        draw = torch.Generator().manual_seed(stream(recipe.seed, f"order {epoch}"))
        order = torch.randperm(len(train_set), generator=draw)[: steps_per_epoch * recipe.batch_size]
        if steps_taken and state is not None:
            torch.set_rng_state(state["random"])

        # This process's share of each batch, in pieces.
        share = order.view(steps_per_epoch, recipe.accumulate, distributed.size(), -1)[
            steps_taken:, :, distributed.rank()
        ]
        batches = loader(train_set, share.flatten().tolist(), share.shape[-1], recipe.data.workers, device)
        for _ in progress_bar(range(steps_taken, steps_per_epoch), f"epoch {epoch + 1}/{recipe.epochs}"):
            # Rates and schedules are functions of the step.
            step = epoch * steps_per_epoch + steps_taken
            set_rates(steppers, recipe, step, steps_per_epoch)
            set_progress(network, step / (recipe.epochs * steps_per_epoch))

            losses[steps_taken] = 0
            for piece in range(1, recipe.accumulate + 1):
                batch = next(batches)
                with distributed.summed_later(model, later=piece < recipe.accumulate), mixed():
                    loss = loss_of(model, batch) / recipe.accumulate
                losses[steps_taken] += loss.detach()
                scaler.scale(loss).backward()
            steps_taken += 1

            # A look at the losses while the weights that broke one are still there; elsewhere than here it is a wait.
            if device.type == "cpu" or steps_taken % CHECK_EVERY == 0 or steps_taken == steps_per_epoch:
                distributed.sum_(losses[looked_at:steps_taken]).div_(distributed.size())
                stop_if_diverged(losses[:steps_taken], looked_at, epoch, network, partial(loss_of, network, batch))
                looked_at = steps_taken
            for stepper in steppers:
                scaler.step(stepper)
                stepper.zero_grad()
            scaler.update()

            # A checkpoint within a long epoch.
            if time.monotonic() - saved > SAVE_SECONDS and steps_taken < steps_per_epoch and looked_at == steps_taken:
                seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
                save()
                saved = time.monotonic()

        seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
        epoch, steps_taken = epoch + 1, 0
        times = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds, 2)}
        curve.append({"epoch": epoch, "loss": losses.mean().item(), **times})
        distributed.agree(network)
        stop_if_not_finite(dict(network.named_parameters()), epoch)  # by the last update, which no loss has seen
        if epoch % recipe.evaluate_every == 0 or epoch == recipe.epochs:
            before, signs = signs, weight_signs(network)
            measures = task.evaluate(network)
            stop_if_not_finite(measures, epoch)
            curve[-1] |= {**measures, **estimator_state(network), **weight_health(network, before)}
        reached = curve[-1].get(task.headline)
        if task.chance and reached is not None and epoch in (CHANCE_EPOCH, recipe.epochs):
            if reached < task.chance + 0.05 * (100 - task.chance):
                log.warning(f"after {epoch} epochs {task.headline} is {reached:.4g}, hardly above chance")
        result = "" if reached is None else f", {task.headline} {reached:.4g}"
        log.info(f"epoch {epoch}/{recipe.epochs}: loss {curve[-1]['loss']:.4g}{result}, {seconds:.0f} s")
        save()
    set_progress(network, 1.0)
    return curve


def steps(items: int, recipe: Recipe) -> int:
    """Steps per epoch of a set of `items`. Raises ValueError where a batch cannot be had or shared."""
    check_shares(recipe, distributed.size())
    if recipe.batch_size > items:
        raise ValueError(
            f"recipe key batch_size is {recipe.batch_size}, but there are {items} training items; "
            "take a smaller batch or more data"
        )
    per_epoch = items // recipe.batch_size
    if recipe.epochs * per_epoch < 2:
        raise ValueError(
            f"recipe keys epochs and batch_size make {recipe.epochs * per_epoch} step of training in all, with {items} "
            "training items; take a smaller batch or more epochs"
        )
    return per_epoch


def check_shares(recipe: Recipe, processes: int) -> None:
    """Raise ValueError if a batch cannot be shared evenly."""
    if recipe.batch_size % (processes * recipe.accumulate):
        raise ValueError(
            f"recipe key batch_size is {recipe.batch_size} in all, which {processes} processes times "
            f"{recipe.accumulate} pieces (accumulate) cannot share evenly; take a multiple of their product"
        )


def compiled(network: nn.Module, loss_of: Callable, batch: dict, mixed: Callable) -> nn.Module:
    """The network through torch.compile; where a step on `batch` fails with it, the network itself, which it says."""
    before = copy.deepcopy(network.state_dict())
    network.train()
    try:
        fast: Any = torch.compile(network)
        with mixed():
            loss = loss_of(fast, batch)
        loss.backward()
    except Exception as error:  # of a compiler, anything
        why = (str(error).splitlines() or ["no message"])[0]
        log.warning(f"torch.compile failed, going on without it: {type(error).__name__}: {why}")
        fast = network
    network.load_state_dict(before)
    network.zero_grad()
    return fast


def stop_if_not_finite(values: Mapping[str, object], epoch: int) -> None:
    """Raise Diverged naming the first tensor or measure that is not finite."""
    for name, value in values.items():
        if not isinstance(value, (Tensor, float)):
            continue
        finite = (
            value.isfinite().all() if isinstance(value, Tensor) else not isinstance(value, float) or isfinite(value)
        )
        if not finite:
            raise Diverged(f"{name} is not finite after epoch {epoch}; a smaller learning_rate is the usual remedy")


def stop_if_diverged(losses: Tensor, first: int, epoch: int, network: nn.Module, again: Callable[[], Tensor]) -> None:
    """Raise Diverged naming the epoch and the step, from `first` on, whose loss is no finite number, and the layer it
    began in: `again` is the forward pass that is looked at."""
    bad = torch.nonzero(~torch.isfinite(losses[first:])).flatten().tolist()
    if bad:
        layer = first_nonfinite(network, again)
        raise Diverged(
            f"the loss is {losses[first + bad[0]].item()} in epoch {epoch + 1}, step {first + bad[0] + 1}"
            + (f", first seen in {layer}" if layer else "")
            + "; a smaller learning_rate is the usual remedy"
        )
