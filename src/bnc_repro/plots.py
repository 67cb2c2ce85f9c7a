"""From rows to figures: a dot a seed, curves, learnt derivatives, people. Functions return what they drew on.

The first arm of an experiment is its floor; an arm keeps its colour in every figure.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from . import config
from .keypoints import COCO_PERSON
from .pictures import read
from .report import by_arm

NAMES = {"top1": "top-1 accuracy (%)", "AP": "AP (COCOeval, true boxes)"}


def palette(rows: list[dict]) -> dict[str, tuple]:
    """One colour per arm, the same in every figure of an experiment."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    return dict(zip(arms, sns.color_palette("colorblind", len(arms)), strict=True))


def style() -> None:
    """The look of all figures."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind")
    plt.rcParams |= {"figure.dpi": 80, "figure.figsize": (7.5, 4.2), "axes.titlesize": 12, "axes.titleweight": "bold"}


def dots(rows: list[dict], ax: Axes | None = None, title: str = "") -> Axes:
    """A dot per seed and a bar at each arm's mean."""
    ax = ax or plt.subplots()[1]
    frame = pd.DataFrame([(arm, value) for arm, seeds in by_arm(rows).items() for value in seeds.values()],
                         columns=["arm", "value"])  # fmt: skip
    sns.stripplot(frame, x="value", y="arm", hue="arm", palette=palette(rows), legend=False, size=9, jitter=False,
                  alpha=0.75, ax=ax)  # fmt: skip
    for i, arm in enumerate(frame["arm"].unique()):
        mean = frame.loc[frame["arm"] == arm, "value"].mean()
        ax.plot([mean, mean], [i - 0.28, i + 0.28], color="black", linewidth=2)
    ax.set(xlabel=NAMES[rows[0]["headline"]], ylabel="", title=title or "One dot a seed, the bar is the mean")
    return ax


def curves(rows: list[dict], quantity: str | None = None, ax: Axes | None = None, title: str = "") -> Axes:
    """`quantity` of the curve (the headline unless named) over the epochs, a line a seed; the first arm, the floor,
    is a dashed line at its last value."""
    ax = ax or plt.subplots()[1]
    quantity = quantity or rows[0]["headline"]
    frame = pd.DataFrame([(row["arm"], row["seed"], epoch["epoch"], epoch[quantity])
                          for row in rows for epoch in row["curve"] if epoch.get(quantity) is not None],
                         columns=["arm", "seed", "epoch", "value"])  # fmt: skip
    floor = rows[0]["arm"]
    end = frame[frame["arm"] == floor].groupby("seed")["value"].last().mean()
    frame = frame[frame["arm"] != floor]
    colours = palette(rows)
    sns.lineplot(frame, x="epoch", y="value", hue="arm", units="seed", estimator=None, marker="o", linewidth=1,
                 palette={arm: colours[arm] for arm in frame["arm"].unique()}, ax=ax)  # fmt: skip
    ax.axhline(end, linestyle="--", color=colours[floor], label=f"{floor}, at its end")
    ax.set(xlabel="epoch", ylabel=NAMES.get(quantity, quantity), title=title)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(title=None)
    return ax


def estimators(rows: list[dict]) -> np.ndarray:
    """What the learnt classifiers of the first seed have become: F' after the first and the last epoch, over the
    weights they saw; one axis an arm."""
    learnt = [row for row in rows if row["seed"] == rows[0]["seed"] and "estimator" in row["curve"][-1]]
    width = 6.5 * len(learnt)
    axes = plt.subplots(1, len(learnt), figsize=(width, 3.8), layout="constrained", squeeze=False)[1][0]
    for ax, row in zip(axes, learnt, strict=True):
        seen = [epoch["estimator"] for epoch in row["curve"] if "estimator" in epoch]
        density = np.array(seen[-1]["weights"]) / max(seen[-1]["weights"])
        edges, label = np.linspace(-2, 2, len(density) + 1), "weights (share, scaled to its peak)"
        ax.stairs(density, edges, fill=True, alpha=0.25, label=label)
        ax.plot(seen[0]["x"], seen[0]["derivative"], "--", label="F′ after the first epoch")
        ax.plot(seen[-1]["x"], seen[-1]["derivative"], label="F′ at the end")
        unit = "standardised (sd of the channel)" if row["recipe"]["standardize"] else "centred (no unit)"
        title = f"{row['arm']}, seed {row['seed']}: the learnt derivative"
        ax.set(title=title, xlabel=f"weight before the sign, {unit}", ylabel="F′")
        ax.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
    return axes


def people(row: dict, axes: np.ndarray) -> np.ndarray:
    """The row's example people, worst to best by OKS: predicted skeleton in colour, true joints as white dots."""
    folder = config.make(**row["recipe"]).data.folder / "val2017"
    for ax, person in zip(axes.flat, row["examples"], strict=False):
        picture = read(folder / person["image"])
        ax.imshow(picture)
        x, y, width, height = person["box"]
        points, true, visible = (np.array(person[key]) for key in ("keypoints", "true", "visible"))
        for a, b in COCO_PERSON.links:
            if visible[a] and visible[b]:
                colour = "tab:orange" if (a % 2 and b % 2) else "tab:cyan" if not (a % 2 or b % 2) else "tab:pink"
                ax.plot(points[[a, b], 0], points[[a, b], 1], color="black", linewidth=4)
                ax.plot(points[[a, b], 0], points[[a, b], 1], color=colour, linewidth=2)
        ax.plot(*true[visible > 0].T, "o", color="white", markeredgecolor="black", markersize=5)
        right, bottom = min(x + width + 6, picture.width - 0.5), min(y + height + 6, picture.height - 0.5)
        ax.set(xlim=(max(x - 6, -0.5), right), ylim=(bottom, max(y - 6, -0.5)), xticks=[], yticks=[])
        ax.set_title(f"OKS {person['oks']:.2f}", fontsize=10)
    return axes


def verdict_figure(imagenet: list[dict], coco: list[dict], ablation: list[dict]) -> plt.Figure:
    """The three experiments side by side, a dot a seed."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    figure.get_layout_engine().set(wspace=0.08)
    titles = ("Images: floor, float, binary", "Poses: floor, float, binary", "Estimators for the weights")
    for ax, rows, title in zip(axes, (imagenet, coco, ablation), titles, strict=True):
        dots(rows, ax, title)
    return figure
