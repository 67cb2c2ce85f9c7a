"""The one training loop: forward, loss, backward, step; evaluate after every epoch; go on where it stopped.

Every random draw of epoch e comes from (seed, e), so a run that is killed and resumed is the run that was not.
"""

import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from . import checkpoint
from .config import Recipe, as_dict
from .layers import BinaryConv2d, BinaryLinear
from .optim import optimizers, rate
from .provenance import stream
from .straight_through import Binarizer, set_progress
from .task import Task

CHECK_EVERY = 50  # steps between looks at the loss: each look waits for the device
SAVE_SECONDS = 60


class Diverged(ValueError):
    """The loss is no number any more; epoch and step are counted from 1."""


def train(task: Task, recipe: Recipe, folder: Path, device: torch.device) -> list[dict]:
    """Train `task` under `recipe`, keeping checkpoints in `folder`; the curve, one dict per epoch.

    Raises ValueError for a batch larger than the data, and Diverged when the loss becomes NaN or infinite.
    """
    if recipe.batch_size > len(task.train_set):
        raise ValueError(
            f"recipe key batch_size is {recipe.batch_size}, but there are {len(task.train_set)} training items; "
            "take a smaller batch or more data"
        )
    network, steps_per_epoch = task.network, len(task.train_set) // recipe.batch_size
    steppers = optimizers(
        network, optimizer=recipe.optimizer, learning_rate=recipe.learning_rate, momentum=recipe.momentum,
        weight_decay=recipe.weight_decay, classifier_learning_rate=recipe.classifier_learning_rate,
    )  # fmt: skip
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
    curve: list[dict] = []
    epoch, done, losses, seconds = 0, 0, torch.zeros(steps_per_epoch, device=device), 0.0

    # Go on where the last process stopped.
    state = checkpoint.latest(folder)
    if state is not None:
        network.load_state_dict(state["network"])
        for stepper, saved in zip(steppers, state["optimizers"], strict=True):
            stepper.load_state_dict(saved)
        scaler.load_state_dict(state["scaler"])
        curve, epoch, done, seconds = state["curve"], state["epoch"], state["done"], state["seconds"]
        losses.copy_(state["losses"])

    def save() -> None:
        checkpoint.save(folder, {
            "fingerprint": folder.name, "recipe": as_dict(recipe), "labels": list(task.labels),
            "network": network.state_dict(), "optimizers": [stepper.state_dict() for stepper in steppers],
            "scaler": scaler.state_dict(), "curve": curve, "epoch": epoch, "done": done,
            "losses": losses.cpu(), "seconds": seconds,
        })  # fmt: skip

    while epoch < recipe.epochs:
        started, saved, looked_at = time.monotonic() - seconds, time.monotonic(), done
        network.train()

        # The order and the augmentation of this epoch, from its own streams.
        torch.manual_seed(stream(recipe.seed, f"epoch {epoch}"))
        task.train_set.set_epoch(stream(recipe.seed, "augmentation"), epoch)
        draw = torch.Generator().manual_seed(stream(recipe.seed, f"order {epoch}"))
        order = torch.randperm(len(task.train_set), generator=draw)[: steps_per_epoch * recipe.batch_size]

        batches = loader(
            task.train_set, order[done * recipe.batch_size :].tolist(), recipe.batch_size, recipe.data.workers, device
        )
        for batch in progress_bar(batches, f"epoch {epoch + 1}/{recipe.epochs}", steps_per_epoch, done):
            # Rates and schedules are functions of the step.
            step = epoch * steps_per_epoch + done
            set_rates(steppers, recipe, step, steps_per_epoch)
            set_progress(network, step / (recipe.epochs * steps_per_epoch))

            with torch.autocast(device.type, getattr(torch, recipe.precision), recipe.precision != "float32"):
                loss = task.loss(network, batch)
            losses[done] = loss.detach()
            done += 1
            # A look at the losses while the weights that broke one are still there; elsewhere than here it is a wait.
            if device.type == "cpu" or done % CHECK_EVERY == 0 or done == steps_per_epoch:
                stop_if_diverged(losses[:done], looked_at, epoch, network, partial(task.loss, network, batch))
                looked_at = done
            scaler.scale(loss).backward()
            for stepper in steppers:
                scaler.step(stepper)
                stepper.zero_grad()
            scaler.update()

            # A checkpoint within a long epoch.
            if time.monotonic() - saved > SAVE_SECONDS and done < steps_per_epoch:
                seconds = time.monotonic() - started
                save()
                saved = time.monotonic()

        seconds = time.monotonic() - started
        epoch, done = epoch + 1, 0
        curve.append({"epoch": epoch, "loss": losses.mean().item(), "seconds": round(seconds, 2)})
        if epoch % recipe.evaluate_every == 0 or epoch == recipe.epochs:
            curve[-1] |= {**task.evaluate(network), **estimator_state(network)}
        result = f", {task.headline} {curve[-1][task.headline]:.4g}" if task.headline in curve[-1] else ""
        say(f"epoch {epoch}/{recipe.epochs}: loss {curve[-1]['loss']:.4g}{result}, {seconds:.0f} s")
        save()
    set_progress(network, 1.0)
    return curve


def loader(dataset, order: list[int], batch_size: int, workers: int, device: torch.device) -> Iterable[dict]:
    """Batches of `dataset` in `order`, on the device."""
    made = DataLoader(
        dataset, batch_size, sampler=order, num_workers=workers, collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
    )  # fmt: skip
    for batch in made:
        yield {key: value.to(device, non_blocking=True) for key, value in batch.items()}


def _as_it_is(batch: dict) -> dict:
    return batch


def set_rates(steppers: list, recipe: Recipe, step: int, steps_per_epoch: int) -> None:
    """The network's rate by the recipe's schedule, the classifier's by its own milestones."""
    factor = rate(
        step, steps_per_epoch=steps_per_epoch, epochs=recipe.epochs, schedule=recipe.schedule,
        warmup_epochs=recipe.warmup_epochs, milestones=recipe.milestones, released_schedule=recipe.released_schedule,
    )  # fmt: skip
    classifier_factor = rate(
        step, steps_per_epoch=steps_per_epoch, epochs=recipe.epochs, schedule="steps",
        milestones=recipe.classifier_milestones,
    )  # fmt: skip
    rates = [recipe.learning_rate * factor, recipe.classifier_learning_rate * classifier_factor]
    for stepper, value in zip(steppers, rates, strict=False):
        for group in stepper.param_groups:
            group["lr"] = value


def stop_if_diverged(
    losses: Tensor, first: int, epoch: int, network: nn.Module, again: Callable[[], Tensor]
) -> None:
    """Raise Diverged naming the epoch and the step, from `first` on, whose loss is no finite number, and the layer it
    began in: `again` is the forward pass that is looked at."""
    bad = torch.nonzero(~torch.isfinite(losses[first:])).flatten().tolist()
    if bad:
        place = first_nonfinite(network, again)
        raise Diverged(
            f"the loss is {losses[first + bad[0]].item()} in epoch {epoch + 1}, step {first + bad[0] + 1}"
            + (f", first seen in {place}" if place else "") + "; a smaller learning_rate is the usual remedy"
        )


@torch.no_grad()
def first_nonfinite(network: nn.Module, forward: Callable[[], Tensor]) -> str | None:
    """The first layer, in the order of `forward`, whose parameters or output are not finite; None: all are."""
    found, handles = [], []

    def look(name: str, layer: nn.Module, output: Tensor) -> None:
        broken = [key for key, value in layer.named_parameters(recurse=False) if not value.isfinite().all()]
        if broken:
            found.append(f"{name}.{broken[0]}".lstrip("."))
        elif isinstance(output, Tensor) and not output.isfinite().all():
            found.append(f"the output of {name}")

    for name, module in network.named_modules():
        if all(isinstance(child, Binarizer) for child in module.children()):
            handles.append(module.register_forward_hook(lambda m, _, output, name=name: look(name, m, output)))
    forward()
    for handle in handles:
        handle.remove()
    return found[0] if found else None


@torch.no_grad()
def estimator_state(network: nn.Module) -> dict:
    """What the learnt binarizers (the first, if each layer has its own) have become: slope at 0 and F' over -3..3 (F is
    its integral from 0, as F(0) = 0), those of activations by names of their own; for weights also the share that is
    let learn and their histogram."""
    layers = [m for m in network.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    learnt = [m for m in layers if _learns(m.weight_binarizer)]
    state = {}
    for prefix, binarizers in (
        ("", [m.weight_binarizer for m in learnt]),
        ("activation_", [m.activation_binarizer for m in layers if _learns(m.activation_binarizer)]),
    ):
        if binarizers:
            grid = torch.linspace(-3, 3, 121, device=next(network.parameters()).device)
            state[f"{prefix}slope_at_0"] = binarizers[0].derivative(grid.new_zeros(1)).item()
            state[f"{prefix}estimator"] = {"range": [-3.0, 3.0], "derivative": _rounded(binarizers[0].derivative(grid))}
    if learnt:
        latents = [layer.latent_weight().flatten() for layer in learnt]
        opened = [m.weight_binarizer.derivative(x).count_nonzero().item() for m, x in zip(learnt, latents, strict=True)]
        weights = torch.cat(latents)
        state["open_share"] = sum(opened) / len(weights)
        state["estimator"]["weights"] = _rounded(torch.histc(weights, 48, -3, 3) / len(weights))
    return state


def _learns(binarizer: Binarizer | None) -> bool:
    return binarizer is not None and any(True for _ in binarizer.parameters())


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def progress_bar(batches: Iterable, name: str, total: int, done: int) -> Iterable:
    """A bar on a terminal, nothing elsewhere: the line per epoch is enough there."""
    return tqdm(batches, name, total, initial=done, leave=False, disable=not sys.stderr.isatty())


def say(line: str) -> None:
    """One line of progress, at once."""
    print(line, flush=True)
