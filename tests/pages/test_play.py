"""The soft function that is drawn by sliders: its formulas, its toy training, its sliders."""

import math
import sys

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch

from bnc_repro.pages import notebook, play


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


def test_sliders_redraw_the_picture_of_their_setting(monkeypatch):
    """The widget draws once as it stands, then at each change, with the values of all three."""
    drawn = []
    monkeypatch.setattr(play, "picture", lambda **setting: drawn.append(setting))
    monkeypatch.setattr(plt, "show", lambda: None)
    widget = play.sliders()
    slope, clip, shape = widget.children[:3]
    shape.value = "triangle"
    slope.value, clip.value = 9.0, 0.0  # beyond their ends
    assert drawn[0] == {"slope": 1.0, "clip": 1.0, "shape": play.SHAPES[0]}
    assert drawn[-1] == {"slope": 4.0, "clip": 0.1, "shape": "triangle"}
    assert len(drawn) == 4


def test_sliders_are_no_need(monkeypatch):
    """Without ipywidgets a sentence that says what to install."""
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert "pip install 'ipywidgets>=8.1' (extra `notebooks`)" in str(play.sliders())


def test_a_page_has_a_sentence_in_the_place_of_widgets(tmp_path):
    """What is left of an executed notebook with sliders names no widget that nobody can draw."""
    cell = nbformat.v4.new_code_cell("import ipywidgets\nipywidgets.FloatSlider()")
    parameters = nbformat.v4.new_code_cell('profile = "sample"', metadata={"tags": ["parameters"]})
    source, target = tmp_path / "source.ipynb", tmp_path / "target.ipynb"
    language = {"language_info": {"name": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[parameters, cell], metadata=language), source)
    notebook.run_cells(source, target, "00-binarizing-by-classification", "sample")
    executed = nbformat.read(target, 4)
    (output,) = executed.cells[-1].outputs
    assert list(output.data) == ["text/plain"]
    assert "in JupyterLab" in output.data["text/plain"]
    assert "widgets" not in executed.metadata
    page = notebook.write_html(target).read_text()
    assert "widget-view" not in page
    assert "html-manager" not in page
