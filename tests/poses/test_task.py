"""The pose task on a few of the embedded people: its measures, a detector's boxes, a backbone from another stage."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from bnc_repro.evidence import drawing
from bnc_repro.images.networks import CLASSIFIERS
from bnc_repro.poses import predict as predicting
from bnc_repro.poses import task
from bnc_repro.poses.coco_eval import save_results
from bnc_repro.poses.crops import CropBatches
from bnc_repro.poses.people import read_people
from bnc_repro.poses.predict import VALIDATION, judge
from bnc_repro.poses.skeleton import COCO_PERSON
from bnc_repro.recipe.build import as_dict, make_recipe, merged
from bnc_repro.recipe.clone import project_root
from bnc_repro.recipe.schema import Recipe
from bnc_repro.run.execute import _start_from, run
from bnc_repro.run.identity import folder_of
from bnc_repro.run.packed import predict
from bnc_repro.run.people import PoseNetwork, results_of_validation
from bnc_repro.training import checkpoint

CPU = torch.device("cpu")
DATA = project_root() / "data" / "people"


def recipe(**changes) -> Recipe:
    """One epoch of a tiny network on 64 people."""
    values = {
        "experiment": "coco_pose",
        "network": "sbpn",
        "stem": "half",
        "width": 8,
        "blocks": [1, 1],
        "head": 16,
        "weight_binarizer": "ste",
        "batch_size": 16,
        "learning_rate": 0.01,
        "data": {"root": str(DATA), "kind": "coco", "image_size": [64, 48], "train_limit": 64},
        "pose": {"sigma_px": 0.7, "loss": "cross_entropy"},
    }
    return make_recipe(**merged(values, changes))


def test_pck_counts_joints_within_a_fifth_of_the_torso():
    """Joints moved by 0.19 and 0.21 of each person's torso: by hand, over the people whose torso is labelled."""
    people = read_people(DATA, VALIDATION)
    crops = CropBatches(DATA, VALIDATION, (64, 48))
    shoulder, hip = (crops.skeleton.names.index(name) for name in ("left_shoulder", "right_hip"))
    torso_px = np.linalg.norm(people.joints_px[:, shoulder] - people.joints_px[:, hip], axis=1)
    moved = people.joints_px.copy()
    moved[..., 0] += 0.19 * torso_px[:, None]
    moved[:, :5, 0] += 0.02 * torso_px[:, None]  # the face is too far off
    whole = (people.visible[:, shoulder] > 0) & (people.visible[:, hip] > 0)
    seen = people.visible[whole] > 0
    wanted = seen[:, 5:].sum() / seen.sum()
    found = judge(DATA, crops, moved, np.ones(moved.shape[:2]))
    assert found["PCK"] == pytest.approx(wanted)
    assert 0.2 < wanted < 0.9


def test_a_detectors_boxes_are_judged_beside_the_true_ones(tmp_path, monkeypatch):
    """With the true boxes as detections both agree; half of them are half as many; a mistake in the file is told."""
    people = read_people(DATA, VALIDATION)
    file = tmp_path / "boxes.json"

    def write(rows):
        boxes = [
            {"image_id": int(people.image_ids[i]), "category_id": 1, "bbox": people.boxes_px[i].tolist(), "score": 1.0}
            for i in rows
        ]
        file.write_text(json.dumps(boxes))

    write(range(len(people)))
    options = {"detections": str(file), "headline": "PCK"}
    row = run(recipe(pose=options), tmp_path / "runs")
    assert row["headline"] == "PCK"
    assert row["metrics"]["PCK"] == row["best"]
    assert row["metrics"]["AP_detected"] == pytest.approx(row["metrics"]["AP"], abs=0.01)
    write(range(0, len(people), 2))
    judged, true = [], predicting.average_precision
    for module in (task, predicting):
        monkeypatch.setattr(module, "average_precision", lambda *given: judged.append(len(given[2])) or true(*given))
    half = run(recipe(pose=options), tmp_path / "runs")
    assert half["fingerprint"] != row["fingerprint"]
    assert half["metrics"]["AP"] == row["metrics"]["AP"]
    assert judged == [len(people), (len(people) + 1) // 2]
    file.write_text("[]")
    with pytest.raises(ValueError, match=r"detection file .*boxes\.json is empty"):
        run(recipe(pose=options), tmp_path / "runs")
    with pytest.raises(ValueError, match="there is no file /nowhere"):
        run(recipe(pose={"detections": "/nowhere"}), tmp_path / "runs")


def a_copy(folder, change):
    """The embedded people with their annotation files changed by `change`."""
    (folder / "annotations").mkdir(parents=True)
    for split in (task.TRAIN, VALIDATION):
        (folder / split).symlink_to(DATA / split)
        name = f"annotations/person_keypoints_{split}.json"
        document = json.loads((DATA / name).read_text())
        for one in document["annotations"]:
            change(one)
        change(document["categories"][0])
        (folder / name).write_text(json.dumps(document))
    return folder


def test_a_set_whose_joints_lie_in_no_crop_is_refused_before_the_training(tmp_path):
    """Everything a million px to the right: the file and the remedy, before any step is taken."""

    def change(entry):
        if "bbox" in entry:
            entry["keypoints"][::3] = [x + 1e6 for x in entry["keypoints"][::3]]

    made = recipe(data={"root": str(a_copy(tmp_path / "data", change))})
    with pytest.raises(ValueError, match=r"keypoints_train2017\.json: none of 64 people has a labelled keypoint in"):
        task.build(made, CPU)


def test_another_skeleton_trains_predicts_and_is_drawn(tmp_path):
    """Five joints of their own with their own sigmas, in category 7: a run, its AP, a prediction, a results file."""
    chosen = [0, 5, 6, 11, 12]

    def change(one):
        if "name" in one:
            names = ["head", "left_arm", "right_arm", "left_leg", "right_leg"]
            one.update(id=7, keypoints=names, sigmas=[0.1] * 5, skeleton=[[1, 2], [1, 3], [2, 4], [3, 5]])
        else:
            kept = np.array(one["keypoints"]).reshape(-1, 3)[chosen]
            one.update(category_id=7, keypoints=kept.ravel().tolist(), num_keypoints=int((kept[:, 2] > 0).sum()))

    made = recipe(epochs=2, data={"root": str(a_copy(tmp_path / "data", change))})
    row = run(made, tmp_path / "runs")
    assert row["metrics"]["AP"] > 0
    assert list(row["curve"][-1]["by_keypoint"]) == ["head", "left_arm", "right_arm", "left_leg", "right_leg"]
    source = folder_of(made, tmp_path / "runs") / checkpoint.NAMES[0]
    picture = next((DATA / VALIDATION).iterdir())
    (found,) = predict(source, [picture], CPU)
    assert len(found["keypoints"]) == 5
    root = tmp_path / "data"
    file = save_results(results_of_validation(PoseNetwork.load(source, CPU), root), tmp_path / "people.json")
    assert {one["category_id"] for one in json.loads(file.read_text())} == {7}
    assert len(drawing.results(file, root, count=2).axes) == 2
    assert len(drawing.people(row, plt.subplots(1, 2)[1])) == 2


def test_people_without_areas_have_a_share_of_their_boxes(tmp_path):
    """Without areas a run has AP, by 0.53 of the boxes, and PCK."""

    def change(entry):
        entry.pop("area", None)

    root = str(a_copy(tmp_path / "data", change))
    row = run(
        recipe(network="mean_pose", weight_binarizer=None, activation_binarizer=None, data={"root": root}),
        tmp_path / "runs",
    )
    assert row["headline"] == "AP"
    assert row["metrics"]["AP50"] > 0
    boxes = read_people(root, VALIDATION)
    assert boxes.areas_px2.mean() == pytest.approx(0.53 * boxes.boxes_px[:, 2:].prod(1).mean(), rel=0.05)


def test_the_mean_pose_is_judged_in_a_detectors_boxes_too(tmp_path):
    """The floor has every number that networks have."""
    people = read_people(DATA, VALIDATION)
    boxes = [
        {"image_id": int(image), "category_id": 1, "bbox": box.tolist(), "score": 1.0}
        for image, box in zip(people.image_ids, people.boxes_px, strict=True)
    ]
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(boxes))
    floor = {"network": "mean_pose", "weight_binarizer": None, "activation_binarizer": None}
    row = run(recipe(**floor, pose={"detections": str(file)}), tmp_path / "runs")
    assert row["metrics"]["AP_detected"] == pytest.approx(row["metrics"]["AP"], abs=1e-3)


def test_a_backbone_comes_from_a_classification_run(tmp_path):
    """init_from a classifier's checkpoint loads its trunk; the head starts new; another width is refused."""
    torch.manual_seed(1)
    binary = {"weight_binarizer": "ste", "activation_binarizer": "approx_sign"}
    for width in (8, 16):
        network = CLASSIFIERS["resnet20"](num_classes=3, width=width, blocks=(1, 1), stem="half", **binary)
        made = as_dict(make_recipe(network="resnet20"))
        folder = tmp_path / str(width)
        folder.mkdir()
        checkpoint.save(folder, {"recipe": made, "labels": ["a", "b", "c"], "network": network.state_dict()})
    start = recipe(init_from=str(tmp_path / "8" / "checkpoint.pt"))
    ours = task.make_network(start, 17)
    head = {key: value.clone() for key, value in ours.state_dict().items() if not key.startswith("trunk.")}
    _start_from(ours, start, None)
    wanted = checkpoint.load(start.init_from)["network"]
    for key, value in ours.state_dict().items():
        assert torch.equal(value, wanted[key] if key.startswith("trunk.") else head[key])
    with pytest.raises(ValueError, match="does not fit the network of this recipe"):
        _start_from(ours, recipe(init_from=str(tmp_path / "16" / "checkpoint.pt")), None)


def test_similarity_by_keypoint_is_each_joints_own_oks():
    """Noses moved by k px and all else right: exp(-k^2 / (2 area (2 sigma)^2)) for the nose, 1 for the others."""
    crops = CropBatches(DATA, VALIDATION, (64, 48))
    people = crops.people
    moved = people.joints_px.copy()
    moved[:, 0, 0] += 3.0
    found = judge(DATA, crops, moved, np.ones(moved.shape[:2]))["by_keypoint"]
    seen = people.visible[:, 0] > 0
    wanted = np.exp(-9 / (2 * people.areas_px2[seen] * (2 * 0.026) ** 2)).mean()
    assert found.pop("nose") == pytest.approx(wanted, abs=1e-3)
    assert set(found.values()) == {1.0}


def trained(folder, change=lambda entry: None) -> tuple:
    """A checkpoint of one epoch on a copy of the data that is gone afterwards, its recipe and its state."""
    made = recipe(data={"root": str(a_copy(folder / "data", change))})
    run(made, folder / "runs")
    source = folder_of(made, folder / "runs") / checkpoint.NAMES[0]
    (folder / "data").rename(folder / "away")
    return source, made, checkpoint.load(source)


def five_joints(entry):
    """Five joints whose pairs only the file says, in category 7."""
    if "name" in entry:
        entry.update(id=7, keypoints=["a", "b", "c", "d", "e"], sigmas=[0.1] * 5, flip_pairs=[[1, 2], [3, 4]])
        entry.update(skeleton=[[0, 1]])
    else:
        kept = np.array(entry["keypoints"]).reshape(-1, 3)[[0, 5, 6, 11, 12]]
        entry.update(category_id=7, keypoints=kept.ravel().tolist(), num_keypoints=int((kept[:, 2] > 0).sum()))


def test_a_checkpoint_knows_its_skeleton_when_its_data_are_away(tmp_path):
    """Pairs that only the annotation file said, sigmas, limbs and the category's id; an older one without them asks."""
    source, made, state = trained(tmp_path, five_joints)
    picture = next((DATA / VALIDATION).iterdir())
    (prediction,) = predict(source, [picture], CPU)
    assert list(prediction["keypoints"]) == ["a", "b", "c", "d", "e"]
    skeleton = task.skeleton_of(made, state["labels"], state["skeleton"])
    assert (skeleton.mirrored, skeleton.category, skeleton.sigmas) == ([0, 2, 1, 4, 3], 7, (0.1,) * 5)
    older = {key: value for key, value in state.items() if key != "skeleton"}
    (tmp_path / "older").mkdir()
    checkpoint.save(tmp_path / "older", older)
    with pytest.raises(ValueError, match="does not say which of its 5 keypoints a mirror exchanges"):
        next(predict(tmp_path / "older" / checkpoint.NAMES[0], [picture], CPU))


def test_an_older_checkpoint_is_of_cocos_person_only_where_its_names_are(tmp_path):
    """Without a skeleton and without data: COCO's 17 names give COCO's pairs, 17 other names a sentence."""
    _, made, state = trained(tmp_path)
    assert task.skeleton_of(made, state["labels"]) == COCO_PERSON
    with pytest.raises(ValueError, match="does not say which of its 17 keypoints a mirror exchanges"):
        task.skeleton_of(made, [f"joint {i}" for i in range(17)])
    with pytest.raises(ValueError, match="labels and its skeleton name other keypoints"):
        task.skeleton_of(made, state["labels"][::-1], state["skeleton"])


def test_scores_of_predictions_are_at_most_1():
    """Under cross-entropy a map that is sharper than its target is higher than 1 at its peak."""
    made = recipe(pose={"sigma_px": 3.0})
    maps = torch.zeros(1, 17, 16, 12)
    maps[..., 5, 5] = 20  # all of the probability in one cell

    class Sure(torch.nn.Module):
        """The same map whatever it sees."""

        def forward(self, x):
            return maps.expand(len(x), -1, -1, -1)

    picture = next((DATA / VALIDATION).iterdir())
    assert task.to_maps(maps, made).max() > 1
    labels = list(COCO_PERSON.names)
    (prediction,) = task.predict_pictures(Sure(), made, labels, [picture], CPU, COCO_PERSON.as_dict())
    assert {score for _, _, score in prediction["keypoints"].values()} == {1.0}


def test_a_validation_picture_that_cannot_be_read_is_found_before_the_training(tmp_path):
    """Cut off, though its header is whole: named before any step is taken."""
    root = a_copy(tmp_path / "data", lambda entry: None)
    (root / VALIDATION).unlink()
    (root / VALIDATION).mkdir()
    for picture in (DATA / VALIDATION).iterdir():
        (root / VALIDATION / picture.name).symlink_to(picture)
    broken = max((root / VALIDATION).iterdir())
    content = broken.read_bytes()
    broken.unlink()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"picture .*{broken.name} is damaged or cut off"):
        task.build(recipe(data={"root": str(root)}), CPU)


def test_one_of_several_categories_is_trained(tmp_path, caplog):
    """A third of the people are of a second category: the larger is taken and said, data.category takes the other."""
    root = a_copy(tmp_path / "data", lambda entry: None)
    counts = {}
    for split in (task.TRAIN, VALIDATION):
        file = root / f"annotations/person_keypoints_{split}.json"
        document = json.loads(file.read_text())
        document["categories"].insert(0, document["categories"][0] | {"id": 2, "name": "child"})
        for i, annotation in enumerate(document["annotations"]):
            annotation["category_id"] = 2 if i % 3 == 0 else 1
        children = [annotation for annotation in document["annotations"] if annotation["category_id"] == 2]
        counts[split] = sum(child["num_keypoints"] > 0 and not child["iscrowd"] for child in children)
        file.write_text(json.dumps(document))
    floor = {"network": "mean_pose", "weight_binarizer": None, "activation_binarizer": None}
    floor |= {"data": {"root": str(root), "train_limit": 0}}
    larger, smaller = (run(recipe(**merged(floor, {"data": {"category": name}})), tmp_path) for name in ("", "child"))
    assert "2 categories with keypoints person (1) is taken" in caplog.text
    assert f"child (2): {counts[task.TRAIN]}" in caplog.text
    assert larger["fingerprint"] != smaller["fingerprint"]
    assert len(CropBatches(root, VALIDATION, (64, 48), category="child")) == counts[VALIDATION]
    assert smaller["metrics"]["AP"] != larger["metrics"]["AP"]
    with pytest.raises(ValueError, match="has no category 'adult' with keypoints"):
        run(recipe(**merged(floor, {"data": {"category": "adult"}})), tmp_path)
