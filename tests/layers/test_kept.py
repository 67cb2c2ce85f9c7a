"""In evaluation a binary weight is computed once, and is at each call what computing it anew gives, to the last bit."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from bnc_repro import create_network
from bnc_repro.binarizers import BINARIZERS, get
from bnc_repro.binarizers.base import Binarizer
from bnc_repro.layers import BinaryConv2d, BinaryLinear
from bnc_repro.layers import binary as layers_binary

X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def layer(weight_binarizer="mlp", **options) -> BinaryConv2d:
    torch.manual_seed(0)
    return BinaryConv2d(4, 6, 3, padding=1, weight_binarizer=weight_binarizer, **options).eval()


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """Grows by one each time a binary weight is computed, which takes one scale."""
    calls: list[int] = []
    scale = layers_binary.channel_scale
    monkeypatch.setattr(layers_binary, "channel_scale", lambda weight: calls.append(1) or scale(weight))
    return calls


def anew(conv: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    """The output of a copy, which keeps nothing."""
    with torch.no_grad():
        return copy.deepcopy(conv)(x)


@pytest.mark.parametrize("name", BINARIZERS)
@pytest.mark.parametrize("standardize", [False, True])
def test_each_binarizer_computes_once_and_the_same(name, standardize, computed):
    """Three evaluations, in no_grad and inference_mode, binarize once and equal the first, bit by bit."""
    conv = layer(name, standardize=standardize)
    with torch.no_grad():
        first = conv(X)
        assert torch.equal(conv(X), first)
    with torch.inference_mode():
        assert torch.equal(conv(X), first)
    assert len(computed) == 1
    assert torch.equal(anew(conv), first)


def test_a_frozen_layer_keeps_its_weight_where_gradients_flow_through_it(computed):
    """Gradients of the input pass a kept weight, also one that inference_mode was first to ask for; a weight that wants
    its own gradient is computed at each call and gets it."""
    conv, x = layer().requires_grad_(False), X.clone().requires_grad_()
    with torch.inference_mode():
        conv(X)
    (gradient,) = torch.autograd.grad(conv(x).square().sum(), x)
    assert len(computed) == 1
    weight = conv.kept_weight._value
    wanted = torch.autograd.grad(nn.functional.conv2d(x, weight, conv.bias, padding=1).square().sum(), x)[0]
    assert torch.equal(gradient, wanted)
    conv.requires_grad_(True)
    conv(X).square().sum().backward()
    assert conv.weight.grad.abs().sum() > 0
    assert len(computed) == 2


def one_step(conv: BinaryConv2d) -> None:
    optimizer = torch.optim.Adam(conv.parameters(), lr=1.0)
    conv(X).square().sum().backward()
    optimizer.step()


def copied(conv: BinaryConv2d) -> None:
    with torch.no_grad():
        for target, source in zip(conv.parameters(), layer_of_seed(5).parameters()):
            target.copy_(source)


def layer_of_seed(seed: int) -> BinaryConv2d:
    torch.manual_seed(seed)
    return BinaryConv2d(4, 6, 3, padding=1, weight_binarizer="mlp")


def flattened(conv: BinaryConv2d) -> None:
    """The weight becomes a view of a buffer, is judged, and the buffer is written."""
    buffer = conv.weight.detach().flatten().clone()
    conv.weight.data = buffer.view_as(conv.weight)
    with torch.no_grad():
        conv(X)
    buffer.mul_(-2)


def mutated(conv: BinaryConv2d) -> None:
    with torch.no_grad():
        conv.binary_weight().zero_()


CHANGES = {
    "an optimizer's step": one_step,
    "an average's copy_": copied,
    "load_state_dict": lambda conv: conv.load_state_dict(layer_of_seed(5).state_dict()),
    "load_state_dict, assigned": lambda conv: conv.load_state_dict(layer_of_seed(5).state_dict(), assign=True),
    "another parameter": lambda conv: setattr(conv, "weight", layer_of_seed(5).weight),
    "other memory": lambda conv: setattr(conv.weight, "data", layer_of_seed(5).weight.data),
    "a number of .data, then eval": lambda conv: (conv.weight.data.neg_(), conv.eval()),
    "a number of .data": lambda conv: conv.weight.data.neg_(),
    "an average's .data.copy_": lambda conv: conv.weight.data.copy_(layer_of_seed(5).weight.data),
    "NumPy's view": lambda conv: conv.weight.detach().numpy().__imul__(-2),
    "a flat buffer": flattened,
    "another binarizer": lambda conv: setattr(conv, "weight_binarizer", get("siman")),
    "a fill by _foreach": lambda conv: torch._foreach_mul_([conv.weight.detach()], -2.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen(change, computed):
    """After each kind of change the output is a copy's, which keeps nothing, and no longer the one before."""
    conv = layer()
    with torch.no_grad():
        before = conv(X)
    change(conv)
    count = len(computed)
    with torch.no_grad():
        after = conv(X)
    assert len(computed) == count + 1
    assert torch.equal(after, anew(conv))
    assert not torch.equal(after, before)


def test_a_user_may_write_into_what_he_is_handed():
    """Zeroing the binary weight that was returned leaves the layer as it is."""
    conv = layer()
    with torch.no_grad():
        before = conv(X)
        mutated(conv)
        assert torch.equal(conv(X), before)


def test_what_the_binarizer_has_learnt_or_is_set_to_counts():
    """With argmax the sign of a weight is the classifier's choice; biper's forward has its frequency."""
    conv = layer(get("linear", preset="paper", monotone=False))
    with torch.no_grad():
        before = conv(X)
        conv.weight_binarizer.layers[0].weight.neg_()
        assert torch.equal(conv(X), anew(conv))
        assert not torch.equal(conv(X), before)
    conv = layer("biper")
    with torch.no_grad():
        before = conv(X)
        conv.weight_binarizer.options["frequency"] = 300.0
        after = conv(X)
        assert not torch.equal(after, before)
        conv.standardize = True
        assert not torch.equal(conv(X), after)
        assert torch.equal(conv(X), anew(conv))


def test_a_type_and_a_place_count():
    """After .double() and back the layer computes in the type that it has."""
    conv = layer()
    with torch.no_grad():
        conv(X)
        conv.double()
        assert conv.binary_weight().dtype == torch.float64
        assert torch.equal(conv(X.double()), anew(conv, X.double()))
        hand_made = layer("ste")
        hand_made(X)
        hand_made.to("meta")
        assert hand_made(X.to("meta")).is_meta


def test_it_is_no_state():
    """A kept weight is in no state_dict, pickle or copy, and train() drops it."""
    conv = layer()
    size, keys = len(pickle.dumps(conv)), list(conv.state_dict())
    with torch.no_grad():
        conv(X)
    assert conv.kept_weight is not None
    assert len(pickle.dumps(conv)) == size
    assert list(conv.state_dict()) == keys
    assert copy.deepcopy(conv).kept_weight is None
    assert pickle.loads(pickle.dumps(conv)).kept_weight is None
    assert conv.train().kept_weight is None


def test_functional_calls_and_ensembles_have_the_weights_they_are_called_with():
    """functional_call uses the weights handed over and leaves the layer's; vmap maps over several."""
    conv, others = layer(), [layer_of_seed(seed).eval() for seed in (5, 6)]
    with torch.no_grad():
        before = conv(X)
        for other in others:
            state = {name: value.detach() for name, value in other.named_parameters()}
            assert torch.equal(torch.func.functional_call(conv, state, (X,)), anew(other))
        stacked, _ = torch.func.stack_module_state(others)
        mapped = torch.vmap(lambda state: torch.func.functional_call(conv, state, (X,)))(stacked)
        torch.testing.assert_close(mapped, torch.stack([anew(other) for other in others]))
        assert torch.equal(conv(X), before)


def test_a_computed_weight_is_computed_at_each_call():
    """A parametrization with a state of its own is asked each time."""

    class Times(nn.Module):
        factor = 1.0

        def forward(self, weight):
            return weight * self.factor

    conv, times = layer(), Times()
    parametrize.register_parametrization(conv, "weight", times)
    with torch.no_grad():
        before = conv(X)
        times.factor = -3.0
        after = conv(X)
    assert torch.equal(after, anew(conv))
    assert not torch.equal(after, before)


def test_code_of_somebodys_own_is_run_at_each_call(computed):
    """A binarizer with a forward of its own may be random; one that only has a derivative of its own is sign."""

    class Coin(Binarizer):
        def hard(self, x):
            return torch.randint(0, 2, x.shape).to(x.dtype) * 2 - 1

    class Triangle(Binarizer):
        def derivative(self, x):
            return (1 - x.abs()).clamp(min=0)

    with torch.no_grad():
        coin = layer(Coin())
        assert not torch.equal(coin(X), coin(X))
        assert len(computed) == 2
        triangle = layer(Triangle())
        assert torch.equal(triangle(X), triangle(X))
        assert len(computed) == 3
        triangle.weight_binarizer.register_forward_hook(lambda *_: None)
        triangle(X)
        triangle(X)
        assert len(computed) == 5


def test_memory_that_other_processes_write_is_read_at_each_call():
    """A shared weight changes without a trace in this process, as NumPy's view of it shows."""
    conv = layer().share_memory()
    with torch.no_grad():
        before = conv(X)
        conv.weight.detach().numpy()[:] *= -1
        assert torch.equal(conv(X), anew(conv))
        assert not torch.equal(conv(X), before)


def test_replicas_have_their_own():
    """A replica, as DataParallel makes it, starts from the layer's attributes and has other tensors."""
    conv = layer()
    with torch.no_grad():
        before = conv(X)
        replica = conv._replicate_for_data_parallel()
        replica._parameters = dict(conv._parameters, weight=-2 * conv.weight)
        assert not torch.equal(replica(X), before)
        assert torch.equal(conv(X), before)


def test_traces_and_exports_follow_the_weight():
    """A trace and an exported program of an evaluated layer hold its latent weight, not what the layer kept."""
    conv = layer()
    with torch.no_grad():
        before = conv(X)
        traced = torch.jit.trace(conv, X)
        exported = torch.export.export(conv, (X,)).module()
        compiled = torch.compile(conv, backend="eager", fullgraph=True)
        assert all(torch.equal(program(X), before) for program in (traced, exported, compiled))
        conv.weight.neg_()
        assert torch.equal(compiled(X), anew(conv))
        for program in (traced, exported):
            program.load_state_dict(conv.state_dict())
            assert torch.equal(program(X), anew(conv))


def test_a_linear_layer_and_a_network_keep_theirs(computed):
    """BinaryLinear keeps as the convolution does; a network computes as many weights as it has binary layers."""
    dense = BinaryLinear(8, 4, weight_binarizer="ste").eval()
    x = torch.randn(3, 8)
    with torch.no_grad():
        assert torch.equal(dense(x), dense(x))
    assert len(computed) == 1
    network = create_network(
        "resnet20", num_classes=4, width=4, blocks=(1, 1), weight_binarizer="mlp", activation_binarizer="ede"
    ).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        first = network(images)
        assert torch.equal(network(images), first)
    assert len(computed) == 1 + sum(isinstance(module, BinaryConv2d) for module in network.modules())
    assert torch.equal(anew(network, images), first)
