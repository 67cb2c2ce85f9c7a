"""What several test files share: a small set of images that can be learnt, and a recipe that learns it."""

import os
from pathlib import Path

import numpy as np
import pytest

from bnc_repro.recipe.build import make_recipe, merged
from bnc_repro.recipe.schema import Recipe
from bnc_repro.run import pinned
from tiny import TINY

os.environ.update(pinned.environment("sample"))  # before a test imports torch; one thread a worker, too

SIZES = {"train": 320, "t10k": 100}


def write_idx(path: Path, array: np.ndarray) -> None:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> str:
    """320 training and 100 test images: ten patterns under noise, in Fashion-MNIST's files."""
    root = tmp_path_factory.mktemp("data")
    (root / "FashionMNIST" / "raw").mkdir(parents=True)
    draw = np.random.default_rng(0)
    patterns = np.kron(draw.integers(0, 192, (10, 4, 4)), np.ones((7, 7), int))  # flat squares of 7 px
    for part, count in SIZES.items():
        labels = np.arange(count) % 10
        pixels = patterns[labels] + draw.integers(0, 64, (count, 28, 28))
        write_idx(root / "FashionMNIST" / "raw" / f"{part}-images-idx3-ubyte", pixels)
        write_idx(root / "FashionMNIST" / "raw" / f"{part}-labels-idx1-ubyte", labels)
    return str(root)


@pytest.fixture
def recipe(data):
    """Makes a recipe of three epochs of ten steps, with shifts, of a network of two binary layers."""

    def make(**changes) -> Recipe:
        values = TINY | {"epochs": 3, "data": {"root": data, "augment": "shift"}}
        return make_recipe(**merged(values, changes))

    return make


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv("BNC_REPRO_REUSE", raising=False)


def pytest_collection_modifyitems(items):
    """The slow tests first, so that no worker is left alone with one at the end; the others keep their order."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
