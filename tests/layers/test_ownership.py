"""What follows for an nn.Module follows here: copies, pickles, moves, replicas, checkpointed parts, exports."""

import copy
import io
import pickle

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from torchvision.models.feature_extraction import create_feature_extractor

from bnc_repro import binarize, create_network
from bnc_repro.binarizers import get, set_progress
from bnc_repro.binarizers.base import Binarizer
from bnc_repro.layers import BinaryConv2d, BinaryLinear

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def two_layers() -> nn.Module:
    shared = get("mlp")
    return nn.Sequential(
        BinaryConv2d(3, 8, 3, padding=1, weight_binarizer=shared, activation_binarizer="ede"),
        nn.BatchNorm2d(8),
        BinaryConv2d(8, 8, 3, padding=1, weight_binarizer=shared, activation_binarizer="progressive"),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        BinaryLinear(8, 4, weight_binarizer=shared),
    )


def registry() -> nn.Module:
    return create_network(
        "resnet20", num_classes=4, width=4, blocks=(1, 1), weight_binarizer="mlp", activation_binarizer="ede"
    )


def converted() -> nn.Module:
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=4)
    binarize(model, weight_binarizer="mlp", activation_binarizer="ede")
    return model


def of_timm() -> nn.Module:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet10t", num_classes=4)
    binarize(model, weight_binarizer="mlp", activation_binarizer="ede")
    return model


MODELS = {"layers": two_layers, "registry": registry, "converted": converted, "timm": of_timm}


@pytest.fixture(params=MODELS)
def model(request) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def binarizers(model: nn.Module) -> list[Binarizer]:
    return [module for module in model.modules() if isinstance(module, Binarizer)]


def gradients(model: nn.Module) -> list[torch.Tensor]:
    model.zero_grad()
    model(X).square().sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_state_is_reached_through_the_module(model):
    """Progress, mode, type and device of every binarizer follow the model's."""
    assert binarizers(model)
    set_progress(model, 0.5)
    model.train().double()
    for binarizer in binarizers(model):
        assert binarizer.progress == 0.5
        assert binarizer.training
        assert all(parameter.dtype == torch.float64 for parameter in binarizer.parameters())
    model.to("meta")
    assert all(parameter.is_meta for binarizer in binarizers(model) for parameter in binarizer.parameters())


def test_a_copy_is_the_same_and_its_own(model):
    """deepcopy, pickle and state_dict give the same outputs; the copy shares nothing with it."""
    model(X).sum().backward()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(X), model(X))
        assert len(binarizers(other)) == len(binarizers(model))
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(2)
        assert not torch.equal(next(other.parameters()), next(model.parameters()))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again(X), model(X))


def test_a_model_is_copied_and_pickled_after_a_forward_that_failed(model):
    """An evaluator is no state: nothing of a step is left that cannot be pickled."""
    with pytest.raises(RuntimeError):
        model(X[:, :1])
    assert torch.equal(pickle.loads(pickle.dumps(copy.deepcopy(model)))(X), model(X))


def test_an_average_of_models_has_the_classifier_too(model):
    """EMA: after one update with decay 0 the average is the model."""
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    average.update_parameters(model)
    assert torch.equal(average(X), model(X))


def test_checkpointed_activations_give_the_same_gradients(model):
    """A part that is computed again in the backward pass finds the evaluator of its forward."""
    wanted = gradients(model)
    parts = [module for module in model.modules() if isinstance(module, BinaryConv2d)]
    for part in parts:
        forward = part.forward
        part.forward = lambda x, forward=forward: checkpoint(forward, x, use_reentrant=False)
    computed = gradients(model)
    assert len(computed) == len(wanted)
    for ours, theirs in zip(computed, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


class Parts(nn.Module):
    """Two binary layers in the middle, computed again in the backward pass."""

    reentrant = False

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(i, o, 3) for i, o in ((3, 8), (8, 8), (8, 8), (8, 4)))

    def forward(self, x):
        b = checkpoint(self.b, self.a(x), use_reentrant=self.reentrant)
        return self.d(checkpoint(self.c, b, use_reentrant=self.reentrant))


def evaluated_between(model, x):
    loss = model(x).square().sum()
    with torch.no_grad():
        model(x)
    return loss


def parts_after_the_whole(model, x):
    model(x).square().sum().backward()
    model.zero_grad()
    stages = nn.Sequential(model.a, model.b, model.c, model.d)
    return checkpoint_sequential(stages, 2, x, use_reentrant=False).square().sum()


def nested(model, x):
    if "outer" not in vars(model):
        outer = nn.Sequential(model, nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
        binarize(outer)
        vars(model)["outer"] = outer  # not as a child
    return model.outer(x).square().sum()


def reentrant(model, x):
    model.reentrant = True
    return model(x).square().sum()


@pytest.mark.parametrize("loss_of", [evaluated_between, parts_after_the_whole, nested, reentrant])
def test_a_part_computed_again_finds_what_its_forward_had(loss_of):
    """Evaluator or none, whatever was called between: the gradients are those without checkpointing."""
    torch.manual_seed(0)
    model, x = Parts(), X[:, :, :12, :12]
    binarize(model)
    loss_of(model, x).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    (model.outer if loss_of is nested else model).zero_grad()
    model.forward = lambda x: model.d(model.c(model.b(model.a(x))))
    (nested if loss_of is nested else lambda model, x: model(x).square().sum())(model, x).backward()
    for name, parameter in model.named_parameters():
        assert (found[name] - parameter.grad).norm() <= 1e-3 * parameter.grad.norm(), name


def test_scripting_is_refused_with_what_does_the_same(model):
    with pytest.raises(ValueError, match=r"cannot compile: take torch.jit.trace or torch.export"):
        torch.jit.script(model)


def test_bfloat16_models_compute(model):
    """A model in half precision gives finite outputs and gradients of its own type."""
    model.bfloat16()
    output = model(X.bfloat16())
    assert output.dtype == torch.bfloat16
    output.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_models_are_exported(model):
    """torch.export and tracing give the outputs of evaluation."""
    with torch.no_grad():
        exported = torch.export.export(model, (X,)).module()
        assert torch.equal(exported(X), model(X))
        assert torch.equal(torch.jit.trace(model, X)(X), model(X))


def test_frozen_classifiers_get_no_gradient(model):
    """requires_grad_(False) on the binarizers leaves the weights' gradients as they were."""
    wanted = dict(zip(dict(model.named_parameters()), gradients(model)))
    for binarizer in binarizers(model):
        binarizer.requires_grad_(False)
    model.zero_grad()
    model(X).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == ("binarizer" in name), name
        assert parameter.grad is None or torch.equal(parameter.grad, wanted[name])


def samples_alone(model: nn.Module) -> list[dict[str, torch.Tensor]]:
    """The gradients of each sample by a backward pass of its own."""
    alone = []
    for x in X.double():
        model.zero_grad()
        model(x[None]).square().sum().backward()
        alone.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    return alone


@pytest.mark.parametrize("weights", ["mlp", "ste", "dsq"])
def test_per_sample_gradients(model, weights):
    """torch.func's vmap of grad gives what a backward pass for each sample does, in double precision, where no sign
    lies within rounding of 0; a learnt F comes from no table there."""
    for layer in model.modules():
        # Without a table an MLP keeps a hundred numbers for each weight: layers of a million are ste's here.
        if isinstance(layer, (BinaryConv2d, BinaryLinear)) and (weights != "mlp" or layer.weight.numel() > 50_000):
            layer.weight_binarizer = get("ste" if weights == "mlp" else weights)
    model.double()
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())

    def loss(parameters: dict, x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, (parameters, buffers), (x[None],)).square().sum()

    together = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, X.double())
    for i, alone in enumerate(samples_alone(model)):
        for name, gradient in alone.items():
            largest = gradient.abs().max().clamp(min=1e-6)
            assert float((together[name][i] - gradient).detach().abs().max() / largest) < 0.02, name


def test_fx_takes_binary_layers_for_leaves(model):
    """Tracing and a feature extractor give the model's outputs, also after its weights have changed: nothing of them
    became a constant."""
    traced = torch.fx.symbolic_trace(model)
    name = next(name for name, module in model.named_modules() if isinstance(module, BinaryConv2d))
    features = create_feature_extractor(model, [name])
    with torch.no_grad():
        for own, other, third in zip(model.parameters(), traced.parameters(), features.parameters()):
            for parameter in {id(p): p for p in (own, other, third)}.values():
                parameter.neg_()
        assert torch.equal(traced(X), model(X))
        part = model.get_submodule(name)
        seen = []
        handle = part.register_forward_hook(lambda _, __, output: seen.append(output))
        model(X)
        handle.remove()
        assert torch.equal(features(X)[name], seen[0])


def test_empty_batches_pass(model):
    """As through torch's own layers, with a gradient and without."""
    for mode in (False, True):
        with torch.set_grad_enabled(mode):
            output = model(X[:0])
        assert output.shape == (0, 4)
    output.sum().backward()


def test_children_without_the_head_are_features():
    """nn.Sequential(*children[:-1]): the binarizers are no children of the model, its last child is its head."""
    model = converted().eval()
    assert nn.Sequential(*list(model.children())[:-1])(X).shape == (len(X), 512, 1, 1)
