"""The recipe of a run: typed, complete, and refused before anything starts when it makes no sense.

A recipe is read from the section `recipe` of an experiment in a profile's params.yaml, then from an arm of it,
then from `--set key.path=value`; later ones win. Every key that exists is a field below.
"""

import dataclasses
import math
import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from .typed import build, known

EXPERIMENTS = ("imagenet_resnet", "coco_pose", "linear_vs_soft")
PROFILES = ("sample", "small", "gpu", "paper", "presets")  # presets: the ablation on the sample, 20 seeds


@dataclass(frozen=True)
class Data:
    """Where the images are and how they are read; `root` and `workers` are no part of a run's identity."""

    root: str = ""
    kind: str = "fashion_mnist"  # fashion_mnist | cifar10 | imagefolder | coco
    train_limit: int = 0  # the first so many training images (drawn evenly per class), 0: all
    validation: float = 0.0  # share of those that is held out and judged in place of the test images
    image_size: tuple[int, int] = (28, 28)  # height, width in px
    augment: str = "none"  # none | flip | shift | crop (random resized) | pose
    lighting: float = 0.0  # standard deviation of the PCA colour noise
    in_memory: bool = False  # imagefolder: decode every picture once, at `image_size`, and keep it
    max_bad_share: float = 0.0  # of the training pictures, that a run may do without
    workers: int = 0

    @property
    def folder(self) -> Path:
        """`root` with variables such as $BNC_DATA filled in; a relative one starts at the clone."""
        path = Path(os.path.expandvars(self.root)).expanduser()
        return path if path.is_absolute() else project_root() / path


@dataclass(frozen=True)
class Pose:
    """What only keypoint training knows; heatmaps are a quarter of the image in each direction."""

    sigma_px: float = 2.0  # of a target, in heatmap pixels
    unbiased: bool = True  # UDP coordinates; False: the classic form
    loss: str = "squares"  # squares | cross_entropy
    decode: str = "dark"  # dark | quarter | argmax
    flip_test: bool = True
    headline: str = "AP"  # AP | PCK
    detections: str = ""  # a detector's boxes of the validation images: then they are judged beside the true boxes


@dataclass(frozen=True)
class Recipe:
    """One training of one network under one seed."""

    experiment: str = "imagenet_resnet"
    profile: str = "sample"
    network: str = "resnet20"
    width: int = 0  # channels of the first stage, 0: the network's own
    blocks: tuple[int, ...] = ()  # blocks per stage, (): the network's own
    head: int = 0  # channels after each upsampling of a pose network, 0: four times the width
    stem: str = ""  # imagenet | half | full, "": the network's own
    weight_binarizer: str | None = "mlp"
    activation_binarizer: str | None = "approx_sign"
    preset: str = "fixed"
    rule: str = ""  # gated | sum | difference | expected: the learnt binarizer's backward, "": the preset's
    hidden: int = 0  # units of each hidden layer of the learnt "mlp", 0: its own 100
    depth: int = 0  # its hidden layers, 0: its own one
    unit: str = ""  # tanh | atan, "": its own tanh
    per_layer: bool = False  # each layer learns its own binarizer; false: the network shares one
    standardize: bool = False
    epochs: int = 1  # 0: nothing is trained, what init_from names is judged
    batch_size: int = 128  # of all processes and pieces together
    accumulate: int = 1  # pieces that a process works through for one step
    learning_rate: float = 1e-3
    base_batch_size: int = 0  # the batch that learning_rate is meant for, 0: batch_size; see optim.batch_factor
    optimizer: str = "adam"  # adam | adamw | sgd
    weight_decay: float = 0.0
    momentum: float = 0.9  # of sgd
    schedule: str = "linear"  # linear | cosine | steps | constant
    milestones: tuple[int, ...] = ()  # epochs at which "steps" divides the rate by 10
    warmup_epochs: float = 0.0
    released_schedule: bool = False  # first epoch at rate 1 - 1/E, last at 0, as the released code steps
    classifier_learning_rate: float = 1e-3
    classifier_milestones: tuple[int, ...] = ()
    teacher: str = ""  # twin | torchvision/resnet34 | a checkpoint of this project | "": none
    distillation: float = 0.0  # weight of the teacher's loss; the labels keep the rest
    precision: str = "float32"  # float32 | bfloat16 | float16
    compile: bool = False  # torch.compile; where that fails the run says so and goes on without. Nothing for the
    # schedules of fda, recu and reste, which it compiles anew at each step until it gives up
    sync_batch_norm: bool = False  # batch statistics over all processes (CUDA)
    evaluate_every: int = 1  # epochs; the last one is always evaluated
    seed: int = 0
    init_from: str = ""  # a checkpoint (ours or the released code's) | float_weights: this recipe's run with them
    data: Data = field(default_factory=Data)
    pose: Pose = field(default_factory=Pose)


CHOICES = {
    "experiment": EXPERIMENTS,
    "profile": PROFILES,
    "stem": ("", "imagenet", "half", "full"),
    "preset": ("official", "paper", "fixed"),
    "rule": ("", "gated", "sum", "difference", "expected"),
    "unit": ("", "tanh", "atan"),
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("linear", "cosine", "steps", "constant"),
    "precision": ("float32", "bfloat16", "float16"),
    "data.kind": ("fashion_mnist", "cifar10", "imagefolder", "coco"),
    "data.augment": ("none", "flip", "shift", "crop", "pose"),
    "pose.loss": ("squares", "cross_entropy"),
    "pose.decode": ("dark", "quarter", "argmax"),
    "pose.headline": ("AP", "PCK"),
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
AT_LEAST = {
    "width": 0, "head": 0, "hidden": 0, "depth": 0, "epochs": 0, "evaluate_every": 1, "batch_size": 1,
    "accumulate": 1, "base_batch_size": 0, "data.max_bad_share": 0, "data.validation": 0,
    "weight_decay": 0, "momentum": 0, "warmup_epochs": 0, "classifier_learning_rate": 0, "distillation": 0, "seed": 0,
    "data.train_limit": 0, "data.lighting": 0, "data.workers": 0,
}  # fmt: skip
ABOVE_ZERO = ("learning_rate", "pose.sigma_px")


def recipe(experiment: str, profile: str = "sample", arm: str | None = None, **changes: Any) -> Recipe:
    """The recipe of one run of `experiment` under `profile`, changed by the arm's and then by `changes`.

    Raises ValueError naming the key, what is wrong with it and what would be right.
    """
    section = experiment_section(experiment, profile)
    layers = [section["recipe"], changes]
    if arm is not None:
        layers.insert(1, without_arm_fields(section["arms"][known("arm", arm, section["arms"])]))
    return make(experiment=experiment, profile=profile, **merged(*layers))


def experiment_section(experiment: str, profile: str) -> dict:
    """The section {seeds, recipe, arms} of an experiment in a profile's params.yaml."""
    known("experiment", experiment, EXPERIMENTS)
    sections = yaml.safe_load(parameters_file(profile).read_text())
    return sections[known(f"experiment of the profile {profile}", experiment, sections)]


def experiments(profile: str) -> tuple[str, ...]:
    """The experiments that a profile has."""
    sections = yaml.safe_load(parameters_file(profile).read_text())
    return tuple(name for name in EXPERIMENTS if name in sections)


def parameters_file(profile: str) -> Path:
    """params.yaml of the sample, pipelines/<profile>/params.yaml of the others."""
    known("profile", profile, PROFILES)
    name = "params.yaml" if profile == "sample" else f"pipelines/{profile}/params.yaml"
    return project_root() / name


def project_root() -> Path:
    """The clone: the nearest folder upwards that holds params.yaml and pipelines/."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "pipelines").is_dir():
            return folder
    raise ValueError(f"{here} is not inside a clone of bnc_repro (no params.yaml upwards); cd into the clone")


ARM_FIELDS = ("estimator", "placement")


def arm_fields(name: str, changes: dict) -> dict[str, str]:
    """What a row says of its arm beside the recipe: `arm`, its `estimator` (the arm's own name unless params.yaml says
    another) and the operand it stands for, `placement`: weights (unless said otherwise), activations or both."""
    return {"arm": name, "estimator": changes.get("estimator", name), "placement": changes.get("placement", "weights")}


def without_arm_fields(changes: dict) -> dict:
    """The keys of an arm that are the recipe's."""
    return {key: value for key, value in changes.items() if key not in ARM_FIELDS}


def merged(*layers: dict) -> dict:
    """Nested dicts laid over each other; later ones win key by key."""
    result: dict = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def make(**values: Any) -> Recipe:
    """A checked recipe from nested values. Raises ValueError as `recipe` does."""
    made = build(Recipe, values)
    _check(made)
    return made


def parse_settings(settings: list[str]) -> dict:
    """["data.root=x", "epochs=3"] as nested values; the values are read as YAML."""
    result: dict = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting}: write key=value, for instance --set epochs=3")
        nested = yaml.safe_load(value) if value else ""
        for part in reversed(key.split(".")):
            nested = {part: nested}
        result = merged(result, nested)
    return result


def as_dict(made: Recipe) -> dict:
    """The recipe as plain nested values (lists for tuples), as it stands in a row."""
    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return plain(dataclasses.asdict(made))


def identity(made: Recipe) -> dict:
    """What makes two runs the same run: the recipe without the data's place and the number of workers."""
    values = as_dict(made)
    del values["data"]["root"], values["data"]["workers"]
    return values


def float_twin(made: Recipe) -> Recipe:
    """The same recipe with a float network and without a teacher: what "teacher: twin" learns from."""
    return replace(
        made, weight_binarizer=None, activation_binarizer=None, preset="fixed", rule="", hidden=0, depth=0, unit="",
        per_layer=False, standardize=False, teacher="", distillation=0.0, init_from="",
    )  # fmt: skip


def with_float_weights(made: Recipe) -> Recipe:
    """The same recipe with float weights and binary activations: the first of two stages."""
    return replace(made, weight_binarizer=None, standardize=False, init_from="")


def _check(made: Recipe) -> None:
    flat = {**{f.name: getattr(made, f.name) for f in fields(made)}}
    for part in ("data", "pose"):
        flat |= {f"{part}.{f.name}": getattr(flat[part], f.name) for f in fields(flat[part])}
    for key, choices in CHOICES.items():
        if flat[key] not in choices:
            raise ValueError(f"recipe key {key} must be one of {', '.join(map(repr, choices))}, got {flat[key]!r}")
    for key, least in AT_LEAST.items():
        if not least <= flat[key] < math.inf:
            raise ValueError(f"recipe key {key} must be finite and at least {least}, got {flat[key]}")
    for key in ABOVE_ZERO:
        if not 0 < flat[key] < math.inf:
            raise ValueError(f"recipe key {key} must be above 0 and finite, got {flat[key]}")
    if made.distillation > 1:
        raise ValueError(f"recipe key distillation is a share from 0 to 1, got {made.distillation}")
    if bool(made.teacher) != (made.distillation > 0):
        raise ValueError("recipe keys teacher and distillation belong together: give both, or neither ('' and 0)")
    if not made.epochs and (made.init_from in ("", "float_weights") or made.teacher):
        raise ValueError("recipe key epochs is 0, which only judges the file that init_from names: give one, or epochs")
    if made.head and made.experiment != "coco_pose":
        raise ValueError(f"recipe key head belongs to pose networks, {made.experiment} has none; leave it out")
    data = made.data
    of_arrays = data.in_memory or data.kind in ("fashion_mnist", "cifar10")
    can = ("none", "pose") if data.kind == "coco" else ("none", "flip", "shift" if of_arrays else "crop")
    if data.augment not in can:
        raise ValueError(
            f"recipe key data.augment is {data.augment!r}, but kind {data.kind!r}{' in memory' * data.in_memory} takes "
            f"one of {', '.join(map(repr, can))}"
        )
    for key in ("lighting", "in_memory", "max_bad_share", "validation"):
        fits = data.kind == "imagefolder" and not (key == "lighting" and data.in_memory)
        if getattr(data, key) and not (fits or (key == "validation" and of_arrays)):
            raise ValueError(f"recipe key data.{key} means nothing for these images (kind {data.kind!r}); leave it out")
    if made.data.validation > 0.5:
        raise ValueError(f"recipe key data.validation is a share of at most 0.5, got {made.data.validation}")
    if min(made.data.image_size) < 4:
        raise ValueError(f"recipe key data.image_size must be at least 4 px, got {list(made.data.image_size)}")
    if any(count < 1 for count in made.blocks):
        raise ValueError(f"recipe key blocks counts blocks per stage, each at least 1, got {list(made.blocks)}")
