"""The task of image classification: its sets, its network, its loss (with a teacher) and its accuracy.

Loss: (1 - distillation) cross-entropy to the labels + distillation soft cross-entropy to the teacher, 0.1 and 0.9
in the released code of 2205.07433.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..recipe.schema import Recipe
from ..training import distributed
from ..training.loader import loader
from ..training.memory import evaluation_batch
from ..training.progress import log
from ..training.task import Task, build_network, on_device
from .networks import CLASSIFIERS
from .pictures import STATISTICS, normalise
from .sets import ImageArrays, ImageFolders, load, picture

EVALUATION_BATCH = 500


def build(recipe: Recipe, device: torch.device, teacher: nn.Module | None = None) -> Task:
    """The task of a recipe. Raises ValueError for missing data or unknown names, before anything is trained."""
    train_set, test_set = load(recipe.data, train=True), load(recipe.data, train=False)
    if list(train_set.classes) != list(test_set.classes):
        odd = sorted(set(train_set.classes) ^ set(test_set.classes))
        raise ValueError(
            f"{recipe.data.folder} has {train_set.num_classes} training and {test_set.num_classes} test classes, which "
            f"differ in {', '.join(odd[:3])}; `python -m bnc_repro data check {recipe.data.folder}` names them all"
        )
    if train_set.num_classes < 2:
        raise ValueError(f"{recipe.data.folder} has one class alone, which every network knows: add another one")
    empty = train_set.num_classes - len(train_set.labels.unique())
    if empty:
        log.warning(
            f"{empty} of {train_set.num_classes} classes have no training picture and cannot be learnt (recipe key "
            f"data.train_limit is {recipe.data.train_limit})"
        )
    for images_set in (train_set, test_set):
        images_set.to(device)
    network = on_device(make_network(recipe, train_set.num_classes), device)

    def loss(network: nn.Module, batch: dict) -> Tensor:
        x = normalise(batch["image"], recipe.data.kind, batch.get("light"))
        logits = network(x)
        labelled = F.cross_entropy(logits, batch["label"])
        if teacher is None:
            return labelled
        with torch.no_grad():
            wanted = teacher(x)
        return (1 - recipe.distillation) * labelled + recipe.distillation * soft_cross_entropy(logits, wanted)

    def evaluate(network: nn.Module) -> dict:
        return accuracy(network, test_set, recipe, device)

    def sample() -> Tensor:
        few = test_set.__getitems__(list(range(min(8, len(test_set)))))
        return normalise(few["image"].to(device), recipe.data.kind)

    guess = 100 / train_set.num_classes
    return Task(network, train_set, loss, evaluate, "top1", train_set.classes, sample, chance=guess)


def make_network(recipe: Recipe, num_classes: int) -> nn.Module:
    """The recipe's classifier, untrained."""
    channels = len(STATISTICS[recipe.data.kind][0])
    return build_network(CLASSIFIERS, recipe, channels, num_classes=num_classes)


@torch.no_grad()
def accuracy(
    network: nn.Module, test_set: ImageArrays | ImageFolders, recipe: Recipe, device: torch.device
) -> dict[str, float]:
    """{"top1": %, "top5": %, "test_loss"} over every image of `test_set`, each counted by one process."""
    network.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    share = distributed.share(len(test_set))
    at_once = evaluation_batch(EVALUATION_BATCH, recipe.data.image_size)
    for batch in loader(test_set, share, at_once, recipe.data.workers, device):
        logits, labels = network(normalise(batch["image"], recipe.data.kind)), batch["label"]
        sums += torch.stack(
            [
                correct_at(logits, labels),
                correct_at(logits, labels, min(5, logits.shape[1])),
                F.cross_entropy(logits, labels, reduction="sum").double(),
                torch.tensor(len(labels), device=device),
            ]
        )
    top1, top5, loss, count = distributed.sum_(sums).tolist()
    if count != len(test_set):
        raise RuntimeError(f"{count:.0f} of {len(test_set)} test images were counted")
    return {"top1": 100 * top1 / count, "top5": 100 * top5 / count, "test_loss": loss / count}


@torch.no_grad()
def predict_pictures(
    network: nn.Module, recipe: Recipe, labels: list[str], files: list[Path], device: torch.device
) -> Iterator[dict]:
    """{"classes": probability by label, the five best first} of each picture file, seen as evaluation sees them."""
    network.eval()
    for file in files:
        image = picture(file, recipe.data).to(device)[None]
        chances = network(normalise(image, recipe.data.kind)).softmax(dim=1)[0].tolist()
        ranked = sorted(zip(chances, labels, strict=True), reverse=True)[:5]
        yield {"classes": {label: round(chance, 4) for chance, label in ranked}}


def correct_at(logits: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """How many of the N samples have their label among the k largest logits, (). logits (N, C), labels (N,).

    Divide the sum over the data set by its size for the accuracy. Raises ValueError when k is not in 1..C.
    """
    if not 1 <= k <= logits.shape[1]:
        raise ValueError(f"top-{k} of {logits.shape[1]} classes: choose k between 1 and {logits.shape[1]}")
    best = logits.topk(k, dim=1).indices
    return (best == labels[:, None]).sum()


def soft_cross_entropy(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean over N of -sum_c softmax(teacher)_c log softmax(logits)_c; both (N, C), temperature 1.

    Source: distillation as in the released code of 2205.07433 (and ReActNet, 2003.03488).
    """
    return F.cross_entropy(logits, teacher_logits.softmax(dim=1))
