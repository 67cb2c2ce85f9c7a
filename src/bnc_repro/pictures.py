"""Pixel grids: reading picture files, cutting crops out of them, points to heatmaps and back.

Coordinates count pixel centres: (0, 0) is the middle of the top left pixel, as in COCO's keypoints and
OpenCV. Pillow counts from the pixel's corner, and `warp` adds the half pixel between the two. Lengths are
counted in UDP's unbiased units (arXiv 1911.07524): W pixels span W - 1 steps, on crop and heatmap alike.
`unbiased=False` is the classic form (SimpleBaseline, 1804.06208): W steps, targets on whole cells. Sub-pixel
decoding is DARK's (1910.06278) or the quarter offset. The paper's authors released no such code. What differs
from the usual implementations: `warp` averages blocks of pixels before it shrinks, so large people are not
aliased; the unbiased Gaussian is not cut off; DARK smooths with a Gaussian of one cell (wider ones gained
little under noise) on a map continued oddly beyond its edge, so that joints near the border stay exact.

Legend: N people, K keypoints; H, W crop size in px; h, w heatmap size in cells. Sizes are (height, width),
points are (x, y).
"""

import math
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

_SMOOTH_CELLS, _REACH = 1.0, 4  # DARK's Gaussian; the cells around the peak it needs, one for the slope
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def read(path: str | os.PathLike, exif_rotation: bool = False) -> Image.Image:
    """Decode a whole picture file into RGB.

    `exif_rotation=False` keeps the pixels as they are stored, which is what COCO's annotations refer to;
    `True` turns the picture as its EXIF tag asks.

    Raises ValueError, naming file and remedy, for a file that is missing, empty, cut off or no picture.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"picture {path} is missing: copy the data set again, or correct its folder")
    if not path.is_file():
        raise ValueError(f"picture {path} is not a file: remove it, or copy the data set again")
    if path.stat().st_size == 0:
        raise ValueError(f"picture {path} is empty (0 bytes): copy it again")
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened) if exif_rotation else opened
            return picture.convert("RGB")
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture that Pillow can read: "
                         "copy it again, convert it to JPEG or PNG, or remove it") from None
    except PermissionError:
        raise ValueError(f"picture {path} may not be read: change its permissions (chmod +r)") from None
    except _DECODER_ERRORS as error:
        raise ValueError(f"picture {path} is damaged or cut off ({error}): copy it again") from None


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


def cut_box(box_px: Sequence[float], width: int, height: int) -> tuple[float, float, float, float]:
    """What a box (x, y, width, height) covers of a picture; a side <= 0 when it covers nothing."""
    left, top = max(box_px[0], 0), max(box_px[1], 0)
    return left, top, min(box_px[0] + box_px[2], width) - left, min(box_px[1] + box_px[3], height) - top


def crop_matrix(centre_px: tuple[float, float], width_px: float, size: tuple[int, int],
                degrees: float = 0.0, flip: bool = False, unbiased: bool = True) -> np.ndarray:
    """The affine map from crop pixels to picture pixels.

    centre_px: (x, y) in the picture that becomes the middle of the crop.
    width_px: the width in the picture that the crop spans; the height follows, both axes share one scale.
    size: (H, W) of the crop. degrees: turn of the crop. flip: mirror the crop left to right.
    unbiased: width_px spans W - 1 steps, the middle lies at (W - 1) / 2; otherwise W steps, middle at W / 2.

    Returns float64 (2, 3): picture = matrix @ (x, y, 1).
    """
    height, width = size
    less = 1 if unbiased else 0
    scale = width_px / (width - less)
    cos, sin = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    half_x, half_y = (width - less) / 2, (height - less) / 2
    x_axis = (cos, sin)
    origin = (centre_px[0] - cos * half_x + sin * half_y, centre_px[1] - sin * half_x - cos * half_y)
    if flip:  # a mirror image swaps pixel 0 with pixel W - 1 under either convention
        origin = (origin[0] + x_axis[0] * (width - 1), origin[1] + x_axis[1] * (width - 1))
        x_axis = (-cos, -sin)
    return np.array([[x_axis[0], -sin, origin[0]], [x_axis[1], cos, origin[1]]])


def warp(picture: Image.Image, matrix: np.ndarray, size: tuple[int, int],
         antialias: bool = True) -> Image.Image:
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
    return picture.transform((width, height), Image.Transform.AFFINE, (a, b, c, d, e, f),
                             Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Augmentation:
    """How crops are varied; SimpleBaseline's and HRNet's values. Scale and angle are drawn normally, with the
    given deviation, and cut at one and at two deviations; a half body needs more than 8 labelled joints."""

    flip_chance: float = 0.5
    scale_deviation: float = 0.35
    rotation_chance: float = 0.6
    rotation_deviation_degrees: float = 40.0
    half_body_chance: float = 0.3


def vary(rules: Augmentation, draws: Sequence[float], box_px: np.ndarray, joints_px: np.ndarray,
         upper: np.ndarray) -> tuple[np.ndarray, float, float, bool]:
    """Box (4,), scale, degrees and flip of one varied crop.

    draws: two standard normal and four uniform numbers. box_px (4,) x, y, width, height; joints_px (J, 2) the
    labelled ones; upper (J,) bool, those of the upper body.
    """
    wide, turn, turned, flipped, halved, half = draws
    if halved < rules.half_body_chance and len(joints_px) > 8:
        part = joints_px[upper] if half < 0.5 else joints_px[~upper]
        if len(part) > 2:
            side = np.maximum(np.ptp(part, axis=0), 1)
            grown = side * 1.2  # with the crop's padding 1.5 times the joints' own box, as HRNet has it
            box_px = np.concatenate((part.min(0) + side / 2 - grown / 2, grown))
    scale = 1 + rules.scale_deviation * min(max(wide, -1.0), 1.0)
    degrees = rules.rotation_deviation_degrees * min(max(turn, -2.0), 2.0)
    degrees = degrees if turned < rules.rotation_chance else 0.0
    return box_px, scale, degrees, flipped < rules.flip_chance


def _steps(size: tuple[int, int], like: Tensor, unbiased: bool) -> Tensor:
    """The size as (x, y) in the steps that lengths are counted in."""
    height, width = size
    return like.new_tensor((width, height)) - (1 if unbiased else 0)


def encode(joints: Tensor, visible: Tensor, input_size: tuple[int, int], heatmap_size: tuple[int, int],
           sigma: float = 2.0, unbiased: bool = True) -> tuple[Tensor, Tensor]:
    """Heatmap targets: a Gaussian of height 1 and `sigma` cells around each joint.

    joints (N, K, 2) crop px, visible (N, K) weights, sizes (H, W) and (h, w). Unbiased: the Gaussian sits on
    the joint itself. Classic: on the nearest cell, within 3 sigma.

    Returns targets (N, K, h, w) and weights (N, K), which are 0 for joints outside the map too.
    """
    height, width = heatmap_size
    centres = joints * (_steps(heatmap_size, joints, unbiased) / _steps(input_size, joints, unbiased))
    inside = ((centres >= -0.5) & (centres < joints.new_tensor((width - 0.5, height - 0.5)))).all(-1)
    if not unbiased:
        centres = (centres + 0.5).floor()

    def bell(count: int, centre: Tensor) -> Tensor:
        away = torch.arange(count, device=joints.device) - centre[..., None]
        height_there = torch.exp(-away.square() / (2 * sigma**2))
        return height_there if unbiased else height_there * (away.abs() <= 3 * sigma)

    across, down = bell(width, centres[..., 0]), bell(height, centres[..., 1])
    weights = visible * inside
    return down[..., :, None] * across[..., None, :] * (weights > 0)[..., None, None], weights


def decode(heatmaps: Tensor, input_size: tuple[int, int], method: str = "dark",
           unbiased: bool = True) -> tuple[Tensor, Tensor]:
    """The joints that heatmaps (N, K, h, w) show: coordinates (N, K, 2) in crop px of (H, W), scores (N, K).

    The highest cell, and from there: "dark" a Newton step on the logarithm of the smoothed map, at most one
    cell in each direction, none where the map is not rounded; "quarter" a quarter of a cell towards the
    higher neighbour; "argmax" nothing. The score is the height of the highest cell.

    Raises ValueError for another method.
    """
    if method not in ("dark", "quarter", "argmax"):
        raise ValueError(f"decoding method {method!r} is unknown: choose dark, quarter or argmax")
    height, width = heatmaps.shape[-2:]
    scores, highest = heatmaps.float().flatten(2).max(-1)
    cells = torch.stack((highest % width, highest // width), -1)  # (N, K, 2)
    points = cells.float()
    if method == "dark":
        points = points + _newton_step(_around(heatmaps, cells, _REACH))
    elif method == "quarter":
        around = _around(heatmaps, cells, 1)
        slope = torch.stack((around[..., 1, 2] - around[..., 1, 0],
                             around[..., 2, 1] - around[..., 0, 1]), -1)
        edge = (cells == 0) | (cells == torch.tensor((width - 1, height - 1), device=cells.device))
        points = points + 0.25 * slope.sign() * ~edge
    return points * (_steps(input_size, points, unbiased) / _steps((height, width), points, unbiased)), scores


def _around(heatmaps: Tensor, cells: Tensor, reach: int) -> Tensor:
    """The square of 2 reach + 1 cells around each of `cells` (N, K, 2): (N, K, 2 reach + 1, 2 reach + 1).

    Beyond the edge the map is continued oddly, v(-i) = 2 v(0) - v(i), and never below 0.
    """
    height, width = heatmaps.shape[-2:]
    flat = heatmaps.float().flatten(2)
    wanted = cells[..., None] + torch.arange(-reach, reach + 1, device=cells.device)  # (N, K, 2, P)
    last = torch.tensor((width - 1, height - 1), device=cells.device)[:, None]
    near = wanted.clamp(min=0).minimum(last)
    mirror = (2 * near - wanted).clamp(min=0).minimum(last)
    (near_x, near_y), (mirror_x, mirror_y) = near.unbind(2), mirror.unbind(2)
    beyond_x, beyond_y = (near != wanted).unbind(2)

    def rows(y: Tensor) -> Tensor:
        def take(x: Tensor) -> Tensor:
            where = y[..., :, None] * width + x[..., None, :]
            return flat.gather(2, where.flatten(2)).view(where.shape)
        held = take(near_x)
        return torch.where(beyond_x[..., None, :], 2 * held - take(mirror_x), held)

    held = rows(near_y)
    odd = torch.where(beyond_y[..., :, None], 2 * held - rows(mirror_y), held)
    return torch.where(beyond_x[..., None, :] | beyond_y[..., :, None], odd.clamp(min=0), odd)


def _newton_step(around: Tensor) -> Tensor:
    """From the peak cell to the top of the parabola through the logarithm, (N, K, P, P) -> (N, K, 2)."""
    reach = around.shape[-1] // 2
    cells = torch.arange(-reach, reach + 1, device=around.device)
    away = cells - cells[reach - 1:reach + 2, None]  # (3, P)
    smooth = torch.exp(-away.square() / (2 * _SMOOTH_CELLS**2)) * (away.abs() < reach)
    smooth = smooth / smooth.sum(1, keepdim=True)
    log = (smooth @ around @ smooth.T).clamp(min=1e-10).log()  # (N, K, 3, 3)
    x, y = (log[..., 1, 2] - log[..., 1, 0]) / 2, (log[..., 2, 1] - log[..., 0, 1]) / 2
    xx = log[..., 1, 2] - 2 * log[..., 1, 1] + log[..., 1, 0]
    yy = log[..., 2, 1] - 2 * log[..., 1, 1] + log[..., 0, 1]
    xy = (log[..., 2, 2] - log[..., 2, 0] - log[..., 0, 2] + log[..., 0, 0]) / 4
    determinant = xx * yy - xy * xy
    rounded = ((determinant > 1e-9) & (xx < 0))[..., None]
    step = torch.stack((xy * y - yy * x, xy * x - xx * y), -1) / determinant[..., None]
    return torch.where(rounded, step.clamp(-1, 1), 0.0)


def flip_back(heatmaps: Tensor, skeleton, unbiased: bool = True) -> Tensor:
    """Heatmaps (N, K, h, w) of a mirrored input as the upright input would have them.

    skeleton.mirrored: for each joint the one that takes its place in a mirror image. In the classic form the
    mirrored map lies 3/4 of a cell (at a stride of 4) too far left, so it moves one cell right.
    """
    upright = heatmaps[:, skeleton.mirrored].flip(-1)
    return upright if unbiased else torch.cat((upright[..., :1], upright[..., :-1]), -1)


def to_image(coordinates: Tensor, matrices: Tensor) -> Tensor:
    """Points (N, K, 2) of crops with `matrices` (N, 2, 3) in px of their pictures, (N, K, 2)."""
    return coordinates @ matrices[:, :, :2].transpose(1, 2) + matrices[:, None, :, 2]
