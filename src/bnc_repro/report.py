"""From rows to what a reader sees: tables, figures (functions return Axes) and the verdict on each claim.

Nothing here trains. Headlines are last epochs; an arm's rows are its seeds.
"""

import csv
import json
from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from . import config, statistics
from .checkpoint import write_json
from .keypoints import COCO_PERSON
from .pictures import read

NAMES = {"top1": "top-1 accuracy (%)", "AP": "AP (COCOeval, true boxes)"}
UNITS = {"top1": "points", "AP": "AP"}


def style() -> None:
    """The look of all figures."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind")
    plt.rcParams |= {"figure.dpi": 80, "figure.figsize": (7.5, 4.2), "axes.titlesize": 12, "axes.titleweight": "bold"}


def by_arm(rows: Iterable[dict], metric: str | None = None) -> dict[str, dict[int, float]]:
    """arm -> seed -> metric (the headline unless named) of the finished rows."""
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        values.setdefault(row["arm"], {})
        if row["status"] == "finished":
            values[row["arm"]][row["seed"]] = row["metrics"][metric or row["headline"]]
    return values


def table(rows: list[dict]) -> pd.DataFrame:
    """One line per arm: seeds, mean, standard deviation and range of the headline, the best epoch's mean, status."""
    lines = []
    for arm, values in by_arm(rows).items():
        own = [row for row in rows if row["arm"] == arm]
        line = {"arm": arm, "runs": len(own), "diverged": sum(row["status"] == "diverged" for row in own)}
        if values:
            made = statistics.estimate(list(values.values()))
            best = [row["best"] for row in own if row["best"] is not None]
            line |= {"mean": made.mean, "sd": made.deviation, "lowest": min(values.values()),
                     "highest": max(values.values()), "best epoch": np.mean(best)}  # fmt: skip
        line["parameters"] = own[0]["parameters"]
        lines.append(line)
    digits = 3 if rows[0]["headline"] == "AP" else 1
    made = pd.DataFrame(lines).set_index("arm")
    return made.round(dict.fromkeys(["mean", "sd", "lowest", "highest", "best epoch"], digits))


def differences(rows: list[dict], reference: str) -> pd.DataFrame:
    """Each arm minus `reference`, paired by seed: mean, 95 % interval, and above, below or undecided."""
    values = by_arm(rows)
    lines = []
    for arm in values:
        if arm != reference and values[arm] and values[reference]:
            made = statistics.paired(values[arm], values[reference])
            lines.append({"arm": arm, "minus": reference, "difference": made.mean, "low": made.low, "high": made.high,
                          "pairs": made.count, "verdict": statistics.compare(made)})  # fmt: skip
    return pd.DataFrame(lines).set_index("arm").round(3 if rows[0]["headline"] == "AP" else 2)


def dots(rows: list[dict], ax: Axes | None = None, title: str = "") -> Axes:
    """A dot per seed and a bar at each arm's mean."""
    ax = ax or plt.subplots()[1]
    frame = pd.DataFrame([(arm, value) for arm, seeds in by_arm(rows).items() for value in seeds.values()],
                         columns=["arm", "value"])  # fmt: skip
    sns.stripplot(frame, x="value", y="arm", hue="arm", legend=False, size=9, jitter=False, alpha=0.75, ax=ax)
    for i, arm in enumerate(frame["arm"].unique()):
        mean = frame.loc[frame["arm"] == arm, "value"].mean()
        ax.plot([mean, mean], [i - 0.28, i + 0.28], color="black", linewidth=2)
    ax.set(xlabel=NAMES[rows[0]["headline"]], ylabel="", title=title or "One dot a seed, the bar is the mean")
    return ax


def curves(rows: list[dict], quantity: str | None = None, ax: Axes | None = None, title: str = "") -> Axes:
    """`quantity` of the curve (the headline unless named) over the epochs, one thin line a seed."""
    ax = ax or plt.subplots()[1]
    quantity = quantity or rows[0]["headline"]
    frame = pd.DataFrame([(row["arm"], row["seed"], epoch["epoch"], epoch[quantity])
                          for row in rows for epoch in row["curve"] if epoch.get(quantity) is not None],
                         columns=["arm", "seed", "epoch", "value"])  # fmt: skip
    frame = frame[frame.groupby("arm")["epoch"].transform("nunique") > 1]
    sns.lineplot(frame, x="epoch", y="value", hue="arm", units="seed", estimator=None, marker="o", ax=ax)
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
        ax.stairs(density, np.linspace(-2, 2, len(density) + 1), fill=True, alpha=0.25, label="weights (density)")
        ax.plot(seen[0]["x"], seen[0]["derivative"], "--", label="F' after the first epoch")
        ax.plot(seen[-1]["x"], seen[-1]["derivative"], label="F' at the end")
        ax.set(title=f"{row['arm']}: the learnt derivative", xlabel="what the weight binarizer sees", ylabel="F'")
        ax.legend(fontsize=9)
    return axes


def people(row: dict, axes: np.ndarray) -> np.ndarray:
    """The row's example people, worst to best by OKS: predicted skeleton in colour, true joints as white dots."""
    folder = config.make(**row["recipe"]).data.folder / "val2017"
    for ax, person in zip(axes.flat, row["examples"], strict=False):
        ax.imshow(read(folder / person["image"]))
        x, y, width, height = person["box"]
        points, true, visible = (np.array(person[key]) for key in ("keypoints", "true", "visible"))
        for a, b in COCO_PERSON.links:
            if visible[a] and visible[b]:
                colour = "tab:orange" if (a % 2 and b % 2) else "tab:cyan" if not (a % 2 or b % 2) else "tab:pink"
                ax.plot(points[[a, b], 0], points[[a, b], 1], color=colour, linewidth=2)
        ax.plot(*true[visible > 0].T, "o", color="white", markeredgecolor="black", markersize=3.5)
        ax.set(xlim=(x - 6, x + width + 6), ylim=(y + height + 6, y - 6), xticks=[], yticks=[])
        ax.set_title(f"OKS {person['oks']:.2f}", fontsize=10)
    return axes


def save_metrics(rows: list[dict], profile: str) -> None:
    """The small files of `dvc metrics show` (mean and deviation per arm) and `dvc plots show` (curves)."""
    folder = config.project_root() / "runs" / profile
    experiment, headline = rows[0]["experiment"], rows[0]["headline"]
    summary = {}
    for arm, values in by_arm(rows).items():
        made = statistics.estimate(list(values.values())) if values else None
        summary[arm] = {headline: round(made.mean, 4), "sd": round(made.deviation, 4)} if made else {"diverged": "all"}
    write_json(folder / "metrics" / f"{experiment}.json", summary)
    lines = [(row["arm"], row["seed"], epoch["epoch"], epoch[headline])
             for row in rows for epoch in row["curve"] if epoch.get(headline) is not None]  # fmt: skip
    (folder / "plots").mkdir(exist_ok=True)
    with open(folder / "plots" / f"{experiment}.csv", "w", newline="") as file:
        csv.writer(file).writerows([("arm", "seed", "epoch", headline), *lines])


def published(profile: str, experiment: str) -> list[dict]:
    """The rows in results/, each with the arm of the profile's params.yaml it belongs to (others are left out)."""
    section = config.experiment_section(experiment, profile)
    arms = {}
    for arm in section["arms"]:
        for seed in section["seeds"]:
            arms[json.dumps(config.identity(config.recipe(experiment, profile, arm, seed=seed)))] = arm
    rows = []
    for path in sorted((config.project_root() / "results" / profile / experiment).glob("*.json")):
        row = json.loads(path.read_text())
        arm = arms.get(json.dumps(config.identity(config.make(**row["recipe"]))))
        rows += [{"arm": arm} | row] if arm else []
    order = list(section["arms"])
    return sorted(rows, key=lambda row: (order.index(row["arm"]), row["seed"]))


def claims() -> dict[str, dict]:
    """paper.csv: claim -> text, metric, value, unit, source."""
    with open(config.project_root() / "paper.csv", newline="") as file:
        return {line["claim"]: line | {"value": float(line["value"])} for line in csv.DictReader(file)}


def verdict(imagenet: list[dict], coco: list[dict], ablation: list[dict]) -> pd.DataFrame:
    """Every claim of the paper: claimed, measured here with its spread, verdict. Only the paper's own scale could
    say "reproduced"; smaller ones agree, disagree or leave it undecided."""
    paper, lines = claims(), []

    def line(claim: str, claimed: str, measured: str, said: str) -> None:
        lines.append({"claim": paper[claim]["text"], "claimed": claimed, "measured": measured, "verdict": said})

    for claim, rows, floor in (("imagenet", imagenet, "linear classifier"), ("coco", coco, "mean pose")):
        values, digits = by_arm(rows), 1 if claim == "imagenet" else 3
        made = {arm: statistics.estimate(list(values[arm].values())) for arm in ("binary", "float", floor)}
        shown = ", ".join(f"{arm} {e.mean:.{digits}f} ± {e.deviation:.{digits}f}" for arm, e in made.items())
        claimed = f"{paper[claim]['value']:g} {paper[claim]['unit']}"
        line(claim, claimed, f"{rows[0]['recipe']['data']['root']}: {shown}",
             "undecided at this scale: other data and a smaller network")  # fmt: skip
    values = by_arm(imagenet)
    shown, found = _against(values, "binary", (next(iter(values)),))
    line("mlp", "it trains a network", shown, f"{found} at this scale (the forward takes sign: preset `fixed`)")
    values = by_arm(ablation)
    hand = hand_made(values)
    for claim, arm, rivals in (("linear", "linear", hand), ("gain", "mlp", hand)):
        shown, found = _against(values, arm, rivals)
        claimed = "above each" if claim != "gain" else f"+{paper[claim]['value']:g} over the best"
        line(claim, claimed, shown, f"{found} at this scale")
    return pd.DataFrame(lines)


def hand_made(arms: Iterable[str]) -> tuple[str, ...]:
    """The arms that are nobody's classifier."""
    return tuple(arm for arm in arms if arm not in ("linear", "mlp"))


def _against(values: dict, arm: str, rivals: tuple[str, ...]) -> tuple[str, str]:
    """An intersection-union test: `arm` is better only if it is above each rival, worse as soon as below one."""
    made = {rival: statistics.paired(values[arm], values[rival]) for rival in rivals if values.get(rival)}
    shown = ", ".join(f"{arm} - {rival} {e.mean:+.2f} [{e.low:+.2f}, {e.high:+.2f}]" for rival, e in made.items())
    found = {statistics.compare(e) for e in made.values()}
    return shown, "agrees" if found == {"above"} else "disagrees" if "below" in found else "undecided"


def markdown(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table."""
    lines = [frame.columns.tolist(), ["---"] * frame.shape[1], *frame.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def verdict_figure(imagenet: list[dict], coco: list[dict], ablation: list[dict]) -> plt.Figure:
    """The three experiments side by side, a dot a seed."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 3.2), layout="constrained")
    titles = ("Images: binary against float", "Poses: binary against float", "Which estimator for the weights?")
    for ax, rows, title in zip(axes, (imagenet, coco, ablation), titles, strict=True):
        dots(rows, ax, title)
    return figure


def parts(rows: list[dict], metrics: list[str]) -> pd.DataFrame:
    """Mean over the seeds of several metrics, one line per arm."""
    columns = {metric: by_arm(rows, metric) for metric in metrics}
    made = {metric: {arm: np.mean(list(seeds.values())) for arm, seeds in column.items() if seeds}
            for metric, column in columns.items()}  # fmt: skip
    return pd.DataFrame(made).rename_axis("arm").round(3)


def detectable(rows: list[dict], reference: str) -> pd.DataFrame:
    """For each arm the spread of its paired difference to `reference`, and the smallest difference that would show."""
    values, lines = by_arm(rows), []
    for arm in values:
        if arm != reference and len(values[arm].keys() & values[reference].keys()) > 1:
            made = statistics.paired(values[arm], values[reference])
            visible = statistics.smallest_detectable(made.deviation, made.count)
            lines.append({"arm": arm, "pairs": made.count, "sd of the difference": made.deviation,
                          "smallest detectable": visible})  # fmt: skip
    return pd.DataFrame(lines).set_index("arm").round(2)


def answer(rows: list[dict]) -> str:
    """The title's question in one sentence, from the paired differences."""
    values = by_arm(rows)
    shown, found = _against(values, "linear", hand_made(values))
    words = {"agrees": "the learnt linear function is better than each hand-made one",
             "disagrees": "the learnt linear function is worse than a hand-made one",
             "undecided": "the learnt linear function and the hand-made ones cannot be told apart"}  # fmt: skip
    seeds = len(values["linear"])
    return f"Over {seeds} seeds {words[found]} ({shown}; points of accuracy, 95 % intervals, paired by seed)."


def against_published(here: list[list[dict]], profile: str) -> pd.DataFrame:
    """Mean of each arm here and in results/, and how many of its rows agree to the last digit."""
    lines = []
    for rows in here:
        known = published(profile, rows[0]["experiment"])
        theirs = {(row["arm"], row["seed"]): row["metrics"].get(row["headline"]) for row in known}
        for arm, values in by_arm(rows).items():
            old = [theirs[arm, seed] for seed in values if (arm, seed) in theirs]
            same = sum(theirs.get((arm, seed)) == value for seed, value in values.items())
            lines.append({
                "experiment": rows[0]["experiment"], "arm": arm, "here": np.mean(list(values.values())),
                "published": np.mean(old) if old else None, "same digits": f"{same} of {len(values)}",
            })  # fmt: skip
    return pd.DataFrame(lines).set_index(["experiment", "arm"]).round(3)


def origins(here: list[list[dict]]) -> pd.DataFrame:
    """Where each experiment's numbers come from: runs, seeds, device, versions."""
    lines = []
    for rows in here:
        first = rows[0]
        lines.append({"experiment": first["experiment"], "runs": len(rows), "seeds": sorted({r["seed"] for r in rows}),
                      "device": first["device"], "torch": first["versions"]["torch"],
                      "a row": f"{first['experiment']}/{rows[-1]['fingerprint']}"})  # fmt: skip
    return pd.DataFrame(lines).set_index("experiment")


def times(experiments: list[list[dict]]) -> pd.DataFrame:
    """What the runs of each experiment cost: their number, seconds of training in all, the slowest, the machine."""
    return pd.DataFrame([
        {"experiment": rows[0]["experiment"], "runs": len(rows),
         "training, s": round(sum(row["seconds"] for row in rows)),
         "slowest run, s": round(max(row["seconds"] for row in rows)),
         "peak memory, MiB": max(row["peak_memory_mib"] for row in rows), "device": rows[0]["device"]}
        for rows in experiments
    ])  # fmt: skip


def binary_layers(seen: list[dict]) -> pd.DataFrame:
    """What `layers.watch` saw, one line per binary layer."""
    return pd.DataFrame(seen).set_index("layer")
