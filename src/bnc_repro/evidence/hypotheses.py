"""What the ablation's rows say about its hypotheses, in tables and sentences; `judgement` decides."""

import pandas as pd

from . import statistics
from .conditions import conditions, conditions_at_common_rate
from .judgement import (
    LEVEL,
    OverConditions,
    Pair,
    Test,
    diverged,
    hand_made,
    hardest,
    identical,
    identities,
    learnt_ones,
    margin_of,
    over_conditions,
    paired,
    tests,
)
from .rows import UNITS, by_arm
from .statistics import Estimate
from .tables import plain

FEW_SEEDS = f"not judged: that takes {statistics.SEEDS_TO_JUDGE} seeds or more, as in the profile `small`"


def said_of_identical(rows: list[dict]) -> str:
    """In words, which estimators agree digit by digit, and in which seeds a learnt one is the identity."""
    groups = [
        (condition, group)
        for condition, condition_rows in conditions(rows).items()
        for group in identical(condition_rows)
    ]
    sentences = [" = ".join(group) + (f" ({condition})" if condition else "") for condition, group in groups]
    same = "Digit by digit the same, and counted once: " + ", ".join(sentences) if sentences else ""
    parts = [same or "No two agree digit by digit."]
    common = conditions_at_common_rate(rows)
    for condition, condition_rows in conditions(rows).items():
        where = f" under {condition}" if condition else ""
        same_at_common = identities(common[condition])
        for arm, seeds in identities(condition_rows).items():
            own_rows, common_rows = by_arm(condition_rows)[arm], by_arm(common[condition]).get(arm, {})
            more = ""
            if common_rows and common_rows != own_rows:
                more = f", and at the common rate in {len(same_at_common.get(arm, []))} of {len(common_rows)}"
            parts.append(
                f"`{arm}`{where} is the identity in {len(seeds)} of {len(own_rows)} seeds "
                f"({', '.join(map(str, seeds))}){more}: all its gates stayed open."
            )
    return "\n\n".join(parts)


def said_of_reach(rows: list[dict]) -> str:
    """In words, for each learnt estimator of each condition the share of weights that a gradient reaches, after the
    first and after the last epoch, over its seeds."""
    sentences = []
    for condition, condition_rows in conditions(rows).items():
        where = f" under {condition}" if condition else ""
        for arm in learnt_ones(condition_rows):
            curves = [row["curve"] for row in condition_rows if row["arm"] == arm and row["status"] == "finished"]
            ends = [[curve[epoch].get("open_share") for curve in curves if curve] for epoch in (0, -1)]
            if all(ends) and None not in ends[0] + ends[1]:
                first, last = (f"{100 * min(end):.1f} to {100 * max(end):.1f} %" for end in ends)
                sentences.append(
                    f"`{arm}`{where}: {first} of the weights after the first epoch, {last} after the last."
                )
    return "\n\n".join(sentences)


def shown(difference: Estimate, headline: str) -> str:
    """A difference with its interval, as text."""
    digits = 2 if UNITS[headline] == "points" else 3
    return f"{difference.mean:+.{digits}f} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]".replace(
        "-", "−"
    )


def shown_at_both(pair: Pair, headline: str) -> str:
    """A pair's difference with its interval, and where the own rates differ the one at the common rate too, as text."""
    text = shown(pair.difference, headline)
    if pair.at_common is None or pair.at_equal_rates:
        return text
    return f"{text}, at the common rate {pair.common_rate:g} {shown(pair.at_common, headline)}"


def margin(headline: str) -> str:
    """The margin of equivalence with its unit."""
    return f"{margin_of(headline):g} {UNITS[headline]}"


def table(rows: list[dict]) -> pd.DataFrame:
    """A line for each condition of each hypothesis. For H1, H2 and H5: the rival at which the claim is weakest, the
    difference to it with an interval that holds for all pairs of the family at once, p of the claim and of the other
    way round with Holm's over the family, the range of the difference's p without any one seed, and the verdict:
    supported, refuted, equivalent, undecided, not judged or not run."""
    judged, lines = tests(rows), []
    for test in judged:
        family = sum(len(other.pairs) for other in judged if other.place.scale == test.place.scale)
        line = {"": test.name, "hypothesis": test.text, "condition": test.condition or "the one that ran"}
        if test.pairs:
            rival = hardest(test)
            low, high = test.without_each()
            line |= {
                "weakest against": rival,
                "difference, simultaneous 95 %": shown(simultaneous(test.estimates[rival], family), test.headline),
                "pairs": str(test.estimates[rival].count),
                "p without one seed": f"{low:.3f} to {high:.3f}",
            }
        line |= {
            "p above (Holm)": f"{test.p_above:.3f} ({test.holm_above:.3f})",
            "p below (Holm)": f"{test.p_below:.3f} ({test.holm_below:.3f})",
        }
        notes = [note for note in (f"{test.lost} diverged" if test.lost else "", test.reason) if note]
        lines.append(line | {"verdict": test.verdict + (f" ({'; '.join(notes)})" if notes else "")})
    lines += [
        {"": over.name, "hypothesis": over.text, "condition": over.condition, "verdict": over.verdict}
        for over in over_conditions(judged)
    ]
    return pd.DataFrame(lines).fillna("–").set_index("").rename_axis(None)


def simultaneous(difference: Estimate, family: int) -> Estimate:
    """The same mean with an interval that holds for `family` pairs at once (Bonferroni; Dunn 1961)."""
    return statistics.estimate(list(difference.values), 1 - LEVEL / max(1, family))


def answer(rows: list[dict]) -> str:
    """The title's question answered: a sentence for each hypothesis in each condition, from the same tests."""
    judged = tests(rows)
    return "\n\n".join(
        [_sentence(test) for test in judged] + [_sentence_over(over) for over in over_conditions(judged)]
    )


def _sentence(test: Test) -> str:
    where = f" under {test.condition.replace('-', ', ')}" if test.condition else ""
    estimates, within = test.estimates, margin(test.headline)
    pairs = sorted({e.count for e in estimates.values()})
    seeds = f"over {' to '.join(map(str, dict.fromkeys((pairs[0], pairs[-1]))))} seeds" if pairs else "without a pair"
    if test.name in ("H1", "H5"):
        start = " whose gates start within the weights" if test.name == "H5" else ""
        function = f"the learnt linear function{start}"
        words = {
            "supported": f"{function} is better than each hand-made one",
            "refuted": f"a hand-made function is better than the learnt linear one{start}",
            "undecided": f"that {function} beats each hand-made one stays undecided",
            "equivalent": f"{function} and each hand-made one lie within {within} of each other",
            "not judged": f"whether {function} beats each hand-made one is shown, {FEW_SEEDS}",
        }
    else:
        words = {
            "supported": "the MLP is better than the linear function",
            "refuted": "the linear function is better than the MLP",
            "undecided": "MLP and linear function cannot be told apart",
            "equivalent": f"MLP and linear function lie within {within} of each other",
            "not judged": f"MLP against linear function is shown, {FEW_SEEDS}",
        }
    pairs_shown = [f"{test.arm} − {rival} {shown_at_both(pair, test.headline)}" for rival, pair in test.pairs.items()]
    numbers = "; ".join(pairs_shown)
    lost = f" {test.lost} of its runs diverged." if test.lost else ""
    why = f", {test.reason}" if test.reason else ""
    if test.verdict == "undecided" and test.beaten and test.name != "H2":
        why += f"; it is above {', '.join(test.beaten)}"
    left = f" Left out, as hardly a run finished: {', '.join(test.left_out)}." if test.left_out else ""
    return (
        f"**{test.name}**{where}, {seeds}: {words[test.verdict]}{why} ({numbers}; {UNITS[test.headline]}, 95 % "
        f"intervals of single pairs; Holm's p {test.holm_above:.3f} of the claim, {test.holm_below:.3f} of the other "
        f"way round).{lost}{left}"
    )


def _sentence_over(over: OverConditions) -> str:
    where = f" ({over.condition})" if over.condition else ""
    missing = f": {', '.join(over.missing)} did not run" if over.missing else ""
    return f"**{over.name}**{where}, {over.text}: {over.verdict}{missing}."


def differences(rows: list[dict]) -> pd.DataFrame:
    """Every learnt estimator against every other one, in each condition: condition, pair, estimate, and the paired
    differences of the seeds. Of the learnt ones those under the preset `fixed`, where the rows have it: the others are
    judged by what they break (`tables.reliability`)."""
    lines, usable = [], [row for row in rows if row["recipe"].get("preset", "fixed") == "fixed"]
    for condition, condition_rows in conditions(usable or rows).items():
        values = by_arm(condition_rows)
        for arm in learnt_ones(condition_rows):
            rivals = hand_made(condition_rows) + (["linear"] if arm != "linear" and "linear" in values else [])
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
