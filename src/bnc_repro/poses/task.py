"""The task of pose estimation: crops of people, heatmaps, and COCO's average precision, with true boxes and with a
detector's where a file of them is given (its metrics end in _detected, the two are never mixed).

Where HRNet's code differs: a half body is centred on its joints' box, not their mean, and joints outside the crop get
no target, where a Gaussian's tail might still reach in.

Loss: half the mean squared error of the heatmaps; with a teacher, the share `distillation` of it is taken
against the teacher's heatmaps. Prediction: flip test, sub-pixel decoding, OKS rescoring and OKS-NMS.
Legend: N people, K keypoints, h and w of heatmaps (a quarter of the crop).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..images.pictures import normalise, read
from ..recipe.schema import Recipe
from ..training import distributed
from ..training.progress import log
from ..training.task import Task, build_network, on_device
from . import coco_eval
from .annotations import load_annotations
from .categories import category_of, differing, of_category, other_categories
from .crops import CropBatches
from .heatmaps import encode, heatmap_cross_entropy, heatmap_loss
from .measures import torsos_px
from .networks import POSENETS
from .people import People, mean_pose, predict_mean_pose
from .predict import VALIDATION, average_precision, crop_box_px, judge, predict, some_people, to_maps
from .skeleton import COCO_PERSON, Skeleton

TRAIN = "train2017"
CACHE_MIB = 2048  # of decoded pictures, in all loading processes together
LOSSES = {"squares": heatmap_loss, "cross_entropy": heatmap_cross_entropy}


def build(recipe: Recipe, device: torch.device, teacher: nn.Module | None = None) -> Task:
    """The task of a recipe. Raises ValueError for missing or faulty data, before anything is trained."""
    cache_mib = CACHE_MIB // max(1, recipe.data.workers)  # each worker has its own
    options = {"size": recipe.data.image_size, "cache_mib": cache_mib}
    root = recipe.data.folder
    people = CropBatches(
        root,
        TRAIN,
        augment=recipe.data.augment == "pose",
        limit=recipe.data.train_limit or None,
        category=recipe.data.category,
        **options,
    )
    document, file = load_annotations(root, TRAIN)
    taken = category_of(document, file, recipe.data.category)
    if sentence := other_categories(document, taken, file):
        log.warning(sentence)
    judged = CropBatches(root, VALIDATION, category=taken["id"], **options)
    if sentence := differing({TRAIN: people.skeleton, VALIDATION: judged.skeleton}, root):
        raise ValueError(sentence)
    names = people.skeleton.names
    heatmap_size = (recipe.data.image_size[0] // 4, recipe.data.image_size[1] // 4)
    for split, crops in ((TRAIN, people), (VALIDATION, judged)):
        if not crops.labelled_inside():
            raise ValueError(
                f"{load_annotations(root, split)[1]}: none of {len(crops)} people has a labelled keypoint in the crop "
                "of its box: write keypoints and boxes in px of the stored pictures (`data check` says more)"
            )
    _check_measures(recipe, judged)
    judged.check_pictures(distributed.share(len(judged)))

    detected = None
    if recipe.pose.detections:
        boxes = coco_eval.read_detections(recipe.pose.detections, root, VALIDATION, judged.skeleton)
        detected = CropBatches(root, VALIDATION, people=boxes, skeleton=judged.skeleton, **options)

    def evaluate(predicted: Callable[[CropBatches], tuple[np.ndarray, np.ndarray]]) -> dict:
        measures = judge(root, judged, *predicted(judged))
        if detected is not None:
            with_detector = average_precision(root, detected, *predicted(detected))
            measures |= {f"{name}_detected": value for name, value in with_detector.items()}
        return measures

    def examples(network: nn.Module) -> list:
        chosen = some_people(judged, predict(network, judged, recipe, device)[0])
        batch = judged.batch([person.pop("row") for person in chosen])
        with torch.no_grad():
            maps = to_maps(network(normalise(batch["image"].to(device), "coco")), recipe).float().amax(1)
        for person, heat, matrix in zip(chosen, maps.cpu(), batch["matrix"], strict=True):
            person |= {
                "heat": [[round(value, 2) for value in line] for line in heat.tolist()],
                "crop": crop_box_px(matrix, recipe.data.image_size),
            }
        return chosen

    facts = {"skeleton": judged.skeleton.as_dict()}
    if recipe.network == "mean_pose":
        mean = mean_pose(people.people)

        def guess(crops: CropBatches) -> tuple[np.ndarray, np.ndarray]:
            points = predict_mean_pose(mean, crops.people)
            return points, np.ones(points.shape[:2])

        return Task(
            nn.Identity(),
            None,
            None,
            lambda _: evaluate(guess),
            recipe.pose.headline,
            names,
            examples=lambda _: [person for person in some_people(judged, guess(judged)[0]) if person.pop("row") >= 0],
            facts=facts,
        )

    compare = LOSSES[recipe.pose.loss]

    def loss(network: nn.Module, batch: dict) -> Tensor:
        x = normalise(batch["image"], "coco")
        targets, weights = encode(
            batch["joints"], batch["visible"], recipe.data.image_size, heatmap_size, recipe.pose.sigma_px
        )
        heatmaps = network(x)
        labelled = compare(heatmaps, targets, weights)
        if teacher is None:
            return labelled
        with torch.no_grad():
            wanted = to_maps(teacher(x), recipe)
        return (1 - recipe.distillation) * labelled + recipe.distillation * compare(heatmaps, wanted, weights)

    def sample() -> Tensor:
        return normalise(judged.batch(range(min(8, len(judged))))["image"].to(device), "coco")

    network = on_device(make_network(recipe, len(names)), device)
    return Task(
        network,
        people,
        loss,
        lambda network: evaluate(lambda crops: predict(network, crops, recipe, device)),
        recipe.pose.headline,
        names,
        sample,
        examples,
        facts=facts,
    )


def _check_measures(recipe: Recipe, judged: CropBatches) -> None:
    """Raises ValueError where the validation people cannot be judged by what the recipe asks for."""
    where = judged.root
    if recipe.pose.headline == "PCK":
        if not torsos_px(judged.people, judged.skeleton.names)[1].any():
            raise ValueError(f"recipe key pose.headline is PCK, but nobody in {where} has a labelled torso; take AP")


def make_network(recipe: Recipe, num_keypoints: int) -> nn.Module:
    """The recipe's pose network, untrained."""
    return build_network(POSENETS, recipe, 3, num_keypoints=num_keypoints)


def predict_pictures(
    network: nn.Module,
    recipe: Recipe,
    labels: list[str],
    files: list[Path],
    device: torch.device,
    skeleton: dict | None = None,
) -> Iterator[dict]:
    """{"keypoints": [x px, y px, score] by name} for each picture file, whose whole extent is taken as one person's
    box; skeleton: what the checkpoint says of it, if it does. Scores are at most 1."""
    known = skeleton_of(recipe, labels, skeleton)
    for file in files:
        width, height = read(file).size
        person = People(
            paths=np.array([str(file)]),
            image_ids=np.array([0]),
            ids=np.array([0]),
            boxes_px=np.array([[0.0, 0.0, width, height]]),
            joints_px=np.zeros((1, len(labels), 2)),
            visible=np.zeros((1, len(labels)), np.int64),
            areas_px2=np.array([float(width * height)]),
            picture_sizes=np.array([[height, width]]),
            box_scores=np.ones(1),
        )
        crops = CropBatches("", VALIDATION, recipe.data.image_size, people=person, skeleton=known)
        points, scores = predict(network, crops, recipe, device)
        rounded = np.concatenate((points[0], scores[0][:, None].clip(max=1)), 1).astype(np.float64).round(2).tolist()
        yield {"keypoints": dict(zip(labels, rounded, strict=True))}


def skeleton_of(recipe: Recipe, labels: list[str], skeleton: dict | None = None) -> Skeleton:
    """What a checkpoint says of its keypoints. One without a skeleton, of an older form, is of the recipe's data set
    where that is at hand, and of COCO's where its keypoints are. Raises ValueError where neither is so."""
    if skeleton is not None:
        known = Skeleton.from_dict(skeleton)
        if list(known.names) != labels:
            raise ValueError("the checkpoint's labels and its skeleton name other keypoints: take another checkpoint")
        return known
    try:
        document, file = load_annotations(recipe.data.folder, VALIDATION)
        known = of_category(category_of(document, file, recipe.data.category), file)
        if list(known.names) == labels:
            return known
        why = f"{file} has other keypoints"
    except ValueError as error:
        why = str(error)
    if labels == list(COCO_PERSON.names):
        return COCO_PERSON
    raise ValueError(
        f"the checkpoint does not say which of its {len(labels)} keypoints a mirror exchanges (a newer one does), and "
        f"its data set cannot: {why}"
    )
