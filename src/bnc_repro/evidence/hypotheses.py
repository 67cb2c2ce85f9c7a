"""What the ablation's rows say about its hypotheses.

H1 the learnt linear function is above each hand-made one, H2 the MLP is above linear, H3 H1 holds in every placement,
H4 H1 holds under every optimizer. "Above each" is an intersection-union test (Berger 1982): its p is the largest of
the rivals', no correction is due for their number. The other way round, "below one of them", is corrected for it
(Bonferroni). Over the claims of one family, H1 and H2 in every condition, Holm's procedure is applied, both ways.

A row names its estimator and its placement; a condition is a placement under an optimizer, and arms of one condition
are compared with each other. Whatever diverged in a run cannot be above anything; pairs are those that both finished.
"""

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


def conditions(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of each condition, with the estimator as their arm. A condition is called by what differs between the
    rows: the placement, the optimizer, both ("weights-adam") or, where there is only one, nothing ("")."""
    places = {_place(row) for row in rows}
    differ = [axis for axis in (0, 1) if len({place[axis] for place in places}) > 1]
    found: dict[str, list[dict]] = {}
    for row in rows:
        condition = "-".join(_place(row)[axis] for axis in differ)
        found.setdefault(condition, []).append(row | {"arm": row["estimator"]})
    return found


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
    found = [(condition, group) for condition, own in conditions(rows).items() for group in identical(own)]
    said = [f"{' = '.join(group)}" + f" ({condition})" * bool(condition) for condition, group in found]
    return "Digit by digit the same, and counted once: " + ", ".join(said) if said else "No two agree digit by digit."


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
    return {rival: statistics.paired(values[arm], values[rival]) for rival, own in pairs.items() if len(own) > 1}


def tests(rows: list[dict]) -> list[dict]:
    """H1 and H2 in every condition, each tested and judged: name, text, condition, arm, `made` (rival -> Estimate),
    `left_out` rivals without two pairs, p of the claim and its Holm value, verdict."""
    found = []
    for condition, own in conditions(rows).items():
        lost = diverged(own)
        for name, text, arm in CLAIMS:
            rivals = hand_made(own) if name == "H1" else ["linear"]
            if arm not in lost or not set(rivals) & lost.keys():
                continue
            made = paired(own, arm, rivals)
            p = {rival: statistics.p_value(e) for rival, e in made.items()}
            above = [p[rival] if e.mean > 0 and not lost[arm] else 1.0 for rival, e in made.items()]
            below = [p[rival] if e.mean < 0 and not lost[rival] else 1.0 for rival, e in made.items()]
            found.append(
                {
                    "name": name,
                    "text": text,
                    "condition": condition,
                    "arm": arm,
                    "made": made,
                    "lost": lost[arm],
                    "place": _place(own[0]),
                    "left_out": [rival for rival in rivals if rival not in made],
                    "p": max(above, default=1.0),
                    "below": min(1.0, len(made) * min(below)) if made else 1.0,
                    "headline": own[0]["headline"],
                }
            )
    for key in ("p", "below"):
        for test, value in zip(found, statistics.holm([test[key] for test in found]), strict=True):
            test[f"holm {key}"] = value
    for test in found:
        supported, refuted = test["holm p"] < LEVEL, test["holm below"] < LEVEL
        test["verdict"] = "supported" if supported else "refuted" if refuted else "undecided"
    return found


def hardest(test: dict) -> str:
    """The rival that the claim fails at, or passes last: the largest p, of equals the smallest difference."""
    made = test["made"]
    return max(
        made, key=lambda rival: (statistics.p_value(made[rival]) if made[rival].mean > 0 else 1.0, -made[rival].mean)
    )


def shown(made: Estimate, headline: str) -> str:
    """A difference with its interval, as text."""
    digits = 2 if UNITS[headline] == "points" else 3
    return f"{made.mean:+.{digits}f} [{made.low:+.{digits}f}, {made.high:+.{digits}f}]".replace("-", "−")


def over_conditions(found: list[dict]) -> list[dict]:
    """H3 for every optimizer and H4 for every placement, judged by H1: supported in all, refuted in one, not run where
    a condition is missing, else undecided."""
    judged = {}
    for test in found:
        if test["name"] == "H1":
            judged[test["place"]] = test["verdict"]
    lines = []
    for name, text, axis, wanted in (
        ("H3", "H1 for weights, activations and both", 0, PLACEMENTS),
        ("H4", "H1 under SGD and under Adam", 1, OPTIMIZERS),
    ):
        for other in dict.fromkeys(key[1 - axis] for key in judged):
            own = {key[axis]: verdict for key, verdict in judged.items() if key[1 - axis] == other}
            said = set(own.values())
            missing = [part for part in wanted if part not in own]
            verdict = (
                "refuted"
                if "refuted" in said
                else "not run"
                if missing
                else ("supported" if said == {"supported"} else "undecided")
            )
            lines.append({"name": name, "text": text, "condition": other, "verdict": verdict, "missing": missing})
    return lines


def table(rows: list[dict]) -> pd.DataFrame:
    """A line for each condition of each hypothesis. For H1 and H2: the rival at which the claim is weakest, the
    difference to it with its 95 % interval, p of the whole claim, Holm's over the family, and the verdict: supported,
    refuted, undecided or not run."""
    found, lines = tests(rows), []
    for test in found:
        line = {"": test["name"], "hypothesis": test["text"], "condition": test["condition"] or "the one that ran"}
        if test["made"]:
            rival = hardest(test)
            line |= {
                "weakest against": rival,
                "difference to it": shown(test["made"][rival], test["headline"]),
                "pairs": str(test["made"][rival].count),
            }
        note = f" ({test['lost']} diverged)" * bool(test["lost"])
        lines.append(
            line | {"p": f"{test['p']:.3f}", "Holm": f"{test['holm p']:.3f}", "verdict": test["verdict"] + note}
        )
    lines += [
        {"": one["name"], "hypothesis": one["text"], "condition": one["condition"], "verdict": one["verdict"]}
        for one in over_conditions(found)
    ]
    return pd.DataFrame(lines).fillna("").set_index("").rename_axis(None)


def answer(rows: list[dict]) -> str:
    """The title's question answered: a sentence for each hypothesis in each condition, from the same tests."""
    found = tests(rows)
    return "\n\n".join([_sentence(test) for test in found] + [_sentence_over(one) for one in over_conditions(found)])


def _sentence(test: dict) -> str:
    where = f" under {test['condition'].replace('-', ', ')}" * bool(test["condition"])
    made = test["made"]
    pairs = sorted({e.count for e in made.values()})
    seeds = f"over {' to '.join(map(str, dict.fromkeys((pairs[0], pairs[-1]))))} seeds" if pairs else "without a pair"
    if test["name"] == "H1":
        said = {
            "supported": "the learnt linear function is better than each hand-made one",
            "refuted": "a hand-made function is better than the learnt linear one",
            "undecided": "that the learnt linear function beats each hand-made one stays undecided",
        }
    else:
        said = {
            "supported": "the MLP is better than the linear function",
            "refuted": "the linear function is better than the MLP",
            "undecided": "MLP and linear function cannot be told apart",
        }
    numbers = "; ".join(f"{test['arm']} − {rival} {shown(e, test['headline'])}" for rival, e in made.items())
    lost = f" {test['lost']} of its runs diverged." * bool(test["lost"])
    left = f" Left out, as hardly a run finished: {', '.join(test['left_out'])}." * bool(test["left_out"])
    return (
        f"**{test['name']}**{where}, {seeds}: {said[test['verdict']]} ({numbers}; {UNITS[test['headline']]}, 95 % "
        f"intervals of single pairs; Holm's p of the claim {test['holm p']:.3f}).{lost}{left}"
    )


def _sentence_over(one: dict) -> str:
    where = f" ({one['condition']})" * bool(one["condition"])
    missing = f": {', '.join(one['missing'])} did not run" * bool(one["missing"])
    return f"**{one['name']}**{where}, {one['text']}: {one['verdict']}{missing}."


def differences(rows: list[dict]) -> pd.DataFrame:
    """Every learnt estimator against every other one, in each condition: condition, pair, estimate, and the paired
    differences of the seeds."""
    lines = []
    for condition, own in conditions(rows).items():
        values = by_arm(own)
        for arm in [arm for arm in LEARNT if arm in values]:
            rivals = hand_made(own) + (["linear"] if arm == "mlp" and "linear" in values else [])
            for rival, made in paired(own, arm, rivals).items():
                shared = sorted(values[arm].keys() & values[rival].keys())
                lines.append(
                    {
                        "condition": condition,
                        "pair": f"{arm} − {rival}",
                        "estimate": made,
                        "seeds": [values[arm][seed] - values[rival][seed] for seed in shared],
                    }
                )
    return pd.DataFrame(lines, columns=["condition", "pair", "estimate", "seeds"])


def detectable(rows: list[dict]) -> pd.DataFrame:
    """For each pair the spread of its differences and the smallest true one that would show four times out of five, at
    the level that the first of Holm's steps asks of a claim."""
    confidence, lines = 1 - LEVEL / max(1, len(tests(rows))), []
    for _, line in differences(rows).iterrows():
        made = line["estimate"]
        visible = statistics.smallest_detectable(made.deviation, made.count, confidence=confidence)
        lines.append(
            {
                "pair": line["pair"],
                "condition": line["condition"],
                "pairs": made.count,
                "sd of the difference": made.deviation,
                "smallest detectable": visible,
            }
        )
    return plain(pd.DataFrame(lines).set_index("pair"), 2)


def ranking(rows: list[dict]) -> pd.DataFrame:
    """The estimators of each condition by their mean. The range of a rank leaves out only those that are above or below
    by a paired interval at 95 % (uncorrected); time is that of training relative to the first arm's, the median over
    the seeds that both finished. Estimators with the same digits are one line; without a finished run there is none."""
    lines = []
    for condition, own in conditions(rows).items():
        groups = {arm: group for group in identical(own) for arm in group}
        values, lost = by_arm(own), diverged(own)
        kept = [arm for arm in values if values[arm] and groups.get(arm, [arm])[0] == arm]
        seconds = {(row["arm"], row["seed"]): row["seconds"] for row in own}
        ranked = []
        for arm in kept:
            rivals = [other for other in kept if other != arm]
            others = [statistics.compare(made) for made in paired(own, arm, rivals).values()]
            low, high = 1 + others.count("below"), len(kept) - others.count("above")
            ratios = pd.Series(
                [seconds[arm, seed] / seconds[kept[0], seed] for seed in values[arm].keys() & values[kept[0]].keys()]
            )
            ranked.append(
                {
                    "condition": condition,
                    "estimator": " = ".join(groups.get(arm, [arm])),
                    "mean": sum(values[arm].values()) / len(values[arm]),
                    "rank": f"{low} to {high}" if low != high else f"{low}",
                    "seeds": len(values[arm]),
                    "diverged": lost[arm],
                    f"time : {kept[0]}": ratios.median(),
                }
            )
        lines += sorted(ranked, key=lambda line: -line["mean"])
    return pd.DataFrame(lines)
