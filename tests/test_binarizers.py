"""sign, soft functions, the tabulated classifier and its presets, against formulas written here."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from bnc_repro import chebyshev, config, images, learnt, ops, tables
from bnc_repro.binarizers import BINARIZERS, LEARNT, PRESETS, Surrogate, get
from bnc_repro.classifiers import CLASSIFIERS
from bnc_repro.layers import BinaryConv2d, BinaryLinear, own_binarizers
from bnc_repro.learnt import Classifier
from bnc_repro.straight_through import Binarizer, set_progress
from bnc_repro.surrogates import SURROGATES

PI = math.pi
POINTS = [
    0.0, -0.0, 1.0, -1.0, 0.1, -0.1, 1.5, -1.5, 0.05, -0.05, 0.4999, 0.999999, -1.000001, 1.500001, 2.4, -3.0,
    17.0, -400.0, 5 * PI, 10 * PI, -20 * PI,
]  # fmt: skip


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def sech_squared(z: float) -> float:
    return 0.0 if abs(z) > 300 else 1 / math.cosh(z) ** 2


def swish(x: float, progress: float) -> float:
    s, z = sigmoid(5 * x), 5 * x
    return 10 * s * (1 - s) * (2 + z * (1 - 2 * s))


def ede(x: float, progress: float) -> float:
    t = 10 ** (-1 + 2 * progress)
    return (1 if t < 1 else t) * sech_squared(t * x)


def fda(x: float, progress: float) -> float:
    n = 9 + round(9 * progress)
    return 0.4 / PI * sum(math.cos((2 * i + 1) * 0.1 * x) for i in range(n + 1))


def reste(x: float, progress: float) -> float:
    o = 1 + 2 * (1 - math.cos(progress * PI / 2))
    if abs(x) > 1.5:
        return 0.0
    return 0.1 ** (1 / o) / 0.1 if abs(x) <= 0.1 else abs(x) ** (1 / o - 1) / o


def rbnn(x: float, progress: float) -> float:
    t = 10 ** (-2 + 3 * progress)
    inside = math.sqrt(2) * t - t**2 * abs(x)
    return max(1.0, 1 / t) * inside if inside > 0 else 0.0


def rbnn_activation(x: float, progress: float) -> float:
    t = max(1.0, 10 ** (-2 + 3 * progress))
    return max(0.0, math.sqrt(2) * t - t**2 * abs(x))


MEAN_SIZE = sum(map(abs, POINTS)) / len(POINTS)
DEVIATION = math.sqrt(sum(x * x for x in POINTS) / len(POINTS) - (sum(POINTS) / len(POINTS)) ** 2)


def recu(x: float, progress: float) -> float:
    growth = 0.14 / (math.e - 1)
    tau = growth * math.e**progress + 0.85 - growth
    return 1.0 if abs(x) <= MEAN_SIZE * math.log(1 / (2 - 2 * tau)) else 0.0


SCALAR = {
    "identity": lambda x, progress: 1.0,
    "ste": lambda x, progress: 1.0 if abs(x) <= 1 else 0.0,
    "approx_sign": lambda x, progress: 2 - 2 * abs(x) if abs(x) < 1 else 0.0,
    "sign_swish": swish,
    "ede": ede,
    "tanh": lambda x, progress: 10**progress * sech_squared(10**progress * x),
    "rbnn": rbnn,
    "rbnn_activation": rbnn_activation,
    "fda": fda,
    "reste": reste,
    "recu": recu,
    "recu_activation": lambda x, progress: max(0.0, 2 - 2 * abs(x) / DEVIATION),
    "biper": lambda x, progress: 20 * math.cos(20 * x),
    "siman": lambda x, progress: (x > 0) - (x < 0),
    "progressive": lambda x, progress: 1.0,
    "sigmoid": lambda x, progress: 2 * 4 * sigmoid(4 * x) * sigmoid(-4 * x),
    "atan": lambda x, progress: 2 * 1 / (1 + (PI * x) ** 2),
    "erf": lambda x, progress: 4 / math.sqrt(PI) * math.exp(-4 * x * x),
    "softsign": lambda x, progress: 2 / (4 * (0.5 + abs(x)) ** 2),
    "exponential": lambda x, progress: math.exp(-abs(x)),
}
MEDIAN_SIZE = sorted(map(abs, POINTS))[len(POINTS) // 2]
FORWARD = {
    "biper": lambda x, progress: -1.0 if math.sin(20 * x) < 0 else 1.0,
    "siman": lambda x, progress: 1.0 if abs(x) > MEDIAN_SIZE else -1.0,
    "progressive": lambda x, progress: (
        (-1.0 if x < 0 else 1.0) if progress == 1 else max(-1.0, min(1.0, x * 2 ** (20 * progress)))
    ),
}


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def steep(hidden: int, seed: int = 0, factor: float = 3.0, **fields) -> Classifier:
    """A float64 classifier whose outputs pass 1 well inside of the data."""
    torch.manual_seed(seed)
    made = Classifier(hidden, **fields).double()
    with torch.no_grad():
        for layer in made.layers:
            layer.weight.mul_(factor)
    return made


def gradients(binarizer: Classifier, x: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
    """dL/dx, then dL/dparameter, for L = sum g * binarizer(x)."""
    x = x.clone().requires_grad_()
    return list(torch.autograd.grad((binarizer(x) * g).sum(), [x, *binarizer.parameters()]))


def data(count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(count, generator=draw, dtype=torch.float64).view(4, -1) * 1.2
    x[0, :3] = torch.tensor([0.0, 1.0, -1.0])
    return x, torch.randn(x.shape, generator=draw, dtype=torch.float64)


def test_sign_has_two_values_and_keeps_nan():
    """+1 at 0 and at -0, -1 below, NaN stays NaN; dtype and shape stay."""
    x = torch.tensor([[0.0, -0.0, 1e-40, -1e-40], [5.0, -5.0, math.inf, -math.inf]], dtype=torch.float64)
    assert ops.sign(x).tolist() == [[1, 1, 1, -1], [1, -1, 1, -1]]
    assert ops.sign(x.float()).tolist()[1] == [1, -1, 1, -1]
    assert ops.sign(x.float()).dtype == torch.float32
    assert ops.sign(torch.tensor([math.nan, 1.0])).isnan().tolist() == [True, False]
    assert ops.sign(torch.tensor([0.0, -2.0], dtype=torch.bfloat16)).tolist() == [1, -1]


def test_weight_functions_by_hand():
    """center, standardize and channel_scale work over each output channel; the scale has no gradient."""
    w = torch.tensor([[[[1.0, 3.0]]], [[[2.0, 2.0]]]], requires_grad=True)  # (O=2, 1, 1, 2)
    assert ops.center(w).flatten().tolist() == [-1, 1, 0, 0]
    assert torch.allclose(ops.standardize(w).flatten(), torch.tensor([-1.0, 1, 0, 0]), atol=1e-5)
    assert ops.channel_scale(w).flatten().tolist() == [2, 2]
    assert not ops.channel_scale(w).requires_grad


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", SCALAR)
def test_surrogate_gradient_is_the_scalar_formula(name, progress):
    """dL/dx = g d(x) at 0, +-1, the cut points and beyond, in float64, for every soft function; and its forward."""
    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    g = torch.linspace(-2, 3, len(POINTS), dtype=torch.float64)
    binarizer = get(name)
    set_progress(binarizer, progress)
    y = binarizer(x)
    forward = FORWARD.get(name, lambda value, _: -1.0 if value < 0 else 1.0)
    assert y.tolist() == [forward(value, progress) for value in POINTS]
    (y * g).sum().backward()
    wanted = torch.tensor([SCALAR[name](value, progress) for value in POINTS], dtype=torch.float64) * g
    torch.testing.assert_close(x.grad, wanted, rtol=1e-8, atol=1e-9)


def test_no_estimator_is_without_a_formula():
    """Every entry has its scalar formula above or its own test below; at least eighteen are in the field's form."""
    assert SURROGATES.keys() - SCALAR.keys() == {"scaled_ste", "adaste"}
    assert len(BINARIZERS) >= 18 + len(("linear", "mlp"))


def test_scaled_ste_is_the_gradient_of_scale_times_sign():
    """XNOR-Net: with y = alpha sign(x) and G = dL/dy, dL/dx = G alpha 1[|x| <= 1] + sign(x)/n sum(G sign(x))."""
    channels = [[0.5, -1.0, 2.0, 0.0], [-3.0, 0.25, -0.25, 1.0]]
    x = torch.tensor(channels, dtype=torch.float64, requires_grad=True)
    upstream = torch.tensor([[1.0, -2.0, 3.0, 0.5], [2.0, 1.0, -1.0, 4.0]], dtype=torch.float64)
    (get("scaled_ste")(x) * ops.channel_scale(x) * upstream).sum().backward()
    for row, g, found in zip(channels, upstream.tolist(), x.grad.tolist(), strict=True):
        alpha, signs = sum(map(abs, row)) / 4, [-1 if value < 0 else 1 for value in row]
        through_scale = sum(a * s for a, s in zip(g, signs, strict=True)) / 4
        wanted = [a * alpha * (abs(v) <= 1) + s * through_scale for a, v, s in zip(g, row, signs, strict=True)]
        assert found == pytest.approx(wanted)


def test_adaste_moves_only_towards_the_other_sign():
    """dL/dx = g min(1/2, 1/|x|) where g and x share their sign, else 0; 0 at x = 0."""
    x = torch.tensor([0.5, 4.0, -4.0, -1.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    g = torch.tensor([2.0, 2.0, -2.0, 2.0, 1.0, -1.0], dtype=torch.float64)
    (get("adaste")(x) * g).sum().backward()
    assert x.grad.tolist() == [1.0, 0.5, -0.5, 0.0, 0.0, 0.0]


def test_the_cut_points_belong_to_the_side_the_formula_says():
    """At the very edge: adaste's 2, ReCU's Q, the corner of RBNN's triangle, DSQ's 1, SiMaN's median of four."""
    def derivative(name, *values, progress=1.0):
        x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        binarizer = get(name)
        set_progress(binarizer, progress)
        y = binarizer(x)
        y.sum().backward()
        return y.tolist(), x.grad.tolist()

    assert derivative("adaste", 2.0, 1.999, 2.001)[1] == pytest.approx([0.5, 0.5, 1 / 2.001])
    q = -math.log(2 - 2 * 0.99)  # in units of the mean size, which is 1 for these ten values
    assert derivative("recu", q * (1 - 1e-12), q * (1 + 1e-12), *[(10 - 2 * q) / 8] * 8)[1] == [1, 0, *[1] * 8]
    corner = math.sqrt(2) / 10  # t = 10 at the end of the schedule
    inside, outside = derivative("rbnn", corner - 1e-9, corner + 1e-9)[1]
    assert 0 < inside < 1e-6
    assert outside == 0
    a = 0.2
    k, s = math.log(2 / a - 1) / 2, 1 / (1 - a)
    edge = k * s * (1 - math.tanh(k) ** 2)
    assert derivative("dsq", 1.0, -1.0, 1.0000001)[1] == pytest.approx([edge, edge, 0.0])
    assert derivative("siman", 1.0, -2.0, 3.0, -4.0)[0] == [-1, -1, 1, 1]  # the median is the lower of the two, 2


@pytest.mark.parametrize("shape", [(4, 6, 3, 3), (5, 7), (9,)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_siman_takes_the_median_of_each_channel(shape, dtype):
    """In every memory format and precision: +1 where the size is above torch's median of the channel."""
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype)
    formats = [x, x.contiguous(memory_format=torch.channels_last)] if x.dim() == 4 else [x]
    size = x.abs().double()
    channels = size.flatten(1) if x.dim() > 1 else size[None]
    wanted = (channels > channels.median(1, keepdim=True).values).double() * 2 - 1
    for given in formats:
        assert torch.equal(get("siman")(given).double(), wanted.view(shape))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [name for name in BINARIZERS if name not in LEARNT])
def test_the_zoo_in_half_precision(name, dtype):
    """Half-precision inputs keep their type, have the same two values, and the gradient of single precision to 2 %."""
    torch.manual_seed(0)
    x = torch.randn(6, 50).to(dtype)
    outputs, grads = [], []
    for given in (x, x.float()):
        leaf, binarizer = given.clone().requires_grad_(), get(name)
        set_progress(binarizer, 0.5)
        y = binarizer(leaf)
        assert y.dtype == given.dtype
        y.sum().backward()
        outputs.append(y.float())
        grads.append(leaf.grad.float())
    if name not in ("biper", "progressive"):  # whose forward itself rounds
        assert torch.equal(*outputs)
    if name != "biper":  # cos(20 x) is as good as its argument
        assert relative(grads[0], grads[1]) < 0.02


def test_each_layer_may_learn_its_own():
    """own_binarizers: as many classifiers as layers, none shared or at the top, each with its own gradient."""
    torch.manual_seed(0)
    network = CLASSIFIERS["resnet20"](num_classes=3, stem="half", width=4, blocks=(1, 1), weight_binarizer="mlp",
                                      activation_binarizer="approx_sign")  # fmt: skip
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        before = network(x)
    own_binarizers(network)
    assert network.weight_binarizer is None
    layers = [m for m in network.modules() if isinstance(m, BinaryConv2d)]
    assert len({id(layer.weight_binarizer) for layer in layers}) == len(layers) == 2
    with torch.no_grad():
        assert torch.equal(network(x), before)
    network(x).square().sum().backward()
    grads = [layer.weight_binarizer.layers[0].weight.grad for layer in layers]
    assert all(grad.abs().sum() > 0 for grad in grads)
    assert not torch.equal(*grads)


def test_dsq_gradients_are_autograd_on_its_soft_function():
    """dsq: dx and da are those of F = s tanh(k x) within abs(x) <= 1; beyond, x gets nothing, a the edge's value."""
    binarizer = get("dsq").double()
    x, g = data(400)
    leaf, a = x.clone().requires_grad_(), torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    (torch.tanh(leaf.clamp(-1, 1) * torch.log(2 / a - 1) / 2) / (1 - a) * g).sum().backward()
    dx, da = gradients(binarizer, x, g)
    inside = x.abs() != 1  # clamp's own gradient at the edge is a convention
    torch.testing.assert_close(dx[inside], leaf.grad[inside])
    torch.testing.assert_close(da, a.grad)


@pytest.mark.parametrize("tabulated", [True, False])
@pytest.mark.parametrize("rule", ["sum", "difference", "expected"])
@pytest.mark.parametrize(
    "fields", [{"hidden": 0}, {"hidden": 9}, {"hidden": 6, "depth": 3}, {"hidden": 5, "unit": "atan"}]
)
def test_other_rules_are_autograd_on_their_formula(rule, fields, tabulated):
    """sum: F = f1 + f2; difference: f2 - f1; expected: the mean label under a softmax of f. Any depth, any unit."""
    x, g = data(400)
    binarizer = steep(**fields, rule=rule, tabulated=tabulated, factor=1.0)
    ours = gradients(binarizer, x, g)
    unit = {"tanh": torch.tanh, "atan": torch.atan}[fields.get("unit", "tanh")]
    leaf, weights = x.clone().requires_grad_(), [layer.weight for layer in binarizer.layers]
    value = leaf.flatten()[:, None] @ weights[0].T
    for weight in weights[1:]:
        value = unit(value) @ weight.T
    if rule == "expected":
        soft = (value.softmax(1) * torch.tensor([-1.0, 1.0], dtype=torch.float64)).sum(1)
    else:
        soft = value[:, 1] + value[:, 0] * (1 if rule == "sum" else -1)
    wanted = torch.autograd.grad((soft * g.flatten()).sum(), [leaf, *weights])
    for a, b in zip(ours, wanted, strict=True):
        assert relative(a, b) < (1e-4 if tabulated else 1e-9)


@pytest.mark.parametrize("rule", ["gated", "sum", "difference", "expected"])
@pytest.mark.parametrize("fields", [{"hidden": 0}, {"hidden": 20}, {"hidden": 6, "depth": 2}])
def test_monotone_and_normalised_hold_under_every_rule(rule, fields):
    """F'(0) = 1 and F' >= 0 whatever the rule and the depth."""
    grid = torch.linspace(-5, 5, 501, dtype=torch.float64)
    for seed in range(3):
        binarizer = steep(**fields, seed=seed, rule=rule, monotone=True, normalised=True)
        assert binarizer.derivative(grid.new_zeros(1)).item() == pytest.approx(1, abs=1e-9)
        assert (binarizer.derivative(grid) >= 0).all()


def test_gradients_of_gradients_are_refused():
    """A second derivative of a binarizer stops with an error instead of a wrong number."""
    for binarizer in (get("ste"), get("mlp"), get("mlp", tabulated=False), get("dsq")):
        x = torch.tensor([0.3, -0.2], requires_grad=True)
        (first,) = torch.autograd.grad((binarizer(x) * x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_broken_number_does_not_spread(preset, broken):
    """NaN or infinity in one element leaves the values of all others, and their gradients are numbers."""
    torch.manual_seed(0)
    binarizer = get("mlp", preset=preset)
    x = torch.randn(100)
    healthy = binarizer(x)
    x[7] = broken
    y = binarizer(x.requires_grad_())
    keep = torch.arange(100) != 7
    assert torch.equal(y[keep], healthy[keep])
    y.nansum().backward()
    assert x.grad[keep].isfinite().all()


def test_one_large_element_costs_no_accuracy():
    """An element at a hundred deviations: the gradients are still those of the exact evaluation."""
    torch.manual_seed(0)
    x = torch.randn(20_000, dtype=torch.float64)
    x[5] = 100.0
    g = torch.randn_like(x)
    pairs = zip(*(gradients(steep(20, factor=1.5, tabulated=t), x, g) for t in (True, False)), strict=True)
    for ours, wanted in pairs:
        assert relative(ours, wanted) < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_in_half_precision_are_evaluated_in_single(dtype):
    """A network cast to half precision as a whole has the gradients of its rounded parameters."""
    torch.manual_seed(0)
    binarizer = get("mlp").to(dtype)
    single = copy.deepcopy(binarizer).float()
    x = torch.randn(500, dtype=dtype)
    ours, wanted = gradients(binarizer, x, torch.ones(500)), gradients(single, x.float(), torch.ones(500))
    for a, b in zip(ours, wanted, strict=True):
        assert relative(a.float(), b) < 1e-2


@pytest.mark.parametrize("name", BINARIZERS)
def test_nan_stays_nan(name):
    """A NaN among the inputs is a NaN among the outputs, and nothing fails on the way back."""
    x = torch.tensor([0.3, math.nan, -0.2], requires_grad=True)
    y = get(name)(x)
    assert y.isnan().tolist() == [False, True, False]
    y.sum().backward()


def test_empty_and_complex_inputs_are_refused():
    """An empty tensor and a complex one stop with a sentence."""
    with pytest.raises(ValueError, match="empty tensor of shape"):
        get("mlp")(torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"torch\.complex64"):
        get("ste")(torch.zeros(2, dtype=torch.complex64))


@pytest.mark.parametrize("name", ["ste", "mlp"])
def test_integer_input_is_refused(name):
    """A tensor of integers stops with its type and the remedy."""
    with pytest.raises(ValueError, match=r"got a tensor of torch.int64; convert it with .float\(\)"):
        get(name)(torch.tensor([1, -1]))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("hidden", [0, 100])
def test_tabulated_gradients_are_the_exact_ones(hidden, preset):
    """The table gives dx and all parameters' gradients to 1e-4 (L2) although 20 % of x are gated."""
    x, g = data()
    tabulated = steep(hidden, factor=1.5, **PRESETS[preset])
    exact = steep(hidden, factor=1.5, **PRESETS[preset], tabulated=False)
    f, _, _ = exact.outputs(x.flatten())
    assert (f.detach().abs() >= 1).any(dim=0).double().mean() >= 0.2
    assert torch.equal(tabulated(x), exact(x))
    for ours, wanted in zip(gradients(tabulated, x, g), gradients(exact, x, g), strict=True):
        assert relative(ours, wanted) < 1e-4


@pytest.fixture
def for_few(monkeypatch):
    """The polynomial from the first element on, in parts that no size divides; the tables made all the same."""
    monkeypatch.setattr(learnt, "MANY", 1)
    monkeypatch.setattr(chebyshev, "PART", 70)
    made, table = [], Classifier.table
    monkeypatch.setattr(Classifier, "table", lambda *arguments: made.append(arguments) or table(*arguments))
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("largest", [0.01, 0.1, 0.35])
@pytest.mark.parametrize(("hidden", "fields"), [
    (0, PRESETS["official"]), *[(100, fields) for fields in PRESETS.values() if not fields.get("argmax")],
    (0, {"rule": "expected"}),
    *[(100, {"rule": rule}) for rule in ("sum", "difference", "expected")], (100, {"unit": "atan"}), (20, {"depth": 2}),
])
def test_where_f_is_smooth_a_polynomial_has_the_exact_gradients(hidden, fields, largest, dtype, for_few):
    """Several tensors, of any layout, through one fit: dx and all parameters' gradients to 1e-5, and no table."""
    torch.manual_seed(0)
    exact = Classifier(hidden, **fields, tabulated=False).double()
    fitted = copy.deepcopy(exact).to(dtype)
    fitted.tabulated = True
    draw = torch.randn(2, 3, 5, 3, 3), torch.randn(2, 40, 2)
    xs = [draw[0][0].to(memory_format=torch.channels_last), draw[0][1].transpose(0, 1), draw[1][..., 0]]
    xs = [(x / 4 * largest).clamp(-largest, largest).to(dtype).requires_grad_() for x in xs]
    gs = [torch.randn(x.shape).to(dtype) for x in xs]
    step = fitted.step(sum(x.numel() for x in xs), lambda: torch.tensor(largest), list)
    found = torch.autograd.grad([fitted(x, step) for x in xs], [*xs, *fitted.parameters()], gs)
    doubles = [x.detach().double().requires_grad_() for x in xs]
    wanted = torch.autograd.grad([exact(x) for x in doubles], [*doubles, *exact.parameters()], [g.double() for g in gs])
    assert not for_few
    for ours, theirs in zip(found, wanted, strict=True):
        assert relative(ours.double(), theirs) < 1e-5


@pytest.mark.parametrize(("fields", "largest"), [
    ({}, 30.0), ({"rule": "sum"}, 30.0), ({"rule": "expected"}, 2.0), ({"argmax": True}, 0.1), ({}, 0.0),
    ({}, math.nan), ({}, math.inf),
])
def test_where_it_is_not_the_table_serves(fields, largest, for_few):
    """A gate that closes, a unit too steep, argmax, elements that are all 0, or broken: the gradients of the table."""
    x, g = data(400)
    x = x / x.abs().max()
    x = torch.where(x == 1, largest, x * (largest if math.isfinite(largest) else 1))
    binarizer = steep(20, **fields)
    found = gradients(binarizer, x, g)
    assert len(for_few) == 1
    learnt.MANY = math.inf
    for ours, theirs in zip(found, gradients(binarizer, x, g), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("hidden", "rule"), [(0, "gated"), (0, "sum"), (0, "difference"), (9, "gated")])
def test_a_classifier_that_says_nothing_has_no_gradient(hidden, rule, for_few):
    """All weights 0: F is 0 everywhere, and so is dx; the parameters' gradients are the exact ones."""
    x, g = data(400)
    binarizer, exact = (Classifier(hidden, rule=rule, tabulated=t).double() for t in (True, False))
    for made in (binarizer, exact):
        for layer in made.layers:
            torch.nn.init.zeros_(layer.weight)
    assert not binarizer(x.requires_grad_()).sum().isnan()
    for ours, wanted in zip(gradients(binarizer, x.detach(), g), gradients(exact, x.detach(), g), strict=True):
        torch.testing.assert_close(ours, wanted)
    assert not for_few


def test_a_fit_has_as_many_terms_as_the_function_needs():
    """Odd polynomials of degree 1, 3, 5 need 1, 2, 3 and are their own fit; sign has no end; a wide tanh needs more."""
    t = chebyshev.nodes(1.0).numpy()
    for count, powers in ((1, {1: 2.0}), (2, {1: 1.0, 3: -0.3}), (3, {1: 0.5, 3: 0.2, 5: 0.1})):
        values = sum(factor * t**power for power, factor in powers.items())
        assert chebyshev.terms(values[None], normalised=False) == count
        fit = chebyshev.fit(values, 1.0, count)
        assert fit.slopes == pytest.approx([power * factor for power, factor in powers.items()])
    assert chebyshev.terms(np.sign(t)[None], normalised=False) > chebyshev.TERMS
    counts = [chebyshev.terms(np.tanh(reach * t)[None], normalised=False) for reach in (0.001, 0.1, 0.3, 1, 5)]
    assert counts == sorted(counts)
    assert counts[0] < counts[2] <= chebyshev.TERMS < counts[4]


@pytest.mark.parametrize("standardize", [False, True])
def test_no_latent_weight_is_larger_than_its_reach(standardize):
    """Centred and standardised weights, channels that are far from 0 or constant, both memory formats."""
    torch.manual_seed(0)
    for offset in (0.0, 5.0, 1000.0):
        weight = torch.randn(6, 4, 3, 3) * torch.linspace(0, 2, 6).view(-1, 1, 1, 1) + offset
        for given in (weight, weight.contiguous(memory_format=torch.channels_last)):
            latent = (ops.standardize if standardize else ops.center)(given)
            assert latent.abs().max() <= ops.latent_reach(given, standardize)


def test_a_network_learns_the_same_through_its_fit(for_few):
    """One fit a step for all layers: the gradients of every layer's own exact evaluation, in pieces that add up."""
    torch.manual_seed(0)
    network = CLASSIFIERS["resnet20"](num_classes=3, channels=1, width=4, blocks=(1, 1), weight_binarizer=get("mlp"),
                                      activation_binarizer="ste").double()  # fmt: skip
    x = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    found = {}
    for tabulated in (True, False):
        network.weight_binarizer.tabulated = tabulated
        network.zero_grad()
        for piece in x.split(2):
            network(piece).square().mean().backward()
        found[tabulated] = [parameter.grad.clone() for parameter in network.parameters()]
    assert not for_few
    for ours, theirs in zip(*found.values(), strict=True):
        assert relative(ours, theirs) < 1e-5


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("hidden", [0, 7])
def test_exact_gradients_are_autograd_on_the_formula(hidden, fixed, gated):
    """tabulated=False differentiates F = sum_j h(f_j) as written out here, for x and for the parameters."""
    x, g = data(400)
    fields = {"monotone": fixed, "normalised": fixed, "rule": "gated" if gated else "sum"}
    binarizer = steep(hidden, **fields, tabulated=False)
    ours = gradients(binarizer, x, g)

    leaf = x.clone().requires_grad_()
    raw = [layer.weight for layer in binarizer.layers]
    w = [weight.abs() + 0.001 for weight in raw] if fixed else raw
    if hidden:
        first = w[0] / w[0].max() if fixed and w[0].max() > 1 else w[0]
        f = [(torch.tanh(leaf[..., None] * first[:, 0]) * w[1][j]).sum(-1) for j in range(2)]
        at_zero = [(first[:, 0] * w[1][j]).sum() for j in range(2)]
    else:
        f, at_zero = [leaf * w[0][j, 0] for j in range(2)], [w[0][j, 0] for j in range(2)]
    total = 1.0
    if fixed:
        bounds = [s if s > 1 else torch.ones_like(s) for s in at_zero]
        f = [value / bound for value, bound in zip(f, bounds, strict=True)]
        total = sum(s / bound for s, bound in zip(at_zero, bounds, strict=True))
    h = [torch.where(v.abs() < 1, v, v.detach().sign()) if gated else v for v in f]
    wanted = torch.autograd.grad((sum(h) / total * g).sum(), [leaf, *raw])
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_released_rule_of_the_linear_classifier_by_hand():
    """official, linear: dL/dx = g sum_j w_j 1[|w_j x| < 1], dL/dw_j = sum g x 1[|w_j x| < 1]."""
    binarizer = get("linear", preset="official", tabulated=False).double()
    with torch.no_grad():
        binarizer.layers[0].weight.copy_(torch.tensor([[2.0], [-0.5]]))
    x = torch.tensor([0.0, 0.4, 0.5, 0.9, -0.7, 3.0, -2.0], dtype=torch.float64)
    g = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], dtype=torch.float64)
    dx, dw = gradients(binarizer, x, g)
    assert torch.allclose(dx, g * torch.tensor([1.5, 1.5, -0.5, -0.5, -0.5, 0, 0], dtype=torch.float64))
    inside = [0.8, 0.8 + 1.5 + 3.6 - 3.5]  # sum g x over |2x| < 1, over |x/2| < 1
    assert torch.allclose(dw.flatten(), torch.tensor(inside, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_fixed_cannot_turn_round_collapse_or_close(name, seed):
    """fixed: F'(0) = 1, F' >= 0, no gate closed within abs(x) < 1, whatever the parameters are."""
    torch.manual_seed(seed)
    binarizer = get(name).double()
    grid = torch.linspace(-6, 6, 2001, dtype=torch.float64)
    for scale in (None, 0.0, 1e-3, 1.0, 30.0):
        if scale is not None:
            for parameter in binarizer.parameters():
                torch.nn.init.normal_(parameter, std=scale)
        slope = binarizer.derivative(grid)
        f, slopes, _ = binarizer.outputs(grid)
        assert binarizer.derivative(grid.new_zeros(1)).item() == pytest.approx(1, abs=1e-9)
        assert (slope >= 0).all()
        assert (f[:, grid.abs() < 1].abs() < 1).all()
        assert (slopes >= 0).all()
        assert binarizer.derivative(grid[grid.abs() < 0.99]).max() > 0


def test_official_can_be_reversed():
    """The released rule has a negative slope at 0 in some seeds: what `fixed` is there to prevent."""
    slopes = []
    for seed in range(12):
        torch.manual_seed(seed)
        slopes.append(get("mlp", preset="official").derivative(torch.zeros(1)).item())
    assert min(slopes) < 0 < max(slopes)


def test_argmax_forward_follows_the_two_outputs_and_is_plus_one_at_ties():
    """paper: +1 where f2 >= f1 (at 0, and everywhere if both outputs are equal), -1 elsewhere."""
    x, _ = data(400)
    for hidden in (0, 16):
        for tabulated in (True, False):
            binarizer = steep(hidden, argmax=True, tabulated=tabulated)
            f, _, _ = binarizer.outputs(x.flatten())
            assert torch.equal(binarizer(x).flatten() > 0, f[1] >= f[0])
            assert binarizer(torch.zeros(3, dtype=torch.float64)).tolist() == [1, 1, 1]
            with torch.no_grad():
                binarizer.layers[-1].weight.zero_()  # equal rows differ in the last bit after a threaded product
            assert (binarizer(x) == 1).all()


def test_all_zero_and_single_inputs_are_binarized():
    """A table over inputs that are all 0, and over one number, still gives +1 and finite gradients."""
    for x in (torch.zeros(5), torch.tensor([-2.0]), torch.zeros(())):
        for grad in gradients(get("mlp"), x, torch.ones_like(x)):
            assert grad.isfinite().all()
        assert torch.equal(get("mlp")(x), ops.sign(x))


def test_options_override_the_preset():
    """get adds a preset's fields to the learnt binarizers only, and options win over it."""
    made = get("mlp", preset="paper", rule="sum")
    assert (made.argmax, made.gated, made.monotone, made.normalised) == (True, False, False, False)
    fixed = get("linear")
    assert fixed.monotone
    assert fixed.normalised
    assert len(fixed.layers) == 1
    assert get("ste", preset="official", clip=2.0)(torch.tensor([1.5])).item() == 1
    for fields in PRESETS.values():
        assert fields.keys() <= {"argmax", "rule", "monotone", "normalised"}


def test_unknown_names_list_the_nearest_first():
    """A mistyped binarizer or preset is answered with all known names, the nearest first."""
    with pytest.raises(ValueError, match="unknown binarizer 'aprox_sign'; known, nearest first: approx_sign"):
        get("aprox_sign")
    with pytest.raises(ValueError, match="unknown preset 'offical'; known, nearest first: official"):
        get("mlp", preset="offical")
    with pytest.raises(ValueError, match="hidden must be 0"):
        Classifier(-1)
    with pytest.raises(ValueError, match="depth counts"):
        Classifier(4, depth=0)
    with pytest.raises(ValueError, match="unknown rule 'gate'; known, nearest first: gated"):
        Classifier(rule="gate")
    with pytest.raises(ValueError, match="unknown constant of ste 'clp'; known, nearest first: clip"):
        get("ste", clp=2.0)
    with pytest.raises(ValueError, match="monotone"):
        Classifier(normalised=True)


def test_none_and_instances_pass_through():
    """get(None) is None and get(instance) is that instance."""
    made = Surrogate("ste")
    assert get(None) is None
    assert get(made) is made


@pytest.mark.parametrize("name", BINARIZERS)
def test_every_binarizer_is_two_valued(name):
    """Each entry returns only the values it declares, in the input's type and shape."""
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 0
    binarizer = get(name)
    assert binarizer.forward_values == (Binarizer.forward_values if name != "progressive" else ())
    set_progress(binarizer, 1.0)  # where even the progressive one has arrived
    y = binarizer(x)
    assert set(y.unique().tolist()) == {-1.0, 1.0}
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert y[0, 0] == (1 if name != "siman" else -1)


def test_progress_reaches_every_binarizer():
    """set_progress sets all binarizers of a network and refuses what is not 0..1."""
    network = torch.nn.Sequential(get("ede"), torch.nn.Sequential(get("mlp")))
    set_progress(network, 0.25)
    assert network[0].progress == network[1][0].progress == 0.25
    with pytest.raises(ValueError, match=r"0 to 1, got 1\.5"):
        set_progress(network, 1.5)


@pytest.mark.parametrize("tabulated", [True, False])
@pytest.mark.parametrize("given", [torch.bfloat16, torch.float64])
def test_other_precisions_keep_their_type(given, tabulated):
    """A learnt binarizer evaluates its classifier in its own precision, with and without autocast."""
    x = torch.tensor([-1.5, -0.25, 0.0, 0.5], dtype=given)
    binarizer = get("mlp", tabulated=tabulated)
    for autocast in (False, True):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = binarizer(leaf)
        assert y.dtype == given
        assert y.tolist() == [-1, -1, 1, 1]
        y.sum().backward()
        assert leaf.grad.dtype == given
        assert torch.allclose(leaf.grad.float(), binarizer.derivative(x.float()), rtol=0.01)


@pytest.mark.parametrize("tabulated", [True, False])
def test_official_is_the_released_module(tabulated):
    """One step of the released MetaConv_v2 within its convolution, with centring and scale, recorded as numbers."""
    recorded = json.loads((Path(__file__).parent / "recorded" / "released_step.json").read_text())
    numbers = {key: torch.tensor(value) for key, value in recorded.items() if key != "about"}
    binarizer = Classifier(20, **PRESETS["official"], tabulated=tabulated)
    layer = BinaryConv2d(2, 2, 3, padding=1, bias=False, weight_binarizer=binarizer)
    with torch.no_grad():
        layer.weight.copy_(numbers["weights"].view(2, 2, 3, 3))
        binarizer.layers[0].weight.copy_(numbers["first"].view(20, 1))
        binarizer.layers[1].weight.copy_(numbers["second"].view(2, 20))
    closed = binarizer.outputs(layer.latent_weight().flatten())[0].abs() >= 1
    assert 0.1 < closed.float().mean() < 0.9
    y = layer(numbers["x"].view(2, 2, 4, 4))
    torch.testing.assert_close(y.flatten(), numbers["y"], rtol=1e-5, atol=1e-5)
    (y * numbers["g"].view_as(y)).sum().backward()
    for found, wanted in (
        (layer.weight.grad, "weights_grad"), (binarizer.layers[0].weight.grad, "first_grad"),
        (binarizer.layers[1].weight.grad, "second_grad"),
    ):  # fmt: skip
        assert relative(found.flatten(), numbers[wanted]) < 1e-4


@pytest.mark.parametrize("name", ["ste", "ede", "tanh", "rbnn", "progressive", "dsq", "mlp"])
def test_a_schedule_is_compiled_a_few_times_not_at_every_step(name):
    """Progress is a number that changes at each step: torch.compile makes it a variable after its first change. (Not
    under the cosines and logarithms of fda, reste and recu, which it compiles anew until its limit, then leaves alone.)
    """
    torch.manual_seed(0)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    layer = BinaryConv2d(2, 3, 3, weight_binarizer=name, activation_binarizer="approx_sign")
    compiled, x = torch.compile(layer, backend=counter, fullgraph=True), torch.randn(2, 2, 5, 5)
    for step in range(12):
        set_progress(layer, step / 12)
        compiled(x).square().sum().backward()
    assert counter.frame_count <= 4


@pytest.mark.parametrize("name", ["ste", "ede", "dsq", "mlp"])
def test_compiled_networks_give_the_same_gradients(name):
    """Under torch.compile a network with binarizers has the same outputs and gradients, without a graph break."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    network = CLASSIFIERS["resnet20"](
        num_classes=10, stem="half", width=8, blocks=(1, 1), weight_binarizer=name, activation_binarizer="approx_sign"
    )
    compiled, x = torch.compile(network, backend="aot_eager", fullgraph=True), torch.randn(4, 3, 16, 16)
    for progress in (0.1, 0.7):
        set_progress(network, progress)
        found = torch.autograd.grad(compiled(x).square().sum(), list(network.parameters()))
        wanted = torch.autograd.grad(network(x).square().sum(), list(network.parameters()))
        for ours, theirs in zip(found, wanted, strict=True):
            assert relative(ours, theirs) < 1e-3 or theirs.norm() < 1e-5


def test_channels_last_changes_nothing():
    """Activations in channels_last memory format have the same gradients."""
    x, g = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    for name in ("approx_sign", "mlp", "dsq"):
        torch.manual_seed(0)
        binarizer, grads = get(name), []
        for memory_format in (torch.contiguous_format, torch.channels_last):
            leaf = x.clone(memory_format=memory_format).requires_grad_()
            (binarizer(leaf) * g).sum().backward()
            grads.append(leaf.grad.contiguous())
        torch.testing.assert_close(*grads)


def _replica(rank, folder):
    """One of two processes: its half of a batch through DDP."""
    torch.set_num_threads(1)
    dist = torch.distributed
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    network = torch.nn.parallel.DistributedDataParallel(small_network())
    x = torch.randn(8, 6)
    network(x[4 * rank : 4 * rank + 4]).square().sum().backward()
    if rank == 0:
        torch.save({key: value.grad for key, value in network.module.named_parameters()}, f"{folder}/grads.pt")
    dist.barrier()
    dist.destroy_process_group()


def small_network():
    """Two binary linear layers that share one learnt binarizer, held at the top."""
    shared = get("mlp")
    body = [BinaryLinear(6, 5, weight_binarizer=shared), BinaryLinear(5, 3, weight_binarizer=shared)]
    return torch.nn.Sequential(*body, Held(shared))


class Held(torch.nn.Module):
    """Holds the shared binarizer and passes its input on."""

    def __init__(self, shared):
        super().__init__()
        self.shared = shared

    def forward(self, x):
        return x


def test_two_processes_have_the_gradient_of_the_whole_batch(tmp_path):
    """DDP averages the gradients of weights and of the shared classifier: half the sum over the whole batch."""
    torch.multiprocessing.spawn(_replica, (str(tmp_path),), nprocs=2)
    torch.manual_seed(0)
    network = small_network()
    network(torch.randn(8, 6)).square().sum().backward()
    for key, value in torch.load(tmp_path / "grads.pt", weights_only=True).items():
        torch.testing.assert_close(2 * value, network.get_parameter(key).grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["as made", "channels_last", "transposed", "a slice"])
def test_tables_take_tensors_of_any_size_and_layout(layout, monkeypatch):
    """Several tensors through one table, in parts that neither threads nor sizes divide, have the exact gradients."""
    monkeypatch.setattr(tables, "PART", 50)
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 5, 3, 3), (1, 1, 1, 1), (4, 8, 2, 2)]
    xs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    gs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    xs = [
        {
            "as made": lambda x: x, "channels_last": lambda x: x.to(memory_format=torch.channels_last),
            "transposed": lambda x: x.transpose(0, 1).clone().transpose(0, 1),
            "a slice": lambda x: torch.stack([x, x], -1)[..., 0],
        }[layout](x).requires_grad_()
        for x in xs
    ]  # fmt: skip
    tabulated = steep(20, factor=1.5)
    exact = steep(20, factor=1.5, tabulated=False)
    found, wanted = (
        torch.autograd.grad([binarizer(x, table) for x in xs], [*xs, *binarizer.parameters()], gs)
        for binarizer, table in ((tabulated, tabulated.table([tables.extent(x) for x in xs])), (exact, None))
    )
    for ours, theirs in zip(found, wanted, strict=True):
        assert relative(ours, theirs) < 1e-4


@pytest.fixture(scope="module")
def trained():
    """The latent weights and the activations that learnt binarizers see in a network after 30 steps of training."""
    torch.manual_seed(0)
    binarizers = {"weight_binarizer": Classifier(100), "activation_binarizer": Classifier(100)}
    with torch.no_grad():
        for made in binarizers.values():
            made.layers[0].weight.abs_().mul_(0.5)
            made.layers[1].weight.abs_()
    network = CLASSIFIERS["resnet20"](
        num_classes=10, channels=1, stem="half", width=8, blocks=(2, 2), standardize=True, **binarizers
    )
    data = images.load(config.recipe("imagenet_resnet", "sample").data, train=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for step in range(30):
        batch = data.__getitems__(list(range(step * 32, step * 32 + 32)))
        x = images.normalise(batch["image"], "fashion_mnist")
        torch.nn.functional.cross_entropy(network(x), batch["label"]).backward()
        optimizer.step()
        optimizer.zero_grad()
    seen = []
    handle = network.activation_binarizer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    network(x)
    handle.remove()
    layers = [module for module in network.modules() if isinstance(module, BinaryConv2d)]
    weights = torch.cat([layer.latent_weight().flatten() for layer in layers]).detach()
    return {"weights": (network.weight_binarizer, weights), "activations": (network.activation_binarizer, seen[-1])}


@pytest.mark.parametrize("operand", ["weights", "activations"])
def test_the_table_is_exact_enough_on_a_trained_network(trained, operand):
    """With at least 20 % of the elements gated, gradients of x and of all parameters agree to 1e-4 (relative L2), in
    float64 and in the float32 of training."""
    binarizer, x = trained[operand]
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    exact = copy.deepcopy(binarizer).double()
    closed = exact.outputs(x.double().flatten())[0].abs() >= 1
    assert 0.2 <= closed.any(dim=0).double().mean() <= 0.9
    exact.tabulated = False
    wanted = gradients(exact, x.double(), g)
    in_double = gradients(copy.deepcopy(binarizer).double(), x.double(), g)
    for found in (in_double, gradients(binarizer, x, g.float())):
        for ours, theirs in zip(found, wanted, strict=True):
            assert relative(ours.double(), theirs) < 1e-4
