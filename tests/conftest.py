"""What several test files share: a small set of images that can be learnt."""

from pathlib import Path

import numpy as np
import pytest

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
