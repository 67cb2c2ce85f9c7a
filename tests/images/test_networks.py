"""Networks: parameters, starts, checkpoints of the float twin."""

import pytest
import torch
from torch import nn

from bnc_repro import create_network
from bnc_repro.images.networks import CLASSIFIERS
from bnc_repro.layers.backbone import Block
from bnc_repro.layers.binary import BinaryConv2d
from bnc_repro.recipe.build import make_recipe
from bnc_repro.training.task import build_network
from networks import BINARY, FLOAT, small


def test_the_shared_classifier_is_one_module_of_all_layers():
    """Its parameters count once, its values stand in the state of each layer, and the network has no child but its
    parts: what is called in their order is the network."""
    network = small(weight_binarizer="mlp", activation_binarizer="mlp")
    layers = [m for m in network.modules() if isinstance(m, BinaryConv2d)]
    assert all(m.weight_binarizer is network.weight_binarizer for m in layers)
    learnt = [name for name, _ in network.named_parameters() if "binarizer" in name]
    assert len(learnt) == 4
    assert sum("binarizer" in key for key in network.state_dict()) == 4 * len(layers)
    assert [name for name, _ in network.named_children()] == ["trunk", "pool", "fc"]
    x = torch.randn(2, 3, 16, 16)
    headless = nn.Sequential(*list(network.children())[:-1], nn.Flatten(), network.fc)
    assert torch.equal(headless.eval()(x), network.eval()(x))


def test_a_state_with_the_classifier_at_the_top_is_read():
    """As the released code and older checkpoints have it: every layer gets it, and nothing is left over."""
    network, other = small(**BINARY), small(**BINARY)
    state = {key: value for key, value in other.state_dict().items() if "binarizer" not in key}
    state |= {f"weight_binarizer.{key}": value for key, value in other.weight_binarizer.state_dict().items()}
    network.load_state_dict(state)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in network.state_dict().items())


def test_float_twin_loads_strictly_into_the_binary_network():
    """A float checkpoint fits strictly; the classifier keeps its start, and a missing weight is told."""
    torch.manual_seed(0)
    twin, binary = small(**FLOAT), small(**BINARY)
    before = [p.clone() for p in binary.weight_binarizer.parameters()]
    binary.load_state_dict(twin.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(before, binary.weight_binarizer.parameters(), strict=True))
    assert all(torch.equal(value, binary.state_dict()[key]) for key, value in twin.state_dict().items())
    again = small(**BINARY)
    again.load_state_dict(binary.state_dict(), strict=True)
    assert torch.equal(again.weight_binarizer.layers[0].weight, before[0])
    incomplete = {key: value for key, value in twin.state_dict().items() if key != "fc.weight"}
    with pytest.raises(RuntimeError, match=r"Missing key.*fc\.weight"):
        binary.load_state_dict(incomplete)
    half = {key: value for key, value in binary.state_dict().items() if "binarizer.layers.1" not in key}
    with pytest.raises(ValueError, match=r"of some layers and not of others, .*weight_binarizer\.layers\.1"):
        binary.load_state_dict(half)


def test_a_learnt_checkpoint_is_not_taken_for_a_float_one():
    """Into the float twin the classifier's parameters are unexpected: strict loading says so."""
    with pytest.raises(RuntimeError, match=r"Unexpected key.*weight_binarizer\.layers\.0"):
        small(**FLOAT).load_state_dict(small(**BINARY).state_dict())


@pytest.mark.parametrize("seed", [0, 3])
def test_arms_of_one_seed_start_from_the_same_weights(seed):
    """float, ste, linear and mlp networks of a seed are bit-identical; seeds and classifiers differ."""

    def build(name: str | None, seed: int) -> nn.Module:
        recipe = make_recipe(
            width=4, blocks=[1, 1], stem="half", seed=seed, weight_binarizer=name, activation_binarizer=name and "ste"
        )
        return build_network(CLASSIFIERS, recipe, 1, num_classes=3)

    networks = {name: build(name, seed) for name in (None, "ste", "linear", "mlp")}
    start = networks[None].state_dict()
    for network in networks.values():
        state = network.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in start.items())
    other = build("mlp", seed + 1)
    for key in ("fc.weight", "trunk.stages.0.0.conv.weight_binarizer.layers.0.weight"):
        assert not torch.equal(other.state_dict()[key], networks["mlp"].state_dict()[key])
    assert torch.equal(
        build("mlp", seed).weight_binarizer.layers[1].weight, networks["mlp"].weight_binarizer.layers[1].weight
    )


def test_unknown_networks_list_the_nearest_first():
    """A mistyped network name is answered with the known ones, the nearest first."""
    with pytest.raises(ValueError, match="unknown network 'bireal81'; known, nearest first: bireal18"):
        build_network(CLASSIFIERS, make_recipe(network="bireal81"), 3, num_classes=3)


def test_bireal18_has_the_parameters_of_resnet18_and_its_prelus():
    """Full width: torchvision's resnet18 plus a PReLU per channel after the stem and each of 16 blocks."""
    from torchvision.models import resnet18

    with torch.device("meta"):
        network, plain = CLASSIFIERS["bireal18"](num_classes=1000, **BINARY), resnet18()
    count = sum(p.numel() for p in network.parameters())
    prelus, classifier = 64 + 4 * (64 + 128 + 256 + 512), 100 + 200
    assert count == sum(p.numel() for p in plain.parameters()) + prelus + classifier == 11_693_716


def test_a_block_of_reactnet_is_its_formula():
    """RPReLU(BN(conv(sign(x - shift))) + x), RPReLU(y) = prelu(y - gamma) + zeta, number by number (2003.03488)."""
    torch.manual_seed(0)
    block = Block(4, 4, 1, block="reactnet", weight_binarizer="ste", activation_binarizer="approx_sign").double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
        block.norm.running_mean.normal_()
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        given, signs, weight = block(x), torch.zeros(4, 5, 5, dtype=torch.float64), block.conv.binary_weight()
        for c in range(4):
            for i in range(3):
                for j in range(3):
                    signs[c, i + 1, j + 1] = 1.0 if x[0, c, i, j] >= block.shift.shift[c, 0, 0] else -1.0
        for o in range(4):
            gamma, zeta = block.activation.shift.shift[o, 0, 0], -block.activation.lift.shift[o, 0, 0]
            for i in range(3):
                for j in range(3):
                    summed = (weight[o] * signs[:, i : i + 3, j : j + 3]).sum()
                    normed = (summed - block.norm.running_mean[o]) / (block.norm.running_var[o] + block.norm.eps).sqrt()
                    y = normed * block.norm.weight[o] + block.norm.bias[o] + x[0, o, i, j] - gamma
                    wanted = (y if y >= 0 else block.activation.prelu.weight[o] * y) + zeta
                    assert given[0, o, i, j].item() == pytest.approx(wanted.item(), abs=1e-9)


def test_reactnet_blocks_start_as_bi_real_ones_and_learn_their_shifts():
    """Shifts start at 0, so that both networks give the same numbers; then every shift gets a gradient."""
    networks = {}
    for block in ("bireal", "reactnet"):
        torch.manual_seed(0)
        networks[block] = small(**BINARY, block=block)
    x = torch.randn(4, 3, 16, 16)
    logits = {block: network(x) for block, network in networks.items()}
    assert torch.equal(logits["bireal"], logits["reactnet"])
    logits["reactnet"].square().sum().backward()
    shifts = {name: p for name, p in networks["reactnet"].named_parameters() if name.endswith("shift")}
    assert len(shifts) == 3 * sum(isinstance(m, Block) for m in networks["reactnet"].modules())
    assert all(parameter.grad.abs().sum() > 0 for parameter in shifts.values())


def test_blocks_that_a_network_does_not_have_are_refused():
    """An unknown name, and a network with blocks of its own."""
    with pytest.raises(ValueError, match="unknown block 'residual'; known, nearest first: "):
        small(**BINARY, block="residual")
    with pytest.raises(ValueError, match="bhrnet has its own stem and blocks"):
        create_network("bhrnet", num_keypoints=3, block="reactnet", **BINARY)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"blocks": ()}, "blocks counts the blocks of each stage"),
        ({"blocks": (-1, 2)}, "blocks counts the blocks of each stage"),
        ({"blocks": (0,)}, "blocks counts the blocks of each stage"),
        ({"blocks": 2}, "blocks counts the blocks of each stage"),
        ({"blocks": [1.5]}, "blocks counts the blocks of each stage"),
        ({"width": 0}, "width counts the channels"),
        ({"width": 1.5}, "width counts the channels"),
        ({"stem": "x"}, "unknown stem 'x'; known, nearest first"),
        ({"block": "x"}, "unknown block 'x'"),
        ({"preset": "x"}, "unknown preset 'x'"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        create_network("resnet20", num_classes=3, weight_binarizer="ste", **settings)
