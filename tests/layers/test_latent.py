"""Centring, scale and standardisation of weights, by hand."""

import pytest
import torch

from bnc_repro.layers.latent import center, channel_scale, latent_range, standardize


def test_weight_functions_by_hand():
    """center, standardize and channel_scale work over each output channel; the scale has no gradient."""
    w = torch.tensor([[[[1.0, 3.0]]], [[[2.0, 2.0]]]], requires_grad=True)  # (O=2, 1, 1, 2)
    assert center(w).flatten().tolist() == [-1, 1, 0, 0]
    assert torch.allclose(standardize(w).flatten(), torch.tensor([-1.0, 1, 0, 0]), atol=1e-5)
    assert channel_scale(w).flatten().tolist() == [2, 2]
    assert not channel_scale(w).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_standardised_as_floats_are(dtype):
    """Small weights, and a constant channel, give the float32 numbers rounded, and a finite range."""
    torch.manual_seed(0)
    w = (torch.randn(4, 64) * 1e-3).to(dtype)
    w[0] = 0.5
    assert torch.equal(standardize(w), standardize(w.float()).to(dtype))
    assert standardize(w)[0].tolist() == [0] * 64
    assert latent_range(w, True) == latent_range(w.float(), True)
