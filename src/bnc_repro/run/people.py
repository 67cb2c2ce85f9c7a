"""The people of pictures, in boxes: a pose checkpoint asked about several people a picture, and judged in a detector's
boxes.

Boxes are x, y, width, height in px of the picture as it is stored. Results are in COCO's form: people who are one
person twice are left out by OKS-NMS. Scores are at most 1: joints' are cut there, people's are divided by the highest
that their network could reach, which keeps their order and so every measure.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..images.pictures import read
from ..poses import coco_eval
from ..poses.annotations import cut_box, is_box, is_number, is_whole, load_annotations
from ..poses.categories import category_of, of_category
from ..poses.crops import CropBatches
from ..poses.people import People, read_people
from ..poses.predict import VALIDATION, predict, to_results
from ..poses.skeleton import Skeleton
from ..poses.task import skeleton_of
from ..recipe.schema import Recipe
from . import packed
from .judge import other_labels

Box = tuple[list[float], float]  # x, y, width, height in px, and a score


@dataclass
class PoseNetwork:
    """A pose network with what its checkpoint says of it. Raises ValueError for a checkpoint of another experiment."""

    network: nn.Module
    recipe: Recipe
    skeleton: Skeleton
    device: torch.device
    source: str = "the network"  # the file that it comes from, for messages

    @classmethod
    def load(cls, path: str | Path, device: torch.device, own: Collection[str] = ()) -> "PoseNetwork":
        """The network of a checkpoint, or of a packed file, which runs on the CPU; own as in `judge.load_network`."""
        network, recipe, labels, skeleton, device = packed.load_network(path, device, own)
        if recipe.experiment != "coco_pose":
            raise ValueError(f"boxes, results and drawings are for pose checkpoints, {path} is of {recipe.experiment}")
        return cls(network, recipe, skeleton_of(recipe, labels, skeleton), device, str(path))

    def results(self, people: People) -> list[dict]:
        """COCO results of `people`, each in its box."""
        crops = CropBatches("", VALIDATION, self.recipe.data.image_size, people=people, skeleton=self.skeleton)
        results = to_results(crops, *predict(self.network, crops, self.recipe, self.device))
        highest = 1.0
        if self.recipe.pose.loss == "cross_entropy":  # a map that is sharper than its target exceeds 1, up to this
            highest = max(1.0, 2 * math.pi * self.recipe.pose.sigma_px**2)
        for entry in results:
            entry["score"] /= highest
            entry["keypoints"][2::3] = [min(score, 1.0) for score in entry["keypoints"][2::3]]
        return results


def for_data(model: PoseNetwork, root: Path) -> PoseNetwork:
    """The network for the validation people of `root`: of the category that they have there, whatever number it had
    where the network was trained. Raises ValueError for a folder without such people."""
    document, file = load_annotations(root, VALIDATION)
    category = category_of(document, file, model.recipe.data.category)["id"]
    return replace(model, skeleton=replace(model.skeleton, category=category))


def results_of_validation(model: PoseNetwork, root: Path) -> list[dict]:
    """COCO results for the validation people of `root`, each in its true box, of the category that they have there."""
    model = for_data(model, root)
    return model.results(read_people(root, VALIDATION, category=model.skeleton.category))


def image_ids(pictures: Sequence[Path]) -> list[int]:
    """An id for each picture: the number that it is called, as COCO's pictures are, where each is called by another;
    else 1, 2, 3."""
    numbers = [int(picture.stem) for picture in pictures if is_called_by_an_id(picture)]
    return numbers if len(set(numbers)) == len(pictures) else list(range(1, len(pictures) + 1))


def is_called_by_an_id(picture: Path) -> bool:
    """Whether a picture's name is a number that an id can be."""
    return picture.stem.isdecimal() and len(picture.stem) < 20 and is_whole(int(picture.stem))


def parse_box(text: str) -> list[float]:
    """A box from "x,y,width,height" in px. Raises ValueError for another form or a side that is not above 0."""
    try:
        box = [] if "_" in text else [float(number) for number in text.split(",")]  # float takes 1_0 for 10
    except ValueError:
        box = []
    if not is_box(box) or min(box[2:]) < 1:
        raise ValueError(
            f"--box {text}: write x,y,width,height in px with sides of at least 1, for instance --box 10,20,80,160"
        )
    return box


def read_boxes(file: Path, pictures: Sequence[Path], category: int = 1, whole: bool = False) -> list[list[Box]]:
    """Each picture's boxes of a category out of a detector's file in COCO's form; pictures are called by their image
    ids. whole: the pictures are all that the file may speak of.

    Raises ValueError for a file that is empty or of another form, for one whose boxes are all of other categories or
    pictures, or without a score above 0, for pictures that are not called by a number, or two by one, and with `whole`
    for an image that is none of them.
    """
    if not all(map(is_called_by_an_id, pictures)):
        raise ValueError(f"--detections {file} names pictures by image id: call them by it, as in 000000000139.jpg")
    numbers = [int(picture.stem) for picture in pictures]
    known = set(numbers)
    if len(known) < len(numbers):
        double = next(number for number in numbers if numbers.count(number) > 1)
        raise ValueError(f"--detections {file} names pictures by image id, and two are called {double}: name one")
    boxes: dict[int, list[Box]] = {}
    found: set[int] = set()
    unsure = 0
    right = {"image_id": is_whole, "category_id": is_whole, "bbox": is_box, "score": is_number}
    entries = coco_eval.load_list(file, "detection file")
    if not entries:
        raise ValueError(f"detection file {file} is empty: run the detector again, or leave --detections out")
    for row, said in enumerate(entries):
        entry: dict = {"category_id": category} | (said if isinstance(said, dict) else {})
        if not all(key in entry and is_right(entry[key]) for key, is_right in right.items()):
            raise ValueError(
                f"detection file {file}: entry {row} lacks a whole image_id or category_id, a bbox of four numbers or "
                "a score: write the file in COCO's results form"
            )
        found.add(entry["category_id"])
        if whole and entry["image_id"] not in known:
            raise ValueError(
                f"detection file {file}: no picture is called by image {entry['image_id']} of entry {row}: add the "
                "picture, or take the detections of these pictures"
            )
        if entry["category_id"] == category and entry["score"] > 0:
            boxes.setdefault(entry["image_id"], []).append((entry["bbox"], float(entry["score"])))
        elif entry["category_id"] == category and entry["image_id"] in known:
            unsure += 1
    if unsure and not boxes.keys() & known:
        raise ValueError(
            f"detection file {file} has {unsure} boxes of category {category} in {len(numbers)} pictures, none with a "
            "score above 0: write the detector's scores, which weigh its boxes"
        )
    if not boxes.keys() & known:
        raise ValueError(
            f"detection file {file} has no box of category {category} in any of {len(numbers)} pictures (it has "
            f"categories {', '.join(map(str, sorted(found)[:5]))}): name its pictures, or give boxes that category"
        )
    return [boxes.get(number, []) for number in numbers]


def people_in(pictures: Sequence[Path], boxes: Sequence[Sequence[Box]], num_keypoints: int) -> People | None:
    """The boxes of pictures as people without keypoints; None where there is no box. Raises ValueError for a picture
    that cannot be read and a box that covers nothing of it."""
    rows = []
    for picture, number, its_boxes in zip(pictures, image_ids(pictures), boxes, strict=True):
        width, height = read(picture).size
        for box, score in its_boxes:
            if min(*box[2:], *cut_box(box, width, height)[2:]) <= 0:
                raise ValueError(f"box {box} covers nothing of {picture} with its {width} x {height} px: correct it")
            rows.append((str(picture), number, box, (height, width), score))
    if not rows:
        return None
    paths, numbers, all_boxes, sizes, scores = (np.array(column) for column in zip(*rows, strict=True))
    return People(
        paths=paths,
        image_ids=numbers,
        ids=np.arange(len(rows)),
        boxes_px=all_boxes.astype(np.float64),
        joints_px=np.zeros((len(rows), num_keypoints, 2)),
        visible=np.zeros((len(rows), num_keypoints), np.int64),
        areas_px2=all_boxes[:, 2:].prod(1).astype(np.float64),
        picture_sizes=sizes,
        box_scores=scores.astype(np.float64),
    )


def results_in(model: PoseNetwork, pictures: Sequence[Path], boxes: Sequence[Sequence[Box]] | None) -> list[dict]:
    """COCO results for the people in `boxes` of each picture; None: the whole of each picture is one box."""
    if boxes is None:
        sizes = [read(picture).size for picture in pictures]
        boxes = [[([0.0, 0.0, float(width), float(height)], 1.0)] for width, height in sizes]
    people = people_in(pictures, boxes, len(model.skeleton.names))
    return [] if people is None else model.results(people)


def line_of(picture: Path, entries: Sequence[dict], names: Sequence[str]) -> dict:
    """{"picture", "people": [{"score", "keypoints": {name: [x px, y px, score]}}]}, best first."""
    people = []
    for entry in sorted(entries, key=lambda entry: -entry["score"]):
        joints = np.array(entry["keypoints"]).reshape(-1, 3).round(2).tolist()
        people.append({"score": round(entry["score"], 4), "keypoints": dict(zip(names, joints, strict=True))})
    return {"picture": str(picture), "people": people}


def _check_names(model: PoseNetwork, root: Path) -> None:
    """Raises ValueError where the keypoints of `root` are others than the network's, which may be as many."""
    document, file = load_annotations(root, VALIDATION)
    names = of_category(category_of(document, file, model.skeleton.category), file).names
    if sentence := other_labels(model.source, list(model.skeleton.names), names, str(root)):
        raise ValueError(f"{sentence}; name data with the same labels")


def evaluate_detections(model: PoseNetwork, root: Path, detections: Path) -> tuple[dict | None, list[dict]]:
    """COCOeval's ten numbers and the results in a detector's boxes of the validation pictures of `root`.

    Where `root` has no annotations, as a test set, its pictures (in `val2017/`, or in `root` itself) are called by
    their ids, and nothing is judged: None and the results.
    """
    annotations = root / "annotations" / f"person_keypoints_{VALIDATION}.json"
    if annotations.is_file():
        model = for_data(model, root)
        _check_names(model, root)
        results = model.results(coco_eval.read_detections(detections, root, VALIDATION, model.skeleton))
        return coco_eval.evaluate(annotations, results, model.skeleton, measures=coco_eval.ALL_MEASURES), results
    folder = root / VALIDATION if (root / VALIDATION).is_dir() else root
    pictures = [path for path in sorted(folder.iterdir()) if path.is_file() and is_called_by_an_id(path)]
    if not pictures:
        raise ValueError(
            f"{root} has neither {annotations.relative_to(root)} nor pictures called by their image ids: name a folder "
            "with either"
        )
    return None, results_in(model, pictures, read_boxes(detections, pictures, model.skeleton.category, True))
