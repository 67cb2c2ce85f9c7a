"""Measures of keypoints against their truth: object keypoint similarity, correct keypoints.

OKS is COCO's (cocodataset.org, "Keypoint
Evaluation") as pycocotools' `COCOeval.computeOks` computes it, vectorised; PCK is Yang and Ramanan's (TPAMI
2013).

Legend: N people, K keypoints; "..." any leading axes, which broadcast.
"""

from collections.abc import Sequence

import numpy as np

from .people import People
from .skeleton import COCO_PERSON, Skeleton


def oks(
    predicted: np.ndarray,
    true: np.ndarray,
    visible: np.ndarray,
    area: np.ndarray,
    sigmas: np.ndarray | Sequence[float],
    boxes_px: np.ndarray | None = None,
) -> np.ndarray:
    """Object keypoint similarity: the mean over labelled keypoints of exp(-d^2 / (2 area (2 sigma)^2)).

    predicted, true: (..., K, 2) px. visible: (..., K), labelled where > 0. area: (...) px^2 of the true
    person. sigmas: (K,). boxes_px: (..., 4) x, y, width, height; only for people without a labelled keypoint,
    whose distance is counted from a box of three times the sides, as COCO does; without it they are nan.

    Returns float64 (...). All people against all: predicted[:, None], the rest with a leading axis of 1.
    """
    predicted, true = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    labelled = np.asarray(visible) > 0
    area = np.asarray(area, np.float64)
    variances = (np.asarray(sigmas, np.float64) * 2) ** 2
    squared_px = ((predicted - true) ** 2).sum(-1)
    counts = labelled.sum(-1)
    similarity = np.exp(-squared_px / variances / (area[..., None] + np.spacing(1)) / 2)  # (..., K)
    with np.errstate(invalid="ignore"):
        result = np.where(labelled, similarity, 0.0).sum(-1) / counts
    if boxes_px is None:
        return result
    corner, side = np.split(np.asarray(boxes_px, np.float64)[..., None, :], 2, axis=-1)  # (..., 1, 2)
    beyond_px = np.maximum(corner - side - predicted, 0) + np.maximum(predicted - corner - 2 * side, 0)
    nearness = np.exp(-(beyond_px**2).sum(-1) / variances / (area[..., None] + np.spacing(1)) / 2)
    return np.where(counts > 0, result, nearness.mean(-1))


def pck(
    predicted: np.ndarray, true: np.ndarray, visible: np.ndarray, reference_px: np.ndarray, threshold: float = 0.2
) -> float:
    """Share of labelled keypoints that lie within threshold x reference of the truth (PCK@threshold).

    predicted, true: (N, K, 2) px. visible: (N, K), labelled where > 0. reference_px: (N,), each person's own
    length (torso, head or box; the caller says which). Returns nan when nothing is labelled.

    Raises ValueError for a reference length that is not above 0.
    """
    reference_px = np.asarray(reference_px, np.float64)
    if not (reference_px > 0).all():
        raise ValueError(
            f"person {int(np.argmin(reference_px > 0))} has a reference length that is not "
            "above 0 px: leave such people out, or measure by the box"
        )
    labelled = np.asarray(visible) > 0
    distance_px = np.linalg.norm(np.asarray(predicted, np.float64) - np.asarray(true, np.float64), axis=-1)
    near = distance_px <= threshold * reference_px[:, None]
    return float(near[labelled].mean()) if labelled.any() else float("nan")


def similarity(
    people: People, coordinates: np.ndarray, skeleton: Skeleton = COCO_PERSON
) -> tuple[np.ndarray, np.ndarray]:
    """How near predictions (N, K, 2) come to their own person: OKS of each person (N,), and the mean of each
    keypoint's similarity over the people that have it labelled (K,), nan where nobody has."""
    persons = oks(coordinates, people.joints_px, people.visible, people.areas_px2, skeleton.sigmas)
    each = oks(
        np.asarray(coordinates)[:, :, None],
        people.joints_px[:, :, None],
        people.visible[..., None],
        people.areas_px2[:, None],
        np.array(skeleton.sigmas)[:, None],
    )  # (N, K), nan where unlabelled
    labelled = people.visible > 0
    with np.errstate(invalid="ignore"):
        return persons, np.where(labelled, each, 0).sum(0) / labelled.sum(0)


def torsos_px(people: People, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The length of each person's torso (N,), and whether both of its ends are labelled (N,)."""
    if not {"left_shoulder", "right_hip"} <= set(names):
        return np.zeros(len(people)), np.zeros(len(people), bool)
    ends = [names.index("left_shoulder"), names.index("right_hip")]
    lengths = np.linalg.norm(np.subtract(*(people.joints_px[:, end] for end in ends)), axis=1)
    return lengths, (people.visible[:, ends] > 0).all(1) & (lengths > 0)
