"""Names, presets, options, and what every binarizer has in common."""

import operator

import pytest
import torch

from bnc_repro.binarizers.base import Binarizer, set_progress
from bnc_repro.binarizers.classifier import Classifier
from bnc_repro.binarizers.hand_made import Surrogate
from bnc_repro.binarizers.registry import BINARIZERS, PRESETS, get
from bnc_repro.binarizers.sign import sign
from classifiers import gradients


def test_gradients_of_gradients_are_refused():
    """A second derivative of a binarizer stops with an error instead of a wrong number."""
    for binarizer in (get("ste"), get("mlp"), get("mlp", tabulated=False), get("dsq")):
        x = torch.tensor([0.3, -0.2], requires_grad=True)
        (first,) = torch.autograd.grad((binarizer(x) * x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="a binarizer has no second derivative"):
            first.sum().backward()


@pytest.mark.parametrize("name", ["ste", "mlp", "dsq"])
def test_empty_inputs_pass(name):
    """As through torch's own functions."""
    empty = torch.zeros(0, 3, requires_grad=True)
    get(name)(empty).sum().backward()
    assert empty.grad.shape == (0, 3)


def test_complex_inputs_are_refused():
    """A complex tensor stops with a sentence."""
    with pytest.raises(ValueError, match=r"torch\.complex64"):
        get("ste")(torch.zeros(2, dtype=torch.complex64))


@pytest.mark.parametrize("name", ["ste", "mlp"])
def test_integer_input_is_refused(name):
    """A tensor of integers stops with its type and the remedy."""
    with pytest.raises(ValueError, match=r"got a tensor of torch.int64; convert it with .float\(\)"):
        get(name)(torch.tensor([1, -1]))


@pytest.mark.parametrize("name", ["ste", "mlp", "dsq"])
def test_sparse_and_eight_bit_inputs_are_refused(name):
    """One sentence with the remedy, whatever the layout."""
    for sparse in (torch.eye(2).to_sparse(), torch.eye(2).to_sparse_csr()):
        with pytest.raises(
            ValueError, match=r"dense tensors, got one of torch.sparse_\w+; convert it with .to_dense\(\)"
        ):
            get(name)(sparse)
    with pytest.raises(ValueError, match=r"got a tensor of torch.float8_e4m3fn; convert it with .float\(\)"):
        get(name)(torch.ones(2).to(torch.float8_e4m3fn))


def test_all_zero_and_single_inputs_are_binarized():
    """A table over inputs that are all 0, and over one number, still gives +1 and finite gradients."""
    for x in (torch.zeros(5), torch.tensor([-2.0]), torch.zeros(())):
        for grad in gradients(get("mlp"), x, torch.ones_like(x)):
            assert grad.isfinite().all()
        assert torch.equal(get("mlp")(x), sign(x))


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
    with pytest.raises(ValueError, match="unknown preset 'officiall'; known, nearest first: official"):
        get("mlp", preset="officiall")
    with pytest.raises(ValueError, match="hidden must be 0"):
        Classifier(-1)
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


@pytest.mark.parametrize("name", BINARIZERS)
def test_an_exported_evaluation_holds_no_backward_and_the_same_values(name):
    """torch.export with gradients switched on: no node of ours, and the values of the binarizer itself; a binarizer in
    training keeps its backward there."""
    torch.manual_seed(0)
    binarizer, x = get(name).eval(), torch.randn(4, 3, 5, 5)
    program = torch.export.export(binarizer, (x,))
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert calls
    assert {getattr(target, "namespace", target) for target in calls} <= {"aten", operator.getitem}
    assert torch.equal(program.module()(x), binarizer(x))
    y = binarizer.requires_grad_(False)(x.requires_grad_())
    assert y.grad_fn is not None, "evaluation outside of an export still passes gradients on"


@pytest.mark.parametrize(
    ("given", "shown"), [(3, "int"), (torch.nn.ReLU(), "ReLU"), (Surrogate, "Surrogate"), (["ste"], "list")]
)
def test_what_is_neither_name_nor_binarizer_is_refused(given, shown):
    with pytest.raises(ValueError, match=rf"a name such as 'ste', .* an instance of Binarizer or .*, not {shown}$"):
        get(given)
