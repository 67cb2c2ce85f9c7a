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


class Doubled(torch.nn.Module):
    """Two binary layers, a module that is called after each, and an output that is changed in place."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first = BinaryLinear(4, 5, bias=False, weight_binarizer="identity", activation_binarizer="ste")
        self.second = BinaryLinear(5, 5, bias=False, weight_binarizer="identity")
        self.last, self.shared, self.stretch = torch.nn.Linear(5, 3), torch.nn.PReLU(), torch.nn.Linear(5, 5)

    def forward(self, x):
        y = self.stretch(self.shared(self.first(x)))
        y += 1
        return self.last(self.shared(self.second(y)) + y)


def test_flips_of_every_layer_are_those_of_whole_passes():
    """What is not computed again changes no digit: the same losses as from the network itself, weight by weight."""
    x, labels = torch.randn(16, 4).double(), torch.randint(0, 3, (16,))
    network, plain = Doubled().double().eval(), Doubled().double().eval()
    layers = gradients.flips(network, x, labels)
    for name, found in zip(("first", "second"), layers, strict=True):
        layer = plain.get_submodule(name)
        binary, scale = torch.where(found["latent"] >= 0, 1.0, -1.0).double(), channel_scale(found["latent"])
        for i, difference in zip(found["chosen"].tolist(), found["flip"]):
            losses = []
            for value in (1.0, -1.0):
                flipped = binary.clone()
                flipped.view(-1)[i] = value
                layer.binary_weight = lambda flipped=flipped, scale=scale: scale * flipped
                with torch.no_grad():
                    losses.append(F.cross_entropy(plain(x), labels))
            assert difference == (losses[0] - losses[1]) / 2
        del layer.binary_weight
        assert found["flip"].abs().max() > 0
