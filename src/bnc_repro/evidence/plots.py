"""From rows to figures: a dot a seed, curves, learnt derivatives. Functions return what they drew on.

The first arm of an experiment is its floor; an arm keeps its colour in every figure.
"""

from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from scipy.integrate import cumulative_trapezoid

from ..recipe.profiles import recipe_of
from ..recipe.schema import learnt
from . import hypotheses, tuning
from .rows import UNITS, by_arm
from .statistics import compare, estimate
from .tables import curve_of

MANY = 5  # seeds from which an interval of the mean is worth drawing
NAMES = {"top1": "top-1 accuracy (%)", "AP": "AP (COCOeval, true boxes)", "PCK": "joints within 0.2 torsos (PCK@0.2)"}
# Curves: a line a seed.
LINES: dict = {"x": "epoch", "hue": "arm", "units": "seed", "estimator": None, "marker": "o", "linewidth": 1}


def palette(rows: list[dict]) -> dict[str, tuple]:
    """One colour per arm, the same in every figure of an experiment."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    return dict(zip(arms, sns.color_palette("colorblind", len(arms)), strict=True))


def style() -> None:
    """The look of all figures."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind")
    plt.rcParams |= {"figure.dpi": 80, "figure.figsize": (7.5, 4.2), "axes.titlesize": 12, "axes.titleweight": "bold"}


def dots(rows: list[dict], ax: Axes | None = None, title: str = "") -> Axes:
    """A dot per seed, a bar at each arm's mean, from five seeds on a line over its 95 % interval; an arm's name says
    how many of its runs diverged."""
    ax = ax or plt.subplots()[1]
    lost = Counter(row["arm"] for row in rows if row["status"] == "diverged")
    names = {arm: f"{arm} ({lost[arm]} diverged)" if lost[arm] else arm for arm in palette(rows)}
    frame = pd.DataFrame(
        [(names[arm], value) for arm, seeds in by_arm(rows).items() for value in seeds.values()],
        columns=["arm", "value"],
    )
    colours = {names[arm]: colour for arm, colour in palette(rows).items()}
    sns.stripplot(
        frame, x="value", y="arm", hue="arm", palette=colours, legend=False, size=9, jitter=False, alpha=0.75, ax=ax
    )
    for i, arm in enumerate(frame["arm"].unique()):
        mean = estimate(frame.loc[frame["arm"] == arm, "value"].tolist())
        ax.plot([mean.mean, mean.mean], [i - 0.28, i + 0.28], color="black", linewidth=2)
        if mean.count >= MANY:
            ax.plot([mean.low, mean.high], [i, i], color="black", linewidth=1.5)
    ax.set(xlabel=NAMES[rows[0]["headline"]], ylabel="", title=title or "One dot a seed, the bar is the mean")
    return ax


def curves(rows: list[dict], title: str = "") -> Axes:
    """The headline over the epochs, a line a seed; the first arm, the floor, is a dashed line at its last value."""
    ax, headline, frame = plt.subplots()[1], rows[0]["headline"], curve_of(rows)
    floor = rows[0]["arm"]
    end = frame[frame["arm"] == floor].groupby("seed")[headline].last().mean()
    frame = frame[frame["arm"] != floor]
    colours = palette(rows)
    sns.lineplot(frame, y=headline, palette={arm: colours[arm] for arm in frame["arm"].unique()}, ax=ax, **LINES)
    ax.axhline(end, linestyle="--", color=colours[floor], label=f"{floor}, at its end")
    ax.set(xlabel="epoch", ylabel=NAMES[headline], title=title)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(title=None)
    return ax


HEALTH = {
    "flip_share": "changed sign since the epoch before",
    "saturated_share": "beyond 1, where clipped STE stops",
    "closed_share": "no gradient reaches them",
    "slope_at_0": "learnt slope F′(0)",
}


def health(rows: list[dict]) -> np.ndarray:
    """How the binary weights fare: shares (%) of them over the epochs, and the learnt slope, a line a seed."""
    lines = [
        (row["arm"], row["seed"], epoch["epoch"], key, value if key == "slope_at_0" else 100 * value)
        for row in rows
        for epoch in row["curve"]
        if "flip_share" in epoch
        for key, value in (epoch | {"closed_share": 1 - epoch["open_share"]}).items()
        if key in HEALTH
    ]
    frame, colours = pd.DataFrame(lines, columns=["arm", "seed", "epoch", "key", "value"]), palette(rows)
    axes = plt.subplots(1, len(HEALTH), figsize=(14, 3), layout="constrained")[1]
    for ax, (key, title) in zip(axes, HEALTH.items(), strict=True):
        series = frame[frame["key"] == key]
        sns.lineplot(series, y="value", palette=colours, legend=ax is axes[0], ax=ax, **LINES)
        ax.set(title=title, ylabel="" if key == "slope_at_0" else "share of binary weights (%)")
        ax.title.set_fontsize(10)
        ax.xaxis.get_major_locator().set_params(integer=True)
        low, high = (0, 0) if series.empty else (series["value"].min(), series["value"].max())
        ax.set_ylim(bottom=0 if low >= 0 else None, top=1 if high == 0 else None)
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
    axes = plt.subplots(
        2, len(learnt), figsize=(max(6.5 * len(learnt), 8), 6.4), layout="constrained", sharex=True, squeeze=False
    )[1]
    for (above, below), ((arm, kind), arm_rows) in zip(axes.T, learnt.items(), strict=True):
        seen = [epoch[kind] for epoch in arm_rows[0]["curve"] if kind in epoch]
        colours = sns.color_palette("flare", len(seen))
        for row in arm_rows[1:]:
            x, slope, soft = learnt_function(row["curve"][-1][kind])
            for ax, values in ((above, soft), (below, slope)):
                ax.plot(x, values, color="grey", linewidth=0.8, label="other seeds" if row is arm_rows[1] else None)
        for i, estimator in enumerate(seen):
            x, slope, soft = learnt_function(estimator)
            name = f"after epoch {i + 1}" if i in (0, len(seen) - 1) else None
            for ax, values in ((above, soft), (below, slope)):
                ax.plot(x, values, color=colours[i], label=name, linewidth=1.8)
        title, label = (
            f"{arm}: learnt for activations, seed {arm_rows[0]['seed']}",
            "activation before the sign (no unit)",
        )
        if kind == "estimator":
            title = f"{arm}: learnt for weights, seed {arm_rows[0]['seed']}"
            density = np.array(seen[-1]["weights"])
            edges, top = np.linspace(*seen[-1]["range"], len(density) + 1), max(1e-9, below.get_ylim()[1])
            below.stairs(
                0.6 * top * density / density.max(),
                edges,
                fill=True,
                alpha=0.2,
                color="tab:blue",
                label="weights (share)",
                zorder=0,
            )
            unit = "standardised (sd of the channel)" if arm_rows[0]["recipe"]["standardize"] else "centred (no unit)"
            label = f"weight before the sign, {unit}"
        above.set(title=title, ylabel="F")
        below.set(xlabel=label, ylabel="F′")
        below.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)
    return axes


def learnt_function(estimator: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, F' and F of an epoch's record; F is the integral of F' from 0."""
    slope = np.array(estimator["derivative"])
    x = np.linspace(*estimator["range"], len(slope))
    soft = cumulative_trapezoid(slope, x, initial=0)
    return x, slope, soft - np.interp(0, x, soft)


def by_keypoint(rows: list[dict]) -> Axes:
    """Mean similarity to the truth by keypoint (OKS of that joint alone), a dot an arm, its line the seeds' range."""
    ax = plt.subplots(figsize=(7.5, 5.6))[1]
    frame = pd.DataFrame(
        [
            (row["arm"], name.replace("_", " "), value)
            for row in rows
            for name, value in row["curve"][-1]["by_keypoint"].items()
        ],
        columns=["arm", "keypoint", "value"],
    )
    sns.pointplot(
        frame,
        x="value",
        y="keypoint",
        hue="arm",
        palette=palette(rows),
        linestyle="none",
        dodge=0.5,
        errorbar=("pi", 100),
        ax=ax,
    )
    ax.set(
        xlabel="mean similarity (OKS of the joint alone, 1 is perfect)",
        ylabel="",
        xlim=(0, 1),
        title="Which joints are found",
    )
    ax.legend(title=None)
    return ax


def forest(rows: list[dict]) -> np.ndarray:
    """The paired differences of the ablation, a panel a condition above each other: a dot a seed, the mean with its
    95 % interval."""
    pairs = hypotheses.differences(rows)
    panels = list(pairs.groupby("condition", sort=False))
    heights = [0.9 + 0.36 * len(own) for _, own in panels]
    axes = plt.subplots(
        len(panels), 1, figsize=(8.5, sum(heights)), layout="constrained", sharex=True, squeeze=False,
        height_ratios=heights,
    )[1][:, 0]  # fmt: skip
    for ax, (condition, condition_pairs) in zip(axes, panels, strict=True):
        for y, (difference, seeds) in enumerate(
            zip(condition_pairs["estimate"], condition_pairs["seeds"], strict=True)
        ):
            colour = {"above": "tab:green", "below": "tab:red"}.get(compare(difference), "0.35")
            ax.plot(seeds, [y] * len(seeds), "o", color=colour, alpha=0.3, markersize=5)
            ax.errorbar(
                difference.mean,
                y,
                xerr=[[difference.mean - difference.low], [difference.high - difference.mean]],
                fmt="D",
                color=colour,
                capsize=4,
                markersize=6,
            )
        ax.axvline(0, color="black", linewidth=1)
        ax.set(
            yticks=range(len(condition_pairs)),
            yticklabels=condition_pairs["pair"],
            title=condition,
            xlabel=f"difference ({UNITS[rows[0]['headline']]}), paired by seed" if ax is axes[-1] else "",
        )
        ax.set_ylim(len(condition_pairs) - 0.5, -0.5)
    return axes


def rates(experiment: str, profile: str) -> np.ndarray:
    """Held-out accuracy over the learning rate, a panel an optimizer, a line an arm with a dot a seed, dashed where it
    learns; its best rate is ringed, and a dotted line stands at the rate that is best for most. A diverged run, which
    counts as a 0, is a cross at the lower border, where its line leaves."""
    lines = tuning.published(experiment, profile)
    panels = list(lines.groupby("optimizer", sort=False))
    estimators = lines["estimator"].unique()
    colours = dict(zip(estimators, sns.color_palette("colorblind", len(estimators)), strict=True))
    axes, labels = _panels(len(panels), 9, 5), {}
    seen = lines.loc[lines["held-out"] > 0, "held-out"]
    lowest = seen.min() - 0.05 * (seen.max() - seen.min())
    for ax, (name, panel) in zip(axes, panels, strict=True):
        best = tuning.best(panel)
        for (arm, estimator), own in panel.groupby(["arm", "estimator"], sort=False):
            means = own.groupby("learning rate")["held-out"].mean()
            drawn = "--" if learnt(recipe_of(experiment, profile, arm).weight_binarizer) else "-"
            ended, lost = own[own["held-out"] > 0], own[own["held-out"] == 0]
            ax.plot(ended["learning rate"], ended["held-out"], "o", color=colours[estimator], alpha=0.4, markersize=4)
            if len(lost):
                low = [lowest] * len(lost)
                ax.plot(lost["learning rate"], low, "x", color=colours[estimator], clip_on=False, markersize=9)
            labels[estimator] = ax.plot(means.index, means, drawn, color=colours[estimator], label=estimator)[0]
            ax.plot(
                best[arm], means[best[arm]], "o", markersize=11, markerfacecolor="none", color=colours[estimator],
                markeredgewidth=1.8,
            )  # fmt: skip
        ax.axvline(best.mode().max(), color="0.4", linestyle=":", linewidth=1.5)
        ax.set_xscale("log")
        shown = sorted(panel["learning rate"].unique())
        ax.set_xticks(shown, [f"{rate:g}" for rate in shown])
        ax.minorticks_off()
        ax.set(title=name, xlabel="learning rate", ylabel="held-out accuracy (%)" if ax is axes[0] else "")
        ax.set_ylim(bottom=lowest)
    axes[-1].legend(handles=list(labels.values()), loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return axes


def cost(rows: list[dict]) -> np.ndarray:
    """Mean headline against training time relative to the first arm's, a panel a condition."""
    panels = list(hypotheses.ranking(rows).groupby("condition", sort=False))
    axes = _panels(len(panels), 7.5, 3.6)
    for ax, (condition, ranked) in zip(axes, panels, strict=True):
        time = ranked.columns[-1]
        _labelled(ax, ranked[time], ranked["mean"], ranked["estimator"])
        ax.set(title=condition, xlabel=f"training {time}", ylabel=NAMES[rows[0]["headline"]] if ax is axes[0] else "")
    return axes


def gradient_errors(study: pd.DataFrame) -> np.ndarray:
    """What `gradients.study` found: agreement with the flip differences against the mean headline."""
    axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharey=True)[1]
    for ax, when in zip(axes, ("at the start", "at the end"), strict=True):
        _labelled(ax, study[when], study["mean"], study["estimator"])
        ax.set(
            title=f"Gradients {when} of training",
            xlabel="cosine with the flip differences (1: the same direction)",
            ylabel=NAMES["top1"] if ax is axes[0] else "",
        )
    return axes


def _panels(count: int, least_width: float, height: float) -> np.ndarray:
    """`count` panels side by side."""
    size = max(least_width, 5.6 * count), height
    return plt.subplots(1, count, figsize=size, layout="constrained", sharey=True, squeeze=False)[1][0]


def _labelled(ax: Axes, x: pd.Series, y: pd.Series, names: pd.Series) -> None:
    """Points with their names beside them, and room for the names."""
    ax.plot(x, y, "o", markersize=8)
    for name, point in zip(names, zip(x, y, strict=True), strict=True):
        ax.annotate(f"  {name}", point, fontsize=9, verticalalignment="center")
    ax.margins(x=0.3, y=0.15)


def verdict_figure(imagenet: list[dict], coco: list[dict], ablation: list[dict]) -> plt.Figure:
    """The three experiments side by side, a dot a seed."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    figure.get_layout_engine().set(wspace=0.08)
    titles = ("Images: floor, float, binary", "Poses: floor, float, binary", "Estimators for the weights")
    for ax, rows, title in zip(axes, (imagenet, coco, ablation), titles, strict=True):
        dots(rows, ax, title)
    return figure
