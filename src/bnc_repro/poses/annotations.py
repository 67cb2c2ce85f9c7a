"""Annotation files in COCO's form: read once, and every value looked at before anything uses it.

The form is COCO's (cocodataset.org, "Data format"), read as plain JSON. `load_file` raises for values of another type
than COCO's, so nobody below it asks again; `faults` names what is of the right type and wrong.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from .categories import category_of, is_person, of_category
from .skeleton import Skeleton

LARGEST_ID = 2**53  # what JSON numbers hold everywhere; PoseTrack's ids have 11 digits
LARGEST_PX = 2**31  # sizes and coordinates beyond it are no px
LEAST_PX2 = 1.0  # of a person's area: less is a share of something, or nothing
MOST_OF_BOX = 2  # times its box or its picture: segments have less, some sets the area of a padded or an uncut box


def cut_box(box_px: Sequence[float], width: int, height: int) -> tuple[float, float, float, float]:
    """What a box (x, y, width, height) covers of a picture; a side <= 0 when it covers nothing."""
    left, top = max(box_px[0], 0), max(box_px[1], 0)
    return left, top, min(box_px[0] + box_px[2], width) - left, min(box_px[1] + box_px[3], height) - top


def load_annotations(root: str | os.PathLike, split: str) -> tuple[dict, Path]:
    """`root/annotations/person_keypoints_<split>.json`, parsed, and its path; ValueError as `load_file`."""
    file = Path(root) / "annotations" / f"person_keypoints_{split}.json"
    return load_file(file), file


def load_file(file: Path) -> dict:
    """The parsed annotation file, which nobody may change: it is read once. Raises ValueError when it is missing,
    damaged, in another form, or has a value of another type, naming the first and counting the rest."""
    document, wrong = parsed(file)
    if wrong:
        raise ValueError(wrong[0] + (f" ({len(wrong) - 1} more faults like it)" if len(wrong) > 1 else ""))
    return document


def parsed(file: Path) -> tuple[dict, tuple[str, ...]]:
    """An annotation file and what is wrong with the types of its values, a sentence each. Raises ValueError when it is
    missing, damaged or in another form."""
    if not file.is_file():
        raise ValueError(
            f"annotation file {file} is missing: a data set is a folder with annotations/"
            "person_keypoints_<split>.json and the pictures in <split>/ (COCO 2017: unpack "
            "annotations_trainval2017.zip, train2017.zip, val2017.zip of cocodataset.org)"
        )
    state = file.stat()
    return _parsed(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)  # a run asks for a split's file several times, for its people, its skeleton and its judge
def _parsed(file: Path, modified_ns: int, size: int) -> tuple[dict, tuple[str, ...]]:
    document = load_json(file, "annotation file")
    if not isinstance(document, dict) or any(
        not isinstance(document.get(part), list) for part in ("images", "annotations", "categories")
    ):
        raise ValueError(
            f"annotation file {file} lacks the lists images, annotations and categories: "
            "it is not in COCO's form, take a person_keypoints_*.json"
        )
    if not any(isinstance(category, dict) and "keypoints" in category for category in document["categories"]):
        raise ValueError(
            f"annotation file {file} has no category with keypoints: take person_keypoints_*.json, not "
            'instances_*.json, or add to the category its "keypoints", a list of their names'
        )
    return document, tuple(_wrong_types(document, file))


def load_json(file: Path, kind: str) -> object:
    """What a JSON file holds. Raises ValueError when it may not be read, is cut off or no JSON."""
    try:
        return json.loads(file.read_bytes())
    except PermissionError as error:
        raise ValueError(f"{kind} {file} may not be read: change its permissions (chmod +r)") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{kind} {file} is empty, cut off or no JSON: make or copy it again") from error


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number that an id or a size can be."""
    return type(value) is int and abs(value) <= LARGEST_ID


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a coordinate can be."""
    return type(value) in (int, float) and abs(value) <= LARGEST_PX


def is_box(value: object) -> bool:
    """Whether a value is a box: x, y, width and height."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def _is_pairs(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(is_whole, pair)) for pair in value
    )


def _is_names(value: object) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(name, str) and name for name in value)
        and len(set(value)) == len(value)
    )


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


# key -> (whether its value is right, what it should be, whether it may be left out)
_Rules = dict[str, tuple[Callable[[Any], bool], str, bool]]
_CATEGORY: _Rules = {
    "keypoints": (_is_names, "a list of names, each once, or the name of the set they are of", True),
    "name": (lambda value: isinstance(value, str), "text", True),
    "sigmas": (lambda value: isinstance(value, list) and all(map(is_number, value)), "a list of numbers", True),
    "flip_pairs": (_is_pairs, "a list of pairs of keypoints, counted from 0", True),
    "skeleton": (_is_pairs, "a list of pairs of keypoints", True),
    "upper": (lambda value: isinstance(value, list) and all(map(is_whole, value)), "a list of whole numbers", True),
}
_IMAGE: _Rules = {
    "file_name": (_is_file_name, "a file's name", False),
    "width": (lambda value: is_whole(value) and 0 < value <= LARGEST_PX, "a whole number of px above 0", False),
    "height": (lambda value: is_whole(value) and 0 < value <= LARGEST_PX, "a whole number of px above 0", False),
}
_ANNOTATION: _Rules = {
    "image_id": (is_whole, "the id of an image", False),
    "category_id": (is_whole, "the id of a category", False),
    "bbox": (is_box, "four finite numbers x, y, width, height", True),
    "area": (lambda value: is_number(value) and value >= 0, "a number of px^2", True),
    "iscrowd": (lambda value: value in (0, 1) and not isinstance(value, float), "0 or 1", True),
    "num_keypoints": (lambda value: is_whole(value) and value >= 0, "a whole number from 0", True),
    "keypoints": (lambda value: isinstance(value, list), "a list of numbers", True),
}


def _wrong_types(document: dict, file: Path) -> Iterator[str]:
    """What is wrong with the types of a document's values, and with its ids."""
    for part, singular, rules in (
        ("categories", "category", _CATEGORY),
        ("images", "image", _IMAGE),
        ("annotations", "annotation", _ANNOTATION),
    ):
        used: Counter = Counter()
        for position, entry in enumerate(document[part]):
            if not isinstance(entry, dict):
                yield f"{file}: entry {position} of {part} is {_shown(entry)}, no object with keys: mend or remove it"
                continue
            if "id" not in entry:
                yield f"{file}: entry {position} of {part} has no id: give each a number of its own"
                continue
            if not is_whole(entry["id"]):
                yield (
                    f"{file}: one of the {part} has the id {_shown(entry['id'])}: give it a whole number of its own, "
                    f"of at most {LARGEST_ID}"
                )
                continue
            used[entry["id"]] += 1
            where = f"{file}: {singular} {entry['id']}"
            for key, (is_right, form, optional) in rules.items():
                if key not in entry:
                    if not optional:
                        yield f"{where} lacks {key}: add it, {form}"
                elif not is_right(entry[key]):
                    yield f"{where} has {_shown(entry[key])} as {key}, which is {form}: mend or remove it"
        for number, times in used.items():
            if times > 1:
                yield f"{file}: id {number} is used by {times} {part}: give each a number of its own"


def _shown(value: object) -> str:
    """A value in a sentence, cut short."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def faults(
    root: str | os.PathLike, split: str, skeleton: Skeleton | None = None, category: str | int = ""
) -> list[str]:
    """What would stop or spoil a training, a sentence each, with file, id and remedy. Pictures are looked
    for, not opened. category: as in `category_of`. Raises ValueError where the annotation file is missing, damaged or
    in another form."""
    file = Path(root) / "annotations" / f"person_keypoints_{split}.json"
    document, wrong = parsed(file)
    return list(wrong or _faults(document, file, Path(root) / split, skeleton, category))


def _faults(document: dict, file: Path, folder: Path, skeleton: Skeleton | None, wanted: str | int) -> Iterator[str]:
    try:
        category = category_of(document, file, skeleton.category if skeleton and wanted == "" else wanted)
        own_skeleton = of_category(category, file)
    except ValueError as error:
        yield str(error)
        return
    skeleton = skeleton or own_skeleton
    count = len(skeleton.names)
    if len(own_skeleton.names) != count:
        yield (
            f"{file}: category {category['id']} has {len(own_skeleton.names)} keypoints, the skeleton that "
            f"was passed {count}: pass this data set's own, or none"
        )
        return
    listed = {other["id"] for other in document["categories"]}
    for entry in document["annotations"]:
        if entry["category_id"] not in listed:
            yield (
                f"{file}: annotation {entry['id']} is of category {entry['category_id']}, which the file does not "
                "list: correct it, add the category, or remove the annotation"
            )
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    images = {image["id"]: image for image in document["images"]}
    for image in document["images"]:
        if leaves_its_folder(image["file_name"]):
            yield f"{file}: image {image['id']} is called {image['file_name']}, outside of {folder}: name it within"
        elif image["file_name"] not in present and not _is_file(folder / image["file_name"]):
            yield (
                f"{file}: image {image['id']} is listed, but {folder / image['file_name']} is missing: "
                f"copy the pictures to {folder} again, or remove the image from the file"
            )
    for entry in document["annotations"]:
        if entry["category_id"] == category["id"]:
            yield from _annotation_faults(entry, images, f"{file}: annotation {entry['id']}", count)


def _annotation_faults(entry: dict, images: dict[int, dict], where: str, count: int) -> Iterator[str]:
    if "keypoints" not in entry:
        yield f"{where} has no keypoints: take person_keypoints_*.json, or remove the annotation"
    elif len(entry["keypoints"]) != 3 * count:
        yield f"{where} has {len(entry['keypoints'])} keypoint numbers, not 3 x {count}: mend or remove it"
    elif (why := _bad_numbers(entry["keypoints"])) is not None:
        yield f"{where} has {why}: mend or remove it"
    elif entry["image_id"] not in images:
        yield f"{where} has image {entry['image_id']}, which is not listed: add the image or remove it"
    elif "bbox" not in entry:  # of crowds and unlabelled people too: COCOeval measures distances from it
        yield (
            f"{where} (image {entry['image_id']}) has no bbox, the box that is cut out or measured from: add it or "
            "remove the annotation"
        )
    elif (why := _miscounted(entry)) is not None:
        yield f"{where} has {why}: correct either, or leave num_keypoints out"
    elif is_person(entry):
        yield from _person_faults(entry, images[entry["image_id"]], where)


def _person_faults(entry: dict, image: dict, where: str) -> Iterator[str]:
    """What is wrong with a person's box and area; entry and image are of the right types."""
    box, sides = entry["bbox"], (image["width"], image["height"])
    if min(box[2:]) <= 0:
        yield f"{where} (image {image['id']}) has a box of no area {box}: correct or remove it"
    elif min(cut_box(box, *sides)[2:]) <= 0:
        yield (
            f"{where} has a box {box} outside its image {image['id']} of {sides[0]} x {sides[1]} px: correct or remove "
            "it"
        )
    elif "area" in entry:
        most = MOST_OF_BOX * min((box[2] + 1) * (box[3] + 1), (sides[0] + 1) * (sides[1] + 1))
        if not LEAST_PX2 <= entry["area"] <= most:
            yield (
                f"{where} (image {image['id']}) has the area {entry['area']:g}, which no person has in a box {box} of "
                f"a picture of {sides[0]} x {sides[1]} px: write its segment's px^2, or leave area out"
            )


def _miscounted(entry: dict) -> str | None:
    """What is wrong with num_keypoints beside the joints that are labelled; None: nothing. Crowds are nobody, and sets
    that join parts count those of the body alone, which are fewer."""
    stated, labelled = entry.get("num_keypoints"), sum(flag > 0 for flag in entry["keypoints"][2::3])
    if stated is None or entry.get("iscrowd", 0) or 0 < stated <= labelled or stated == labelled:
        return None
    return f"{stated} as num_keypoints, but labels {labelled or 'none'}"


def leaves_its_folder(name: str) -> bool:
    """Whether a picture's name in an annotation file leads out of the pictures' folder."""
    return Path(name).is_absolute() or ".." in Path(name).parts


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no disk can hold
        return False


def _bad_numbers(keypoints: list) -> str | None:
    """What is wrong with an annotation's numbers x, y, v, x, y, v, ...; None: nothing."""
    for name, values in (("x", keypoints[0::3]), ("y", keypoints[1::3]), ("visibility", keypoints[2::3])):
        for joint, value in enumerate(values):
            if not is_number(value):
                return f"{_shown(value)} as {name} of keypoint {joint}"
            if name == "visibility" and value not in (0, 1, 2):
                return f"visibility {value} of keypoint {joint}, which is 0, 1 or 2"
    return None
