"""Classification sets: even parts, draws that depend on (seed, epoch, image) alone, and clear complaints."""

import gzip
import hashlib
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bnc_repro.images import manifest
from bnc_repro.images.check import check_images
from bnc_repro.images.manifest import write
from bnc_repro.images.pictures import normalise, read
from bnc_repro.images.sets import EIGENVALUES, EIGENVECTORS, evenly, load, picture
from bnc_repro.images.task import build
from bnc_repro.recipe.build import make_recipe
from bnc_repro.recipe.schema import Data
from bnc_repro.run.identity import data_fingerprint
from bnc_repro.training import memory
from tiny import TINY

SIZES = {"train": 40, "t10k": 20}


def write_idx(path, array: np.ndarray) -> None:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.fixture
def fashion(tmp_path):
    """40 training and 20 test images of 28x28 noise in the set's four idx files."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for part, count in SIZES.items():
        write_idx(raw / f"{part}-images-idx3-ubyte", draw.integers(0, 256, (count, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    return tmp_path


@pytest.fixture
def folders(tmp_path):
    """train/ and val/ with the classes cat and dog, PNG pictures of 20x30 px and a grey one."""
    draw = np.random.default_rng(1)
    for part, count in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (20, 30) if i == 0 else (20, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path


def batch(made, seed: int, epoch: int, indices=(0, 3, 5)) -> dict:
    made.set_epoch(seed, epoch)
    return made.__getitems__(list(indices))


def test_evenly_takes_as_many_of_each_class_as_possible():
    """The first images of each class, in the set's order; 0 or too much means all."""
    labels = torch.tensor([0, 0, 0, 1, 2, 1, 2, 1, 2, 0])
    assert evenly(labels, 5).tolist() == [0, 1, 3, 4, 5]
    assert evenly(labels, 6).tolist() == [0, 1, 3, 4, 5, 6]
    for limit in (0, 10, 99):
        assert evenly(labels, limit).tolist() == list(range(10))


def test_arrays_are_what_the_files_hold(fashion):
    """Fashion-MNIST comes as uint8 (N, 1, 28, 28) with ten classes; train_limit does not cut the test set."""
    data = Data(root=str(fashion), train_limit=20)
    train, test = load(data, train=True), load(data, train=False)
    assert (len(train), len(test), train.num_classes, train.channels) == (20, 20, 10, 1)
    assert train.labels.bincount().tolist() == [2] * 10
    raw = (fashion / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()[16:]
    got = test.__getitems__([3])
    assert got["image"].dtype == torch.uint8
    assert got["image"].numpy().tobytes() == raw[3 * 784 : 4 * 784]
    assert got["label"].tolist() == [3]


@pytest.mark.parametrize("augment", ["flip", "shift"])
def test_flips_and_shifts_follow_seed_and_epoch(fashion, augment):
    """The same (seed, epoch) draws the same pictures, whatever the global stream; another one others."""
    train = load(Data(root=str(fashion), augment=augment), train=True)
    every = range(len(train))
    first = batch(train, 7, 2, every)["image"]
    torch.manual_seed(99)
    assert torch.equal(batch(train, 7, 2, every)["image"], first)
    assert torch.equal(batch(train, 7, 2, [5])["image"][0], first[5])
    for seed, epoch in ((7, 3), (8, 7)):
        assert not torch.equal(batch(train, seed, epoch, every)["image"], first)
    test = load(Data(root=str(fashion), augment=augment), train=False)
    assert torch.equal(batch(test, 7, 2)["image"], test.images[[0, 3, 5]])


def test_a_shift_moves_by_at_most_two_pixels_and_fills_with_black(fashion):
    """Every shifted image is the flipped or plain one moved by -2..2 px in y and x, 0 where nothing was."""
    train = load(Data(root=str(fashion), augment="shift"), train=True)
    got = batch(train, 1, 0, range(10))["image"]
    for i in range(10):
        plain = train.images[i, 0]
        possible = []
        for source in (plain, plain.flip(-1)):
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    moved = torch.zeros_like(source)
                    moved[max(-dy, 0) : 28 - max(dy, 0), max(-dx, 0) : 28 - max(dx, 0)] = source[
                        max(dy, 0) : 28 + min(dy, 0), max(dx, 0) : 28 + min(dx, 0)
                    ]
                    possible.append(moved)
        assert any(torch.equal(got[i, 0], moved) for moved in possible)


def test_normalise_by_hand():
    """(pixel + 255 light - mean) / deviation per channel."""
    x = torch.full((1, 3, 1, 2), 100, dtype=torch.uint8)
    found = normalise(x, "imagefolder", torch.tensor([[0.1, 0.0, -0.1]]))
    wanted = [(125.5 - 123.675) / 58.395, (100 - 116.28) / 57.12, (74.5 - 103.53) / 57.375]
    assert torch.allclose(found[0, :, 0, 1], torch.tensor(wanted), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "folder", "other"),
    [
        ("fashion_mnist", "train/cat", "imagefolder"),
        ("cifar10", "FashionMNIST/raw", "fashion_mnist"),
        ("imagefolder", "cifar-10-batches-py", "cifar10"),
        ("imagefolder", "annotations", "coco"),
    ],
)
def test_a_folder_of_another_kind_names_both(tmp_path, kind, folder, other):
    """The kind that was asked for and the one that the folder looks like."""
    (tmp_path / folder).mkdir(parents=True)
    size = (32, 32) if kind != "fashion_mnist" else (28, 28)
    with pytest.raises(ValueError, match=rf"{kind}.*\(it looks like data\.kind={other}\)"):
        load(Data(root=str(tmp_path), kind=kind, image_size=size), train=True)


def test_image_size_is_that_of_the_images(fashion):
    """Arrays of files have their size; another one in the recipe, or in damaged files, is told."""
    with pytest.raises(ValueError, match=r"have 28 x 28 px, recipe key data\.image_size says \[8, 8\]: say \[28, 28\]"):
        load(Data(root=str(fashion), image_size=(8, 8)), train=True)
    file = fashion / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    text = bytearray(file.read_bytes())
    text[11], text[15] = 14, 56
    file.write_bytes(text)
    with pytest.raises(ValueError, match="have 14 x 56 px"):
        load(Data(root=str(fashion)), train=True)


@pytest.mark.parametrize(("place", "byte"), [(2, 0x0A), (8, 200)])
def test_damaged_labels_are_told_before_a_training(fashion, place, byte):
    """One bit of the header's type, or a label of no class."""
    file = fashion / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte"
    text = bytearray(file.read_bytes())
    text[place] = byte
    file.write_bytes(text)
    with pytest.raises(ValueError, match="what is there is"):
        load(Data(root=str(fashion)), train=False)


def test_pictures_that_no_memory_holds_are_a_sentence(tmp_path, monkeypatch):
    """Counted before the first is decoded."""
    monkeypatch.setattr(memory, "whole_mib", lambda device: 50)
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        for name in "ab":
            Image.new("RGB", (8, 8)).save(tmp_path / split / "cat" / f"{name}.png")
    wide = Data(root=str(tmp_path), kind="imagefolder", in_memory=True, image_size=(4096, 4096))
    with pytest.raises(
        ValueError, match=r"2 pictures are held decoded at 4096 x 4096 px: that takes at least 0\.1 GiB"
    ):
        load(wide, train=True)
    assert len(load(replace(wide, image_size=(64, 64)), train=True)) == 2


def test_a_missing_folder_is_named_with_the_remedy(tmp_path):
    """Each kind of data says which folder in which layout is expected."""
    for kind, wanted in (
        ("fashion_mnist", "dvc pull"),
        ("cifar10", "cifar-10-batches-py/"),
        ("imagefolder", "train/<class>/ and val/<class>/"),
    ):
        gone = tmp_path / "gone"
        with pytest.raises(ValueError, match=re.escape(f"no {kind} data in {gone}: data.root must be")) as caught:
            load(Data(root=str(gone), kind=kind), train=True)
        assert wanted in str(caught.value)
        if kind != "imagefolder":
            with pytest.raises(ValueError, match="incomplete or damaged"):
                load(Data(root=str(tmp_path), kind=kind), train=True)


@pytest.mark.parametrize("kept", [0, 3, 10, 500, 20000])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_half_copied_file_is_told(fashion, name, kept):
    """An idx file cut off anywhere, or empty, stops with the folder, the layout and `dvc pull`."""
    path = fashion / "FashionMNIST" / "raw" / name
    path.write_bytes(path.read_bytes()[: min(kept, path.stat().st_size - 1)])
    with pytest.raises(ValueError, match="incomplete or damaged") as caught:
        load(Data(root=str(fashion)), train=True)
    assert str(fashion) in str(caught.value)
    assert "dvc pull" in str(caught.value)


def test_files_that_do_not_belong_together_are_told(fashion):
    """Fewer labels than images, and a file left compressed, are complaints, not results."""
    raw = fashion / "FashionMNIST" / "raw"
    whole = (raw / "train-labels-idx1-ubyte").read_bytes()
    write_idx(raw / "train-labels-idx1-ubyte", np.arange(30) % 10)
    with pytest.raises(ValueError, match="40 images and 30 labels"):
        load(Data(root=str(fashion)), train=True)
    (raw / "train-labels-idx1-ubyte").write_bytes(gzip.compress(whole))
    with pytest.raises(ValueError, match="incomplete or damaged"):
        load(Data(root=str(fashion)), train=True)


def test_a_half_copied_cifar_is_told(tmp_path):
    """A CIFAR-10 folder with a cut-off batch stops with the layout that is expected."""
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"cifar-10-batches-py/ .*incomplete or damaged"):
        load(Data(root=str(tmp_path), kind="cifar10"), train=True)


def test_class_folders_are_read(folders):
    """Classes are the folders' names; val is centre-cropped, grey pictures become RGB."""
    data = Data(root=str(folders), kind="imagefolder", image_size=(16, 16), augment="crop", train_limit=4)
    train, test = load(data, train=True), load(data, train=False)
    assert (len(train), len(test), train.classes, train.channels) == (4, 4, ["cat", "dog"], 3)
    assert train.labels.tolist() == [0, 0, 1, 1]
    got = test.__getitems__([0, 1, 2])
    assert got["image"].shape == (3, 3, 16, 16)
    assert got["image"].dtype == torch.uint8
    assert "light" not in got
    assert torch.equal(got["image"][0, 0], got["image"][0, 2])


def test_crops_and_lighting_follow_seed_epoch_and_image(folders):
    """A picture's crop and light depend on (seed, epoch, i): not on its batch, nor on the global stream."""
    data = Data(root=str(folders), kind="imagefolder", image_size=(12, 16), augment="crop", lighting=0.1)
    train = load(data, train=True)
    first = batch(train, 3, 1, [0, 4, 7])
    assert first["image"].shape == (3, 3, 12, 16)
    assert first["light"].shape == (3, 3)
    torch.manual_seed(1234)
    state = torch.random.get_rng_state()
    again = batch(load(data, train=True), 3, 1, [7, 4])
    assert torch.equal(torch.random.get_rng_state(), state)
    for key in ("image", "light"):
        assert torch.equal(again[key], first[key][[2, 1]])
        assert not torch.equal(batch(train, 3, 2, [0, 4, 7])[key], first[key])
        assert not torch.equal(batch(train, 4, 1, [0, 4, 7])[key], first[key])


def test_lighting_lies_along_the_colour_covariance(folders):
    """light = E (0.1 n * eigenvalues), n standard normal: its deviation over many draws is known."""
    data = Data(root=str(folders), kind="imagefolder", image_size=(8, 8), augment="flip", lighting=0.1)
    train = load(data, train=True)
    lights = torch.cat([batch(train, 0, epoch, range(12))["light"] for epoch in range(60)])
    vectors, values = torch.tensor(EIGENVECTORS), torch.tensor(EIGENVALUES)
    wanted = vectors @ torch.diag((0.1 * values) ** 2) @ vectors.T
    assert torch.allclose(lights.T.cov(), wanted, rtol=0.25, atol=1e-5)


def test_faulty_class_folders_are_named(folders):
    """No val/, or an empty class, stops with the folder and what to run."""
    data = Data(root=str(folders), kind="imagefolder", image_size=(8, 8))
    (folders / "train" / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has an empty class or none .*data check"):
        load(data, train=True)
    (folders / "val").rename(folders / "validation")
    with pytest.raises(ValueError, match=r"val is missing: data.root must be a folder with train/<class>/"):
        load(data, train=False)


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("part", ["train", "val"])
def test_an_unreadable_image_stops_a_run_before_it_starts(folders, part, in_memory, caplog):
    """A cut-off picture is named with the remedy; a share of the training pictures may be left out."""
    path = folders / part / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    options = {"root": str(folders), "kind": "imagefolder", "image_size": (8, 8), "in_memory": in_memory}
    said = re.escape(f"picture {path} is damaged or cut off")
    with pytest.raises(ValueError, match=said + ".*copy it again.*data.max_bad_share"):
        load(Data(**options), train=part == "train")
    if part == "val":
        with pytest.raises(ValueError, match=said):
            load(Data(**options, max_bad_share=0.5), train=False)
    else:
        assert len(load(Data(**options, max_bad_share=0.09), train=True)) == 11
        assert re.search(said + ".*left out", caplog.text)


def test_an_image_that_turns_bad_is_named_counted_and_replaced(folders, caplog):
    """Up to max_bad_share; without it, or beyond it, the batch that needs the picture stops."""
    data = Data(root=str(folders), kind="imagefolder", image_size=(8, 8))
    strict = load(data, train=True)
    lenient = load(replace(data, max_bad_share=0.1), train=True)
    paths = [folders / "train" / "dog" / name for name in ("3.png", "4.png")]
    paths[0].write_bytes(b"")
    first, second = (strict.files.index(str(path)) for path in paths)
    with pytest.raises(ValueError, match=r"3\.png is empty .*that makes 1, and 0 of 12 may be replaced"):
        strict.__getitems__([first])
    batch = lenient.__getitems__([first, first + 1])
    assert torch.equal(batch["image"][0], batch["image"][1])
    assert re.search(r"3\.png is empty .*replaced by the next one \(1 of 1\)", caplog.text)
    paths[1].write_bytes(b"")
    with pytest.raises(ValueError, match=r"4\.png is empty .*that makes 2, and 1 of 12 may be replaced"):
        lenient.__getitems__([second])


def test_pictures_that_all_turn_bad_are_an_error_once_round(folders):
    """Whatever share may be replaced, something must take their place."""
    lenient = load(Data(root=str(folders), kind="imagefolder", image_size=(8, 8), max_bad_share=1), train=True)
    for file in lenient.files:
        open(file, "wb").close()
    count = len(lenient)
    with pytest.raises(ValueError, match=rf"that makes {count}, and {count - 1} of {count} may be replaced"):
        lenient.__getitems__([3])


def test_a_picture_draws_from_the_processor_alone(folders, monkeypatch):
    """Its crop leaves the random numbers of GPUs, which a run draws from, as they are."""
    varied = load(Data(root=str(folders), kind="imagefolder", image_size=(8, 8), augment="crop"), train=True)
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("this seeds every device"))
    before = torch.get_rng_state()
    first, again = (varied.__getitems__([3])["image"] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_manifest_stands_for_the_pictures(folders, monkeypatch):
    """Names and sizes are compared with it; many pictures without one are refused; it names the data."""
    data = Data(root=str(folders), kind="imagefolder", image_size=(8, 8))
    monkeypatch.setattr(manifest, "FEW", 5)
    with pytest.raises(ValueError, match=r"has 12 pictures and no manifest.csv: `python -m bnc_repro data check"):
        load(data, train=True)
    files = []
    assert check_images(folders, readable=files) == []
    assert len(files) == 16
    written = manifest.write(folders, files)
    assert written.read_text().splitlines()[0] == "path,bytes,sha256"
    path = folders / "train" / "cat" / "1.png"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"train/cat/1.png,{path.stat().st_size},{digest}" in written.read_text().splitlines()
    assert data_fingerprint(folders) == hashlib.sha256(written.read_bytes()).hexdigest()
    assert len(load(data, train=True)) == 12
    (folders / "train" / "cat" / "new.png").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"new\.png is not in manifest\.csv: .*data check"):
        load(data, train=True)
    (folders / "train" / "cat" / "new.png").unlink()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"1\.png has \d+ bytes, manifest\.csv says \d+"):
        load(data, train=True)
    path.unlink()
    with pytest.raises(ValueError, match=r"train lacks 1 pictures that manifest\.csv lists, such as train/cat/1\.png"):
        load(data, train=True)


@pytest.mark.parametrize("kind", ["fashion_mnist", "imagefolder", "in memory"])
def test_validation_images_come_from_the_training_images(fashion, folders, kind):
    """A share of the training images, evenly among them, is judged in place of the test images, never trained on."""
    data = Data(root=str(fashion), train_limit=20, validation=0.25)
    if kind != "fashion_mnist":
        data = Data(
            root=str(folders), kind="imagefolder", image_size=(8, 8), validation=0.25, in_memory=kind == "in memory"
        )
    whole = load(replace(data, validation=0.0), train=True)
    train, judged = load(data, train=True), load(data, train=False)
    assert (len(train), len(judged)) == (0.75 * len(whole), 0.25 * len(whole))
    if kind == "imagefolder":
        assert sorted(train.files + judged.files) == sorted(whole.files)
    else:
        every = {image.numpy().tobytes() for image in whole.images}
        parts = [{image.numpy().tobytes() for image in part.images} for part in (train, judged)]
        assert parts[0] | parts[1] == every
        assert not parts[0] & parts[1]
    assert len(judged.labels.unique()) == (5 if kind == "fashion_mnist" else 2)


def test_folders_in_memory_hold_the_same_pixels(folders):
    """Decoded once to the size asked for; CIFAR-10 may come as class folders too."""
    data = Data(root=str(folders), kind="imagefolder", image_size=(20, 30), in_memory=True)
    kept = load(data, train=True)
    read = np.asarray(Image.open(folders / "train" / "cat" / "1.png"))
    assert np.array_equal(kept.images[1].permute(1, 2, 0).numpy(), read)
    assert kept.labels.tolist() == [0] * 6 + [1] * 6
    assert kept.classes == ["cat", "dog"]
    assert len(load(replace(data, train_limit=4), train=True)) == 4
    other = load(replace(data, kind="cifar10", in_memory=False), train=False)
    assert other.images.shape == (4, 3, 20, 30)


def test_a_picture_becomes_an_image_of_the_set(folders):
    """predict's picture: any size and mode to (C, H, W) of the set, and a sentence for what is none."""
    file = folders / "train" / "cat" / "1.png"
    assert picture(file, Data(kind="fashion_mnist")).shape == (1, 28, 28)
    in_memory = picture(file, Data(kind="imagefolder", in_memory=True, image_size=(20, 30)))
    assert np.array_equal(in_memory.permute(1, 2, 0).numpy(), np.asarray(Image.open(file)))
    (folders / "note.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"note\.txt is not a picture"):
        picture(folders / "note.txt", Data())
    with pytest.raises(ValueError, match=r"gone\.png is missing"):
        picture(folders / "gone.png", Data())


@pytest.mark.parametrize("in_memory", [False, True])
def test_predict_sees_the_pixels_that_evaluate_judges(folders, in_memory):
    """A wide picture of class folders: cropped at the centre where the set crops it, squeezed where the set does."""
    wide = np.random.default_rng(0).integers(0, 256, (40, 160, 3), np.uint8)
    file = folders / "val" / "cat" / "0.png"
    Image.fromarray(wide).save(file)
    data = Data(root=str(folders), kind="imagefolder", in_memory=in_memory, image_size=(24, 24))
    judged = load(data, train=False)
    index = judged.files.index(str(file)) if not in_memory else 0
    assert torch.equal(judged.__getitems__([index])["image"][0], picture(file, data))


def test_turned_and_deep_pictures_are_seen_as_they_look(tmp_path):
    """A phone's picture upright; 16 bits by their upper byte; floating point numbers are refused with the remedy."""
    upright = np.zeros((40, 20, 3), np.uint8)
    upright[:10] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "turned.png", exif=exif)
    seen = picture(tmp_path / "turned.png", Data(kind="imagefolder", in_memory=True, image_size=(40, 20)))
    assert torch.equal(seen, torch.from_numpy(upright).permute(2, 0, 1))
    deep = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    seen = picture(tmp_path / "deep.png", Data(kind="imagefolder", in_memory=True, image_size=(20, 20)))
    assert np.array_equal(seen[0].numpy(), (deep >> 8).astype(np.uint8))
    Image.fromarray(np.random.default_rng(0).random((4, 4)).astype(np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(ValueError, match=r"float\.tiff holds F numbers .* convert it to 8 or 16 bits"):
        read(tmp_path / "float.tiff")


def test_pictures_that_change_under_a_manifest_are_other_data(folders):
    """The same size, other pixels, an older date: the fingerprint is another; the old bytes give the old one back."""
    write(folders, sorted(folders.rglob("*.png")))
    before, file = data_fingerprint(folders), folders / "train" / "cat" / "1.png"
    content, stamp = file.read_bytes(), file.stat().st_mtime
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(file, (stamp, stamp))
    changed = data_fingerprint(folders)
    assert changed != before
    file.write_bytes(content)
    assert data_fingerprint(folders) == before
    file.unlink()
    assert data_fingerprint(folders) not in (before, changed)


def test_the_unpickled_form_of_older_releases_is_not_read(fashion):
    """Where `processed/` stands beside `raw/`, the images are those of raw/, which the fingerprint covers."""
    place = fashion / "FashionMNIST" / "processed"
    place.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(3, 28, 28), torch.zeros(3)), place / name)
    assert len(load(Data(root=str(fashion)), train=True)) == SIZES["train"]


@pytest.mark.parametrize("size", [(64, 128), (128, 64), (48, 48)])
@pytest.mark.parametrize("stored", [(100, 100), (60, 200), (200, 60)])
def test_a_judged_picture_of_class_folders_is_full(tmp_path, size, stored):
    """White pictures stay white to the edge, whichever side of data.image_size is the longer one."""
    Image.new("RGB", stored, (255, 255, 255)).save(tmp_path / "white.png")
    seen = picture(tmp_path / "white.png", Data(kind="imagefolder", image_size=size))
    assert seen.shape == (3, *size)
    assert bool((seen == 255).all())


def test_a_picture_too_thin_to_be_resized_is_refused(tmp_path):
    """Where it is resized by its shorter side; in memory it takes the size of the set."""
    Image.new("L", (300_000, 1)).save(tmp_path / "thin.png")
    with pytest.raises(ValueError, match=r"thin\.png has 300000 x 1 px, too thin to be resized .*: crop it"):
        picture(tmp_path / "thin.png", Data(kind="imagefolder", image_size=(32, 32)))
    assert picture(tmp_path / "thin.png", Data(kind="cifar10", image_size=(32, 32))).shape == (3, 32, 32)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_dark_pictures_of_16_bits_are_seen_dark(tmp_path, name):
    """By the upper byte, whether or not another pixel is bright."""
    dark = np.full((8, 8), 200, np.uint16)
    dark[0, 0] = 255
    for brightest in (255, 256, 65535):
        dark[0, 0] = brightest
        if name.endswith("pgm"):
            (tmp_path / name).write_bytes(b"P5 8 8 65535\n" + dark.astype(">u2").tobytes())
        else:
            Image.fromarray(dark).save(tmp_path / name)
        seen = np.asarray(read(tmp_path / name))[..., 0]
        assert np.array_equal(seen, dark >> 8)


def test_no_decoder_ends_a_run_with_words_of_its_own(tmp_path, monkeypatch):
    """Formats of no data set are not decoded, and whatever a decoder raises is a damaged picture."""
    Image.new("RGB", (16, 16)).save(tmp_path / "bad.jpg", "DDS")
    with pytest.raises(ValueError, match="is not a picture that Pillow can read"):
        read(tmp_path / "bad.jpg")
    Image.new("RGB", (16, 16)).save(tmp_path / "fine.png")

    def broken(*_):
        raise RuntimeError("Failed to decode image")

    monkeypatch.setattr(Image.Image, "convert", broken)
    with pytest.raises(ValueError, match=r"fine\.png is damaged or cut off \(Failed to decode image\): copy it again"):
        read(tmp_path / "fine.png")


def test_a_set_with_nothing_to_judge_or_to_tell_apart_is_refused(fashion, folders, caplog):
    """No image held out, one class, numbers with a sign; and a class without a picture is said."""
    with pytest.raises(
        ValueError, match=r"data\.validation is 0\.001, which holds out none of 40 training images: take"
    ):
        load(Data(root=str(fashion), validation=0.001), train=False)
    made = make_recipe(**TINY, data={"root": str(fashion), "train_limit": 4})
    build(made, torch.device("cpu"))
    assert "6 of 10 classes have no training picture" in caplog.text
    labels = fashion / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:2] + b"\x09" + labels.read_bytes()[3:])
    with pytest.raises(ValueError, match="what is there is incomplete or damaged"):
        load(Data(root=str(fashion)), train=False)
    for part in ("train", "val"):
        shutil.rmtree(folders / part / "dog")
    one = {"root": str(folders), "kind": "imagefolder", "image_size": [24, 24]}
    with pytest.raises(ValueError, match="has one class alone, which every network knows: add another one"):
        build(make_recipe(**TINY, data=one), torch.device("cpu"))


def made_sets(folders) -> None:
    for train in (True, False):
        load(Data(root=str(folders), kind="imagefolder", image_size=(8, 8)), train=train)


@pytest.mark.parametrize("name", ["6.gif", "6.AVIF", "6.jp2", "6.jfif"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_pictures_of_kinds_that_would_be_left_out_are_refused(folders, split, name):
    """A run over the others alone would be a run of another set."""
    (folders / split / "cat" / name).write_bytes(b"")
    kind = name.rpartition(".")[2].lower()
    with pytest.raises(
        ValueError, match=rf"{split} has 1 pictures of kinds .* \(\.{kind}\), such as .*{name}: convert"
    ):
        made_sets(folders)
    (folders / split / "cat" / name).rename(folders / split / "cat" / "notes.txt")
    made_sets(folders)


def test_a_hidden_folder_is_no_class(folders):
    """As JupyterLab leaves them."""
    for split in ("train", "val"):
        (folders / split / ".ipynb_checkpoints").mkdir()
        (folders / split / "cat" / "0.png").rename(folders / split / ".ipynb_checkpoints" / "0.png")
    with pytest.raises(ValueError, match=r"\.ipynb_checkpoints is hidden and would be a class of its own: remove it"):
        made_sets(folders)


def test_numbers_of_32_bits_are_refused(tmp_path):
    """Each picture would be scaled by itself: 255 white, 256 nearly black."""
    for value in (255, 256):
        Image.fromarray(np.full((4, 4), value, np.int32)).save(tmp_path / f"{value}.tif")
        with pytest.raises(ValueError, match=r"holds numbers of 32 bits, whose white nobody knows: convert it"):
            read(tmp_path / f"{value}.tif")
