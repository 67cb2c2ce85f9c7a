"""What tells that keypoints or boxes were written in other units than px of the stored picture, or in another form.

Legend: N people, K keypoints; points are (x, y) px; boxes are x, y, width, height.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

MOST = 0.9  # of the people must look so before a whole file is said to be in another form
SOME = 0.1  # of the people, and of a picture's side


def unit_findings(people: Sequence[dict], images: dict[int, dict], file: Path) -> list[str]:
    """A sentence for what the sound annotations `people`, each with a labelled keypoint, have in other units."""
    if not people:
        return []
    keypoints = np.array([entry["keypoints"] for entry in people], np.float64).reshape(len(people), -1, 3)
    points, labelled = keypoints[..., :2], keypoints[..., 2] > 0  # (N, K, 2), (N, K)
    boxes = np.array([entry["bbox"] for entry in people], np.float64)
    pictured = [images[entry["image_id"]] for entry in people]
    sides = np.array([(image["width"], image["height"]) for image in pictured], np.float64)  # (N, 2)
    labelled_points = points[labelled]
    within_1 = labelled_points.min() >= 0 and labelled_points.max() <= 1
    if within_1 and (labelled_points % 1 > 0).any() and sides.min() > 2:
        return [
            f"{file}: all keypoints lie within 0 and 1, as shares of a picture do: multiply them by its width and "
            f"height, {sides[0, 0]:g} x {sides[0, 1]:g} px for annotation {people[0]['id']}"
        ]
    corner, size = boxes[:, :2], boxes[:, 2:]
    if _are_corners(points, labelled, corner, size, sides):
        return [
            f"{file}: boxes reach beyond their pictures, and hold their keypoints if they are read as x1, y1, x2, y2 "
            f"(annotation {people[0]['id']}: {people[0]['bbox']}): write x, y, width, height"
        ]
    near = _within(points, corner - size, corner + 2 * size) & _within(points, -1, sides + 1)
    lost = np.flatnonzero(~(near & labelled).any(1))
    if not len(lost):
        return []
    first = people[lost[0]]
    return [
        f"{file}: {len(lost)} of {len(people)} people have no labelled keypoint near their box and in their picture, "
        f"first annotation {first['id']} (image {first['image_id']}): write keypoints and boxes in px of the stored "
        "picture, or remove them"
    ]


def _within(points: np.ndarray, first: np.ndarray | float, last: np.ndarray) -> np.ndarray:
    """Which points (N, K, 2) lie within each person's bounds (N, 2), (N, K)."""
    first = np.broadcast_to(first, last.shape)
    return np.all((points >= first[:, None]) & (points <= last[:, None]), axis=-1)


def _are_corners(
    points: np.ndarray, labelled: np.ndarray, corner: np.ndarray, size: np.ndarray, sides: np.ndarray
) -> bool:
    """Whether boxes are two corners: so read nearly all lie in their pictures with their joints, and as they should be
    read some reach far beyond."""
    ordered = (size > corner).all(1) & (corner >= -1).all(1) & (size <= sides + 1).all(1)
    holds = (_within(points, corner - 1, size + 1) | ~labelled).all(1)
    beyond = (corner + size > (1 + SOME) * sides).any(1)
    return bool((ordered & holds).mean() >= MOST and beyond.mean() >= SOME)
