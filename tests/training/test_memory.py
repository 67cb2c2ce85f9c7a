"""What a run takes in memory, counted before any of it is taken."""

import resource
from dataclasses import replace

import pytest
import torch

from bnc_repro.images.task import make_network
from bnc_repro.poses import task as poses
from bnc_repro.recipe.build import make_recipe
from bnc_repro.run.execute import run
from bnc_repro.training import memory
from runs import CPU

MIB = 2**20


def need(monkeypatch, recipe, make=make_network):
    """The MiB that `check_training` asks for, and the sentence that says of what."""
    asked = []
    monkeypatch.setattr(memory, "refuse_above", lambda mib, what, remedy, device: asked.append((mib, what)))
    memory.check_training(recipe, make, CPU)
    return asked[0]


def softmax(**values):
    return make_recipe(
        experiment="linear_vs_soft", network="softmax_regression", weight_binarizer=None, activation_binarizer=None,
        **values,
    )  # fmt: skip


@pytest.mark.parametrize(("optimizer", "copies"), [("adam", 4), ("adamw", 4), ("sgd", 3)])
def test_weights_count_with_what_the_optimizer_keeps(monkeypatch, optimizer, copies):
    """28 x 28 pixels and a bias, float32; one logit for each of the batch's images."""
    mib, what = need(monkeypatch, softmax(optimizer=optimizer, batch_size=8))
    assert mib * MIB == 785 * 4 * copies + 8 * 4
    assert "0.0 million weights" in what
    assert "each of 8 images at once" in what


def test_a_micro_batch_is_what_is_there_at_once(monkeypatch):
    """`accumulate` divides the images, 16-bit training halves what layers put out, the weights stay."""
    recipe = make_recipe(experiment="linear_vs_soft", network="resnet20", weight_binarizer="mlp", batch_size=64)
    whole = need(monkeypatch, recipe)[0]
    quarter = need(monkeypatch, replace(recipe, accumulate=4))[0]
    half = need(monkeypatch, replace(recipe, precision="bfloat16"))[0]
    none = need(monkeypatch, replace(recipe, batch_size=1, accumulate=1))[0]
    per_image = (whole - none) / 63
    assert whole - quarter == pytest.approx(48 * per_image)
    assert whole - half == pytest.approx(32 * per_image, rel=1e-6)


def test_layers_put_out_what_hooks_of_a_real_pass_see(monkeypatch):
    """By a forward pass of the float network on the CPU: every innermost module but identities."""
    recipe = make_recipe(experiment="linear_vs_soft", network="resnet20", width=8, weight_binarizer="ste", batch_size=5)
    made = make_network(replace(recipe, weight_binarizer=None, activation_binarizer=None), 1)
    seen = []
    for module in made.modules():
        if not list(module.children()) and not isinstance(module, torch.nn.Identity):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.nbytes))
    made(torch.zeros(1, 1, 28, 28))
    weights = sum(parameter.nbytes for parameter in made.parameters())
    assert need(monkeypatch, recipe)[0] * MIB == 4 * weights + 5 * sum(seen)


def test_it_takes_nothing_and_leaves_no_hook(monkeypatch):
    """A network that needs gigabytes is counted at once, of poses too, and the process holds no more than before."""
    recipe = make_recipe(
        experiment="coco_pose", network="sbpn", width=4096, blocks=[1], head=4096, stem="imagenet",
        data={"kind": "coco", "image_size": [256, 192]},
    )  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mib, what = need(monkeypatch, recipe, poses.make_network)
    assert mib > 4 * 4 * 9 * 4096 * 4096 / MIB  # four copies of one convolution's weights
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100
    assert "million weights" in what
    assert not torch.nn.modules.module._global_forward_hooks


def test_a_network_that_no_memory_holds_is_a_sentence(tmp_path):
    """Before any data is read: there is none in this folder."""
    wide = {"network": "resnet20", "stem": "full", "width": 4096, "batch_size": 4096}
    recipe = make_recipe(
        experiment="imagenet_resnet", weight_binarizer="ste", **wide,
        data={"kind": "cifar10", "root": str(tmp_path), "image_size": [1024, 1024]},
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"has \d+\.\d million weights, and its layers put out .* MiB for each of 4096"
    ):
        run(recipe, tmp_path)


def test_an_evaluation_takes_a_gib_of_images_at_most():
    assert memory.evaluation_batch(500, (224, 224)) == 500
    assert memory.evaluation_batch(128, (4096, 4096)) == 5
    assert memory.evaluation_batch(128, (2**16, 2**16)) == 1


def test_what_just_fits_is_taken(monkeypatch):
    """The bound is all of the device's memory; where that is unknown nothing is refused."""
    monkeypatch.setattr(memory, "whole_mib", lambda device: 1024)
    memory.refuse_above(1024, "this", "take less", CPU)
    with pytest.raises(ValueError, match=r"^this: that takes at least 1\.1 GiB of memory, and cpu has 1\.0 GiB; take"):
        memory.refuse_above(1100, "this", "take less", CPU)
    monkeypatch.setattr(memory, "whole_mib", lambda device: None)
    memory.refuse_above(1e12, "this", "take less", CPU)
