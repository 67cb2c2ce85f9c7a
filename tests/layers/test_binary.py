"""Binary layers multiply two values and are torch's layers otherwise."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.overrides import TorchFunctionMode

from bnc_repro.binarizers.base import set_progress
from bnc_repro.binarizers.registry import get
from bnc_repro.images.networks import CLASSIFIERS
from bnc_repro.layers.binary import BinaryConv2d, BinaryLinear
from bnc_repro.poses.networks import POSENETS
from networks import BINARY, FLOAT, small

ENTRIES = [(CLASSIFIERS, name, {"num_classes": 5}) for name in CLASSIFIERS if name != "softmax_regression"]
ENTRIES += [(POSENETS, name, {"num_keypoints": 5}) for name in POSENETS]


NAMES = [name for _, name, _ in ENTRIES]


class Products(TorchFunctionMode):
    """Records the operands (input, weight) of every convolution and linear product that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.conv2d, nn.functional.linear):
            self.seen.append((args[0].detach(), args[1].detach()))
        return function(*args, **(kwargs or {}))


def two_valued(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether only -1 and +1 enter and every output channel multiplies by exactly two values, -a and a."""
    values = [channel.unique() for channel in weight.flatten(1)]
    pairs = all(len(v) == 2 and v[0] == -v[1] for v in values)
    return pairs and x.unique().tolist() == [-1, 1]


@pytest.mark.parametrize(("networks", "name", "outputs"), ENTRIES, ids=NAMES)
def test_every_binary_layer_multiplies_two_values(networks, name, outputs):
    """Each binary layer gets +-1 and two weights per channel; the float twin has no such product."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    for binary, share in ((BINARY, 1), (FLOAT, 0)):
        network = networks[name](width=4, **binary, **outputs)
        layers = [m for m in network.modules() if isinstance(m, BinaryConv2d)]
        with Products() as products:
            network(x).mean().backward()
        found = [two_valued(*operands) for operands in products.seen]
        floats = sum(type(m) in (nn.Conv2d, nn.Linear) and "binarizer" not in n for n, m in network.named_modules())
        assert len(layers) >= 16
        assert sum(found) == share * len(layers)
        assert len(found) == len(layers) + floats
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_binary_linear_is_two_valued_and_equals_the_formula():
    """BinaryLinear: y = sign(x) (mean|w_c| sign(w_c))^T + bias, w_c = w minus its mean per output."""
    layer = BinaryLinear(3, 2, weight_binarizer="ste", activation_binarizer="ste")
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0, 6.0], [0.0, 3.0, 0.0]]))
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
    # centred: (-2, -1, 3), scale 2; (-1, 2, -1), scale 4/3
    with Products() as products:
        y = layer(torch.tensor([[0.0, -3.0, 2.0]]))
    assert torch.allclose(y, torch.tensor([[2 * (-1 + 1 + 1) + 0.5, 4 / 3 * (-1 - 1 - 1) - 0.5]]))
    assert two_valued(*products.seen[0])


def test_the_scale_takes_no_gradient():
    """dL/dw is scale * g_w, centred per channel: the scale is a constant of the backward pass."""
    torch.manual_seed(0)
    layer = BinaryLinear(5, 2, bias=False, weight_binarizer="identity").double()
    x, g = torch.randn(4, 5).double(), torch.randn(4, 2).double()
    (layer(x) * g).sum().backward()
    centred = layer.weight.detach() - layer.weight.detach().mean(1, keepdim=True)
    wanted = centred.abs().mean(1, keepdim=True) * (g.T @ x)
    torch.testing.assert_close(layer.weight.grad, wanted - wanted.mean(1, keepdim=True))


def test_float_layers_are_torch_layers():
    """None for both binarizers is nn.Conv2d and nn.Linear to the last bit."""
    for made, plain in (
        (BinaryConv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)),
        (BinaryLinear(6, 4), nn.Linear(6, 4)),
    ):
        plain.load_state_dict(made.state_dict())
        x = torch.randn(2, 3, 5, 6)
        assert torch.equal(made(x), plain(x))


def test_standardised_weights_have_deviation_one():
    """standardize=True divides the centred weight by its deviation before it is binarized."""
    layer = BinaryConv2d(3, 4, 3, standardize=True, **BINARY)
    seen = layer.latent_weight().flatten(1)
    assert torch.allclose(seen.mean(1), torch.zeros(4), atol=1e-6)
    assert torch.allclose(seen.square().mean(1), torch.ones(4), atol=1e-4)


def test_layers_hold_their_binarizers_as_modules():
    """An instance is used and held; two layers that share one have its parameters once, and hear of progress."""
    shared = get("mlp")
    first = BinaryLinear(3, 2, weight_binarizer=shared, activation_binarizer="ede")
    layers = nn.Sequential(first, BinaryLinear(2, 2, weight_binarizer=shared))
    assert layers[0].weight_binarizer is layers[1].weight_binarizer is shared
    assert len(list(layers.parameters())) == 4 + len(list(shared.parameters()))
    set_progress(layers, 0.5)
    assert (shared.progress, layers[0].activation_binarizer.progress) == (0.5, 0.5)
    layers.double().eval()
    assert shared.layers[0].weight.dtype == torch.float64
    assert not shared.training


def test_a_forward_that_fails_leaves_no_evaluator_behind():
    """After an exception in the middle of the network a layer that is called directly evaluates F anew, for the weights
    that it has by then."""
    network, x = small(**BINARY), torch.randn(2, 3, 16, 16)
    layers = [module for module in network.modules() if isinstance(module, BinaryConv2d)]
    seen = []
    handle = layers[1].register_forward_pre_hook(lambda layer, inputs: seen.append(layer.evaluator) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        network(x)
    handle.remove()
    assert seen[0] is not None, "the evaluator was there when the forward failed"
    assert all(layer.evaluator is None for layer in layers)

    layer = layers[1]
    with torch.no_grad():
        layer.weight.mul_(30)
    inputs = torch.randn(2, layer.in_channels, 8, 8)
    layer(inputs).square().sum().backward()
    fresh = BinaryConv2d(
        layer.in_channels,
        layer.out_channels,
        3,
        padding=1,
        bias=False,
        weight_binarizer=network.weight_binarizer,
        activation_binarizer="approx_sign",
    )
    fresh.stride = layer.stride
    with torch.no_grad():
        fresh.weight.copy_(layer.weight)
    fresh(inputs).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, fresh.weight.grad, rtol=0, atol=0)


class _Thinned(nn.Module):
    """A parametrization that sets small weights to 0."""

    def forward(self, weight):
        return weight * (weight.abs() > 0.1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "thin",
    [
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: prune.ln_structured(layer, "weight", 0.5, n=2, dim=0),
        lambda layer: parametrize.register_parametrization(layer, "weight", _Thinned()),
    ],
    ids=["unstructured", "channels", "parametrized"],
)
@pytest.mark.parametrize("make", [lambda **b: BinaryConv2d(4, 6, 3, **b), lambda **b: BinaryLinear(8, 6, **b)])
def test_pruned_weights_are_refused_instead_of_coming_back(make, thin, training):
    """A mask's zeros would be binarized to -alpha or +alpha."""
    layer = make(weight_binarizer="mlp", activation_binarizer="approx_sign").train(training)
    thin(layer)
    with pytest.raises(ValueError, match="some weights of this layer are pruned"):
        layer(torch.randn(2, 8) if isinstance(layer, BinaryLinear) else torch.randn(2, 4, 5, 5))


def test_normed_weights_are_binarized_and_their_parts_learn():
    """weight_norm computes the weight too, and leaves no 0: two values a channel, gradients to both parts."""
    layer = BinaryConv2d(4, 6, 3, weight_binarizer="mlp", activation_binarizer="approx_sign")
    parametrizations.weight_norm(layer)
    layer(torch.randn(2, 4, 5, 5)).square().sum().backward()
    assert all(len(channel.unique()) == 2 for channel in layer.binary_weight().detach())
    parts = dict(layer.parametrizations.weight.named_parameters())
    assert len(parts) == 2
    with torch.no_grad():
        parts["original1"][:, 0] = 0  # a 0 of its own is nobody's mask
    assert layer(torch.randn(2, 4, 5, 5)).isfinite().all()
    assert all(part.grad is not None for part in parts.values())


def test_float_layers_may_be_pruned():
    """Where the weights stay float nothing is refused, nor where zeros are a parameter's own."""
    layer = BinaryConv2d(4, 6, 3, activation_binarizer="approx_sign")
    prune.l1_unstructured(layer, "weight", 0.5)
    assert layer(torch.randn(2, 4, 5, 5)).shape == (2, 6, 3, 3)
    layer = BinaryConv2d(4, 6, 3, weight_binarizer="ste")
    prune.identity(layer, "weight")
    assert layer(torch.randn(2, 4, 5, 5)).shape == (2, 6, 3, 3)
    prune.remove(layer, "weight")
    with torch.no_grad():
        layer.weight[:, :2] = 0
    assert layer(torch.randn(2, 4, 5, 5)).shape == (2, 6, 3, 3)


def test_one_image_is_a_batch_of_one():
    """recu_activation has units of each sample: one image's gradient is that of the batch that holds it."""
    torch.manual_seed(0)
    layer, x = BinaryConv2d(4, 4, 3, activation_binarizer="recu_activation"), torch.randn(1, 4, 5, 5)
    x[:, 1] *= 5
    batch, image = x.clone().requires_grad_(), x[0].clone().requires_grad_()
    layer(batch).square().sum().backward()
    layer(image).square().sum().backward()
    torch.testing.assert_close(image.grad, batch.grad[0])


def test_layers_of_one_weight_per_output_are_refused():
    """Centring would make them 0 for ever; float weights may be single."""
    for make in (lambda **b: BinaryLinear(1, 4, **b), lambda **b: BinaryConv2d(4, 4, 1, groups=4, **b)):
        with pytest.raises(
            ValueError, match="one weight, which centring makes 0 for ever: leave weight_binarizer None"
        ):
            make(weight_binarizer="ste")
        make(activation_binarizer="ste")


def test_layers_take_their_input_by_torchs_name():
    """A model may call its layers so, before and after it is made binary."""
    x = torch.randn(2, 8, 5, 5)
    conv, linear = BinaryConv2d(8, 4, 3, weight_binarizer="ste"), BinaryLinear(5, 3, weight_binarizer="ste")
    assert torch.equal(conv(input=x), conv(x))
    assert torch.equal(linear(input=x), linear(x))
