"""Losses of heatmaps, by hand."""

import math

import pytest
import torch

from bnc_repro.poses.heatmaps import heatmap_cross_entropy, heatmap_loss


def test_heatmap_loss_by_hand():
    """Half of the mean over people and joints of weight * mean squared error; weight 0 does not count."""
    heatmaps = torch.zeros(1, 2, 2, 2)
    targets = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[9.0, 9.0], [9.0, 9.0]]]])
    assert heatmap_loss(heatmaps, targets, torch.tensor([[1.0, 0.0]])).item() == 0.5 * (6 / 4) / 2
    found = heatmap_loss(heatmaps, targets, torch.tensor([[2.0, 1.0]])).item()
    assert found == pytest.approx(0.5 * (2 * 1.5 + 81) / 2)


def test_heatmap_cross_entropy_by_hand():
    """-sum target log softmax over a joint's cells, mean over the labelled joints; none labelled: 0."""
    logits = torch.tensor([[[[0.0, math.log(3)]], [[5.0, -5.0]]]], requires_grad=True)  # (1, 2, 1, 2)
    targets = torch.tensor([[[[0.5, 0.5]], [[1.0, 0.0]]]]) * 4  # of any height
    found = heatmap_cross_entropy(logits, targets, torch.tensor([[1.0, 0.0]]))
    assert found.item() == pytest.approx(-0.5 * math.log(1 / 4) - 0.5 * math.log(3 / 4), rel=1e-6)
    found.backward()
    assert torch.allclose(logits.grad, torch.tensor([[[[-0.25, 0.25]], [[0.0, 0.0]]]]), atol=1e-7)
    assert heatmap_cross_entropy(logits, targets * 0, torch.zeros(1, 2)).item() == 0
