"""Fused networks against float64: integer sums over borders, blocks with their epilogue, whole networks."""

import pytest
import torch
from torch import nn

from bnc_repro import create_network, pack
from bnc_repro.layers import BinaryConv2d
from exact import as_if_trained, exact, margin, noise, untied
from networks import BINARY

KERNELS = ("popcount", "tables")


def readout(width: int, blocks: tuple[int, ...] = (1, 1), stem: str = "half", **sizes) -> nn.Module:
    """A pose network whose heatmaps are the channels of its last block."""
    channels = sizes.get("head") or width * 2 ** (len(blocks) - 1)
    network = create_network(
        "sbpn", num_keypoints=channels, width=width, blocks=blocks, stem=stem, **sizes, **BINARY
    ).eval()
    with torch.no_grad():
        network.heatmaps.weight.copy_(torch.eye(channels)[:, :, None, None])
        network.heatmaps.bias.zero_()
    return network


@torch.no_grad()
def bare(network: nn.Module) -> nn.Module:
    """`network` with a last block that is its binary convolution alone, of weights ±1 with as many of either: its
    scale is 1 and its sums are integers."""
    block = network.trunk.stages[-1][-1]
    weight, draw = block.conv.weight, torch.Generator().manual_seed(1)
    order = torch.rand(weight.flatten(1).shape, generator=draw).argsort(1)
    weight.copy_((2.0 * (order % 2) - 1).view_as(weight))
    for norm in [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]:
        norm.eps = 0.0
    if isinstance(block.shortcut, nn.Sequential):
        block.shortcut[1].weight.zero_()
    block.activation.weight.fill_(1.0)
    return network


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(4, 4), (8, 12), (28, 20), (36, 4)])
@pytest.mark.parametrize("width", [8, 20, 64, 256])
def test_sums_are_the_integers_of_a_convolution_of_plus_and_minus_one(width, size, kernel):
    """Maps of 1x1 to 9x5, with stride 2, 8 to 512 channels: every number of every border."""
    images = noise(2, 3, *size)
    network, expected = untied(lambda: bare(readout(width)), images)
    assert torch.equal(expected, expected.round())
    assert expected.abs().max() > 4
    assert torch.equal(pack(network, size, kernel=kernel, check=False)(images).double(), expected)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(4, 4), (12, 20), (20, 28)])
@pytest.mark.parametrize("width", [4, 20, 32, 256])
def test_sums_of_stride_1_are_integers_beside_the_shortcut(width, size, kernel):
    """The second block of a stage adds its input: what is left of the output is an integer."""
    images = noise(2, 3, *size)
    network, _ = untied(lambda: bare(readout(width, (1, 2))), images)
    shorter = readout(width, (1, 1))
    shorter.load_state_dict(network.state_dict(), strict=False)
    block_input = exact(shorter)(images.double())
    conv = network.trunk.stages[-1][-1].conv
    signs = torch.where(block_input < 0, -1.0, 1.0).double()
    expected = nn.functional.conv2d(signs, conv.weight.detach().double().sign(), padding=1)
    sums = pack(network, size, kernel=kernel, check=False)(images).double() - block_input
    assert float((sums - expected).abs().max()) < 5e-6 * float(expected.abs().max() + block_input.abs().max())


def trained_readout(settings: dict) -> nn.Module:
    """`readout` with statistics, scales and slopes of both signs."""
    network = readout(**settings)
    as_if_trained(network)
    return network


FORMS = {
    "imagenet": ({"width": 64, "blocks": (2,), "stem": "imagenet"}, (32, 24)),
    "imagenet, odd": ({"width": 16, "blocks": (2,), "stem": "imagenet"}, (44, 28)),
    "half": ({"width": 64, "blocks": (1, 2), "stem": "half"}, (28, 36)),
    "full": ({"width": 32, "blocks": (1, 1, 1), "stem": "full"}, (20, 28)),
    "narrow": ({"width": 4, "blocks": (2, 2), "stem": "half"}, (28, 36)),
    "upsampled": ({"width": 32, "blocks": (1, 1), "stem": "imagenet", "head": 64}, (24, 40)),
    "upsampled, wider": ({"width": 64, "blocks": (1, 1), "stem": "imagenet", "head": 192}, (24, 40)),
    "upsampled twice": ({"width": 20, "blocks": (1, 1, 1), "stem": "imagenet", "head": 48}, (48, 32)),
    "34": ({"width": 8, "blocks": (3, 2, 1), "stem": "half"}, (40, 24)),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("form", FORMS)
def test_blocks_agree_with_float64(form, kernel):
    """Few blocks with statistics, scales and slopes of both signs: 5e-6 of the largest output, at every pixel."""
    settings, size = FORMS[form]
    images = noise(2, 3, *size)
    network, expected = untied(lambda: trained_readout(settings), images)
    output = pack(network, size, kernel=kernel, check=False)(images).double()
    assert float((output - expected).abs().max() / expected.abs().max()) < 5e-6


WHOLE = {
    "bireal18": ({"num_classes": 1000}, (96, 128)),
    "bireal34": ({"num_classes": 10, "width": 32}, (64, 64)),
    "resnet18": ({"num_classes": 10}, (32, 32)),
    "resnet20": ({"num_classes": 100}, (32, 32)),
    "sbpn": ({"num_keypoints": 17}, (128, 96)),
    "sbpn34": ({"num_keypoints": 5, "width": 16}, (64, 96)),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", WHOLE)
def test_a_network_is_within_1e_4_of_float64_or_its_tie_is_found(name, kernel):
    """Where they differ, float64 itself had a sign within float32's rounding of 0."""
    settings, size = WHOLE[name]
    torch.manual_seed(2)
    network = as_if_trained(create_network(name, **settings, **BINARY))
    packed, twin = pack(network, size, kernel=kernel, check=False), exact(network)
    agreeing = 0
    for image in noise(4, 3, *size, seed=7).split(1):
        expected = twin(image.double())
        difference = float((packed(image) - expected).abs().max())
        agreeing += difference < 1e-4
        assert difference < 1e-4 or margin(twin) < 1e-6
    assert agreeing >= 2


def test_one_channel_images_pack_too():
    images = noise(3, 1, 28, 28)
    network, expected = untied(
        lambda: as_if_trained(create_network("resnet20", num_classes=10, channels=1, **BINARY)), images
    )
    assert float((pack(network, (28, 28), check=False)(images) - expected).abs().max()) < 1e-4


def test_minus_zero_counts_as_plus_one():
    """Half of the channels are -0 everywhere: PReLU takes 0 times its slope of -1."""
    network = bare(readout(8, (1, 1)))
    with torch.no_grad():
        stem = network.trunk.stem
        stem[0].weight[:4] = 0.0
        stem[2].weight[:4] = -1.0
    images = noise(1, 3, 16, 16)
    assert torch.equal(pack(network, (16, 16), check=False)(images).double(), exact(network)(images.double()))


def test_weight_binarizers_and_shared_classifiers_do_not_matter():
    """The ±1 of the weights are taken as evaluation has them, whoever made them."""
    for weights in ("mlp", "linear", "siman", "biper", "ede"):
        binary = {"weight_binarizer": weights, "activation_binarizer": "approx_sign"}
        network = as_if_trained(create_network("resnet20", num_classes=5, width=8, blocks=(1, 1), **binary))
        images = noise(2, 3, 16, 16)
        with torch.no_grad():
            expected = network(images)
        output = pack(network, (16, 16), check=False)(images)
        assert float((output - expected).abs().max()) < 1e-4, weights
        assert len([module for module in network.modules() if isinstance(module, BinaryConv2d)]) == 2
