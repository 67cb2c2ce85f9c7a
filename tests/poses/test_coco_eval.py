"""What bnc_repro.coco_eval claims, against pycocotools and against sums done by hand; on people made here."""

import io
import json
import math
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bnc_repro.poses import coco_eval
from bnc_repro.poses.crops import Augmentation, PersonCrops
from bnc_repro.poses.heatmaps import decode, encode, flip_back, to_image
from bnc_repro.poses.measures import similarity
from bnc_repro.poses.people import read_people
from bnc_repro.poses.skeleton import COCO_PERSON, Skeleton

UNPAIRED = Skeleton(COCO_PERSON.names, (), COCO_PERSON.sigmas)
SIZE, MAP = (128, 96), (32, 24)


def make_data(root, pictures=5, people=2, side=(130, 150), seed=0):
    """`people` persons in each of `pictures` pictures of 320 x 240 px, boxes of `side` px."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(1, pictures + 1):
        images.append({"id": number, "file_name": f"{number}.png", "width": 320, "height": 240})
        for person in range(people):
            width, height = rng.uniform(*side, 2)
            box = [5.0 + 160 * person, 20.0, width, height]
            joints = np.array(box[:2]) + rng.uniform(0.02, 0.98, (17, 2)) * (width, height)
            flags = rng.choice([0, 1, 2, 2], 17)
            flags[:4] = 2
            flat = np.where(flags[:, None] > 0, np.concatenate((joints, flags[:, None]), 1), 0).ravel()
            annotations.append(
                {
                    "id": 10 * number + person,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": box,
                    "area": width * height * 0.6,
                    "num_keypoints": int((flags > 0).sum()),
                    "keypoints": flat.tolist(),
                }
            )
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": COCO_PERSON.names}],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "val2017").mkdir(exist_ok=True)
    file = root / "annotations" / "person_keypoints_val2017.json"
    file.write_text(json.dumps(document))
    for image in images:
        Image.new("RGB", (320, 240)).save(root / "val2017" / image["file_name"])
    return file


@pytest.fixture
def file(tmp_path):
    return make_data(tmp_path)


@pytest.fixture
def people(file):
    return read_people(file.parents[1], "val2017")


def whole_path(root, skeleton=COCO_PERSON, size=SIZE, maps=MAP, augment=False):
    """Crops, the heatmaps of a network that is always right, flip test, decoding, results."""
    crops = PersonCrops(root, "val2017", size, augment=augment)
    item = crops.batch(range(len(crops)))
    across = size[1] - 1 - item["joints"][..., 0]
    mirrored = torch.stack((across, item["joints"][..., 1]), -1)[:, COCO_PERSON.mirrored]
    upright, _ = encode(item["joints"], item["visible"], size, maps)
    turned, _ = encode(mirrored, item["visible"][:, COCO_PERSON.mirrored], size, maps)
    coordinates, scores = decode((upright + flip_back(turned, skeleton)) / 2, size)
    in_picture = to_image(coordinates, item["matrix"]).numpy()
    flipped = torch.linalg.det(item["matrix"][..., :2]).numpy() < 0
    if augment:
        assert 0 < flipped.sum() < len(flipped)
    in_picture[flipped], scores = in_picture[flipped][:, COCO_PERSON.mirrored], scores.numpy()
    return coco_eval.to_results(crops.people, in_picture, scores, areas_px2=crops.areas_px2())


def test_perfect_heatmaps_reach_full_precision(file):
    """Crop, encode, flip test, decode, back to the picture, rescoring, NMS, COCOeval: AP at least 0.999."""
    measures = coco_eval.evaluate(file, whole_path(file.parents[1]))
    assert measures["AP"] >= 0.999
    assert measures["AR"] >= 0.999


@pytest.mark.parametrize("category", [1, 0, 7])
def test_perfect_heatmaps_of_turned_and_flipped_crops(file, category):
    """The same at 256x192 over random boxes, scales, rotations and flips, whatever number the category has, and with
    a category without keypoints beside it. Results of another category are refused."""
    document = json.loads(file.read_text())
    for one in document["annotations"]:
        joints = np.array(one["keypoints"]).reshape(-1, 3)
        centre = np.array(one["bbox"][:2]) + np.array(one["bbox"][2:]) / 2
        joints[:, :2] = np.where(joints[:, 2:] > 0, (joints[:, :2] + centre) / 2, 0)  # so that all stay in the crop
        one.update(keypoints=joints.ravel().tolist(), category_id=category)
    document["categories"][0]["id"] = category
    document["categories"].insert(0, {"id": 3, "name": "dog"})
    document["annotations"].insert(0, {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 9, 9], "area": 81})
    file.write_text(json.dumps(document))
    varied = Augmentation(scale_deviation=0.1, rotation_chance=1, rotation_deviation_degrees=20, half_body_chance=0)
    root = file.parents[1]
    results = whole_path(root, replace(COCO_PERSON, category=category), (256, 192), (64, 48), varied)
    results = [one | {"category_id": category} for one in results]
    assert coco_eval.evaluate(file, results)["AP"] >= 0.999
    with pytest.raises(ValueError, match=r"entry 0 .* is of category 3, the keypoints of .* are of category"):
        coco_eval.evaluate(file, [one | {"category_id": 3} for one in results])


def test_a_wrong_left_right_swap_fails(file):
    """The same path with left and right not swapped in the flip test loses most of its precision."""
    assert coco_eval.evaluate(file, whole_path(file.parents[1], UNPAIRED))["AP"] < 0.5


def oks_by_hand(found, true, flags, area):
    """One person's OKS, joint by joint."""
    terms = []
    for (x, y), (true_x, true_y), flag, sigma in zip(found, true, flags, COCO_PERSON.sigmas):
        if flag > 0:
            squared = (x - true_x) ** 2 + (y - true_y) ** 2
            terms.append(math.exp(-squared / (2 * area * (2 * sigma) ** 2)))
    return sum(terms) / len(terms)


def precision_by_hand(similarities, scores, threshold):
    """COCO's 101-point average precision, and the recall, of people matched with themselves alone."""
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    ranked = [similarities[row] >= threshold for row in order]
    hits, points = 0, []
    for place, hit in enumerate(ranked, 1):
        hits += hit
        points.append((hits / len(ranked), hits / place))
    levels = [
        max((precision for recall, precision in points if recall >= level / 100), default=0.0) for level in range(101)
    ]
    return sum(levels) / 101, points[-1][0]


def test_shifted_keypoints_give_the_precision_of_a_sum_by_hand(tmp_path):
    """People shifted by 0 to 16 px: AP, AP50, AP75 and AR equal those of scalar formulas to 1e-6."""
    file = make_data(tmp_path, pictures=12, people=1, seed=4)
    people = read_people(tmp_path, "val2017")
    found = people.joints_px + np.linspace(0, 16, 12)[::-1, None, None] * (0.6, 0.8)
    scores = np.random.default_rng(0).permutation(12) / 24 + 0.4
    results = coco_eval.to_results(people, found, np.repeat(scores[:, None], 17, 1))
    measures = coco_eval.evaluate(file, results)
    similarities = [
        oks_by_hand(found[row], people.joints_px[row], people.visible[row], people.areas_px2[row]) for row in range(12)
    ]
    rows = [precision_by_hand(similarities, scores, 0.5 + 0.05 * step) for step in range(10)]
    assert measures["AP"] == pytest.approx(sum(row[0] for row in rows) / 10, abs=1e-6)
    assert measures["AP50"] == pytest.approx(rows[0][0], abs=1e-6)
    assert measures["AP75"] == pytest.approx(rows[5][0], abs=1e-6)
    assert measures["AR"] == pytest.approx(sum(row[1] for row in rows) / 10, abs=1e-6)
    assert 0.2 < measures["AP"] < 0.9


def noisy(people, seed=0, px=6.0):
    rng = np.random.default_rng(seed)
    off_px = rng.normal(0, px, people.joints_px.shape)
    return people.joints_px + off_px, rng.uniform(0.1, 1, people.visible.shape)


def test_measures_are_those_of_pycocotools(file, people):
    """List and file give what COCOeval's own summary prints, to the last digit, and are left unchanged."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = coco_eval.to_results(people, *noisy(people))
    saved = coco_eval.save_results(results, file.parents[1] / "results.json")
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        judge = COCOeval(truth, truth.loadRes(str(saved)), "keypoints")
        judge.evaluate(), judge.accumulate(), judge.summarize()
    expected = dict(zip(coco_eval.MEASURES, judge.stats.tolist()))
    assert expected["APm"] == -1
    expected["APm"] = None
    assert coco_eval.evaluate(file, results) == expected
    assert coco_eval.evaluate(file, saved) == expected
    assert results == json.loads(saved.read_text())


def test_the_skeletons_own_sigmas_judge(file, people):
    """Three times the sigmas forgive three times the distance: people thrice as far off measure the same."""
    wide = Skeleton(COCO_PERSON.names, (), tuple(3 * sigma for sigma in COCO_PERSON.sigmas))
    off, scores = noisy(people, px=4.0)
    near = coco_eval.to_results(people, off, scores, nms_threshold=None)
    further = people.joints_px + 3 * (off - people.joints_px)
    far = coco_eval.to_results(people, further, scores, nms_threshold=None)
    narrow_measures, wide_measures = coco_eval.evaluate(file, near), coco_eval.evaluate(file, far, wide)
    assert wide_measures["AP"] == pytest.approx(narrow_measures["AP"])
    assert coco_eval.evaluate(file, far)["AP"] < narrow_measures["AP"]


def test_evaluate_prints_nothing(file, people, capsys):
    """pycocotools' tables stay inside."""
    coco_eval.evaluate(file, coco_eval.to_results(people, *noisy(people)))
    assert capsys.readouterr().out == ""


def test_nobody_of_a_size_is_none_not_minus_one(tmp_path):
    """With large people alone APm is None; with medium ones alone APl is."""
    for side, missing, present in (((130, 150), "APm", "APl"), ((60, 90), "APl", "APm")):
        file = make_data(tmp_path, side=side)
        people = read_people(tmp_path, "val2017")
        measures = coco_eval.evaluate(file, coco_eval.to_results(people, people.joints_px, np.ones((10, 17))))
        assert measures[missing] is None
        assert measures[present] == pytest.approx(1)


def test_ids_choose_whom_to_judge(file, people):
    """With a limit on the people, those left out are not counted as missed."""
    few = people.take(range(4))
    results = coco_eval.to_results(few, few.joints_px, np.ones((4, 17)))
    assert coco_eval.evaluate(file, results, ids=few.ids)["AP"] == pytest.approx(1)
    assert coco_eval.evaluate(file, results)["AP"] < 0.5


def test_no_results_are_zero_and_a_warning(file):
    """An empty list does not stop: AP 0, None where nobody belongs."""
    with pytest.warns(UserWarning, match="hold no person: AP is 0"):
        measures = coco_eval.evaluate(file, [])
    assert measures == {"AP": 0, "AP50": 0, "AP75": 0, "APm": None, "APl": 0, "AR": 0}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"keypoints": [float("nan")] * 51}, r"entry 1 \(image 2\) has a number that is not finite: remove"),
        ({"score": float("inf")}, r"entry 1 \(image 2\) has a number that is not finite"),
        ({"keypoints": [1.0] * 50}, r"entry 1 \(image 2\) has 50 keypoint numbers, not 3 x 17: use the skeleton"),
        ({"image_id": 99}, r"entry 1 \(image 99\) is of an image that .* does not list: take the results"),
    ],
)
def test_bad_results_name_entry_and_image(file, change, sentence):
    """In a list and in a file."""
    results = [{"image_id": number, "category_id": 1, "keypoints": [1.0, 2, 1] * 17, "score": 0.5} for number in (1, 2)]
    results[1].update(change)
    with pytest.raises(ValueError, match=sentence):
        coco_eval.evaluate(file, results)
    saved = file.parent / "results.json"
    saved.write_text(json.dumps(results))
    with pytest.raises(ValueError, match="results.json: " + sentence):
        coco_eval.evaluate(file, saved)


def test_predictions_that_are_not_finite_never_become_results(people):
    """The network's nan stops with person and image; a results file never holds NaN."""
    coordinates, scores = noisy(people)
    coordinates[3, 5, 0] = np.nan
    with pytest.raises(ValueError, match=r"person 3 \(image 2\) is not finite: the network has diverged"):
        coco_eval.to_results(people, coordinates, scores)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "results.json is missing"),
        ("[{", "results.json is empty, cut off or no JSON"),
        ("{}", "is no JSON list"),
        ('[{"image_id": 1}]', "entry 0 lacks image_id, category_id, keypoints or score"),
    ],
)
def test_unreadable_results_files(file, content, sentence):
    """Each with the file and the remedy."""
    saved = file.parent / "results.json"
    if content is not None:
        saved.write_text(content)
    with pytest.raises(ValueError, match=sentence):
        coco_eval.evaluate(file, saved)


def test_an_area_that_is_missing_is_a_share_of_the_box(file):
    """0.53 of the box, in the people read and in what judges them: AP is that of a file which says the number."""
    document = json.loads(file.read_text())
    for annotation in document["annotations"]:
        _, _, width, height = annotation["bbox"]
        annotation["area"] = 0.53 * width * height
    file.write_text(json.dumps(document))
    people = read_people(file.parents[1], "val2017")
    draw = np.random.default_rng(0).normal(0, 4, people.joints_px.shape)
    results = coco_eval.to_results(people, people.joints_px + draw, np.ones(people.joints_px.shape[:2]))
    wanted = coco_eval.evaluate(file, results)
    for annotation in document["annotations"]:
        del annotation["area"]
    file.write_text(json.dumps(document))
    assert read_people(file.parents[1], "val2017").areas_px2.tolist() == pytest.approx(people.areas_px2.tolist())
    assert coco_eval.evaluate(file, results) == wanted
    assert 0 < wanted["AP"] < 1


def test_rescore_by_hand():
    """Box score x mean of the confident joints; of all joints when none is confident."""
    joints = np.array([[0.9, 0.1, 0.5], [0.1, 0.05, 0.15]])
    np.testing.assert_allclose(coco_eval.rescore(joints, np.array([0.5, 1.0])), [0.5 * 0.7, 0.1])


def test_scored_joints_leaves_out_the_unlabelled(people):
    """A score counts the named joints alone."""
    scores = np.zeros((10, 17)) + 0.3
    scores[:, 5:] = 0.8
    results = coco_eval.to_results(people, people.joints_px, scores, scored_joints=range(5, 17))
    assert results[0]["score"] == pytest.approx(0.8)


def test_nms_keeps_the_best_of_repeated_people(file, people):
    """Each person found thrice within a px: the best one stays, AP stays whole; None keeps all."""
    thrice = people.take([*range(10)] * 3)
    coordinates = np.concatenate((people.joints_px + 1, people.joints_px, people.joints_px - 1))
    scores = np.repeat([0.5, 0.9, 0.4], 10)[:, None] * np.ones(17)
    results = coco_eval.to_results(thrice, coordinates, scores)
    assert len(results) == 10
    assert {one["score"] for one in results} == {0.9}
    assert len(coco_eval.to_results(thrice, coordinates, scores, nms_threshold=None)) == 30
    assert coco_eval.evaluate(file, results)["AP"] == pytest.approx(1)


def test_nms_is_the_greedy_rule():
    """The vectorised rule drops whom a double loop over scalar OKS drops."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 100, (6, 17, 2))
    points = base[rng.integers(0, 6, 40)] + rng.normal(0, 3, (40, 17, 2))
    scores, areas = rng.uniform(0, 1, 40), rng.uniform(2000, 9000, 40)
    kept = []
    for row in np.argsort(-scores):
        if all(
            oks_by_hand(points[row], points[other], [1] * 17, (areas[row] + areas[other]) / 2) <= 0.8 for other in kept
        ):
            kept.append(row)
    assert coco_eval.oks_nms(points, scores, areas, COCO_PERSON.sigmas, 0.8).tolist() == kept
    assert 6 <= len(kept) < 40


def test_similarity_by_hand(people):
    """OKS of each person, and each keypoint's mean over those who have it; nan where nobody has."""
    coordinates, _ = noisy(people)
    people.visible[:, 3] = 0
    persons, joints = similarity(people, coordinates)
    for row in range(10):
        assert persons[row] == pytest.approx(
            oks_by_hand(coordinates[row], people.joints_px[row], people.visible[row], people.areas_px2[row])
        )
    seen = np.flatnonzero(people.visible[:, 9])
    alone = np.eye(17)[9]
    assert joints[9] == pytest.approx(
        np.mean([oks_by_hand(coordinates[row], people.joints_px[row], alone, people.areas_px2[row]) for row in seen])
    )
    assert np.isnan(joints[3])


def detections(file, entries):
    path = file.parent / "boxes.json"
    path.write_text(json.dumps(entries))
    return path


def test_detections_become_people(file):
    """Boxes as they are, beyond the edge too, scores kept, other categories and low scores left out, crops readable."""
    path = detections(
        file,
        [
            {"image_id": 2, "category_id": 1, "bbox": [-10, 5, 60, 80], "score": 0.9},
            {"image_id": 1, "category_id": 3, "bbox": [10, 5, 60, 80], "score": 0.9},
            {"image_id": 3, "category_id": 1, "bbox": [10, 5, 60, 80], "score": 0.2},
        ],
    )
    found = coco_eval.read_detections(path, file.parents[1], "val2017", score_above=0.3)
    assert found.image_ids.tolist() == [2]
    np.testing.assert_array_equal(found.boxes_px, [[-10, 5, 60, 80]])
    crops = PersonCrops(file.parents[1], "val2017", (96, 72), people=found)
    assert crops[0]["visible"].sum() == 0
    results = coco_eval.to_results(found, np.ones((1, 17, 2)), np.ones((1, 17)))
    assert results[0]["score"] == pytest.approx(0.9)


GOOD = {"image_id": 2, "category_id": 1, "bbox": [10, 5, 60, 80], "score": 0.9}


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([], "boxes.json is empty: run the detector again, or use the true boxes"),
        ([GOOD, {**GOOD, "image_id": 50}], "image 50 of entry 1 is not listed"),
        ([{**GOOD, "bbox": [1, 2, 3, float("nan")]}], r"entry 0 has \[1, 2, 3, nan\] as bbox: write"),
        ([{**GOOD, "image_id": "2"}], "entry 0 has '2' as image_id: write whole numbers"),
        ([{"image_id": 2}], "entry 0 lacks image_id, category_id, bbox or score"),
        ([{**GOOD, "score": 0.0}], "has no box of category 1 with a score above 0.0"),
        ({}, "is no JSON list"),
    ],
)
def test_bad_detection_files_are_named(file, entries, sentence):
    """Empty, foreign or damaged: file, entry and remedy."""
    with pytest.raises(ValueError, match=sentence):
        coco_eval.read_detections(detections(file, entries), file.parents[1], "val2017")


def test_detections_that_cover_nothing_warn(file):
    """A detector's stray boxes do not stop an evaluation: they are left out, and named."""
    path = detections(file, [GOOD, {**GOOD, "bbox": [400, 5, 10, 10]}, {**GOOD, "bbox": [4, 5, 0, 10]}])
    with pytest.warns(UserWarning, match=r"2 boxes cover nothing .* first entry 1 \(image 2\)"):
        assert len(coco_eval.read_detections(path, file.parents[1], "val2017")) == 1


def test_annotation_id_0_counts(tmp_path, file, people):
    """Perfect predictions have AP 1 whatever the annotations' ids are: 0 is no "unmatched"."""
    document = json.loads(file.read_text())
    for number, annotation in enumerate(document["annotations"]):
        annotation["id"] = number
    other = tmp_path / file.name
    other.write_text(json.dumps(document))
    results = coco_eval.to_results(people, people.joints_px, np.ones(people.visible.shape), nms_threshold=None)
    assert coco_eval.evaluate(other, results)["AP"] == pytest.approx(1)


def without_areas(file, target, factor: float):
    """The annotations without areas, their boxes `factor` times as wide and high about the person."""
    document = json.loads(file.read_text())
    for annotation in document["annotations"]:
        del annotation["area"]
        x, y, width, height = annotation["bbox"]
        more_x, more_y = (factor - 1) / 2 * width, (factor - 1) / 2 * height
        annotation["bbox"] = [x - more_x, y - more_y, factor * width, factor * height]
    target.write_text(json.dumps(document))
    return document


@pytest.mark.parametrize("factor", [1, 7, 1e6])
def test_an_area_that_is_missing_is_a_share_of_what_the_box_covers_of_its_picture(tmp_path, file, people, factor):
    """A box that hangs over, however far, makes nobody larger than the picture, and no OKS easier than that."""
    (tmp_path / "annotations").mkdir(exist_ok=True)
    other = tmp_path / "annotations" / file.name
    document = without_areas(file, other, factor)
    found = read_people(tmp_path, "val2017")
    for annotation, area in zip(document["annotations"], found.areas_px2):
        x, y, width, height = annotation["bbox"]
        covered = (min(x + width, 320) - max(x, 0)) * (min(y + height, 240) - max(y, 0))
        assert area == pytest.approx(0.53 * covered)
    off = people.joints_px + np.random.default_rng(0).normal(0, 30, people.joints_px.shape)
    results = coco_eval.to_results(people, off, np.ones(people.visible.shape), nms_threshold=None)
    with_areas = json.loads(other.read_text())
    for annotation, area in zip(with_areas["annotations"], found.areas_px2):
        annotation["area"] = float(area)
    stated = tmp_path / "stated.json"
    stated.write_text(json.dumps(with_areas))
    assert coco_eval.evaluate(other, results) == coco_eval.evaluate(stated, results)
    assert coco_eval.evaluate(other, results)["AP"] is not None


def test_scores_below_0_are_told(file):
    """Of a detector that writes logits: half of its boxes would be gone without a word."""
    path = detections(file, [GOOD, {**GOOD, "score": -3.0}, {**GOOD, "score": -0.5}, {**GOOD, "score": 0.0}])
    with pytest.warns(UserWarning, match=r"3 boxes have scores of 0 or less, down to -3, and are left out"):
        assert len(coco_eval.read_detections(path, file.parents[1], "val2017")) == 1
