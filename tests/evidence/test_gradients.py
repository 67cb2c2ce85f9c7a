"""Flip differences against losses computed by hand."""

import torch
from torch.nn import functional as F

from bnc_repro.evidence import gradients
from bnc_repro.layers.binary import BinaryLinear
from bnc_repro.layers.latent import center, channel_scale


def layer(seed=0):
    torch.manual_seed(seed)
    made = BinaryLinear(4, 3, bias=False, weight_binarizer="identity")
    return made.double(), torch.randn(16, 4).double(), torch.randint(0, 3, (16,))


def test_flip_differences_are_what_flipping_does():
    """Every weight of a linear classifier: half of L(b_i = +1) - L(b_i = -1), and the slope by autograd."""
    made, x, labels = layer()
    centred = center(made.weight.detach())
    binary, scale = torch.where(centred >= 0, 1.0, -1.0).double(), channel_scale(centred)
    wanted = torch.empty(12).double()
    for i in range(12):
        losses = []
        for value in (1.0, -1.0):
            flipped = binary.clone()
            flipped.view(-1)[i] = value
            losses.append(F.cross_entropy(x @ (scale * flipped).T, labels))
        wanted[i] = (losses[0] - losses[1]) / 2
    real = binary.clone().requires_grad_()
    F.cross_entropy(x @ (scale * real).T, labels).backward()
    (found,) = gradients.flips(torch.nn.Sequential(made), x, labels)
    assert sorted(found["chosen"].tolist()) == list(range(12))
    torch.testing.assert_close(found["flip"], wanted[found["chosen"]])
    torch.testing.assert_close(found["slope"], real.grad)
    torch.testing.assert_close(found["latent"], centred)


def test_agreement_is_one_for_the_reference_itself_and_zero_for_nothing():
    """A rule that passes the flip differences on has cosine 1, their opposite -1; one that passes nothing 0."""
    made, x, labels = layer(1)
    layers = gradients.flips(torch.nn.Sequential(made), x, labels)
    exact = torch.empty(12).double()
    exact[layers[0]["chosen"]] = layers[0]["flip"]
    assert abs(gradients.agreement(layers, lambda slope, latent: exact) - 1) < 1e-12
    assert abs(gradients.agreement(layers, lambda slope, latent: -exact) + 1) < 1e-12
    assert gradients.agreement(layers, lambda slope, latent: 0 * slope) == 0
