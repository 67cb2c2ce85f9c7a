"""Classifiers that layers share, compiled, replicated, in other layouts."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from bnc_repro.binarizers.base import set_progress
from bnc_repro.binarizers.registry import get
from bnc_repro.images.networks import CLASSIFIERS
from bnc_repro.layers.binary import BinaryConv2d, BinaryLinear
from bnc_repro.layers.sharing import own_binarizers
from classifiers import relative


def test_each_layer_may_learn_its_own():
    """own_binarizers: as many classifiers as layers, none shared, each with its own gradient."""
    torch.manual_seed(0)
    network = CLASSIFIERS["resnet20"](
        num_classes=3, stem="half", width=4, blocks=(1, 1), weight_binarizer="mlp", activation_binarizer="approx_sign"
    )
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        before = network(x)
    own_binarizers(network)
    layers = [m for m in network.modules() if isinstance(m, BinaryConv2d)]
    assert len({id(layer.weight_binarizer) for layer in layers}) == len(layers) == 2
    with torch.no_grad():
        assert torch.equal(network(x), before)
    network(x).square().sum().backward()
    grads = [layer.weight_binarizer.layers[0].weight.grad for layer in layers]
    assert all(grad.abs().sum() > 0 for grad in grads)
    assert not torch.equal(*grads)


def test_a_network_learns_the_same_through_its_evaluator():
    """One evaluator a step for all layers: the gradients of every layer's own exact evaluation, in micro-batches."""
    torch.manual_seed(0)
    options = {"num_classes": 3, "channels": 1, "width": 4, "blocks": (1, 1), "activation_binarizer": "ste"}
    network = CLASSIFIERS["resnet20"](weight_binarizer=get("mlp"), **options).double()
    x = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    computed = {}
    for tabulated in (True, False):
        network.weight_binarizer.tabulated = tabulated
        network.zero_grad()
        for part in x.split(2):
            network(part).square().mean().backward()
        computed[tabulated] = [parameter.grad.clone() for parameter in network.parameters()]
    for ours, theirs in zip(*computed.values(), strict=True):
        assert relative(ours, theirs) < 1e-4


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
