"""Points to heatmaps and back.

Coordinates count pixel centres, and lengths are counted in UDP's unbiased units (arXiv 1911.07524): W pixels span
W - 1 steps, on crop and heatmap alike. Sub-pixel decoding is DARK's (1910.06278) or the quarter offset. The paper's
authors released no such code. What differs from the usual implementations: the Gaussian of a target is not cut off;
DARK smooths with a Gaussian of one cell (wider ones gained little under noise) on a map continued oddly beyond its
edge. Where the highest cell itself lies at the edge or next to it, that continuation is a guess: "dark_edge" then takes
the parabola through the logarithms of the three cells at the edge, which is exact for a Gaussian.

Legend: N people, K keypoints; H, W crop size in px; h, w heatmap size in cells. Sizes are (height, width),
points are (x, y).
"""

import torch
from torch import Tensor

from .skeleton import Skeleton

METHODS = ("dark", "dark_edge", "quarter", "argmax")
_SMOOTH_CELLS, _REACH = 1.0, 4  # DARK's Gaussian; the cells around the peak it needs, one for the slope


def _steps(size: tuple[int, int], like: Tensor) -> Tensor:
    """The size as (x, y) in the steps that lengths are counted in."""
    height, width = size
    return like.new_tensor((width, height)) - 1


def encode(
    joints: Tensor, visible: Tensor, input_size: tuple[int, int], heatmap_size: tuple[int, int], sigma: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Heatmap targets: a Gaussian of height 1 and `sigma` cells around each joint.

    joints (N, K, 2) crop px, visible (N, K) weights, sizes (H, W) and (h, w). The Gaussian sits on the joint
    itself, between cells.

    Returns targets (N, K, h, w) and weights (N, K), which are 0 for joints outside the map too.
    """
    height, width = heatmap_size
    centres = joints * (_steps(heatmap_size, joints) / _steps(input_size, joints))
    inside = ((centres >= -0.5) & (centres < joints.new_tensor((width - 0.5, height - 0.5)))).all(-1)

    def bell(count: int, centre: Tensor) -> Tensor:
        away = torch.arange(count, device=joints.device) - centre[..., None]
        return torch.exp(-away.square() / (2 * sigma**2))

    across, down = bell(width, centres[..., 0]), bell(height, centres[..., 1])
    weights = visible * inside
    return down[..., :, None] * across[..., None, :] * (weights > 0)[..., None, None], weights


def decode(heatmaps: Tensor, input_size: tuple[int, int], method: str = "dark") -> tuple[Tensor, Tensor]:
    """The joints that heatmaps (N, K, h, w) show: coordinates (N, K, 2) in crop px of (H, W), scores (N, K).

    The highest cell, and from there: "dark" a Newton step on the logarithm of the smoothed map, at most one
    cell in each direction, none where the map is not rounded; a Gaussian's top is up to 1.5 cells off where the highest
    cell lies at the edge, 0.6 where next to it; "dark_edge" the same, and exact there too; "quarter" a quarter of a
    cell towards the higher neighbour; "argmax" nothing. The score is the height of the highest cell.

    Raises ValueError for another method.
    """
    if method not in METHODS:
        raise ValueError(f"decoding method {method!r} is unknown: choose {', '.join(METHODS)}")
    height, width = heatmaps.shape[-2:]
    scores, highest = heatmaps.float().flatten(2).max(-1)
    cells = torch.stack((highest % width, highest // width), -1)  # (N, K, 2)
    points = cells.float()
    if method in ("dark", "dark_edge"):
        log = _smoothed_log(_around(heatmaps, cells, _REACH))
        steps = _newton_step(log)
        points = points + (_edge_step(heatmaps, cells, log, steps) if method == "dark_edge" else steps)
    elif method == "quarter":
        around = _around(heatmaps, cells, 1)
        slope = torch.stack((around[..., 1, 2] - around[..., 1, 0], around[..., 2, 1] - around[..., 0, 1]), -1)
        edge = (cells == 0) | (cells == torch.tensor((width - 1, height - 1), device=cells.device))
        points = points + 0.25 * slope.sign() * ~edge
    return points * (_steps(input_size, points) / _steps((height, width), points)), scores


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


def _smoothed_log(around: Tensor) -> Tensor:
    """The logarithm of the smoothed map at the peak and its eight neighbours, (N, K, P, P) -> (N, K, 3, 3)."""
    reach = around.shape[-1] // 2
    cells = torch.arange(-reach, reach + 1, device=around.device)
    away = cells - cells[reach - 1 : reach + 2, None]  # (3, P)
    smooth = torch.exp(-away.square() / (2 * _SMOOTH_CELLS**2)) * (away.abs() < reach)
    smooth = smooth / smooth.sum(1, keepdim=True)
    return (smooth @ around @ smooth.T).clamp(min=1e-10).log()


def _newton_step(log: Tensor) -> Tensor:
    """From the peak cell to the top of the parabola through the logarithm, (N, K, 3, 3) -> (N, K, 2)."""
    x, y = (log[..., 1, 2] - log[..., 1, 0]) / 2, (log[..., 2, 1] - log[..., 0, 1]) / 2
    xx = log[..., 1, 2] - 2 * log[..., 1, 1] + log[..., 1, 0]
    yy = log[..., 2, 1] - 2 * log[..., 1, 1] + log[..., 0, 1]
    xy = (log[..., 2, 2] - log[..., 2, 0] - log[..., 0, 2] + log[..., 0, 0]) / 4
    determinant = xx * yy - xy * xy
    rounded = ((determinant > 1e-9) & (xx < 0))[..., None]
    step = torch.stack((xy * y - yy * x, xy * x - xx * y), -1) / determinant[..., None]
    return torch.where(rounded, step.clamp(-1, 1), 0.0)


def _edge_step(heatmaps: Tensor, cells: Tensor, log: Tensor, steps: Tensor) -> Tensor:
    """`steps` (N, K, 2), but where one of `cells` (N, K, 2) lies at the edge or next to it each direction is taken by
    itself.

    Through the logarithms a, b, c of the edge's cell and of the two behind it goes the parabola with its top
    (3a - 4b + c) / (2 (a - 2b + c)) cells behind the edge. A direction that keeps off the edge has the top of the
    parabola through the middle of `log` (N, K, 3, 3). One cell at most, none where a parabola has no top.
    """
    height, width = heatmaps.shape[-2:]
    logs = heatmaps.float().clamp(min=1e-10).log().flatten(2)
    tops, near_edges = [], []
    for axis, (stride, last) in enumerate(((1, width - 1), (width, height - 1))):
        cell = cells[..., axis]  # (N, K)
        first = cell <= 1
        edge, inwards = torch.where(first, 0, last), torch.where(first, 1, -1)
        along = edge[..., None] + inwards[..., None] * torch.arange(3, device=cells.device)
        start = cells[..., 1] * width + cells[..., 0] - cell * stride
        a, b, c = logs.gather(2, start[..., None] + along.clamp(0, last) * stride).unbind(-1)
        before, middle, after = (log[..., 1, :] if axis == 0 else log[..., :, 1]).unbind(-1)
        near_edge = first | (cell >= last - 1)
        bend = torch.where(near_edge, a - 2 * b + c, before - 2 * middle + after)
        slope = torch.where(near_edge, inwards * (3 * a - 4 * b + c) / 2, (before - after) / 2)
        top = slope / bend + torch.where(near_edge, edge - cell, 0)
        tops.append(torch.where(bend < 0, top.clamp(-1, 1), 0.0))
        near_edges.append(near_edge)
    return torch.where((near_edges[0] | near_edges[1])[..., None], torch.stack(tops, -1), steps)


def flip_back(heatmaps: Tensor, skeleton: Skeleton) -> Tensor:
    """Heatmaps (N, K, h, w) of a mirrored input as the upright input would have them.

    skeleton.mirrored: for each joint the one that takes its place in a mirror image.
    """
    return heatmaps[:, skeleton.mirrored].flip(-1)


def to_image(coordinates: Tensor, matrices: Tensor) -> Tensor:
    """Points (N, K, 2) of crops with `matrices` (N, 2, 3) in px of their pictures, (N, K, 2)."""
    return coordinates @ matrices[:, :, :2].transpose(1, 2) + matrices[:, None, :, 2]


def heatmap_loss(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Half the mean squared error of (N, K, h, w) heatmaps, joints weighted by (N, K); unlabelled ones weigh 0.

    Source: Simple Baselines (1804.06208), JointsMSELoss.
    """
    return 0.5 * ((heatmaps - targets).square().mean(dim=(2, 3)) * weights).mean()


def heatmap_cross_entropy(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of each joint's place: heatmaps (N, K, h, w) are logits over h w cells, targets are normalised
    to sum 1, joints weighted by (N, K); the mean over labelled joints.

    Source: Mask R-CNN (1703.06870), section 5, which takes one cell as target; the Gaussian one is ours.
    """
    wanted = targets.flatten(2)
    wanted = wanted / wanted.sum(2, keepdim=True).clamp(min=1e-6)
    each = -(wanted * heatmaps.flatten(2).log_softmax(2)).sum(2)
    return (each * weights).sum() / weights.sum().clamp(min=1)
