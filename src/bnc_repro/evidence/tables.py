"""From rows to tables; `verdict` says what they mean, `plots` draws them.

Nothing here trains. Headlines are last epochs; an arm's rows are its seeds.
"""

import numpy as np
import pandas as pd

from ..recipe.clone import project_root
from ..training.checkpoint import write_json
from . import statistics
from .rows import UNITS, by_arm, published
from .same_digits import difference

DIGITS = ("metrics", "curve")  # of a row
MEANS = {"top1": "mean (%)", "AP": "mean (AP)", "PCK": "mean (PCK@0.2)"}


def table(rows: list[dict]) -> pd.DataFrame:
    """One line per arm: seeds, mean, standard deviation and range of the headline, the best epoch's mean, status."""
    lines = []
    for arm, values in by_arm(rows).items():
        arm_rows = [row for row in rows if row["arm"] == arm]
        line = {"arm": arm, "runs": len(arm_rows), "diverged": sum(row["status"] == "diverged" for row in arm_rows)}
        if values:
            estimate = statistics.estimate(list(values.values()))
            best = [row["best"] for row in arm_rows if row["best"] is not None]
            line |= {
                MEANS[arm_rows[0]["headline"]]: estimate.mean,
                "sd": estimate.deviation,
                "lowest": min(values.values()),
                "highest": max(values.values()),
                "best epoch's value": np.mean(best),
            }
        line["parameters"] = arm_rows[0]["parameters"]
        lines.append(line)
    frame = pd.DataFrame(lines).set_index("arm")
    frame["parameters"] = frame["parameters"].map("{:,}".format)
    return plain(frame, 1 if rows[0]["headline"] == "top1" else 3)


def pairs(rows: list[dict]) -> list[tuple[str, str]]:
    """Each arm against the first, the floor; then the last, the one in question, against each between."""
    floor, *others = dict.fromkeys(row["arm"] for row in rows)
    return [(arm, floor) for arm in others] + [(others[-1], arm) for arm in others[:-1]]


def differences(rows: list[dict], *pairs: tuple[str, str]) -> pd.DataFrame:
    """first - second for each pair of arms, paired by seed: mean, 95 % interval, and whether that excludes 0."""
    values, unit, lines = by_arm(rows), UNITS[rows[0]["headline"]], []
    for first, second in pairs:
        estimate = statistics.paired(values[first], values[second])
        lines.append(
            {
                "pair": f"{first} − {second}",
                f"difference ({unit})": estimate.mean,
                "95 % low": estimate.low,
                "95 % high": estimate.high,
                "seeds": estimate.count,
                "against 0": statistics.compare(estimate),
            }
        )
    return plain(pd.DataFrame(lines).set_index("pair"), 2 if unit == "points" else 3)


def plain(frame: pd.DataFrame, digits: int) -> pd.DataFrame:
    """Numbers as text with all their digits, nothing where there is none, and a header of one line."""

    def text(value: object) -> object:
        if not isinstance(value, float):
            return value
        return "" if np.isnan(value) else f"{value:.{digits}f}".replace("-", "−")

    shown = frame.map(text)
    return shown.rename_axis(columns=frame.index.name, index=None)


def save_metrics(rows: list[dict], profile: str) -> None:
    """The small files of `dvc metrics show` (mean and deviation per arm) and `dvc plots show` (curves)."""
    folder = project_root() / "runs" / profile
    experiment, headline = rows[0]["experiment"], rows[0]["headline"]
    summary = {}
    for arm, values in by_arm(rows).items():
        summary[arm] = {"diverged": "all"}
        if values:
            estimate = statistics.estimate(list(values.values()))
            summary[arm] = {headline: round(estimate.mean, 4), "sd": round(estimate.deviation, 4)}
    write_json(folder / "metrics" / f"{experiment}.json", summary)
    (folder / "plots").mkdir(exist_ok=True)
    curve_of(rows).to_csv(folder / "plots" / f"{experiment}.csv", index=False, lineterminator="\r\n")


def curve_of(rows: list[dict]) -> pd.DataFrame:
    """The headline after every epoch that has one: arm, seed, epoch, value, which is called by its name."""
    headline = rows[0]["headline"]
    lines = [
        (row["arm"], row["seed"], epoch["epoch"], epoch[headline])
        for row in rows
        for epoch in row["curve"]
        if epoch.get(headline) is not None
    ]
    return pd.DataFrame(lines, columns=["arm", "seed", "epoch", headline])


def markdown(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table."""
    lines = [frame.columns.tolist(), ["---"] * frame.shape[1], *frame.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def parts(rows: list[dict], metrics: list[str]) -> pd.DataFrame:
    """Mean over the seeds of several metrics, one line per arm; none for a metric that a row lacks, as where nobody of
    that size is annotated."""
    means: dict[str, dict[str, float]] = {}
    for metric in metrics:
        for arm in dict.fromkeys(row["arm"] for row in rows):
            values = [row["metrics"].get(metric) for row in rows if row["arm"] == arm and row["status"] == "finished"]
            if values and None not in values:
                means.setdefault(metric, {})[arm] = float(np.mean(values))
    return plain(pd.DataFrame(means).rename_axis("arm"), 3)


def reliability(rows: list[dict], reference: str, chance: float) -> pd.DataFrame:
    """One line per arm: runs, mean and deviation of the headline, runs that collapsed (diverged, or within 10 points
    of `chance`), runs that end with a slope at 0 that is not positive, the smallest share of weights with a gradient,
    and the difference to `reference` paired by seed with its 95 % interval."""
    values, lines = by_arm(rows), []
    for arm, seeds in values.items():
        arm_rows = [row for row in rows if row["arm"] == arm]
        slopes = [row["metrics"]["slope_at_0"] for row in arm_rows if "slope_at_0" in row["metrics"]]
        estimate = statistics.estimate(list(seeds.values())) if seeds else None
        shared = seeds.keys() & values[reference].keys() if arm != reference else ()
        against = statistics.paired(seeds, values[reference]) if shared else None
        lines.append(
            {
                "arm": arm,
                "runs": len(arm_rows),
                "mean (%)": estimate.mean if estimate else "",
                "sd": estimate.deviation if estimate else "",
                "collapsed": collapsed(arm_rows, chance),
                "reversed": sum(slope <= 0 for slope in slopes) if slopes else "",
                "least open": min(row["metrics"]["open_share"] for row in arm_rows if row["metrics"]) if slopes else "",
                f"minus {reference}": f"{against.mean:+.2f} [{against.low:+.2f}, {against.high:+.2f}]"
                if against
                else "",
            }
        )
    return plain(pd.DataFrame(lines).set_index("arm"), 2)


def collapsed(rows: list[dict], chance: float) -> int:
    """How many runs diverged or end within 10 points of `chance`, in percent."""
    return sum(row["status"] != "finished" or row["metrics"][row["headline"]] <= chance + 10 for row in rows)


def against_published(here: list[list[dict]], profile: str) -> pd.DataFrame:
    """Mean of each arm here and in results/, how many of its rows agree to the last digit, the curve's too; and, where
    any row in results/ was made by another processor or under other settings than here, on which."""
    lines = []
    for rows in here:
        known = published(profile, rows[0]["experiment"])
        theirs = {(row["arm"], row["seed"]): row for row in known if row["status"] == "finished"}
        for arm, values in by_arm(rows).items():
            ours = {row["seed"]: row for row in rows if row["arm"] == arm and row["seed"] in values}
            old = [theirs[arm, seed] for seed in ours if (arm, seed) in theirs]
            same = sum(all(difference(row[key], ours[row["seed"]][key])[1] is None for key in DIGITS) for row in old)
            devices = {row["device"] for row in old}
            lines.append(
                {
                    "experiment": rows[0]["experiment"],
                    "arm": arm,
                    "here": np.mean(list(values.values())),
                    "published": np.mean([row["metrics"][row["headline"]] for row in old]) if old else "none",
                    "same digits": f"{same} of {len(values)}" if old else "",
                    "published on": "; ".join(sorted(devices - {row["device"] for row in ours.values()})),
                }
            )
    frame = pd.DataFrame(lines).set_index(["experiment", "arm"]).round(3)
    return frame if frame["published on"].any() else frame.drop(columns="published on")


def origins(here: list[list[dict]]) -> pd.DataFrame:
    """Where each experiment's numbers come from: runs, seeds, device, versions."""
    lines = []
    for rows in here:
        first = rows[0]
        lines.append(
            {
                "experiment": first["experiment"],
                "runs": len(rows),
                "seeds": sorted({r["seed"] for r in rows}),
                "device": first["device"],
                "torch": first["versions"]["torch"],
                "rows": f"runs/{first['profile']}/{first['experiment']}/*/row.json",
            }
        )
    return plain(pd.DataFrame(lines).set_index("experiment"), 0)


def times(experiments: list[list[dict]]) -> pd.DataFrame:
    """What the runs of each experiment cost: their number, seconds of training (without evaluation) in all, the
    slowest, how many such trainings an hour holds one after the other, the machine. A run that two arms share counts
    once; experiments without rows are left out."""
    lines = []
    for rows in filter(None, experiments):
        runs = list({row["fingerprint"]: row for row in rows}.values())
        seconds = [row["seconds"] for row in runs]
        lines.append(
            {
                "profile": runs[0]["profile"],
                "experiment": runs[0]["experiment"],
                "runs": len(runs),
                "training, s": round(sum(seconds)),
                "slowest, s": round(max(seconds)),
                "trainings an hour": round(3600 * len(runs) / sum(seconds)),
                "peak memory, MiB": max(row["peak_memory_mib"] for row in runs),
                "device": "; ".join(dict.fromkeys(row["device"] for row in runs)),
            }
        )
    return pd.DataFrame(lines)


def binary_layers(seen: list[dict]) -> pd.DataFrame:
    """What `layers.watch` saw, one line per binary layer."""
    return plain(pd.DataFrame(seen).set_index("layer"), 0)
