"""Keypoint data sets in COCO's form: the people of a split, a crop of each, the mean pose.

The form is COCO's (cocodataset.org, "Data format"), read as plain JSON; crops and their augmentation follow
SimpleBaseline (arXiv 1804.06208) and HRNet (1902.09212). The authors released no pose code. What differs from
the usual implementations: one scale on both axes of a crop in UDP's units too, and draws that depend on seed,
epoch and person alone. Heatmaps are made and read in `pictures`, whose names are repeated here.

Any data set of this form works: its file says what its keypoints are (see `skeleton`).

Legend: N people, K keypoints, H, W crop size in px. Sizes are (height, width); points are (x, y), counted
from pixel centres; boxes are x, y, width, height.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from . import pictures
from .pictures import Augmentation, cut_box, decode, encode, flip_back, to_image  # noqa: F401  for users too
from .skeleton import COCO_PERSON, Skeleton, of_category

PADDING = 1.25


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
    """The parsed annotation file; ValueError when it is missing, damaged or in another form."""
    if not file.is_file():
        raise ValueError(f"annotation file {file} is missing: a data set is a folder with annotations/"
                         "person_keypoints_<split>.json and the pictures in <split>/ (COCO 2017: unpack "
                         "annotations_trainval2017.zip, train2017.zip, val2017.zip of cocodataset.org)")
    try:
        document = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"annotation file {file} is empty, cut off or no JSON: copy it again") from error
    if not isinstance(document, dict) or any(
            not isinstance(document.get(part), list) for part in ("images", "annotations", "categories")):
        raise ValueError(f"annotation file {file} lacks the lists images, annotations and categories: "
                         "it is not in COCO's form, take a person_keypoints_*.json")
    if not any("keypoints" in category for category in document["categories"]):
        raise ValueError(f"annotation file {file} has no category with keypoints: "
                         "take person_keypoints_*.json, not instances_*.json")
    return document


def category_of(document: dict) -> dict:
    """The annotation file's first category with keypoints, the one that everything here is about."""
    return next(one for one in document["categories"] if "keypoints" in one)


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
    if any("id" not in one for one in [*document["images"], *document["annotations"]]):
        yield f"{file} has images or annotations without an id: give each a number of its own"
        return
    if len(category["keypoints"]) != count:
        yield (f"{file}: category {category['id']} has {len(category['keypoints'])} keypoints, the skeleton that "
               f"was passed {count}: pass this data set's own, or none")
        return
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    images = {}
    for image in document["images"]:
        images[image["id"]] = image
        if not {"file_name", "width", "height"} <= image.keys():
            yield f"{file}: image {image['id']} lacks file_name, width or height: add them"
        elif image["file_name"] not in present and not (folder / image["file_name"]).is_file():
            yield (f"{file}: image {image['id']} is listed, but {folder / image['file_name']} is missing: "
                   f"copy the pictures to {folder} again, or remove the image from the file")
    for one in document["annotations"]:
        if one.get("category_id") != category["id"]:
            continue
        where = f"{file}: annotation {one['id']}"
        if "keypoints" not in one:
            yield f"{where} has no keypoints: take person_keypoints_*.json, or remove the annotation"
        elif len(one["keypoints"]) != 3 * count:
            yield f"{where} has {len(one['keypoints'])} keypoint numbers, not 3 x {count}: mend or remove it"
        elif one.get("image_id") not in images:
            yield f"{where} has image {one.get('image_id')}, which is not listed: add the image or remove it"
        elif _is_person(one) and "width" in (image := images[one["image_id"]]):
            box = one.get("bbox", [0, 0, 0, 0])
            if min(box[2:]) <= 0:
                yield f"{where} (image {image['id']}) has a box of no area {box}: correct or remove it"
            elif min(cut_box(box, image["width"], image["height"])[2:]) <= 0:
                yield (f"{where} has a box {box} outside its image {image['id']} of {image['width']} x "
                       f"{image['height']} px: correct or remove it")


def _is_person(one: dict) -> bool:
    """COCO's rule for training and for evaluation with true boxes: no crowd, some labelled keypoint."""
    labelled = one["num_keypoints"] if "num_keypoints" in one else np.count_nonzero(one["keypoints"][2::3])
    return labelled > 0 and not one.get("iscrowd", 0)


def read_people(root: str | os.PathLike, split: str, skeleton: Skeleton | None = None) -> People:
    """The people of `root/annotations/person_keypoints_<split>.json`, less crowds and those without any
    labelled keypoint. Raises ValueError with the first of `faults`, and when nobody is left."""
    (document, file), folder = load_annotations(root, split), Path(root) / split
    if wrong := list(_faults(document, file, folder, skeleton)):
        raise ValueError(wrong[0] + (f" ({len(wrong) - 1} more faults like it)" if len(wrong) > 1 else ""))
    category = category_of(document)
    images = {image["id"]: image for image in document["images"]}
    chosen = [one for one in document["annotations"]
              if one.get("category_id") == category["id"] and _is_person(one)]
    if not chosen:
        raise ValueError(f"{file} has no person with a labelled keypoint, crowds aside: take another split")
    pictured = [images[one["image_id"]] for one in chosen]
    keypoints = np.array([one["keypoints"] for one in chosen], np.float64).reshape(len(chosen), -1, 3)
    return People(
        paths=np.array([str(folder / image["file_name"]) for image in pictured]),
        image_ids=np.array([image["id"] for image in pictured]), ids=np.array([one["id"] for one in chosen]),
        boxes_px=np.array([cut_box(one["bbox"], image["width"], image["height"])
                           for one, image in zip(chosen, pictured)], np.float64),
        joints_px=keypoints[..., :2], visible=keypoints[..., 2].astype(np.int64),
        areas_px2=np.array([one.get("area", np.nan) for one in chosen], np.float64),
        picture_sizes=np.array([(image["height"], image["width"]) for image in pictured]),
        box_scores=np.ones(len(chosen)))


class PersonCrops(Dataset):
    """One crop for each person of a split: the box with 25 % of padding at the crop's aspect ratio, upright.

    size: (H, W) px. augment: True, or an `Augmentation`, varies every crop; the draws for person i depend on
    `set_epoch`'s seed and epoch and on i alone, so neither workers nor a resume change them. limit: the first
    so many people (judge them with `evaluate(..., ids=crops.people.ids)`). cache: keep decoded pictures, or the
    crops where they never vary, up to `cache_mib` in each process. people: rows in place of the annotated ones.
    skeleton: the annotation file's own unless given; COCO's where `people` are given.

    An item: `image` uint8 (3, H, W); `joints` float32 (K, 2) crop px; `visible` float32 (K,), 0 where
    unlabelled or outside the crop; `matrix` float32 (2, 3), crop px to picture px; `index` int64 ().

    Raises ValueError for bad annotations (see `read_people`) here, for bad pictures at their first use.
    """

    def __init__(self, root: str | os.PathLike, split: str, size: tuple[int, int],
                 augment: bool | Augmentation = False, limit: int | None = None,
                 skeleton: Skeleton | None = None, cache: bool = True, unbiased: bool = True,
                 cache_mib: int = 2048, people: People | None = None):
        if people is None:
            people = read_people(root, split, skeleton)
            document, file = load_annotations(root, split)
            skeleton = skeleton or of_category(category_of(document), file)
        skeleton = skeleton or COCO_PERSON
        if limit is not None and limit < 1:
            raise ValueError(f"limit {limit} leaves no person: give a number above 0, or None for all")
        self.people = people.take(range(min(limit or len(people), len(people))))
        self.root, self.size, self.skeleton, self.unbiased = root, size, skeleton, unbiased
        self.augmentation = Augmentation() if augment is True else augment or None
        self._mirrored = np.array(skeleton.mirrored)
        self._upper = np.isin(np.arange(len(skeleton.names)), skeleton.upper)
        self._shelf = pictures.Shelf(cache_mib if cache else 0)
        fits = len(self.people) * size[0] * size[1] * 3 <= cache_mib * 2**20
        self._kept = {} if cache and fits and self.augmentation is None else None
        # shared memory: workers that outlive an epoch see the new one
        self._stream = torch.zeros(2, dtype=torch.int64).share_memory_()
        self._drawn_for: tuple[int, ...] = ()

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Choose the stream of the augmentation; call it before each epoch's iterator is made."""
        self._stream.copy_(torch.tensor([seed, epoch]))

    def __len__(self) -> int:
        return len(self.people)

    def areas_px2(self) -> np.ndarray:
        """What each person's upright crop covers of the picture, (N,)."""
        height, width = np.array(self.size) - self.unbiased
        across = np.maximum(self.people.boxes_px[:, 2], self.people.boxes_px[:, 3] * width / height) * PADDING
        return across**2 * height / width

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.batch([index]).items()}

    def batch(self, indices: Iterable[int]) -> dict[str, Tensor]:
        """The items of these people, stacked: image (N, 3, H, W), joints (N, K, 2), and so on."""
        people, (height, width) = self.people, self.size
        rows = [int(index) for index in indices]
        crops, matrices, flipped = zip(*(self._crop(row) for row in rows))
        joints, labelled, matrix = people.joints_px[rows], people.visible[rows] > 0, np.stack(matrices)
        flipped = np.array(flipped)[:, None]
        labelled = np.where(flipped, labelled[:, self._mirrored], labelled)
        joints = np.where(flipped[..., None], joints[:, self._mirrored], joints)
        turn = matrix[..., :2]  # orthogonal columns of one length: inverse = transpose / length^2
        joints = (joints - matrix[:, None, :, 2]) @ turn / (turn[..., 0] ** 2).sum(-1)[:, None, None]
        inside = ((joints >= -0.5) & (joints < (width - 0.5, height - 0.5))).all(-1)
        return {"image": torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous(),
                "joints": torch.from_numpy(np.where(labelled[..., None], joints, 0)).float(),
                "visible": torch.from_numpy(labelled & inside).float(),
                "matrix": torch.from_numpy(matrix).float(), "index": torch.tensor(rows)}

    def _crop(self, index: int) -> tuple[np.ndarray, np.ndarray, bool]:
        if index in (self._kept or ()):
            return self._kept[index]
        box, scale, degrees, flip = self.people.boxes_px[index], 1.0, 0.0, False
        if self.augmentation is not None:
            labelled = self.people.visible[index] > 0
            joints = self.people.joints_px[index][labelled]
            box, scale, degrees, flip = pictures.vary(self.augmentation, self._draws(index), box, joints,
                                                      self._upper[labelled])
        x, y, box_width, box_height = box.tolist()
        height, width = np.array(self.size) - self.unbiased
        matrix = pictures.crop_matrix((x + box_width / 2, y + box_height / 2),
                                      max(box_width, box_height * width / height) * PADDING * scale,
                                      self.size, degrees, flip, self.unbiased)
        crop = np.asarray(pictures.warp(self._picture(index), matrix, self.size)), matrix, flip
        return crop if self._kept is None else self._kept.setdefault(index, crop)

    def _draws(self, index: int) -> list[float]:
        stream = tuple(self._stream.tolist())
        if stream != self._drawn_for:  # all people at once; rows are filled in order, so a row knows no other
            self._normal = np.random.default_rng([*stream, 0]).standard_normal((len(self), 2))
            self._uniform = np.random.default_rng([*stream, 1]).random((len(self), 4))
            self._drawn_for = stream
        return [*self._normal[index].tolist(), *self._uniform[index].tolist()]

    def _picture(self, index: int) -> Image.Image:
        path = str(self.people.paths[index])
        picture = self._shelf.read(path)
        height, width = self.people.picture_sizes[index]
        if picture.size != (width, height):
            raise ValueError(f"picture {path} has {picture.width} x {picture.height} px, its annotations "
                             f"(image {self.people.image_ids[index]}) say {width} x {height}: "
                             "take the original file")
        return picture


def mean_pose(people: People) -> np.ndarray:
    """The mean of each labelled joint in units of the box, (K, 2); 0.5 for joints never labelled."""
    in_box = (people.joints_px - people.boxes_px[:, None, :2]) / people.boxes_px[:, None, 2:]
    labelled = (people.visible > 0)[..., None]
    counts = labelled.sum(0)
    return np.where(counts > 0, np.where(labelled, in_box, 0).sum(0) / np.maximum(counts, 1), 0.5)


def predict_mean_pose(pose: np.ndarray, people: People) -> np.ndarray:
    """The baseline: the training split's `mean_pose` (K, 2) in each person's box, (N, K, 2) px."""
    return people.boxes_px[:, None, :2] + pose * people.boxes_px[:, None, 2:]
