"""What a data set's keypoints are: their names, mirrored partners, sigmas and limbs. COCO's person, and whatever an
annotation file in COCO's form says of its own.

An annotation file's category lists its `keypoints` and, counted from 1, the `skeleton` that joins them; COCO's form has
no place for more. Two keys of ours complete it: `sigmas`, which OKS divides by, and `flip_pairs`, counted from 0.
Legend: K keypoints.
"""

from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Skeleton:
    """The keypoints of one category. Indices count from 0; `upper` are the joints of the upper body, for the
    half-body augmentation. Raises ValueError when the parts do not fit together."""

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    links: tuple[tuple[int, int], ...] = ()
    upper: tuple[int, ...] = ()
    category: int = 1  # its id in annotation and results files

    def __post_init__(self) -> None:
        if len(self.sigmas) != len(self.names) or not all(sigma > 0 for sigma in self.sigmas):
            raise ValueError(
                f"skeleton has {len(self.names)} names and {len(self.sigmas)} sigmas: give one above 0 for each joint"
            )
        paired = [joint for pair in self.flip_pairs for joint in pair]
        if len(set(paired)) != len(paired) or not set(paired) <= set(range(len(self.names))):
            raise ValueError(
                f"flip_pairs {self.flip_pairs} name a joint twice or one outside 0..{len(self.names) - 1}: "
                "each joint has one partner at most"
            )

    @property
    def mirrored(self) -> list[int]:
        """For each joint the one that takes its place in a mirror image (K,)."""
        partner = {a: b for pair in self.flip_pairs for a, b in (pair, pair[::-1])}
        return [partner.get(joint, joint) for joint in range(len(self.names))]


COCO_PERSON = Skeleton(
    names=(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    sigmas=(
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ),
    links=(
        (15, 13),
        (13, 11),
        (16, 14),
        (14, 12),
        (11, 12),
        (5, 11),
        (6, 12),
        (5, 6),
        (5, 7),
        (6, 8),
        (7, 9),
        (8, 10),
        (1, 2),
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (4, 6),
    ),
    upper=tuple(range(11)),
)


def of_category(category: dict, file: str | Path) -> Skeleton:
    """The skeleton of a category of an annotation file. COCO's own names need nothing more; others need `sigmas`, and
    `flip_pairs` where no name says left or right. Raises ValueError, naming the file, for what is missing or wrong."""
    names, where = tuple(category["keypoints"]), f"{file}: category {category['id']}"
    if names == COCO_PERSON.names:
        skeleton = replace(COCO_PERSON, category=category["id"])
        return replace(skeleton, sigmas=tuple(category["sigmas"])) if "sigmas" in category else skeleton
    if "sigmas" not in category:
        raise ValueError(
            f"{where} has {len(names)} keypoints that are not COCO's 17 and says no sigmas, which OKS needs: "
            'add "sigmas", a number for each keypoint, to the category'
        )
    pairs = category.get("flip_pairs", _named_pairs(names))
    if not pairs and "flip_pairs" not in category:
        raise ValueError(
            f'{where} has no keypoints named left and right: add "flip_pairs", the pairs that a mirror exchanges, '
            "counted from 0 ([] if there are none), to the category"
        )
    try:
        return Skeleton(
            names,
            tuple((a, b) for a, b in pairs),
            tuple(category["sigmas"]),
            links=tuple((a - 1, b - 1) for a, b in category.get("skeleton", ())),
            upper=tuple(category.get("upper", ())),
            category=category["id"],
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _named_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """The joints whose names differ in left and right alone."""
    partners = [(name, name.replace("left", "right").replace("Left", "Right")) for name in names]
    return tuple((names.index(a), names.index(b)) for a, b in partners if a != b and b in names)
