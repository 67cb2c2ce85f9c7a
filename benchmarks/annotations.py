"""Can others' annotation files be used? Each JSON file below a folder, such as the test data of a pose library, is
checked, trained on for two epochs, evaluated, predicted and drawn; a sentence that refuses it is printed, and so is an
error that is no sentence.

    python benchmarks/annotations.py FOLDER [--name PART] [--fill]

Pictures are looked for below the folder by their names. A file is both splits of its set, in a temporary folder; with
`--fill` its categories get the names and sigmas that they lack, so that the rest of the file is tried. The exit status
is 1 if an error is no sentence.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

from bnc_repro.__main__ import main as command
from bnc_repro.recipe.clone import project_root

RUN = "run coco_pose --arm binary --set epochs=2 --set batch_size=1 --set width=4 --set network=sbpn"
RUN += " --set warmup_epochs=0 --set evaluate_every=1 --set pose.headline=AP"
SIGMA = 0.05  # of joints that nobody has measured
SUFFIXES = (".jpg", ".jpeg", ".png")


def call(*words: object) -> None:
    """A command of the package. Raises SystemExit with its sentence, or the first it finds, or whatever ends it."""
    printed = io.StringIO()
    with mock.patch.object(sys, "argv", ["bnc_repro", *map(str, words)]), contextlib.redirect_stdout(printed):
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                command()
            except SystemExit as refusal:
                lines = printed.getvalue().splitlines()
                found = [line for line in lines if words[0] == "data" and not line.startswith("note: ")]
                raise SystemExit(found[0] if found else refusal.code) from None


def fill(document: dict) -> None:
    """Give each category of a file in COCO's form what it lacks of names, sigmas and pairs."""
    for category in document["categories"]:
        own = [entry for entry in document["annotations"] if entry.get("category_id") == category["id"]]
        names = list(category.get("keypoints") or ())
        joints = next((len(entry["keypoints"]) // 3 for entry in own if entry.get("keypoints")), len(names))
        if joints and len(names) != joints:
            names = category["keypoints"] = [f"joint {number}" for number in range(joints)]
        if joints:
            category.setdefault("sigmas", [SIGMA] * joints)
        if not any(side in name.lower() for name in names for side in ("left", "right")):
            category.setdefault("flip_pairs", [])


def make_set(file: Path, pictures: dict[str, Path], folder: Path, filled: bool) -> None:
    """A set in COCO's form whose splits are both `file`, with links to those of its pictures that are there."""
    document = json.loads(file.read_bytes())
    in_form = isinstance(document, dict) and {"images", "annotations", "categories"} <= set(document)
    if filled and in_form:
        fill(document)
    (folder / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (folder / split).mkdir()
        (folder / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(document))
        for image in document["images"] if in_form else ():
            name = str(image.get("file_name") or "")
            link, picture = folder / split / name, pictures.get(Path(name).name)
            if picture and link.resolve().is_relative_to((folder / split).resolve()) and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(picture)


def use(folder: Path, runs: Path) -> None:
    """Check, train, evaluate, predict and draw, by the commands that a user would type."""
    call("data", "check", folder, "--kind", "coco")
    call(*RUN.split(), "--set", f"data.root={folder}", "--runs", runs)
    (checkpoint,) = runs.rglob("checkpoint.pt")
    results = runs / "results.json"
    call("evaluate", checkpoint, "--results", results)
    picture = next(path for path in sorted((folder / "val2017").rglob("*")) if path.is_file())
    call("predict", checkpoint, picture, "--draw", runs / "predicted.png")
    call("draw", results, folder, runs / "drawn.png", "--split", "val2017", "--count", 1)


def main() -> None:
    """Use every file, say what was seen."""
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--name", default="", help="files with this in their path alone")
    options.add_argument("--fill", action="store_true", help="complete categories")
    asked, seen = options.parse_args(), Counter()
    project_root()
    files = sorted(path.resolve() for path in asked.folder.rglob("*.json"))
    pictures = {path.name: path.resolve() for path in asked.folder.rglob("*") if path.suffix.lower() in SUFFIXES}
    for file in (file for file in files if asked.name in str(file)):
        with tempfile.TemporaryDirectory() as temporary:
            folder, runs = Path(temporary) / "set", Path(temporary) / "runs"
            try:
                make_set(file, pictures, folder, asked.fill)
                use(folder, runs)
                outcome, why = "used", ""
            except SystemExit as refusal:
                outcome, why = "a sentence", str(refusal.code)
            except Exception as error:  # whatever it is, it is what this looks for
                outcome, why = "NO SENTENCE", f"{type(error).__name__}: {error}"
        seen[outcome] += 1
        print(f"{file.name}: {outcome} {why.replace(temporary, '')}", flush=True)
    print("; ".join(f"{count} {outcome}" for outcome, count in seen.items()))
    sys.exit(bool(seen["NO SENTENCE"]))


if __name__ == "__main__":
    main()
