"""A soft function drawn with three sliders: F and F', and a toy network trained under it in about a second.

Sliders need ipywidgets and a running notebook; `still` draws the same pictures for fixed settings.
"""

import math
from importlib import import_module

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from ..binarizers.base import Binarizer
from ..layers import BinaryLinear
from ..names import install_line, known

SHAPES = ("box", "triangle", "cosine")
SETTINGS = ((1.0, 1.0, "box"), (2.0, 1.0, "triangle"), (-1.0, 1.0, "box"))  # the pictures that stand still
STEPS, HIDDEN, RATE = 400, 32, 0.01  # about a second on one core
LIMIT = 3.0  # of the pictures, in both directions


class Drawn(Binarizer):
    """Forward sign(x); backward F'(x) = slope * shape(x / clip), 0 beyond the clip.

    box: 1; triangle: 1 - |u|; cosine: (1 + cos(pi u)) / 2, with u = x / clip. Raises ValueError for another shape and
    for a clip that is not positive.
    """

    def __init__(self, slope: float = 1.0, clip: float = 1.0, shape: str = "box") -> None:
        super().__init__()
        known("shape", shape, SHAPES)
        if not clip > 0:
            raise ValueError(f"clip {clip} must be above 0: it is where F' ends")
        self.slope, self.clip, self.shape = slope, clip, shape

    def derivative(self, x: Tensor) -> Tensor:
        u = (x / self.clip).abs()
        inside = {"box": torch.ones_like(u), "triangle": 1 - u, "cosine": (1 + torch.cos(math.pi * u)) / 2}
        return self.slope * inside[self.shape] * (u < 1)

    def soft(self, x: Tensor) -> Tensor:
        """F(x), the integral of F' from 0."""
        u = (x / self.clip).clamp(-1, 1)
        areas = {"box": u, "triangle": u - u * u.abs() / 2, "cosine": u / 2 + torch.sin(math.pi * u) / (2 * math.pi)}
        return self.slope * self.clip * areas[self.shape]


def spirals(count: int = 200) -> tuple[Tensor, Tensor]:
    """Points (2 count, 2) of two interleaved spirals, and their class (2 count,), 0 or 1."""
    angle = torch.linspace(0.5, 3 * math.pi, count)
    arm = torch.stack([angle.cos(), angle.sin()], 1) * angle[:, None] / (3 * math.pi)
    return torch.cat([arm, -arm]), torch.cat([torch.zeros(count), torch.ones(count)])


def train(drawn: Drawn, seed: int = 0) -> tuple[list[float], float]:
    """The loss at each step, and the share of points classified rightly at the end, of a network with one hidden layer
    of binary weights trained under `drawn`."""
    points, classes = spirals()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        middle = BinaryLinear(HIDDEN, HIDDEN, bias=False, weight_binarizer=drawn)
        network = nn.Sequential(
            *(nn.Linear(2, HIDDEN), nn.Tanh(), middle, nn.BatchNorm1d(HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))
        )
    network[0].requires_grad_(False)  # what is learnt passes through the binary layer
    optimizer = torch.optim.Adam([weight for weight in network.parameters() if weight.requires_grad], RATE)
    losses = []
    for _ in range(STEPS):
        loss = functional.binary_cross_entropy_with_logits(network(points)[:, 0], classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        right = (network(points)[:, 0] > 0) == (classes > 0)
    return losses, right.float().mean().item()


def picture(slope: float = 1.0, clip: float = 1.0, shape: str = "box") -> Figure:
    """F beside sign, F', and the toy's loss under it."""
    drawn, x = Drawn(slope, clip, shape), torch.linspace(-LIMIT, LIMIT, 601)
    losses, right = train(drawn)
    figure, (soft, derivative, loss) = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    for side in (x < 0, x >= 0):
        soft.plot(x[side], x[side].sign(), color="0.6", lw=2, ls="--")
    soft.plot(x, drawn.soft(x), color="C2", lw=2.5)
    soft.set(title="forward: sign (dashed), backward: F", xlabel="latent value x (no unit)", ylabel="F(x)")
    derivative.plot(x, drawn.derivative(x), color="C3", lw=2.5)
    derivative.axhline(0, color="0.5", lw=0.8)
    derivative.set(title=f"{shape}, slope {slope:g}, clip {clip:g}", xlabel="latent value x (no unit)", ylabel="F′(x)")
    loss.plot(losses, color="C0", lw=2)
    loss.set(title=f"toy network: {100 * right:.0f} % right", xlabel="step", ylabel="loss", ylim=(0, None))
    return figure


def still() -> None:
    """The pictures of three settings, for pages without sliders."""
    for setting in SETTINGS:
        picture(*setting)
        plt.show()


def sliders() -> object:
    """Sliders for slope, clip and shape that redraw the picture; a sentence where ipywidgets is not installed."""
    try:
        ipywidgets = import_module("ipywidgets")
    except ModuleNotFoundError:
        return f"sliders need ipywidgets: {install_line('ipywidgets')}, then run this cell again"

    def redraw(**setting) -> None:
        picture(**setting)
        plt.show()

    number = {"continuous_update": False, "step": 0.1}
    return ipywidgets.interactive(
        redraw,
        slope=ipywidgets.FloatSlider(1.0, min=-2.0, max=4.0, **number),
        clip=ipywidgets.FloatSlider(1.0, min=0.1, max=3.0, **number),
        shape=ipywidgets.ToggleButtons(options=SHAPES),
    )
