"""The data check: what is wrong with a folder of pictures, one sentence a finding, each with its remedy.

It opens every picture. `check_images` reads the layout of torchvision's ImageFolder (train/ and val/, a folder
for each class in both), `check_keypoints` COCO's (annotations/person_keypoints_SPLIT.json and the pictures in
SPLIT/). Nothing is changed; the command writes a manifest of the readable pictures beside class folders.

A finding is something that would stop, spoil or silently shrink a data set. Pictures in CMYK or turned
by their EXIF tag are read correctly, so they are notes, not findings.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from . import keypoints, pictures

SPLITS = ("train", "val")
COCO_SPLITS = ("train2017", "val2017")
EXIF_ORIENTATION = 0x0112
IMAGENET_CLASSES, IMAGENET = 1000, {"train": 1_281_167, "val": 50_000}  # ILSVRC 2012


def check_images(folder, notes=None, readable=None):
    """Findings about a classification set; an empty list when there are none.

    folder: holds train/ and val/. notes: a list that takes sentences about pictures that are unusual
    and fine. readable: a list that takes the pictures without a fault. Raises nothing for bad data.
    """
    folder, notes = Path(folder), [] if notes is None else notes
    readable = [] if readable is None else readable
    missing = [split for split in SPLITS if not (folder / split).is_dir()]
    if missing:
        return [f"{folder / split} is missing: {folder} must hold train/ and val/ "
                "with one folder per class in each" for split in missing]
    findings, classes, suspects = [], {}, []
    for split in SPLITS:
        loose = [path for path in _shown((folder / split).iterdir()) if not path.is_dir()]
        if loose:
            findings.append(f"{folder / split} holds {len(loose)} file(s) outside class folders, such as "
                            f"{loose[0].name}: move each into its class's folder (ImageNet: run valprep.sh)")
        hidden = [path for path in (folder / split).glob(".*") if path.is_dir()]
        hidden += [path for path in (folder / split).glob("*/**/.*") if path.suffix.lower() in IMG_EXTENSIONS]
        findings += [f"{path} is hidden, and would be read as a {'class' if path.is_dir() else 'picture'} all the "
                     "same: remove it (copies from other systems leave such files)" for path in sorted(hidden)]
        classes[split] = {path.name for path in _shown((folder / split).iterdir()) if path.is_dir()}
        if not classes[split]:
            findings.append(f"{folder / split} has no class folders: make one per class, with its pictures")
        for name in sorted(classes[split]):
            before = len(suspects)
            for path in _shown((folder / split / name).rglob("*")):
                if path.suffix.lower() in IMG_EXTENSIONS:
                    suspects.append(path)
                elif not path.is_dir():
                    findings.append(f"{path} is not a picture by its name and would be skipped: "
                                    "remove it, or convert it to JPEG or PNG")
            if len(suspects) == before:
                findings.append(f"class folder {folder / split / name} has no pictures: "
                                "fill it, or remove it from both splits")
    for here, there in (SPLITS, SPLITS[::-1]):
        for name in sorted(classes[here] - classes[there]):
            findings.append(f"class {name} is in {folder / here} but not in {folder / there}: "
                            "the splits need the same classes, add it or remove it")
    counts = {split: sum(path.is_relative_to(folder / split) for path in suspects) for split in SPLITS}
    if len(classes["train"]) == IMAGENET_CLASSES and counts != IMAGENET:
        notes.append(f"{folder} has {IMAGENET_CLASSES} classes as ImageNet-1k, but {counts['train']:,} training and "
                     f"{counts['val']:,} validation pictures instead of {IMAGENET['train']:,} and {IMAGENET['val']:,}")
    faults = [fault for fault, _ in _look(suspects, notes)]
    readable += [path for path, fault in zip(suspects, faults) if not fault]
    return findings + [fault for fault in faults if fault]


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


def _shown(paths):
    """Without hidden files, in order."""
    return sorted(path for path in paths if not path.name.startswith("."))


def _check_split(folder, split, notes):
    try:
        document, file = keypoints.load_annotations(folder, split)
    except ValueError as error:
        return [str(error)]
    findings = []
    for part in ("images", "annotations"):
        incomplete = sum("id" not in one for one in document[part])
        if incomplete:
            return [f"{file}: {incomplete} of the {part} have no id: give each a number of its own"]
        used = Counter(one["id"] for one in document[part])
        findings += [f"{file}: id {one} is used by {times} {part}: give each a number of its own"
                     for one, times in used.items() if times > 1]
    findings += keypoints.faults(folder, split)

    listed = [one for one in document["images"] if {"file_name", "width", "height"} <= one.keys()]
    present = [one for one in listed if (folder / split / one["file_name"]).is_file()]
    seen = _look([folder / split / one["file_name"] for one in present], notes)
    for image, (fault, size) in zip(present, seen):
        if fault:
            findings.append(fault)
        elif size != (image["width"], image["height"]):
            findings.append(f"{file}: image {image['id']} is listed as {image['width']} x {image['height']}"
                            f" px, but {image['file_name']} has {size[0]} x {size[1]}: "
                            "correct the file, or copy the picture again")
    return findings


def _look(paths, notes):
    """Decode every picture; for each (fault or None, (width, height) in px or None)."""
    with ThreadPoolExecutor() as pool:
        seen = list(tqdm(pool.map(_open, paths), total=len(paths), desc="pictures", disable=None))
    notes += [note for _, _, note in seen if note]
    return [(fault, size) for fault, size, _ in seen]


def _open(path):
    """(fault, size, note) of one picture, None where there is nothing to say."""
    try:
        size = pictures.read(path).size
    except ValueError as error:
        return str(error), None, None
    with Image.open(path) as opened:
        if opened.mode not in ("RGB", "L"):
            return None, size, f"{path} is stored as {opened.mode} and read as RGB"
        if opened.getexif().get(EXIF_ORIENTATION, 1) != 1:
            return None, size, f"{path} is turned by its EXIF tag and read as stored"
    return None, size, None
