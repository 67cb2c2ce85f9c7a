"""Nothing is left on the CPU: every network and every estimator trains a step wherever it is moved.

On torch's `meta` device there are shapes without values, so that a tensor left on the CPU is an error there as it is on
a GPU. With CUDA (mark `cuda`, `benchmarks/on_a_gpu.sh`) the same steps run and agree with the CPU.
"""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from bnc_repro.binarizers.registry import BINARIZERS
from bnc_repro.images.networks import CLASSIFIERS
from bnc_repro.poses.networks import POSENETS
from networks import BINARY, small

cuda = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICES = ["meta", pytest.param("cuda", marks=cuda)]


@pytest.fixture(autouse=True)
def meta_without_autocast(monkeypatch):
    """torch knows no lower precision on `meta` and refuses to be told that there is none."""
    autocast = torch.autocast

    def known_devices(kind, *words, **more):
        return nullcontext() if kind == "meta" else autocast(kind, *words, **more)

    monkeypatch.setattr(torch, "autocast", known_devices)


def step(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The output of a training step with a plain squared loss and Adam; its gradients stay."""
    output = network(x)
    output.square().mean().backward()
    torch.optim.Adam(network.parameters(), lr=1e-3).step()
    return output.detach()


def agrees(make, x: torch.Tensor, device: str) -> None:
    """A step of the network on `device` leaves everything there, and on CUDA gives what the CPU gives."""
    torch.manual_seed(0)
    network = make()
    network(x)  # a lazy layer learns its size
    reference = make()
    reference(x)
    reference.load_state_dict(network.state_dict())
    network.to(device)
    output = step(network, x.to(device))
    state = {**dict(network.named_parameters()), **dict(network.named_buffers()), "output": output}
    assert {tensor.device.type for tensor in state.values()} == {device}
    assert all(p.grad is None or p.grad.device.type == device for p in network.parameters())
    expected = step(reference, x)
    assert output.shape == expected.shape
    if device == "cuda":
        # A sum next to 0 may fall on the other side of it there, and its sign enters the next layer.
        close = torch.isclose(output.cpu(), expected, rtol=1e-2, atol=1e-2)
        assert close.double().mean() > 0.95


NETWORKS = [(CLASSIFIERS, name, {"num_classes": 5}) for name in CLASSIFIERS]
NETWORKS += [(POSENETS, name, {"num_keypoints": 5}) for name in POSENETS]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("networks", "name", "outputs"), NETWORKS, ids=[name for _, name, _ in NETWORKS])
def test_every_network_trains_a_step_on_its_device(networks, name, outputs, device):
    agrees(lambda: networks[name](width=4, **BINARY, **outputs), torch.randn(2, 3, 64, 64), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("operand", ["weight_binarizer", "activation_binarizer"])
@pytest.mark.parametrize("name", BINARIZERS)
def test_every_estimator_trains_a_step_on_its_device(name, operand, device):
    binary = {"weight_binarizer": "ste", "activation_binarizer": "ste"} | {operand: name}
    agrees(lambda: small(**binary), torch.randn(2, 3, 16, 16), device)


def test_a_tensor_left_on_the_cpu_is_noticed():
    class Left(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.constant = torch.ones(3)

        def forward(self, x):
            return x * self.weight + self.constant

    with pytest.raises(RuntimeError, match="device"):
        agrees(Left, torch.ones(2, 3), "meta")
