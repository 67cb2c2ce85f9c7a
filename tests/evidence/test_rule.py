"""The rule of judgement on known effects: few seeds are shown, one seed decides nothing, a strong effect is decided."""

import numpy as np
import pytest

from bnc_repro.evidence import judgement, statistics, verdict
from bnc_repro.evidence.rows import published
from bnc_repro.recipe.schema import EXPERIMENTS
from runs_of_known_effect import ablation


def test_one_seed_decides_nothing():
    """Five differences whose interval excludes 0 only with all of them: the rule leaves them undecided."""
    difference = statistics.estimate([0.1, 0.9, 1.0, 1.1, 0.3])
    assert difference.low > 0
    assert statistics.compare(difference) == "undecided"


def test_the_wrong_sign_of_one_seed_in_many_is_no_veto():
    assert statistics.compare(statistics.estimate([1.0, 1.1, 0.9, 1.2, -0.1, 1.0, 1.05, 0.95, 1.1])) == "above"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_strong_effect_with_seven_seeds_is_decided(sign):
    values = [sign * value for value in (2.0, 2.1, 1.9, 2.2, 1.8, 2.05, 1.95)]
    assert statistics.compare(statistics.estimate(values)) == ("above" if sign > 0 else "below")
    assert statistics.compare(statistics.estimate(values[:4])) == "not judged"
    linear = "supported" if sign > 0 else "refuted"
    rows = ablation({"ste": [80.0] * 7, "ede": [79.9] * 7, "linear": [80 + value for value in values]})
    assert [test.verdict for test in judgement.tests(rows)] == [linear]


def test_a_test_that_one_seed_carries_is_not_decided():
    rows = ablation({"ste": [80.0] * 5, "linear": [80.1, 80.9, 81.0, 81.1, 80.3]})
    (test,) = judgement.tests(rows)
    assert test.holm_above < judgement.LEVEL
    assert test.verdict == "undecided"


def redrawn(rows, draw):
    """Rows whose headline is its arm's mean and a residual drawn from the arm's."""
    values: dict = {}
    for row in rows:
        values.setdefault(row["arm"], []).append(row["metrics"][row["headline"]])
    changed = []
    for row in rows:
        of_arm = np.array(values[row["arm"]])
        value = float(of_arm.mean() + draw.choice(of_arm - of_arm.mean()))
        changed.append(row | {"metrics": row["metrics"] | {row["headline"]: value}})
    return changed


def words(sample):
    """All words of judgement, without numbers."""
    judged = [(test.name, test.condition, test.verdict) for test in judgement.tests(sample[2])]
    over = [(line.name, line.verdict) for line in judgement.over_conditions(judgement.tests(sample[2]))]
    answer = verdict.title(sample[2]).split("?**")[1].split(" on ")[0]
    return list(verdict.table(*sample)["verdict"]), judged, over, answer


def test_twenty_redraws_of_the_samples_noise_say_the_same():
    sample = [published("sample", experiment) for experiment in EXPERIMENTS]
    draw = np.random.default_rng(0)
    said = words(sample)
    changed = [[redrawn(rows, draw) for rows in sample] for _ in range(20)]
    assert changed[0][2][0]["metrics"]["top1"] != changed[1][2][0]["metrics"]["top1"]
    assert all(words(rows) == said for rows in changed)
    assert not {"agrees", "disagrees"} & {word.split()[0] for word in said[0]}
