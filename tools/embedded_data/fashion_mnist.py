"""The real images that travel with a clone: an even twelve thousand of Fashion-MNIST.

Source: Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747; MIT licence, Zalando SE), read
from the four files of the Debian package `dataset-fashion-mnist`. Nothing is resized or recoded.
Ours is the choice: every class gives the same number of images, in an order that depends on the
seed alone. Images are ranked by the SHA-256 of "seed/split/index", so that no generator's stream
has to stay what it is and the same bytes come out everywhere.

The result has torchvision's own on-disk form: `torchvision.datasets.FashionMNIST(root=target)`.

Legend: N images, H = W = 28 px.
"""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = 10
IMAGES_MAGIC, LABELS_MAGIC = 0x803, 0x801  # idx form: unsigned bytes, three and one dimensions
PREFIX = {"train": "train", "test": "t10k"}

CREDIT = """Fashion-MNIST, a part of it: {train} training and {test} test images, the same number of each
class, as distributed in the Debian package dataset-fashion-mnist.

Source:  https://github.com/zalandoresearch/fashion-mnist
Paper:   Han Xiao, Kashif Rasul, Roland Vollgraf. Fashion-MNIST: a Novel Image Dataset for
         Benchmarking Machine Learning Algorithms. arXiv:1708.07747, 2017.

The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def make_fashion_mnist(source=DEBIAN_FOLDER, target="data/fashion-mnist", seed=0, train=10_000, test=2_000):
    """Write `train` and `test` images, even over the classes, under `target`; return that folder.

    source: the folder of the package's four .gz files. target: what torchvision calls `root`.
    Both splits are read and checked before the first byte is written.
    ValueError: a source file is missing or damaged, or a class has fewer images than asked for.
    """
    source, target = Path(source or DEBIAN_FOLDER), Path(target)
    chosen = {}
    for split, count in (("train", train), ("test", test)):
        images = _read_idx(source / f"{PREFIX[split]}-images-idx3-ubyte.gz", IMAGES_MAGIC)  # N H W
        labels = _read_idx(source / f"{PREFIX[split]}-labels-idx1-ubyte.gz", LABELS_MAGIC)  # N
        order = _even(labels, count, f"{seed}/{split}")
        chosen[split] = images[order], labels[order]

    raw = target / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in chosen.items():
        _write_idx(raw / f"{PREFIX[split]}-images-idx3-ubyte", IMAGES_MAGIC, images)
        _write_idx(raw / f"{PREFIX[split]}-labels-idx1-ubyte", LABELS_MAGIC, labels)
    (target / "LICENSE").write_text(CREDIT.format(train=train, test=test), encoding="utf-8")
    return target


def _even(labels, count, stream):
    """Indices of `count` images, count / 10 of each class, ordered by their hash in `stream`.

    labels: N. Returns `count` integers. ValueError: `count` cannot be shared out evenly.
    """
    available = int(np.bincount(labels, minlength=CLASSES).min()) * CLASSES
    if not 0 < count <= available or count % CLASSES:
        raise ValueError(
            f"{count} images cannot be drawn evenly from {CLASSES} classes: "
            f"ask for a multiple of {CLASSES} up to {available}"
        )
    ranked = sorted(range(len(labels)), key=lambda i: hashlib.sha256(f"{stream}/{i}".encode()).digest())
    left, order = [count // CLASSES] * CLASSES, []
    for index in ranked:
        if left[labels[index]]:
            left[labels[index]] -= 1
            order.append(index)
    return order


def _read_idx(path, magic):
    """The array of unsigned bytes in a gzipped idx file; ValueError with the remedy if it is not one."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing: run 'apt-get install dataset-fashion-mnist', or name the "
            "folder that holds its four .gz files with --source"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}): install dataset-fashion-mnist again") from None
    dimensions = magic & 0xFF
    header = np.frombuffer(content[: 4 * (1 + dimensions)], dtype=">i4")
    body = np.frombuffer(content[4 * (1 + dimensions) :], dtype=np.uint8)
    if len(header) <= dimensions or header[0] != magic or body.size != np.prod(header[1:], dtype=np.int64):
        raise ValueError(f"{path} is not the idx file it should be: install dataset-fashion-mnist again")
    return body.reshape(header[1:])


def _write_idx(path, magic, array):
    path.write_bytes(np.array([magic, *array.shape], dtype=">i4").tobytes() + array.tobytes())
