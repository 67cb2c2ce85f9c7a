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

NAMES = {
    "top1": "top-1 accuracy (%)", "AP": "AP (COCOeval, true boxes)", "PCK": "joints within 0.2 torsos (PCK@0.2)",
}  # fmt: skip


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


HEALTH = {
    "flip_share": "changed sign since the epoch before", "saturated_share": "beyond 1, where clipped STE stops",
    "closed_share": "no gradient reaches them", "slope_at_0": "learnt slope F′(0)",
}  # fmt: skip


def health(rows: list[dict]) -> np.ndarray:
    """How the binary weights fare: shares (%) of them over the epochs, and the learnt slope, a line a seed."""
    lines = [
        (row["arm"], row["seed"], epoch["epoch"], key, value if key == "slope_at_0" else 100 * value)
        for row in rows for epoch in row["curve"] if "flip_share" in epoch
        for key, value in (epoch | {"closed_share": 1 - epoch["open_share"]}).items() if key in HEALTH
    ]  # fmt: skip
    frame, colours = pd.DataFrame(lines, columns=["arm", "seed", "epoch", "key", "value"]), palette(rows)
    axes = plt.subplots(1, len(HEALTH), figsize=(14, 3), layout="constrained")[1]
    for ax, (key, title) in zip(axes, HEALTH.items(), strict=True):
        own = frame[frame["key"] == key]
        sns.lineplot(own, x="epoch", y="value", hue="arm", units="seed", estimator=None, marker="o", linewidth=1,
                     palette=colours, legend=ax is axes[0], ax=ax)  # fmt: skip
        ax.set(title=title, ylabel="" if key == "slope_at_0" else "share of binary weights (%)")
        ax.title.set_fontsize(10)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_ylim(bottom=0 if own.empty or own["value"].min() >= 0 else None)
    return axes


def estimators(rows: list[dict]) -> np.ndarray:
    """What the learnt binarizers have become, one column an arm (two, if it learns that of activations too): above F,
    below F' over the weights they saw. The first seed from its first (light) to its last epoch (dark), the other seeds
    at their end as thin lines."""
    learnt: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        for kind in ("estimator", "activation_estimator"):
            if row["curve"] and kind in row["curve"][-1]:
                learnt.setdefault((row["arm"], kind), []).append(row)
    axes = plt.subplots(2, len(learnt), figsize=(max(6.5 * len(learnt), 8), 6.4), layout="constrained", sharex=True,
                        squeeze=False)[1]  # fmt: skip
    for (above, below), ((arm, kind), own) in zip(axes.T, learnt.items(), strict=True):
        seen = [epoch[kind] for epoch in own[0]["curve"] if kind in epoch]
        colours = sns.color_palette("flare", len(seen))
        for row in own[1:]:
            x, slope, soft = learnt_function(row["curve"][-1][kind])
            for ax, values in ((above, soft), (below, slope)):
                ax.plot(x, values, color="grey", linewidth=0.8, label="other seeds" if row is own[1] else None)
        for i, estimator in enumerate(seen):
            x, slope, soft = learnt_function(estimator)
            name = f"after epoch {i + 1}" if i in (0, len(seen) - 1) else None
            for ax, values in ((above, soft), (below, slope)):
                ax.plot(x, values, color=colours[i], label=name, linewidth=1.8)
        title, label = f"{arm}: learnt for activations, seed {own[0]['seed']}", "activation before the sign (no unit)"
        if kind == "estimator":
            title = f"{arm}: learnt for weights, seed {own[0]['seed']}"
            density = np.array(seen[-1]["weights"])
            edges, top = np.linspace(*seen[-1]["range"], len(density) + 1), max(1e-9, below.get_ylim()[1])
            below.stairs(0.6 * top * density / density.max(), edges, fill=True, alpha=0.2, color="tab:blue",
                         label="weights (share)", zorder=0)  # fmt: skip
            unit = "standardised (sd of the channel)" if own[0]["recipe"]["standardize"] else "centred (no unit)"
            label = f"weight before the sign, {unit}"
        above.set(title=title, ylabel="F")
        below.set(xlabel=label, ylabel="F′")
        below.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)
    return axes


def learnt_function(estimator: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, F' and F of an epoch's record; F is the integral of F' from 0."""
    slope = np.array(estimator["derivative"])
    x = np.linspace(*estimator["range"], len(slope))
    soft = np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(x))])
    return x, slope, soft - np.interp(0, x, soft)


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
