"""The skeletons of common data sets: names, mirrored partners, sigmas, limbs and upper bodies, in the sets' own order.

Annotation files say names at most, some not even those; what a mirror exchanges and what OKS divides by stand in the
sets' evaluation codes. The numbers are theirs:

- `crowdpose`: CrowdPose (1812.00324), sigmas of its evaluation code (crowdposetools).
- `mpii`: MPII Human Pose (CVPR 2014). It is judged by PCKh and has no sigmas of its own; these are MMPose's.
- `ap10k`: AP-10K (2108.12617), sigmas of its evaluation code.
- `h36m`: Human3.6M (TPAMI 2014), 17 joints. It is judged by MPJPE and has no sigmas: limbs have COCO's, the joints of
  head and trunk the 0.08 of Halpe's head, neck and hip.
- `halpe`: Halpe Full-Body (2004.00945), 136 joints, and `halpe26`, its body and feet; sigmas of MMPose.
- `coco_wholebody`: COCO-WholeBody (2007.11858), 133 joints, sigmas of its evaluation code. Faces are numbered as in
  iBUG's 300-W, 68 landmarks.
"""

import re
from dataclasses import replace

from .skeleton import COCO_PERSON, Skeleton, named_pairs

Pairs = tuple[tuple[int, int], ...]
_TOKENS = {"l": "left", "r": "right", "f": "front", "b": "back"}
_ALIASES = {"head top": "head", "top head": "head", "root pelvis": "root"}

# 300-W's landmarks that a mirror exchanges: jaw, brows, nostrils, eyes, mouth
_FACE_PAIRS: Pairs = (
    *((i, 16 - i) for i in range(8)),
    *((i, 43 - i) for i in range(17, 22)),
    *((31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)),
)
_FACE_NAMES = tuple(f"face-{i}" for i in range(68))
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
_HAND_NAMES = tuple(
    f"{side}_{joint}"
    for side in ("left", "right")
    for joint in ("hand_root", *(f"{finger}{i}" for finger in _FINGERS for i in range(1, 5)))
)
_HAND_SIGMAS = (
    *(0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024),
    *(0.022, 0.026, 0.017, 0.021, 0.021, 0.032, 0.020, 0.019, 0.022, 0.031),
)
_FACE_SIGMAS = (
    *(0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037, 0.038, 0.043, 0.041),
    *(0.045, 0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013, 0.015, 0.009, 0.007, 0.007, 0.007, 0.012),
    *(0.009, 0.008, 0.016, 0.010, 0.017, 0.011, 0.009, 0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034),
    *(0.008, 0.008, 0.009, 0.008, 0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008),
    *(0.008, 0.008, 0.010, 0.008),
)


def _hand_links(root: int, wrist: int | None = None) -> Pairs:
    """Each finger from the hand's root (or from the wrist) to its tip; `root` is its index."""
    first = root if wrist is None else wrist
    fingers = range(root + 1, root + 21, 4)
    return tuple(link for i in fingers for link in ((first, i), (i, i + 1), (i + 1, i + 2), (i + 2, i + 3)))


def _skeleton(names: tuple[str, ...], sigmas: tuple[float, ...], links: Pairs, upper: tuple[int, ...]) -> Skeleton:
    face = names.index("face-0") if "face-0" in names else 0
    faces = tuple((face + a, face + b) for a, b in _FACE_PAIRS) if face else ()
    return Skeleton(names, named_pairs(names) + faces, sigmas, links, upper)


_HALPE26_NAMES = (
    *COCO_PERSON.names,
    *("head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe"),
    *("left_heel", "right_heel"),
)
_HALPE26_LINKS: Pairs = (
    *((15, 13), (13, 11), (11, 19), (16, 14), (14, 12), (12, 19), (17, 18), (18, 19), (18, 5), (5, 7), (7, 9)),
    *((18, 6), (6, 8), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    *((15, 20), (15, 22), (15, 24), (16, 21), (16, 23), (16, 25)),
)
_HALPE_UPPER = (*range(11), 17, 18)

KNOWN = {
    "coco": COCO_PERSON,
    "crowdpose": _skeleton(
        tuple(
            "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip right_hip left_knee "
            "right_knee left_ankle right_ankle head neck".split()
        ),
        (0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079),
        (
            *((10, 8), (8, 6), (11, 9), (9, 7), (6, 7), (0, 6), (1, 7), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5)),
            *((12, 13), (1, 13), (0, 13)),
        ),
        (0, 1, 2, 3, 4, 5, 12, 13),
    ),
    "mpii": _skeleton(
        tuple(
            "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax upper_neck head_top "
            "right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist".split()
        ),
        (
            *(0.089, 0.083, 0.107, 0.107, 0.083, 0.089, 0.026, 0.026, 0.026, 0.026),
            *(0.062, 0.072, 0.179, 0.179, 0.072, 0.062),
        ),
        (
            *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (8, 12), (12, 11), (11, 10)),
            *((8, 13), (13, 14), (14, 15)),
        ),
        tuple(range(7, 16)),
    ),
    "ap10k": _skeleton(
        tuple(
            "left_eye right_eye nose neck root_of_tail left_shoulder left_elbow left_front_paw right_shoulder "
            "right_elbow right_front_paw left_hip left_knee left_back_paw right_hip right_knee right_back_paw".split()
        ),
        (
            *(0.025, 0.025, 0.026, 0.035, 0.035, 0.079, 0.072, 0.062, 0.079, 0.072, 0.062),
            *(0.107, 0.087, 0.089, 0.107, 0.087, 0.089),
        ),
        (
            *((0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (5, 6), (6, 7), (3, 8), (8, 9), (9, 10)),
            *((4, 11), (11, 12), (12, 13), (4, 14), (14, 15), (15, 16)),
        ),
        (0, 1, 2, 3, 5, 6, 7, 8, 9, 10),
    ),
    "h36m": _skeleton(
        tuple(
            "root right_hip right_knee right_foot left_hip left_knee left_foot spine thorax neck_base head "
            "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist".split()
        ),
        (
            *(0.08, 0.107, 0.087, 0.089, 0.107, 0.087, 0.089, 0.08, 0.08, 0.08, 0.08),
            *(0.079, 0.072, 0.062, 0.079, 0.072, 0.062),
        ),
        (
            *((0, 4), (4, 5), (5, 6), (0, 1), (1, 2), (2, 3), (0, 7), (7, 8), (8, 9), (9, 10)),
            *((8, 11), (11, 12), (12, 13), (8, 14), (14, 15), (15, 16)),
        ),
        tuple(range(7, 17)),
    ),
    "halpe26": _skeleton(
        _HALPE26_NAMES, (*COCO_PERSON.sigmas, 0.026, 0.026, 0.066, *(0.079,) * 6), _HALPE26_LINKS, _HALPE_UPPER
    ),
    "halpe": _skeleton(
        (*_HALPE26_NAMES, *_FACE_NAMES, *_HAND_NAMES),
        (*COCO_PERSON.sigmas, *(0.08,) * 3, *(0.089,) * 6, *(0.015,) * 110),
        (*_HALPE26_LINKS, *_hand_links(94, 9), *_hand_links(115, 10)),
        _HALPE_UPPER,
    ),
    "coco_wholebody": _skeleton(
        (
            *COCO_PERSON.names,
            *("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel"),
            *_FACE_NAMES,
            *_HAND_NAMES,
        ),
        (*COCO_PERSON.sigmas, *(0.068, 0.066, 0.066, 0.092, 0.094, 0.094), *_FACE_SIGMAS, *_HAND_SIGMAS, *_HAND_SIGMAS),
        (
            *COCO_PERSON.links,
            *((15, 17), (15, 18), (15, 19), (16, 20), (16, 21), (16, 22)),
            *_hand_links(91),
            *_hand_links(112),
        ),
        COCO_PERSON.upper,
    ),
}


def _plain(name: str) -> str:
    """A joint's name as sets agree on it: "L_F_Paw" and "left_front_paw" are one."""
    words: list[str] = re.findall(r"[a-z]+|\d+", name.lower())
    text = " ".join(_TOKENS.get(word, word) for word in words)
    return _ALIASES.get(text, text)


def known_skeleton(names: tuple[str, ...]) -> Skeleton | None:
    """The skeleton of the known set with these joints, whatever their order, spelt as in `names`; None for others."""
    plain = [_plain(name) for name in names]
    for skeleton in KNOWN.values():
        positions = {_plain(name): joint for joint, name in enumerate(skeleton.names)}
        if len(names) == len(positions) and set(plain) == positions.keys():
            if list(positions) == plain:
                return replace(skeleton, names=names)
            moved = {positions[name]: joint for joint, name in enumerate(plain)}
            return Skeleton(
                names,
                tuple((moved[a], moved[b]) for a, b in skeleton.flip_pairs),
                tuple(skeleton.sigmas[positions[name]] for name in plain),
                tuple((moved[a], moved[b]) for a, b in skeleton.links),
                tuple(sorted(moved[joint] for joint in skeleton.upper)),
            )
    return None
