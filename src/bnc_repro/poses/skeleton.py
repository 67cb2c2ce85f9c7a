"""What a data set's keypoints are: their names, mirrored partners, sigmas and limbs. COCO's person is one.

`categories` reads them from annotation files, `known_skeletons` has those of common sets.
Legend: K keypoints.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

LEAST_SIGMA, MOST_SIGMA = 0.001, 1.0  # of a person's size; COCO's lie between 0.025 and 0.107


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
        if odd := [sigma for sigma in self.sigmas if not LEAST_SIGMA <= sigma <= MOST_SIGMA]:
            raise ValueError(
                f"skeleton has the sigma {odd[0]:g}, outside {LEAST_SIGMA:g} to {MOST_SIGMA:g}: give shares of a "
                "person's size (COCO's lie between 0.025 and 0.107)"
            )
        paired = [joint for pair in self.flip_pairs for joint in pair]
        if len(set(paired)) != len(paired) or not set(paired) <= set(range(len(self.names))):
            raise ValueError(
                f"flip_pairs {self.flip_pairs} name a joint twice or one outside 0..{len(self.names) - 1}: "
                "each joint has one partner at most"
            )
        joints = [joint for link in self.links for joint in link] + list(self.upper)
        if not set(joints) <= set(range(len(self.names))):
            raise ValueError(
                f"limbs or upper body name joint {max(joints, key=abs)}, but joints are 0..{len(self.names) - 1}"
            )

    @property
    def mirrored(self) -> list[int]:
        """For each joint the one that takes its place in a mirror image (K,)."""
        partner = {a: b for pair in self.flip_pairs for a, b in (pair, pair[::-1])}
        return [partner.get(joint, joint) for joint in range(len(self.names))]

    def as_dict(self) -> dict:
        """Plain values, as a checkpoint keeps them."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict) -> "Skeleton":
        """The skeleton that `as_dict` made these values of. Raises ValueError for other ones."""
        try:
            pairs = {key: tuple((int(a), int(b)) for a, b in values[key]) for key in ("flip_pairs", "links")}
            names, sigmas = tuple(map(str, values["names"])), tuple(map(float, values["sigmas"]))
            upper, category = tuple(map(int, values["upper"])), int(values["category"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"a skeleton lacks, or has in another form, {error}") from error
        return cls(names=names, sigmas=sigmas, upper=upper, category=category, **pairs)


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


def named_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The joints whose names differ in left and right alone, or in L and R that stand by themselves; each pair once,
    in the order of the names."""
    pairs = []
    for joint, name in enumerate(names):
        partner = _mirrored_name(name)
        if partner != name and partner in names[joint + 1 :]:
            pairs.append((joint, names.index(partner)))
    return tuple(pairs)


def without_partner(names: Sequence[str]) -> list[str]:
    """The names with left or right in them whose mirrored name nobody bears."""
    sided = [name for name in names if re.search("left|right", name, re.IGNORECASE)]
    return [name for name in sided if _mirrored_name(name) not in names]


_SIDES = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}
_SIDES |= {right: left for left, right in _SIDES.items()}
_SIDE = re.compile("left|right|Left|Right|LEFT|RIGHT|(?<![A-Za-z])[lrLR](?![A-Za-z])|(?<=[a-z])[LR](?![A-Za-z])")


def _mirrored_name(name: str) -> str:
    return _SIDE.sub(lambda side: _SIDES[side.group()], name)
