"""Where a classifier's numbers come from when a network is loaded: the state, its start, or a new one."""

import logging

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from bnc_repro import binarize
from bnc_repro.binarizers import get
from bnc_repro.binarizers.base import Binarizer
from bnc_repro.layers import BinaryLinear


def make() -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))


def numbers(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for name, p in model.named_parameters() if "binarizer" in name]


def test_to_empty_leaves_a_start_that_is_there():
    with torch.device("meta"):
        model = make()
    binarize(model)
    before = numbers(model)
    model.to_empty(device="cpu").load_state_dict(make().state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before, numbers(model), strict=True))


@pytest.mark.parametrize("assign", [True, False])
def test_a_start_that_never_was_is_drawn(assign, caplog):
    """Of a classifier from meta, the same for all layers that share it, and said; one that was written is kept."""
    with torch.device("meta"):
        model = make()
        binarize(model, activation_binarizer="dsq")
    if not assign:
        model.to_empty(device="cpu")
        for parameter in model.parameters():
            parameter.data.fill_(1e6)
    with caplog.at_level(logging.INFO, "bnc_repro"):
        torch.manual_seed(3)
        model.load_state_dict(make().state_dict(), assign=assign)
    assert "starts anew" in caplog.text
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert model[1].activation_binarizer.sharpness.item() == pytest.approx(0.2)
    found = numbers(model)
    assert all(0 < value.abs().max() <= 1 for value in found)
    model(torch.randn(2, 8)).sum().backward()
    model.load_state_dict(make().state_dict())
    assert all(torch.equal(a, b) for a, b in zip(found, numbers(model), strict=True))


def test_a_class_of_ones_own_without_a_start_is_named():
    class Own(Binarizer):
        def __init__(self):
            super().__init__()
            self.width = nn.Parameter(torch.ones(()))

        def derivative(self, x):
            return (x.abs() <= self.width).to(x.dtype)

    with torch.device("meta"):
        model = nn.Sequential(BinaryLinear(8, 8, weight_binarizer=Own()))
    state = nn.Sequential(nn.Linear(8, 8)).state_dict()
    with pytest.raises(RuntimeError, match=r"0.weight_binarizer came from meta without a start.*reset_parameters"):
        model.load_state_dict(state, assign=True)


def test_starts_are_drawn_as_linear_layers_are():
    torch.manual_seed(0)
    wanted = [nn.Linear(1, 100, bias=False).weight, nn.Linear(100, 2, bias=False).weight]
    torch.manual_seed(0)
    binarizer = get("mlp")
    assert all(torch.equal(a, b) for a, b in zip(wanted, binarizer.parameters(), strict=True))
    torch.manual_seed(0)
    binarizer.reset_parameters()
    assert all(torch.equal(a, b) for a, b in zip(wanted, binarizer.parameters(), strict=True))
    gated = get("linear", gates=2.0)
    before = numbers(nn.ModuleDict({"binarizer": gated}))
    gated.layers[0].reset_parameters()
    assert torch.equal(before[0], gated.layers[0].weight)


def test_what_is_done_to_all_linear_layers_is_not_done_to_a_classifier():
    model = make()
    binarize(model)
    soft = model[1].weight_binarizer.soft(torch.tensor([0.1, 0.5]))
    for module in list(model.modules()):
        if isinstance(module, nn.Linear):
            parametrizations.spectral_norm(module)
    assert torch.equal(model[1].weight_binarizer.soft(torch.tensor([0.1, 0.5])), soft)
    model(torch.randn(2, 8)).sum().backward()


def test_a_child_of_the_networks_own_is_not_spread():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight_binarizer, self.body = get("mlp"), make()

        def forward(self, x):
            return self.body(x)

    first, second = Own(), Own()
    binarize(first)
    binarize(second)
    second.load_state_dict(first.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_the_state_of_step_one_loads_into_the_model_of_two_steps():
    """Operands count apart: activations are all there, weights keep their start; a half of one is refused."""
    first, second = make(), make()
    binarize(first, weight_binarizer=None, activation_binarizer="dsq")
    binarize(second, weight_binarizer="mlp", activation_binarizer="dsq")
    state, start = first.state_dict(), get("mlp")
    second[1].weight_binarizer.load_state_dict(start.state_dict())
    second.load_state_dict(dict(state))
    assert torch.equal(second[1].weight_binarizer.layers[0].weight, start.layers[0].weight)
    del state["2.activation_binarizer.sharpness"]
    with pytest.raises(ValueError, match="or take the keys with activation_binarizer out of it"):
        second.load_state_dict(state)
