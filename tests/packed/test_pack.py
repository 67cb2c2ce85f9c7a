"""`pack`: its report, its sentences for what it refuses, batches and threads, ties by name."""

import copy
import pickle
import re
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import make_dataclass

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bnc_repro import binarize, create_network, pack
from bnc_repro.layers import BinaryConv2d
from bnc_repro.packed.lanes import HOST
from bnc_repro.packed.network import compare
from exact import as_if_trained, exact, noise
from networks import BINARY, small


def network(**settings) -> nn.Module:
    torch.manual_seed(0)
    return as_if_trained(
        create_network("resnet20", **({"num_classes": 7, "width": 16, "blocks": (2, 2)} | settings), **BINARY)
    )


def weighted(model: nn.Module) -> set[str]:
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and "binarizer" not in name
    }


@pytest.fixture(scope="module")
def packed():
    return pack(network(), (20, 24))


def test_the_report_names_every_layer_once_and_says_why_float_ones_stay_float(packed):
    layers = packed.report.layers
    assert sorted(name for name, _, _ in layers) == sorted(weighted(network()))
    binary = {name for name, module in network().named_modules() if isinstance(module, BinaryConv2d)}
    assert {name for name, kind, _ in layers if kind == "packed"} == binary
    assert all(kind == "packed" or (kind == "float" and reason) for _, kind, reason in layers)


def test_blocks_of_reactnet_are_packed_layer_by_layer():
    """No program has learnt shifts: their convolutions go to bits inside torch, and the numbers are the network's."""
    shifted = network(block="reactnet")
    with torch.no_grad():
        for name, parameter in shifted.named_parameters():
            if name.endswith("shift"):
                parameter.normal_(std=0.3)
    packed = pack(shifted, (20, 24))
    binary = {name for name, module in shifted.named_modules() if isinstance(module, BinaryConv2d)}
    assert {name for name, kind, _ in packed.report.layers if kind == "packed"} == binary
    assert sorted(name for name, _, _ in packed.report.layers) == sorted(weighted(shifted))
    assert "float: fc, it was not made binary" in str(packed.report).splitlines()
    assert packed.report.tier == "layer by layer inside torch"
    images = noise(3, 3, 20, 24)
    with torch.no_grad():
        assert torch.allclose(
            packed(images), shifted(images), rtol=1e-4, atol=1e-4 * float(shifted(images).abs().max())
        )


def test_the_report_reads_well(packed):
    text = str(packed.report)
    assert packed.report.kernel in text
    assert "trunk.stem.0" in text
    assert max(map(len, text.splitlines())) <= 160


def test_bytes_are_those_of_the_parameters():
    """Float: four a parameter or statistic. Packed Bi-Real-18: the float rest and a bit for each binary weight."""
    bireal = create_network("bireal18", num_classes=1000, **BINARY).eval()
    report = pack(bireal, (64, 64), check=False).report
    bits = sum(module.weight.numel() for module in bireal.modules() if isinstance(module, BinaryConv2d))
    rest = sum(parameter.numel() for parameter in bireal.parameters()) - bits
    assert report.packed_bytes >= bits / 8 + 2 * rest
    assert report.float_bytes == pytest.approx(4 * sum(p.numel() for p in bireal.state_dict().values()), rel=0.01)
    assert report.float_bytes / report.packed_bytes > 10


def test_the_agreement_is_measured(packed):
    assert packed.report.agrees
    assert 0 < packed.report.difference < 1e-4 or packed.report.ties


def test_a_tie_is_named_by_its_layer():
    """A channel of the stem that is 0 but for rounding: its sign is nobody's to know."""
    tied = network()
    with torch.no_grad():
        conv, norm, activation, *_ = tied.trunk.stem
        conv.weight[0] = 0.0
        norm.weight[0], norm.running_mean[0], norm.running_var[0] = 0.7, 0.3, 1.7
        norm.bias[0] = (0.3 * 0.7 / (1.7 + norm.eps) ** 0.5) * (1 + 1e-8)
        activation.weight[0] = 0.25
    report = pack(tied, (16, 16)).report
    first = next(name for name, module in tied.named_modules() if isinstance(module, BinaryConv2d))
    assert first in report.ties
    assert report.ties[first] >= 16 * 16
    assert any(f"of {first}" in line and "rounding of 0" in line for line in str(report).splitlines())


def test_weights_within_rounding_of_their_mean_are_no_disagreement():
    """Centring in float64 gives some of them the other sign; the network's own is what float32 gives."""
    near = network()
    turned = 0
    with torch.no_grad():
        for layer in [module for module in near.modules() if isinstance(module, BinaryConv2d)]:
            for channel in layer.weight:
                for _ in range(4):
                    channel[0, 0, 0] = channel.mean()
            exactly = layer.weight.double() - layer.weight.double().mean((1, 2, 3), keepdim=True)
            turned += int(((layer.latent_weight() < 0) != (exactly < 0)).sum())
    assert turned > 0
    assert pack(near, (20, 24)).report.difference < 1e-4


def test_batches_and_threads_are_bit_equal_to_single_images(packed):
    images = noise(9, 3, 20, 24)
    alone = torch.cat([packed(image[None]) for image in images])
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            assert torch.equal(packed(images), alone)
    finally:
        torch.set_num_threads(threads)


def test_callers_in_several_threads_do_not_disturb_each_other(packed):
    images = noise(6, 3, 20, 24)
    expected = packed(images)
    with ThreadPoolExecutor(3) as pool:
        for _ in range(5):
            outputs = list(pool.map(lambda image: packed(image[None])[0], images))
            assert torch.equal(torch.stack(outputs), expected)


def test_however_images_lie_in_memory(packed):
    images = noise(2, 3, 20, 24)
    expected = packed(images)
    assert torch.equal(packed(images.contiguous(memory_format=torch.channels_last)), expected)
    assert torch.equal(packed(noise(4, 3, 20, 24)[::2]), packed(noise(4, 3, 20, 24)[::2].clone()))
    wide = torch.zeros(2, 3, 20, 48)
    wide[..., ::2] = images
    assert torch.equal(packed(wide[..., ::2]), expected)
    assert packed(images[:0]).shape == (0, 7)


def test_images_and_the_network_are_left_as_they_were():
    plain, images = network(), noise(2, 3, 20, 24)
    state, before = copy.deepcopy(plain.state_dict()), images.clone()
    pack(plain, (20, 24))(images)
    assert torch.equal(images, before)
    assert all(torch.equal(value, state[key]) for key, value in plain.state_dict().items())
    assert not plain.training


def test_a_packed_network_is_a_module_like_any_other(packed):
    images = noise(2, 3, 20, 24)
    expected = packed(images)
    assert isinstance(packed, nn.Module)
    assert torch.equal(packed.eval()(images), expected)
    assert torch.equal(copy.deepcopy(packed)(images), expected)
    assert torch.equal(pickle.loads(pickle.dumps(packed))(images), expected)
    assert torch.equal(packed.to("cpu")(images), expected)
    assert not expected.requires_grad


def test_what_is_not_of_the_registry_is_packed_layer_by_layer():
    """BHRNet, and a model of somebody's own made binary by `binarize`."""
    torch.manual_seed(0)
    bhrnet = as_if_trained(create_network("bhrnet", num_keypoints=4, width=8, **BINARY))
    own = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.Hardtanh(), nn.Conv2d(16, 32, 3, 2, 1), nn.Hardtanh(),
        nn.Conv2d(32, 64, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 64), nn.Linear(64, 5),
    )  # fmt: skip
    binarize(own, **BINARY)
    for model, size in ((bhrnet, (64, 64)), (own.eval(), (12, 16))):
        images = noise(2, 3, *size)
        packed, twin = pack(model, size), exact(model)
        assert any(kind == "packed" for _, kind, _ in packed.report.layers)
        assert not any(
            module is layer
            for module in packed.modules()
            for layer in model.modules()
            if isinstance(layer, BinaryConv2d)
        )
        expected = twin(images.double())
        assert float((packed(images) - expected).abs().max() / expected.abs().max()) < 1e-4 or packed.report.ties
        assert any(isinstance(module, BinaryConv2d) for module in model.modules()), "the model is packed in place"


def test_a_packed_model_is_called_without_no_grad_too():
    """A shortcut added in place, as torchvision's and timm's blocks do, behind a float layer that used to learn."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 2, 1)

        def forward(self, x):
            x = self.stem(x)
            y = self.conv(x)
            y += x
            return self.head(y)

    torch.manual_seed(0)
    model = Residual()
    binarize(model, **BINARY)
    packed, images = pack(model.eval(), (12, 12)), noise(1, 3, 12, 12)
    outputs = packed(images)
    assert not outputs.requires_grad
    with torch.no_grad():
        assert torch.equal(packed(images), outputs)
    with pytest.raises(ValueError, match="packed inference has no gradient"):
        packed(images.requires_grad_())
    assert all(parameter.requires_grad for parameter in model.parameters())


LAYERED = "layer by layer inside torch"


def packed_as(model: nn.Module, tier: str = LAYERED, size: tuple[int, int] = (20, 24)):
    """`model` packed for `size`: its outputs for one batch are those of the model, whoever computes them."""
    packed, images = pack(model, size), noise(2, 3, *size)
    with torch.no_grad():
        expected = model(images)
        assert float((packed(images) - expected).abs().max() / expected.abs().max()) < 1e-4
    assert packed.report.tier == tier
    assert packed.report.difference < 1e-4
    return packed


@pytest.mark.parametrize(
    "change",
    [{"bias": True}, {"dilation": 2, "padding": 2}, {"padding": 0}, {"padding_mode": "reflect"}, {"groups": 3}],
    ids=str,
)
def test_a_stem_that_no_plan_describes_is_packed_layer_by_layer(change):
    changed = network(width=18 * 2)
    settings = {"kernel_size": 3, "padding": 1, "bias": False} | change
    changed.trunk.stem[0] = nn.Conv2d(3, 36, **settings)
    packed_as(changed.eval())


def test_a_stem_of_another_odd_size_is_still_one_program():
    changed = network()
    changed.trunk.stem[0] = nn.Conv2d(3, 16, 5, 2, padding=2, bias=False)
    packed_as(changed.eval(), "the whole network as one program")


HEADS = {
    "dropout": lambda: nn.Sequential(nn.Dropout(), nn.Linear(32, 5)),
    "identity": nn.Identity,
    "norm": lambda: nn.Sequential(nn.BatchNorm1d(32), nn.Linear(32, 5)),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_network_with_another_last_layer_is_packed_layer_by_layer(head):
    changed = network()
    changed.fc = HEADS[head]()
    packed_as(changed.eval())


@pytest.mark.parametrize(
    "place", ["", "trunk", "trunk.stem.1", "trunk.stages.1.0", "trunk.stages.1.0.shortcut", "pool"]
)
def test_hooks_on_a_network_of_the_registry_are_kept(place):
    hooked = network()
    hooked.get_submodule(place).register_forward_hook(lambda module, inputs, output: 1.5 * output - 0.1)
    packed_as(hooked)
    hooked = network()
    hooked.get_submodule(place).register_forward_pre_hook(lambda module, inputs: (0.2 - inputs[0],))
    packed_as(hooked)


def test_a_binary_layer_with_a_hook_stays_float_and_the_report_says_why():
    hooked = network()
    hooked.trunk.stages[0][1].conv.register_forward_hook(lambda module, inputs, output: output.clamp(max=1))
    lines = str(packed_as(hooked).report).splitlines()
    assert "float: trunk.stages.0.1.conv, it has a forward hook, or a forward set on the layer itself" in lines


def test_a_plan_that_disagrees_gives_way_to_single_layers(monkeypatch):
    """As of somebody who changes what the class of the network computes, which no look at its modules tells."""
    plain, images = network(), noise(2, 3, 20, 24)
    as_it_was = type(plain).forward
    monkeypatch.setattr(type(plain), "forward", lambda self, x: as_it_was(self, x) ** 3)
    assert pack(plain, (20, 24), check=False).report.tier == "the whole network as one program"
    packed_as(plain)
    with torch.no_grad():
        assert torch.allclose(plain(images), as_it_was(plain, images) ** 3)


class AsksForTheClass(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3), BinaryConv2d(16, 8, 3, **BINARY)

    def forward(self, x):
        y = self.conv(self.stem(x))
        return 1.25 * y if isinstance(self.conv, BinaryConv2d) else y


def test_layers_that_disagree_are_refused_with_the_difference():
    torch.manual_seed(0)
    odd = AsksForTheClass().eval()
    with pytest.raises(
        ValueError, match=r"outputs differ by 2\.0e-01 of the largest, which no rounding explains: look"
    ):
        pack(odd, (12, 12))
    assert pack(odd, (12, 12), check=False)


def test_a_tie_in_one_batch_excuses_nothing():
    """Two images have ties, single ones of other seeds none: these decide."""
    torch.manual_seed(0)
    odd = AsksForTheClass().eval()
    with torch.no_grad():
        odd.stem.weight[0], odd.stem.bias[0] = 0.0, 0.0
    seeds = [
        torch.randn(1 if seed else 2, 3, 12, 12, generator=torch.Generator().manual_seed(seed)) for seed in range(2)
    ]
    ties = seeds[0][0, 0, 0, 0].item()
    odd.stem.register_forward_hook(lambda module, inputs, y: y + 1e-9 * (inputs[0][0, 0, 0, 0] == ties))
    assert compare(odd, pack(odd, (12, 12), check=False), seeds[0])[1]
    assert not compare(odd, pack(odd, (12, 12), check=False), seeds[1])[1]
    with pytest.raises(ValueError, match="differ by"):
        pack(odd, (12, 12))


def test_a_network_whose_own_outputs_rounding_moves_is_packed_and_the_report_says_so():
    """Float32 loses most digits of what enters the binary layer; float64 has no tie there."""

    class Rounds(nn.Module):
        def forward(self, x):
            return x + 3e6 - 3e6

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), Rounds(), BinaryConv2d(16, 8, 3, **BINARY)).eval()
    report = pack(model, (6, 6)).report
    assert not report.ties
    assert re.fullmatch(
        r"rounding moves even the network's own outputs by \d\.\de-0[12] of the largest", report.not_compared
    )
    assert not report.agrees


@pytest.mark.parametrize("place", ["running_var", "weight"])
def test_outputs_that_are_not_finite_are_refused(place):
    broken = network()
    with torch.no_grad():
        getattr(broken.trunk.stages[1][0].norm, place)[2] = float("nan")
    with pytest.raises(ValueError, match="this network gives outputs that are not finite"):
        pack(broken, (20, 24))


def test_outputs_that_are_all_zero_agree_and_the_report_says_so():
    empty = network()
    nn.init.zeros_(empty.fc.weight), nn.init.zeros_(empty.fc.bias)
    report = pack(empty, (20, 24)).report
    assert report.difference == 0
    assert "largest difference to float64: 0.0e+00 of the largest output" in str(report).splitlines()


@pytest.mark.parametrize("change", [nn.Module.half, nn.Module.bfloat16, nn.Module.double])
def test_a_packed_network_in_another_precision_is_refused(change):
    images = noise(1, 3, 20, 24)
    for model in (network(), network(block="reactnet")):
        packed = change(pack(model, (20, 24), check=False))
        with pytest.raises(ValueError, match=r"was turned to torch\.\w+: pack the network again"):
            packed(images)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32), nn.Hardtanh(), nn.Linear(32, 16), nn.Linear(16, 4))
    binarize(model, **BINARY)
    return model.eval()


def test_a_multilayer_perceptron_behind_flatten_is_compared():
    packed_as(mlp(), size=(8, 8))


def test_a_network_that_takes_no_such_images_is_packed_and_the_report_says_why():
    report = pack(mlp(), (9, 9)).report
    assert report.not_compared.startswith("on images (2, 3, 9, 9) the network itself fails in float64, ")
    assert "mat1 and mat2 shapes cannot be multiplied" in report.not_compared
    assert f"not compared: {report.not_compared}" in str(report).splitlines()
    assert pack(mlp(), (8, 8)).report.not_compared == ""


class Several(nn.Module):
    """Outputs of several tensors, of very different sizes."""

    def __init__(self, form, odd: bool = False):
        super().__init__()
        self.body, self.form, self.odd = nn.Sequential(nn.Conv2d(3, 16, 3), BinaryConv2d(16, 8, 3, **BINARY)), form, odd

    def forward(self, x):
        y = self.body(x)
        wrong = 1.5 if self.odd and not isinstance(self.body[1], BinaryConv2d) else 1.0
        return self.form(y, 1e-6 * wrong * y.mean(1))


FORMS = {
    "tuple": lambda a, b: (a, b),
    "mapping": lambda a, b: {"a": a, "b": [b, None]},
    "named tuple": namedtuple("Pair", "a b"),
    "dataclass": make_dataclass("Both", ["a", "b"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_of_nested_outputs_is_compared(form):
    torch.manual_seed(0)
    report = pack(Several(FORMS[form]).eval(), (12, 12)).report
    assert 0 < report.difference < 1e-4
    assert not report.not_compared
    with pytest.raises(ValueError, match=r"differ by 5\.0e-01 of the largest"):
        pack(Several(FORMS[form], odd=True).eval(), (12, 12))


class Volumes(nn.Module):
    def __init__(self):
        super().__init__()
        self.deep, self.conv = nn.Conv3d(1, 4, 3, padding=1), BinaryConv2d(12, 8, 3, **BINARY)

    def forward(self, x):
        return self.conv(self.deep(x[:, None]).flatten(1, 2))


def test_a_model_with_weights_of_five_dimensions_is_packed():
    torch.manual_seed(0)
    model, images = Volumes().eval(), noise(2, 3, 12, 12)
    with torch.no_grad():
        assert torch.allclose(pack(model, (12, 12))(images), model(images), atol=1e-4)


class Keeps(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3), BinaryConv2d(16, 8, 3, **BINARY)

    def forward(self, x):
        self.features = self.stem(x)
        return self.conv(self.features)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_a_model_that_cannot_be_copied_is_refused_with_the_remedy():
    keeps = Keeps().eval()
    keeps(noise(1, 3, 12, 12))
    normed = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 16, 3)), BinaryConv2d(16, 8, 3, **BINARY)).eval()
    for model in (keeps, normed):
        with pytest.raises(
            ValueError, match=r"^this network cannot be copied \(.*parametrizations\.weight_norm"
        ) as error:
            pack(model, (12, 12))
        assert len(str(error.value).splitlines()) == 1
    del keeps.features
    assert pack(keeps, (12, 12)).report.agrees


def test_an_empty_batch_layer_by_layer_gives_an_empty_output():
    assert pack(network(block="reactnet"), (20, 24))(noise(0, 3, 20, 24)).shape == (0, 7)
    assert pack(mlp(), (8, 8))(noise(0, 3, 8, 8)).shape == (0, 4)


def layered(layer: nn.Module) -> nn.Module:
    """A model of somebody's own around one binary layer."""
    return nn.Sequential(nn.Conv2d(3, layer.in_channels, 3, padding=1), layer).eval()


ODD = {
    "groups": BinaryConv2d(16, 16, 3, padding=1, groups=2, **BINARY),
    "dilation": BinaryConv2d(16, 16, 3, padding=2, dilation=2, **BINARY),
    "18 channels": BinaryConv2d(18, 16, 3, padding=1, **BINARY),
    "kernel": BinaryConv2d(16, 16, 5, padding=2, **BINARY),
    "padding": BinaryConv2d(16, 16, 3, padding=1, padding_mode="reflect", **BINARY),
    "stride": BinaryConv2d(16, 16, 3, 3, padding=1, **BINARY),
    "weights are float": BinaryConv2d(16, 16, 3, padding=1, activation_binarizer="ste"),
    "inputs are float": BinaryConv2d(16, 16, 3, padding=1, weight_binarizer="ste"),
    "not sign": BinaryConv2d(16, 16, 3, padding=1, weight_binarizer="ste", activation_binarizer="biper"),
}


@pytest.mark.parametrize("word", ODD)
def test_a_layer_that_does_not_pack_is_told_with_its_reason(word):
    """Alone it leaves nothing to pack, which is refused; beside another it stays float and the report says why."""
    model = layered(ODD[word])
    with pytest.raises(ValueError, match=word):
        pack(model, (16, 16))
    both = nn.Sequential(*model, nn.Conv2d(16, 16, 1), BinaryConv2d(16, 64, 3, padding=1, **BINARY)).eval()
    packed = pack(both, (16, 16), check=False)
    reasons = {name: reason for name, kind, reason in packed.report.layers if kind == "float"}
    assert word in reasons["1"]
    images = noise(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(packed(images), both(images), atol=1e-4)


def test_a_float_network_has_nothing_to_pack():
    with pytest.raises(ValueError, match="weights are float"):
        pack(small(weight_binarizer=None, activation_binarizer=None).eval(), (16, 16))


@pytest.mark.parametrize("binarizer", ["siman", "biper"])
def test_an_activation_binarizer_that_is_not_sign_is_refused(binarizer):
    odd = small(weight_binarizer="ste", activation_binarizer=binarizer).eval()
    with pytest.raises(ValueError, match="sign"):
        pack(odd, (16, 16))


def test_an_activation_binarizer_is_probed_by_values_not_by_name():
    from bnc_repro.binarizers.base import Binarizer

    class Plain(Binarizer):
        def derivative(self, x):
            return torch.ones_like(x)

    class Shifted(Plain):
        def hard(self, x):
            return torch.where(x >= 1e-3, 1.0, -1.0)

    class Centred(Plain):
        def hard(self, x):
            return torch.where(x >= x.median(), 1.0, -1.0)

    assert pack(small(weight_binarizer="ste", activation_binarizer=Plain()).eval(), (16, 16))
    with pytest.raises(ValueError, match="Centred"):
        pack(small(weight_binarizer="ste", activation_binarizer=Centred()).eval(), (16, 16))
    with pytest.raises(ValueError, match="Shifted"):
        pack(small(weight_binarizer="ste", activation_binarizer=Shifted()).eval(), (16, 16))


def test_a_network_in_training_is_refused():
    with pytest.raises(ValueError, match=r"eval\(\)"):
        pack(network().train(), (20, 24))


def test_a_layer_in_training_is_refused_by_its_name():
    model = network().eval()
    model.get_submodule("trunk.stages.0.0").train()
    with pytest.raises(ValueError, match=r"evaluation mode, and its trunk\.stages\.0\.0 is in training"):
        pack(model, (20, 24))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_torchs_default_precision_changes_nothing(packed, dtype):
    """As a program and layer by layer: numbers are written where there is room for them."""
    images, layers = noise(3, 3, 20, 24), pack(hooked_network(), (20, 24))
    before = packed(images), layers(images)
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(packed(images), before[0])
        assert torch.equal(layers(images), before[1])
        assert pack(hooked_network(), (20, 24)).report.difference < 1e-4
    finally:
        torch.set_default_dtype(torch.float32)


def hooked_network() -> nn.Module:
    """One that is packed layer by layer."""
    hooked = network().float().eval()
    hooked.register_forward_hook(lambda *_: None)
    return hooked


def test_an_image_that_holds_nan_is_refused(packed):
    """Its sign would be an answer. So is one that holds infinity by a program, which has no number for it."""
    images = noise(2, 3, 20, 24)
    images[1, 0, 3, 3] = float("nan")
    for network_ in (packed, pack(hooked_network(), (20, 24))):
        with pytest.raises(ValueError, match=r"^image 1 of 2 holds NaN, which has no sign"):
            network_(images)
    images[1, 0, 3, 3:5] = torch.tensor([float("inf"), -float("inf")])
    with pytest.raises(ValueError, match=r"^image 1 of 2 holds infinity"):
        packed(images)
    images[1, 0, 3, 3:5] = 3e38  # their sum overflows, they do not
    assert packed(images)[0].isfinite().all()


def test_other_devices_and_types_are_refused():
    with pytest.raises(ValueError, match="CPU"):
        pack(network().to("meta"), (20, 24))
    with pytest.raises(ValueError, match="float32"):
        pack(network().half(), (20, 24))
    with pytest.raises(ValueError, match="float32"):
        pack(network().double(), (20, 24))


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (noise(1, 3, 20, 20), "20"),
        (noise(1, 1, 20, 24), "N, 3, 20, 24"),
        (noise(3, 20, 24), "N, 3"),
        (noise(1, 3, 20, 24).half(), "float32"),
        (noise(1, 3, 20, 24).double(), "float32"),
        (torch.zeros(1, 3, 20, 24, dtype=torch.uint8), "float32"),
    ],
    ids=["size", "channels", "dimensions", "half", "double", "bytes"],
)
def test_other_images_are_refused(packed, images, word):
    with pytest.raises(ValueError, match=word):
        packed(images)


def test_images_on_a_gpu_are_refused(packed):
    """As torch's fake tensors stand for them where there is none."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(1, 3, 20, 24, device="cuda")
        with pytest.raises(ValueError, match=r"CPU.*\.cpu\(\)"):
            packed(images)


def test_training_a_packed_network_is_refused(packed):
    with pytest.raises(ValueError, match="train"):
        packed.train()
    assert not packed.training


@pytest.mark.parametrize("size", [(0, 24), (-4, 4), 20, (20,), (20, 24, 3), ("20", "24")], ids=str)
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="input_size"):
        pack(network(), size)


def test_a_size_that_the_network_refuses_is_refused():
    sbpn = create_network("sbpn", num_keypoints=3, width=8, **BINARY).eval()
    with pytest.raises(ValueError, match="stride 32"):
        pack(sbpn, (40, 64))


def test_an_unknown_kernel_is_refused():
    for model in (network(), network(block="reactnet")):
        with pytest.raises(ValueError, match="unknown kernel 'abacus'; known: popcount, tables"):
            pack(model, (20, 24), kernel="abacus")


def test_without_numba_one_sentence_says_how_to_install_it():
    code = (
        "import sys; sys.modules['numba'] = sys.modules['llvmlite'] = None\n"
        "import bnc_repro.packed, bnc_repro\n"
        "from bnc_repro import create_network, pack\n"
        "network = create_network('resnet20', num_classes=3, width=8, blocks=(1,), weight_binarizer='ste', "
        "activation_binarizer='ste').eval()\n"
        "try:\n    pack(network, (16, 16))\nexcept ValueError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "pip install 'numba>=" in run.stdout
    assert "'safetensors>=" in run.stdout
    assert "make install" in run.stdout
    assert len(run.stdout.splitlines()) == 1


def test_the_kernel_is_chosen_by_the_processor_and_the_report_says_why(packed):
    assert packed.report.kernel in ("popcount", "tables")
    assert packed.report.why in str(packed.report)
    assert HOST.name in packed.report.why
    for kernel in ("popcount", "tables"):
        assert pack(network(), (20, 24), kernel=kernel, check=False).report.kernel == kernel


class Amplified(nn.Module):
    """1x1 binary layers one behind the other, at a size whose every image has inputs within rounding of 0."""

    def __init__(self, wrong: float = 1.0):
        super().__init__()
        self.wrong = wrong
        self.stem = nn.Conv2d(3, 64, 3, stride=2, padding=1)
        self.layers = nn.ModuleList([BinaryConv2d(64, 64, 1, **BINARY) for _ in range(3)])

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x) if isinstance(layer, BinaryConv2d) else self.wrong * layer(x) + (self.wrong - 1)
        return x.mean((2, 3))


def test_ties_in_every_image_excuse_no_difference():
    """Some of a million inputs are within rounding of 0 in each; a fault of a tenth is none of theirs."""
    torch.manual_seed(0)
    report = pack(Amplified().eval(), (256, 256)).report
    assert report.ties
    assert report.difference < 1e-4
    assert report.agrees
    with pytest.raises(ValueError, match="which no rounding explains"):
        pack(Amplified(wrong=1.1).eval(), (256, 256))


def test_signs_that_rounding_leaves_open_are_taken_as_the_packed_network_has_them():
    """One input that float32 and float64 round to different sides changes the outputs, and explains all of it."""

    class Shifted(nn.Module):
        def forward(self, x):
            return x + 1e-9 * (-1.0 if x.dtype == torch.float64 else 1.0)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 1), Shifted(), BinaryConv2d(16, 8, 3, **BINARY)).eval()
    with torch.no_grad():
        model[0].weight[:4], model[0].bias[:4] = 0.0, 0.0
    report = pack(model, (8, 8)).report
    assert report.ties == {"2": 4 * 2 * 8 * 8}
    assert report.agrees


def test_a_program_that_ties_leave_open_at_its_size_is_compared_at_a_smaller_one(monkeypatch):
    from bnc_repro.packed import network as networks

    plain, images = network(), noise(2, 3, 128, 96)
    reference = networks.Reference.__call__

    def tied(self, x, near=None):
        expected, ties = reference(self, x, near)
        return (expected + 1, {"trunk.stages.0.0.conv": 3}) if x.shape[2] == 128 else (expected, ties)

    monkeypatch.setattr(networks.Reference, "__call__", tied)
    report = pack(plain, (128, 96)).report
    assert report.compared_at == (64, 48)
    assert report.ties == {"trunk.stages.0.0.conv": 3}
    assert report.tier == "the whole network as one program"
    assert any(line.endswith("of the largest output, for images of 64 x 48") for line in str(report).splitlines())
    monkeypatch.undo()
    with torch.no_grad():
        assert torch.allclose(pack(plain, (128, 96))(images), plain(images), atol=1e-3)


def test_a_pose_network_that_ties_leave_open_at_all_sizes_that_it_takes_is_packed_all_the_same(monkeypatch):
    """Half of 64 x 96 is no multiple of its stride."""
    from bnc_repro.packed import network as networks

    torch.manual_seed(0)
    sbpn = as_if_trained(create_network("sbpn", num_keypoints=3, width=8, **BINARY))
    reference = networks.Reference.__call__
    monkeypatch.setattr(
        networks.Reference,
        "__call__",
        lambda self, x, near=None: (reference(self, x, near)[0], {"trunk.stages.0.0.conv": 1}),
    )
    monkeypatch.setattr(networks, "CLOSE", -1.0)
    assert networks._program_differs(sbpn, pack(sbpn, (64, 96), check=False), networks.plan_of(sbpn, (64, 96)))


def test_a_program_that_ties_leave_open_at_every_size_gives_way_to_single_layers(monkeypatch):
    from bnc_repro.packed import network as networks

    def open_(*_):
        return "signs within rounding of 0 leave open whether its outputs agree"

    monkeypatch.setattr(networks, "_program_differs", open_)
    packed = packed_as(network())
    assert f"no program as a whole: {open_()}" in str(packed.report).splitlines()


@pytest.mark.parametrize("how", ["load_state_dict", "in place", "data"])
@pytest.mark.parametrize("inference", [False, True])
def test_a_packed_network_answers_from_the_numbers_that_it_has_now(how, inference):
    images = noise(2, 3, 20, 24)
    other = network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(-1)
    with torch.inference_mode(inference):
        first, second = (copy.deepcopy(pack(model, (20, 24), check=False)) for model in (network(), other))
        before, expected = first(images), second(images)
        assert not torch.allclose(before, expected)
        if how == "load_state_dict":
            first.load_state_dict(second.state_dict())
        for own, buffer in zip(first.buffers(), second.buffers()):
            if how == "in place":
                own.copy_(buffer)
            elif how == "data":
                own.data.copy_(buffer)
        assert torch.equal(first(images), expected)


def test_what_is_no_model_of_layers_is_refused():
    compiled = torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3)).eval())
    for model, word in ((None, "got NoneType"), (nn.ReLU, "got the class ReLU"), (compiled, "take the model that")):
        with pytest.raises(ValueError, match=word):
            pack(model, (8, 8))


@pytest.mark.parametrize("size", [(10**9, 10**9), (10**5, 10**6), (10**30, 8)], ids=str)
def test_images_that_no_memory_holds_are_refused(size):
    with pytest.raises(ValueError, match=r"two images of \d+ x \d+ px .* takes at least"):
        pack(network(), size)


def test_a_packed_network_moved_to_meta_or_under_vmap_is_refused():
    images = noise(2, 3, 20, 24)
    for model in (network(), network(block="reactnet")):
        packed = pack(model, (20, 24), check=False)
        with pytest.raises(ValueError, match=r"without torch\.vmap"):
            torch.vmap(packed)(images[None])
        with pytest.raises(ValueError, match="was moved to meta"):
            packed.to("meta")(images)


@pytest.mark.parametrize(
    "change",
    [torch.Tensor.half, torch.Tensor.double, lambda x: x[:, :1], lambda x: x[..., :8], lambda x: x.repeat(1, 1, 2, 2)],
)
def test_a_traced_program_refuses_images_that_are_not_what_it_was_packed_for(packed, change):
    """The module's own sentences are not traced; the kernels read whatever memory they are given."""
    images = noise(2, 3, 20, 24)
    traced = torch.jit.trace(packed, images)
    assert torch.equal(traced(images), packed(images))
    with pytest.raises(RuntimeError, match=r"packed for float32 images \(N, 3, 20, 24\), got torch\.\w+ of"):
        traced(change(images))


def test_threads_that_call_one_network_keep_what_was_made_for_it(packed, monkeypatch):
    from bnc_repro.packed import network as networks

    images, made = noise(1, 3, 20, 24), []
    engine = networks.Engine
    packed(images)
    monkeypatch.setattr(networks, "Engine", lambda *given: made.append(1) or engine(*given))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: packed(images), range(400)))
    assert not made


def test_a_compiled_model_is_packed():
    """As torch.compile wraps one: it says that it has a length, and raises when asked."""
    plain, images = network(), noise(2, 3, 20, 24)
    packed = pack(torch.compile(plain, backend="eager"), (20, 24))
    with torch.no_grad():
        assert torch.allclose(packed(images), plain(images), atol=1e-3)


def test_torchs_default_device_changes_nothing():
    model = network(block="reactnet")
    torch.set_default_device("meta")
    try:
        packed = pack(model, (20, 24), check=False)
    finally:
        torch.set_default_device(None)
    assert {tensor.device.type for tensor in packed.state_dict().values()} == {"cpu"}
