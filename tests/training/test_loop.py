"""The loop: deterministic, healthy, honest about what it cannot learn."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnc_repro.images.pictures import normalise
from bnc_repro.images.task import build
from bnc_repro.layers.binary import BinaryLinear
from bnc_repro.layers.inspect import first_nonfinite, weight_health, weight_signs
from bnc_repro.recipe.build import as_dict
from bnc_repro.run.execute import run
from bnc_repro.run.identity import folder_of
from bnc_repro.run.judge import load_network
from bnc_repro.training.loop import Diverged, stop_if_diverged
from bnc_repro.training.streams import stream
from runs import CPU, assert_same_run, what_counts


def test_a_run_is_deterministic_and_learns(recipe, tmp_path):
    """The same recipe gives the same weights, curve and metrics; another seed others; chance is 10 %."""
    made = recipe()
    first, second = run(made, tmp_path / "a"), run(made, tmp_path / "b")
    assert_same_run(made, tmp_path / "a", first, tmp_path / "b", second)
    assert first["best"] > 15
    assert first["curve"][-1]["loss"] < first["curve"][0]["loss"]
    assert [epoch["epoch"] for epoch in first["curve"]] == [1, 2, 3]
    assert first["status"] == "finished"
    assert first["recipe"] == as_dict(made)
    assert json.loads((folder_of(made, tmp_path / "a") / "row.json").read_text()) == first
    other = run(recipe(seed=1), tmp_path / "a")
    assert other["fingerprint"] != first["fingerprint"]
    assert what_counts(other) != what_counts(first)


def test_health_is_what_the_weights_did(recipe, tmp_path):
    """The share of weights on another side than an epoch before, of those beyond 1, and of those that learn."""
    row = run(recipe(epochs=2, standardize=True, weight_binarizer="ste"), tmp_path)
    assert all(0 < epoch["flip_share"] < 1 for epoch in row["curve"])
    network = load_network(tmp_path / "sample" / "imagenet_resnet" / row["fingerprint"] / "checkpoint.pt", CPU)[0]
    latent = torch.cat([m.latent_weight().flatten() for m in network.modules() if hasattr(m, "latent_weight")])
    last = row["curve"][-1]
    assert last["saturated_share"] == pytest.approx((latent.abs() > 1).double().mean().item(), abs=1e-6)
    assert last["open_share"] == pytest.approx((latent.abs() <= 1).double().mean().item(), abs=1e-6)
    sides = weight_signs(network)
    network.trunk.stages[0][0].conv.weight.data.neg_()
    flipped = network.trunk.stages[0][0].conv.weight.numel() / latent.numel()
    assert weight_health(network, sides)["flip_share"] == pytest.approx(flipped, abs=0.01)


def test_a_run_at_chance_says_so(recipe, tmp_path, caplog):
    """After CHANCE_EPOCH epochs, and at its end."""
    run(recipe(epochs=1, learning_rate=1e-9), tmp_path)
    assert ", hardly above chance" in caplog.text
    caplog.clear()
    run(recipe(epochs=3), tmp_path)
    assert "hardly above chance" not in caplog.text


def test_pieces_add_up_to_the_batch(recipe, tmp_path):
    """Gradients of two halves are the whole batch's, but for the batch statistics, which are each half's own."""
    whole, halves = run(recipe(epochs=1), tmp_path), run(recipe(epochs=1, accumulate=2), tmp_path)
    assert whole["curve"][0]["loss"] != halves["curve"][0]["loss"]
    assert whole["curve"][0]["loss"] == pytest.approx(halves["curve"][0]["loss"], rel=0.1)
    with pytest.raises(ValueError, match="which 1 processes times 3 pieces"):
        run(recipe(accumulate=3), tmp_path)


def test_a_compiler_that_fails_is_done_without(recipe, tmp_path, monkeypatch, caplog):
    """The run says so, and is the run without it."""
    plain = run(recipe(epochs=1), tmp_path)
    monkeypatch.setattr(torch, "compile", lambda network: lambda x: torch.linalg.inv(x))
    row = run(recipe(epochs=1, compile=True), tmp_path)
    assert "torch.compile failed, going on without it: " in caplog.text
    assert what_counts(row) == what_counts(plain)


def test_nan_stops_the_run_naming_epoch_and_step(recipe, tmp_path):
    """In the ablation it is a row with status diverged; elsewhere an error. Both name epoch and step."""
    wild = {"learning_rate": 1e30, "optimizer": "sgd", "weight_binarizer": None, "activation_binarizer": None}
    said = r"the loss is (nan|inf) in epoch 1, step \d+, first seen in the output of trunk.stem.2; a smaller"
    with pytest.raises(Diverged, match=said):
        run(recipe(**wild), tmp_path)
    row = run(recipe(experiment="linear_vs_soft", **wild), tmp_path)
    assert row["status"] == "diverged"
    assert re.search(r"epoch 1, step \d+", row["message"])
    assert row["metrics"] == {}
    assert run(recipe(experiment="linear_vs_soft", **wild), tmp_path) == row
    with pytest.raises(Diverged, match="nan in epoch 3, step 2"):
        stop_if_diverged(torch.tensor([1.0, float("nan"), float("inf")]), 0, 2, torch.nn.Identity(), lambda: None)


def test_the_first_broken_layer_is_named():
    """A NaN parameter, or an output that is not finite, is found at the first layer it shows in; healthy: None."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    x = torch.ones(1, 2)
    assert first_nonfinite(network, lambda: network(x)) is None
    network[2].weight.data[0, 0] = float("nan")
    assert first_nonfinite(network, lambda: network(x)) == "2.weight"
    assert first_nonfinite(network, lambda: network(x * float("inf"))).endswith("output of 0")
    own = BinaryLinear(2, 2, weight_binarizer="mlp")
    own.weight.data[0, 0] = float("nan")
    assert first_nonfinite(own, lambda: own(x)) == "weight"


def test_a_teacher_shares_the_loss(recipe):
    """The loss is (1 - d) cross-entropy to the labels + d to the teacher, and so is its gradient."""
    made = recipe(teacher="twin", distillation=0.75)
    torch.manual_seed(0)
    teacher, network = (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)) for _ in range(2))
    task = build(made, CPU, teacher)
    batch = {key: value[:8] for key, value in task.train_set.__getitems__(range(8)).items()}
    x = normalise(batch["image"], "fashion_mnist")
    loss = task.loss(network, batch)
    q = teacher(x).detach().softmax(1)
    log_p = network(x).log_softmax(1)
    wanted = 0.25 * F.nll_loss(log_p, batch["label"]) - 0.75 * (q * log_p).sum(1).mean()
    torch.testing.assert_close(loss, wanted)
    parameters = list(network.parameters())
    for a, b in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(wanted, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("activation", ["approx_sign", "mlp"])
def test_bfloat16_trains(recipe, tmp_path, activation):
    """Under autocast every kind of binarizer takes what the layers give it, and the loss stays a number."""
    row = run(recipe(precision="bfloat16", epochs=1, activation_binarizer=activation), tmp_path)
    assert row["status"] == "finished"
    assert np.isfinite(row["curve"][0]["loss"])


def test_streams_are_independent():
    """Each name and each seed has a random stream of its own, the same on every machine."""
    found = {stream(seed, name) for seed in range(3) for name in ("network", "classifier", "epoch 0")}
    assert len(found) == 9
    assert stream(0, "network") == stream(0, "network")
