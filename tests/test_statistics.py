"""Intervals and verdicts against hand-made numbers."""

import math

import pytest

from bnc_repro import report, statistics


def rows(values, headline="top1"):
    """Rows of arm -> list of values, a seed each; None is a diverged run."""
    return [
        {"arm": arm, "seed": seed, "status": "finished" if value is not None else "diverged", "headline": headline,
         "metrics": {} if value is None else {headline: value}, "best": value, "parameters": 1, "curve": []}
        for arm, own in values.items() for seed, value in enumerate(own)
    ]  # fmt: skip


def test_interval_by_hand():
    """Three values 1, 2, 3: mean 2, sd 1, half width 4.303 / sqrt(3)."""
    made = statistics.estimate([1.0, 2.0, 3.0])
    assert (made.mean, made.deviation, made.count) == (2.0, 1.0, 3)
    assert made.high - made.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_pairing_uses_shared_seeds():
    """A seed that one arm lacks is left out; none shared is refused."""
    assert statistics.paired({0: 1.0, 1: 2.0}, {1: 1.0, 2: 9.0}).count == 1
    with pytest.raises(ValueError, match="share no seed"):
        statistics.paired({0: 1.0}, {1: 1.0})


@pytest.mark.parametrize(
    ("linear", "word"),
    [
        ([84.0, 84.1, 84.05], "it is better than each hand-made function"),
        ([79.0, 79.1, 79.05], "a hand-made function is better"),
        ([80.0, 82.5, 79.0], "stays undecided"),
    ],
)
def test_answer_follows_the_numbers(linear, word):
    """A clear effect up, a clear effect down, and noise give three different sentences."""
    text = report.answer(rows({"ste": [80.0, 80.1, 80.1], "approx_sign": [80.1, 80.0, 80.05], "linear": linear}))
    assert word in text


def test_one_identical_rival_is_not_beaten():
    """Arms with the same digits are reported as identical, and the claim stays undecided."""
    same = [80.0, 81.0, 82.0]
    both = rows({"ste": same, "linear": same})
    assert report.differences(both, ("linear", "ste")).loc["linear − ste", "against 0"] == "identical"
    assert "identical to ste; that it beats each of them stays undecided" in report.answer(both)


def test_a_diverged_run_is_counted_not_averaged():
    """A diverged run stands in its column; the mean is of the others."""
    made = report.table(rows({"ste": [80.0, None, 82.0]}))
    assert made.loc["ste", "diverged"] == 1
    assert made.loc["ste", "mean (%)"] == "81.0"
