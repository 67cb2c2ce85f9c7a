"""Top-k accuracy."""

import pytest
import torch

from bnc_repro.images import task


def test_correct_at_counts_labels_among_the_k_largest():
    """Top-1 and top-2 of four hand-made rows."""
    logits = torch.tensor([[3.0, 2, 1], [1, 3, 2], [1, 2, 3], [2, 3, 1]])
    labels = torch.tensor([0, 2, 0, 0])
    assert task.correct_at(logits, labels, 1) == 1
    assert task.correct_at(logits, labels, 2) == 3
    assert task.correct_at(logits, labels, 3) == 4


@pytest.mark.parametrize("k", [0, 4])
def test_correct_at_refuses_an_impossible_k(k):
    """k outside 1..C is a ValueError with the range."""
    with pytest.raises(ValueError, match="choose k between 1 and 3"):
        task.correct_at(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), k)
