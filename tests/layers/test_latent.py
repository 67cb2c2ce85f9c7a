"""Centring, scale and standardisation of weights, by hand."""

import torch

from bnc_repro.layers.latent import center, channel_scale, standardize


def test_weight_functions_by_hand():
    """center, standardize and channel_scale work over each output channel; the scale has no gradient."""
    w = torch.tensor([[[[1.0, 3.0]]], [[[2.0, 2.0]]]], requires_grad=True)  # (O=2, 1, 1, 2)
    assert center(w).flatten().tolist() == [-1, 1, 0, 0]
    assert torch.allclose(standardize(w).flatten(), torch.tensor([-1.0, 1, 0, 0]), atol=1e-5)
    assert channel_scale(w).flatten().tolist() == [2, 2]
    assert not channel_scale(w).requires_grad
