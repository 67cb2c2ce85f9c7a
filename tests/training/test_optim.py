"""Optimizers, rates."""

import math

import pytest
import torch

from bnc_repro.training.optim import groups, optimizers, rate
from networks import FLOAT, small


def test_every_parameter_is_claimed_once_and_only_weights_decay():
    """Classifier, decayed weights and the rest are disjoint and complete; the classifier has an Adam."""
    network = small(weight_binarizer="mlp", activation_binarizer="linear")
    kinds = groups(network)
    claimed = [id(p) for kind in kinds.values() for p in kind]
    assert sorted(claimed) == sorted(id(p) for p in network.parameters())
    names = {id(p): name for name, p in network.named_parameters()}
    decayed = {names[id(p)] for p in kinds["decayed"]}
    assert decayed == {n for n, p in network.named_parameters() if p.dim() > 1 and "binarizer" not in n}
    assert {names[id(p)] for p in kinds["classifier"]} == {n for n in names.values() if "binarizer" in n}
    settings = {"learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.01, "classifier_learning_rate": 0.002}
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)):
        made, learnt = optimizers(network, optimizer=name, **settings)
        assert type(made) is kind
        assert [(g["lr"], g["weight_decay"]) for g in made.param_groups] == [(0.1, 0.01), (0.1, 0.0)]
        assert (type(learnt), learnt.param_groups[0]["lr"]) == (torch.optim.Adam, 0.002)
        assert learnt.param_groups[0]["weight_decay"] == 0
    assert made.param_groups[0]["momentum"] == 0.5
    assert len(optimizers(small(**FLOAT), optimizer="adam", **settings)) == 1


@pytest.mark.parametrize(
    ("schedule", "options", "points"),
    [
        ("constant", {}, {0: 1, 39: 1}),
        ("linear", {}, {0: 1, 10: 0.75, 20: 0.5, 39: 0.025}),
        ("cosine", {}, {0: 1, 10: (1 + math.sqrt(0.5)) / 2, 20: 0.5, 30: (1 - math.sqrt(0.5)) / 2}),
        ("steps", {"milestones": (1, 3)}, {0: 1, 9: 1, 10: 0.1, 29: 0.1, 30: 0.01, 39: 0.01}),
        ("linear", {"warmup_epochs": 1.0}, {0: 0.1, 4: 0.5, 9: 1, 10: 1, 25: 0.5, 39: 1 / 30}),
        ("cosine", {"warmup_epochs": 2.0}, {0: 0.05, 19: 1, 20: 1, 30: 0.5}),
        ("linear", {"released_schedule": True}, {0: 0.75, 9: 0.75, 10: 0.5, 29: 0.25, 30: 0, 39: 0}),
    ],
)
def test_rates_at_points_computed_by_hand(schedule, options, points):
    """4 epochs of 10 steps: each schedule's factor at its first, middle and last steps."""
    for step, wanted in points.items():
        found = rate(step, steps_per_epoch=10, epochs=4, schedule=schedule, **options)
        assert found == pytest.approx(wanted, abs=1e-12), step
