"""`binarize` on torchvision's families, and what a network costs."""

import copy
import dataclasses
import threading
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.vgg import cfgs, make_layers

from bnc_repro.convert import binarize
from bnc_repro.cost import cost, table
from bnc_repro.images.networks import CLASSIFIERS
from bnc_repro.layers.binary import BinaryConv2d, BinaryLinear
from bnc_repro.layers.ends import ends
from bnc_repro.layers.inspect import prove

SIZE = (3, 64, 64)


def vgg() -> nn.Module:
    """torchvision's VGG-11 with fewer inputs to its first linear layer, which has 100 million weights."""
    model = torchvision.models.VGG(make_layers(cfgs["A"]), num_classes=10, init_weights=False)
    model.avgpool, model.classifier[0] = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 4096)
    return model


FAMILIES = {
    "resnet18": partial(torchvision.models.resnet18, num_classes=10),
    "mobilenet_v2": partial(torchvision.models.mobilenet_v2, num_classes=10),
    "vgg11": vgg,
    "convnext_tiny": partial(torchvision.models.convnext_tiny, num_classes=10),
    "regnet_y_400mf": partial(torchvision.models.regnet_y_400mf, num_classes=10),
    "vit": partial(
        torchvision.models.VisionTransformer,
        image_size=64, patch_size=16, num_layers=3, num_heads=4, hidden_dim=128, mlp_dim=256, num_classes=10,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_torchvision_families_become_binary(name):
    """Finite outputs, each binary layer proved, first and last float, float checkpoints in, a step moves weights."""
    torch.manual_seed(0)
    model = FAMILIES[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = binarize(model, input_size=SIZE)
    layers = [key for key, module in model.named_modules() if isinstance(module, (BinaryConv2d, BinaryLinear))]
    assert report.binary == layers
    assert sorted(report.proved) == sorted(layers)
    assert report.constant == []
    assert {"the first layer", "the last layer"} <= set(report.kept.values())
    assert report.after.bits < report.before.bits / 2 or name == "vit"
    assert report.after.ops < report.before.ops
    assert "were seen called with two-valued" in str(report)

    model.load_state_dict(dict(before))  # strictly
    for key in before:
        assert torch.equal(model.state_dict()[key], before[key])
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter.data, std=0.1)  # a head that starts at zero passes no gradient on
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    output = model.train()(torch.randn(2, *SIZE))
    assert output.isfinite().all()
    nn.functional.cross_entropy(output, torch.tensor([1, 2])).backward()
    optimizer.step()
    for layer in layers:
        assert not torch.equal(model.get_submodule(layer).weight, before[layer + ".weight"]), layer


def small() -> nn.Sequential:
    """A float network with a ReLU before each convolution but the first."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def test_float_checkpoints_and_learnt_binarizers_round_trip():
    """A float checkpoint loads strictly although the shared classifier is new; the binary one comes back whole."""
    plain, model = small(), small()
    binarize(model)
    model.load_state_dict(plain.state_dict())
    again = small()
    binarize(again)
    again.load_state_dict(model.state_dict())
    x = torch.randn(2, *SIZE)
    assert torch.equal(model.eval()(x), again.eval()(x))
    assert sum("weight_binarizer" in name for name, _ in model.named_parameters()) == 2  # one shared mlp
    x.requires_grad_()
    model(x).sum().backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "binarizer" in name)


def test_one_sided_inputs_are_replaced_or_reported():
    """ReLU becomes Hardtanh; if it is kept, the report names the layers whose binary input is a constant."""
    model = small()
    assert binarize(model, input_size=SIZE).replaced == {"1": "Hardtanh", "4": "Hardtanh"}
    model = small()
    report = binarize(model, replace_relu=False, input_size=SIZE)
    assert report.constant == ["2", "5"]
    assert "One value only enters 2, 5" in str(report)


def test_layers_can_be_kept_by_name_or_pattern():
    """keep_float takes names and patterns, names unknown ones, and refuses to leave nothing."""
    model = small()
    assert binarize(model, keep_float=("5",)).kept == {
        "5": "kept by '5'",
        "0": "the first layer",
        "8": "the last layer",
    }
    with pytest.raises(ValueError, match=r"keep_float takes names of layers .* not \[3\]"):
        binarize(small(), keep_float=[3])
    with pytest.raises(ValueError, match=r"keep_float 'layer\*' matches no layer; there are 0, 2, 5, 8"):
        binarize(small(), keep_float=("layer*",))
    assert "5" in binarize(small(), keep_float="5").kept
    with pytest.raises(ValueError, match="no layer is left"):
        binarize(small(), keep_float=("*",))
    assert len(binarize(small(), keep_ends=False).binary) == 4


def test_proof_does_not_believe_names():
    """A layer that calls itself binary but multiplies by its float weights is not proved."""
    model = small()
    binarize(model)
    liar = model[2]
    liar.binary_weight = lambda: liar.weight
    fine, _ = prove(model, {name: model.get_submodule(name) for name in ("2", "5")}, torch.randn(1, *SIZE))
    assert fine == ["5"]


def test_attention_stays_float_and_says_why():
    """The projections of torch's attention are arguments of a function: replacing the module would change nothing."""
    model = nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 8))
    report = binarize(model, input_size=(5, 8))
    assert report.kept["1.self_attn.out_proj"].startswith("attention uses")
    assert report.binary == ["1.linear1", "1.linear2"]


def test_a_fused_transformer_calls_its_binary_layers():
    """In evaluation torch fuses a transformer's layers and reads their weights; binary ones are called."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
    model = nn.Sequential(nn.Linear(8, 8), encoder, nn.Linear(8, 8))
    binarize(model)
    x = torch.randn(3, 5, 8)
    model.eval()
    with torch.no_grad():
        found = model(x)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            wanted = model(x)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    torch.testing.assert_close(found, wanted)


class Borrower(nn.Module):
    """Uses one layer's weight without calling it, has one with a forward of its own, and calls the rest backwards."""

    class Scaled(nn.Linear):
        """Half of a linear layer."""

        def forward(self, x):
            return super().forward(x) / 2

    def __init__(self):
        super().__init__()
        self.last, self.inner, self.borrowed = (nn.Linear(8, 8) for _ in range(3))
        self.own, self.first = self.Scaled(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.last(self.own(self.inner(nn.functional.linear(self.first(x), self.borrowed.weight))))


def test_layers_that_are_not_called_stay_float():
    """With an input the ends are those of the forward pass; borrowed weights and own forwards stay as they are."""
    model = Borrower()
    report = binarize(model, input_size=(8,))
    assert report.kept == {
        "borrowed": "its weights are used without calling it",
        "own": "a Scaled is more than its base class",
        "first": "the first layer",
        "last": "the last layer",
    }
    assert report.binary == report.proved == ["inner"]


def test_modes_of_modules_and_the_random_stream_are_left_alone():
    """A module that was held in evaluation still is; nothing is drawn from the global stream."""
    model = small()
    model[3].eval()
    torch.manual_seed(3)
    binarize(model, weight_binarizer="ste", input_size=SIZE)
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(3)))
    assert model.training
    assert not model[3].training


def test_attention_is_counted():
    """Projections, scores, weighted sums and the output of torch's attention, by hand."""

    class Attention(nn.Module):
        """Self-attention of width 8 with two heads."""

        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    assert cost(Attention(), (5, 8))[-1].flops == 3 * 5 * 8 * 8 + 5 * 5 * 8 + 5 * 5 * 8 + 5 * 8 * 8


def test_a_binarizer_is_not_counted():
    """The classifier that is asked for its argmax costs nothing at inference, nor does the exact evaluation."""
    costs = []
    for fields in ({"preset": "fixed"}, {"preset": "paper"}):
        model = small()
        binarize(model, **fields)
        costs.append(cost(model, SIZE)[-1].ops)
    assert costs[0] == costs[1]


def test_cost_of_bireal_18_is_the_published_one():
    """1.63e8 OPs at 224 (Bi-Real Net, table 3), within 1 %, and each term by hand."""
    network = CLASSIFIERS["bireal18"](num_classes=1000, weight_binarizer="ste", activation_binarizer="approx_sign")
    costs = {line.layer: line for line in cost(network, (3, 224, 224))}
    total = costs["total"]
    assert total.ops == pytest.approx(1.63e8, rel=0.01)
    assert costs["trunk.stem.0"].flops == 112 * 112 * 64 * 3 * 49
    assert costs["fc"].flops == 512 * 1000
    first = costs["trunk.stages.0.0.conv"]
    assert (first.bops, first.flops) == (56 * 56 * 64 * 64 * 9, 0)
    assert first.bits == 64 * 64 * 9 + 32 * 64  # a bit a weight, a scale a channel
    assert total.bops == sum(line.bops for name, line in costs.items() if name != "total")
    assert total.parameters == sum(parameter.numel() for parameter in network.parameters())
    twin = cost(CLASSIFIERS["bireal18"](num_classes=1000), (3, 224, 224))[-1]
    assert twin.bops == 0
    assert twin.flops == total.flops + total.bops
    assert twin.bits == 32 * twin.parameters
    assert table(list(costs.values())).count("\n") == len(costs)


def test_cost_leaves_the_network_alone_and_names_a_bad_size():
    """The mode and the buffers stay; an input that does not fit is named."""
    network = small().train()
    state = copy.deepcopy(network.state_dict())
    cost(network, SIZE)
    assert network.training
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    with pytest.raises(ValueError, match=r"an input of size \(4, 8, 8\) does not pass"):
        cost(network, (4, 8, 8))


def test_weight_only_binary_layers_count_as_float_operations():
    """A binary weight alone saves bits, not OPs."""
    model = small()
    binarize(model, activation_binarizer=None)
    line = {c.layer: c for c in cost(model, SIZE)}["2"]
    assert line.bops == 0
    assert line.flops == 64 * 64 * 8 * 8 * 9
    assert line.bits == 8 * 8 * 9 + 32 * 8 + 32 * 8  # weights, bias, scales


def test_a_sequential_root_calls_nothing_new():
    """Converting adds no child that the root would call: the output of the model stays what its last layer gives."""
    torch.manual_seed(0)
    model = small()
    before = [name for name, _ in model.named_children()]
    binarize(model, input_size=SIZE)
    assert [name for name, _ in model.named_children()] == before
    assert len(model(torch.randn(2, *SIZE)).unique()) > 2


def test_activations_first_and_weights_later():
    """A second call makes binary what the first left float, keeps the first one's, and a third is refused."""
    torch.manual_seed(0)
    model = small()
    first = binarize(model, weight_binarizer=None, activation_binarizer="dsq", input_size=SIZE)
    kept = [m.activation_binarizer for m in model.modules() if isinstance(m, BinaryConv2d)]
    second = binarize(model, weight_binarizer="mlp", activation_binarizer="ste", input_size=SIZE)
    assert second.binary == first.binary == second.proved
    layers = [m for m in model.modules() if isinstance(m, BinaryConv2d)]
    assert [layer.activation_binarizer for layer in layers] == kept
    assert {type(layer.weight_binarizer).__name__ for layer in layers} == {"Classifier"}
    with pytest.raises(ValueError, match=r"no layer is left to make binary: .*is binary already"):
        binarize(model)


def test_pruned_layers_stay_float():
    """A pruned layer is named; its weights keep their zeros, the layer beside it becomes binary."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.LazyLinear(2))
    model(torch.randn(1, 3, 12, 12))
    prune.l1_unstructured(model[1], "weight", 0.5)
    report = binarize(model, input_size=(3, 12, 12))
    assert report.binary == report.proved == ["2"]
    assert report.kept["1"] == "is pruned, and binary weights have no 0"
    assert (model[1].weight == 0).float().mean() == 0.5


def test_layers_that_would_be_zero_for_ever_stay_float():
    """One weight per output channel, and weights that are all the same: centring makes them 0, and their gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1, groups=8), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 1)
    )
    nn.init.zeros_(model[3].weight)
    report = binarize(model)
    assert report.binary == ["2"]
    assert "one weight per output channel" in report.kept["1"]
    assert "the same within each channel" in report.kept["3"]


def test_activations_of_a_part_that_is_kept_stay():
    """keep_float='backbone.*' leaves the backbone as it was: its features are the same to the bit."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    head = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    model = nn.ModuleDict({"backbone": backbone, "head": head})
    x = torch.randn(2, *SIZE)
    before = backbone(x)
    report = binarize(model, keep_float="backbone.*", keep_ends=False)
    assert torch.equal(backbone(x), before)
    assert set(report.replaced) == {"head.1", "head.3"}


class Towers(nn.Module):
    """Two layers read the input; two heads leave, in a mapping and in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.middle = nn.Conv2d(16, 16, 3)
        self.classes, self.boxes = nn.Linear(16, 2), nn.Linear(16, 3)

    def forward(self, x):
        y = torch.cat([torch.relu_(self.left(x)), self.right(x)], 1)
        y = self.middle(y).mean((2, 3))
        return {"boxes": (self.boxes(y),), "classes": self.classes(y)}


def test_every_layer_that_reads_the_input_and_every_head_stays_float():
    report = binarize(Towers(), input_size=(3, 8, 8))
    assert report.binary == report.proved == ["middle"]
    assert report.kept == {
        "left": "one of the 2 first layers",
        "right": "one of the 2 first layers",
        "boxes": "one of the 2 last layers",
        "classes": "one of the 2 last layers",
    }


def test_both_heads_of_a_segmentation_network_stay_float():
    model = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(weights_backbone=None, aux_loss=True)
    report = binarize(model, input_size=SIZE)
    kept = {name: why for name, why in report.kept.items() if "first" in why or "last" in why}
    assert kept == {
        "backbone.0.0": "the first layer",
        "classifier.4": "one of the 2 last layers",
        "aux_classifier.4": "one of the 2 last layers",
    }


class Joined(nn.Module):
    """Two heads joined in one tensor, a branch that is added, and what `wrap` makes of the output."""

    def __init__(self, wrap=lambda y: y) -> None:
        super().__init__()
        self.stem, self.body, self.side = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.boxes, self.classes, self.wrap = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, 1), wrap

    def forward(self, x):
        y = self.stem(x)
        y = self.body(y) + self.side(y)
        return self.wrap(torch.cat([self.boxes(y), self.classes(y)], 1))


@dataclasses.dataclass
class Output:
    maps: torch.Tensor
    name: str = "maps"


@pytest.mark.parametrize(
    "wrap",
    [lambda y: y, lambda y: y.flatten(2).softmax(2), torch.fft.rfft2, Output],
    ids=["plain", "softmax", "complex", "dataclass"],
)
def test_heads_that_are_joined_in_one_tensor_stay_float(wrap):
    report = binarize(Joined(wrap), input_size=(3, 8, 8))
    assert report.binary == ["body", "side"]
    assert report.kept["boxes"] == report.kept["classes"] == "one of the 2 last layers"


class Checkpointed(Joined):
    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=True)


class Views(Joined):
    def forward(self, x):
        red, *_ = x.unbind(1)
        red.sub_(0.5)
        return super().forward(x)


@pytest.mark.parametrize("kind", [Checkpointed, Views])
def test_where_autograd_cannot_follow_the_order_of_calls_decides(kind):
    report = binarize(kind(), input_size=(3, 8, 8))
    assert report.kept == {"stem": "the first layer", "classes": "the last layer"}


def test_a_first_layer_called_without_gradients_stays_float():
    class Half(Joined):
        def forward(self, x):
            with torch.no_grad():
                y = self.stem(x)
            return self.classes(self.body(y) + self.side(nn.functional.pad(x, (-1,) * 4).repeat(1, 3, 1, 1)[:, :8]))

    kept = binarize(Half(), input_size=(3, 8, 8)).kept
    assert kept["stem"] == kept["side"] == "one of the 2 first layers"
    assert kept["classes"] == "the last layer"


@pytest.mark.parametrize("name", ["inception_v3", "densenet121", "swin_t"])
def test_networks_with_branches_have_one_first_and_one_last_layer(name):
    """Skips, branches and concatenations within do not make a layer first or last; torchvision's order of modules
    names the same two."""
    options = {"init_weights": False} if name == "inception_v3" else {}
    model = torchvision.models.get_model(name, weights=None, **options)
    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert ends(model, torch.randn(2, 3, 96, 96)) == ([layers[0]], [layers[-1]])


def test_the_pass_that_finds_the_ends_leaves_the_model_as_it_was():
    """Frozen parameters stay frozen, no hook, gradient or mode is left behind, and what the model notes of its input is
    still its own."""

    class Noting(Towers):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(2, 3, 8, 8))

        def forward(self, x):
            self.seen.copy_(x)
            return super().forward(x)

    model = Noting()
    model.left.weight.requires_grad_(False)
    model.train()
    ends(model, torch.randn(2, 3, 8, 8))
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["left.weight"]
    assert all(p.grad is None for p in model.parameters())
    assert not model.seen.any()
    assert not model.seen.requires_grad
    assert all(m.training and not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("layer", "products"),
    [
        (nn.LSTM(4, 8, num_layers=2, bidirectional=True, batch_first=True), 5 * 2 * 32 * ((4 + 8) + (16 + 8))),
        (nn.GRU(4, 8, batch_first=True), 5 * 24 * (4 + 8)),
        (nn.RNN(4, 8, batch_first=True), 5 * 8 * (4 + 8)),
    ],
)
def test_recurrent_layers_are_named_and_counted(layer, products):
    """Gates x (inputs + hidden) products a step, layer and direction, by hand; it is read first, and has no binary
    form."""

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            width = 8 * (2 if layer.bidirectional else 1)
            self.recurrent, self.inner, self.head = layer, nn.Linear(width, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.inner(self.recurrent(input=x)[0]))

    model = Tagger()
    (line,) = [line for line in cost(model, (5, 4)) if line.layer == "recurrent"]
    assert (line.kind, line.flops, line.bops) == (type(layer).__name__, products, 0)
    assert line.parameters == sum(p.numel() for p in layer.parameters())
    total, rest = cost(model, (5, 4))[-1], cost(model, (5, 4))[-2]
    assert total.flops == products + 5 * (model.inner.weight.numel() + 16)
    assert rest.flops == 0
    report = binarize(model, input_size=(5, 4))
    assert report.kept == {"recurrent": f"there is no binary {type(layer).__name__}", "head": "the last layer"}
    assert report.binary == report.proved == ["inner"]


SIDES = [{}, {"input_size": SIZE}]


@pytest.mark.parametrize("options", SIDES)
def test_a_shared_activation_is_replaced_in_all_its_places(options):
    """One instance in two places of a Sequential and in another module becomes one Hardtanh, so no sign is constant."""
    torch.manual_seed(0)
    act = nn.ReLU().eval()
    inner = nn.Sequential(nn.Conv2d(8, 8, 1), act, nn.Conv2d(8, 8, 1))
    model = nn.Sequential(nn.Conv2d(3, 8, 1), act, nn.Conv2d(8, 8, 1), act, inner, nn.Conv2d(8, 2, 1))
    report = binarize(model, **options)
    assert report.replaced == dict.fromkeys(["1", "3", "4.1"], "Hardtanh")
    assert isinstance(model[1], nn.Hardtanh)
    assert model[1] is model[3] is model[4][1]
    assert not model[1].training
    seen = []
    model[4][2].register_forward_pre_hook(lambda layer, inputs: seen.append(layer.binary_input(*inputs)))
    model(torch.randn(2, *SIZE))
    assert set(seen[0].unique().tolist()) == {-1.0, 1.0}


def test_an_activation_shared_with_a_part_that_is_kept_stays_there():
    act = nn.ReLU()
    kept = nn.Sequential(nn.Conv2d(3, 8, 3), act)
    head = nn.Sequential(nn.Conv2d(8, 8, 3), act, nn.Conv2d(8, 8, 3), act, nn.Conv2d(8, 2, 1))
    x = torch.randn(2, *SIZE)
    before = kept(x)
    report = binarize(nn.Sequential(kept, head), keep_float="0.*")  # 0.0 is the first layer too
    assert torch.equal(kept(x), before)
    assert set(report.replaced) == {"1.1", "1.3"}
    assert kept[1] is act
    assert head[1] is head[3]


@pytest.mark.parametrize("options", SIDES)
def test_weights_alone_leave_activations_until_a_layer_takes_signs(options):
    model = small()
    assert binarize(model, activation_binarizer=None, **options).replaced == {}
    assert isinstance(model[1], nn.ReLU)
    assert set(binarize(model, **options).replaced) == {"1", "4"}


@pytest.mark.parametrize("options", SIDES)
@pytest.mark.parametrize("nested", [False, True])
def test_the_activation_of_an_output_stays(options, nested):
    """What ReLU gives after the last layer may exceed 1; the same instance before a layer is replaced everywhere."""
    act = nn.ReLU()
    model = nn.Sequential(small(), nn.Sequential(act)) if nested else nn.Sequential(*small(), act)
    report = binarize(model, **options)
    assert set(report.replaced) == ({"0.1", "0.4"} if nested else {"1", "4"})
    last = model[0][-1] if nested else model[-2]
    nn.init.constant_(last.bias, 50.0)
    assert model(torch.randn(2, *SIZE)).min() > 1
    shared = small()
    shared[1] = shared[4] = act
    assert set(binarize(nn.Sequential(*shared, act), **options).replaced) == {"1", "4", "9"}


def test_the_activation_of_an_output_stays_whatever_the_order_of_modules():
    """A forward pass shows what is called last, though it was made first."""

    class Regression(nn.Module):
        def __init__(self):
            super().__init__()
            self.output, self.body = nn.ReLU(), small()

        def forward(self, x):
            return self.output(self.body(x))

    assert set(binarize(Regression(), input_size=SIZE).replaced) == {"body.1", "body.4"}


def test_nothing_to_make_binary_is_refused():
    with pytest.raises(ValueError, match="weight_binarizer and activation_binarizer are both None"):
        binarize(small(), weight_binarizer=None, activation_binarizer=None)


class Strict(nn.Module):
    """Refuses in its forward pass what is no torch convolution."""

    def __init__(self):
        super().__init__()
        self.body = small()
        self.body[3].eval()
        self.hooked = []
        self.handle = self.body[2].register_forward_hook(lambda *_: self.hooked.append(1))

    def forward(self, x):
        assert type(self.body[2]) is nn.Conv2d, "no convolution"
        return self.body(x)


def test_a_model_that_refuses_binary_layers_is_left_as_it_was():
    """Classes, children, hooks, modes, state and outputs are those of before, and it can be made binary anew."""
    model = Strict()
    classes = {name: type(module) for name, module in model.named_modules()}
    modes = {name: module.training for name, module in model.named_modules()}
    state, x = copy.deepcopy(model.state_dict()), torch.randn(2, *SIZE)
    before = model.body.eval()(x)
    model.body.train()
    model.body[3].eval()
    with pytest.raises(
        ValueError, match=r"not pass through the network with its new binary .*as it was\): no convolution"
    ):
        binarize(model, input_size=SIZE)
    assert {name: type(module) for name, module in model.named_modules()} == classes
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert list(model.state_dict()) == list(state)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert not model._load_state_dict_pre_hooks
    assert list(model.body[2]._forward_hooks) == [model.handle.id]
    assert torch.equal(model.body.eval()(x), before)
    model.handle.remove()
    assert not model.body[2]._forward_hooks
    assert binarize(model.body, input_size=SIZE).proved == ["2", "5"]


@pytest.mark.parametrize("make", [threading.Lock, lambda: open(__file__), lambda: (i for i in range(3))])  # noqa: SIM115
def test_a_model_that_cannot_be_copied_has_its_ends_by_the_order_of_calls(make):
    model = small()
    model.held = make()
    report = binarize(model, input_size=SIZE)
    assert report.kept == {"0": "the first layer", "8": "the last layer"}
    assert report.proved == ["2", "5"]
    if hasattr(model.held, "close"):
        model.held.close()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_in_another_floating_type_is_proved_and_counted(dtype):
    model = small().to(dtype)
    report = binarize(model, input_size=SIZE)
    assert report.proved == ["2", "5"]
    assert report.kept == {"0": "the first layer", "8": "the last layer"}
    assert report.after.ops < report.before.ops
    assert model(torch.randn(2, *SIZE, dtype=dtype)).dtype == dtype
    assert {module.weight.dtype for module in model if isinstance(module, (nn.Conv2d, nn.Linear))} == {dtype}


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = small()

    def forward(self, x, y):
        return self.body(x + y)


@pytest.mark.parametrize(
    ("make", "size", "why"),
    [
        (
            Pair,
            SIZE,
            r"\(3, 64, 64\) does not pass through the network: .*missing 1 required positional argument: 'y'$",
        ),
        (lambda: nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8)), (4,), r"\(4,\) does not pass .*indices"),
        (small, (4, 64, 64), r"\(4, 64, 64\) does not pass through the network: .*3 channels, but got 4"),
        (small, (3, 0, 64), r"positive whole numbers such as \(3, 224, 224\), not \(3, 0, 64\)"),
        (small, (3, -1, 64), r"not \(3, -1, 64\)"),
        (small, (3, 64.0, 64), r"not \(3, 64.0, 64\)"),
        (small, (), r"not \(\)"),
        (small, 16, "not 16"),
        (nn.ReLU, SIZE, "no layer is left to make binary: the model has none"),
        (lambda: small().to("meta"), SIZE, "model on meta has no numbers to run: leave input_size out"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_in_one_line(make, size, why):
    """And nothing became binary."""
    model = make()
    with pytest.raises(ValueError, match=why) as refused:
        binarize(model, input_size=size)
    assert "\n" not in str(refused.value)
    assert not any(isinstance(module, (BinaryConv2d, BinaryLinear)) for module in model.modules())


def test_a_model_on_meta_becomes_binary_and_its_classifier_keeps_its_start():
    """A float checkpoint, assigned, makes it the network that was made binary with its weights."""
    plain, model = small(), small().to("meta")
    assert binarize(model).binary == ["2", "5"]
    state = copy.deepcopy(plain.state_dict())
    model.load_state_dict(state, assign=True)
    binarize(plain)
    x = torch.randn(2, *SIZE)
    assert torch.equal(model.eval()(x), plain.eval()(x))
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    model.train()(x).sum().backward()
    assert model[2].weight_binarizer.layers[0].weight.grad.any()


def test_none_keeps_nothing_by_name():
    assert binarize(small(), keep_float=None).binary == ["2", "5"]


def test_weights_that_are_not_finite_are_named():
    """Those of layers that would become binary; a layer that stays float may hold what it holds."""
    model = small()
    model[2].weight.data[0, 0, 0, 0] = float("nan")
    model[5].weight.data[1] = float("inf")
    with pytest.raises(ValueError, match=r"^weights of 2, 5 are not finite: load others, or name the layers in k"):
        binarize(model)
    assert type(model[2]) is nn.Conv2d
    model[5].weight.data[1] = 1.0
    assert binarize(model, keep_float="2").binary == ["5"]


def test_layers_of_other_kinds_stay_float_beside_binary_ones():
    model = nn.Sequential(nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 2))
    report = binarize(model, input_size=(2, 8))
    assert report.kept == {"0": "there is no binary Conv1d", "5": "the last layer"}
    assert report.binary == report.proved == ["3"]


def test_a_binary_network_is_exported_and_taken_apart():
    """torch.export, torch.jit.trace without gradients, torch.fx and torchvision's extractor give its numbers."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None, num_classes=10)
    binarize(model, input_size=SIZE)
    model.eval()
    x = torch.randn(2, *SIZE)
    with torch.no_grad():
        wanted = model(x)
        traced = torch.jit.trace(model, x)
        assert torch.equal(traced(x), wanted)
        assert torch.equal(torch.export.export(model, (x,)).module()(x), wanted)
        assert torch.equal(torch.fx.symbolic_trace(model)(x), wanted)
        parts = create_feature_extractor(model, {"layer2": "middle", "fc": "output"})
        found = parts(x)
    assert torch.equal(found["output"], wanted)
    assert found["middle"].shape == (2, 128, 8, 8)


@pytest.mark.parametrize("estimator", ["mlp", "ste", "dsq"])
def test_a_binary_network_is_traced_with_gradients_on_too(estimator):
    """What a trace keeps in evaluation is the forward value alone, so it passes the check that torch makes of it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 3))
    binarize(model, weight_binarizer=estimator)
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(torch.jit.trace(model.eval(), x)(x), model(x))


def test_a_network_without_layers_costs_nothing():
    assert dataclasses.astuple(cost(nn.Sequential(nn.ReLU()), SIZE)[-1]) == ("total", "Sequential", 0, 0, 0, 0)


class Block(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_a_layer_of_two_parents_costs_both_its_calls():
    """By hand: 8 * 8 * 9 products a pixel, 64 pixels, two calls."""
    layer = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Block(layer), Block(layer), nn.Flatten(), nn.Linear(512, 4))
    binarize(model, weight_binarizer="ste")
    costs = {line.layer: line for line in cost(model, (3, 8, 8))}
    assert (costs["1.layer"].bops, costs["1.layer"].flops) == (2 * 64 * 64 * 9, 0)
    assert costs["the rest"].flops == 0
    assert costs["total"].flops == 64 * 3 * 8 * 9 + 512 * 4


def test_a_weight_of_several_layers_is_stored_once_and_as_float_if_one_of_them_needs_that():
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(4)))
    model[2].weight = model[1].weight
    binarize(model, weight_binarizer="ste")
    assert cost(model, (8,))[-1].bits == 2 * 64 * 32 + 64 + 8 * 32  # two floats, and bits with a scale an output
    model[3].weight = model[1].weight
    costs = cost(model, (8,))
    assert costs[-1].bits == 2 * 64 * 32
    assert costs[-1].parameters == 128
    assert (costs[-2].layer, costs[-2].parameters) == ("the rest", 0)


def test_what_a_weight_is_made_of_is_not_stored_with_its_bits():
    """By hand: one bit a weight and a scale an output; as saved without its parametrization."""
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3)))
    binarize(model, weight_binarizer="ste")
    nn.utils.parametrizations.weight_norm(model[1])
    costs = cost(model, (8,))
    assert (costs[1].parameters, costs[1].bits) == (64 + 8, 64 + 8 * 32)
    assert costs[-1].parameters == sum(parameter.numel() for parameter in model.parameters())


def test_hooks_of_a_relu_go_on_and_a_relu_that_is_more_stays():
    """Whoever watched the ReLU watches what took its place, and can stop; a subclass keeps its parameter."""

    class Scaled(nn.ReLU):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1))

    layers = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), next(layers), Scaled(), next(layers), nn.ReLU(), next(layers))
    seen = []
    handle = model[1].register_forward_hook(lambda *_: seen.append(1))
    report = binarize(model, weight_binarizer="ste")
    assert report.replaced == {"1": "Hardtanh", "5": "Hardtanh"}
    assert list(report.one_sided) == ["3"]
    assert "3 stays: a Scaled is more than a ReLU" in str(report)
    assert "3.gain" in model.state_dict()
    model(torch.randn(1, 3, 8, 8))
    handle.remove()
    model(torch.randn(1, 3, 8, 8))
    assert seen == [1]


def test_a_model_that_counts_its_calls_has_its_count_of_before():
    class Counting(nn.Sequential):
        def __init__(self, *layers: nn.Module) -> None:
            super().__init__(*layers)
            self.register_buffer("calls", torch.zeros(1))
            self.register_buffer("replaced", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            self.replaced = self.replaced + 1
            return super().forward(x)

    model = Counting(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))
    binarize(model, weight_binarizer="ste", input_size=(3, 8, 8))
    assert (model.calls.item(), model.replaced.item()) == (0, 0)


class TwoHeads(nn.Module):
    """The first head ends in a ReLU, and is called before the second one's layer."""

    def __init__(self, read=lambda x: x):
        super().__init__()
        self.stem, self.mid = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.inplace, self.relu = nn.ReLU(inplace=True), nn.ReLU()
        self.count, self.positive, self.other = nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)
        self.read = read

    def forward(self, x):
        x = self.stem(x)
        self.inplace(x)  # whose result nobody takes: x holds it
        x = self.read(self.relu(self.mid(x)))
        return self.positive(self.count(x)), self.other(x)


def test_an_outputs_relu_stays_whenever_it_is_called():
    """A count is never negative; what feeds layers becomes Hardtanh, in place or not."""
    model = TwoHeads()
    report = binarize(model, weight_binarizer="ste", activation_binarizer="ste", input_size=(3, 12, 12))
    assert report.replaced == {"inplace": "Hardtanh", "relu": "Hardtanh"}
    assert model(torch.randn(2, 3, 12, 12))[0].min() >= 0


@pytest.mark.parametrize("steps", [("activation", "weight"), ("weight", "activation")])
def test_an_outputs_relu_stays_in_two_steps(steps):
    """The second call, of the other operand, looks at the same ReLUs."""
    model = TwoHeads()
    for step in steps:
        binarize(model, **{"weight_binarizer": None, "activation_binarizer": None, f"{step}_binarizer": "ste"},
                 input_size=(3, 12, 12))  # fmt: skip
    assert isinstance(model.positive, nn.ReLU)
    assert isinstance(model.relu, nn.Hardtanh)


@pytest.mark.parametrize(
    "read",
    [
        torch.Tensor.detach,
        lambda x: x.detach().requires_grad_() * 1,
        lambda x: checkpoint(torch.nn.Identity(), x, use_reentrant=True),
    ],
)
def test_where_autograd_cannot_follow_the_order_of_calls_says_what_an_output_is(read):
    """A head that reads detached features: the ReLU before them feeds it all the same."""
    report = binarize(
        TwoHeads(read), weight_binarizer="ste", activation_binarizer="ste", input_size=(3, 12, 12), keep_ends=False
    )
    assert report.replaced["relu"] == report.replaced["inplace"] == "Hardtanh"


class Chained(nn.Module):
    """Two ReLUs on one way to a layer, one whose output a hook keeps for a decoder."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.mid = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)
        self.second, self.pool, self.kept, self.end = nn.ReLU(), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(16, 4, 1)
        self.taken = []
        self.kept.register_forward_hook(lambda _, __, output: self.taken.append(output))

    def forward(self, x):
        self.taken.clear()
        x = self.mid(self.second(self.pool(self.first(self.stem(x)))))
        self.kept(x)
        return self.end(torch.cat([self.taken.pop(), x], 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_relu_on_the_way_to_a_layer_becomes_hardtanh(dtype):
    """Of two in a row the first would keep the second's numbers from falling below 0."""
    model = Chained().to(dtype)
    report = binarize(model, weight_binarizer="ste", activation_binarizer="ste", input_size=(3, 12, 12))
    assert report.replaced == dict.fromkeys(["first", "second", "kept"], "Hardtanh")


def test_a_model_that_wants_no_gradients_is_made_binary_as_before():
    """Whose forward checks that; the order of calls says what an output is."""

    class Strict(TwoHeads):
        def forward(self, x):
            assert not x.requires_grad
            return super().forward(x)

    report = binarize(
        Strict(), weight_binarizer="ste", activation_binarizer="ste", input_size=(3, 12, 12), keep_ends=False
    )
    assert list(report.replaced) == ["inplace", "relu", "positive"]


def test_what_is_no_model_of_layers_is_refused():
    """And so it is by what counts its costs."""
    compiled = torch.jit.script(small().eval())
    for model, word in ((3, "got int"), (nn.ReLU, "got the class ReLU"), (compiled, "take the model that it was made")):
        with pytest.raises(ValueError, match=word):
            binarize(model, weight_binarizer="ste")
        with pytest.raises(ValueError, match=word):
            cost(model, (3, 8, 8))


def test_layers_of_whole_numbers_stay_float_by_name():
    """As of a model that another library has quantized."""
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    model[1].weight = nn.Parameter(torch.ones(8, 8, dtype=torch.int8), requires_grad=False)
    report = binarize(model, weight_binarizer="ste")
    assert report.kept["1"] == "its weights are int8"
    assert report.binary == ["2"]


def test_an_input_that_no_memory_holds_is_refused_by_its_size():
    with pytest.raises(ValueError, match=r"an input of size \(1000000, 1000000, 1000000\) does not pass through"):
        binarize(small(), weight_binarizer="ste", input_size=(10**6, 10**6, 10**6))
