"""What packing buys, in figures: contestants, steps, operations against time."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from ..packed.benchmark import EAGER, PACKED
from ..packed.latency import StepTime
from . import speed


def whole(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Milliseconds of one network by contestant, with the quartiles, and how many times the packed one's."""
    ax = ax or plt.subplots(figsize=(7.5, 0.5 * len(rows) + 1))[1]
    colours = sns.color_palette("colorblind")
    for i, row in enumerate(rows.to_dict("records")):
        packed = row["contestant"] == PACKED
        int8 = row["contestant"].endswith("int8")
        colour = colours[0] if packed else colours[2] if int8 else "0.65"
        spread = [[row["ms"] - row["ms_lower"]], [row["ms_upper"] - row["ms"]]]
        ax.barh(i, row["ms"], color=colour, xerr=spread, error_kw={"ecolor": "0.25", "elinewidth": 1})
        told = f"{row['ms']:.3g} ms" if packed else f"{row['ms']:.3g} ms, ×{row['ratio']:.1f}"
        ax.annotate(told, (row["ms_upper"], i), xytext=(5, 0), textcoords="offset points", va="center", fontsize=10)
    ax.set_yticks(range(len(rows)), rows["contestant"])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.35 * rows["ms_upper"].max())
    first = rows.iloc[0]
    size = f"{first['height']}×{first['width']}"
    ax.set(
        xlabel="processor time of one thread, ms an image", title=f"{first['network']}, {size}, batch {first['batch']}"
    )
    ax.grid(axis="y", visible=False)
    return ax


def by_step(times: list[StepTime]) -> np.ndarray:
    """Left the packed network's milliseconds, binary convolution and float rest; right how many times as fast as
    torch's float32 each step is."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.32 * len(times) + 1.3), sharey=True, width_ratios=(3, 2))
    colours = sns.color_palette("colorblind")
    y = np.arange(len(times))
    bits, floats, twin = (np.array([getattr(step, name) for step in times]) for name in ("bits", "floats", "twin"))
    axes[0].barh(y, bits, color=colours[0], label="binary convolution")
    axes[0].barh(y, floats, left=bits, color=colours[1], label="float: stem, shortcuts, last layer")
    axes[0].set_yticks(y, [step.layer.removeprefix("trunk.") for step in times])
    axes[0].invert_yaxis()
    axes[0].set(xlabel="packed, ms", title="Where the time goes")
    axes[0].legend(loc="lower right")
    axes[1].hlines(y, 0, twin / (bits + floats), color="0.8")
    axes[1].plot(twin / (bits + floats), y, "o", color=colours[0])
    axes[1].axvline(twin.sum() / (bits + floats).sum(), color="0.3", linestyle="--")
    mean = twin.sum() / (bits + floats).sum()
    axes[1].annotate(
        f"whole network {mean:.1f}", (mean, 1), xycoords=("data", "axes fraction"), xytext=(4, -12),
        textcoords="offset points", fontsize=10,
    )  # fmt: skip
    axes[1].set(xlabel="times as fast as torch's float32", title="What each step gains", xlim=(0, None))
    for ax in axes:
        ax.grid(axis="y", visible=False)
    figure.tight_layout()
    return axes


def operations(rows: pd.DataFrame) -> Axes:
    """Operations of the float twin over the binary network's, against the measured ratio of times, a point a network:
    on the line OPs would be time."""
    ax = plt.subplots(figsize=(6, 5))[1]
    twins = speed.fastest_kernel(rows)
    twins = twins[twins["contestant"] == EAGER]
    fewer = twins["float_ops"] / twins["binary_ops"]
    end = 1.15 * max(fewer.max(), twins["ratio"].max())
    ax.plot([0, end], [0, end], color="0.6", linestyle="--", label="time = OPs")
    ax.scatter(fewer, twins["ratio"], s=70, color=sns.color_palette("colorblind")[0])
    for x, y, name in zip(fewer, twins["ratio"], twins["network"], strict=True):
        ax.annotate(name, (x, y), xytext=(6, -12), textcoords="offset points", fontsize=10)
    ax.set(xlim=(0, end), ylim=(0, end), xlabel="OPs, float twin ÷ binary", ylabel="time, float twin in torch ÷ packed")
    ax.set_title("Operations promise, time tells")
    ax.legend(loc="upper left")
    return ax
