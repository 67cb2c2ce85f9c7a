"""Pose networks."""

import pytest
import torch

from bnc_repro.poses.networks import POSENETS
from networks import BINARY


@pytest.mark.parametrize(
    ("name", "stem", "size"),
    [
        ("sbpn", {"stem": "imagenet"}, (64, 96)),
        ("sbpn", {"stem": "half"}, (64, 48)),
        ("sbpn34", {}, (64, 96)),
        ("bhrnet", {}, (64, 128)),
    ],
)
def test_heatmaps_are_a_quarter_of_the_input(name, stem, size):
    """(N, 3, H, W) -> (N, K, H/4, W/4); a size that the stride does not divide is told."""
    network = POSENETS[name](num_keypoints=17, width=4, blocks=(1, 1, 1, 1), **stem).eval()
    assert network(torch.zeros(2, 3, *size)).shape == (2, 17, size[0] // 4, size[1] // 4)
    with pytest.raises(ValueError, match="do not divide by the stride"):
        network(torch.zeros(1, 3, 60, 60))
    stride = network.stride
    with pytest.raises(ValueError, match=rf"stride {stride}: set the recipe key data.image_size .*\[{stride}, 128\]"):
        network(torch.zeros(1, 3, 3, 129))


def test_bhrnet_has_the_shape_of_hrnet_w32():
    """4, 8 and 12 branches of 8 binary convolutions in its stages, at 32 to 256 channels; every parameter learns."""
    network = POSENETS["bhrnet"](num_keypoints=17)
    widths = [[branch[0].conv.in_channels for branch in stage[0].branches] for stage in network.stages]
    assert widths == [[32, 64], [32, 64, 128], [32, 64, 128, 256]]
    assert [len(stage) for stage in network.stages] == [1, 4, 3]
    assert {len(branch) for stage in network.stages for module in stage for branch in module.branches} == {8}
    small_one = POSENETS["bhrnet"](num_keypoints=5, width=4, blocks=(1, 2), units=1, **BINARY)
    small_one(torch.randn(2, 3, 32, 48)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in small_one.parameters())
    with pytest.raises(ValueError, match="has its own stem and blocks, and no head"):
        POSENETS["bhrnet"](num_keypoints=5, head=8)


@pytest.mark.parametrize(("stem", "blocks", "stride"), [("half", (2,), 2), ("full", (1,), 1), ("full", (1, 1), 2)])
def test_a_trunk_that_leaves_more_than_a_quarter_is_refused(stem, blocks, stride):
    """The head can only double: its heatmaps would be larger than the targets."""
    with pytest.raises(ValueError, match=rf"leaves 1/{stride} of each side, and heatmaps are a quarter"):
        POSENETS["sbpn"](num_keypoints=17, width=4, blocks=blocks, stem=stem)
