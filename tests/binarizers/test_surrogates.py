"""The hand-made soft functions, against scalar formulas written here."""

import math

import pytest
import torch

from bnc_repro.binarizers.base import set_progress
from bnc_repro.binarizers.registry import BINARIZERS, LEARNT, get
from bnc_repro.binarizers.sign import sign
from bnc_repro.binarizers.surrogates import SURROGATES
from bnc_repro.layers.latent import channel_scale
from classifiers import data, gradients, relative

PI = math.pi


POINTS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.1,
    -0.1,
    1.5,
    -1.5,
    0.05,
    -0.05,
    0.4999,
    0.999999,
    -1.000001,
    1.500001,
    2.4,
    -3.0,
    17.0,
    -400.0,
    5 * PI,
    10 * PI,
    -20 * PI,
]


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


def test_sign_has_two_values_and_keeps_nan():
    """+1 at 0 and at -0, -1 below, NaN stays NaN; dtype and shape stay."""
    x = torch.tensor([[0.0, -0.0, 1e-40, -1e-40], [5.0, -5.0, math.inf, -math.inf]], dtype=torch.float64)
    assert sign(x).tolist() == [[1, 1, 1, -1], [1, -1, 1, -1]]
    assert sign(x.float()).tolist()[1] == [1, -1, 1, -1]
    assert sign(x.float()).dtype == torch.float32
    assert sign(torch.tensor([math.nan, 1.0])).isnan().tolist() == [True, False]
    assert sign(torch.tensor([0.0, -2.0], dtype=torch.bfloat16)).tolist() == [1, -1]


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
    (get("scaled_ste")(x) * channel_scale(x) * upstream).sum().backward()
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


@pytest.mark.parametrize("name", BINARIZERS)
def test_nan_stays_nan(name):
    """A NaN among the inputs is a NaN among the outputs, and nothing fails on the way back."""
    x = torch.tensor([0.3, math.nan, -0.2], requires_grad=True)
    y = get(name)(x)
    assert y.isnan().tolist() == [False, True, False]
    y.sum().backward()


@pytest.mark.parametrize("value", [0, -1, float("nan"), None, "1"])
def test_a_constant_that_is_no_number_above_0_is_refused(value):
    """Below 0 every gradient would be 0."""
    with pytest.raises(ValueError, match="constant clip of ste is a number above 0, got"):
        get("ste", clip=value)
    with pytest.raises(ValueError, match="unknown preset 'nope'; known, nearest first"):
        get("ste", preset="nope")


@pytest.mark.parametrize("name", BINARIZERS)
def test_every_binarizer_is_traced_in_evaluation(name):
    binarizer = get(name).eval()
    x = torch.randn(2, 3, 4, 4)
    traced = torch.jit.trace(binarizer, x)
    other = torch.randn(2, 3, 4, 4)
    assert torch.equal(traced(other), binarizer(other))
