"""The soft function that is drawn by sliders: its formulas, its toy training, its sliders."""

import math
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from bnc_repro.pages import play


@pytest.mark.parametrize("shape", play.SHAPES)
def test_the_slope_of_the_drawn_function_is_its_derivative(shape):
    """By differences of F and by the formula at single points; backward passes it on, forward is sign with +1 at 0."""
    drawn = play.Drawn(1.5, 0.8, shape).double()
    x = torch.tensor([-2.0, -0.79, -0.3, 0.0, 0.2, 0.6, 0.81, 3.0], dtype=torch.float64)
    small = 1e-6
    by_differences = (drawn.soft(x + small) - drawn.soft(x - small)) / (2 * small)
    assert torch.allclose(drawn.derivative(x), by_differences, atol=1e-5)
    at = {"box": 1.5, "triangle": 1.5 * (1 - 0.25), "cosine": 1.5 * (1 + math.cos(math.pi / 4)) / 2}[shape]
    assert drawn.derivative(torch.tensor([0.2])).item() == pytest.approx(at)
    latent = x.clone().requires_grad_()
    drawn(latent).sum().backward()
    assert torch.equal(latent.grad, drawn.derivative(x))
    assert drawn(x).tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]


def test_wrong_settings_name_the_remedy():
    with pytest.raises(ValueError, match="clip 0 must be above 0"):
        play.Drawn(clip=0)
    with pytest.raises(ValueError, match="unknown shape 'boxes'; known, nearest first: box"):
        play.Drawn(shape="boxes")


def test_the_toy_learns_the_right_way_up_and_not_upside_down():
    """And the same setting gives the same losses, whatever random numbers were drawn before."""
    losses, right = play.train(play.Drawn())
    reversed_losses, reversed_right = play.train(play.Drawn(slope=-1.0))
    assert losses[-1] < 0.5 * losses[0]
    assert right > 0.9 > reversed_right
    assert reversed_losses[-1] > 0.8 * reversed_losses[0]
    torch.manual_seed(1)
    assert play.train(play.Drawn())[0] == losses


def test_sliders_redraw_and_are_no_need(monkeypatch):
    """Without ipywidgets a sentence; with it each slider's name is a setting of the picture."""
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert "pip install ipywidgets" in str(play.sliders())
    drawn = []
    widgets = SimpleNamespace(
        interactive=lambda redraw, **sliders: redraw(**sliders),
        FloatSlider=lambda value, min, max, **rest: value,
        ToggleButtons=lambda options: options[1],
    )
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    monkeypatch.setattr(play, "picture", lambda **setting: drawn.append(setting))
    monkeypatch.setattr(plt, "show", lambda: None)
    play.sliders()
    assert drawn == [{"slope": 1.0, "clip": 1.0, "shape": "triangle"}]
