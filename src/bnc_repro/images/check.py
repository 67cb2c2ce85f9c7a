"""The data check: what is wrong with a folder of pictures, one sentence a finding, each with its remedy.

It opens every picture. `check_images` reads the layout of torchvision's ImageFolder (train/ and val/, a folder
for each class in both), `check_keypoints` COCO's (annotations/person_keypoints_SPLIT.json and the pictures in
SPLIT/). Nothing is changed; the command writes a manifest of the readable pictures beside class folders.

A finding is something that would stop, spoil or silently shrink a data set. Pictures in CMYK, of 16 bits or turned
by their EXIF tag are read correctly, so they are notes, not findings.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from . import manifest
from .pictures import formats, read

SPLITS = ("train", "val")
EXIF_ORIENTATION = 0x0112
FEW_SHARED = 0.01  # share of the validation pictures that may be training pictures without being a finding
DECODED_AT_ONCE = 4  # pictures, each of up to `pictures.MOST_PIXELS`
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
        return [
            f"{folder / split} is missing: {folder} must hold train/ and val/ with one folder per class in each"
            for split in missing
        ]
    findings, classes, suspects = [], {}, []
    for split in SPLITS:
        loose = [path for path in shown((folder / split).iterdir()) if not path.is_dir()]
        if loose:
            findings.append(
                f"{folder / split} holds {len(loose)} file(s) outside class folders, such as "
                f"{loose[0].name}: move each into its class's folder (ImageNet: run valprep.sh)"
            )
        hidden = [path for path in (folder / split).glob(".*") if path.is_dir()]
        hidden += [path for path in (folder / split).glob("*/**/.*") if path.name.lower().endswith(IMG_EXTENSIONS)]
        findings += [
            f"{path} is hidden, and would be read as a {'class' if path.is_dir() else 'picture'} all the "
            "same: remove it (copies from other systems leave such files)"
            for path in sorted(hidden)
        ]
        classes[split] = {path.name for path in shown((folder / split).iterdir()) if path.is_dir()}
        if not classes[split]:
            findings.append(f"{folder / split} has no class folders: make one per class, with its pictures")
        for name in sorted(classes[split]):
            before = len(suspects)
            for path in shown(_files(folder / split / name, findings)):
                if not _is_text(path):
                    findings.append(f"{path!a} has a name that is no UTF-8 text: rename it, a manifest cannot hold it")
                elif path.name.lower().endswith(IMG_EXTENSIONS):  # as torchvision looks at it
                    suspects.append(path)
                else:
                    findings.append(
                        f"{path} is not a picture by its name and would be skipped: "
                        "remove it, or convert it to JPEG or PNG"
                    )
            if len(suspects) == before:
                findings.append(
                    f"class folder {folder / split / name} has no pictures: fill it, or remove it from both splits"
                )
        findings += _linked(folder / split / name for name in sorted(classes[split]))
    for here, there in (SPLITS, SPLITS[::-1]):
        for name in sorted(classes[here] - classes[there]):
            findings.append(
                f"class {name} is in {folder / here} but not in {folder / there}: "
                "the splits need the same classes, add it or remove it"
            )
    if all(len(names) == 1 for names in classes.values()):
        findings.append(f"{folder} has one class alone, which every network knows: add another one to both splits")
    counts = {split: sum(path.is_relative_to(folder / split) for path in suspects) for split in SPLITS}
    if len(classes["train"]) == IMAGENET_CLASSES and counts != IMAGENET:
        notes.append(
            f"{folder} has {IMAGENET_CLASSES} classes as ImageNet-1k, but {counts['train']:,} training and "
            f"{counts['val']:,} validation pictures instead of {IMAGENET['train']:,} and {IMAGENET['val']:,}"
        )
    with suppress(ValueError):  # of what is no manifest, which writing a new one says
        gone = sorted(name for name in manifest.read(folder) or () if not (folder / name).is_file())
        if gone:
            notes.append(
                f"{len(gone)} pictures that {folder / manifest.NAME} listed are gone, such as {gone[0]}: copy them "
                "again, or leave it: the new one lists those that are there"
            )
    faults = [fault for fault, _ in look_at_pictures(suspects, notes)]
    fine = [path for path, fault in zip(suspects, faults) if not fault]
    readable += fine
    judged = [path for path in fine if path.is_relative_to(folder / "val")]
    shared = _in_both([path for path in fine if path.is_relative_to(folder / "train")], judged)
    if shared:
        (first, second), few = shared[0], len(shared) <= FEW_SHARED * len(judged)
        sentence = (
            f"{len(shared)} of {len(judged)} validation pictures are training pictures too, such as {second}, which is "
            f"{first}"
        )
        # The published sets have a few, and numbers on them are compared with those of others.
        (notes if few else findings).append(sentence if few else f"{sentence}: take them out of one of the two")
    return findings + [fault for fault in faults if fault]


def _linked(classes):
    """A finding for each class folder that is another one's, under a second name."""
    real = {}
    for folder in classes:
        first = real.setdefault(folder.resolve(), folder)
        if first is not folder:
            yield f"{folder} leads to the pictures of {first}, which are then of two classes: remove one of them"


def _in_both(training, judged):
    """(training, judged) for each judged picture that is a training picture byte for byte."""
    sizes = [{path.stat().st_size for path in paths} for paths in (training, judged)]
    both = sizes[0] & sizes[1]  # only these are read again

    def digests(paths):
        paths = [path for path in paths if path.stat().st_size in both]
        with ThreadPoolExecutor() as pool:
            return dict(zip(paths, pool.map(lambda path: hashlib.sha256(path.read_bytes()).digest(), paths)))

    known = {digest: path for path, digest in digests(training).items()}
    return [(known[digest], path) for path, digest in digests(judged).items() if digest in known]


def _files(folder, findings):
    """Every file below a folder, through links to folders too, as torchvision reads them; a link that leads back to
    where it lies is not entered, but a finding."""
    files = []
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place)
        files += [here / name for name in names]
        above = {path.resolve() for path in (here, *here.parents)}
        for link in [here / name for name in folders if (here / name).is_symlink()]:
            if link.resolve() in above:
                folders.remove(link.name)
                findings.append(f"{link} links to a folder that it lies in: remove the link")
    return files


def _is_text(path):
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(paths):
    """Without hidden files, in order."""
    return sorted(path for path in paths if not path.name.startswith("."))


def look_at_pictures(paths, notes):
    """Decode every picture; for each (fault or None, (width, height) in px or None)."""
    with ThreadPoolExecutor(DECODED_AT_ONCE) as pool:
        seen = list(tqdm(pool.map(_open, paths), total=len(paths), desc="pictures", disable=None))
    notes += [note for _, _, note in seen if note]
    return [(fault, size) for fault, size, _ in seen]


def _open(path):
    """(fault, size, note) of one picture, None where there is nothing to say."""
    try:
        size = read(path).size
    except ValueError as error:
        return str(error), None, None
    with Image.open(path, formats=formats()) as opened:
        if opened.mode not in ("RGB", "L"):
            return None, size, f"{path} is stored as {opened.mode} and read as RGB"
        if opened.getexif().get(EXIF_ORIENTATION, 1) != 1:
            return (
                None,
                size,
                f"{path} is turned by its EXIF tag: read upright in class folders, as stored in keypoint sets",
            )
    return None, size, None
