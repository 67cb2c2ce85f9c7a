"""People in boxes: several a picture, a detector's file, a test set without annotations, what commands write."""

import json
import os
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from bnc_repro.__main__ import parser
from bnc_repro.evidence import drawing
from bnc_repro.poses import coco_eval
from bnc_repro.poses.people import read_people
from bnc_repro.poses.predict import VALIDATION
from bnc_repro.poses.skeleton import COCO_PERSON
from bnc_repro.poses.task import make_network
from bnc_repro.recipe.build import as_dict, make_recipe
from bnc_repro.recipe.clone import project_root
from bnc_repro.run import packed as run_packed
from bnc_repro.run import people
from bnc_repro.training import checkpoint

DATA = project_root() / "data" / "people"
CPU = torch.device("cpu")
RECIPE = make_recipe(
    experiment="coco_pose",
    network="sbpn",
    stem="half",
    width=8,
    blocks=[1, 1],
    head=16,
    weight_binarizer="ste",
    data={"root": str(DATA), "kind": "coco", "image_size": [64, 48]},
    pose={"sigma_px": 0.7, "loss": "cross_entropy", "flip_test": False},
)


class Middle(torch.nn.Module):
    """Every joint in the middle of its crop: logits of the target's Gaussian, `sharper` times as peaked."""

    def __init__(self, sharper=1.0):
        super().__init__()
        down, across = torch.meshgrid(torch.arange(16.0) - 7.5, torch.arange(12.0) - 5.5, indexing="ij")
        self.map = -(down**2 + across**2) / (2 * 0.7**2) * sharper

    def forward(self, x):
        """(N, 3, 64, 48) -> (N, 17, 16, 12)."""
        return self.map.expand(len(x), 17, -1, -1)


def model(sharper=1.0, **pose):
    recipe = replace(RECIPE, pose=replace(RECIPE.pose, **pose))
    return people.PoseNetwork(Middle(sharper), recipe, COCO_PERSON, CPU)


@pytest.fixture
def picture(tmp_path):
    """A picture of 200 x 100 px that is called by an image id."""
    path = tmp_path / "000000000042.png"
    Image.new("RGB", (200, 100)).save(path)
    return path


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of an untrained network, with its skeleton."""
    torch.manual_seed(0)
    state = {
        "recipe": as_dict(RECIPE),
        "labels": list(COCO_PERSON.names),
        "network": make_network(RECIPE, 17).state_dict(),
        "skeleton": COCO_PERSON.as_dict(),
    }
    folder = tmp_path / "run"
    folder.mkdir()
    checkpoint.save(folder, state)
    return folder / checkpoint.NAMES[0]


def command(*words):
    options = parser().parse_args([str(word) for word in words])
    options.function(options)


def test_each_box_is_a_person_whose_joints_lie_in_it(picture):
    """A network that answers the middle of its crop puts every joint into the middle of each box."""
    boxes = [([10.0, 20.0, 40.0, 60.0], 0.9), ([120.0, 10.0, 60.0, 80.0], 0.5)]
    results = people.results_in(model(), [picture], [boxes])
    assert len(results) == 2
    for entry, (x, y) in zip(results, ((30, 50), (150, 50)), strict=True):
        joints = np.array(entry["keypoints"]).reshape(-1, 3)
        np.testing.assert_allclose(joints[:, :2], np.tile((x, y), (17, 1)), atol=0.05)
        assert (entry["image_id"], entry["category_id"]) == (42, 1)
    assert results[0]["score"] / results[1]["score"] == pytest.approx(0.9 / 0.5)
    line = people.line_of(picture, results[::-1], COCO_PERSON.names)
    assert [person["keypoints"]["nose"][0] for person in line["people"]] == pytest.approx([30, 150], abs=0.05)


def test_one_person_in_two_boxes_is_one_result(picture):
    """OKS-NMS leaves the better box's; no box is nobody; without boxes the picture is one."""
    twice = [([10.0, 20.0, 40.0, 60.0], 0.4), ([10.5, 20.0, 40.0, 60.0], 0.9)]
    (entry,) = people.results_in(model(), [picture], [twice])
    assert entry["keypoints"][0] == pytest.approx(30.5, abs=0.05)
    assert people.results_in(model(), [picture], [[]]) == []
    (entry,) = people.results_in(model(), [picture], None)
    assert entry["keypoints"][:2] == pytest.approx([100, 50], abs=0.1)


def test_scores_are_at_most_1_in_the_order_that_measures_them(picture):
    """A map sharper than its target exceeds 1: joints are cut there, people keep their order by their boxes."""
    boxes = [([10.0, 20.0, 40.0, 60.0], 0.9), ([120.0, 10.0, 60.0, 80.0], 1.0)]
    results = people.results_in(model(sharper=20.0, sigma_px=3.0), [picture], [boxes])
    assert all(score <= 1 for entry in results for score in [*entry["keypoints"][2::3], entry["score"]])
    assert results[1]["score"] / results[0]["score"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1,2,3",
        "1,2,3,4,5",
        "a,b,c,d",
        "1,2,0,4",
        "1,2,nan,4",
        "1,2,-3,4",
        "1,2,9e99,4",
        "1,2,1e-300,4",
        "1_0,2_0,30,40",
    ],
)
def test_a_box_that_is_none_is_a_sentence(text):
    """Four finite numbers with sides above 0."""
    with pytest.raises(ValueError, match="write x,y,width,height in px with sides of at least 1"):
        people.parse_box(text)
    assert people.parse_box("-3,2.5,10,20") == [-3, 2.5, 10, 20]


def test_boxes_outside_and_pictures_without_ids_are_named(picture, tmp_path):
    """A box that covers nothing; a detector's file for pictures without ids; entries of another form."""
    with pytest.raises(ValueError, match=r"covers nothing of .*000000000042\.png with its 200 x 100 px"):
        people.results_in(model(), [picture], [[([300.0, 0.0, 10.0, 10.0], 1.0)]])
    file = tmp_path / "boxes.json"
    file.write_text('[{"image_id": 42, "bbox": [1, 2, 3], "score": 1}]')
    with pytest.raises(ValueError, match="entry 0 lacks a whole image_id or category_id, a bbox"):
        people.read_boxes(file, [picture])
    with pytest.raises(ValueError, match="names pictures by image id: call them by it"):
        people.read_boxes(file, [picture.with_name("dog.png")])
    assert people.image_ids([picture, picture.with_name("dog.png")]) == [1, 2]


def test_pictures_of_one_number_are_kept_apart(tmp_path):
    """a/1.png and b/1.png, 1.jpg and 01.png: numbered 1, 2 in their order; a detector's file cannot tell them apart."""
    pictures = [tmp_path / name / "1.png" for name in "ab"]
    for picture in pictures:
        picture.parent.mkdir()
        Image.new("RGB", (60, 60)).save(picture)
    assert people.image_ids(pictures) == people.image_ids([tmp_path / "1.jpg", tmp_path / "01.png"]) == [1, 2]
    assert people.image_ids([tmp_path / "7.png", tmp_path / "5.png"]) == [7, 5]
    results = people.results_in(model(), pictures, None)
    assert [entry["image_id"] for entry in results] == [1, 2]
    file = tmp_path / "boxes.json"
    file.write_text('[{"image_id": 1, "bbox": [1, 2, 30, 40], "score": 1}]')
    with pytest.raises(ValueError, match="and two are called 1: name one"):
        people.read_boxes(file, pictures)


def test_boxes_are_of_the_checkpoints_category(picture, tmp_path):
    """Category 7's for a skeleton of category 7; other categories, other pictures or other types are told."""
    file, box = tmp_path / "boxes.json", {"image_id": 42, "bbox": [10, 20, 40, 60], "score": 0.9}
    file.write_text(
        json.dumps([box | {"category_id": 7}, box | {"category_id": 1, "score": 0.5}, box | {"score": 0.7}])
    )
    assert [score for _, score in people.read_boxes(file, [picture], 7)[0]] == [0.9, 0.7]
    file.write_text(json.dumps([box | {"category_id": 7}, box | {"category_id": 1, "score": 0.5}]))
    for category, number in ((3, 42), (7, 43)):
        other = picture.with_name(f"{number}.png")
        with pytest.raises(
            ValueError, match=rf"no box of category {category} in any of 1 pictures \(it has categories "
        ):
            people.read_boxes(file, [other], category)
    file.write_text(json.dumps([box | {"category_id": "7"}]))
    with pytest.raises(ValueError, match="lacks a whole image_id or category_id"):
        people.read_boxes(file, [picture], 7)


def test_a_detectors_file_that_would_be_nobody_is_told(picture, tmp_path):
    """Empty, scores of at most 0, and, of a whole set, an image that no picture is called by."""
    file, box = tmp_path / "boxes.json", {"image_id": 42, "category_id": 1, "bbox": [10, 20, 40, 60]}
    file.write_text("[]")
    with pytest.raises(ValueError, match=r"boxes\.json is empty: run the detector again"):
        people.read_boxes(file, [picture])
    file.write_text(json.dumps([box | {"score": 0}, box | {"score": -1}, box | {"score": 1, "category_id": 3}]))
    with pytest.raises(ValueError, match="has 2 boxes of category 1 in 1 pictures, none with a score above 0: write"):
        people.read_boxes(file, [picture])
    file.write_text(json.dumps([box | {"score": 0.5}, box | {"score": 0.5, "image_id": 43}]))
    assert people.read_boxes(file, [picture]) == [[([10, 20, 40, 60], 0.5)]]
    with pytest.raises(ValueError, match="no picture is called by image 43 of entry 1: add the picture, or take"):
        people.read_boxes(file, [picture], whole=True)


@pytest.mark.parametrize("text", ["1e400", "9" * 400, "-" + "9" * 400])
def test_numbers_beyond_any_px_are_a_sentence(picture, tmp_path, text):
    """Also those that no float holds."""
    file = tmp_path / "boxes.json"
    file.write_text(f'[{{"image_id": 42, "bbox": [1, 2, 30, {text}], "score": 1}}]')
    with pytest.raises(ValueError, match="entry 0 lacks"):
        people.read_boxes(file, [picture])


def test_what_is_read_is_never_written_over(picture, saved, tmp_path, capsys):
    """The checkpoint, the picture, another's JSON or PNG; what a command made itself is made anew."""
    box = ("--box", "10,20,40,60")
    annotations, foreign = tmp_path / "annotations.json", tmp_path / "mine.png"
    annotations.write_text('{"images": []}')
    others, pipe = tmp_path / "others.json", tmp_path / "pipe.json"
    others.write_text('[{"image_id": 1, "category_id": 1, "keypoints": [0], "score": 1, "area": 9}]')
    os.mkfifo(pipe)
    Image.new("RGB", (5, 5)).save(foreign)
    for words, sentence in (
        (("predict", saved, picture, *box, "--results", saved), r"must end in \.json"),
        (("predict", saved, picture, *box, "--results", annotations), "was not made by this command"),
        (("predict", saved, picture, *box, "--results", others), "was not made by this command"),
        (("predict", saved, picture, *box, "--results", pipe), "was not made by this command"),
        (("predict", saved, picture, *box, "--results", tmp_path / "none" / "x.json"), "make .*none"),
        (("predict", saved, picture, *box, "--draw", picture), "is what is read"),
        (("predict", saved, picture, *box, "--draw", foreign), "was not made by this command"),
        (("evaluate", saved, "--data", DATA, "--results", annotations), "was not made by this command"),
        (("pack", saved, saved.with_name("checkpoint.previous.pt")), r"must end in \.safetensors"),
        (("draw", annotations, DATA, foreign), "was not made by this command"),
    ):
        before = {path: path.read_bytes() for path in (saved, picture, annotations, others, foreign)}
        with pytest.raises(ValueError, match=sentence):
            command(*words)
        assert {path: path.read_bytes() for path in before} == before
    for _ in range(2):
        command("predict", saved, picture, *box, "--results", tmp_path / "r.json", "--draw", tmp_path / "d.png")
        command("pack", saved, tmp_path / "p.safetensors")


def test_results_have_the_category_of_their_data(tmp_path):
    """Annotations that call the person 7: a results file that says so, which COCOeval and `draw` take."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / VALIDATION).symlink_to(DATA / VALIDATION)
    name = f"annotations/person_keypoints_{VALIDATION}.json"
    document = json.loads((DATA / name).read_text())
    for entry in document["annotations"]:
        entry["category_id"] = 7
    document["categories"][0]["id"] = 7
    (tmp_path / name).write_text(json.dumps(document))
    results = people.results_of_validation(model(), tmp_path)
    assert {entry["category_id"] for entry in results} == {7}
    assert [entry | {"category_id": 1} for entry in results] == people.results_of_validation(model(), DATA)
    true_boxes(tmp_path / "boxes.json", category=7)
    measures, results = people.evaluate_detections(model(), tmp_path, tmp_path / "boxes.json")
    assert {entry["category_id"] for entry in results} == {7}
    true_boxes(tmp_path / "boxes.json")
    assert measures == people.evaluate_detections(model(), DATA, tmp_path / "boxes.json")[0]


def true_boxes(file, category=1):
    """The validation people's boxes as a detector's file."""
    true = read_people(DATA, VALIDATION)
    boxes = [
        {"image_id": int(image), "category_id": category, "bbox": box.tolist(), "score": 0.5 + 0.4 * (row % 2)}
        for row, (image, box) in enumerate(zip(true.image_ids, true.boxes_px, strict=True))
    ]
    file.write_text(json.dumps(boxes))
    return true


def test_ten_numbers_in_a_detectors_boxes(tmp_path):
    """The six of a row and the recalls by threshold and size, equal to those of the results judged alone."""
    true_boxes(tmp_path / "boxes.json")
    measures, results = people.evaluate_detections(model(), DATA, tmp_path / "boxes.json")
    assert list(measures) == ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
    annotations = DATA / "annotations" / f"person_keypoints_{VALIDATION}.json"
    judged = coco_eval.evaluate(annotations, results)
    assert {key: measures[key] for key in judged} == judged
    assert measures["AR50"] >= measures["AR"] >= measures["AR75"]


def test_a_set_of_other_joints_is_not_judged_in_boxes(tmp_path, saved):
    """As many joints with other names, or the same in another order: refused by file, both names and folder."""
    (tmp_path / "dogs" / "annotations").mkdir(parents=True)
    (tmp_path / "dogs" / VALIDATION).symlink_to(DATA / VALIDATION)
    name = f"annotations/person_keypoints_{VALIDATION}.json"
    document = json.loads((DATA / name).read_text())
    true_boxes(tmp_path / "boxes.json")
    category = document["categories"][0]
    for names, first in (([f"paw {i}" for i in range(17)], "paw 0"), (COCO_PERSON.names[::-1], "right_ankle")):
        category.update(keypoints=names, sigmas=[0.1] * 17, flip_pairs=[])
        (tmp_path / "dogs" / name).write_text(json.dumps(document))
        with pytest.raises(
            ValueError, match=rf"was trained on 17 labels \(nose, .*dogs has 17 \({first}, .*same labels"
        ):
            people.evaluate_detections(model(), tmp_path / "dogs", tmp_path / "boxes.json")
    with pytest.raises(ValueError, match=str(saved)):
        command("evaluate", saved, "--data", tmp_path / "dogs", "--detections", tmp_path / "boxes.json")


def test_a_test_set_without_annotations_has_results_alone(tmp_path, capsys, saved):
    """Pictures and a detector's file: nothing is judged, the results are those of the set with annotations."""
    boxes = tmp_path / "boxes.json"
    true_boxes(boxes)
    bare = tmp_path / "test"
    bare.mkdir()
    (bare / VALIDATION).symlink_to(DATA / VALIDATION)
    measures, results = people.evaluate_detections(model(), bare, boxes)
    assert measures is None
    _, with_annotations = people.evaluate_detections(model(), DATA, boxes)
    assert {entry["image_id"] for entry in results} == {entry["image_id"] for entry in with_annotations}
    assert len(results) == len(with_annotations)
    command("evaluate", saved, "--data", bare, "--detections", boxes, "--results", tmp_path / "results.json")
    assert "has no annotations: nothing is judged" in capsys.readouterr().out
    assert json.loads((tmp_path / "results.json").read_text())
    with pytest.raises(ValueError, match="nor pictures called by their image ids"):
        people.evaluate_detections(model(), tmp_path / "run", boxes)


def test_predict_writes_lines_results_and_a_drawing(picture, saved, tmp_path, capsys):
    """Two boxes on the command line: a line with both people, a results file of this picture, a PNG."""
    out, drawn = tmp_path / "people.json", tmp_path / "people.png"
    boxes = ("--box", "10,20,40,60", "--box", "120,10,60,80")
    command("predict", saved, picture, *boxes, "--results", out, "--draw", drawn)
    line = json.loads(capsys.readouterr().out.splitlines()[0])
    assert len(line["people"]) == len(json.loads(out.read_text())) == 2
    assert list(line["people"][0]["keypoints"]) == list(COCO_PERSON.names)
    with Image.open(drawn) as drawing_of_them:
        assert drawing_of_them.width > 300
    with pytest.raises(ValueError, match="--box names people of one picture"):
        command("predict", saved, picture, picture, *boxes)


def test_results_in_true_boxes_have_bounded_scores(tmp_path, saved, capsys):
    """What `evaluate --results` writes: every validation person in its box, scores at most 1, AP as printed."""
    results = people.results_of_validation(model(sharper=20.0, sigma_px=3.0), DATA)
    assert all(score <= 1 for entry in results for score in [*entry["keypoints"][2::3], entry["score"]])
    assert max(entry["score"] for entry in results) > 0
    written = tmp_path / "results.json"
    command("evaluate", saved, "--data", DATA, "--results", written)
    printed = json.loads(capsys.readouterr().out.rpartition("}")[0] + "}")
    annotations = DATA / "annotations" / f"person_keypoints_{VALIDATION}.json"
    judged = coco_eval.evaluate(annotations, json.loads(written.read_text()))
    assert judged == {key: printed[key] for key in judged}


def test_a_packed_file_finds_people_in_boxes_too(picture, saved, tmp_path, capsys):
    """Boxes, results and drawings of a packed pose network, and a sentence for a classifier's."""
    packed = tmp_path / "packed.safetensors"
    command("pack", saved, packed)
    capsys.readouterr()
    for file in (saved, packed):
        command("predict", file, picture, "--box", "10,20,40,60")
    lines = [json.loads(line)["people"][0]["keypoints"] for line in capsys.readouterr().out.splitlines()]
    joints = [np.array(list(line.values())) for line in lines]
    np.testing.assert_allclose(*joints, atol=0.02)
    classifier = run_packed.models() / "sample" / "fashion-mnist-binary.safetensors"
    with pytest.raises(ValueError, match="are for pose checkpoints"):
        command("predict", classifier, picture, "--box", "10,20,40,60")


def test_the_line_of_a_finished_run_has_its_zeros(monkeypatch, tmp_path, capsys):
    """AP 0 is a result; a measure that nobody belongs to is left out."""
    row = {"status": "finished", "metrics": {"AP": 0.0, "APl": None, "PCK": 0.25}, "fingerprint": "x"}
    monkeypatch.setattr("bnc_repro.run.run", lambda *arguments: row)
    command("run", "coco_pose", "--arm", "mean pose", "--seed", "0", "--runs", tmp_path)
    assert capsys.readouterr().out.splitlines()[0] == "finished: AP 0, PCK 0.25"


def test_joints_are_dots_and_a_title_says_when_nothing_was_confident(picture):
    """Dots above the threshold alone, a dashed box each, a word where none is above or nobody was found."""
    entry = people.results_in(model(), [picture], [[([10.0, 20.0, 40.0, 60.0], 0.9)]])[0]
    entry["keypoints"][2::3] = [0.9] * 5 + [0.1] * 12
    boxes = [[([10.0, 20.0, 40.0, 60.0], 0.9)]] * 3
    unsure = entry | {"keypoints": [1, 1, 0.1] * 17}
    figure = drawing.predictions([picture] * 3, [[entry], [unsure], []], COCO_PERSON, 0.5, boxes)
    first, second, third = figure.axes
    assert len(first.collections[0].get_offsets()) == 5
    assert len(first.patches) == 1
    assert "no joint with a score above 0.5" in second.get_title()
    assert "nobody" in third.get_title()
    assert first.get_title() == picture.name
    plt.close(figure)
