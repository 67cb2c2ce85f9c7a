"""What the ablation's rows say about its hypotheses.

H1 the learnt linear function is above each hand-made one, H2 the MLP is above linear, H3 H1 holds in every placement,
H4 H1 holds under every optimizer. "Above each" is an intersection-union test (Berger 1982): its p is the largest of
the rivals', no correction is due for their number. The other way round, "below one of them", is corrected for it
(Bonferroni). Over the claims of one family, H1 and H2 in every condition, Holm's procedure is applied, both ways.

A row names its estimator and its placement; a condition is a placement under an optimizer, and arms of one condition
are compared with each other. Whatever diverged in a run cannot be above anything; pairs are those that both finished.
"""

from dataclasses import dataclass

import pandas as pd

from . import statistics
from .rows import UNITS, by_arm
from .statistics import Estimate
from .tables import plain

LEARNT = ("linear", "mlp")
CLAIMS = (("H1", "linear above each hand-made", "linear"), ("H2", "mlp above linear", "mlp"))
PLACEMENTS = ("weights", "activations", "both")
OPTIMIZERS = ("adam", "sgd")
LEVEL = 0.05
FEW_SEEDS = f"not judged: that takes {statistics.SEEDS_TO_JUDGE} seeds or more, as in the profile `small`"


def conditions(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of each condition, with the estimator as their arm. A condition is called by what differs between the
    rows: the placement, the optimizer, both ("weights-adam") or, where there is only one, nothing ("")."""
    places = {_place(row) for row in rows}
    differ = [axis for axis in (0, 1) if len({condition_of_row[axis] for condition_of_row in places}) > 1]
    by_condition: dict[str, list[dict]] = {}
    for row in rows:
        condition = "-".join(_place(row)[axis] for axis in differ)
        by_condition.setdefault(condition, []).append(row | {"arm": row["estimator"]})
    return by_condition


def _place(row: dict) -> tuple[str, str]:
    return row["placement"], row["recipe"]["optimizer"]


def identical(rows: list[dict]) -> list[list[str]]:
    """Groups of estimators whose runs agree in every digit over the seeds that they share (two at least)."""
    groups: list[list[str]] = []
    values = by_arm(rows)
    for arm, seeds in values.items():
        for group in groups:
            shared = seeds.keys() & values[group[0]].keys()
            if len(shared) > 1 and all(seeds[seed] == values[group[0]][seed] for seed in shared):
                group.append(arm)
                break
        else:
            groups.append([arm])
    return [group for group in groups if len(group) > 1]


def hand_made(rows: list[dict]) -> list[str]:
    """The estimators that are nobody's classifier; of those that give the same digits, the first."""
    groups = [[arm for arm in group if arm not in LEARNT] for group in identical(rows)]
    doubles = {arm for group in groups for arm in group[1:]}
    return [arm for arm in by_arm(rows) if arm not in LEARNT and arm not in doubles]


def said_of_identical(rows: list[dict]) -> str:
    """In words, which estimators agree digit by digit, by condition."""
    groups = [
        (condition, group)
        for condition, condition_rows in conditions(rows).items()
        for group in identical(condition_rows)
    ]
    sentences = [" = ".join(group) + (f" ({condition})" if condition else "") for condition, group in groups]
    return (
        "Digit by digit the same, and counted once: " + ", ".join(sentences)
        if sentences
        else "No two agree digit by digit."
    )


def diverged(rows: list[dict]) -> dict[str, int]:
    """estimator -> its runs that diverged."""
    counts = dict.fromkeys(by_arm(rows), 0)
    for row in rows:
        counts[row["arm"]] += row["status"] == "diverged"
    return counts


def paired(rows: list[dict], arm: str, rivals: list[str]) -> dict[str, Estimate]:
    """rival -> arm - rival, over the seeds that both finished; rivals with fewer than two such pairs are left out."""
    values = by_arm(rows)
    pairs = {rival: values[arm].keys() & values[rival].keys() for rival in rivals}
    return {rival: statistics.paired(values[arm], values[rival]) for rival, seeds in pairs.items() if len(seeds) > 1}


@dataclass
class Test:
    """H1 or H2 in one condition, tested and judged."""

    name: str
    text: str
    condition: str
    place: tuple[str, str]  # placement and optimizer
    arm: str
    estimates: dict[str, Estimate]  # by rival: arm - rival
    left_out: list[str]  # rivals without two pairs
    lost: int  # runs of the arm that diverged
    headline: str
    p_above: float  # of the claim
    p_below: float  # of the other way round, below one of the rivals
    holm_above: float = 1.0
    holm_below: float = 1.0

    @property
    def verdict(self) -> str:
        """supported, refuted or undecided, by Holm's values over the family and where no one seed decides; not judged
        with too few seeds (`statistics.compare`)."""
        relations = [statistics.compare(estimate) for estimate in self.estimates.values()]
        if "not judged" in relations:
            return "not judged"
        if self.holm_above < LEVEL and set(relations) == {"above"}:
            return "supported"
        return "refuted" if self.holm_below < LEVEL and "below" in relations else "undecided"


@dataclass(frozen=True)
class OverConditions:
    """H3 or H4: H1 over all placements, or over all optimizers."""

    name: str
    text: str
    condition: str
    verdict: str
    missing: list[str]


def tests(rows: list[dict]) -> list[Test]:
    """H1 and H2 in every condition, each tested and judged."""
    judged = []
    for condition, condition_rows in conditions(rows).items():
        lost, headline, place = diverged(condition_rows), condition_rows[0]["headline"], _place(condition_rows[0])
        for name, text, arm in CLAIMS:
            rivals = hand_made(condition_rows) if name == "H1" else ["linear"]
            if arm not in lost or not set(rivals) & lost.keys():
                continue
            estimates = paired(condition_rows, arm, rivals)
            left_out = [rival for rival in rivals if rival not in estimates]
            p = {rival: statistics.p_value(e) for rival, e in estimates.items()}
            above = [p[rival] if e.mean > 0 and not lost[arm] else 1.0 for rival, e in estimates.items()]
            below = [p[rival] if e.mean < 0 and not lost[rival] else 1.0 for rival, e in estimates.items()]
            p_below = min(1.0, len(estimates) * min(below)) if estimates else 1.0
            p_above = max(above, default=1.0)
            judged.append(
                Test(name, text, condition, place, arm, estimates, left_out, lost[arm], headline, p_above, p_below)
            )
    for test, value in zip(judged, statistics.holm([test.p_above for test in judged]), strict=True):
        test.holm_above = value
    for test, value in zip(judged, statistics.holm([test.p_below for test in judged]), strict=True):
        test.holm_below = value
    return judged


def hardest(test: Test) -> str:
    """The rival that the claim fails at, or passes last: the largest p, of equals the smallest difference."""
    estimates = test.estimates
    return max(
        estimates,
        key=lambda rival: (
            statistics.p_value(estimates[rival]) if estimates[rival].mean > 0 else 1.0,
            -estimates[rival].mean,
        ),
    )


def shown(difference: Estimate, headline: str) -> str:
    """A difference with its interval, as text."""
    digits = 2 if UNITS[headline] == "points" else 3
    return f"{difference.mean:+.{digits}f} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]".replace(
        "-", "−"
    )


def over_conditions(judged_tests: list[Test]) -> list[OverConditions]:
    """H3 for every optimizer and H4 for every placement, judged by H1: supported in all, refuted in one, not run where
    a condition is missing, else undecided."""
    judged = {}
    for test in judged_tests:
        if test.name == "H1":
            judged[test.place] = test.verdict
    lines = []
    for name, text, axis, wanted in (
        ("H3", "H1 for weights, activations and both", 0, PLACEMENTS),
        ("H4", "H1 under SGD and under Adam", 1, OPTIMIZERS),
    ):
        for other in dict.fromkeys(key[1 - axis] for key in judged):
            verdicts = {key[axis]: verdict for key, verdict in judged.items() if key[1 - axis] == other}
            words = set(verdicts.values())
            missing = [part for part in wanted if part not in verdicts]
            if "refuted" in words:
                verdict = "refuted"
            elif missing:
                verdict = "not run"
            else:
                verdict = "supported" if words == {"supported"} else "undecided"
                verdict = "not judged" if "not judged" in words else verdict
            lines.append(OverConditions(name, text, other, verdict, missing))
    return lines


def table(rows: list[dict]) -> pd.DataFrame:
    """A line for each condition of each hypothesis. For H1 and H2: the rival at which the claim is weakest, the
    difference to it with its 95 % interval, p of the whole claim, Holm's over the family, and the verdict: supported,
    refuted, undecided, not judged or not run."""
    judged, lines = tests(rows), []
    for test in judged:
        line = {"": test.name, "hypothesis": test.text, "condition": test.condition or "the one that ran"}
        if test.estimates:
            rival = hardest(test)
            line |= {
                "weakest against": rival,
                "difference to it": shown(test.estimates[rival], test.headline),
                "pairs": str(test.estimates[rival].count),
            }
        note = f" ({test.lost} diverged)" if test.lost else ""
        lines.append(
            line | {"p": f"{test.p_above:.3f}", "Holm": f"{test.holm_above:.3f}", "verdict": test.verdict + note}
        )
    lines += [
        {"": over.name, "hypothesis": over.text, "condition": over.condition, "verdict": over.verdict}
        for over in over_conditions(judged)
    ]
    return pd.DataFrame(lines).fillna("").set_index("").rename_axis(None)


def answer(rows: list[dict]) -> str:
    """The title's question answered: a sentence for each hypothesis in each condition, from the same tests."""
    judged = tests(rows)
    return "\n\n".join(
        [_sentence(test) for test in judged] + [_sentence_over(over) for over in over_conditions(judged)]
    )


def _sentence(test: Test) -> str:
    where = f" under {test.condition.replace('-', ', ')}" if test.condition else ""
    estimates = test.estimates
    pairs = sorted({e.count for e in estimates.values()})
    seeds = f"over {' to '.join(map(str, dict.fromkeys((pairs[0], pairs[-1]))))} seeds" if pairs else "without a pair"
    if test.name == "H1":
        words = {
            "supported": "the learnt linear function is better than each hand-made one",
            "refuted": "a hand-made function is better than the learnt linear one",
            "undecided": "that the learnt linear function beats each hand-made one stays undecided",
            "not judged": f"whether the learnt linear function beats each hand-made one is shown, {FEW_SEEDS}",
        }
    else:
        words = {
            "supported": "the MLP is better than the linear function",
            "refuted": "the linear function is better than the MLP",
            "undecided": "MLP and linear function cannot be told apart",
            "not judged": f"MLP against linear function is shown, {FEW_SEEDS}",
        }
    numbers = "; ".join(f"{test.arm} − {rival} {shown(e, test.headline)}" for rival, e in estimates.items())
    lost = f" {test.lost} of its runs diverged." if test.lost else ""
    left = f" Left out, as hardly a run finished: {', '.join(test.left_out)}." if test.left_out else ""
    return (
        f"**{test.name}**{where}, {seeds}: {words[test.verdict]} ({numbers}; {UNITS[test.headline]}, 95 % "
        f"intervals of single pairs; Holm's p of the claim {test.holm_above:.3f}).{lost}{left}"
    )


def _sentence_over(over: OverConditions) -> str:
    where = f" ({over.condition})" if over.condition else ""
    missing = f": {', '.join(over.missing)} did not run" if over.missing else ""
    return f"**{over.name}**{where}, {over.text}: {over.verdict}{missing}."


def differences(rows: list[dict]) -> pd.DataFrame:
    """Every learnt estimator against every other one, in each condition: condition, pair, estimate, and the paired
    differences of the seeds."""
    lines = []
    for condition, condition_rows in conditions(rows).items():
        values = by_arm(condition_rows)
        for arm in [arm for arm in LEARNT if arm in values]:
            rivals = hand_made(condition_rows) + (["linear"] if arm == "mlp" and "linear" in values else [])
            for rival, estimate in paired(condition_rows, arm, rivals).items():
                shared = sorted(values[arm].keys() & values[rival].keys())
                lines.append(
                    {
                        "condition": condition,
                        "pair": f"{arm} − {rival}",
                        "estimate": estimate,
                        "seeds": [values[arm][seed] - values[rival][seed] for seed in shared],
                    }
                )
    return pd.DataFrame(lines, columns=["condition", "pair", "estimate", "seeds"])


def detectable(rows: list[dict]) -> pd.DataFrame:
    """For each pair the spread of its differences and the smallest true one that would show four times out of five, at
    the level that the first of Holm's steps asks of a claim."""
    confidence, lines = 1 - LEVEL / max(1, len(tests(rows))), []
    for _, line in differences(rows).iterrows():
        estimate = line["estimate"]
        visible = statistics.smallest_detectable(estimate.deviation, estimate.count, confidence=confidence)
        lines.append(
            {
                "pair": line["pair"],
                "condition": line["condition"],
                "pairs": estimate.count,
                "sd of the difference": estimate.deviation,
                "smallest detectable": visible,
            }
        )
    return plain(pd.DataFrame(lines).set_index("pair"), 2)


def ranking(rows: list[dict]) -> pd.DataFrame:
    """The estimators of each condition by their mean. The range of a rank leaves out only those that are above or below
    by `statistics.compare`. Time is the processor's in training, relative to the first arm's, the median over the seeds
    that both finished; empty where a row has only the clock's, which company lengthens. Estimators with the same digits
    are one line; without a finished run there is none."""
    lines = []
    for condition, condition_rows in conditions(rows).items():
        groups = {arm: group for group in identical(condition_rows) for arm in group}
        values, lost = by_arm(condition_rows), diverged(condition_rows)
        kept = [arm for arm in values if values[arm] and groups.get(arm, [arm])[0] == arm]
        seconds = {(row["arm"], row["seed"]): row.get("cpu_seconds") for row in condition_rows}
        ranked = []
        for arm in kept:
            rivals = [other for other in kept if other != arm]
            others = [statistics.compare(estimate) for estimate in paired(condition_rows, arm, rivals).values()]
            low, high = 1 + others.count("below"), len(kept) - others.count("above")
            shared = values[arm].keys() & values[kept[0]].keys()
            measured = all(seconds[name, seed] for name in (arm, kept[0]) for seed in shared)
            ratios = pd.Series([seconds[arm, seed] / seconds[kept[0], seed] for seed in shared if measured])
            ranked.append(
                {
                    "condition": condition,
                    "estimator": " = ".join(groups.get(arm, [arm])),
                    "mean": sum(values[arm].values()) / len(values[arm]),
                    "rank": f"{low} to {high}" if low != high else f"{low}",
                    "seeds": len(values[arm]),
                    "diverged": lost[arm],
                    f"time : {kept[0]}": ratios.median() if len(ratios) else "",
                }
            )
        lines += sorted(ranked, key=lambda line: -line["mean"])
    return pd.DataFrame(lines)
