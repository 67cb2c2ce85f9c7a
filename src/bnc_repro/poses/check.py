"""The data check: what is wrong with a folder of pictures, one sentence a finding, each with its remedy.

It opens every picture. `check_images` reads the layout of torchvision's ImageFolder (train/ and val/, a folder
for each class in both), `check_keypoints` COCO's (annotations/person_keypoints_SPLIT.json and the pictures in
SPLIT/). Nothing is changed; the command writes a manifest of the readable pictures beside class folders.

A finding is something that would stop, spoil or silently shrink a data set. Pictures in CMYK or turned
by their EXIF tag are read correctly, so they are notes, not findings.
"""

from pathlib import Path

from ..images.check import look_at_pictures
from .annotations import faults, leaves_its_folder, load_annotations

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
    return findings


def _check_split(folder, split, notes):
    findings: list[str] = []
    try:
        findings = faults(folder, split)
        document, file = load_annotations(folder, split)
    except ValueError as error:
        return findings or [str(error)]
    within = [entry for entry in document["images"] if not leaves_its_folder(entry["file_name"])]
    present = [entry for entry in within if (folder / split / entry["file_name"]).is_file()]
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
