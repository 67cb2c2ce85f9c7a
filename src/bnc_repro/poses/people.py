"""The people of a split of a data set in COCO's form, and the mean pose.

The form is COCO's (cocodataset.org, "Data format"), read as plain JSON. Any data set of this form works: its file says
what its keypoints are (see `skeleton`).

Legend: N people, K keypoints; points are (x, y) px, counted from pixel centres; boxes are x, y, width, height.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np

from .skeleton import Skeleton, of_category


def cut_box(box_px: Sequence[float], width: int, height: int) -> tuple[float, float, float, float]:
    """What a box (x, y, width, height) covers of a picture; a side <= 0 when it covers nothing."""
    left, top = max(box_px[0], 0), max(box_px[1], 0)
    return left, top, min(box_px[0] + box_px[2], width) - left, min(box_px[1] + box_px[3], height) - top


@dataclass(frozen=True)
class People:
    """The people of one split, in the annotation file's order; one row each."""

    paths: np.ndarray  # (N,) pictures, str
    image_ids: np.ndarray  # (N,)
    ids: np.ndarray  # (N,) of the annotations
    boxes_px: np.ndarray  # (N, 4) x, y, width, height; true boxes are cut at the picture's edge
    joints_px: np.ndarray  # (N, K, 2)
    visible: np.ndarray  # (N, K) 0 unlabelled, 1 occluded, 2 visible
    areas_px2: np.ndarray  # (N,) of the segment; nan where the file gives none
    picture_sizes: np.ndarray  # (N, 2) height, width
    box_scores: np.ndarray  # (N,) 1 for true boxes

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int] | np.ndarray) -> "People":
        """The chosen people alone, in the chosen order."""
        return People(*(getattr(self, field.name)[np.asarray(rows)] for field in fields(self)))


def load_annotations(root: str | os.PathLike, split: str) -> tuple[dict, Path]:
    """`root/annotations/person_keypoints_<split>.json`, parsed, and its path; ValueError as `load_file`."""
    file = Path(root) / "annotations" / f"person_keypoints_{split}.json"
    return load_file(file), file


def load_file(file: Path) -> dict:
    """The parsed annotation file, which nobody may change: it is read once. Raises ValueError when it is missing,
    damaged or in another form."""
    if not file.is_file():
        raise ValueError(
            f"annotation file {file} is missing: a data set is a folder with annotations/"
            "person_keypoints_<split>.json and the pictures in <split>/ (COCO 2017: unpack "
            "annotations_trainval2017.zip, train2017.zip, val2017.zip of cocodataset.org)"
        )
    state = file.stat()
    return _parsed(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)  # a run asks for a split's file several times, for its people, its skeleton and its judge
def _parsed(file: Path, modified_ns: int, size: int) -> dict:
    try:
        document = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"annotation file {file} is empty, cut off or no JSON: copy it again") from error
    if not isinstance(document, dict) or any(
        not isinstance(document.get(part), list) for part in ("images", "annotations", "categories")
    ):
        raise ValueError(
            f"annotation file {file} lacks the lists images, annotations and categories: "
            "it is not in COCO's form, take a person_keypoints_*.json"
        )
    if not any("keypoints" in category for category in document["categories"]):
        raise ValueError(
            f"annotation file {file} has no category with keypoints: take person_keypoints_*.json, not instances_*.json"
        )
    return document


def category_of(document: dict) -> dict:
    """The annotation file's first category with keypoints, the one that everything here is about."""
    return next(category for category in document["categories"] if "keypoints" in category)


def faults(root: str | os.PathLike, split: str, skeleton: Skeleton | None = None) -> list[str]:
    """What would stop or spoil a training, a sentence each, with file, id and remedy. Pictures are looked
    for, not opened. Raises ValueError where the annotation file itself is at fault."""
    return list(_faults(*load_annotations(root, split), Path(root) / split, skeleton))


def _faults(document: dict, file: Path, folder: Path, skeleton: Skeleton | None) -> Iterator[str]:
    category = category_of(document)
    try:
        skeleton = skeleton or of_category(category, file)
    except ValueError as error:
        yield str(error)
        return
    count = len(skeleton.names)
    incomplete = {part: sum("id" not in entry for entry in document[part]) for part in ("images", "annotations")}
    for part, count_of_them in incomplete.items():
        if count_of_them:
            yield f"{file}: {count_of_them} of the {part} have no id: give each a number of its own"
    if any(incomplete.values()):
        return
    if len(category["keypoints"]) != count:
        yield (
            f"{file}: category {category['id']} has {len(category['keypoints'])} keypoints, the skeleton that "
            f"was passed {count}: pass this data set's own, or none"
        )
        return
    yield from _bad_ids(document, file)
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    images = {}
    for image in document["images"]:
        images[image["id"]] = image
        if not {"file_name", "width", "height"} <= image.keys():
            yield f"{file}: image {image['id']} lacks file_name, width or height: add them"
        elif leaves_its_folder(image["file_name"]):
            yield f"{file}: image {image['id']} is called {image['file_name']}, outside of {folder}: name it within"
        elif image["file_name"] not in present and not (folder / image["file_name"]).is_file():
            yield (
                f"{file}: image {image['id']} is listed, but {folder / image['file_name']} is missing: "
                f"copy the pictures to {folder} again, or remove the image from the file"
            )
    for entry in document["annotations"]:
        if entry.get("category_id") != category["id"]:
            continue
        where = f"{file}: annotation {entry['id']}"
        if "keypoints" not in entry:
            yield f"{where} has no keypoints: take person_keypoints_*.json, or remove the annotation"
        elif len(entry["keypoints"]) != 3 * count:
            yield f"{where} has {len(entry['keypoints'])} keypoint numbers, not 3 x {count}: mend or remove it"
        elif (why := _bad_numbers(entry["keypoints"])) is not None:
            yield f"{where} has {why}: mend or remove it"
        elif entry.get("image_id") not in images:
            yield f"{where} has image {entry.get('image_id')}, which is not listed: add the image or remove it"
        elif _is_person(entry) and "width" in (image := images[entry["image_id"]]):
            box = entry.get("bbox", [0, 0, 0, 0])
            if min(box[2:]) <= 0:
                yield f"{where} (image {image['id']}) has a box of no area {box}: correct or remove it"
            elif min(cut_box(box, image["width"], image["height"])[2:]) <= 0:
                yield (
                    f"{where} has a box {box} outside its image {image['id']} of {image['width']} x "
                    f"{image['height']} px: correct or remove it"
                )


def leaves_its_folder(name: str) -> bool:
    """Whether a picture's name in an annotation file leads out of the pictures' folder."""
    return Path(name).is_absolute() or ".." in Path(name).parts


def _bad_ids(document: dict, file: Path) -> Iterator[str]:
    """Ids that are no whole numbers, or that two of a kind share."""
    for part in ("images", "annotations"):
        used: Counter = Counter()
        for entry in document[part]:
            if type(entry["id"]) is int:
                used[entry["id"]] += 1
            else:
                yield f"{file}: one of the {part} has the id {entry['id']!r}: give it a whole number of its own"
        for number, times in used.items():
            if times > 1:
                yield f"{file}: id {number} is used by {times} {part}: give each a number of its own"


def _bad_numbers(keypoints: list) -> str | None:
    """What is wrong with an annotation's numbers x, y, v, x, y, v, ...; None: nothing."""
    for name, values in (("x", keypoints[0::3]), ("y", keypoints[1::3]), ("visibility", keypoints[2::3])):
        for joint, value in enumerate(values):
            if type(value) not in (int, float) or not math.isfinite(value):
                return f"{value!r} as {name} of keypoint {joint}"
            if name == "visibility" and value not in (0, 1, 2):
                return f"visibility {value} of keypoint {joint}, which is 0, 1 or 2"
    return None


def _is_person(annotation: dict) -> bool:
    """COCO's rule for training and for evaluation with true boxes: no crowd, some labelled keypoint."""
    labelled = (
        annotation["num_keypoints"]
        if "num_keypoints" in annotation
        else np.count_nonzero(annotation["keypoints"][2::3])
    )
    return bool(labelled > 0) and not annotation.get("iscrowd", 0)


def read_people(root: str | os.PathLike, split: str, skeleton: Skeleton | None = None) -> People:
    """The people of `root/annotations/person_keypoints_<split>.json`, less crowds and those without any
    labelled keypoint. Raises ValueError with the first of `faults`, and when nobody is left."""
    (document, file), folder = load_annotations(root, split), Path(root) / split
    if wrong := list(_faults(document, file, folder, skeleton)):
        raise ValueError(wrong[0] + (f" ({len(wrong) - 1} more faults like it)" if len(wrong) > 1 else ""))
    category = category_of(document)
    images = {image["id"]: image for image in document["images"]}
    chosen = [
        annotation
        for annotation in document["annotations"]
        if annotation.get("category_id") == category["id"] and _is_person(annotation)
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
        areas_px2=np.array([annotation.get("area", np.nan) for annotation in chosen], np.float64),
        picture_sizes=np.array([(image["height"], image["width"]) for image in pictured]),
        box_scores=np.ones(len(chosen)),
    )


def mean_pose(people: People) -> np.ndarray:
    """The mean of each labelled joint in units of the box, (K, 2); 0.5 for joints never labelled."""
    in_box = (people.joints_px - people.boxes_px[:, None, :2]) / people.boxes_px[:, None, 2:]
    labelled = (people.visible > 0)[..., None]
    counts = labelled.sum(0)
    return np.where(counts > 0, np.where(labelled, in_box, 0).sum(0) / np.maximum(counts, 1), 0.5)


def predict_mean_pose(pose: np.ndarray, people: People) -> np.ndarray:
    """The baseline: the training split's `mean_pose` (K, 2) in each person's box, (N, K, 2) px."""
    return people.boxes_px[:, None, :2] + pose * people.boxes_px[:, None, 2:]
