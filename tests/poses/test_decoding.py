"""Sub-pixel decoding at the edge of the map, against the joints that the heatmaps were drawn from."""

import pytest
import torch

from bnc_repro.poses.heatmaps import decode, encode

INPUT, MAP, SCALE = (65, 49), (17, 13), 4.0  # a step of the map is 4 px


def decoded(cells, sigma, method):
    """Clean Gaussians at `cells` (N, 2), encoded and decoded: where they were seen, in cells."""
    targets, weights = encode(SCALE * cells[None], torch.ones(1, len(cells)), INPUT, MAP, sigma)
    assert weights.min() == 1
    return decode(targets, INPUT, method)[0][0] / SCALE


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("x", [(-0.45, 1.5), (10.5, 12.45), (5.0, 7.0)])
@pytest.mark.parametrize("y", [(-0.45, 1.5), (14.5, 16.45), (7.0, 9.0)])
def test_a_gaussian_at_the_edge_is_decoded_where_it_lies(sigma, x, y):
    """All four edges and corners, from half a cell outside to the second cell, and the middle of the map."""
    draw = torch.Generator().manual_seed(0)
    low, high = torch.tensor((x, y)).T
    cells = torch.rand((200, 2), generator=draw) * (high - low) + low
    error = (decoded(cells, sigma, "dark_edge") - cells).abs().max()
    assert error < 0.01


def test_the_published_rows_decoder_is_off_at_the_edge_alone():
    """A Gaussian at cell 0.3: -1.0 by "dark", as rows have it; two cells and more from the edge both are one."""
    near, far = torch.tensor([[0.3, 5.0]]), torch.tensor([[2.6, 5.2], [9.4, 13.4]])
    assert decoded(near, 2.0, "dark")[0, 0] == pytest.approx(-1.0)
    assert decoded(near, 2.0, "dark_edge")[0].tolist() == pytest.approx([0.3, 5.0], abs=1e-4)
    assert torch.equal(decoded(far, 2.0, "dark"), decoded(far, 2.0, "dark_edge"))


@pytest.mark.parametrize("size", [(2, 2), (2, 7), (7, 2)])
def test_maps_of_two_cells_keep_their_highest_cell(size):
    """Three cells make a parabola, two none: no step in that direction."""
    heatmaps = torch.zeros(1, 1, *size)
    heatmaps[0, 0, 0, 0] = 1
    points, scores = decode(heatmaps, (4 * size[0] + 4, 4 * size[1] + 4), "dark_edge")
    assert points[0, 0].tolist() == [0, 0]
    assert scores.item() == 1


def test_a_flat_map_has_no_top():
    """Equal cells, and cells that fall away from the edge ever slower: the highest cell itself."""
    flat = torch.full((1, 1, *MAP), 0.5)
    assert torch.equal(decode(flat, INPUT, "dark_edge")[0], torch.zeros(1, 1, 2))
    hollow = torch.exp(-torch.arange(MAP[1]).float().sqrt()).expand(1, 1, *MAP)
    assert decode(hollow, INPUT, "dark_edge")[0][0, 0, 0] == 0
