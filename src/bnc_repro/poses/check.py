"""The data check: what is wrong with a folder of pictures, one sentence a finding, each with its remedy.

It opens every picture. `check_images` reads the layout of torchvision's ImageFolder (train/ and val/, a folder
for each class in both), `check_keypoints` COCO's (annotations/person_keypoints_SPLIT.json and the pictures in
SPLIT/). Nothing is changed; the command writes a manifest of the readable pictures beside class folders.

A finding is something that would stop, spoil or silently shrink a data set. Pictures in CMYK or turned
by their EXIF tag are read correctly, so they are notes, not findings.
"""

import os
from pathlib import Path

from ..images.check import look_at_pictures
from .annotations import faults, leaves_its_folder, load_annotations
from .categories import category_of, differing, is_person, of_category, other_categories
from .people import AREA_OF_BOX
from .units import unit_findings

COCO_SPLITS = ("train2017", "val2017")


def check_keypoints(folder, notes=None):
    """Findings about a keypoint set in COCO's form; an empty list when there are none.

    Every split with an annotation file or a folder of pictures is checked, against the joints that the
    file's own category names. folder, notes: as in `check_images`.
    """
    folder, notes = Path(folder), [] if notes is None else notes
    files = folder.glob("annotations/person_keypoints_*.json")
    splits = {path.stem.removeprefix("person_keypoints_") for path in files}
    if folder.is_dir():
        splits |= {path.name for path in folder.iterdir() if path.is_dir() and path.name in COCO_SPLITS}
    findings = []
    for split in sorted(splits or COCO_SPLITS):
        findings += _check_split(folder, split, notes)
    return findings or _differences(folder, sorted(splits & set(COCO_SPLITS)))


def _differences(folder, splits):
    """What the splits of a sound set must share, as a run asks of them: category, names, pairs and upper body."""
    skeletons = {}
    for split in splits:
        document, file = load_annotations(folder, split)
        skeletons[split] = of_category(category_of(document, file), file)
    sentence = differing(skeletons, folder)
    return [sentence] if sentence else []


def _check_split(folder, split, notes):
    findings: list[str] = []
    try:
        findings = faults(folder, split)
        document, file = load_annotations(folder, split)
    except ValueError as error:
        return findings or [str(error)]
    within = [entry for entry in document["images"] if not leaves_its_folder(entry["file_name"])]
    present = [entry for entry in within if os.path.isfile(folder / split / entry["file_name"])]
    findings = findings or _unit_findings(document, file)
    if not findings:
        notes += _summary(document, file)
    seen = look_at_pictures([folder / split / entry["file_name"] for entry in present], notes)
    for image, (fault, size) in zip(present, seen):
        if fault:
            findings.append(fault)
        elif size and size != (image["width"], image["height"]):
            findings.append(
                f"{file}: image {image['id']} is listed as {image['width']} x {image['height']}"
                f" px, but {image['file_name']} has {size[0]} x {size[1]}: "
                "correct the file, or copy the picture again"
            )
    return findings


def _unit_findings(document, file):
    category = category_of(document, file)["id"]
    people = [entry for entry in document["annotations"] if entry["category_id"] == category and is_person(entry)]
    return unit_findings(people, {image["id"]: image for image in document["images"]}, file)


def _summary(document, file):
    """Sentences about a sound split: how many people a run would see, and what of them is labelled."""
    category = category_of(document, file)
    skeleton = of_category(category, file)
    entries = [entry for entry in document["annotations"] if entry["category_id"] == category["id"]]
    people = [entry for entry in entries if is_person(entry)]
    pictures = {entry["image_id"] for entry in people}
    labelled = sum(flag > 0 for entry in people for flag in entry["keypoints"][2::3])
    sentences = [
        f"{file}: {len(people)} people of category {category.get('name', '')} ({category['id']}) in {len(pictures)} of "
        f"{len(document['images'])} pictures, {labelled} of {len(people) * len(skeleton.names)} joints labelled; "
        f"{len(skeleton.names)} keypoints, {len(skeleton.flip_pairs)} pairs, {len(skeleton.upper)} joints of the upper "
        "body"
    ]
    if others := other_categories(document, category, file):
        sentences.append(others)
    if without := sum("area" not in entry for entry in people):
        sentences.append(f"{file}: {without} people have no area, AP takes {AREA_OF_BOX} of their boxes")
    return sentences
