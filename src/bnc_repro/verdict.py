"""What the rows say: the ablation's hypotheses, and the paper's claims.

H1 the learnt linear function is above each hand-made one, H2 the MLP is above linear, H3 H1 holds in every placement,
H4 H1 holds under every optimizer. "Above each" is an intersection-union test (Berger 1982): its p is the largest of
the rivals', no correction is due for their number. The other way round, "below one of them", is corrected for it
(Bonferroni). Over the claims of one family, H1 and H2 in every condition, Holm's procedure is applied.

An arm's name is ESTIMATOR or ESTIMATOR-CONDITION, such as mlp-sgd or mlp-activations-sgd; arms of one condition are
compared with each other. A run that diverged counts against its arm: that arm cannot be above anything.
"""

import csv

import numpy as np
import pandas as pd

from . import config, statistics
from .report import UNITS, by_arm, sets

LEARNT = ("linear", "mlp")
PLACEMENTS = ("weights", "activations", "both")
OPTIMIZERS = ("adam", "sgd")
LEVEL = 0.05


def conditions(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of each condition, with the estimator as their arm; the key of the only one may be ""."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        estimator, _, condition = row["arm"].partition("-")
        found.setdefault(condition, []).append(row | {"arm": estimator})
    return found


def hand_made(rows: list[dict]) -> list[str]:
    """The estimators that are nobody's classifier; of those that give the same digits, the first."""
    groups = identical(rows)
    doubles = {arm for group in groups for arm in group[1:]}
    return [arm for arm in by_arm(rows) if arm not in LEARNT and arm not in doubles]


def identical(rows: list[dict]) -> list[list[str]]:
    """Groups of hand-made estimators whose runs agree in every digit over all seeds: they are one estimator here."""
    groups: list[list[str]] = []
    values = by_arm(rows)
    for arm, seeds in values.items():
        if arm in LEARNT or not seeds:
            continue
        group = next((group for group in groups if values[group[0]] == seeds), None)
        if group is None:
            groups.append([arm])
        else:
            group.append(arm)
    return [group for group in groups if len(group) > 1]


def said_of_identical(rows: list[dict]) -> str:
    """In words, which estimators agree digit by digit, by condition."""
    found = [(condition, group) for condition, own in conditions(rows).items() for group in identical(own)]
    said = [f"{' = '.join(group)}" + f" ({condition})" * bool(condition) for condition, group in found]
    return "Digit by digit the same, and counted once: " + ", ".join(said) if said else "No two agree digit by digit."


def _tested(rows: list[dict], arm: str, rivals: list[str]) -> dict:
    """`arm` against its rivals: the differences, p for "above each" and for "below one of them"."""
    values = by_arm(rows)
    made = {rival: statistics.paired(values[arm], values[rival]) for rival in rivals if values[rival]}
    p = {rival: statistics.p_value(e) for rival, e in made.items()}
    whole = not any(row["arm"] == arm and row["status"] == "diverged" for row in rows)
    above = [p[rival] if e.mean > 0 and whole else 1.0 for rival, e in made.items()]
    below = [p[rival] if e.mean < 0 else 1.0 for rival, e in made.items()]
    closest = min(made, key=lambda rival: made[rival].mean)
    return {"made": made, "closest": closest, "above": max(above), "below": min(1.0, len(made) * min(below))}


def hypotheses(rows: list[dict]) -> pd.DataFrame:
    """H1 to H4, a line for each condition of H1 and H2: the closest rival, the difference to it with its 95 % interval,
    p of the claim, Holm's p over the family, and the verdict: supported, refuted, undecided or not run."""
    lines, tests = [], []
    for condition, own in conditions(rows).items():
        values = by_arm(own)
        for name, text, arm, rivals in (("H1", "linear above each hand-made", "linear", hand_made(own)),
                                        ("H2", "mlp above linear", "mlp", ["linear"])):  # fmt: skip
            if values.get(arm) and all(rival in values for rival in rivals) and any(values[r] for r in rivals):
                found = _tested(own, arm, rivals)
                tests.append(found)
                e = found["made"][found["closest"]]
                digits = 2 if UNITS[own[0]["headline"]] == "points" else 3
                shown = f"{e.mean:+.{digits}f} [{e.low:+.{digits}f}, {e.high:+.{digits}f}]".replace("-", "−")
                lines.append({"": name, "hypothesis": text, "condition": condition or "the one that ran",
                              "closest rival": found["closest"], "difference to it": shown,
                              "pairs": str(e.count)})  # fmt: skip
    above = statistics.holm([test["above"] for test in tests])
    below = statistics.holm([test["below"] for test in tests])
    for line, test, up, down in zip(lines, tests, above, below, strict=True):
        verdict = "supported" if up < LEVEL else "refuted" if down < LEVEL else "undecided"
        line |= {"p": f"{test['above']:.3f}", "Holm": f"{up:.3f}", "verdict": verdict}
    first = {line["condition"]: line["verdict"] for line in lines if line[""] == "H1"}
    for name, text, over in (("H3", "H1 for weights, activations and both", PLACEMENTS),
                             ("H4", "H1 under SGD and under Adam", OPTIMIZERS)):  # fmt: skip
        own = {condition: found for condition, found in first.items() if set(condition.split("-")) & set(over)}
        ran = set("-".join(own).split("-")) >= set(over)
        lines.append({"": name, "hypothesis": text, "condition": ", ".join(own), "verdict": _over(own, ran)})
    return pd.DataFrame(lines).fillna("").set_index("").rename_axis(None)


def _over(verdicts: dict[str, str], all_ran: bool) -> str:
    """One verdict over conditions: supported in all, refuted in one, else undecided; not run where some are missing."""
    said = set(verdicts.values())
    if "refuted" in said:
        return "refuted"
    return "not run" if not all_ran else "supported" if said == {"supported"} else "undecided"


def differences(rows: list[dict]) -> pd.DataFrame:
    """Every learnt estimator against every other one, in each condition: condition, pair, estimate, and the paired
    differences of the seeds."""
    lines = []
    for condition, own in conditions(rows).items():
        values = by_arm(own)
        learnt = [arm for arm in LEARNT if values.get(arm)]
        pairs = [(arm, rival) for arm in learnt for rival in hand_made(own) if values[rival]]
        for first, second in [*pairs, *([("mlp", "linear")] if len(learnt) == 2 else [])]:
            shared = sorted(values[first].keys() & values[second].keys())
            lines.append({"condition": condition, "pair": f"{first} − {second}",
                          "estimate": statistics.paired(values[first], values[second]),
                          "seeds": [values[first][seed] - values[second][seed] for seed in shared]})  # fmt: skip
    return pd.DataFrame(lines)


def ranking(rows: list[dict], draws: int = 4000) -> pd.DataFrame:
    """The estimators of each condition by their mean, with the 95 % range of the rank over resampled seeds (bootstrap,
    fixed stream), and training time relative to the first arm's, paired by seed. Estimators with the same digits are
    one line."""
    lines = []
    for condition, own in conditions(rows).items():
        doubles = {group[0]: " = ".join(group) for group in identical(own)}
        values = by_arm(own)
        kept = [arm for arm in values if values[arm] and (arm in LEARNT or arm in hand_made(own))]
        seeds = sorted(set.intersection(*(set(values[arm]) for arm in kept)))
        table = np.array([[values[arm][seed] for seed in seeds] for arm in kept])
        drawn = np.random.default_rng(0).integers(0, len(seeds), (draws, len(seeds)))
        ranks = 1 + (-table[:, drawn].mean(axis=2)).argsort(axis=0).argsort(axis=0)
        low, high = np.percentile(ranks, [2.5, 97.5], axis=1).round().astype(int)
        seconds = {(row["arm"], row["seed"]): row["seconds"] for row in own}
        for place in np.argsort(-table.mean(axis=1)):
            arm = kept[place]
            ratios = [seconds[arm, seed] / seconds[kept[0], seed] for seed in seeds]
            lines.append({
                "condition": condition, "estimator": doubles.get(arm, arm), "mean": float(table[place].mean()),
                "rank": f"{low[place]} to {high[place]}" if low[place] != high[place] else f"{low[place]}",
                "seeds": len(seeds), f"time : {kept[0]}": float(np.median(ratios)),
            })  # fmt: skip
    return pd.DataFrame(lines)


def answer(rows: list[dict]) -> str:
    """The title's question in a sentence for each condition, from the paired differences to each hand-made function."""
    return "\n\n".join(_answer(condition, own) for condition, own in conditions(rows).items())


def _answer(condition: str, rows: list[dict]) -> str:
    values, rivals = by_arm(rows), hand_made(rows)
    made = {rival: statistics.compare(statistics.paired(values["linear"], values[rival])) for rival in rivals}
    words = {"above": "better than", "below": "worse than", "undecided": "not told apart from",
             "identical": "identical to"}  # fmt: skip
    said = ", ".join(f"{words[found]} {rival}" for rival, found in made.items())
    shown, verdict = _against(rows, "linear", rivals)
    whole = {"agrees": "it is better than each hand-made function", "disagrees": "a hand-made function is better",
             "undecided": "that it beats each of them stays undecided"}[verdict]  # fmt: skip
    where = f"**{condition}**: over" if condition else "Over"
    return (f"{where} {len(values['linear'])} seeds the learnt linear function is {said}; {whole} "
            f"({shown}; {UNITS[rows[0]['headline']]} of accuracy, 95 % intervals, paired by seed).")  # fmt: skip


def claims() -> dict[str, dict]:
    """paper.csv: claim -> text, metric, value, unit, source."""
    with open(config.project_root() / "paper.csv", newline="") as file:
        return {line["claim"]: line | {"value": float(line["value"])} for line in csv.DictReader(file)}


def table(imagenet: list[dict], coco: list[dict], ablation: list[dict]) -> pd.DataFrame:
    """Every claim of the paper: claimed, measured here with its spread, verdict. Only the paper's own scale could
    say "reproduced"; smaller ones agree, disagree or leave it undecided."""
    paper, lines = claims(), []

    def line(claim: str, claimed: str, measured: str, said: str) -> None:
        lines.append({"claim": paper[claim]["text"], "claimed": claimed, "measured": measured, "verdict": said})

    for claim, rows in [*(("imagenet", own) for own in sets(imagenet)), *(("coco", own) for own in sets(coco))]:
        values, unit = by_arm(rows), rows[0]["headline"]
        made = {arm: statistics.estimate(list(seeds.values())) for arm, seeds in values.items() if seeds}
        digits = 1 if unit == "top1" else 3
        shown = ", ".join(f"{_short(arm)} {e.mean:.{digits}f} ± {e.deviation:.{digits}f}" for arm, e in made.items())
        claimed = f"{paper[claim]['value']:g} {paper[claim]['unit']}"
        line(claim, claimed, f"{_data(rows)}, {'top-1' if unit == 'top1' else unit}: {shown}",
             "undecided at this scale: other data and a smaller network")  # fmt: skip
    for rows in sets(imagenet):
        floor, *_, binary = by_arm(rows)
        shown, found = _against(rows, binary, [floor])
        line("mlp", "it trains a network", f"{_data(rows)}: {shown}",
             f"{found} at this scale (the forward takes sign: preset `fixed`)")  # fmt: skip
    for condition, rows in conditions(ablation).items():
        where = f"{_data(rows)}{', ' * bool(condition)}{condition}: "
        for claim, arm in (("linear", "linear"), ("gain", "mlp")):
            shown, found = _against(rows, arm, hand_made(rows))
            claimed = "above each" if claim != "gain" else f"+{paper[claim]['value']:g} over the best"
            line(claim, claimed, where + shown, f"{found} at this scale")
    return pd.DataFrame(lines)


def _data(rows: list[dict]) -> str:
    return rows[0]["recipe"]["data"]["root"].rstrip("/").rpartition("/")[2]


def _short(arm: str) -> str:
    return arm.partition(" on ")[0]


def _against(rows: list[dict], arm: str, rivals: list[str]) -> tuple[str, str]:
    """An intersection-union test: `arm` is better only if it is above each rival, worse as soon as below one."""
    values = by_arm(rows)
    made = {rival: statistics.paired(values[arm], values[rival]) for rival in rivals if values.get(rival)}
    shown = ", ".join(f"{_short(arm)} - {_short(rival)} {e.mean:+.2f} [{e.low:+.2f}, {e.high:+.2f}]"
                      for rival, e in made.items())  # fmt: skip
    found = {statistics.compare(e) for e in made.values()}
    return shown, "agrees" if found == {"above"} else "disagrees" if "below" in found else "undecided"
