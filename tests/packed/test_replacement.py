"""Packed layers in the places of binary ones: whatever else holds them, reads their weights or calls them otherwise."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnc_repro import pack
from bnc_repro.layers import BinaryConv2d
from bnc_repro.packed.replacement import pack_layers
from exact import as_if_trained, noise
from networks import BINARY


class Stem(nn.Module):
    """A float convolution, its norm, a binary one and its norm, in a `Sequential`; what follows is a subclass's."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16),
            BinaryConv2d(16, 16, 3, padding=1, **BINARY), nn.BatchNorm2d(16),
        )  # fmt: skip

    def forward(self, x):
        return self.body(x)


class Slices(Stem):
    """As perceptual losses and encoders cut a network: the same modules under two parents."""

    def __init__(self):
        super().__init__()
        self.first, self.second = self.body[:2], self.body[2:]

    def forward(self, x):
        return self.second(self.first(x))


class Alias(Stem):
    def __init__(self, place: int):
        super().__init__()
        self.alias = self.body[place]
        children = list(self._modules.items())
        self._modules.clear()
        self._modules.update(reversed(children))  # the alias is the first name


class ListHeld(Stem):
    """Calls modules that it holds outside of its children too, where nobody can replace them."""

    def __init__(self, places: tuple[int, ...] = (0, 1, 2, 3)):
        super().__init__()
        self.held = {place: self.body[place] for place in places}

    def forward(self, x):
        for place, module in enumerate(self.body):
            x = self.held.get(place, module)(x)
        return x


class ReadsWeight(Stem):
    def forward(self, x):
        return self.body(x) + F.conv2d(x, self.body[0].weight, padding=1)


class ReadsStatistics(Stem):
    def forward(self, x):
        return self.body(x) + self.body[3].running_mean[:, None, None]


class TakesFeatures(Stem):
    """Gives the output before a norm too."""

    def forward(self, x):
        outputs = []
        for module in self.body:
            x = module(x)
            outputs.append(x)
        return tuple(outputs)


class TwoWays(Stem):
    """Which convolution a norm follows depends on an argument that images alone leave at its default."""

    def __init__(self):
        super().__init__()
        self.other = nn.Conv2d(3, 16, 3, padding=1)

    def forward(self, x, condition=None):
        y = self.body[0](x) if condition is None else self.other(condition)
        return self.body[3](self.body[2](self.body[1](y)))


class Flag(Stem):
    def forward(self, x, features: bool = False):
        y = self.body[2](self.body[1](self.body[0](x)))
        return y if features else self.body[3](y)


class Twice(Stem):
    """One convolution before two norms."""

    def __init__(self):
        super().__init__()
        self.again = nn.BatchNorm2d(16)

    def forward(self, x):
        return self.body(x) - self.again(self.body[0](x))


class KeepsOutput(Stem):
    def forward(self, x):
        self.features = self.body[2](self.body[1](self.body[0](x)))
        return self.body[3](self.features)


MODELS = {
    "plain": Stem,
    "slices": Slices,
    **{f"alias of {place}": (lambda place=place: Alias(place)) for place in range(4)},
    "held": ListHeld,
    **{f"held {place}": (lambda place=place: ListHeld((place,))) for place in range(4)},
    "weight read": ReadsWeight,
    "statistics read": ReadsStatistics,
    "features": TakesFeatures,
    "two ways": TwoWays,
    "flag": Flag,
    "twice": Twice,
    "kept output": KeepsOutput,
}


def trained(name: str) -> nn.Module:
    torch.manual_seed(0)
    return as_if_trained(MODELS[name]())


def close(outputs, expected) -> bool:
    pairs = ([outputs], [expected]) if isinstance(expected, torch.Tensor) else (outputs, expected)
    return all(float((a - b).abs().max() / b.abs().max()) < 1e-5 for a, b in zip(*pairs, strict=True))


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_the_model_however_it_holds_its_layers(name, check):
    """Whether or not anything compares them."""
    model, images = trained(name), noise(2, 3, 9, 8)
    with torch.no_grad():
        assert close(pack(model, (9, 8), check=check)(images), model(images))


@pytest.mark.parametrize(
    ("name", "arguments"), [("two ways", {"condition": noise(2, 3, 9, 8, seed=1)}), ("flag", {"features": True})]
)
def test_outputs_are_those_of_the_model_by_every_way_through_it(name, arguments):
    model, images = trained(name), noise(2, 3, 9, 8)
    packed = pack(model, (9, 8)).network
    with torch.no_grad():
        assert close(packed(images, **arguments), model(images, **arguments))
        assert close(packed(images), model(images))


def norms(model: nn.Module) -> int:
    return len({module for module in model.modules() if isinstance(module, nn.BatchNorm2d)})


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("plain", 0), ("slices", 0), ("alias of 0", 0), ("alias of 2", 0), ("alias of 3", 0), ("weight read", 1),
        ("statistics read", 1), ("features", 2), ("two ways", 1), ("flag", 2), ("twice", 2), ("held", 2),
    ],
)  # fmt: skip
def test_norms_are_folded_where_nothing_else_can_tell(name, left):
    model = trained(name)
    pack_layers(model)
    assert norms(model) == left
    model = trained(name)
    pack_layers(model, fold_norms=False)
    assert norms(model) == (3 if name == "twice" else 2)


def test_tracing_leaves_no_proxy_in_a_model():
    packed = pack(trained("kept output"), (9, 8))
    assert not hasattr(packed.network, "features") or isinstance(packed.network.features, torch.Tensor)
    copy.deepcopy(packed)


CHANGES = {
    "no statistics": lambda norm: (setattr(norm, "running_mean", None), setattr(norm, "running_var", None)),
    "tracked without statistics": lambda norm: (
        norm.__init__(16, track_running_stats=False),
        setattr(norm, "track_running_stats", True),
    ),
    "untracked with statistics": lambda norm: setattr(norm, "track_running_stats", False),
    "no weight": lambda norm: setattr(norm, "weight", None),
    "no bias": lambda norm: setattr(norm, "bias", None),
    "neither": lambda norm: norm.__init__(16, affine=False),
    "not affine with both": lambda norm: setattr(norm, "affine", False),
}


@pytest.mark.parametrize("place", [1, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_norms_of_every_form_give_what_they_gave(change, place):
    """torch looks at the tensors that a norm has, not at the words that it was made with."""
    model, images = trained("plain"), noise(2, 3, 9, 8)
    CHANGES[change](model.body[place])
    model.eval()
    with torch.no_grad():
        assert close(pack(model, (9, 8))(images), model(images))


def test_a_fold_that_a_comparison_finds_wrong_is_undone(monkeypatch):
    """A forward patched from outside, that no trace sees: what follows the convolution reads its channels' size."""
    from bnc_repro.packed import replacement

    traced = replacement._traced
    model, images = trained("features"), noise(2, 3, 9, 8)
    plain = trained("plain")
    monkeypatch.setattr(replacement, "_traced", lambda *_, **__: traced(plain))  # as if the trace showed less
    packed = pack(model, (9, 8))
    assert norms(packed) == 2
    with torch.no_grad():
        assert close(packed(images), model(images))
    assert norms(pack(model, (9, 8), check=False)) == 0


class Reads(nn.Module):
    """Numbers that become NaN within: a constant picture has no deviation."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 8, 3), BinaryConv2d(8, 8, 3, **BINARY), nn.Linear(8, 5)

    def forward(self, x):
        y = self.stem(x)
        return self.head(self.conv((y - y.mean((2, 3), keepdim=True)) / y.std((2, 3), keepdim=True)).mean((2, 3)))


def test_nan_that_arises_within_is_no_number():
    torch.manual_seed(0)
    model = Reads().eval()
    packed = pack(model, (8, 8))
    images = noise(3, 3, 8, 8)
    images[1] = 0.5
    with torch.no_grad():
        assert model(images)[1].isnan().all()
    with pytest.raises(ValueError, match=r"^image 1 of 3 holds NaN, which has no sign: .* before this packed layer$"):
        packed(images)
    assert packed(images[::2]).isfinite().all()
