"""The data check finds each way a data folder is known to be broken, names the thing and says the remedy."""

import json
import shutil

import pytest
from PIL import Image

from bnc_repro.__main__ import parser
from bnc_repro.images import manifest
from bnc_repro.images.check import EXIF_ORIENTATION, check_images
from bnc_repro.images.sets import load
from bnc_repro.poses.check import check_keypoints
from bnc_repro.recipe.schema import Data
from people import make_people


@pytest.fixture
def classes(tmp_path):
    """A sound classification set: two classes, two pictures each, in train/ and val/."""
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                Image.effect_noise((40, 30), 90).save(tmp_path / split / name / f"{i}.jpg")
    return tmp_path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return make_people(tmp_path_factory.mktemp("people"), train=2, validation=2)


@pytest.fixture
def coco(drawn, tmp_path):
    """A sound keypoint set, and a way to change its annotation file."""
    folder = shutil.copytree(drawn, tmp_path / "people")

    def change(edit):
        file = folder / "annotations" / "person_keypoints_val2017.json"
        document = json.loads(file.read_text())
        edit(document)
        file.write_text(json.dumps(document))
        return check_keypoints(folder)

    return folder, change


def only(findings, *words):
    """There is one finding and it holds all the words."""
    assert len(findings) == 1, findings
    assert all(word in findings[0] for word in words), findings[0]


def test_sound_sets_have_no_findings(classes, coco):
    """Nothing is wrong with sound data, nor with what the project draws."""
    assert check_images(classes) == []
    assert check_keypoints(coco[0]) == []


def test_unusual_pictures_are_noted_only(classes):
    """CMYK and a turned EXIF orientation are read correctly: a note each, no finding."""
    Image.new("CMYK", (20, 20)).save(classes / "train" / "cat" / "0.jpg")
    turned = Image.Exif()
    turned[EXIF_ORIENTATION] = 6
    Image.new("RGB", (20, 20)).save(classes / "train" / "cat" / "1.jpg", exif=turned)
    notes = []
    assert check_images(classes, notes) == []
    assert len(notes) == 2
    assert "CMYK" in notes[0]
    assert "EXIF" in notes[1]


@pytest.mark.parametrize("damage", [b"", b"\xff\xd8\xff", b"no picture at all", None])
def test_bad_pictures_are_named(classes, coco, damage):
    """An empty file, a stub, a text and a cut off picture are found in both kinds of set."""
    for path, check, folder in (
        (classes / "val" / "dog" / "1.jpg", check_images, classes),
        (coco[0] / "val2017" / "000001000001.jpg", check_keypoints, coco[0]),
    ):
        path.write_bytes(path.read_bytes()[:-400] if damage is None else damage)
        only(check(folder), str(path), "copy it again")


def test_class_folders(classes):
    """Loose pictures, a class of one split only, an empty class and a foreign file each give a finding."""
    val = classes / "val"
    assert len(check_images(classes / "nowhere")) == 2
    (val / "0.jpg").write_bytes((val / "cat" / "0.jpg").read_bytes())
    only(check_images(classes), str(val), "0.jpg", "move each into")
    (val / "0.jpg").unlink()
    (val / "dog" / "list.txt").write_text("dogs")
    only(check_images(classes), "list.txt", "remove it")
    (val / "dog" / "list.txt").unlink()
    for path in (val / "dog").iterdir():
        path.unlink()
    only(check_images(classes), str(val / "dog"), "no pictures")
    (val / "dog").rmdir()
    only(check_images(classes), "class dog", str(val), "add it or remove it")


def test_hidden_pictures_and_classes_are_found(classes):
    """What torchvision reads and a file browser hides: named, as a run would take it for data."""
    stray = classes / "train" / "cat" / "._0.jpg"
    stray.write_bytes(b"resource fork")
    only(check_images(classes), str(stray), "read as a picture all the same", "remove it")
    stray.unlink()
    (classes / "val" / ".ipynb_checkpoints").mkdir()
    only(check_images(classes), ".ipynb_checkpoints", "read as a class all the same")


def test_a_bad_picture_stays_out_of_the_manifest(classes, capsys):
    """The command names it, ends with an error, and lists the others, so that a run may do without it."""
    bad = classes / "train" / "dog" / "1.jpg"
    bad.write_bytes(b"")
    options = parser().parse_args(["data", "check", str(classes)])
    with pytest.raises(SystemExit, match=r"1 to mend \(or allow for unreadable training pictures: data.max_bad_share"):
        options.function(options)
    assert str(bad) in capsys.readouterr().out
    listed = manifest.read(classes)
    assert "train/dog/1.jpg" not in listed
    assert "train/dog/0.jpg" in listed
    data = Data(root=str(classes), kind="imagefolder", image_size=(8, 8), max_bad_share=0.5)
    assert len(load(data, train=True)) == sum(name.startswith("train/") for name in listed)


def test_missing_annotations_and_pictures(coco):
    """A missing or cut off annotation file and a missing picture are named, an empty folder what it lacks."""
    folder, change = coco
    assert len(check_keypoints(folder / "nowhere")) == 2
    (folder / "val2017" / "000001000002.jpg").unlink()
    only(change(lambda document: None), "000001000002.jpg", "is missing", "copy")
    file = folder / "annotations" / "person_keypoints_val2017.json"
    file.write_bytes(file.read_bytes()[:-100])
    only(check_keypoints(folder), str(file), "copy it again")
    file.unlink()
    only(check_keypoints(folder), str(file), "is missing")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("keypoints", None, "has no keypoints"),
        ("keypoints", [1, 2, 2], "3 x 17"),
        ("bbox", [5, 5, 0, 9], "no area"),
        ("bbox", [900, 5, 9, 9], "outside"),
        ("image_id", 77, "not listed"),
    ],
)
def test_bad_annotations_are_named(coco, key, value, words):
    """Each bad field of an annotation gives a sentence with the annotation's id and the remedy."""

    def edit(document):
        one = document["annotations"][0]
        one.pop(key) if value is None else one.update({key: value})

    only(coco[1](edit), "10000010", words, "remove")


def test_ids_used_twice_and_wrong_sizes(coco):
    """Two records with one id, a record without, and a picture of another size than listed are found."""
    _, change = coco
    twice = change(lambda document: document["annotations"].append(document["annotations"][0]))
    only(twice, "10000010", "2 annotations")
    change(lambda document: document["annotations"].pop())
    only(change(lambda document: document["images"][0].update(width=99)), "image 1000001", "99 x", "copy")
    only(change(lambda document: document["images"][0].pop("id")), "entry 0 of images has no id")


def test_a_linked_folder_is_listed_as_runs_read_it(classes, tmp_path_factory):
    """The check's manifest has the pictures behind links to folders; a run then finds every one in it."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for i in range(3):
        Image.effect_noise((40, 30), 90).save(elsewhere / f"{i}.png")
    (classes / "train" / "cat" / "more").symlink_to(elsewhere)
    readable = []
    assert check_images(classes, readable=readable) == []
    manifest.write(classes, readable)
    data = Data(root=str(classes), kind="imagefolder", image_size=(8, 8))
    assert len(load(data, train=True)) == 7


@pytest.mark.parametrize(("name", "words"), [(".png", "is hidden"), ("\udcff.png", "a name that is no UTF-8 text")])
def test_names_that_a_manifest_cannot_hold_are_found(classes, name, words):
    Image.effect_noise((40, 30), 90).save(classes / "train" / "cat" / "x.png")
    (classes / "train" / "cat" / "x.png").rename(classes / "train" / "cat" / name)
    (finding,) = check_images(classes)
    assert words in finding


def test_splits_of_people_must_agree(drawn, tmp_path):
    """What a run refuses, the check finds: another id, other pairs; and an annotation of a category that is not
    listed."""
    for split in ("train2017", "val2017"):
        (tmp_path / split).symlink_to(drawn / split)
    (tmp_path / "annotations").mkdir()
    name = "annotations/person_keypoints_{}.json"
    documents = {split: json.loads((drawn / name.format(split)).read_text()) for split in ("train2017", "val2017")}

    def found(change):
        for split, document in documents.items():
            own = json.loads(json.dumps(document))
            if split == "val2017":
                change(own)
            (tmp_path / name.format(split)).write_text(json.dumps(own))
        return check_keypoints(tmp_path)

    assert found(lambda document: None) == []
    (finding,) = found(lambda document: document["categories"][0].update(flip_pairs=[[1, 2]]))
    assert "the categories of train2017 and val2017" in finding
    (finding,) = found(lambda document: document["annotations"][0].update(category_id=99))
    assert "is of category 99, which the file does not list" in finding


def test_a_link_that_leads_back_is_a_finding(classes):
    """Two links to their own folder, and two folders that hold each other, end; each picture is looked at."""
    cat, dog = classes / "train" / "cat", classes / "train" / "dog"
    for name in ("one", "two"):
        (cat / name).symlink_to(".")
    only(check_images(classes)[:1], str(cat), "links to a folder that it lies in: remove the link")
    assert len(check_images(classes)) == 2
    for name in ("one", "two"):
        (cat / name).unlink()
    (cat / "other").symlink_to(dog)
    (dog / "other").symlink_to(cat)
    readable = []
    assert all("links to a folder that it lies in" in finding for finding in check_images(classes, readable=readable))
    assert set(readable) >= set(cat.glob("*.jpg")) | set(dog.glob("*.jpg"))


def test_pictures_of_both_splits_are_a_finding_unless_they_are_few(classes):
    """Byte for byte, whatever their names; a share that published sets have is a note."""
    shutil.copy(classes / "train" / "cat" / "0.jpg", classes / "val" / "dog" / "1.jpg")
    only(
        check_images(classes), "1 of 4 validation pictures are training pictures too", "val/dog/1.jpg, which is", "out"
    )
    for i in range(100):
        Image.effect_noise((8, 8), 90).save(classes / "val" / "dog" / f"more{i}.png")
    notes = []
    assert check_images(classes, notes) == []
    assert "1 of 104 validation pictures" in notes[0]


def test_one_class_is_a_finding(classes):
    for split in ("train", "val"):
        shutil.rmtree(classes / split / "dog")
    only(check_images(classes), "has one class alone", "add another one to both splits")


def test_a_users_own_manifest_is_not_replaced(classes):
    """A file of that name which does not begin as ours stays; ours is written anew."""
    (classes / manifest.NAME).write_text("my,own\n1,2\n")
    options = parser().parse_args(["data", "check", str(classes)])
    with pytest.raises(
        ValueError, match=r"manifest\.csv is there and does not begin with path,bytes,sha256, .* move it"
    ):
        options.function(options)
    assert (classes / manifest.NAME).read_text() == "my,own\n1,2\n"
    (classes / manifest.NAME).write_text("path,bytes,sha256\ndamaged\n")
    options.function(options)
    assert "train/cat/0.jpg" in manifest.read(classes)


def test_a_class_that_links_to_another_is_found(classes):
    """Its pictures would have two labels."""
    for split in ("train", "val"):
        (classes / split / "copy").symlink_to(classes / split / "cat")
    findings = check_images(classes)
    for split in ("train", "val"):
        assert any(f"{split}/copy leads to the pictures of" in finding for finding in findings), findings


def test_pictures_that_the_manifest_before_listed_are_told(classes):
    """A new manifest without a word would make the rest another data set."""
    notes, readable = [], []
    assert check_images(classes, notes, readable) == []
    manifest.write(classes, readable)
    (classes / "train" / "cat" / "1.jpg").unlink()
    assert check_images(classes, notes, []) == []
    assert "1 pictures that" in notes[-1]
    assert "listed are gone, such as train/cat/1.jpg: copy them again" in notes[-1]
