"""Drawn people: what stands on the picture is what the file says."""

import json
import os

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from bnc_repro.evidence import drawing
from bnc_repro.poses import coco_eval
from bnc_repro.poses.crops import CropBatches
from bnc_repro.poses.people import read_people
from bnc_repro.poses.predict import VALIDATION, crop_box_px, some_people
from bnc_repro.poses.skeleton import COCO_PERSON
from bnc_repro.recipe.clone import project_root

DATA = project_root() / "data" / "people"


@pytest.fixture
def results_file(tmp_path):
    """The true joints of the validation people as results, the hidden ones with score 0."""
    people = read_people(DATA, VALIDATION)
    scores = (people.visible > 0).astype(float)
    made = coco_eval.to_results(people, people.joints_px, scores, nms_threshold=None)
    return coco_eval.save_results(made, tmp_path / "results.json")


def test_a_results_file_is_drawn_over_its_pictures(results_file):
    """Four panels with a picture each; the limbs run between the joints of the file that have a score."""
    figure = drawing.results(results_file, DATA, count=4)
    panels = [ax for ax in figure.axes if ax.images]
    assert len(panels) == 4
    entries, names = json.loads(results_file.read_text()), drawing_names()
    for ax in panels:
        own = [one for one in entries if names[one["image_id"]] == ax.get_title().rpartition(":")[0]]
        limbs = 0
        for one in own:
            drawn = np.array(one["keypoints"]).reshape(-1, 3)[:, 2] > 0.2
            limbs += sum(drawn[a] and drawn[b] for a, b in COCO_PERSON.links)
        assert len(ax.lines) == 2 * limbs  # a dark line beneath each
    plt.close(figure)


def test_a_bare_folder_of_pictures_will_do(results_file, tmp_path):
    """Pictures that are named by their ids, as COCO's are, need no annotations; a folder of others is refused."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, name in drawing_names().items():
        (folder / f"{number:012d}.jpg").symlink_to(DATA / VALIDATION / name)
    bare, whole = drawing.results(results_file, folder, count=2), drawing.results(results_file, DATA, count=2)
    assert [len(ax.lines) for ax in bare.axes] == [len(ax.lines) for ax in whole.axes]
    with pytest.raises(ValueError, match="has neither annotations/ nor pictures named by their ids"):
        drawing.results(results_file, tmp_path)
    plt.close("all")


def test_a_picture_is_drawn_from_within_its_folder_alone(results_file, tmp_path):
    """A name that leads out is refused; a text beside a picture, of the same number, is not taken for it."""
    (tmp_path / "set" / "annotations").mkdir(parents=True)
    (tmp_path / "set" / VALIDATION).symlink_to(DATA / VALIDATION)
    name = f"annotations/person_keypoints_{VALIDATION}.json"
    document = json.loads((DATA / name).read_text())
    for image in document["images"]:
        image["file_name"] = f"../../{image['file_name']}"
    (tmp_path / "set" / name).write_text(json.dumps(document))
    with pytest.raises(
        ValueError, match=r"val2017\.json: image \d+ is called \.\./\.\./.*, outside of .*name it within"
    ):
        drawing.results(results_file, tmp_path / "set", count=1)
    bare = tmp_path / "bare"
    bare.mkdir()
    for number, picture in drawing_names().items():
        (bare / f"{number}.jpg").symlink_to(DATA / VALIDATION / picture)
        (bare / f"{number}.txt").write_text("no picture")
    assert drawing.results(results_file, bare, count=1).axes[0].get_title().partition(":")[0].endswith(".jpg")
    plt.close("all")


def test_joints_far_away_leave_the_picture_as_large_as_it_is(results_file, tmp_path):
    """The panel's edges are the picture's in both drawings, wherever a joint was found."""
    entries = json.loads(results_file.read_text())[:1]
    entries[0]["keypoints"] = [2e9, -2e9, 0.9] + [20, 20, 0.9] * 16
    far = coco_eval.save_results(entries, tmp_path / "far.json")
    picture = DATA / VALIDATION / drawing_names()[entries[0]["image_id"]]
    for figure in (drawing.results(far, DATA), drawing.predictions([picture], [entries], COCO_PERSON)):
        (ax,) = figure.axes
        height, width = ax.images[0].get_array().shape[:2]
        assert ax.get_xlim() == (-0.5, width - 0.5)
        assert ax.get_ylim() == (height - 0.5, -0.5)
        figure.savefig(tmp_path / "far.png")
    plt.close("all")


def drawing_names():
    """image id -> file name of the validation pictures."""
    document = json.loads((DATA / "annotations" / f"person_keypoints_{VALIDATION}.json").read_text())
    return {image["id"]: image["file_name"] for image in document["images"]}


def test_what_cannot_be_drawn_is_told(results_file, tmp_path):
    """An empty file, a file that is not there, and one of other pictures."""
    empty = tmp_path / "empty.json"
    empty.write_text("[]")
    with pytest.raises(ValueError, match="holds no person"):
        drawing.results(empty, DATA)
    with pytest.raises(ValueError, match="is missing"):
        drawing.results(tmp_path / "none.json", DATA)
    with pytest.raises(ValueError, match="does not list"):
        drawing.results(results_file, DATA, split="train2017")


def test_examples_are_drawn_with_their_heatmaps():
    """A row's examples: the crop holds the box, and the heatmap is laid over the crop."""
    crops = CropBatches(DATA, VALIDATION, (64, 48))
    one = some_people(crops, crops.people.joints_px)[0]
    matrix = crops.batch([one.pop("row")])["matrix"][0]
    x, y, width, height = one["crop"] = crop_box_px(matrix, (64, 48))
    left, top, box_width, box_height = one["box"]
    assert x <= left + 0.1
    assert y <= top + 0.1
    assert x + width >= left + box_width - 0.1
    assert y + height >= top + box_height - 0.1
    assert torch.isclose(torch.tensor(height / width), torch.tensor(63 / 47), atol=0.02)
    one["heat"] = np.eye(16, 12).tolist()
    row = {"examples": [one], "recipe": {"experiment": "coco_pose", "data": {"root": str(DATA), "kind": "coco"}}}
    axes = np.array([plt.subplots()[1]])
    drawing.people(row, axes)
    labelled = sum(one["visible"][a] > 0 and one["visible"][b] > 0 for a, b in COCO_PERSON.links)
    # every predicted limb with a dark one beneath it, the true ones of labelled joints, and their dots
    assert len(axes[0].lines) == 2 * len(COCO_PERSON.links) + labelled + 1
    drawing.heatmaps(row, axes)
    assert axes[0].images[-1].get_extent() == pytest.approx([x, x + width, y + height, y])
    plt.close("all")


def test_two_pictures_of_one_id_are_refused(results_file, tmp_path):
    entry = json.loads(results_file.read_text())[0]
    for name in (f"{entry['image_id']}.jpg", f"{entry['image_id']:012d}.png"):
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    with pytest.raises(ValueError, match=rf"both of id {entry['image_id']}: move one away"):
        drawing.results(results_file, tmp_path)


def test_a_picture_whose_name_is_no_text_is_drawn(tmp_path):
    picture = tmp_path / os.fsdecode(b"\xff.png")
    Image.new("RGB", (64, 64)).save(picture)
    figure = drawing.predictions([picture], [[]], COCO_PERSON)
    drawing_name = figure.axes[0].get_title()
    assert drawing_name.endswith(".png\nnobody")
    figure.savefig(tmp_path / "out.png")
