"""Derivatives by every way of torch: first ones are right, in forward mode too, and second ones are refused."""

import pytest
import torch
from torch.autograd import forward_ad

from bnc_repro.binarizers.base import Binarizer
from bnc_repro.binarizers.registry import BINARIZERS, get
from bnc_repro.layers import BinaryConv2d, BinaryLinear

NAMES = [name for name in BINARIZERS if name not in ("scaled_ste", "adaste")]
X = torch.tensor([[0.3, -0.2, 0.7], [1.4, -0.6, -2.5]], dtype=torch.float64)
T = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]], dtype=torch.float64)
KINDS = {
    "ste": lambda: get("ste"),
    "dsq": lambda: get("dsq"),
    "table": lambda: get("mlp"),
    "exact": lambda: get("mlp", tabulated=False),
}
SECOND = {
    "jacrev of grad": lambda f, x: torch.func.jacrev(torch.func.grad(f))(x),
    "jacfwd of grad": lambda f, x: torch.func.jacfwd(torch.func.grad(f))(x),
    "grad of grad": lambda f, x: torch.func.grad(lambda x: torch.func.grad(f)(x).sum())(x),
    "hessian": lambda f, x: torch.autograd.functional.hessian(f, x),
    "hvp": lambda f, x: torch.autograd.functional.hvp(f, x, torch.ones_like(x)),
    "allow_unused": lambda f, x: torch.autograd.grad(graph(f, x), x, allow_unused=True),
    "backward": lambda f, x: graph(f, x).backward(),
}


def graph(f, x: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(f(x.requires_grad_()), x, create_graph=True)[0].sum()


@pytest.mark.parametrize("second", SECOND.values(), ids=SECOND)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("loss", [lambda y: y.sum(), lambda y: y.square().sum()], ids=["sum", "squares"])
def test_second_derivatives_are_refused(kind, second, loss):
    """One sentence by every way, also where the gradient that comes in is a constant, never zeros."""
    binarizer = kind().double()
    with pytest.raises(RuntimeError, match="a binarizer has no second derivative"):
        second(lambda x: loss(binarizer(x)), X.clone())


def test_second_order_through_a_network_is_refused():
    """MAML's second order through torch.func, whose inner gradients are of the weights."""
    layers = [BinaryLinear(3, 3, weight_binarizer="mlp", activation_binarizer="ste"), torch.nn.Linear(3, 2)]
    model = torch.nn.Sequential(*layers).double()
    state = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(state: dict) -> torch.Tensor:
        return torch.func.functional_call(model, state, (X,)).square().sum()

    def adapted(state: dict) -> torch.Tensor:
        inner = torch.func.grad(loss)(state)
        return loss({name: state[name] - 0.1 * inner[name] for name in state})

    with pytest.raises(RuntimeError, match="a binarizer has no second derivative"):
        torch.func.grad(adapted)(state)


def test_a_graph_of_gradients_that_nobody_differentiates_is_free():
    """create_graph=True gives the gradients of a plain backward pass, which may be written in place."""
    for kind in KINDS.values():
        binarizer, x = kind().double(), X.clone().requires_grad_()
        (plain,) = torch.autograd.grad(binarizer(x).square().sum(), x)
        (first,) = torch.autograd.grad(binarizer(x).square().sum(), x, create_graph=True)
        assert torch.equal(plain, first)
        with torch.no_grad():
            first.mul_(2)


@pytest.mark.parametrize("grad_mode", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_gives_the_derivative_times_the_tangent(name, grad_mode):
    """torch.func.jvp and dual tensors, also under no_grad and in evaluation: d(x) t."""
    binarizer = get(name).double()
    slope = binarizer.derivative(X).detach()
    with torch.set_grad_enabled(grad_mode):
        for training in (True, False):
            binarizer.train(training)
            value, tangent = torch.func.jvp(binarizer, (X,), (T,))
            torch.testing.assert_close(tangent, slope * T)
            assert torch.equal(value, binarizer(X))
            with forward_ad.dual_level():
                pair = forward_ad.unpack_dual(binarizer(forward_ad.make_dual(X, T)))
            torch.testing.assert_close(pair.tangent, slope * T)


def test_forward_mode_of_dsqs_sharpness():
    """dF/da, by differences of F, and both tangents at once."""
    binarizer, x = get("dsq").double(), X.clamp(-0.9, 0.9)
    a, step = binarizer.sharpness.detach(), 1e-6

    def call(x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(binarizer, {"sharpness": a}, (x,))

    def soft(a: torch.Tensor) -> torch.Tensor:
        _, s, k = binarizer.constants(a)
        return s * torch.tanh(x * k)

    slope = (soft(a + step) - soft(a - step)) / (2 * step)
    tangent = torch.func.jvp(call, (x, a), (T, torch.ones_like(a)))[1]
    torch.testing.assert_close(tangent, slope + binarizer.derivative(x).detach() * T, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["scaled_ste", "adaste"])
def test_rules_have_no_forward_mode(name):
    """A rule that looks at the gradient is refused in one sentence, with gradients and without."""
    for grad_mode in (True, False):
        with torch.set_grad_enabled(grad_mode), pytest.raises(RuntimeError, match="no forward-mode derivative: take"):
            torch.func.jvp(get(name).double(), (X,), (T,))


def test_one_of_your_own_has_forward_mode_by_its_derivative():
    """To override `derivative` is enough."""

    class Triangle(Binarizer):
        def derivative(self, x):
            return (1 - x.abs()).clamp(min=0)

    tangent = torch.func.jvp(Triangle(), (X,), (T,))[1]
    torch.testing.assert_close(tangent, (1 - X.abs()).clamp(min=0) * T)


@pytest.mark.parametrize("name", BINARIZERS)
def test_ensembles_are_mapped(name):
    """vmap over the weights of two layers gives what each gives alone."""
    torch.manual_seed(0)
    layers = [BinaryConv2d(4, 4, 3, weight_binarizer=name).double() for _ in range(2)]
    state, _ = torch.func.stack_module_state(layers)
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    together = torch.func.vmap(lambda state: torch.func.functional_call(layers[0], state, (x,)))(state)
    torch.testing.assert_close(together, torch.stack([layer(x) for layer in layers]))
