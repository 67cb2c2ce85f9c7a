"""The learnt classifier: its rules, its presets and the released code's numbers."""

import json
from pathlib import Path

import pytest
import torch

from bnc_repro.binarizers.classifier import Classifier
from bnc_repro.binarizers.registry import PRESETS, get
from bnc_repro.layers.binary import BinaryConv2d
from classifiers import data, gradients, relative, steep


@pytest.mark.parametrize("tabulated", [True, False])
@pytest.mark.parametrize("rule", ["sum", "expected"])
@pytest.mark.parametrize("fields", [{"hidden": 0}, {"hidden": 9}])
def test_other_rules_are_autograd_on_their_formula(rule, fields, tabulated):
    """sum: F = f1 + f2; expected: the mean label under a softmax of f."""
    x, g = data(400)
    binarizer = steep(**fields, rule=rule, tabulated=tabulated, factor=1.0)
    ours = gradients(binarizer, x, g)
    leaf, weights = x.clone().requires_grad_(), [layer.weight for layer in binarizer.layers]
    value = leaf.flatten()[:, None] @ weights[0].T
    for weight in weights[1:]:
        value = torch.tanh(value) @ weight.T
    if rule == "expected":
        soft = (value.softmax(1) * torch.tensor([-1.0, 1.0], dtype=torch.float64)).sum(1)
    else:
        soft = value.sum(1)
    wanted = torch.autograd.grad((soft * g.flatten()).sum(), [leaf, *weights])
    for a, b in zip(ours, wanted, strict=True):
        assert relative(a, b) < (1e-4 if tabulated else 1e-9)


@pytest.mark.parametrize("rule", ["gated", "sum", "expected"])
@pytest.mark.parametrize("fields", [{"hidden": 0}, {"hidden": 20}])
def test_monotone_and_normalised_hold_under_every_rule(rule, fields):
    """F'(0) = 1 and F' >= 0 whatever the rule and the size."""
    grid = torch.linspace(-5, 5, 501, dtype=torch.float64)
    for seed in range(3):
        binarizer = steep(**fields, seed=seed, rule=rule, monotone=True, normalised=True)
        assert binarizer.derivative(grid.new_zeros(1)).item() == pytest.approx(1, abs=1e-9)
        assert (binarizer.derivative(grid) >= 0).all()


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


@pytest.mark.parametrize("preset", ["official", "fixed"])
@pytest.mark.parametrize("gates", [1.0, 2.0, 5.0])
def test_linear_starts_with_both_gates_where_it_is_told(preset, gates):
    """F' is one positive number within the gates and 0 beyond: 1 under `fixed`, under `official` the sum of two slopes
    that are 1 / gates."""
    x = torch.tensor([-1.01, -0.99, 0.0, 0.99, 1.01]) * gates
    slope = get("linear", preset=preset, gates=gates).derivative(x)
    inside = 1.0 if preset == "fixed" else 2 / gates
    assert slope.tolist() == pytest.approx([0, inside, inside, inside, 0])


def test_gates_at_two_are_moved_by_what_lies_beyond_them():
    """F = clamp(x, -1/w, 1/w) with w = |parameter| + 0.001 of both outputs: by hand, dF/dw = -sign(x) / w^2 beyond the
    gate, half of it to each output, and 0 within; random starts at 4 and 5 are reached by no x, and get 0."""
    x, g = torch.tensor([0.5, -1.5, 2.5, -3.0]).double(), torch.tensor([1.0, 2.0, 3.0, -4.0]).double()
    binarizer = get("linear", gates=2.0, tabulated=False).double()
    _, moved = gradients(binarizer, x, g)
    beyond = -(3.0 * 1 + -4.0 * -1) / 0.5**2
    assert moved.flatten().tolist() == pytest.approx([beyond / 2, beyond / 2], rel=1e-6)
    with torch.no_grad():
        binarizer.layers[0].weight.copy_(torch.tensor([[1 / 4], [1 / 5]]))
    _, still = gradients(binarizer, x, g)
    assert still.abs().max() < 1e-12


@pytest.mark.parametrize("fields", [{"gates": 0.5}, {"gates": 101.0}, {"gates": 2.0, "hidden": 4}, {"gates": -1.0}])
def test_gates_out_of_range_are_refused(fields):
    """Below 1 `normalised` would move them; hidden units have no gates of their own."""
    with pytest.raises(ValueError, match="gates is of the linear classifier, from 1 to 100"):
        Classifier(**{"hidden": 0} | fields)


@pytest.mark.parametrize("fields", [{"argmax": True}, {"rule": "sum"}, {"rule": "expected"}])
def test_gates_without_gates_are_refused(fields):
    """Two equal outputs: an argmax would call everything +1, `expected` would have no slope, `sum` no gate."""
    with pytest.raises(ValueError, match="gates starts both outputs alike"):
        Classifier(0, gates=2.0, **fields)


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


@pytest.mark.parametrize("tabulated", [True, False])
def test_official_is_the_released_module(tabulated):
    """One step of the released MetaConv_v2 within its convolution, with centring and scale, recorded as numbers."""
    recorded = json.loads((Path(__file__).parents[1] / "recorded" / "released_step.json").read_text())
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
        (layer.weight.grad, "weights_grad"),
        (binarizer.layers[0].weight.grad, "first_grad"),
        (binarizer.layers[1].weight.grad, "second_grad"),
    ):
        assert relative(found.flatten(), numbers[wanted]) < 1e-4
