"""The people of a split of a data set in COCO's form, and the mean pose.

Any data set of this form works: its file says what its keypoints are (see `categories`).

Legend: N people, K keypoints; points are (x, y) px, counted from pixel centres; boxes are x, y, width, height.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from .annotations import cut_box, faults, load_annotations
from .categories import category_of, is_person
from .skeleton import Skeleton

AREA_OF_BOX = 0.53  # a person's share of its box, where the file gives no area: CrowdPose's and MMPose's number


@dataclass(frozen=True)
class People:
    """The people of one split, in the annotation file's order; one row each."""

    paths: np.ndarray  # (N,) pictures, str
    image_ids: np.ndarray  # (N,)
    ids: np.ndarray  # (N,) of the annotations
    boxes_px: np.ndarray  # (N, 4) x, y, width, height; true boxes are cut at the picture's edge
    joints_px: np.ndarray  # (N, K, 2)
    visible: np.ndarray  # (N, K) 0 unlabelled, 1 occluded, 2 visible
    areas_px2: np.ndarray  # (N,) of the segment; AREA_OF_BOX of the box where the file gives none
    picture_sizes: np.ndarray  # (N, 2) height, width
    box_scores: np.ndarray  # (N,) 1 for true boxes

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int] | np.ndarray) -> "People":
        """The chosen people alone, in the chosen order."""
        return People(*(getattr(self, field.name)[np.asarray(rows)] for field in fields(self)))


def read_people(
    root: str | os.PathLike, split: str, skeleton: Skeleton | None = None, category: str | int = ""
) -> People:
    """The people of `root/annotations/person_keypoints_<split>.json`, less crowds and those without any
    labelled keypoint; category: which of several, as in `category_of`. Raises ValueError with the first of `faults`,
    and when nobody is left."""
    if wrong := faults(root, split, skeleton, category):
        raise ValueError(wrong[0] + (f" ({len(wrong) - 1} more faults like it)" if len(wrong) > 1 else ""))
    (document, file), folder = load_annotations(root, split), Path(root) / split
    taken = category_of(document, file, skeleton.category if skeleton and category == "" else category)
    images = {image["id"]: image for image in document["images"]}
    chosen = [
        annotation
        for annotation in document["annotations"]
        if annotation["category_id"] == taken["id"] and is_person(annotation)
    ]
    if not chosen:
        raise ValueError(f"{file} has no person with a labelled keypoint, crowds aside: take another split")
    pictured = [images[annotation["image_id"]] for annotation in chosen]
    keypoints = np.array([annotation["keypoints"] for annotation in chosen], np.float64).reshape(len(chosen), -1, 3)
    return People(
        paths=np.array([str(folder / image["file_name"]) for image in pictured]),
        image_ids=np.array([image["id"] for image in pictured]),
        ids=np.array([annotation["id"] for annotation in chosen]),
        boxes_px=np.array(
            [
                cut_box(annotation["bbox"], image["width"], image["height"])
                for annotation, image in zip(chosen, pictured)
            ],
            np.float64,
        ),
        joints_px=keypoints[..., :2],
        visible=keypoints[..., 2].astype(np.int64),
        areas_px2=np.array([area_px2(annotation, image) for annotation, image in zip(chosen, pictured)], np.float64),
        picture_sizes=np.array([(image["height"], image["width"]) for image in pictured]),
        box_scores=np.ones(len(chosen)),
    )


def area_px2(annotation: dict, image: dict) -> float:
    """The area that an annotation gives, or its share of what its box covers of the image."""
    if "area" in annotation:
        return float(annotation["area"])
    _, _, width, height = cut_box(annotation.get("bbox", (0, 0, 0, 0)), image["width"], image["height"])
    return AREA_OF_BOX * max(width, 0) * max(height, 0)


def mean_pose(people: People) -> np.ndarray:
    """The mean of each labelled joint in units of the box, (K, 2); 0.5 for joints never labelled."""
    in_box = (people.joints_px - people.boxes_px[:, None, :2]) / people.boxes_px[:, None, 2:]
    labelled = (people.visible > 0)[..., None]
    counts = labelled.sum(0)
    return np.where(counts > 0, np.where(labelled, in_box, 0).sum(0) / np.maximum(counts, 1), 0.5)


def predict_mean_pose(pose: np.ndarray, people: People) -> np.ndarray:
    """The baseline: the training split's `mean_pose` (K, 2) in each person's box, (N, K, 2) px."""
    return people.boxes_px[:, None, :2] + pose * people.boxes_px[:, None, 2:]
