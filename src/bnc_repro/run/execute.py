"""From a recipe to its row: the one place where names become objects.

A run's folder is runs/<profile>/<experiment>/<fingerprint>/. A finished run is returned, an unfinished one goes
on, and a second process on the same run waits.
"""

import datetime
import os
import time
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import torch
from torch import nn

from ..images.pictures import STATISTICS
from ..layers.inspect import watch
from ..recipe.build import as_dict, float_twin, make_recipe, merged, with_float_weights
from ..recipe.clone import from_the_clone
from ..recipe.profiles import arm_fields, seeds_of, without_arm_fields
from ..recipe.schema import Recipe
from ..training import checkpoint, distributed, memory
from ..training.loop import Diverged, train
from ..training.progress import log, show
from ..training.task import Task, on_device
from . import ledger, pinned, released
from .code import git_state, versions
from .device import device_name, peak_memory_mib, pick_device
from .identity import fingerprints, folder_of, run_fingerprint
from .judge import load_network, load_weights, other_labels
from .tasks import task_module


def run(recipe: Recipe, runs: Path | None = None, *, reuse_published: bool = True) -> dict:
    """Train one network, or return the row of the same run if it is finished; see `row` for what a row holds.

    `runs` is the folder of all runs, runs/ in the clone unless given. With BNC_REPRO_REUSE=results in the
    environment a published row of exactly this run is taken too; `only` takes no other. Raises ValueError for a
    recipe, data or a device that cannot work, before training; Diverged when the loss stops being a number (in
    the ablation that is a row with status "diverged").
    """
    folder = folder_of(recipe, runs)
    published = published_row(recipe) if reuse_published else None
    if published is not None:
        return published
    if os.environ.get("BNC_REPRO_REUSE") == "only":
        raise ValueError(
            f"results/ holds no row of today's code for {recipe.experiment} {title(recipe)}, seed {recipe.seed}, and "
            "nothing is trained here (BNC_REPRO_REUSE=only); `make repro` trains it, `make publish` keeps the row"
        )
    if distributed.size() == 1 and (finished := finished_row(folder)) is not None:
        return finished  # of a folder that nobody may write, too
    show()
    device = pick_device(recipe)
    _warn_unless_pinned(recipe.profile, device_name(device))
    distributed.meet(device)
    # The first process holds the folder for all, and what it finds there holds for all.
    with checkpoint.locked(folder) if distributed.rank() == 0 else nullcontext():
        finished = distributed.by_the_first(lambda: finished_row(folder))
        if finished is not None:
            return finished
        if recipe.epochs and recipe.network != "mean_pose":  # a guess without a network
            memory.check_training(recipe, task_module(recipe.experiment).make_network, device)
        teacher, taught, labels = _teacher(recipe, runs, device)
        task = task_module(recipe.experiment).build(recipe, device, teacher)
        if teacher is not None:
            _check_teacher(teacher, taught, labels, recipe, task)
        _check_start(_start_from(task.network, recipe, runs), recipe, task)
        log.info(f"{recipe.experiment} {title(recipe)}, seed {recipe.seed}: {from_the_clone(folder)}")
        started, status, curve = time.monotonic(), "finished", []
        try:
            if task.train_set is None or not recipe.epochs:
                curve = [{"epoch": 0, **task.evaluate(task.network)}]
            else:
                curve = train(task, recipe, folder, device)
        except Diverged as error:
            if recipe.experiment != "linear_vs_soft":
                raise
            log.warning(str(error))
            status = f"diverged: {error}"
        new_row = row(recipe, folder, task, status, curve, device, time.monotonic() - started)
        return distributed.by_the_first(lambda: _written(folder / "row.json", new_row))


@cache
def _warn_unless_pinned(profile: str, device: str) -> None:
    """Say once that a run's digits will not be those of other machines, where its settings are not the profile's."""
    if not pinned.is_pinned(profile, device):
        settings = " ".join(f"{key}={value}" for key, value in pinned.environment(profile).items())
        log.warning(
            f"this process computes with {device}, so digits differ from those of the profile {profile} elsewhere: "
            f"start it under {settings}"
        )


def finished_row(folder: Path) -> dict | None:
    """The row in a run's folder; None if there is none. Raises ValueError for one that is damaged or another run's."""
    path = folder / "row.json"
    if not path.is_file():
        return None
    row = ledger.read_row(path)
    if {row["fingerprint"], run_fingerprint(row["fingerprints"])} != {folder.name}:
        raise ValueError(
            f"{path} is of the run {row['fingerprint']}, copied here or changed; remove it, and run its command again"
        )
    return row


def _written(path: Path, row: dict) -> dict:
    checkpoint.write_json(path, row)
    return row


def row(recipe: Recipe, folder: Path, task, status: str, curve: list, device: torch.device, seconds: float) -> dict:
    """All that is kept of a run. `metrics` are the last epoch's (none if it diverged), `best` the best epoch's."""
    judged = [epoch for epoch in curve if task.headline in epoch]
    last = judged[-1] if judged and status == "finished" else {}
    beside = ("epoch", "loss", "seconds", "cpu_seconds")
    kept = {key: value for key, value in last.items() if key not in beside and not isinstance(value, dict)}
    trained_seconds = curve[-1].get("seconds", seconds) if curve else seconds
    items = sum(epoch["epoch"] > 0 for epoch in curve) * len(task.train_set or ())
    return {
        "experiment": recipe.experiment,
        "profile": recipe.profile,
        "fingerprint": folder.name,
        "title": title(recipe),
        "seed": recipe.seed,
        "status": status.partition(":")[0],
        "message": status,
        "headline": task.headline,
        "metrics": kept,
        "best": max(judged, key=lambda epoch: epoch[task.headline] or 0)[task.headline] if judged else None,
        "parameters": sum(p.numel() for p in task.network.parameters()),
        "seconds": round(trained_seconds, 1),
        "cpu_seconds": round(curve[-1]["cpu_seconds"], 1) if items else None,
        "items_per_second": round(items / trained_seconds, 1) if items else None,
        "peak_memory_mib": peak_memory_mib(device),
        "device": device_name(device),
        "processes": distributed.size(),
        "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "fingerprints": fingerprints(recipe),
        **git_state(),
        "versions": versions(),
        "recipe": as_dict(recipe),
        "curve": curve,
        "binary_layers": watch(task.network, task.sample()) if status == "finished" and task.sample else [],
        "examples": task.examples(task.network) if status == "finished" else [],
    }


def run_arms(experiment: str, profile: str, seeds: list[int], recipe: dict, arms: dict) -> list[dict]:
    """The rows of every arm (name -> recipe keys that differ) under every seed, the arm's own where it names some, each
    with `profiles.arm_fields`."""
    rows = []
    for name, changes in arms.items():
        for seed in seeds_of(changes, seeds):
            values = merged(recipe, without_arm_fields(changes), {"seed": seed})
            recipe_of_arm = make_recipe(experiment=experiment, profile=profile, **values)
            rows.append(run(recipe_of_arm) | arm_fields(name, changes))
    return rows


def title(recipe: Recipe) -> str:
    """A short name of what is trained: network, weights / activations, preset where it matters."""
    names = (recipe.weight_binarizer, recipe.activation_binarizer)
    weights, activations = ((name or "float").rpartition(":")[2] for name in names)
    preset = ", ".join(filter(None, (recipe.preset, recipe.rule)))
    learnt = {"linear", "mlp"} & {weights, activations}
    return f"{recipe.network} {weights}/{activations}" + (f" ({preset})" if learnt else "")


def published_row(recipe: Recipe) -> dict | None:
    """The row of this very run from results/, by today's code or by code that the ledger joins to it, if the
    environment asks for published rows."""
    if os.environ.get("BNC_REPRO_REUSE") not in ("results", "only"):
        return None
    wanted = fingerprints(recipe)
    for row in ledger.rows(recipe.profile, recipe.experiment):
        same = all(row["fingerprints"][part] == wanted[part] for part in ("recipe", "data"))
        if same and ledger.is_current(row):
            return row
    return None


def _teacher(
    recipe: Recipe, runs: Path | None, device: torch.device
) -> tuple[nn.Module | None, Recipe | None, list[str]]:
    """The teacher of a recipe, if it has one, and the recipe and the labels that it was trained by, None and [] of
    torchvision's."""
    if not recipe.teacher:
        return None, None, []
    if recipe.teacher == "twin":
        return load_network(_checkpoint_of(float_twin(recipe), runs), device)
    if recipe.teacher.startswith("torchvision/"):
        import torchvision

        try:
            network = torchvision.models.get_model(recipe.teacher.partition("/")[2], weights="DEFAULT")
        except Exception as error:
            raise ValueError(
                f"the teacher {recipe.teacher} cannot be had ({error}): its weights come from torchvision's server; "
                "on a machine without it put the file into torch's hub folder (TORCH_HOME/hub/checkpoints)"
            ) from error
        return on_device(network, device).eval(), None, []
    named = (recipe.weight_binarizer, recipe.activation_binarizer)  # by the user's own recipe
    return load_network(recipe.teacher, device, named)


def _check_teacher(teacher: nn.Module, taught: Recipe | None, labels: list[str], recipe: Recipe, task: Task) -> None:
    """Raises ValueError for a teacher of other images, labels or heatmaps than the run's, before it teaches them."""
    of, remedy = (
        f"the teacher {recipe.teacher}",
        "name a teacher of the same data, or leave teacher and distillation out",
    )
    if taught is not None:
        kinds = [(made.data.kind == "coco", len(STATISTICS[made.data.kind][0])) for made in (taught, recipe)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"{of} was trained on data of kind {taught.data.kind}, the run's is {recipe.data.kind}; {remedy}"
            )
        for key in ("loss", "sigma_px"):  # which say what its heatmaps look like
            theirs, ours = getattr(taught.pose, key), getattr(recipe.pose, key)
            if theirs != ours:
                raise ValueError(
                    f"{of} was trained with pose.{key} {theirs}, the run has {ours}; take the same in both"
                )
        if sentence := other_labels(of, labels, task.labels, str(recipe.data.folder)):
            raise ValueError(f"{sentence}; {remedy}")
    assert task.sample is not None, "a recipe without a network has no teacher"
    images, why = task.sample(), ""
    try:
        with torch.no_grad():
            shape = teacher(images).shape
    except RuntimeError as error:
        shape, why = (), f" ({str(error).splitlines()[0]})"
    if tuple(shape[:2]) != (len(images), len(task.labels)):
        raise ValueError(
            f"{of} does not give one answer for each of {len(task.labels)} labels from images of "
            f"{list(images.shape[1:])}{why}; {remedy}"
        )


def _checkpoint_of(recipe: Recipe, runs: Path | None) -> Path:
    """The checkpoint that a run ends with; it is trained first, as a published row comes without one."""
    run(recipe, runs, reuse_published=False)
    return folder_of(recipe, runs) / checkpoint.NAMES[0]


def _start_from(network: nn.Module, recipe: Recipe, runs: Path | None) -> dict | None:
    """Load the weights that a recipe starts from; what their checkpoint holds, None where the start is a random one.
    Raises ValueError for the weights of another network."""
    path = recipe.init_from
    if not path:
        return None
    if path == "float_weights":
        path = _checkpoint_of(with_float_weights(recipe), runs)
    state = checkpoint.load(path, released.translated)
    wanted = state["network"]
    if recipe.experiment == "coco_pose" and state.get("recipe", {}).get("experiment") != "coco_pose":
        trunk = {key: value for key, value in wanted.items() if key.startswith("trunk.")}
        if not trunk:
            raise ValueError(f"{path} holds no trunk for a pose network to start from; name one of a residual network")
        wanted = network.state_dict() | trunk  # a backbone trained on images; the head starts new
    load_weights(network, wanted, f"{path} does not fit the network of this recipe")
    return state


def _check_start(state: dict | None, recipe: Recipe, task: Task) -> None:
    """Raises ValueError where a checkpoint of other labels, or without a head, would only be judged; where it is
    trained further, other labels of the same number are worth a warning."""
    labels = state.get("labels") if state else None  # the released code says none
    if labels is None or not (sentence := other_labels(recipe.init_from, labels, task.labels, str(recipe.data.folder))):
        return
    if not recipe.epochs:
        raise ValueError(f"{sentence}; epochs=0 only judges it: name data with the same labels")
    if len(labels) == len(task.labels):
        log.warning(f"{sentence}; its last layer starts with what it knows of those")
