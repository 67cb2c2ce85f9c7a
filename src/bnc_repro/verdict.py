"""The paper's claims: what is claimed, what the rows say, and the verdict.

Only the paper's own scale could say "reproduced"; smaller ones agree, disagree or leave a claim undecided.
"""

import csv

import pandas as pd

from . import config, hypotheses, statistics
from .report import by_arm, sets

WORDS = {"supported": "agrees", "refuted": "disagrees", "undecided": "undecided"}


def claims() -> dict[str, dict]:
    """paper.csv: claim -> text, metric, value, unit, source."""
    with open(config.project_root() / "paper.csv", newline="") as file:
        return {line["claim"]: line | {"value": float(line["value"])} for line in csv.DictReader(file)}


def table(imagenet: list[dict], coco: list[dict], ablation: list[dict]) -> pd.DataFrame:
    """Every claim of the paper: claimed, measured here with its spread, verdict; lines for each data set and each
    condition of the ablation. An experiment without rows has no line."""
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
        (made,) = hypotheses.paired(rows, binary, [floor]).values()
        found = {"above": "agrees", "below": "disagrees"}.get(statistics.compare(made), "undecided")
        shown = f"{_short(binary)} − {_short(floor)} {hypotheses.shown(made, rows[0]['headline'])}"
        line("mlp", "it trains a network", f"{_data(rows)}: {shown}",
             f"{found} at this scale (the forward takes sign: preset `fixed`)")  # fmt: skip
    for test in hypotheses.tests(ablation):
        if test["name"] == "H1":
            where = f"{_data(ablation)}{', ' * bool(test['condition'])}{test['condition']}: "
            numbers = ", ".join(f"linear − {rival} {hypotheses.shown(e, test['headline'])}"
                                for rival, e in test["made"].items())  # fmt: skip
            line("linear", "above each", f"{where}{numbers}", f"{WORDS[test['verdict']]} at this scale")
    for condition, rows in hypotheses.conditions(ablation).items():
        where = f"{_data(rows)}{', ' * bool(condition)}{condition}: "
        measured, found = _gain(rows, paper["gain"]["value"])
        line("gain", f"+{paper['gain']['value']:g} over the best", where + measured, f"{found} at this scale")
    return pd.DataFrame(lines)


def _gain(rows: list[dict], claimed: float) -> tuple[str, str]:
    """The MLP against the hand-made function of the highest mean: disagrees if the interval ends below the claimed
    gain, agrees if it does not and lies above 0."""
    values = by_arm(rows)
    best = max((arm for arm in hypotheses.hand_made(rows) if values[arm]),
               key=lambda arm: sum(values[arm].values()) / len(values[arm]))  # fmt: skip
    made = hypotheses.paired(rows, "mlp", [best]).get(best)
    if made is None:
        return "too few finished runs", "undecided"
    found = "disagrees" if made.high < claimed else "agrees" if made.low > 0 else "undecided"
    return f"mlp − {best} {hypotheses.shown(made, rows[0]['headline'])}", found


def _data(rows: list[dict]) -> str:
    return rows[0]["recipe"]["data"]["root"].rstrip("/").rpartition("/")[2]


def _short(arm: str) -> str:
    return arm.partition(" on ")[0]
