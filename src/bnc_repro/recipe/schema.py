"""The recipe of a run: every key that exists, with its default, its choices and its bounds, and what makes no sense.

Nothing here reads a file; `profiles` reads params.yaml and `build` turns nested values into a recipe.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from .clone import project_root

EXPERIMENTS = ("imagenet_resnet", "coco_pose", "linear_vs_soft")
PROFILES = ("sample", "small", "gpu", "paper", "presets")  # presets: the ablation on the sample, 20 seeds
MOST_CHANNELS, MOST_BLOCKS, MOST_STAGES, MOST_PX = 4096, 200, 8, 4096
MOST_WORKERS, MOST_EPOCHS, MOST_IMAGES, MOST_SEED = 256, 100_000, 1_000_000, 2**32 - 1
MOST_GATES = 100
MOST_RATE = 1e30  # of learning, of decay; float32 holds 1e38, and a batch's factor and Adam multiply it
LEARNT = ("linear", "mlp")
# networks without layers -> keys that mean nothing to them
FLOORS: dict[str, tuple[str, ...]] = {
    "softmax_regression": ("weight_binarizer", "activation_binarizer"),
    "mean_pose": ("weight_binarizer", "activation_binarizer", "teacher", "init_from"),
}
# what data.root must be, and how to get it
EXPECTED = {
    "fashion_mnist": "the folder that holds FashionMNIST/raw/ with its four idx files; `dvc pull data.dvc` brings it",
    "cifar10": "the folder that holds cifar-10-batches-py/ (the python archive of cs.toronto.edu/~kriz/cifar.html), "
    "or train/<class>/ and val/<class>/ with its pictures",
    "imagefolder": "a folder with train/<class>/ and val/<class>/ (ImageNet-1k: image-net.org; the PyTorch examples' "
    "script sorts val/ into classes)",
    "coco": "a folder with annotations/person_keypoints_{train,val}2017.json, train2017/ and val2017/ "
    "(cocodataset.org; the sample's comes with `dvc pull data.dvc`)",
}


def one_of(*choices: str, default: str | None = None) -> Any:
    """A field that takes one of `choices`, the first of them unless another `default` is named."""
    return field(default=choices[0] if default is None else default, metadata={"choices": choices})


def at_least(least: float, default: float, most: float = math.inf) -> Any:
    """A finite number from `least` on, and to `most` where more would be a slip of the keyboard."""
    return field(default=default, metadata={"least": least} | ({"most": most} if most < math.inf else {}))


def above_zero(default: float, most: float, above: float = 0) -> Any:
    """A number above 0, or above another bound, and up to `most`; more would be a slip of the keyboard."""
    return field(default=default, metadata={"above": above, "most": most})


@dataclass(frozen=True)
class Data:
    """Where the images are and how they are read; `root` and `workers` are no part of a run's identity."""

    root: str = ""
    kind: str = one_of(*EXPECTED)
    category: str | int = ""  # of annotations with several that have keypoints, by name or id; "": with most people
    train_limit: int = at_least(0, 0, 2**31)  # the first so many training images (drawn evenly per class), 0: all
    validation: float = at_least(0, 0.0, 0.5)  # share of those that is held out and judged in place of the test images
    image_size: tuple[int, int] = (28, 28)  # height, width in px
    augment: str = one_of("none", "flip", "shift", "crop", "pose")  # crop: random resized
    lighting: float = at_least(0, 0.0, 255)  # standard deviation of the PCA colour noise
    in_memory: bool = False  # imagefolder: decode every picture once, at `image_size`, and keep it
    max_bad_share: float = at_least(0, 0.0, 1)  # of the training pictures, that a run may do without
    workers: int = at_least(0, 0, MOST_WORKERS)

    @property
    def folder(self) -> Path:
        """`root` with variables such as $BNC_DATA filled in; a relative one starts at the clone."""
        path = Path(os.path.expanduser(os.path.expandvars(self.root)))  # which leaves an unknown ~name as it stands
        return path if path.is_absolute() else project_root() / path


@dataclass(frozen=True)
class Pose:
    """What only keypoint training knows; heatmaps are a quarter of the image in each direction."""

    sigma_px: float = above_zero(2.0, MOST_PX, 0.01)  # of a target, in heatmap pixels
    loss: str = one_of("squares", "cross_entropy")
    decode: str = one_of("dark", "dark_edge", "quarter", "argmax", default="dark")
    flip_test: bool = True
    headline: str = one_of("AP", "PCK")
    detections: str = ""  # a detector's boxes of the validation images: then they are judged beside the true boxes


@dataclass(frozen=True)
class Recipe:
    """One training of one network under one seed."""

    experiment: str = one_of(*EXPERIMENTS)
    profile: str = one_of(*PROFILES)
    network: str = "resnet20"
    width: int = at_least(0, 0, MOST_CHANNELS)  # channels of the first stage, 0: the network's own
    blocks: tuple[int, ...] = ()  # blocks per stage, (): the network's own
    head: int = at_least(
        0, 0, MOST_CHANNELS
    )  # channels after each upsampling of a pose network, 0: four times the width
    stem: str = one_of("", "imagenet", "half", "full")  # "": the network's own
    block: str = one_of("bireal", "reactnet")  # reactnet: learnt shifts before the sign and around the PReLU
    weight_binarizer: str | None = "mlp"
    activation_binarizer: str | None = "approx_sign"
    preset: str = one_of("official", "paper", "fixed", default="fixed")
    rule: str = one_of("", "gated", "sum", "expected")  # the learnt binarizer's backward, "": the preset's
    hidden: int = at_least(0, 0, MOST_CHANNELS)  # hidden units of the learnt "mlp", 0: its own 100
    gates: float = at_least(0, 0.0, MOST_GATES)  # where both gates of "linear" start, 0: a random start
    per_layer: bool = False  # each layer learns its own binarizer; false: the network shares one
    standardize: bool = False
    epochs: int = at_least(0, 1, MOST_EPOCHS)  # 0: nothing is trained, what init_from names is judged
    batch_size: int = at_least(1, 128, MOST_IMAGES)  # of all processes and micro-batches together
    accumulate: int = at_least(1, 1, MOST_IMAGES)  # micro-batches that a process works through for one step
    learning_rate: float = above_zero(1e-3, MOST_RATE)
    base_batch_size: int = at_least(
        0, 0, MOST_IMAGES
    )  # that learning_rate is meant for, 0: batch_size; see optim.batch_factor
    optimizer: str = one_of("adam", "adamw", "sgd")
    weight_decay: float = at_least(0, 0.0, MOST_RATE)
    momentum: float = at_least(0, 0.9, 1)  # of sgd
    schedule: str = one_of("linear", "cosine", "steps", "constant")
    milestones: tuple[int, ...] = ()  # epochs at which "steps" divides the rate by 10
    warmup_epochs: float = at_least(0, 0.0)
    released_schedule: bool = False  # first epoch at rate 1 - 1/E, last at 0, as the released code steps
    classifier_learning_rate: float = at_least(0, 1e-3, MOST_RATE)
    classifier_milestones: tuple[int, ...] = ()
    teacher: str = ""  # twin | torchvision/resnet34 | a checkpoint of this project | "": none
    distillation: float = at_least(0, 0.0, 1)  # weight of the teacher's loss; the labels keep the rest
    precision: str = one_of("float32", "bfloat16", "float16")
    compile: bool = False  # torch.compile; where that fails the run says so and goes on without. Nothing for the
    # schedules of fda, recu and reste, which it compiles anew at each step until it gives up
    sync_batch_norm: bool = False  # batch statistics over all processes (CUDA)
    evaluate_every: int = at_least(1, 1, MOST_EPOCHS)  # epochs; the last one is always evaluated
    seed: int = at_least(0, 0, MOST_SEED)
    init_from: str = ""  # a checkpoint (ours or the released code's) | float_weights: this recipe's run with them
    data: Data = field(default_factory=Data)
    pose: Pose = field(default_factory=Pose)


def missing_data(recipe: Recipe) -> str:
    """The sentence for a data folder that is not there: what is expected, in which layout, how to get it."""
    folder = recipe.data.folder if recipe.data.root else "an empty path"
    return (
        f"the {recipe.profile} profile of {recipe.experiment} finds no data in {folder}: it expects "
        f"{EXPECTED[recipe.data.kind]}. Name the folder with --set data.root=FOLDER, or for a whole profile "
        "with DATA=FOLDER on make's line"
    )


def flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any, Mapping]]:
    """Every key of a recipe with its value and its bounds, as in ("data.root", "", {})."""
    for entry in fields(values):
        value = getattr(values, entry.name)
        if is_dataclass(value):
            yield from flat(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, value, entry.metadata


def check(recipe: Recipe) -> None:
    """Raise ValueError, naming the key and what would be right, for a recipe that makes no sense."""
    for key, value, bounds in flat(recipe):
        if "choices" in bounds and value not in bounds["choices"]:
            choices = ", ".join(map(repr, bounds["choices"]))
            raise ValueError(f"recipe key {key} must be one of {choices}, got {value!r}")
        if "least" in bounds and not bounds["least"] <= value < math.inf:
            raise ValueError(f"recipe key {key} must be finite and at least {bounds['least']}, got {value}")
        if "above" in bounds and not bounds["above"] < value < math.inf:
            raise ValueError(f"recipe key {key} must be above {bounds['above']} and finite, got {value}")
        if "most" in bounds and value > bounds["most"]:
            raise ValueError(f"recipe key {key} must be at most {bounds['most']}, got {value}")
    if bool(recipe.teacher) != (recipe.distillation > 0):
        raise ValueError("recipe keys teacher and distillation belong together: give both, or neither ('' and 0)")
    if not recipe.epochs and (recipe.init_from in ("", "float_weights") or recipe.teacher):
        raise ValueError("recipe key epochs is 0, which only judges the file that init_from names: give one, or epochs")
    if recipe.init_from == "float_weights" and recipe.weight_binarizer is None:
        raise ValueError(
            "recipe key init_from is float_weights, but this recipe trains float weights itself: leave init_from out, "
            "or name a weight_binarizer"
        )
    if recipe.head and recipe.experiment != "coco_pose":
        raise ValueError(f"recipe key head belongs to pose networks, {recipe.experiment} has none; leave it out")
    if any(count < 1 for count in recipe.blocks):
        raise ValueError(f"recipe key blocks counts blocks per stage, each at least 1, got {list(recipe.blocks)}")
    if len(recipe.blocks) > MOST_STAGES or sum(recipe.blocks) > MOST_BLOCKS:
        raise ValueError(
            f"recipe key blocks has {len(recipe.blocks)} stages and {sum(recipe.blocks)} blocks: at most {MOST_STAGES} "
            f"and {MOST_BLOCKS}"
        )
    if recipe.blocks and recipe.width * 2 ** (len(recipe.blocks) - 1) > MOST_CHANNELS:
        raise ValueError(
            f"recipe keys width and blocks make {recipe.width * 2 ** (len(recipe.blocks) - 1)} channels in the last "
            f"stage: at most {MOST_CHANNELS}"
        )
    # Before the keys of the learnt binarizer, which these networks have not either.
    for key in FLOORS.get(recipe.network, ()):
        if getattr(recipe, key):
            nothing = "null" if key.endswith("binarizer") else "''"
            raise ValueError(
                f"recipe key {key} is {getattr(recipe, key)!r}, which means nothing to {recipe.network}: say {nothing}"
            )
    _check_classifier(recipe)
    _check_schedule(recipe)
    _check_experiment(recipe)
    _check_data(recipe.data)


def learnt(binarizer: str | None) -> bool:
    """Whether a binarizer's name is a learnt classifier's."""
    return binarizer in LEARNT


def _check_classifier(recipe: Recipe) -> None:
    """Keys of the learnt binarizer, where nothing learns."""
    binarizers = (recipe.weight_binarizer, recipe.activation_binarizer)
    of_the_classifier = ("rule", "per_layer", "preset", "classifier_milestones")
    foreign = [key for key in of_the_classifier if getattr(recipe, key) != getattr(Recipe, key)]
    if any(map(learnt, binarizers)):
        foreign = []
    if foreign:
        raise ValueError(
            f"recipe key {foreign[0]} is of the learnt binarizer, which this recipe does not use; leave it out"
        )
    for key, estimator in (("hidden", "mlp"), ("gates", "linear")):
        if getattr(recipe, key) and estimator not in binarizers:
            raise ValueError(
                f"recipe key {key} is of the learnt binarizer {estimator!r}, which this recipe does not use; leave it "
                "out"
            )
    if recipe.gates and (recipe.preset == "paper" or recipe.rule not in ("", "gated")):
        raise ValueError(
            "recipe key gates starts both outputs of the learnt binarizer alike, which needs the gated rule and a "
            "forward that is sign: leave out gates, or rule and preset"
        )
    if 0 < recipe.gates < 1:
        raise ValueError(f"recipe key gates is 0 (a random start) or a number from 1 on, got {recipe.gates:g}")


def _check_experiment(recipe: Recipe) -> None:
    """Keys of keypoints in image runs, and the other way round."""
    poses = recipe.experiment == "coco_pose"
    if not poses and recipe.pose != Pose():
        key = next(entry.name for entry in fields(Pose) if getattr(recipe.pose, entry.name) != entry.default)
        raise ValueError(f"recipe key pose.{key} is of keypoints, {recipe.experiment} has none; leave it out")
    if poses != (recipe.data.kind == "coco"):
        wanted = "coco" if poses else "a kind of pictures with classes"
        raise ValueError(f"recipe key data.kind is {recipe.data.kind!r}, {recipe.experiment} needs {wanted}")


def _check_schedule(recipe: Recipe) -> None:
    for key in ("milestones", "classifier_milestones"):
        if not all(1 <= epoch <= MOST_EPOCHS for epoch in getattr(recipe, key)):
            raise ValueError(f"recipe key {key} names epochs from 1 to {MOST_EPOCHS}, got {list(getattr(recipe, key))}")
    if bool(recipe.milestones) != (recipe.schedule == "steps"):
        raise ValueError("recipe keys milestones and schedule: steps belong together: give both, or neither")
    for key in ("milestones", "classifier_milestones"):
        epochs = list(getattr(recipe, key))
        if sorted(set(epochs)) != epochs:
            raise ValueError(f"recipe key {key} names each epoch once and in order, got {epochs}")
    # Those of the classifier may lie beyond: a short trial of a long profile keeps them.
    if recipe.epochs and recipe.milestones and recipe.milestones[-1] >= recipe.epochs:
        raise ValueError(
            f"recipe key milestones is {list(recipe.milestones)}, of which a training of {recipe.epochs} epochs does "
            f"not reach {recipe.milestones[-1]}: leave out those from {recipe.epochs} on, or take more epochs"
        )
    if recipe.epochs and recipe.warmup_epochs >= recipe.epochs:
        raise ValueError(f"recipe key warmup_epochs is {recipe.warmup_epochs:g} of {recipe.epochs} epochs: take fewer")
    if recipe.released_schedule and (recipe.schedule != "linear" or recipe.warmup_epochs):
        raise ValueError("recipe key released_schedule is linear and without a warm-up: leave schedule and warmup out")
    if recipe.released_schedule and recipe.epochs == 1:
        raise ValueError("recipe key released_schedule trains the last epoch at rate 0: take 2 epochs at least")


def _check_data(data: Data) -> None:
    in_arrays = data.in_memory or data.kind in ("fashion_mnist", "cifar10")
    augmentations = ("none", "pose") if data.kind == "coco" else ("none", "flip", "shift" if in_arrays else "crop")
    if data.augment not in augmentations:
        where = f"{data.kind!r} in memory" if data.in_memory else repr(data.kind)
        raise ValueError(
            f"recipe key data.augment is {data.augment!r}, but kind {where} takes one of "
            f"{', '.join(map(repr, augmentations))}"
        )
    for key in ("lighting", "in_memory", "max_bad_share", "validation"):
        fits = data.kind == "imagefolder" and not (key == "lighting" and data.in_memory)
        if getattr(data, key) and not (fits or (key == "validation" and in_arrays)):
            raise ValueError(f"recipe key data.{key} means nothing for these images (kind {data.kind!r}); leave it out")
    if data.category != "" and data.kind != "coco":
        raise ValueError(f"recipe key data.category is of annotations, kind {data.kind!r} has none; leave it out")
    least_px = 8 if data.kind == "coco" else 4  # a heatmap is a quarter, and has two cells at least
    if min(data.image_size) < least_px:
        raise ValueError(f"recipe key data.image_size must be at least {least_px} px, got {list(data.image_size)}")
    if max(data.image_size) > MOST_PX:
        raise ValueError(f"recipe key data.image_size must be at most {MOST_PX} px, got {list(data.image_size)}")
