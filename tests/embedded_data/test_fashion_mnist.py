"""The images that travel with a clone are what their maker makes, evenly shared, and fit their budget."""

import gzip
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import FashionMNIST

from fashion_mnist import DEBIAN_FOLDER, make_fashion_mnist

ROOT = Path(__file__).resolve().parents[2]
DATA, STORE = ROOT / "data", ROOT / "data-store"
SHA256 = {
    "t10k-images-idx3-ubyte": "805a9c4da4bee52a127f4314f096fea71072531ff30f0af54537a08f5ffc148e",
    "t10k-labels-idx1-ubyte": "f6f19c92a73d3e2c8dfee2227dc942cca57aeeba8ff6d0a7b654d253e1ecb170",
    "train-images-idx3-ubyte": "94a8851c6351c08e36aaef8e92cd7760b94686a29bf205db4a09f1003fe28c1a",
    "train-labels-idx1-ubyte": "32ab9f1ebb0a839dc7f268a97fab202d358f8ab210aaa97f446fc723987750c3",
}


@pytest.fixture
def source(tmp_path):
    """A miniature of the Debian package: 40 training and 20 test images, image i filled with i."""
    folder = tmp_path / "package"
    folder.mkdir()
    for prefix, count in (("train", 40), ("t10k", 20)):
        labels = (np.arange(count) * 7 % 10).astype(np.uint8)
        images = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28).reshape(count, 28, 28)
        for kind, magic, array in (("images-idx3", 0x803, images), ("labels-idx1", 0x801, labels)):
            header = np.array([magic, *array.shape], ">i4").tobytes()
            (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return folder


def test_a_part_is_even_and_read_by_torchvision(source, tmp_path):
    """Each class gives the same number of images, each image keeps its label, none comes twice."""
    target = make_fashion_mnist(source, tmp_path / "made", train=30, test=10)
    for train, count in ((True, 30), (False, 10)):
        made = FashionMNIST(target, train=train, download=False)
        numbers = made.data[:, 0, 0].int()
        assert made.targets.bincount().tolist() == [count // 10] * 10
        assert len(set(numbers.tolist())) == count
        assert (numbers * 7 % 10 == made.targets).all()
    assert "MIT License" in (target / "LICENSE").read_text()


def test_the_seed_alone_decides(source, tmp_path):
    """The same seed gives the same bytes, another seed another choice."""

    def content(name, seed):
        target = make_fashion_mnist(source, tmp_path / name, seed=seed, train=20, test=10)
        return [path.read_bytes() for path in sorted(target.rglob("*-ubyte"))]

    assert content("one", 0) == content("two", 0) != content("three", 1)


def test_bad_sources_are_named_with_the_remedy(source, tmp_path):
    """A missing folder, a cut off file, a foreign file and an uneven wish stop before anything is written."""
    target = tmp_path / "made"

    def refuses(pattern, folder=source, **wish):
        with pytest.raises(ValueError, match=pattern):
            make_fashion_mnist(folder, target, **({"train": 30, "test": 10} | wish))
        assert not target.exists()

    refuses("apt-get install dataset-fashion-mnist", folder=tmp_path / "nowhere")
    refuses("multiple of 10 up to 40", train=33)
    refuses("multiple of 10 up to 20", test=30)
    labels = source / "t10k-labels-idx1-ubyte.gz"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-9])
    refuses("t10k-labels.*cannot be unpacked")
    labels.write_bytes((source / "t10k-images-idx3-ubyte.gz").read_bytes())
    refuses("t10k-labels.*is not the idx file")


def test_embedded_images_are_even_and_unchanged():
    """data/ holds 1,000 training and 200 test images of each class, in the bytes once made."""
    for train, each in ((True, 1000), (False, 200)):
        images = FashionMNIST(DATA / "fashion-mnist", train=train, download=False)
        assert images.data.shape == (10 * each, 28, 28)
        assert images.targets.bincount().tolist() == [each] * 10
    raw = DATA / "fashion-mnist" / "FashionMNIST" / "raw"
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in raw.iterdir()} == SHA256


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_embedded_images_are_made_again(tmp_path):
    """Where the Debian package is installed, the command gives the same bytes as data/."""
    target = make_fashion_mnist(target=tmp_path)
    for path in target.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (DATA / "fashion-mnist" / path.relative_to(target)).read_bytes()


def test_the_store_is_complete_and_small():
    """All that data.dvc names lies in the store inside the repository, and both are under 15 MB."""
    pointer = ROOT / "data.dvc"
    md5 = re.search(r"md5: (\w+\.dir)", pointer.read_text())[1]
    listed = json.loads((STORE / "files" / "md5" / md5[:2] / md5[2:]).read_text())
    stored = {path.parent.name + path.name for path in (STORE / "files" / "md5").rglob("*") if path.is_file()}
    assert {entry["md5"] for entry in listed} | {md5} == stored
    for entry in listed:
        content = (DATA / entry["relpath"]).read_bytes()
        assert hashlib.md5(content).hexdigest() == entry["md5"], f"{entry['relpath']} changed: run dvc pull"
    assert pointer.stat().st_size + sum(p.stat().st_size for p in STORE.rglob("*") if p.is_file()) < 15e6
