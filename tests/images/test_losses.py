"""The distillation loss, by hand."""

import math

import pytest
import torch

from bnc_repro.images import task


def test_soft_cross_entropy_by_hand():
    """-sum softmax(teacher) log softmax(logits), mean over images; its gradient is (p - q) / N."""
    logits = torch.tensor([[0.0, math.log(4)], [0.0, 0.0]], requires_grad=True)  # p = (.2, .8), (.5, .5)
    teacher = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])  # q = (.75, .25), (.5, .5)
    found = task.soft_cross_entropy(logits, teacher)
    assert found.item() == pytest.approx((-0.75 * math.log(0.2) - 0.25 * math.log(0.8) + math.log(2)) / 2, rel=1e-6)
    found.backward()
    assert torch.allclose(logits.grad, torch.tensor([[-0.275, 0.275], [0.0, 0.0]]), atol=1e-7)
