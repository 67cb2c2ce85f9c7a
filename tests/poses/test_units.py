"""Keypoints and boxes in other units than px, or in another form: what `data check` says of them."""

import json

import pytest

from bnc_repro.poses.annotations import load_file
from bnc_repro.poses.categories import is_person
from bnc_repro.poses.units import unit_findings
from bnc_repro.recipe.clone import project_root

FILE = project_root() / "data" / "people" / "annotations" / "person_keypoints_val2017.json"


def found(change, number=10**9):
    """The findings where the first `number` people of the embedded set were changed."""
    document = json.loads(json.dumps(load_file(FILE)))
    images = {image["id"]: image for image in document["images"]}
    people = [entry for entry in document["annotations"] if is_person(entry)]
    for entry in people[:number]:
        change(entry, images[entry["image_id"]])
    return unit_findings(people, images, FILE)


def moved(entry, image):
    entry["keypoints"][::3] = [x + 1e6 for x in entry["keypoints"][::3]]


def shares(entry, image):
    for axis, side in enumerate((image["width"], image["height"])):
        entry["keypoints"][axis::3] = [value / side for value in entry["keypoints"][axis::3]]


def corners(entry, image):
    x, y, width, height = entry["bbox"]
    entry["bbox"] = [x, y, x + width, y + height]


def beside(entry, image):
    """The box of somebody else, far from the joints; both in the picture."""
    entry.update(bbox=[0, 0, 10, 10], keypoints=[90, 120, 2] * 17)


def beyond(entry, image):
    """As a box around a whole body that the picture cuts."""
    x, y, width, height = entry["bbox"]
    entry["bbox"] = [x - 0.2 * width, y, 1.4 * width, 1.3 * height]


@pytest.mark.parametrize(
    ("change", "number", "sentence"),
    [
        (moved, 10**9, "509 of 509 people have no labelled keypoint near their box"),
        (moved, 3, "3 of 509 people have no labelled keypoint near their box and in their picture, first annotation"),
        (beside, 1, "1 of 509 people have no labelled keypoint near"),
        (shares, 10**9, "all keypoints lie within 0 and 1, as shares of a picture do: multiply them by its width"),
        (corners, 10**9, "hold their keypoints if they are read as x1, y1, x2, y2"),
    ],
)
def test_other_units_are_one_sentence(change, number, sentence):
    """With the file, how many or which, and the remedy; not a line a person."""
    (finding,) = found(change, number)
    assert finding.startswith(f"{FILE}: ")
    assert sentence in finding


@pytest.mark.parametrize("change", [lambda entry, image: None, beyond])
def test_what_real_sets_have_is_no_finding(change):
    """Boxes of a whole body reach beyond the picture; the joints of most are still in them."""
    assert found(change) == []


def test_nobody_has_no_units():
    """A split of crowds alone is told elsewhere."""
    assert unit_findings([], {}, FILE) == []
