"""The classifier through its table, against its exact evaluation."""

import copy
import math

import pytest
import torch

from bnc_repro.binarizers import table
from bnc_repro.binarizers.classifier import Classifier
from bnc_repro.binarizers.registry import PRESETS, get
from bnc_repro.binarizers.table import Range
from bnc_repro.images.networks import CLASSIFIERS
from bnc_repro.images.pictures import normalise
from bnc_repro.images.sets import load
from bnc_repro.layers.binary import BinaryConv2d
from bnc_repro.recipe.profiles import recipe_of
from classifiers import data, gradients, relative, steep


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


@pytest.mark.parametrize(("hidden", "rule"), [(0, "gated"), (0, "sum"), (0, "expected"), (9, "gated")])
def test_a_classifier_that_says_nothing_has_no_gradient(hidden, rule):
    """All weights 0: F is 0 everywhere, and so is dx; the parameters' gradients are the exact ones."""
    x, g = data(400)
    binarizer, exact = (Classifier(hidden, rule=rule, tabulated=tabulated).double() for tabulated in (True, False))
    for layer in (*binarizer.layers, *exact.layers):
        torch.nn.init.zeros_(layer.weight)
    assert not binarizer(x.requires_grad_()).sum().isnan()
    ours = gradients(binarizer, x.detach(), g)
    for computed, wanted in zip(ours, gradients(exact, x.detach(), g), strict=True):
        torch.testing.assert_close(computed, wanted)


@pytest.mark.parametrize("layout", ["as made", "channels_last", "transposed", "a slice"])
def test_tables_take_tensors_of_any_size_and_layout(layout, monkeypatch):
    """Several tensors through one table, in parts that neither threads nor sizes divide, have the exact gradients."""
    monkeypatch.setattr(table, "PART", 50)
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 5, 3, 3), (1, 1, 1, 1), (4, 8, 2, 2)]
    xs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    gs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    xs = [
        {
            "as made": lambda x: x,
            "channels_last": lambda x: x.to(memory_format=torch.channels_last),
            "transposed": lambda x: x.transpose(0, 1).clone().transpose(0, 1),
            "a slice": lambda x: torch.stack([x, x], -1)[..., 0],
        }[layout](x).requires_grad_()
        for x in xs
    ]
    tabulated = steep(20, factor=1.5)
    exact = steep(20, factor=1.5, tabulated=False)
    found, wanted = (
        torch.autograd.grad([binarizer(x, evaluator) for x in xs], [*xs, *binarizer.parameters()], gs)
        for binarizer, evaluator in ((tabulated, tabulated.evaluator([Range.of(x) for x in xs])), (exact, None))
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
    data = load(recipe_of("imagenet_resnet", "sample").data, train=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for step in range(30):
        batch = data.__getitems__(list(range(step * 32, step * 32 + 32)))
        x = normalise(batch["image"], "fashion_mnist")
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
