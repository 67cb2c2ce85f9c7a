"""What bnc_repro.keypoints claims, and the heatmaps of bnc_repro.pictures; on pictures made here."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from bnc_repro.poses.annotations import faults
from bnc_repro.poses.categories import of_category
from bnc_repro.poses.crops import PersonCrops, crop_matrix
from bnc_repro.poses.heatmaps import decode, encode, flip_back, to_image
from bnc_repro.poses.people import mean_pose, predict_mean_pose, read_people
from bnc_repro.poses.skeleton import COCO_PERSON, Skeleton

SIZE, MAP = (256, 192), (64, 48)


def made_document(count=4, names=COCO_PERSON.names, seed=0):
    """`count` pictures of 120 x 100 px with one person each, every joint labelled."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(1, count + 1):
        images.append({"id": number, "file_name": f"{number}.png", "width": 120, "height": 100})
        joints = np.round(rng.uniform((22, 12), (78, 88), (len(names), 2)), 1)
        flat = np.concatenate((joints, np.full((len(names), 1), 2)), 1).ravel().tolist()
        annotations.append(
            {
                "id": 100 + number,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [20.0, 10.0, 60.0, 80.0],
                "area": 2500.0,
                "num_keypoints": len(names),
                "keypoints": flat,
            }
        )
    category = {"id": 1, "name": "person", "keypoints": list(names), "skeleton": []}
    return {"images": images, "annotations": annotations, "categories": [category]}


def write(root, document, split="val2017", pixels=True):
    (root / "annotations").mkdir(exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(document))
    rng = np.random.default_rng(1)
    for image in document["images"] if pixels else ():
        noise = rng.integers(0, 255, (image["height"], image["width"], 3), np.uint8)
        Image.fromarray(noise).save(root / split / image["file_name"])
    return root


@pytest.fixture
def root(tmp_path):
    return write(tmp_path, made_document())


def mirror(joints, input_size, skeleton=COCO_PERSON):
    """Where the joints lie in the mirrored crop, in the order in which a network names them there."""
    across = input_size[1] - 1 - joints[..., 0]
    return torch.stack((across, joints[..., 1]), -1)[:, skeleton.mirrored]


def flip_tested(joints, size, heatmap_size, sigma=2.0, skeleton=COCO_PERSON):
    """What a perfect network answers after a flip test."""
    seen = torch.ones(joints.shape[:2])
    upright, _ = encode(joints, seen, size, heatmap_size, sigma)
    mirrored, _ = encode(mirror(joints, size), seen, size, heatmap_size, sigma)
    return (upright + flip_back(mirrored, skeleton)) / 2


@pytest.mark.parametrize(
    ("size", "heatmap_size", "sigma"),
    [
        (SIZE, MAP, 2.0),
        ((128, 96), (32, 24), 2.0),
        ((128, 96), (32, 24), 1.5),
        ((96, 72), (24, 18), 1.5),
        ((96, 72), (24, 18), 1.0),
    ],
)
def test_perfect_heatmaps_decode_exactly(size, heatmap_size, sigma):
    """Joints two cells or more from the border, random boxes, turns and flips, flip test, back in the
    picture: within 0.1 px of the crop (UDP, DARK), also on small maps."""
    rng = np.random.default_rng(0)
    cell = (np.array(size[::-1]) - 1) / (np.array(heatmap_size[::-1]) - 1)
    joints = rng.uniform(2 * cell, np.array(size[::-1]) - 1 - 2 * cell, (200, 17, 2))
    matrices = np.stack(
        [
            crop_matrix(
                rng.uniform(100, 500, 2), rng.uniform(30, 600), size, rng.uniform(-90, 90), bool(rng.integers(2))
            )
            for _ in range(200)
        ]
    )
    crop_joints = torch.tensor(joints, dtype=torch.float32)
    found, scores = decode(flip_tested(crop_joints, size, heatmap_size, sigma), size)
    in_picture = to_image(found.double(), torch.tensor(matrices))
    truth = np.einsum("nij,nkj->nki", matrices[..., :2], joints) + matrices[:, None, :, 2]
    picture_px_per_px = np.hypot(*matrices[:, :, 0].T)[:, None]
    assert (np.linalg.norm(in_picture.numpy() - truth, axis=-1) / picture_px_per_px).max() < 0.1
    assert scores.min() > 0.7


def test_a_wrong_left_right_swap_spoils_the_flip_test():
    """Without the swap of the left and right maps the same joints land tens of px away."""
    joints = torch.rand(20, 17, 2) * 150 + 20
    unpaired = Skeleton(COCO_PERSON.names, (), COCO_PERSON.sigmas)
    found, _ = decode(flip_tested(joints, SIZE, MAP, skeleton=unpaired), SIZE)
    assert (found - joints).norm(dim=-1).mean() > 10


def test_a_mirrored_map_turns_back_onto_the_upright_one():
    """No shift is due in UDP's units: the map of a mirrored person, turned back, is the upright one's."""
    joints = 4.0 * torch.stack((torch.randint(4, 44, (20, 17)), torch.randint(4, 60, (20, 17))), -1)
    seen = torch.ones(joints.shape[:2])
    upright, _ = encode(joints, seen, SIZE, MAP)
    mirrored, _ = encode(mirror(joints, SIZE), seen, SIZE, MAP)
    torch.testing.assert_close(flip_back(mirrored, COCO_PERSON), upright, atol=1e-5, rtol=0)


def test_decoding_methods_by_hand():
    """argmax: the cell; quarter: a quarter towards the higher neighbour, not at the edge."""
    heatmaps = torch.zeros(1, 2, 8, 8)
    heatmaps[0, 0, 3, 4], heatmaps[0, 0, 3, 5], heatmaps[0, 0, 2, 4] = 0.9, 0.5, 0.4
    heatmaps[0, 1, 0, 7] = 0.5
    found, scores = decode(heatmaps, (8, 8), "argmax")
    torch.testing.assert_close(found[0], torch.tensor([[4.0, 3], [7, 0]]))
    torch.testing.assert_close(scores[0], torch.tensor([0.9, 0.5]))
    found, _ = decode(heatmaps, (8, 8), "quarter")
    torch.testing.assert_close(found[0], torch.tensor([[4.25, 2.75], [7, 0]]))
    with pytest.raises(ValueError, match="'darkest' is unknown: choose dark, dark_edge, quarter, argmax"):
        decode(heatmaps, (8, 8), "darkest")


@pytest.mark.parametrize("method", ["dark", "quarter", "argmax"])
def test_decoding_survives_any_finite_map(method):
    """Flat, negative, noisy and one-cell maps give finite points inside the crop's reach."""
    maps = torch.stack(
        (
            torch.zeros(24, 18),
            -torch.rand(24, 18),
            torch.rand(24, 18),
            torch.eye(24)[:, :18] * 1e6,
            torch.full((24, 18), 1e-30),
        )
    )[None]
    found, scores = decode(maps, (96, 72), method)
    assert torch.isfinite(found).all()
    assert torch.isfinite(scores).all()
    assert (found > -6).all()
    assert (found < 102).all()


def test_encode_by_hand():
    """Height 1 at the joint's cell, exp(-1/8) next to it; weight 0 and an empty map elsewhere."""
    joints = torch.tensor([[[20.0, 40.0], [-30.0, 40.0], [20.0, 40.0]]])
    targets, weights = encode(joints, torch.tensor([[1.0, 1.0, 0.0]]), (81, 61), (21, 16))
    assert targets.shape == (1, 3, 21, 16)
    torch.testing.assert_close(weights, torch.tensor([[1.0, 0.0, 0.0]]))
    assert targets[0, 0, 10, 5] == 1
    assert targets[0, 0, 10, 6] == pytest.approx(np.exp(-1 / 8))
    assert targets[0, 1:].abs().max() == 0


def test_crops_hold_the_annotated_joints(root):
    """Through every augmentation an item's matrix takes its joints to the picture's, names mirrored."""
    crops = PersonCrops(root, "val2017", (96, 72), augment=True)
    flips = 0
    for epoch in range(12):
        crops.set_epoch(3, epoch)
        item = crops.batch(range(4))
        assert item["image"].shape == (4, 3, 96, 72)
        assert item["image"].dtype == torch.uint8
        back = to_image(item["joints"], item["matrix"]).numpy()
        for row in range(4):
            flipped = bool(torch.linalg.det(item["matrix"][row, :, :2]) < 0)
            flips += flipped
            truth = crops.people.joints_px[row][COCO_PERSON.mirrored if flipped else range(17)]
            np.testing.assert_allclose(back[row], truth, atol=1e-3)
            joints = item["joints"][row]
            inside = ((joints > -0.5) & (joints < torch.tensor([71.5, 95.5]))).all(-1)
            torch.testing.assert_close(item["visible"][row], inside.float())
    assert 8 < flips < 40


def test_a_plain_crop_is_the_padded_box(root):
    """Without augmentation: upright, centred on the box, 1.25 times it, aspect (W - 1) : (H - 1)."""
    item = PersonCrops(root, "val2017", (96, 72))[1]
    corners = to_image(torch.tensor([[[0.0, 0.0], [71, 95]]]), item["matrix"][None])[0]
    half = torch.tensor([1, 95 / 71]) * max(60, 80 * 71 / 95) * 1.25 / 2
    torch.testing.assert_close(corners, torch.stack((50 - half, 50 + half)), atol=1e-4, rtol=0)
    assert item["index"] == 1


def test_joints_inside_are_those_that_crops_show(tmp_path):
    """Counted without a crop, as upright crops have them: some of the joints lie outside, near the edge."""
    document = made_document(8)
    rng = np.random.default_rng(3)
    for one in document["annotations"]:
        one["bbox"] = [*rng.uniform(0, 60, 2).tolist(), *rng.uniform(10, 40, 2).tolist()]
        one.update(area=9.0)
    for size in ((96, 72), (48, 80)):
        crops = PersonCrops(write(tmp_path, document), "val2017", size)
        seen = int(crops.batch(range(8))["visible"].sum())
        assert crops.labelled_inside() == seen
        assert 0 < seen < 8 * 17


def test_draws_depend_on_seed_epoch_and_person_alone(root):
    """Order, single or batched reading, limit, and two persistent workers over two epochs change nothing."""
    crops = PersonCrops(root, "val2017", (96, 72), augment=True)
    few = PersonCrops(root, "val2017", (96, 72), augment=True, limit=2, cache=False)
    loader = DataLoader(crops, batch_size=2, num_workers=2, persistent_workers=True)
    seen = []
    for epoch in range(2):
        for one in (crops, few):
            one.set_epoch(5, epoch)
        whole = crops.batch(range(4))
        loaded = [torch.cat(parts) for parts in zip(*(tuple(part.values()) for part in loader))]
        for name, value in zip(whole, loaded):
            assert torch.equal(whole[name], value), name
        for row in (3, 1, 0):
            assert all(torch.equal(value, whole[name][row]) for name, value in crops[row].items())
        assert torch.equal(few[1]["image"], whole["image"][1])
        seen.append(whole["matrix"])
    assert not torch.equal(*seen)
    crops.set_epoch(6, 1)
    assert not torch.equal(crops.batch(range(4))["matrix"], seen[1])


def test_crowds_and_people_without_keypoints_are_left_out(tmp_path):
    """COCO's rule; unlabelled joints have weight 0."""
    document = made_document(4)
    document["annotations"][0]["iscrowd"] = 1
    document["annotations"][1].update(num_keypoints=0, keypoints=[0] * 51)
    document["annotations"][2]["keypoints"][:3] = [0, 0, 0]
    document["annotations"][2]["num_keypoints"] = 16
    crops = PersonCrops(write(tmp_path, document), "val2017", (96, 72))
    assert crops.people.ids.tolist() == [103, 104]
    assert crops[0]["visible"][0] == 0
    assert crops[1]["visible"].min() == 1


FIVE = ("tip", "left_end", "right_end", "top", "end")


def test_other_skeletons_work(tmp_path):
    """A data set of five keypoints with one pair: crops, mirror names, heatmaps and the mean pose."""
    document = made_document(3, FIVE)
    document["categories"][0].update(sigmas=[0.1] * 5, skeleton=[[1, 4], [4, 5]], upper=[0, 3])
    crops = PersonCrops(write(tmp_path, document), "val2017", (96, 72), augment=True)
    assert crops.skeleton == Skeleton(FIVE, ((1, 2),), (0.1,) * 5, links=((0, 3), (3, 4)), upper=(0, 3))
    assert crops.skeleton.mirrored == [0, 2, 1, 3, 4]
    batch = crops.batch([0, 1])
    assert encode(batch["joints"], batch["visible"], (96, 72), (24, 18))[0].shape == (2, 5, 24, 18)
    assert mean_pose(crops.people).shape == (5, 2)


@pytest.mark.parametrize(
    ("names", "said", "sentence"),
    [
        (FIVE, {}, 'says no sigmas, which OKS needs: add "sigmas"'),
        (FIVE, {"sigmas": [0.1] * 4}, "category 1: skeleton has 5 names and 4 sigmas"),
        (FIVE, {"sigmas": [0.1] * 4 + [0]}, "give one above 0 for each joint"),
        (("a", "b"), {"sigmas": [0.1] * 2}, 'no keypoints named left and right: add "flip_pairs"'),
        (("a", "b"), {"sigmas": [0.1] * 2, "flip_pairs": [[0, 2]]}, "one outside 0..1"),
    ],
)
def test_what_a_category_lacks_is_named(tmp_path, names, said, sentence):
    """Keypoints that are not COCO's need sigmas, and pairs where names do not give them."""
    document = made_document(2, names)
    document["categories"][0].update(said)
    with pytest.raises(ValueError, match=sentence) as caught:
        PersonCrops(write(tmp_path, document), "val2017", (96, 72))
    assert "person_keypoints_val2017.json" in str(caught.value)


def test_a_category_may_say_that_nothing_is_paired():
    """`flip_pairs` of the file go before names, [] is an answer; COCO's names with sigmas of their own keep those."""
    record = {"id": 4, "keypoints": ["a", "b"], "sigmas": [0.1, 0.2]}
    assert of_category(record | {"flip_pairs": []}, "file").mirrored == [0, 1]
    assert of_category(record | {"flip_pairs": [[0, 1]]}, "file").mirrored == [1, 0]
    own = of_category({"id": 2, "keypoints": list(COCO_PERSON.names), "sigmas": [0.05] * 17}, "file")
    assert own == replace(COCO_PERSON, sigmas=(0.05,) * 17, category=2)


def test_the_area_of_a_crop_by_hand(root):
    """Width and height of the padded box at the crop's aspect ratio, in UDP's units."""
    crops = PersonCrops(root, "val2017", (96, 72))
    for (_, _, width, height), area in zip(crops.people.boxes_px.tolist(), crops.areas_px2().tolist()):
        across = max(width, height * 71 / 95) * 1.25
        assert area == pytest.approx(across * across * 95 / 71)


def test_mean_pose_by_hand(root):
    """The mean over people that have the joint labelled, in units of the box; 0.5 for joints nobody has."""
    people = read_people(root, "val2017")
    people.visible[:, 0], people.visible[0, 1] = 0, 0
    pose = mean_pose(people)
    np.testing.assert_array_equal(pose[0], (0.5, 0.5))
    np.testing.assert_allclose(pose[1], ((people.joints_px[1:, 1] - (20, 10)) / (60, 80)).mean(0))
    np.testing.assert_allclose(predict_mean_pose(pose, people)[2], (20, 10) + pose * (60, 80))


def broken(document, kind):
    first = document["annotations"][0]
    if kind == "form":
        return []
    if kind == "instances":
        del document["categories"][0]["keypoints"]
    if kind == "category":
        document["categories"][0]["keypoints"].pop()
    if kind == "without":
        del first["keypoints"]
    if kind == "count":
        first["keypoints"].pop()
    if kind == "flat":
        first["bbox"][2] = 0
    if kind == "outside":
        first["bbox"][0] = 130
    if kind == "orphan":
        first["image_id"] = 77
    if kind == "boxless":
        del first["bbox"]
    if kind == "boxless crowd":
        del first["bbox"]
        first["iscrowd"] = 1
    if kind == "boxless unlabelled":
        del first["bbox"]
        first.update(num_keypoints=0, keypoints=[0] * 51)
    if kind == "uncounted":
        first["num_keypoints"] = 0
    if kind == "overcounted":
        first["num_keypoints"] = 18
    if kind == "unlabelled":
        first["keypoints"] = [0] * 51
    if kind == "listed":
        document["images"].append({**document["images"][0], "id": 9, "file_name": "nowhere.png"})
    if kind == "unsized":
        del document["images"][0]["width"]
    if kind == "nameless":
        del first["id"]
    if kind == "nobody":
        for one in document["annotations"]:
            one.update(num_keypoints=0, keypoints=[0] * 51)
    return document


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("form", "lacks the lists images, annotations and categories: .* take a person_keypoints"),
        ("instances", "has no category with keypoints: take person_keypoints_.*json, not instances"),
        ("category", "category 1 has 16 keypoints that are not COCO.s 17 and says no sigmas"),
        ("without", "annotation 101 has no keypoints: take person_keypoints"),
        ("count", "annotation 101 has 50 keypoint numbers, not 3 x 17: mend or remove it"),
        ("flat", "annotation 101 .image 1. has a box of no area .*: correct or remove it"),
        ("outside", "annotation 101 has a box .* outside its image 1 of 120 x 100 px: correct or remove it"),
        ("orphan", "annotation 101 has image 77, which is not listed: add the image"),
        ("boxless", "annotation 101 .image 1. has no bbox, the box that is cut out or measured from: add it"),
        ("boxless crowd", "annotation 101 .image 1. has no bbox"),
        ("boxless unlabelled", "annotation 101 .image 1. has no bbox"),
        ("uncounted", "annotation 101 has 0 as num_keypoints, but labels 17: correct either"),
        ("overcounted", "annotation 101 has 18 as num_keypoints, but labels 17: correct either"),
        ("unlabelled", "annotation 101 has 17 as num_keypoints, but labels none: correct either"),
        ("listed", "image 9 is listed, but .*nowhere.png is missing: copy the pictures"),
        ("unsized", "image 1 lacks width: add it, a whole number of px above 0"),
        ("nameless", "entry 0 of annotations has no id: give each a number"),
        ("nobody", "has no person with a labelled keypoint, crowds aside: take another split"),
    ],
)
def test_bad_annotations_are_named_before_training(tmp_path, kind, sentence):
    """Each fault stops the data set's construction with file, id and remedy."""
    write(tmp_path, made_document())
    write(tmp_path, broken(made_document(), kind), pixels=False)
    with pytest.raises(ValueError, match=sentence) as caught:
        PersonCrops(tmp_path, "val2017", (96, 72))
    assert "person_keypoints_val2017.json" in str(caught.value)


@pytest.mark.parametrize(("area", "sound"), [(0, 0), (0.2, 0), (1, 1), (4800, 1), (4941, 1), (9900, 0), (2e9, 0)])
def test_an_area_is_one_that_a_person_of_this_box_can_have(tmp_path, area, sound):
    """From a pixel to the box of 60 x 80 px, with room for rounding and for a box that was padded."""
    document = made_document()
    document["annotations"][0]["area"] = area
    document["annotations"][1].update(area=area, num_keypoints=0, keypoints=[0] * 51)  # nobody reads this one
    found = faults(write(tmp_path, document, pixels=False), "val2017")
    found = [fault for fault in found if "is missing: copy" not in fault]
    assert len(found) == 1 - sound
    assert all("annotation 101 (image 1) has the area" in fault for fault in found)


def test_an_area_is_at_most_the_pictures(tmp_path):
    """A box of 300 x 400 px around a picture of 120 x 100: 20000 px^2 are possible with a padded box, 60000 are not."""
    document = made_document()
    for area, count in ((20000, 0), (60000, 1)):
        document["annotations"][0].update(area=area, bbox=[-90, -150, 300, 400])
        assert len(faults(write(tmp_path, document), "val2017")) == count


def test_people_may_count_fewer_keypoints_than_they_label(tmp_path):
    """Sets that join bodies with hands and faces count the body's alone, and crowds are not counted."""
    document = made_document()
    document["annotations"][0]["num_keypoints"] = 5
    document["annotations"][1].update(num_keypoints=0, iscrowd=1)
    assert read_people(write(tmp_path, document), "val2017").ids.tolist() == [101, 103, 104]


def test_faults_lists_them_all(tmp_path):
    """`faults` goes on after the first and is empty for a sound split; the reader counts the rest."""
    document = made_document()
    assert faults(write(tmp_path, document), "val2017") == []
    broken(broken(document, "flat"), "listed")
    write(tmp_path, document, pixels=False)
    assert len(faults(tmp_path, "val2017")) == 2
    with pytest.raises(ValueError, match="1 more fault"):
        read_people(tmp_path, "val2017")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is missing: a data set is a folder with annotations/person_keypoints_<split>.json .*cocodataset"),
        ("", "is empty, cut off or no JSON: make or copy it again"),
        ('{"images": [', "is empty, cut off or no JSON"),
    ],
)
def test_missing_and_damaged_annotation_files(tmp_path, content, sentence):
    """The layout expected and how to get it, or the remedy."""
    if content is not None:
        (tmp_path / "annotations").mkdir()
        (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text(content)
    with pytest.raises(ValueError, match=sentence):
        PersonCrops(tmp_path, "val2017", (96, 72))


def test_pictures_of_another_size_are_refused(root):
    """A resized picture would put every joint in the wrong place: its name and both sizes are said."""
    Image.new("RGB", (60, 50)).save(root / "val2017" / "2.png")
    crops = PersonCrops(root, "val2017", (96, 72))
    with pytest.raises(ValueError, match=r"2.png has 60 x 50 px, its annotations \(image 2\) say 120 x 100"):
        crops[1]
    with pytest.raises(ValueError, match="limit 0 leaves no person"):
        PersonCrops(root, "val2017", (96, 72), limit=0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sigmas": (0.1,)}, "3 names and 1 sigmas"),
        ({"sigmas": (0.1, 0.1, 50.0)}, r"the sigma 50, outside 0\.001 to 1: give shares of a person's size"),
        ({"sigmas": (0.1, 1e-200, 0.1)}, "the sigma 1e-200, outside"),
        ({"sigmas": (0.1, float("inf"), 0.1)}, "the sigma inf, outside"),
        ({"flip_pairs": ((0, 1), (1, 2))}, "name a joint twice"),
        ({"flip_pairs": ((0, 3),)}, "one outside 0..2"),
    ],
)
def test_skeletons_that_do_not_fit_together(change, sentence):
    """One sigma a joint, of a size that joints have, one partner a joint."""
    assert Skeleton(("a", "b"), (), (0.001, 1.0)).sigmas == (0.001, 1.0)
    with pytest.raises(ValueError, match=sentence):
        Skeleton(**{"names": ("a", "b", "c"), "flip_pairs": (), "sigmas": (0.1,) * 3, **change})


def test_coco_person_is_symmetric():
    """Left and right names are partners with one sigma; the mirror of the mirror is the joint itself."""
    for joint, partner in enumerate(COCO_PERSON.mirrored):
        swapped = COCO_PERSON.names[joint].replace("left", "*").replace("right", "left").replace("*", "right")
        assert COCO_PERSON.names[partner] == swapped
        assert COCO_PERSON.sigmas[partner] == COCO_PERSON.sigmas[joint]


def test_reading_changes_nothing(root):
    """The rows chosen by `take` are copies: a limit leaves the full people alone."""
    people = read_people(root, "val2017")
    before = copy.deepcopy(people.joints_px)
    people.take([0, 1]).joints_px[:] = 0
    np.testing.assert_array_equal(people.joints_px, before)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"keypoints": [float("nan"), *[1] * 50]}, "nan as x of keypoint 0"),
        ({"keypoints": [1, None, *[1] * 49]}, "None as y of keypoint 0"),
        ({"keypoints": [1, 1, 0.9, *[1] * 48]}, r"visibility 0\.9 of keypoint 0, which is 0, 1 or 2"),
        ({"id": "seven"}, "one of the annotations has the id 'seven': give it a whole number"),
        ({"id": 102}, "id 102 is used by 2 annotations"),
    ],
)
def test_numbers_that_are_none_are_named_before_training(tmp_path, change, sentence):
    """Coordinates, visibilities and ids, by annotation and joint."""
    document = made_document(4)
    document["annotations"][0].update(change)
    with pytest.raises(ValueError, match=sentence):
        read_people(write(tmp_path, document), "val2017")


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd.png"])
def test_a_picture_is_not_looked_for_outside_of_its_folder(tmp_path, name):
    """A name that leads out of the pictures' folder is refused, whether the file is there or not."""
    document = made_document(4)
    document["images"][0]["file_name"] = name
    with pytest.raises(ValueError, match=r"is called .*, outside of .*: name it within"):
        read_people(write(tmp_path, document), "val2017")
