"""A crop of each person: cut out, varied, and handed on in batches.

Crops and their augmentation follow SimpleBaseline (arXiv 1804.06208) and HRNet (1902.09212). The paper's authors
released no pose code. Coordinates count pixel centres: (0, 0) is the middle of the top left pixel, as in COCO's
keypoints and OpenCV; Pillow counts from the pixel's corner, and `warp` adds the half pixel between the two. Lengths are
counted in UDP's unbiased units (1911.07524): W pixels span W - 1 steps. What differs from the usual implementations:
one scale on both axes of a crop in UDP's units too, `warp` averages blocks of pixels before it shrinks, so large people
are not aliased, and draws depend on seed, epoch and person alone.

Legend: N people, K keypoints, H, W crop size in px. Sizes are (height, width); points are (x, y); boxes are x, y,
width, height.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..images.pictures import read
from .annotations import load_annotations
from .categories import category_of, of_category
from .people import People, read_people
from .skeleton import COCO_PERSON, Skeleton


class Shelf:
    """Reads pictures and keeps the decoded ones, up to `limit_mib`; what comes later is read each time."""

    def __init__(self, limit_mib: int):
        self._kept: dict[str, Image.Image] = {}
        self._left_bytes = limit_mib * 2**20

    def read(self, path: str) -> Image.Image:
        """The picture in RGB, as `pictures.read` has it."""
        if path in self._kept:
            return self._kept[path]
        picture = read(path)
        if self._left_bytes > 0:
            self._kept[path] = picture
            self._left_bytes -= 4 * picture.width * picture.height  # Pillow holds RGB in four bytes
        return picture


def crop_matrix(
    centre_px: tuple[float, float], width_px: float, size: tuple[int, int], degrees: float = 0.0, flip: bool = False
) -> np.ndarray:
    """The affine map from crop pixels to picture pixels.

    centre_px: (x, y) in the picture that becomes the middle of the crop.
    width_px: the width in the picture that the crop spans; the height follows, both axes share one scale.
    size: (H, W) of the crop. degrees: turn of the crop. flip: mirror the crop left to right.
    width_px spans W - 1 steps, the middle lies at (W - 1) / 2.

    Returns float64 (2, 3): picture = matrix @ (x, y, 1).
    """
    height, width = size
    scale = width_px / (width - 1)
    cos, sin = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    half_x, half_y = (width - 1) / 2, (height - 1) / 2
    x_axis = (cos, sin)
    origin = (centre_px[0] - cos * half_x + sin * half_y, centre_px[1] - sin * half_x - cos * half_y)
    if flip:  # a mirror image swaps pixel 0 with pixel W - 1 under either convention
        origin = (origin[0] + x_axis[0] * (width - 1), origin[1] + x_axis[1] * (width - 1))
        x_axis = (-cos, -sin)
    return np.array([[x_axis[0], -sin, origin[0]], [x_axis[1], cos, origin[1]]])


def warp(picture: Image.Image, matrix: np.ndarray, size: tuple[int, int], antialias: bool = True) -> Image.Image:
    """Cut the crop of `size` (H, W) that `matrix` (2, 3), crop pixels to picture pixels, describes.

    Bilinear; black outside the picture. With `antialias`, a crop that shrinks the picture f times is taken
    from blocks of floor(f) x floor(f) averaged pixels.
    """
    height, width = size
    (a, b, c), (d, e, f) = matrix.tolist()
    # from centres to corners, on both sides of the map
    c, f = c + 0.5 - (a + b) / 2, f + 0.5 - (d + e) / 2
    shrink = int(math.hypot(a, d) + 1e-6)
    if antialias and shrink > 1:
        corners_x = (c, c + a * width, c + b * height, c + a * width + b * height)
        corners_y = (f, f + d * width, f + e * height, f + d * width + e * height)
        left, top = max(int(min(corners_x)) - shrink, 0), max(int(min(corners_y)) - shrink, 0)
        right = min(int(max(corners_x)) + 2 * shrink, picture.width)
        bottom = min(int(max(corners_y)) + 2 * shrink, picture.height)
        if right > left and bottom > top:
            picture = picture.reduce(shrink, (left, top, right, bottom))
            a, b, c = a / shrink, b / shrink, (c - left) / shrink
            d, e, f = d / shrink, e / shrink, (f - top) / shrink
    return picture.transform((width, height), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Augmentation:
    """How crops are varied; SimpleBaseline's and HRNet's values. Scale and angle are drawn normally, with the
    given deviation, and cut at one and at two deviations; a half body needs more than 8 labelled joints."""

    flip_chance: float = 0.5
    scale_deviation: float = 0.35
    rotation_chance: float = 0.6
    rotation_deviation_degrees: float = 40.0
    half_body_chance: float = 0.3


def vary(
    rules: Augmentation, draws: Sequence[float], box_px: np.ndarray, joints_px: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, float, float, bool]:
    """Box (4,), scale, degrees and flip of one varied crop.

    draws: two standard normal and four uniform numbers. box_px (4,) x, y, width, height; joints_px (J, 2) the
    labelled ones; upper (J,) bool, those of the upper body.
    """
    wide, turn, turned, flipped, halved, half = draws
    if halved < rules.half_body_chance and len(joints_px) > 8:
        half_px = joints_px[upper] if half < 0.5 else joints_px[~upper]
        if len(half_px) > 2:
            side = np.maximum(np.ptp(half_px, axis=0), 1)
            grown = side * 1.2  # with the crop's padding 1.5 times the joints' own box, as HRNet has it
            box_px = np.concatenate((half_px.min(0) + side / 2 - grown / 2, grown))
    scale = 1 + rules.scale_deviation * min(max(wide, -1.0), 1.0)
    degrees = rules.rotation_deviation_degrees * min(max(turn, -2.0), 2.0)
    degrees = degrees if turned < rules.rotation_chance else 0.0
    return box_px, scale, degrees, flipped < rules.flip_chance


PADDING = 1.25


class PersonCrops(Dataset):
    """One crop for each person of a split: the box with 25 % of padding at the crop's aspect ratio, upright.

    size: (H, W) px. augment: True, or an `Augmentation`, varies every crop; the draws for person i depend on
    `set_epoch`'s seed and epoch and on i alone, so neither workers nor a resume change them. limit: the first
    so many people (judge them with `evaluate(..., ids=crops.people.ids)`). cache: keep decoded pictures, or the
    crops where they never vary, up to `cache_mib` in each process. people: rows in place of the annotated ones.
    skeleton: the annotation file's own unless given; COCO's where `people` are given. category: which of several, by
    its name or id (see `category_of`).

    An item: `image` uint8 (3, H, W); `joints` float32 (K, 2) crop px; `visible` float32 (K,), 0 where
    unlabelled or outside the crop; `matrix` float32 (2, 3), crop px to picture px; `index` int64 ().

    Raises ValueError for bad annotations (see `read_people`) here, for bad pictures at their first use.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        size: tuple[int, int],
        augment: bool | Augmentation = False,
        limit: int | None = None,
        skeleton: Skeleton | None = None,
        cache: bool = True,
        cache_mib: int = 2048,
        people: People | None = None,
        category: str | int = "",
    ):
        if people is None:
            people = read_people(root, split, skeleton, category)
            document, file = load_annotations(root, split)
            skeleton = skeleton or of_category(category_of(document, file, category), file)
        skeleton = skeleton or COCO_PERSON
        if limit is not None and limit < 1:
            raise ValueError(f"limit {limit} leaves no person: give a number above 0, or None for all")
        self.people = people.take(range(min(limit or len(people), len(people))))
        self.root, self.size, self.skeleton = root, size, skeleton
        self.augmentation = Augmentation() if augment is True else augment or None
        self._mirrored = np.array(skeleton.mirrored)
        self._upper = np.isin(np.arange(len(skeleton.names)), skeleton.upper)
        self._shelf = Shelf(cache_mib if cache else 0)
        fits = len(self.people) * size[0] * size[1] * 3 <= cache_mib * 2**20
        self._kept = {} if cache and fits and self.augmentation is None else None
        # shared memory: workers that outlive an epoch see the new one
        self._stream = torch.zeros(2, dtype=torch.int64).share_memory_()
        self._drawn_for: tuple[int, ...] = ()

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Choose the stream of the augmentation; call it before each epoch's iterator is made."""
        self._stream.copy_(torch.tensor([seed, epoch]))

    def __len__(self) -> int:
        return len(self.people)

    def areas_px2(self) -> np.ndarray:
        """What each person's upright crop covers of the picture, (N,)."""
        height, width = np.array(self.size) - 1
        across = np.maximum(self.people.boxes_px[:, 2], self.people.boxes_px[:, 3] * width / height) * PADDING
        return across**2 * height / width

    def labelled_inside(self) -> int:
        """How many labelled joints lie in the upright crops of their people."""
        height, width = self.size
        scale = np.sqrt(self.areas_px2() / (height - 1) / (width - 1))[:, None, None]  # picture px of a crop's
        centre = self.people.boxes_px[:, None, :2] + self.people.boxes_px[:, None, 2:] / 2
        inside = (np.abs(self.people.joints_px - centre) <= scale * np.array([width, height]) / 2).all(-1)
        return int((inside & (self.people.visible > 0)).sum())

    def check_pictures(self, rows: Iterable[int]) -> None:
        """Decode the picture of each of these people, once each. Raises ValueError for the first that cannot be read or
        has another size than its annotations say."""
        first_rows = {str(self.people.paths[row]): row for row in rows}
        for row in first_rows.values():
            self._picture(row)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.batch([index]).items()}

    def batch(self, indices: Iterable[int]) -> dict[str, Tensor]:
        """The items of these people, stacked: image (N, 3, H, W), joints (N, K, 2), and so on."""
        people, (height, width) = self.people, self.size
        rows = [int(index) for index in indices]
        crops, matrices, flipped = zip(*(self._crop(row) for row in rows))
        joints, labelled, matrix = people.joints_px[rows], people.visible[rows] > 0, np.stack(matrices)
        flipped = np.array(flipped)[:, None]
        labelled = np.where(flipped, labelled[:, self._mirrored], labelled)
        joints = np.where(flipped[..., None], joints[:, self._mirrored], joints)
        turn = matrix[..., :2]  # orthogonal columns of one length: inverse = transpose / length^2
        joints = (joints - matrix[:, None, :, 2]) @ turn / (turn[..., 0] ** 2).sum(-1)[:, None, None]
        inside = ((joints >= -0.5) & (joints < (width - 0.5, height - 0.5))).all(-1)
        return {
            "image": torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous(),
            "joints": torch.from_numpy(np.where(labelled[..., None], joints, 0)).float(),
            "visible": torch.from_numpy(labelled & inside).float(),
            "matrix": torch.from_numpy(matrix).float(),
            "index": torch.tensor(rows),
        }

    def _crop(self, index: int) -> tuple[np.ndarray, np.ndarray, bool]:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        box, scale, degrees, flip = self.people.boxes_px[index], 1.0, 0.0, False
        if self.augmentation is not None:
            labelled = self.people.visible[index] > 0
            joints = self.people.joints_px[index][labelled]
            box, scale, degrees, flip = vary(self.augmentation, self._draws(index), box, joints, self._upper[labelled])
        x, y, box_width, box_height = box.tolist()
        height, width = np.array(self.size) - 1
        matrix = crop_matrix(
            (x + box_width / 2, y + box_height / 2),
            max(box_width, box_height * width / height) * PADDING * scale,
            self.size,
            degrees,
            flip,
        )
        crop = np.asarray(warp(self._picture(index), matrix, self.size)), matrix, flip
        return crop if self._kept is None else self._kept.setdefault(index, crop)

    def _draws(self, index: int) -> list[float]:
        stream = tuple(self._stream.tolist())
        if stream != self._drawn_for:  # all people at once; rows are filled in order, so a row knows no other
            self._normal = np.random.default_rng([*stream, 0]).standard_normal((len(self), 2))
            self._uniform = np.random.default_rng([*stream, 1]).random((len(self), 4))
            self._drawn_for = stream
        return [*self._normal[index].tolist(), *self._uniform[index].tolist()]

    def _picture(self, index: int) -> Image.Image:
        path = str(self.people.paths[index])
        picture = self._shelf.read(path)
        height, width = self.people.picture_sizes[index]
        if picture.size != (width, height):
            raise ValueError(
                f"picture {path} has {picture.width} x {picture.height} px, its annotations "
                f"(image {self.people.image_ids[index]}) say {width} x {height}: "
                "take the original file"
            )
        return picture


class CropBatches(PersonCrops):
    """`PersonCrops` that the training's loader asks for whole batches."""

    def __getitems__(self, indices: Iterable[int]) -> dict[str, Tensor]:
        return self.batch(indices)
