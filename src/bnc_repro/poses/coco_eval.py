"""Pose results in COCO's form and their average precision.

The protocol of SimpleBaseline and HRNet (arXiv 1804.06208, 1902.09212): a person's score is the box's times
the mean of its confident joints, OKS-NMS leaves out repeated people, COCOeval of pycocotools judges. Two
things differ: a person without a confident joint keeps the mean of all its joints as score, not 0, so that
weak networks are still ranked; and what pycocotools answers with -1, because nobody belongs to it, is None.

Boxes of a detector and true boxes give different numbers that must not be mixed: `read_detections` makes the
people of the first, `people.read_people` those of the second.

Legend: N people, K keypoints; points are (x, y) px of the picture; boxes are x, y, width, height.
"""

import contextlib
import io
import json
import os
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..training.checkpoint import atomic
from .annotations import cut_box, faults, is_box, is_number, is_whole, load_annotations, load_file, load_json
from .categories import category_of, of_category
from .measures import oks
from .people import People, area_px2
from .skeleton import COCO_PERSON, Skeleton

MEASURES = ("AP", "AP50", "AP75", "APm", "APl", "AR")
ALL_MEASURES = (*MEASURES, "AR50", "AR75", "ARm", "ARl")


def read_detections(
    file: str | os.PathLike,
    root: str | os.PathLike,
    split: str,
    skeleton: Skeleton | None = None,
    score_above: float = 0.0,
) -> People:
    """The boxes of a detector's file as people without keypoints, for `PersonCrops(..., people=...)`.

    file: a JSON list of {image_id, category_id, bbox, score} over the pictures of `root/<split>/`. Boxes stay as
    they are, also where they reach beyond the picture. Those of other categories, or with a score not above
    `score_above`, are left out; so are boxes that cover nothing of their picture, with a warning.

    Raises ValueError for a missing, damaged or empty file, an entry without these fields or with a number
    that is not finite, an image that the annotation file does not list, and the faults of the split itself.
    """
    if wrong := faults(root, split, skeleton):
        raise ValueError(wrong[0])
    file, folder, (document, annotations) = Path(file), Path(root) / split, load_annotations(root, split)
    taken = category_of(document, annotations, skeleton.category if skeleton else "")
    skeleton, category = skeleton or of_category(taken, annotations), taken["id"]
    images = {image["id"]: image for image in document["images"]}
    entries = load_list(file, "detection file")
    if not entries:
        raise ValueError(f"detection file {file} is empty: run the detector again, or use the true boxes")
    chosen, empty, unsure = [], [], []
    for row, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {"image_id", "category_id", "bbox", "score"} <= entry.keys():
            raise ValueError(
                f"detection file {file}: entry {row} lacks image_id, category_id, bbox or "
                "score: write the file in COCO's results form"
            )
        for key, is_right in (
            ("image_id", is_whole),
            ("category_id", is_whole),
            ("bbox", is_box),
            ("score", is_number),
        ):
            if not is_right(entry[key]):
                raise ValueError(
                    f"detection file {file}: entry {row} has {entry[key]!r} as {key}: write whole numbers for ids, "
                    "four finite numbers for a box and one for its score, or remove the entry"
                )
        if entry["image_id"] not in images:
            raise ValueError(
                f"detection file {file}: image {entry['image_id']} of entry {row} is not listed "
                f"in {annotations}: take the detections of this split"
            )
        image = images[entry["image_id"]]
        if entry["category_id"] == category and entry["score"] <= score_above:
            unsure.append(entry["score"])
        elif entry["category_id"] == category:
            seen = cut_box(entry["bbox"], image["width"], image["height"])
            (chosen if min(*entry["bbox"][2:], *seen[2:]) > 0 else empty).append((row, entry, entry["bbox"]))
    if empty:
        warnings.warn(
            f"detection file {file}: {len(empty)} boxes cover nothing of their picture and are "
            f"left out, first entry {empty[0][0]} (image {empty[0][1]['image_id']})",
            stacklevel=2,
        )
    if min(unsure, default=0) < 0:
        warnings.warn(
            f"detection file {file}: {len(unsure)} boxes have scores of {score_above:g} or less, down to "
            f"{min(unsure):g}, and are left out: a detector's scores are probabilities here",
            stacklevel=2,
        )
    if not chosen:
        raise ValueError(
            f"detection file {file} has no box of category {category} with a score above "
            f"{score_above}: lower score_above, or run the detector again"
        )
    rows, kept, boxes = zip(*chosen)
    pictured = [images[entry["image_id"]] for entry in kept]
    boxes, count = np.array(boxes, np.float64), len(skeleton.names)
    return People(
        paths=np.array([str(folder / image["file_name"]) for image in pictured]),
        image_ids=np.array([image["id"] for image in pictured]),
        ids=np.array(rows),
        boxes_px=boxes,
        joints_px=np.zeros((len(rows), count, 2)),
        visible=np.zeros((len(rows), count), np.int64),
        areas_px2=boxes[:, 2] * boxes[:, 3],
        picture_sizes=np.array([(image["height"], image["width"]) for image in pictured]),
        box_scores=np.array([entry["score"] for entry in kept], np.float64),
    )


def rescore(joint_scores: np.ndarray, box_scores: np.ndarray, threshold: float = 0.2) -> np.ndarray:
    """People's scores (N,): box score times the mean of the joint scores (N, K) above `threshold`, or of all
    joints where none is."""
    confident = joint_scores > threshold
    confident |= ~confident.any(1, keepdims=True)
    return box_scores * np.where(confident, joint_scores, 0).sum(1) / confident.sum(1)


def oks_nms(
    coordinates: np.ndarray, scores: np.ndarray, areas_px2: np.ndarray, sigmas: Sequence[float], threshold: float = 0.9
) -> np.ndarray:
    """The rows of one picture that stay (M,), best first: each drops those after it with OKS above threshold.

    coordinates (N, K, 2), scores (N,), areas_px2 (N,); the OKS of two people is taken over all keypoints with
    the mean of their areas.
    """
    order = np.argsort(-scores, kind="stable")
    points, areas = coordinates[order], areas_px2[order]
    similarity = oks(
        points[:, None], points[None], np.ones((1, 1, points.shape[1])), (areas[:, None] + areas[None]) / 2, sigmas
    )  # (N, N)
    stays = np.ones(len(order), bool)
    for row in range(len(order)):
        if stays[row]:
            stays[row + 1 :] &= ~(similarity[row, row + 1 :] > threshold)
    return order[stays]


def to_results(
    people: People,
    coordinates: np.ndarray,
    joint_scores: np.ndarray,
    skeleton: Skeleton = COCO_PERSON,
    joint_threshold: float = 0.2,
    nms_threshold: float | None = 0.9,
    areas_px2: np.ndarray | None = None,
    scored_joints: Sequence[int] | None = None,
) -> list[dict]:
    """Predictions as a COCO results list: rescored, and thinned out by OKS-NMS (None: not).

    people: whose boxes were used, one row a prediction. coordinates (N, K, 2) px, joint_scores (N, K).
    areas_px2 (N,): people's sizes for OKS-NMS, those of their crops in HRNet; None for those of their boxes.
    scored_joints: those that the score counts, for data sets that label only some; None for all.

    Raises ValueError for coordinates or scores that are not finite, naming the image.
    """
    coordinates, joint_scores = np.asarray(coordinates, np.float64), np.asarray(joint_scores, np.float64)
    finite = np.isfinite(coordinates).all((1, 2)) & np.isfinite(joint_scores).all(1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(
            f"the prediction for person {row} (image {people.image_ids[row]}) is not finite: "
            "the network has diverged, evaluate an earlier checkpoint"
        )
    counted = joint_scores if scored_joints is None else joint_scores[:, list(scored_joints)]
    scores = rescore(counted, people.box_scores, joint_threshold)
    areas = people.boxes_px[:, 2] * people.boxes_px[:, 3] if areas_px2 is None else areas_px2
    kept = np.arange(len(people))
    if nms_threshold is not None and len(people):
        by_image = np.argsort(people.image_ids, kind="stable")
        starts = np.flatnonzero(np.diff(people.image_ids[by_image])) + 1
        kept = np.concatenate(
            [
                rows[oks_nms(coordinates[rows], scores[rows], areas[rows], skeleton.sigmas, nms_threshold)]
                for rows in np.split(by_image, starts)
            ]
        )
    keypoints = np.concatenate((coordinates, joint_scores[..., None]), -1).reshape(len(coordinates), -1)
    return [
        {
            "image_id": people.image_ids[row].item(),
            "category_id": skeleton.category,
            "keypoints": keypoints[row].tolist(),
            "score": scores[row].item(),
        }
        for row in kept
    ]


def save_results(results: list[dict], file: str | os.PathLike) -> Path:
    """Write a results list as JSON and return its path."""
    with atomic(Path(file)) as temporary:
        temporary.write_text(json.dumps(results, allow_nan=False), encoding="utf-8")
    return Path(file)


def read_results(
    file: str | os.PathLike, images: Collection[int], listed_in: Path, skeleton: Skeleton = COCO_PERSON
) -> list[dict]:
    """The entries of a results file over pictures with these ids. Raises ValueError as `evaluate` does."""
    entries = load_list(Path(file), "results file")
    _check_results(entries, f"results file {file}", images, skeleton, listed_in)
    return entries


def evaluate(
    annotation_file: str | os.PathLike,
    results: list[dict] | str | os.PathLike,
    skeleton: Skeleton | None = None,
    ids: Sequence[int] | None = None,
    measures: Sequence[str] = MEASURES,
) -> dict[str, float | None]:
    """COCOeval's AP, AP50, AP75, APm, APl and AR (OKS 0.5 to 0.95, at most 20 people a picture), or all ten numbers.

    results: a list in COCO's form, or its JSON file. ids: the annotations to judge by, None for all; the
    others are left out as if nobody stood there. Only the category with keypoints counts.

    A measure is None when no annotated person belongs to it. No results give 0 and a warning. Raises
    ValueError, naming the image, for numbers that are not finite, a wrong number of keypoints, or an image
    not annotated. People without areas have their box's share (`people.AREA_OF_BOX`).
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    file = Path(annotation_file)
    document = dict(load_file(file))
    where = "the results" if isinstance(results, list) else f"results file {results}"
    results = results if isinstance(results, list) else load_list(Path(results), "results file")
    category = category_of(document, file, skeleton.category if skeleton else "")
    skeleton = skeleton or of_category(category, file)
    images = {image["id"]: image for image in document["images"]}
    _check_results(results, where, images, skeleton, file)
    document["categories"] = [category]
    document["annotations"] = [
        dict(entry) for entry in document["annotations"] if entry.get("category_id") == category["id"]
    ]
    if ids is not None:
        wanted = set(np.asarray(ids).tolist())
        document["annotations"] = [entry for entry in document["annotations"] if entry["id"] in wanted]
    for number, entry in enumerate(document["annotations"], 1):
        entry["id"] = number  # COCOeval takes id 0 for "unmatched"
        entry.setdefault("iscrowd", 0)
        if "num_keypoints" not in entry:
            entry["num_keypoints"] = int(np.count_nonzero(entry["keypoints"][2::3]))
        entry["area"] = area_px2(entry, images.get(entry["image_id"], {"width": 0, "height": 0}))
    with contextlib.redirect_stdout(io.StringIO()):
        truth: Any = COCO()
        truth.dataset = document
        truth.createIndex()
        if results:
            detected = truth.loadRes([dict(entry) for entry in results])  # pycocotools writes into what it is given
        else:
            warnings.warn(f"{where} hold no person: AP is 0", stacklevel=2)
            detected: Any = COCO()  # loadRes([]) would fail
            detected.dataset = {**document, "annotations": []}
            detected.createIndex()
        judge = COCOeval(truth, detected, "keypoints")
        judge.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    values: dict[str, float] = dict(zip(ALL_MEASURES, judge.stats.tolist(), strict=True))
    return {name: None if values[name] < 0 else values[name] for name in measures}


def load_list(file: Path, kind: str) -> list:
    """The entries of a results or a detector's file. Raises ValueError when it is missing, damaged or no list."""
    if not file.is_file():
        raise ValueError(f"{kind} {file} is missing: correct the path, or make the file first")
    entries = load_json(file, kind)
    if not isinstance(entries, list):
        raise ValueError(f"{kind} {file} is no JSON list: write it in COCO's results form")
    return entries


def _check_results(
    results: list[dict], where: str, known: Collection[int], skeleton: Skeleton, annotations: Path
) -> None:
    count = len(skeleton.names)
    for row, entry in enumerate(results):
        if not isinstance(entry, dict) or not {"image_id", "category_id", "keypoints", "score"} <= entry.keys():
            raise ValueError(
                f"{where}: entry {row} lacks image_id, category_id, keypoints or score: write it in COCO's results form"
            )
        name = f"{where}: entry {row} (image {entry['image_id']})"
        if not isinstance(entry["keypoints"], list):
            raise ValueError(f"{name} has no list as keypoints: write it in COCO's results form")
        if not is_whole(entry["image_id"]) or entry["image_id"] not in known:
            raise ValueError(f"{name} is of an image that {annotations} does not list: take the results of this split")
        if entry["category_id"] != skeleton.category:
            raise ValueError(
                f"{name} is of category {entry['category_id']}, the keypoints of {annotations} are of "
                f"category {skeleton.category}: write that number, or take the results of this data set"
            )
        if len(entry["keypoints"]) != 3 * count:
            raise ValueError(
                f"{name} has {len(entry['keypoints'])} keypoint numbers, not 3 x {count}: "
                "use the skeleton that the results were made with"
            )
        if not all(map(is_number, [*entry["keypoints"], entry["score"]])):
            raise ValueError(
                f"{name} has a number that is not finite: remove the entry, "
                "or predict again from a checkpoint that has not diverged"
            )
