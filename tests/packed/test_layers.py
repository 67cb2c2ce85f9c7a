"""Packed layers inside torch: sums, shapes, refusals, and their operators under export, compile and opcheck."""

import copy

import pytest
import torch
from torch import nn

from bnc_repro import binarize, create_network, pack
from bnc_repro.layers import BinaryConv2d, BinaryLinear
from bnc_repro.packed.benchmark import float_twin
from bnc_repro.packed.lanes import HOST
from bnc_repro.packed.layers import PackedConv2d, PackedLinear
from bnc_repro.packed.replacement import pack_layers
from exact import as_if_trained, exact, noise
from networks import BINARY


@torch.no_grad()
def balanced(layer: nn.Module) -> nn.Module:
    """`layer` with as many weights +1 as -1 in each channel: scale 1, integer sums."""
    draw = torch.Generator().manual_seed(1)
    order = torch.rand(layer.weight.flatten(1).shape, generator=draw).argsort(1)
    layer.weight.copy_((2.0 * (order % 2) - 1).view_as(layer.weight))
    return layer.eval()


def packed_of(layer: nn.Module, kernel: str | None = None) -> nn.Module:
    model = nn.Sequential(copy.deepcopy(layer)).eval()
    pack_layers(model, kernel)
    return model[0]


def with_zeros(x: torch.Tensor) -> torch.Tensor:
    """x with a tenth of it 0 and a tenth -0."""
    draw = torch.rand(x.shape, generator=torch.Generator().manual_seed(5))
    x[draw < 0.1], x[draw > 0.9] = 0.0, -0.0
    return x


FORMS = [(3, 1, 1), (3, 2, 1), (3, 1, 0), (3, 2, 0), (1, 1, 0), (1, 2, 0)]  # kernel, stride, padding
SIZES = [(1, 1), (2, 3), (7, 7), (9, 14), (8, 8)]


def convolution_is_exact(kernel, channels, form, size):
    window, stride, padding = form
    layer = balanced(BinaryConv2d(*channels, window, stride, padding, bias=False, **BINARY))
    packed, x = packed_of(layer, kernel), with_zeros(noise(3, channels[0], *size))
    assert isinstance(packed, PackedConv2d)
    expected = exact(layer)(x.double())
    assert torch.equal(expected, expected.round())
    assert torch.equal(packed(x).double(), expected)
    assert torch.equal(packed(x.contiguous(memory_format=torch.channels_last)).double(), expected)


@pytest.mark.parametrize(
    ("form", "size"), [(form, size) for form in FORMS for size in SIZES if min(size) + 2 * form[2] >= form[0]]
)
@pytest.mark.parametrize("channels", [(16, 16), (36, 20), (64, 128), (512, 64)])
def test_convolutions_are_the_integers_of_float64(channels, form, size):
    convolution_is_exact("popcount", channels, form, size)


@pytest.mark.skipif(not HOST.avx2, reason="tables need AVX2")
@pytest.mark.parametrize(("form", "size"), [(form, size) for form in FORMS[:2] for size in SIZES])
@pytest.mark.parametrize("channels", [(20, 64), (64, 128), (512, 64)])
def test_convolutions_by_tables_are_too(channels, form, size):
    convolution_is_exact("tables", channels, form, size)


@pytest.mark.parametrize("shape", [(1,), (5,), (2, 7), (2, 3, 4)])
@pytest.mark.parametrize("features", [(16, 16), (100, 10), (512, 1000)])
def test_linear_layers_are_the_integers_of_float64(features, shape):
    layer = balanced(BinaryLinear(*features, bias=False, **BINARY))
    packed, x = packed_of(layer), with_zeros(noise(*shape, features[0]))
    assert isinstance(packed, PackedLinear)
    assert torch.equal(packed(x).double(), exact(layer)(x.double()))


@pytest.mark.parametrize(
    "layer",
    [
        BinaryConv2d(32, 48, 3, 2, 1, **BINARY),
        BinaryLinear(40, 12, **BINARY),
        BinaryConv2d(32, 8, 1, standardize=True, **BINARY),
    ],
    ids=["conv", "linear", "standardized"],
)
def test_scales_and_biases_are_those_of_the_layer(layer):
    x = noise(2, 40) if isinstance(layer, BinaryLinear) else noise(2, 32, 9, 9)
    with torch.no_grad():
        expected = layer(x)
    assert torch.allclose(packed_of(layer)(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_packing_layers_reports_what_it_packed():
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), BinaryConv2d(16, 64, 3, **BINARY), BinaryConv2d(64, 64, 3, groups=2, **BINARY)
    ).eval()
    layers = {name: (kind, reason) for name, kind, reason in pack_layers(model)}
    assert layers["1"][0] == "packed"
    assert layers["2"][0] == "float"
    assert "groups" in layers["2"][1]
    assert isinstance(model[1], PackedConv2d)
    assert type(model[2]) is BinaryConv2d


def test_a_layer_of_two_names_is_one_packed_layer_under_both():
    """In one parent and in another's child; the report has a line for each name, the outputs are those before."""
    torch.manual_seed(0)
    layer = BinaryConv2d(8, 8, 3, padding=1, **BINARY)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), layer, layer, nn.Sequential(layer), nn.Conv2d(8, 4, 1)).eval()
    x, before = noise(2, 3, 9, 9), copy.deepcopy(model)
    assert [line[:2] for line in pack_layers(model)] == [("1", "packed"), ("2", "packed"), ("3.0", "packed")]
    assert isinstance(model[1], PackedConv2d)
    assert model[1] is model[2] is model[3][0]
    torch.testing.assert_close(model(x), before(x))
    twin = float_twin(before)
    assert type(twin[1]) is nn.Conv2d
    assert twin[1] is twin[2] is twin[3][0]


def test_a_layer_alone_is_packed():
    layer = BinaryConv2d(8, 8, 3, padding=1, **BINARY).eval()
    x, packed = noise(2, 8, 6, 6), pack(layer, (6, 6))
    assert [type(module) for module in packed.modules()].count(PackedConv2d) == 1
    torch.testing.assert_close(packed(x), layer(x))
    assert type(float_twin(layer)) is nn.Conv2d


def model_with_both() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        BinaryConv2d(16, 32, 3, 2, 1, **BINARY), nn.BatchNorm2d(32), nn.PReLU(32),
        BinaryConv2d(32, 64, 1, **BINARY), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        BinaryLinear(64, 16, **BINARY), nn.Linear(16, 4),
    )  # fmt: skip
    pack_layers(as_if_trained(model))
    return model


def test_export_goes_through():
    model, x = model_with_both(), (noise(2, 3, 12, 12),)
    program = torch.export.export(model, x)
    assert torch.equal(program.module()(*x), model(*x))
    targets = [str(node.target) for node in program.graph.nodes if "packed" in str(node.target)]
    assert len(targets) == 3


def test_compile_goes_through_in_one_graph():
    model, x = model_with_both(), noise(2, 3, 12, 12)
    with torch.no_grad():
        assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))


def test_operators_pass_opcheck():
    """Schema, fake kernels and what autograd makes of them, as torch checks them."""
    seen = []

    class Notes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.namespace == "bnc_repro":
                seen.append((function, args, kwargs or {}))
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Notes():
        model_with_both()(noise(2, 3, 12, 12))
    assert len({function for function, _, _ in seen}) >= 1
    for function, arguments, keywords in seen:
        torch.library.opcheck(function, arguments, keywords)


def test_a_gradient_is_refused_with_the_remedy():
    """A single layer whose input comes from what learns; not under no_grad."""
    x = noise(2, 3, 12, 12).requires_grad_()
    with pytest.raises(ValueError, match=r"has no gradient: call it under torch\.no_grad\(\), or detach its input"):
        model_with_both()(x)
    with torch.no_grad():
        model_with_both()(x)


def test_layers_are_modules_like_any_other():
    import io

    model, x = model_with_both(), noise(2, 3, 12, 12)
    expected = model(x)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    other = model_with_both()
    with torch.no_grad():
        other[1].scale.mul_(2.0)
    assert not torch.equal(other(x), expected)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), expected)


@pytest.mark.parametrize(
    ("x", "word"),
    [
        (noise(2, 16, 12, 12).double(), "float32"),
        (noise(2, 16, 12, 12).half(), "float32"),
        (noise(2, 8, 12, 12), "16"),
        (noise(16, 12, 12), "16 channels"),
    ],
    ids=["double", "half", "channels", "dimensions"],
)
def test_other_inputs_are_refused(x, word):
    with pytest.raises(ValueError, match=word):
        packed_of(BinaryConv2d(16, 16, 3, padding=1, **BINARY))(x)


def test_a_window_larger_than_the_input_is_refused():
    with pytest.raises(ValueError, match="3x3"):
        packed_of(BinaryConv2d(16, 16, 3, **BINARY))(noise(1, 16, 2, 5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int64], ids=str)
@pytest.mark.parametrize(
    "layer", [BinaryLinear(16, 8, **BINARY), BinaryConv2d(16, 8, 1, **BINARY)], ids=["linear", "conv"]
)
def test_an_input_that_is_not_float32_is_refused(layer, dtype):
    """The kernels read memory as float32: anything else would be numbers of nobody's."""
    x = noise(2, 16) if isinstance(layer, BinaryLinear) else noise(2, 16, 3, 3)
    with pytest.raises(ValueError, match=rf"takes float32 on the CPU, got {dtype}.*call \.float\(\)"):
        packed_of(layer)(x.to(dtype))


@pytest.mark.parametrize(
    "layer", [BinaryLinear(16, 8, **BINARY), BinaryConv2d(16, 8, 1, **BINARY)], ids=["linear", "conv"]
)
def test_a_layer_turned_to_another_precision_is_refused(layer):
    x = noise(2, 16) if isinstance(layer, BinaryLinear) else noise(2, 16, 3, 3)
    with pytest.raises(ValueError, match=r"turned to torch\.float16: pack the network again"):
        packed_of(layer).half()(x)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (BinaryLinear(16, 8, **BINARY), (0, 16)),
        (BinaryLinear(16, 8, **BINARY), (2, 0, 16)),
        (BinaryLinear(16, 8, **BINARY), (0, 5, 16)),
        (BinaryConv2d(16, 8, 3, 2, 1, **BINARY), (0, 16, 9, 6)),
    ],
    ids=str,
)
def test_an_empty_batch_gives_an_empty_output(layer, shape):
    x = torch.zeros(shape)
    with torch.no_grad():
        expected = layer(x)
    outputs = packed_of(layer)(x)
    assert outputs.shape == expected.shape
    assert outputs.dtype == torch.float32


def test_weights_that_are_not_finite_are_refused_by_the_name_of_their_layer():
    model = nn.Sequential(nn.Conv2d(3, 16, 1), BinaryConv2d(16, 16, 1, **BINARY)).eval()
    with torch.no_grad():
        model[1].weight[3, 2] = float("nan")
    with pytest.raises(ValueError, match=r"^1 has weights that are not finite"):
        pack_layers(model)


class Doubled(BinaryConv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class Leaky(nn.BatchNorm2d):
    """As timm's norms with an activation."""

    def forward(self, x):
        return nn.functional.leaky_relu(super().forward(x), 0.3)


def of_norms(conv: type = BinaryConv2d, norm: type = nn.BatchNorm2d) -> nn.Module:
    torch.manual_seed(0)
    return as_if_trained(
        nn.Sequential(
            nn.Conv2d(3, 16, 3), norm(16), conv(16, 16, 3, **BINARY), norm(16), BinaryConv2d(16, 8, 1, **BINARY)
        )
    )


def agrees(model: nn.Module) -> list[tuple[str, str, str]]:
    x = noise(2, 3, 12, 12)
    packed = copy.deepcopy(model)
    lines = pack_layers(packed)
    assert any(isinstance(module, PackedConv2d) for module in packed.modules())
    with torch.no_grad():
        expected = model(x)
        assert float((packed(x) - expected).abs().max() / expected.abs().max()) < 1e-4
    return lines


@pytest.mark.parametrize("place", range(5))
def test_hooks_go_on_doing_what_they_did(place):
    """On a float convolution, on norms that would have been folded, on binary layers; on inputs and on outputs."""
    model = of_norms()
    model[place].register_forward_hook(lambda module, inputs, output: 1.5 * output + 0.2)
    agrees(model)
    model = of_norms()
    model[place].register_forward_pre_hook(lambda module, inputs: (0.3 - inputs[0],))
    lines = {name: why for name, kind, why in agrees(model) if kind == "float"}
    assert list(lines) == ([str(place)] if place in (2, 4) else [])
    assert all("hook" in why for why in lines.values())


def test_classes_with_a_forward_of_their_own_compute_it():
    assert ("2", "float", "its class Doubled computes its forward in a way of its own") in agrees(
        of_norms(conv=Doubled)
    )
    agrees(of_norms(norm=Leaky))


def test_layers_refuse_to_train():
    with pytest.raises(ValueError, match="train"):
        model_with_both().train()


def test_a_layer_that_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match="groups"):
        PackedConv2d(BinaryConv2d(16, 16, 3, groups=2, **BINARY).eval())
    with pytest.raises(ValueError, match="4"):
        PackedLinear(BinaryLinear(18, 16, **BINARY).eval())


def test_networks_with_packed_layers_agree_with_float64():
    from torchvision.models import mobilenet_v2, resnet18

    torch.manual_seed(0)
    for build, size in ((resnet18, (64, 64)), (mobilenet_v2, (64, 64))):
        model = build(num_classes=7)
        binarize(model, **BINARY)
        as_if_trained(model)
        twin, images = exact(model), noise(2, 3, *size)
        expected = twin(images.double())
        pack_layers(model)
        packed = sum(isinstance(module, (PackedConv2d, PackedLinear)) for module in model.modules())
        assert packed > 10
        with torch.no_grad():
            assert float((model(images) - expected).norm() / expected.norm()) < 1e-3


def test_bhrnet_agrees_with_float64():
    torch.manual_seed(0)
    network = as_if_trained(create_network("bhrnet", num_keypoints=5, width=8, **BINARY))
    twin, images = exact(network), noise(1, 3, 64, 64)
    expected = twin(images.double())
    pack_layers(network)
    with torch.no_grad():
        assert float((network(images) - expected).abs().max() / expected.abs().max()) < 1e-4


def test_nan_is_refused_wherever_a_layer_meets_it():
    """Whole vectors and their rests, convolutions and rows of a matrix, by either kernel."""
    kernels = ["popcount", *(["tables"] if HOST.avx2 else [])]
    for kernel in kernels:
        for channels in (4, 16, 20, 64):
            packed = packed_of(BinaryConv2d(channels, 64, 3, padding=1, **BINARY), kernel)
            for place in ((0, 0, 0, 0), (1, channels - 1, 2, 3), (1, channels // 2, 4, 0)):
                x = noise(2, channels, 5, 4)
                x[place] = float("nan")
                with pytest.raises(ValueError, match=rf"^image {place[0]} of 2 holds NaN, which has no sign: look"):
                    packed(x)
            assert packed(torch.full((1, channels, 5, 4), float("inf"))).isfinite().all()
    rows = noise(3, 7, 20)
    rows[2, 6, 19] = float("nan")
    with pytest.raises(ValueError, match="holds NaN, which has no sign"):
        packed_of(BinaryLinear(20, 5, **BINARY))(rows)


def test_a_derivative_is_refused_by_every_way_that_torch_has():
    layer = packed_of(BinaryConv2d(8, 8, 3, **BINARY))
    x, tangent = noise(1, 8, 5, 5), torch.ones(1, 8, 5, 5)
    with pytest.raises(ValueError, match="packed inference has no gradient"):
        torch.func.jvp(layer, (x,), (tangent,))
    with torch.autograd.forward_ad.dual_level(), torch.no_grad():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        with pytest.raises(ValueError, match="packed inference has no gradient"):
            layer(dual)
        assert layer(x).shape == (1, 8, 3, 3)
    with pytest.raises(ValueError, match=r"whole batch at once: call it without torch\.vmap"):
        torch.vmap(layer)(x[None])


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("how", ["load_state_dict", "in place", "data", "one number by data"])
def test_a_layer_answers_from_the_numbers_that_it_has_now(how, inference):
    torch.manual_seed(0)
    with torch.inference_mode(inference):
        first, second = (packed_of(BinaryConv2d(20, 16, 3, **BINARY)) for _ in range(2))
        x = noise(1, 20, 5, 5)
        before, expected = first(x), second(x)
        assert not torch.allclose(before, expected)
        if how == "load_state_dict":
            first.load_state_dict(second.state_dict())
        for name, buffer in second.named_buffers():
            own = getattr(first, name)
            if how == "in place":
                own.copy_(buffer)
            elif how == "data":
                own.data.copy_(buffer)
            elif how == "one number by data":
                for place in range(len(buffer)):
                    own.data[place] = buffer[place]
                    first(x)
        assert torch.equal(first(x), expected)


def test_a_layer_whose_numbers_no_longer_fit_is_refused():
    """The kernels would read beyond them."""
    x = noise(1, 16, 5, 5)
    for name, change, word in (
        ("shift", lambda t: t[:4].clone(), r"shift \(4,\)"),
        ("scale", lambda t: t[:4].clone(), r"scale \(4,\)"),
        ("bits", lambda t: t[:-1].clone(), r"bits \(287,\)"),
    ):
        layer = packed_of(BinaryConv2d(16, 16, 3, **BINARY))
        setattr(layer, name, change(getattr(layer, name)))
        with pytest.raises(ValueError, match=rf"{word}.* do not fit an input of 16 channels: pack the network again"):
            layer(x)
    layer = packed_of(BinaryConv2d(16, 16, 3, **BINARY))
    layer.bits = layer.bits.float()
    with pytest.raises(ValueError, match=r"takes float32, and bits of uint8, got .*, torch\.float32$"):
        layer(x)
    spread = packed_of(BinaryConv2d(16, 16, 3, **BINARY))
    expected = spread(x)
    spread.bits, spread.shift = (torch.stack([t, t + 1], 1)[:, 0] for t in (spread.bits, spread.shift))
    assert torch.equal(spread(x), expected)


def test_a_layer_on_meta_gives_no_numbers():
    for layer, x in ((BinaryConv2d(8, 8, 3, **BINARY), noise(1, 8, 5, 5)), (BinaryLinear(8, 8, **BINARY), noise(2, 8))):
        packed = packed_of(layer).to("meta")
        with pytest.raises(ValueError, match="was moved to meta: pack the network again"):
            packed(x)
        assert packed(x.to("meta")).is_meta


def test_a_number_is_no_row():
    with pytest.raises(ValueError, match=r"of 8 inputs got \(\)"):
        packed_of(BinaryLinear(8, 8, **BINARY))(torch.tensor(1.0))


def test_a_window_of_more_products_than_16_bits_count_is_exact():
    """The tables' counters would begin anew at 65536: such layers count bits."""
    channels = 7296
    layer = BinaryConv2d(channels, 64, 3, padding=1, bias=False, **BINARY)
    with torch.no_grad():
        order = torch.arange(9 * channels).expand(64, -1)
        layer.weight.copy_((2.0 * (order % 2) - 1).view_as(layer.weight))
    layer.eval()
    x = -layer.weight[:1].detach().clone()  # at the centre every sign differs
    expected = exact(layer)(x.double())
    assert float(expected.abs().max()) == 9 * channels
    for kernel in ("popcount", *(["tables"] if HOST.avx2 else [])):
        assert torch.equal(packed_of(layer, kernel)(x).double(), expected)
