"""How an arm's learning rate is chosen: the same small grid for every arm with the same optimizer, judged on images
that are held out from training, never on the test images, and under seeds that no result uses.

The grid is the section `tuning` of a profile's params.yaml. The rows stand in runs/<profile>/<experiment>/ beside all
others, and published in results/<profile>/tuning/. Of an estimator that has an arm at its own best rate and one at the
rate that most have, the first in params.yaml is the tuned one.
"""

import json
from pathlib import Path

import pandas as pd

from ..recipe.build import make_recipe, recipe_identity
from ..recipe.clone import project_root
from ..recipe.expansion import arms_with_grids, grid
from ..recipe.profiles import arm_fields, experiment_section, recipe_of, tuned
from ..run.ledger import read_row
from ..run.plan import Job


def judged(experiment: str, profile: str, folder: str) -> pd.DataFrame:
    """The held-out accuracy of every tuning run whose row lies below `folder` of the clone: one line each, with its
    arm, estimator, optimizer, seed and learning rate, in the order of the arms; 0 for a run that diverged."""
    wanted: dict[str, list[str]] = {}
    for arm in tuned_arms(experiment, profile):
        for recipe in grid(experiment, profile, arm):
            wanted.setdefault(json.dumps(recipe_identity(recipe)), []).append(arm)
    arms, lines = experiment_section(experiment, profile)["arms"], []
    for path in sorted((project_root() / folder).rglob("*.json")):
        row = read_row(path)
        for arm in wanted.get(json.dumps(recipe_identity(make_recipe(**row["recipe"]))), []):
            lines.append(
                {
                    "arm": arm,
                    "estimator": arm_fields(arm, arms[arm])["estimator"],
                    "optimizer": row["recipe"]["optimizer"],
                    "seed": row["seed"],
                    "learning rate": row["recipe"]["learning_rate"],
                    "held-out": row["metrics"].get(row["headline"], 0.0),
                }
            )
    columns = ["arm", "estimator", "optimizer", "seed", "learning rate", "held-out"]
    order = list(arms).index
    return pd.DataFrame(sorted(lines, key=lambda line: order(line["arm"])), columns=columns)


def tuned_arms(experiment: str, profile: str) -> dict[str, float]:
    """arm -> its learning rate, of the arms whose rate the grid has chosen: the first of each estimator in each
    condition. Those after it share its grid, and have another rate on purpose."""
    rates: dict[tuple, tuple[str, float]] = {}
    arms = experiment_section(experiment, profile)["arms"]
    for arm in arms_with_grids(experiment, profile):
        recipe, fields = recipe_of(experiment, profile, arm), arm_fields(arm, arms[arm])
        rates.setdefault((fields["estimator"], fields["placement"], recipe.optimizer), (arm, recipe.learning_rate))
    return dict(rates.values())


def summary(jobs: list[Job], rows: dict[Path, dict]) -> list[str]:
    """What a sweep over grids has found, a line for each arm and rate, and after an arm's lines its best rate: the
    smaller of equals; a diverged run is a 0. Rates without a row are left out."""
    values: dict[str, dict[float, list[float]]] = {}
    for job in jobs:
        if job.folder in rows:
            row = rows[job.folder]
            for arm in job.arms:
                rates = values.setdefault(arm, {})
                rates.setdefault(job.recipe.learning_rate, []).append(row["metrics"].get(row["headline"], 0.0))
    lines = []
    for arm, rates in values.items():
        means = {rate: sum(rates[rate]) / len(rates[rate]) for rate in sorted(rates)}
        lines += [f"{arm}: learning_rate {rate:g}: {mean:.2f} on held-out images" for rate, mean in means.items()]
        lines.append(f"{max(means, key=means.__getitem__)}")
    return lines


def published(experiment: str, profile: str) -> pd.DataFrame:
    """The lines of `judged` from the published rows, or where there are none from those that were made here; empty
    where there are none either."""
    empty = pd.DataFrame()
    if not tuned(experiment, profile):
        return empty
    places = (f"results/{profile}/tuning", f"runs/{profile}/tuning")
    return next((lines for folder in places if len(lines := judged(experiment, profile, folder))), empty)


def table(experiment: str, profile: str) -> pd.DataFrame:
    """Mean held-out accuracy (%) by estimator and learning rate, below its optimizer where there are several, the best
    of each in brackets, from `published`; a diverged run is counted as a 0, and said."""
    lines = published(experiment, profile)
    if lines.empty:
        return pd.DataFrame()
    chosen, shown = best(lines), {}
    for (arm, estimator, optimizer, rate), own in lines.groupby(["arm", "estimator", "optimizer", "learning rate"]):
        mean, lost = own["held-out"].mean(), (own["held-out"] == 0).sum()
        text = f"[{mean:.1f}]" if rate == chosen[arm] else f"{mean:.1f}"
        shown[estimator, optimizer, rate] = f"{text}, {lost} diverged" if lost else text
    means = pd.Series(shown).unstack([1, 2], fill_value="").sort_index(axis="columns").loc[lines["estimator"].unique()]
    if len(means.columns.unique(0)) == 1:
        means = means.droplevel(0, axis="columns")
    return means.rename(columns=lambda name: name if isinstance(name, str) else f"{name:g}")


def best(lines: pd.DataFrame) -> pd.Series:
    """arm -> the learning rate of the highest mean held-out accuracy, the smaller of equals; a diverged run is a 0."""
    means = lines.groupby(["arm", "learning rate"])["held-out"].mean()
    return means.groupby("arm").idxmax().map(lambda pair: pair[1])
