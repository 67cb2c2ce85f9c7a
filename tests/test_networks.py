"""Layers, networks, optimizers and losses: binary where they say so, and equal to formulas written here."""

import math

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bnc_repro import config, losses, optim, task
from bnc_repro.binarizers import get
from bnc_repro.classifiers import CLASSIFIERS
from bnc_repro.layers import BinaryConv2d, BinaryLinear
from bnc_repro.posenets import POSENETS

BINARY = {"weight_binarizer": "mlp", "activation_binarizer": "approx_sign"}
FLOAT = {"weight_binarizer": None, "activation_binarizer": None}
ENTRIES = [(CLASSIFIERS, name, {"num_classes": 5}) for name in CLASSIFIERS if name != "linear"]
ENTRIES += [(POSENETS, name, {"num_keypoints": 5}) for name in POSENETS]
NAMES = [name for _, name, _ in ENTRIES]


def small(**binary) -> nn.Module:
    return CLASSIFIERS["resnet20"](num_classes=3, width=4, blocks=(1, 1), stem="half", **binary)


class Products(TorchFunctionMode):
    """Records the operands (input, weight) of every convolution and linear product that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.conv2d, nn.functional.linear):
            self.seen.append((args[0].detach(), args[1].detach()))
        return function(*args, **(kwargs or {}))


def two_valued(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether only -1 and +1 enter and every output channel multiplies by exactly two values, -a and a."""
    values = [channel.unique() for channel in weight.flatten(1)]
    pairs = all(len(v) == 2 and v[0] == -v[1] for v in values)
    return pairs and x.unique().tolist() == [-1, 1]


@pytest.mark.parametrize(("networks", "name", "outputs"), ENTRIES, ids=NAMES)
def test_every_binary_layer_multiplies_two_values(networks, name, outputs):
    """Each binary layer gets +-1 and two weights per channel; the float twin has no such product."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    for binary, share in ((BINARY, 1), (FLOAT, 0)):
        network = networks[name](width=4, **binary, **outputs)
        layers = [m for m in network.modules() if isinstance(m, BinaryConv2d)]
        with Products() as products:
            network(x).mean().backward()
        found = [two_valued(*operands) for operands in products.seen]
        floats = sum(
            type(m) in (nn.Conv2d, nn.Linear) and "binarizer" not in n for n, m in network.named_modules()
        )
        assert len(layers) >= 16
        assert sum(found) == share * len(layers)
        assert len(found) == len(layers) + floats
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_binary_linear_is_two_valued_and_equals_the_formula():
    """BinaryLinear: y = sign(x) (mean|w_c| sign(w_c))^T + bias, w_c = w minus its mean per output."""
    layer = BinaryLinear(3, 2, weight_binarizer="ste", activation_binarizer="ste")
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0, 6.0], [0.0, 3.0, 0.0]]))
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
    # centred: (-2, -1, 3), scale 2; (-1, 2, -1), scale 4/3
    with Products() as products:
        y = layer(torch.tensor([[0.0, -3.0, 2.0]]))
    assert torch.allclose(y, torch.tensor([[2 * (-1 + 1 + 1) + 0.5, 4 / 3 * (-1 - 1 - 1) - 0.5]]))
    assert two_valued(*products.seen[0])


def test_the_scale_takes_no_gradient():
    """dL/dw is scale * g_w, centred per channel: the scale is a constant of the backward pass."""
    torch.manual_seed(0)
    layer = BinaryLinear(5, 2, bias=False, weight_binarizer="identity").double()
    x, g = torch.randn(4, 5).double(), torch.randn(4, 2).double()
    (layer(x) * g).sum().backward()
    centred = layer.weight.detach() - layer.weight.detach().mean(1, keepdim=True)
    wanted = centred.abs().mean(1, keepdim=True) * (g.T @ x)
    torch.testing.assert_close(layer.weight.grad, wanted - wanted.mean(1, keepdim=True))


def test_float_layers_are_torch_layers():
    """None for both binarizers is nn.Conv2d and nn.Linear to the last bit."""
    for made, plain in ((BinaryConv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)),
                        (BinaryLinear(6, 4), nn.Linear(6, 4))):  # fmt: skip
        plain.load_state_dict(made.state_dict())
        x = torch.randn(2, 3, 5, 6)
        assert torch.equal(made(x), plain(x))


def test_standardised_weights_have_deviation_one():
    """standardize=True divides the centred weight by its deviation before it is binarized."""
    layer = BinaryConv2d(3, 4, 3, standardize=True, **BINARY)
    seen = layer.latent_weight().flatten(1)
    assert torch.allclose(seen.mean(1), torch.zeros(4), atol=1e-6)
    assert torch.allclose(seen.square().mean(1), torch.ones(4), atol=1e-4)


def test_the_shared_classifier_is_held_once_at_the_top():
    """With `mlp` for both operands the state holds two classifiers, by their names at the top."""
    network = small(weight_binarizer="mlp", activation_binarizer="mlp")
    keys = [key for key in network.state_dict() if "binarizer" in key]
    assert keys == [
        f"{kind}_binarizer.layers.{i}.weight" for kind in ("weight", "activation") for i in (0, 1)
    ]
    layers = [m for m in network.modules() if isinstance(m, BinaryConv2d)]
    assert all(m.weight_binarizer is network.weight_binarizer for m in layers)
    own = BinaryConv2d(3, 4, 3, weight_binarizer="mlp")
    assert "weight_binarizer.layers.0.weight" in own.state_dict()


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
    with pytest.raises(RuntimeError, match=r"weight_binarizer\.layers\.1"):
        binary.load_state_dict(half)


def test_a_learnt_checkpoint_is_not_taken_for_a_float_one():
    """Into the float twin the classifier's parameters are unexpected: strict loading says so."""
    with pytest.raises(RuntimeError, match=r"Unexpected key.*weight_binarizer\.layers\.0"):
        small(**FLOAT).load_state_dict(small(**BINARY).state_dict())


@pytest.mark.parametrize("seed", [0, 3])
def test_arms_of_one_seed_start_from_the_same_weights(seed):
    """float, ste, linear and mlp networks of a seed are bit-identical; seeds and classifiers differ."""

    def build(name: str | None, seed: int) -> nn.Module:
        recipe = config.make(
            width=4,
            blocks=[1, 1],
            stem="half",
            seed=seed,
            weight_binarizer=name,
            activation_binarizer=name and "ste",
        )
        return task.build_network(CLASSIFIERS, recipe, 1, num_classes=3)

    networks = {name: build(name, seed) for name in (None, "ste", "linear", "mlp")}
    start = networks[None].state_dict()
    for network in networks.values():
        state = network.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in start.items())
    other = build("mlp", seed + 1)
    for key in ("fc.weight", "weight_binarizer.layers.0.weight"):
        assert not torch.equal(other.state_dict()[key], networks["mlp"].state_dict()[key])
    assert torch.equal(build("mlp", seed).weight_binarizer.layers[1].weight,
                       networks["mlp"].weight_binarizer.layers[1].weight)  # fmt: skip


def test_unknown_networks_list_the_nearest_first():
    """A mistyped network name is answered with the known ones, the nearest first."""
    with pytest.raises(ValueError, match="unknown network 'bireal81'; known, nearest first: bireal18"):
        task.build_network(CLASSIFIERS, config.make(network="bireal81"), 3, num_classes=3)


def test_bireal18_has_the_parameters_of_resnet18_and_its_prelus():
    """Full width: torchvision's resnet18 plus a PReLU per channel after the stem and each of 16 blocks."""
    from torchvision.models import resnet18

    with torch.device("meta"):
        network, plain = CLASSIFIERS["bireal18"](num_classes=1000, **BINARY), resnet18()
    count = sum(p.numel() for p in network.parameters())
    prelus, classifier = 64 + 4 * (64 + 128 + 256 + 512), 100 + 200
    assert count == sum(p.numel() for p in plain.parameters()) + prelus + classifier == 11_693_716


@pytest.mark.parametrize(("name", "stem", "size"), [
    ("sbpn", {"stem": "imagenet"}, (64, 96)), ("sbpn", {"stem": "half"}, (64, 48)), ("sbpn34", {}, (64, 96)),
    ("bhrnet", {}, (64, 128)),
])  # fmt: skip
def test_heatmaps_are_a_quarter_of_the_input(name, stem, size):
    """(N, 3, H, W) -> (N, K, H/4, W/4); a size that the stride does not divide is told."""
    network = POSENETS[name](num_keypoints=17, width=4, blocks=(1, 1, 1, 1), **stem).eval()
    assert network(torch.zeros(2, 3, *size)).shape == (2, 17, size[0] // 4, size[1] // 4)
    with pytest.raises(ValueError, match="do not divide by the stride"):
        network(torch.zeros(1, 3, 60, 60))


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
    with pytest.raises(ValueError, match="has its own stem and no head"):
        POSENETS["bhrnet"](num_keypoints=5, head=8)


def test_every_parameter_is_claimed_once_and_only_weights_decay():
    """Classifier, decayed weights and the rest are disjoint and complete; the classifier has an Adam."""
    network = small(weight_binarizer="mlp", activation_binarizer="linear")
    kinds = optim.groups(network)
    claimed = [id(p) for kind in kinds.values() for p in kind]
    assert sorted(claimed) == sorted(id(p) for p in network.parameters())
    names = {id(p): name for name, p in network.named_parameters()}
    decayed = {names[id(p)] for p in kinds["decayed"]}
    assert decayed == {n for n, p in network.named_parameters() if p.dim() > 1 and "binarizer" not in n}
    assert {names[id(p)] for p in kinds["classifier"]} == {n for n in names.values() if "binarizer" in n}
    settings = {
        "learning_rate": 0.1,
        "momentum": 0.5,
        "weight_decay": 0.01,
        "classifier_learning_rate": 0.002,
    }
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)):
        made, learnt = optim.optimizers(network, optimizer=name, **settings)
        assert type(made) is kind
        assert [(g["lr"], g["weight_decay"]) for g in made.param_groups] == [(0.1, 0.01), (0.1, 0.0)]
        assert (type(learnt), learnt.param_groups[0]["lr"]) == (torch.optim.Adam, 0.002)
        assert learnt.param_groups[0]["weight_decay"] == 0
    assert made.param_groups[0]["momentum"] == 0.5
    assert len(optim.optimizers(small(**FLOAT), optimizer="adam", **settings)) == 1


@pytest.mark.parametrize(
    ("schedule", "options", "points"),
    [
        ("constant", {}, {0: 1, 39: 1}),
        ("linear", {}, {0: 1, 10: 0.75, 20: 0.5, 39: 0.025}),
        ("cosine", {}, {0: 1, 10: (1 + math.sqrt(0.5)) / 2, 20: 0.5, 30: (1 - math.sqrt(0.5)) / 2}),
        ("steps", {"milestones": (1, 3)}, {0: 1, 9: 1, 10: 0.1, 29: 0.1, 30: 0.01, 39: 0.01}),
        ("linear", {"warmup_epochs": 1.0}, {0: 0.1, 4: 0.5, 9: 1, 10: 1, 25: 0.5, 39: 1 / 30}),
        ("cosine", {"warmup_epochs": 2.0}, {0: 0.05, 19: 1, 20: 1, 30: 0.5}),
        ("linear", {"released_schedule": True}, {0: 0.75, 9: 0.75, 10: 0.5, 29: 0.25, 30: 0, 39: 0}),
    ],
)
def test_rates_at_points_computed_by_hand(schedule, options, points):
    """4 epochs of 10 steps: each schedule's factor at its first, middle and last steps."""
    for step, wanted in points.items():
        found = optim.rate(step, steps_per_epoch=10, epochs=4, schedule=schedule, **options)
        assert found == pytest.approx(wanted, abs=1e-12), step


def test_heatmap_loss_by_hand():
    """Half of the mean over people and joints of weight * mean squared error; weight 0 does not count."""
    heatmaps = torch.zeros(1, 2, 2, 2)
    targets = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[9.0, 9.0], [9.0, 9.0]]]])
    assert losses.heatmap_loss(heatmaps, targets, torch.tensor([[1.0, 0.0]])).item() == 0.5 * (6 / 4) / 2
    found = losses.heatmap_loss(heatmaps, targets, torch.tensor([[2.0, 1.0]])).item()
    assert found == pytest.approx(0.5 * (2 * 1.5 + 81) / 2)


def test_heatmap_cross_entropy_by_hand():
    """-sum target log softmax over a joint's cells, mean over the labelled joints; none labelled: 0."""
    logits = torch.tensor([[[[0.0, math.log(3)]], [[5.0, -5.0]]]], requires_grad=True)  # (1, 2, 1, 2)
    targets = torch.tensor([[[[0.5, 0.5]], [[1.0, 0.0]]]]) * 4  # of any height
    found = losses.heatmap_cross_entropy(logits, targets, torch.tensor([[1.0, 0.0]]))
    assert found.item() == pytest.approx(-0.5 * math.log(1 / 4) - 0.5 * math.log(3 / 4), rel=1e-6)
    found.backward()
    assert torch.allclose(logits.grad, torch.tensor([[[[-0.25, 0.25]], [[0.0, 0.0]]]]), atol=1e-7)
    assert losses.heatmap_cross_entropy(logits, targets * 0, torch.zeros(1, 2)).item() == 0


def test_soft_cross_entropy_by_hand():
    """-sum softmax(teacher) log softmax(logits), mean over images; its gradient is (p - q) / N."""
    logits = torch.tensor([[0.0, math.log(4)], [0.0, 0.0]], requires_grad=True)  # p = (.2, .8), (.5, .5)
    teacher = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])  # q = (.75, .25), (.5, .5)
    found = losses.soft_cross_entropy(logits, teacher)
    assert found.item() == pytest.approx(
        (-0.75 * math.log(0.2) - 0.25 * math.log(0.8) + math.log(2)) / 2, rel=1e-6
    )
    found.backward()
    assert torch.allclose(logits.grad, torch.tensor([[-0.275, 0.275], [0.0, 0.0]]), atol=1e-7)


def test_layers_own_what_they_make_and_borrow_what_they_get():
    """An instance given to a layer is used, and is not among the layer's own modules."""
    shared = get("mlp")
    layer = BinaryLinear(3, 2, weight_binarizer=shared, activation_binarizer="linear")
    assert layer.weight_binarizer is shared
    assert [name for name, _ in layer.named_children()] == ["activation_binarizer"]


def test_a_forward_that_fails_leaves_no_evaluator_behind():
    """After an exception in the middle of the network a layer that is called directly evaluates F anew, for the weights
    that it has by then."""
    network, x = small(**BINARY), torch.randn(2, 3, 16, 16)
    layers = [module for module in network.modules() if isinstance(module, BinaryConv2d)]
    seen = []
    handle = layers[1].register_forward_pre_hook(lambda layer, inputs: seen.append(layer.table) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        network(x)
    handle.remove()
    assert seen[0] is not None, "the evaluator was there when the forward failed"
    assert all(layer.table is None for layer in layers)

    layer = layers[1]
    with torch.no_grad():
        layer.weight.mul_(30)
    inputs = torch.randn(2, layer.in_channels, 8, 8)
    layer(inputs).square().sum().backward()
    fresh = BinaryConv2d(layer.in_channels, layer.out_channels, 3, padding=1, bias=False,
                         weight_binarizer=network.weight_binarizer, activation_binarizer="approx_sign")  # fmt: skip
    fresh.stride = layer.stride
    with torch.no_grad():
        fresh.weight.copy_(layer.weight)
    fresh(inputs).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, fresh.weight.grad, rtol=0, atol=0)
