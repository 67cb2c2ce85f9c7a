"""The task of pose estimation: crops of people, heatmaps, and COCO's average precision, with true boxes and with a
detector's where a file of them is given (its metrics end in _detected, the two are never mixed).

Where HRNet's code differs: a half body is centred on its joints' box, not their mean, and joints outside the crop get
no target, where a Gaussian's tail might still reach in.

Loss: half the mean squared error of the heatmaps; with a teacher, the share `distillation` of it is taken
against the teacher's heatmaps. Prediction: flip test, sub-pixel decoding, OKS rescoring and OKS-NMS.
Legend: N people, K keypoints, h and w of heatmaps (a quarter of the crop).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import coco_eval, distributed, keypoints
from .config import Recipe
from .losses import heatmap_cross_entropy, heatmap_loss
from .metrics import pck
from .pictures import read
from .posenets import POSENETS
from .skeleton import COCO_PERSON, Skeleton, of_category
from .task import Task, build_network
from .train import loader

TRAIN, VALIDATION = "train2017", "val2017"
EVALUATION_BATCH = 128
EXAMPLES = 12
CACHE_MIB = 2048  # of decoded pictures, in all loading processes together
LOSSES = {"squares": heatmap_loss, "cross_entropy": heatmap_cross_entropy}
# channel means and deviations of ImageNet's pixels, 0..255
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Crops(keypoints.PersonCrops):
    """`PersonCrops` that a data loader asks for whole batches."""

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        return self.batch(indices)


def build(recipe: Recipe, device: torch.device, teacher: nn.Module | None = None) -> Task:
    """The task of a recipe. Raises ValueError for missing or faulty data, before anything is trained."""
    cache_mib = CACHE_MIB // max(1, recipe.data.workers)  # each worker has its own
    options = {"size": recipe.data.image_size, "unbiased": recipe.pose.unbiased, "cache_mib": cache_mib}
    root = recipe.data.folder
    people = Crops(
        root, TRAIN, augment=recipe.data.augment == "pose", limit=recipe.data.train_limit or None, **options
    )
    judged = Crops(root, VALIDATION, **options)
    if people.skeleton != judged.skeleton:
        raise ValueError(f"the categories of {TRAIN} and {VALIDATION} in {root}/annotations differ: use one in both")
    names = people.skeleton.names
    heatmap_size = tuple(side // 4 for side in recipe.data.image_size)
    _check_measures(recipe, judged)

    detected = None
    if recipe.pose.detections:
        boxes = coco_eval.read_detections(recipe.pose.detections, root, VALIDATION)
        detected = Crops(root, VALIDATION, people=boxes, skeleton=judged.skeleton, **options)

    def evaluate(predicted: Callable[[Crops], tuple[np.ndarray, np.ndarray]]) -> dict:
        found = judge(root, judged, *predicted(judged))
        if detected is not None:
            with_detector = average_precision(root, detected, *predicted(detected))
            found |= {f"{name}_detected": value for name, value in with_detector.items()}
        return found

    def examples(network: nn.Module) -> list:
        chosen = some_people(judged, predict(network, judged, recipe, device)[0])
        batch = judged.batch([one.pop("row") for one in chosen])
        with torch.no_grad():
            maps = to_maps(network(normalise(batch["image"].to(device))), recipe).float().amax(1)
        for one, heat, matrix in zip(chosen, maps.cpu(), batch["matrix"], strict=True):
            one |= {"heat": [[round(value, 2) for value in line] for line in heat.tolist()],
                    "crop": crop_box_px(matrix, recipe.data.image_size)}  # fmt: skip
        return chosen

    if recipe.network == "mean_pose":
        mean = keypoints.mean_pose(people.people)

        def guess(crops: Crops) -> tuple[np.ndarray, np.ndarray]:
            points = keypoints.predict_mean_pose(mean, crops.people)
            return points, np.ones(points.shape[:2])

        return Task(
            nn.Identity(), None, None, lambda _: evaluate(guess), recipe.pose.headline, names,
            examples=lambda _: [one for one in some_people(judged, guess(judged)[0]) if one.pop("row") >= 0],
        )  # fmt: skip

    compare = LOSSES[recipe.pose.loss]

    def loss(network: nn.Module, batch: dict) -> Tensor:
        x = normalise(batch["image"])
        targets, weights = keypoints.encode(
            batch["joints"], batch["visible"], recipe.data.image_size, heatmap_size, recipe.pose.sigma_px,
            recipe.pose.unbiased,
        )  # fmt: skip
        heatmaps = network(x)
        labelled = compare(heatmaps, targets, weights)
        if teacher is None:
            return labelled
        with torch.no_grad():
            wanted = to_maps(teacher(x), recipe)
        return (1 - recipe.distillation) * labelled + recipe.distillation * compare(heatmaps, wanted, weights)

    def sample() -> Tensor:
        return normalise(judged.batch(range(min(8, len(judged))))["image"].to(device))

    network = make_network(recipe, len(names)).to(device, memory_format=torch.channels_last)
    return Task(
        network, people, loss, lambda network: evaluate(lambda crops: predict(network, crops, recipe, device)),
        recipe.pose.headline, names, sample, examples,
    )  # fmt: skip


def _check_measures(recipe: Recipe, judged: Crops) -> None:
    """Raises ValueError where the validation people cannot be judged by what the recipe asks for."""
    where = judged.root
    if recipe.pose.headline == "PCK":
        if not torsos_px(judged.people, judged.skeleton.names)[1].any():
            raise ValueError(f"recipe key pose.headline is PCK, but nobody in {where} has a labelled torso; take AP")
    elif not has_areas(judged.people):
        raise ValueError(f"recipe key pose.headline is AP, but people in {where} have no area, which OKS needs: "
                         "add areas, or take PCK")  # fmt: skip
    if recipe.pose.detections and not has_areas(judged.people):
        raise ValueError(f"recipe key pose.detections asks for AP, but people in {where} have no area: leave it out")


def has_areas(people: keypoints.People) -> bool:
    """Whether OKS and AP can be computed: every person has an area."""
    return not np.isnan(people.areas_px2).any()


def make_network(recipe: Recipe, num_keypoints: int) -> nn.Module:
    """The recipe's pose network, untrained."""
    return build_network(POSENETS, recipe, 3, num_keypoints=num_keypoints)


def to_maps(outputs: Tensor, recipe: Recipe) -> Tensor:
    """What a network trained by this recipe puts out, as heatmaps (N, K, h, w) whose peak is about 1 where sure."""
    if recipe.pose.loss == "squares":
        return outputs
    peak = 2 * torch.pi * recipe.pose.sigma_px**2  # 1 / height of the target's highest cell
    return outputs.float().flatten(2).softmax(2).view_as(outputs) * peak


def normalise(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) -> float32 with mean 0 and deviation 1 of ImageNet's pixels."""
    mean, deviation = _statistics(images.device)
    return ((images.float() - mean) / deviation).contiguous(memory_format=torch.channels_last)


@lru_cache
def _statistics(device: torch.device) -> list[Tensor]:
    return [torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, DEVIATION)]


@torch.no_grad()
def predict(network: nn.Module, crops: Crops, recipe: Recipe, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (N, K, 2) in px of the pictures and their scores (N, K), one row per person of `crops`."""
    network.eval()
    own, points, scores = distributed.share(len(crops)), [], []
    for batch in loader(crops, own, EVALUATION_BATCH, recipe.data.workers, device):
        x = normalise(batch["image"])
        heatmaps = to_maps(network(x), recipe)
        if recipe.pose.flip_test:
            mirrored = keypoints.flip_back(to_maps(network(x.flip(-1)), recipe), crops.skeleton, recipe.pose.unbiased)
            heatmaps = (heatmaps + mirrored) / 2
        found, certain = keypoints.decode(
            heatmaps.float(), recipe.data.image_size, recipe.pose.decode, recipe.pose.unbiased
        )
        points += list(keypoints.to_image(found, batch["matrix"]).cpu().numpy())
        scores += list(certain.cpu().numpy())
    order = np.argsort(distributed.gathered(own))
    return np.array(distributed.gathered(points))[order], np.array(distributed.gathered(scores))[order]


def predict_pictures(network: nn.Module, recipe: Recipe, files: list[Path], device: torch.device) -> list:
    """For each picture file, whose whole extent is taken as one person's box: [x px, y px, score] per keypoint."""
    skeleton, found = _skeleton_of(recipe, network.heatmaps.out_channels), []
    count = len(skeleton.names)
    for file in files:
        width, height = read(file).size
        one = keypoints.People(
            paths=np.array([str(file)]), image_ids=np.array([0]), ids=np.array([0]),
            boxes_px=np.array([[0.0, 0.0, width, height]]), joints_px=np.zeros((1, count, 2)),
            visible=np.zeros((1, count), np.int64), areas_px2=np.array([float(width * height)]),
            picture_sizes=np.array([[height, width]]), box_scores=np.ones(1),
        )  # fmt: skip
        crops = Crops("", VALIDATION, recipe.data.image_size, unbiased=recipe.pose.unbiased, people=one,
                      skeleton=skeleton)  # fmt: skip
        points, scores = predict(network, crops, recipe, device)
        found.append(np.concatenate((points[0], scores[0][:, None]), 1).round(2).tolist())
    return found


def _skeleton_of(recipe: Recipe, count: int) -> Skeleton:
    """What the recipe's data set says its keypoints are; COCO's where that is not here and there are 17 of them."""
    try:
        document, file = keypoints.load_annotations(recipe.data.folder, VALIDATION)
        return of_category(keypoints.category_of(document), file)
    except ValueError as error:
        if count == len(COCO_PERSON.names):
            return COCO_PERSON
        raise ValueError(f"the network has {count} keypoints, and which of them a mirror exchanges is said where it "
                         f"was trained: {error}") from error  # fmt: skip


def judge(root: Path, crops: Crops, points: np.ndarray, scores: np.ndarray) -> dict:
    """COCOeval's six numbers for predictions made in the people's true boxes, and by keypoint the mean similarity to
    the truth, OKS of that joint alone, where the people have areas; PCK, the share of joints within 0.2 torsos (left
    shoulder to right hip) of the truth over the people whose torso is labelled, if joints are so named."""
    found, people = {}, crops.people
    if has_areas(people):
        found = average_precision(root, crops, points, scores)
        each = coco_eval.similarity(people, points, crops.skeleton)[1]
        named = zip(crops.skeleton.names, each.tolist(), strict=True)
        found["by_keypoint"] = {name: round(value, 4) for name, value in named if value == value}  # nan: nobody has it
    lengths_px, whole = torsos_px(people, crops.skeleton.names)
    if whole.any():
        found["PCK"] = pck(points[whole], people.joints_px[whole], people.visible[whole], lengths_px[whole])
    return found


def torsos_px(people: keypoints.People, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The length of each person's torso (N,), and whether both of its ends are labelled (N,)."""
    if not {"left_shoulder", "right_hip"} <= set(names):
        return np.zeros(len(people)), np.zeros(len(people), bool)
    ends = [names.index("left_shoulder"), names.index("right_hip")]
    lengths = np.linalg.norm(np.subtract(*(people.joints_px[:, end] for end in ends)), axis=1)
    return lengths, (people.visible[:, ends] > 0).all(1) & (lengths > 0)


def average_precision(root: Path, crops: Crops, points: np.ndarray, scores: np.ndarray) -> dict:
    """COCOeval's six numbers for predictions made in the boxes of `crops`, true or a detector's."""
    annotations = root / "annotations" / f"person_keypoints_{VALIDATION}.json"
    return coco_eval.evaluate(annotations, to_results(crops, points, scores), crops.skeleton)


def to_results(crops: Crops, points: np.ndarray, scores: np.ndarray) -> list[dict]:
    """Predictions as COCO's results; people who are one person twice are told by the size of their crops."""
    return coco_eval.to_results(crops.people, points, scores, crops.skeleton, areas_px2=crops.areas_px2())


def crop_box_px(matrix: Tensor, size: tuple[int, int]) -> list[float]:
    """x, y, width, height in the picture of an unturned crop of `size` (height, width); `matrix` leads back."""
    corners = keypoints.to_image(torch.tensor([[[0.0, 0.0], [size[1] - 1.0, size[0] - 1.0]]]), matrix[None])[0]
    (left, top), (right, bottom) = corners.tolist()
    return [round(value, 1) for value in (left, top, right - left, bottom - top)]


def write_results(network: nn.Module, recipe: Recipe, root: Path, file: Path, device: torch.device) -> Path:
    """The network's predictions for the validation people of `root` in their true boxes, as COCO's results file."""
    judged = Crops(root, VALIDATION, size=recipe.data.image_size, unbiased=recipe.pose.unbiased)
    return coco_eval.save_results(to_results(judged, *predict(network, judged, recipe, device)), file)


def some_people(crops: Crops, points: np.ndarray) -> list[dict]:
    """The worst, the best and some people between them, by OKS (by their boxes' areas where people have none): what a
    figure needs to draw them."""
    areas = np.where(np.isnan(crops.people.areas_px2), crops.people.boxes_px[:, 2:].prod(1), crops.people.areas_px2)
    similarity, _ = coco_eval.similarity(replace(crops.people, areas_px2=areas), points, crops.skeleton)
    order = np.argsort(similarity, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(EXAMPLES, len(order))).round().astype(int)]
    people = crops.people
    return [
        {
            "row": int(i), "image": Path(people.paths[i]).name, "annotation": int(people.ids[i]),
            "oks": round(float(similarity[i]), 4),
            "box": people.boxes_px[i].round(1).tolist(), "keypoints": points[i].round(1).tolist(),
            "true": people.joints_px[i].round(1).tolist(), "visible": people.visible[i].tolist(),
        }
        for i in chosen
    ]  # fmt: skip
