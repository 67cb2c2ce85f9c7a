"""Keypoints from heatmaps: flip test, sub-pixel decoding, OKS rescoring and OKS-NMS, and what they are worth.

Legend: N people, K keypoints, h and w of heatmaps (a quarter of the crop).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..images.pictures import normalise
from ..recipe.schema import Recipe
from ..training import distributed
from ..training.loader import loader
from ..training.memory import evaluation_batch
from . import coco_eval
from .crops import CropBatches
from .heatmaps import decode, flip_back, to_image
from .measures import pck, similarity, torsos_px

VALIDATION = "val2017"
EVALUATION_BATCH = 128
EXAMPLES = 12


def to_maps(outputs: Tensor, recipe: Recipe) -> Tensor:
    """What a network trained by this recipe puts out, as heatmaps (N, K, h, w) whose peak is about 1 where sure."""
    if recipe.pose.loss == "squares":
        return outputs
    peak = 2 * torch.pi * recipe.pose.sigma_px**2  # 1 / height of the target's highest cell
    return outputs.float().flatten(2).softmax(2).view_as(outputs) * peak


@torch.no_grad()
def predict(
    network: nn.Module, crops: CropBatches, recipe: Recipe, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (N, K, 2) in px of the pictures and their scores (N, K), one row per person of `crops`."""
    network.eval()
    share, points, scores = distributed.share(len(crops)), [], []
    at_once = evaluation_batch(EVALUATION_BATCH, recipe.data.image_size)
    for batch in loader(crops, share, at_once, recipe.data.workers, device):
        x = normalise(batch["image"], "coco")
        heatmaps = to_maps(network(x), recipe)
        if recipe.pose.flip_test:
            mirrored = flip_back(to_maps(network(x.flip(-1)), recipe), crops.skeleton)
            heatmaps = (heatmaps + mirrored) / 2
        coordinates, certain = decode(heatmaps.float(), recipe.data.image_size, recipe.pose.decode)
        points += list(to_image(coordinates, batch["matrix"]).cpu().numpy())
        scores += list(certain.cpu().numpy())
    order = np.argsort(distributed.gathered(share))
    return np.array(distributed.gathered(points))[order], np.array(distributed.gathered(scores))[order]


def to_results(crops: CropBatches, points: np.ndarray, scores: np.ndarray) -> list[dict]:
    """Predictions as COCO's results; people who are one person twice are told by the size of their crops."""
    return coco_eval.to_results(crops.people, points, scores, crops.skeleton, areas_px2=crops.areas_px2())


def judge(root: Path, crops: CropBatches, points: np.ndarray, scores: np.ndarray) -> dict:
    """COCOeval's six numbers for predictions made in the people's true boxes, and by keypoint the mean similarity to
    the truth, OKS of that joint alone; PCK, the share of joints within 0.2 torsos (left
    shoulder to right hip) of the truth over the people whose torso is labelled, if joints are so named."""
    people, measures = crops.people, average_precision(root, crops, points, scores)
    each = similarity(people, points, crops.skeleton)[1]
    named = zip(crops.skeleton.names, each.tolist(), strict=True)
    measures["by_keypoint"] = {name: round(value, 4) for name, value in named if value == value}  # nan: nobody has it
    lengths_px, measurable = torsos_px(people, crops.skeleton.names)
    if measurable.any():
        measures["PCK"] = pck(
            points[measurable], people.joints_px[measurable], people.visible[measurable], lengths_px[measurable]
        )
    return measures


def average_precision(root: Path, crops: CropBatches, points: np.ndarray, scores: np.ndarray) -> dict:
    """COCOeval's six numbers for predictions made in the boxes of `crops`, true or a detector's."""
    annotations = root / "annotations" / f"person_keypoints_{VALIDATION}.json"
    return coco_eval.evaluate(annotations, to_results(crops, points, scores), crops.skeleton)


def some_people(crops: CropBatches, points: np.ndarray) -> list[dict]:
    """The worst, the best and some people between them, by OKS: what a figure needs to draw them."""
    similarities, _ = similarity(crops.people, points, crops.skeleton)
    order = np.argsort(similarities, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(EXAMPLES, len(order))).round().astype(int)]
    people = crops.people
    return [
        {
            "row": int(i),
            "image": Path(str(people.paths[i])).name,
            "annotation": int(people.ids[i]),
            "oks": round(float(similarities[i]), 4),
            "box": people.boxes_px[i].round(1).tolist(),
            "keypoints": points[i].round(1).tolist(),
            "true": people.joints_px[i].round(1).tolist(),
            "visible": people.visible[i].tolist(),
        }
        for i in chosen
    ]


def crop_box_px(matrix: Tensor, size: tuple[int, int]) -> list[float]:
    """x, y, width, height in the picture of an unturned crop of `size` (height, width); `matrix` leads back."""
    corners = to_image(torch.tensor([[[0.0, 0.0], [size[1] - 1.0, size[0] - 1.0]]]), matrix[None])[0]
    (left, top), (right, bottom) = corners.tolist()
    return [round(value, 1) for value in (left, top, right - left, bottom - top)]
