"""The paper's claims: what is claimed, what the rows say, and the verdict.

Only the paper's own scale (rows of the profile `paper`) can say "reproduced"; smaller ones agree, disagree or leave a
claim undecided, and with few seeds (the sample's three) a contest is shown, not judged: `statistics.compare`.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..recipe.clone import project_root
from . import hypotheses, judgement, statistics, tables
from .conditions import conditions, place_of
from .rows import binarizers_of, by_arm, sets

RELATIONS = {"above": "agrees", "below": "disagrees", "not judged": "shown, not judged"}
WORDS = {
    "supported": "agrees",
    "refuted": "disagrees",
    "equivalent": "disagrees: they are equivalent",
    "undecided": "undecided",
    "not judged": "shown, not judged",
}
OTHER_SCALE = "not tested at this scale: other data and a smaller network"
CLASSIFYING = "paper"  # the preset whose forward pass takes the class of the larger output
CHANCE = 10  # percent, of the ten classes that `presets` is trained on


def claims() -> dict[str, dict]:
    """paper.csv: claim -> text, metric, value, unit, source."""
    with open(project_root() / "paper.csv", newline="", encoding="utf-8") as file:
        return {line["claim"]: line | {"value": float(line["value"])} for line in csv.DictReader(file)}


def table(
    imagenet: list[dict],
    coco: list[dict],
    ablation: list[dict],
    presets: Sequence[dict] = (),
    balance: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """Every claim of the paper: claimed, measured here with its spread, verdict; lines for each data set and each
    condition of the ablation. An experiment without rows has no line. `presets` are the rows of the profile of that
    name, which hold the preset whose forward pass classifies; `balance` is what
    `speed.claim` says of performance against complexity, measured and verdict."""
    paper, lines = claims(), []

    def line(claim: str, claimed: str, measured: str, verdict: str) -> None:
        lines.append({"claim": paper[claim]["text"], "verdict": verdict, "claimed": claimed, "measured": measured})

    of_claim = {"imagenet": imagenet, "coco": coco}
    for claim, rows in [(name, own) for name, every in of_claim.items() for own in sets(every)]:
        values, unit, names = by_arm(rows), rows[0]["headline"], {row["arm"]: row["estimator"] for row in rows}
        estimates = {arm: statistics.estimate(list(seeds.values())) for arm, seeds in values.items() if seeds}
        digits = 1 if unit == "top1" else 3
        shown = ", ".join(
            f"{names[arm]} {e.mean:.{digits}f}" + (f" ± {e.deviation:.{digits}f}" if e.count > 1 else "")
            for arm, e in estimates.items()
        )
        claimed = f"{paper[claim]['value']:g} {paper[claim]['unit']}"
        line(
            claim,
            claimed,
            f"{_data(rows)}, {'top-1' if unit == 'top1' else unit}: {shown}",
            _reached(rows, estimates, paper[claim]["value"]),
        )
    for every in (presets, ablation):
        for condition, rows in conditions(list(every)).items():
            if classifying(rows):
                line("mlp", "it trains a network", *_classifying(condition, rows, list(every)))
    for test in judgement.tests(ablation):
        if test.name == "H1":
            where = ", ".join(filter(None, (_data(ablation), test.condition))) + ": "
            numbers = "; ".join(
                f"linear − {rival} {hypotheses.shown_at_both(pair, test.headline)}"
                for rival, pair in test.pairs.items()
            )
            why = f": {test.reason}" if test.reason else ""
            line("linear", "above each", f"{where}{numbers}", f"{WORDS[test.verdict]} at this scale{why}")
    for condition, rows in conditions(ablation).items():
        if not place_of(rows[0]).answers:
            continue
        where = ", ".join(filter(None, (_data(rows), condition))) + ": "
        rivals = judgement.hand_made(rows) if "mlp" in by_arm(rows) else []
        pairs = judgement.pairs_of(condition, ablation, "mlp", rivals)
        measured = "; ".join(
            f"mlp − {rival} {hypotheses.shown_at_both(pair, rows[0]['headline'])}" for rival, pair in pairs.items()
        )
        line("gain", f"+{paper['gain']['value']:g} over the best", where + (measured or "too few runs"), OTHER_SCALE)
    if balance is not None:
        line("balance", "a better balance", *balance)
    return pd.DataFrame(lines)


def _reached(rows: list[dict], estimates: dict[str, statistics.Estimate], claimed: float) -> str:
    """Whether the best binary arm's mean reaches the claimed number: only rows of the paper's own scale can say."""
    if rows[0]["profile"] != "paper":
        return OTHER_SCALE
    binary = {row["arm"] for row in rows if row["recipe"]["weight_binarizer"]} & estimates.keys()
    if not binary:
        return "no binary network finished"
    best = max(binary, key=lambda arm: estimates[arm].mean)
    return f"{'reproduced' if estimates[best].mean >= claimed else 'not reproduced'} by {best}"


def title(rows: list[dict]) -> str:
    """The title's question, answered in a word, then a sentence for each condition: where the learnt linear function
    stands to the hand-made ones (H1), and where the best soft one (by its mean) stands to the identity, which has no
    shape. No: linear is above each or equivalent to it, or the identity is above the best soft function or equivalent
    to it, in every condition; yes: that is above both, at a level corrected for its choice; else not decided. Of
    conditions with different numbers of seeds those with the most are primary and answer; the others are shown."""
    clauses, answers = [], []
    counts = {name: len({row["seed"] for row in own}) for name, own in conditions(rows).items()}
    most = max(counts.values(), default=0)
    words = {
        "supported": "the learnt linear function is better than each hand-made one",
        "refuted": "a hand-made function is better than the learnt linear one",
        "undecided": "it stays open whether the learnt linear function beats each hand-made one",
        "equivalent": "the learnt linear function and each hand-made one lie within {margin} of each other",
        "not judged": f"the learnt linear function against each hand-made one is shown, {hypotheses.FEW_SEEDS}",
    }
    for test in judgement.tests(rows):
        if test.name != "H1" or not test.estimates or not test.place.answers:
            continue
        rival, headline = judgement.hardest(test), test.headline
        condition_rows, seeds = conditions(rows)[test.condition], counts[test.condition]
        where = f"under {test.condition} " if test.condition else ""
        where += f"({seeds} seeds) " if seeds < most else ""
        clause = where + words[test.verdict].format(margin=hypotheses.margin(headline))
        if test.verdict == "undecided" and test.beaten:
            some = f"{len(test.beaten)} of the {len(test.pairs)} hand-made ones ({', '.join(test.beaten)})"
            clause = f"{where}the learnt linear function beats {some}, and against the others it stays open"
        clause += f", as {test.reason}" if test.reason else ""
        clause += f" (weakest: linear − {rival} {hypotheses.shown_at_both(test.pairs[rival], headline)})"
        best = _best(condition_rows, leave_out="identity")
        others = [arm for arm in ("linear", "identity") if arm in by_arm(condition_rows) and arm != best]
        pairs = judgement.pairs_of(test.condition, rows, best, others)
        compared = {arm: pair.difference for arm, pair in pairs.items()}
        relations = {arm: pair.relation for arm, pair in pairs.items()}
        if "identity" in relations:
            known = {
                "above": "is better than",
                "below": "is worse than",
                "equivalent": "is equivalent to",
                "not judged": "is not judged against",
            }
            word = known.get(relations["identity"], "cannot be told from")
            clause += (
                f", and the best soft function {word} the identity, which has no shape"
                f" ({best} − identity {hypotheses.shown_at_both(pairs['identity'], headline)})"
            )
        without = test.verdict in ("supported", "equivalent") or relations.get("identity") in ("below", "equivalent")
        choice = [arm for arm in judgement.hand_made(condition_rows) if arm != "identity"]
        level = judgement.LEVEL / max(1, len(choice))
        sure = all(statistics.p_value(difference) < level for difference in compared.values())
        needed = test.verdict == "refuted" and set(relations.values()) == {"above"} and sure
        short = "No" if without else "Yes" if needed else "Not decided"
        answers.append((seeds, "Not judged" if test.verdict == "not judged" else short))
        clauses.append(clause)
    if not clauses:
        return "**Is a soft function really necessary?** Too few runs finished to say."
    primary = {short for seeds, short in answers if seeds == max(count for count, _ in answers)}
    short = primary.pop() if len(primary) == 1 else "Not decided"
    told = "\n".join(f"- {clause[0].upper()}{clause[1:]}." for clause in clauses)
    return f"**Is a soft function really necessary?** {short} on {_data(rows)} with {most} seeds.\n\n{told}"


def undecided(rows: list[dict]) -> pd.DataFrame:
    """What these rows leave open, and what would decide it four times out of five if the difference seen is the true
    one: seeds, runs beyond those made, and their hours on the rows' device at their mean time. A hypothesis that lacks
    a condition needs that condition's arms with as many seeds as the others. Rows of another scale, and of presets
    whose forward is not sign's, open no hypothesis and cost none."""
    rows = [row for row in rows if not row.get("scale") and row["recipe"].get("preset", "fixed") == "fixed"]
    if not rows:
        return pd.DataFrame()
    judged, lines = judgement.tests(rows), []
    hours = sum(row["seconds"] for row in rows) / len(rows) / 3600
    seeds, device = len({row["seed"] for row in rows}), rows[0]["device"]

    def line(name: str, condition: str, pair: str, needed: int | None, runs: int | None) -> None:
        many = "over 1,000"
        lines.append(
            {
                "": name,
                "condition": condition,
                "difference seen": pair,
                "seeds needed": many if needed is None else f"{needed}",
                "runs more": many if runs is None else f"{runs:,}",
                f"hours, {device}": "" if runs is None else f"{runs * hours:.1f}",
            }
        )

    for test in judged:
        if test.verdict not in ("undecided", "not judged") or not test.estimates:
            continue
        rival = judgement.hardest(test)
        difference = test.estimates[rival]
        family = len(judged) * (len(test.estimates) if difference.mean < 0 else 1)
        needed = statistics.pairs_needed(difference.deviation, difference.mean, confidence=1 - judgement.LEVEL / family)
        needed = needed and max(needed, statistics.SEEDS_TO_JUDGE)
        runs = None if needed is None else max(0, needed - difference.count) * (1 + len(test.estimates))
        pair = f"{test.arm} − {rival} {hypotheses.shown(difference, test.headline)}"
        line(test.name, test.condition, pair, needed, runs)
    arms = max((len(by_arm(condition_rows)) for condition_rows in conditions(rows).values()), default=0)
    for over in judgement.over_conditions(judged):
        if over.verdict == "not run":
            missing = ", ".join(over.missing)
            line(over.name, over.condition, f"not run: {missing}", seeds, seeds * arms * len(over.missing))
    return pd.DataFrame(lines).set_index("").rename_axis(None) if lines else pd.DataFrame()


def _best(rows: list[dict], leave_out: str = "") -> str:
    """The hand-made function of the highest mean; the one left out, if no other finished a run."""
    values = by_arm(rows)
    means = {
        arm: sum(values[arm].values()) / len(values[arm])
        for arm in judgement.hand_made(rows)
        if values[arm] and arm != leave_out
    }
    return max(means, key=means.__getitem__, default=leave_out)


def classifying(rows: list[dict]) -> list[str]:
    """The arms of the MLP whose class is the larger output in the forward pass too."""
    names = {row["arm"] for row in rows if row["recipe"].get("preset") == CLASSIFYING and "mlp" in binarizers_of(row)}
    return [arm for arm in by_arm(rows) if arm in names]


def _classifying(condition: str, rows: list[dict], every: list[dict]) -> tuple[str, str]:
    """What came of the MLP that classifies in the forward pass, against ste, in one condition of `every` row, and the
    verdict: it trains a network if no run collapses and it is not below; it does not if it is below."""
    arms, values = classifying(rows), by_arm(rows)
    if "ste" not in values or not values[arms[0]]:
        return "too few finished runs", "undecided at this scale"
    arm, mean = arms[0], statistics.estimate(list(values[arms[0]].values())).mean
    collapsed = tables.collapsed([row for row in rows if row["arm"] == arm], CHANCE)
    runs, against = (
        sum(row["arm"] == arm for row in rows),
        judgement.pairs_of(condition, every, arm, ["ste"]).get("ste"),
    )
    measured = f"{_data(rows)}, preset `{CLASSIFYING}`: mean {mean:.1f}, {collapsed} of {runs} runs collapsed"
    if against is None:
        return measured, "undecided at this scale"
    measured += f"; minus ste {hypotheses.shown_at_both(against, rows[0]['headline'])}"
    relation = against.relation
    if collapsed == 0 and relation in ("above", "equivalent", "identical", "undecided"):
        return measured, "agrees at this scale"
    return measured, f"{RELATIONS.get(relation, 'undecided')} at this scale"


def _data(rows: list[dict]) -> str:
    name = Path(rows[0]["recipe"]["data"]["root"]).name
    return ", ".join(filter(None, (name, rows[0].get("scale"))))
