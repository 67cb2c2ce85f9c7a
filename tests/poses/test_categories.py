"""Categories of annotation files: which is taken, what its joints are, and what is refused."""

import json

import pytest
from PIL import Image

from bnc_repro.poses.annotations import load_file
from bnc_repro.poses.categories import category_of, of_category, other_categories
from bnc_repro.poses.check import check_keypoints
from bnc_repro.poses.known_skeletons import KNOWN, known_skeleton
from bnc_repro.poses.skeleton import COCO_PERSON, Skeleton, named_pairs, without_partner

CROWDPOSE = KNOWN["crowdpose"].names
# what CrowdPose's own files say: COCO's limbs, up to joint 17 of 14
CROWDPOSE_LIMBS = [[16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9]]


def document(counts: dict[int, int]) -> dict:
    """People of categories by id, all with two joints."""
    categories = [{"id": number, "name": f"kind {number}", "keypoints": ["left_a", "right_a"]} for number in counts]
    people = [number for number, count in counts.items() for _ in range(count)]
    annotations = [
        {"id": i, "image_id": 0, "category_id": number, "keypoints": [1, 1, 2, 1, 1, 0], "bbox": [0, 0, 9, 9]}
        for i, number in enumerate(people)
    ]
    return {"images": [], "annotations": annotations, "categories": [{"id": 99, "name": "box"}, *categories]}


def test_the_category_with_most_people_is_taken_and_the_others_are_counted():
    """Nobody belongs to the first of three; a crowd and a person without a labelled joint do not count."""
    file = document({3: 0, 5: 2, 4: 3})
    file["annotations"] += [
        {"id": 50 + i, "image_id": 0, "category_id": 3, "keypoints": [0] * 6, "iscrowd": 0} for i in range(9)
    ]
    file["annotations"] += [{"id": 80, "image_id": 0, "category_id": 5, "num_keypoints": 2, "iscrowd": 1}]
    taken = category_of(file, "file")
    assert taken["id"] == 4
    sentence = other_categories(file, taken, "file")
    assert "kind 4 (4) is taken, with 3 people" in sentence
    assert "kind 5 (5): 2, kind 3 (3): 0. data.category takes another" in sentence
    assert other_categories(document({1: 2}), {"id": 1}, "file") is None
    assert category_of(document({8: 2, 7: 2}), "file")["id"] == 8


@pytest.mark.parametrize("wanted", ["kind 5", 5])
def test_a_category_by_name_or_id(wanted):
    """Also where another has more people."""
    assert category_of(document({5: 1, 4: 3}), "file", wanted)["id"] == 5


@pytest.mark.parametrize("wanted", ["kind", 99, "box", 6])
def test_a_category_that_is_not_there_is_answered_with_those_that_are(wanted):
    """A name, an id, and a category without keypoints."""
    with pytest.raises(ValueError, match=r"no category .* with keypoints \(recipe key data.category\); known.*kind 5"):
        category_of(document({5: 1, 4: 3}), "file", wanted)


def test_a_name_of_two_categories_takes_neither():
    """Their ids do, and so does the number of people where nothing is said."""
    file = document({5: 1, 4: 3})
    for one in file["categories"]:
        one["name"] = "person"
    with pytest.raises(ValueError, match="file has 2 categories 'person' with keypoints, of the ids 5, 4: take one by"):
        category_of(file, "file", "person")
    assert category_of(file, "file", 5)["id"] == 5
    assert category_of(file, "file")["id"] == 4


def category(names, **more):
    return {"id": 7, "keypoints": list(names), **more}


def test_crowdposes_own_file_is_drawn_by_its_own_limbs():
    """Its limbs are COCO's numbers and end beyond its 14 joints; sigmas, pairs and limbs come by its names."""
    skeleton = of_category(category(CROWDPOSE, skeleton=CROWDPOSE_LIMBS), "file")
    named = {frozenset((skeleton.names[a], skeleton.names[b])) for a, b in skeleton.links}
    assert {frozenset(("left_knee", "left_ankle")), frozenset(("head", "neck"))} <= named
    assert frozenset(("left_ankle", "right_ankle")) not in named
    assert skeleton.sigmas[:4] == (0.079, 0.079, 0.072, 0.072)
    assert skeleton.category == 7


def test_limbs_counted_from_0_and_from_1_are_the_same_limbs():
    """A 0 among them says so; a joint that is not there is refused."""
    sigmas, names = [0.1] * 3, ("top", "left_end", "right_end")
    from_1 = of_category(category(names, sigmas=sigmas, skeleton=[[1, 2], [1, 3]]), "file")
    from_0 = of_category(category(names, sigmas=sigmas, skeleton=[[0, 1], [0, 2]]), "file")
    assert from_0 == from_1
    assert from_1.links == ((0, 1), (0, 2))
    for limb in ([1, 4], [0, 3], [-1, 2]):
        with pytest.raises(ValueError, match=r'category 7: "skeleton" joins keypoint .*correct or\s+remove'):
            of_category(category(names, sigmas=sigmas, skeleton=[limb]), "file")


def test_a_side_without_a_partner_is_named():
    """left_wing without right_wing, unless the file says what a mirror exchanges."""
    names = ("left_eye", "right_eye", "Left_wing")
    with pytest.raises(ValueError, match="keypoint 'Left_wing' has no partner on the other side: correct its name, or"):
        of_category(category(names, sigmas=[0.1] * 3), "file")
    assert of_category(category(names, sigmas=[0.1] * 3, flip_pairs=[[0, 1]]), "file").mirrored == [1, 0, 2]
    assert without_partner(["left_left_eye", "right_right_eye", "bright", "right_x"]) == ["bright", "right_x"]


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["L_Eye", "R_Eye", "Nose"], ((0, 1),)),
        (["hand_r", "tail", "hand_l"], ((0, 2),)),
        (["eyeL", "eyeR", "Lung", "Rung"], ((0, 1),)),
        (["Right-knee", "Left-knee"], ((0, 1),)),
        (["fringe", "flinge"], ()),
    ],
)
def test_pairs_by_name(names, pairs):
    """Sides as words, and as letters that stand by themselves or end a word; not letters within words."""
    assert named_pairs(names) == pairs


@pytest.mark.parametrize("name", list(KNOWN))
def test_known_sets_fit_together(name):
    """Partners have one sigma and mirrored limbs, each joint but face landmarks hangs on a limb, names are unique."""
    skeleton = KNOWN[name]
    assert len(set(skeleton.names)) == len(skeleton.names) == len(skeleton.sigmas)
    for a, b in skeleton.flip_pairs:
        if not skeleton.names[a].startswith("face"):
            assert skeleton.names[b] == skeleton.names[a].replace("left", "*").replace("right", "left").replace(
                "*", "right"
            )
    assert not without_partner(skeleton.names)
    limbs = {frozenset(link) for link in skeleton.links}
    crossing = {frozenset(skeleton.mirrored[joint] for joint in link) for link in limbs}
    assert len(limbs & crossing) >= len(limbs) - 3
    joined = {joint for link in limbs for joint in link}
    assert {skeleton.names[joint] for joint in set(range(len(skeleton.names))) - joined} <= {
        landmark for landmark in skeleton.names if landmark.startswith(("face", "left_hand", "right_hand"))
    } | {"head", "nose"}


@pytest.mark.parametrize(
    ("name", "count", "pairs", "sigma"),
    [
        ("crowdpose", 14, 6, ("left_hip", 0.107)),
        ("mpii", 16, 6, ("right_shoulder", 0.179)),
        ("ap10k", 17, 7, ("root_of_tail", 0.035)),
        ("h36m", 17, 6, ("right_knee", 0.087)),
        ("halpe26", 26, 11, ("hip", 0.066)),
        ("halpe", 136, 61, ("head", 0.08)),
        ("coco_wholebody", 133, 61, ("right_heel", 0.094)),
    ],
)
def test_known_sets_by_the_numbers_of_their_papers(name, count, pairs, sigma):
    """Joints, pairs (a face has 29 with two in its middle, a hand 21), one sigma of each."""
    skeleton = KNOWN[name]
    assert (len(skeleton.names), len(skeleton.flip_pairs)) == (count, pairs)
    assert skeleton.sigmas[skeleton.names.index(sigma[0])] == sigma[1]


def test_another_order_and_spelling_of_known_joints():
    """AP-10K's letters for sides, Human3.6M with its left before its right: facts follow the joints."""
    letters = ("L_Eye", "R_Eye", "Nose", "Neck", "Root of tail", "L_Shoulder", "L_Elbow", "L_F_Paw", "R_Shoulder")
    letters += ("R_Elbow", "R_F_Paw", "L_Hip", "L_Knee", "L_B_Paw", "R_Hip", "R_Knee", "R_B_Paw")
    assert known_skeleton(letters).sigmas == KNOWN["ap10k"].sigmas
    backwards = KNOWN["h36m"].names[::-1]
    skeleton = known_skeleton(backwards)
    assert skeleton.sigmas == KNOWN["h36m"].sigmas[::-1]
    assert {frozenset(backwards[joint] for joint in link) for link in skeleton.links} == {
        frozenset(KNOWN["h36m"].names[joint] for joint in link) for link in KNOWN["h36m"].links
    }
    assert known_skeleton(("a", "b")) is None


def test_a_category_may_name_its_set():
    """Files whose category lists no joints, as Halpe's, say the set; a wrong name is answered with the known ones."""
    assert of_category({"id": 1, "keypoints": "halpe"}, "file").names == KNOWN["halpe"].names
    with pytest.raises(
        ValueError, match="has the keypoints 'crowdpos': list their names, or name a set; known, nearest"
    ):
        of_category({"id": 1, "keypoints": "crowdpos"}, "file")


def test_a_skeleton_survives_a_checkpoint():
    """As plain values and back; other values are a sentence."""
    for skeleton in (COCO_PERSON, KNOWN["halpe"], Skeleton(("a",), (), (0.1,), category=0)):
        assert Skeleton.from_dict(json.loads(json.dumps(skeleton.as_dict()))) == skeleton
    values = COCO_PERSON.as_dict()
    for broken in ({}, values | {"links": [[1]]}, values | {"sigmas": ["x"] * 17}, values | {"upper": None}):
        with pytest.raises(ValueError, match="skeleton"):
            Skeleton.from_dict(broken)
    with pytest.raises(ValueError, match="name joint 17, but joints are"):
        Skeleton.from_dict(values | {"links": [[0, 17]]})


VALUES = (
    None,
    "x",
    "",
    1.5,
    -1,
    True,
    [],
    [1],
    {},
    {"a": 1},
    10**30,
    float("nan"),
    [None] * 4,
    ["x"] * 51,
    [[0, 1, 2]],
)


@pytest.mark.parametrize("part", ["categories", "images", "annotations"])
def test_a_value_of_another_type_is_a_sentence(tmp_path, part):
    """Every key that is read, with every kind of value, and entries that are no objects: a sentence or a sound file."""
    file = tmp_path / "person_keypoints_val2017.json"
    keys = {
        "categories": ("id", "name", "keypoints", "sigmas", "flip_pairs", "skeleton", "upper"),
        "images": ("id", "file_name", "width", "height"),
        "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "num_keypoints", "keypoints"),
    }[part]
    sentences = []
    for key in keys:
        for value in VALUES:
            entry = {
                "images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}],
                "annotations": [
                    {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [1, 1, 2] * 17, "bbox": [0, 0, 9, 9]}
                ],
                "categories": [{"id": 1, "keypoints": list(COCO_PERSON.names)}],
            }
            entry[part][0][key] = value
            file.write_text(json.dumps(entry))
            try:
                read = load_file(file)
                of_category(category_of(read, file), file)
            except ValueError as error:
                sentences.append(str(error))
    assert all(str(file) in sentence for sentence in sentences)
    assert len(sentences) > 0.6 * len(keys) * len(VALUES)
    for value in VALUES:
        document = {"images": [], "annotations": [], "categories": [{"id": 1, "keypoints": list(COCO_PERSON.names)}]}
        document[part].append(value)
        file.write_text(json.dumps(document))
        with pytest.raises(ValueError, match=r"no object with keys|has no id|has no category"):
            load_file(file)


def test_ids_may_have_eleven_digits(tmp_path):
    """PoseTrack's and Human-Art's do; what no number of JSON holds is refused."""
    document = {
        "images": [{"id": 10128340000, "file_name": "a.png", "width": 9, "height": 9}],
        "annotations": [],
        "categories": [{"id": 1, "keypoints": list(COCO_PERSON.names)}],
    }
    file = tmp_path / "a.json"
    file.write_text(json.dumps(document))
    assert load_file(file) == document
    document["images"][0]["id"] = 2**53 + 1
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="images has the id 9007199254740993: give it a whole number"):
        load_file(file)


def test_json_that_is_nested_too_deeply_is_a_sentence(tmp_path):
    """Python's reader gives up with an error of its own."""
    file = tmp_path / "a.json"
    file.write_text("[" * 200_000)
    with pytest.raises(ValueError, match="is empty, cut off or no JSON"):
        load_file(file)


def test_the_check_sums_up_what_a_run_would_see(tmp_path):
    """People, pictures, category, labelled joints, pairs, upper body, missing areas; nothing of a faulty set."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "val2017" / "a.png")
    person = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "keypoints": [1, 1, 2] * 10 + [0, 0, 0] * 7}
    document = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 20, "height": 20},
            {"id": 2, "file_name": "a.png", "width": 20, "height": 20},
        ],
        "annotations": [person | {"id": 1}, person | {"id": 2, "area": 40}, person | {"id": 3, "iscrowd": 1}],
        "categories": [{"id": 3, "name": "person", "keypoints": list(COCO_PERSON.names)}],
    }
    (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(document))
    notes = []
    assert check_keypoints(tmp_path, notes) == []
    summary, area = (note.partition("val2017.json: ")[2] for note in notes)
    assert summary == (
        "2 people of category person (3) in 1 of 2 pictures, 20 of 34 joints labelled; 17 keypoints, 8 pairs, 11 "
        "joints of the upper body"
    )
    assert area == "1 people have no area, AP takes 0.53 of their boxes"
    document["annotations"].append(person | {"id": 4, "category_id": 8})
    (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(document))
    (finding,) = check_keypoints(tmp_path, notes := [])
    assert "annotation 4 is of category 8, which the file does not list" in finding
    assert notes == []
