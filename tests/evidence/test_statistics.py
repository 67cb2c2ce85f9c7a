"""Intervals and verdicts against hand-made numbers."""

import math

import numpy as np
import pytest

from bnc_repro.evidence import statistics


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


def test_p_values_by_hand():
    """Differences 1, 2, 3: t = 2 sqrt(3), two degrees of freedom, p = 0.0742; all alike but not 0: p = 0; all 0: 1."""
    assert statistics.p_value(statistics.estimate([1.0, 2.0, 3.0])) == pytest.approx(0.07418, abs=1e-5)
    assert statistics.p_value(statistics.estimate([1.0, 1.0, 1.0])) == 0
    assert statistics.p_value(statistics.estimate([0.0, 0.0])) == 1
    assert statistics.p_value(statistics.estimate([5.0])) == 1


def test_holm_by_hand():
    """Of 0.04, 0.01, 0.03: 0.01 three times, 0.03 twice, and 0.04 no smaller than the one before it."""
    assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def rejections(difference, deviation, count, confidence, draws=40_000):
    """How often the paired test says "not 0", drawn: t against its quantile, both from simulated pairs alone."""
    draw = np.random.default_rng(0)

    def sizes(mean):
        pairs = draw.normal(mean, deviation, (draws, count))
        return np.abs(pairs.mean(1)) / (pairs.std(1, ddof=1) / math.sqrt(count))

    return float((sizes(difference) > np.quantile(sizes(0.0), confidence)).mean())


@pytest.mark.parametrize(("count", "confidence"), [(3, 0.95), (7, 0.95), (7, 1 - 0.05 / 4), (20, 0.95)])
def test_the_smallest_detectable_difference_shows_four_times_out_of_five(count, confidence):
    """Drawn, not computed: the sum of two t quantiles gave 0.735 and 0.774 for 3 and 7 pairs."""
    difference = statistics.smallest_detectable(1.5, count, confidence=confidence)
    assert rejections(difference, 1.5, count, confidence) == pytest.approx(0.8, abs=0.015)


def test_pairs_needed_are_the_fewest_that_show_it():
    """Drawn: enough at that number of pairs, too few at one less; nothing to be found, and nothing in the way."""
    count = statistics.pairs_needed(1.0, 0.9)
    assert rejections(0.9, 1.0, count, 0.95) > 0.79
    assert rejections(0.9, 1.0, count - 1, 0.95) < 0.80
    assert statistics.pairs_needed(1.0, 0.0) is None
    assert statistics.pairs_needed(0.0, 0.1) == 2
    assert statistics.pairs_needed(1.0, 1e6) == 2
    assert statistics.power(1e6, 1.0, 50) == 1
    with pytest.raises(ValueError, match="at least 2 pairs"):
        statistics.smallest_detectable(1.0, 1)


def test_the_power_at_no_difference_is_the_level():
    assert statistics.power(0.0, 2.0, 9, 0.99) == pytest.approx(0.01, abs=1e-9)


@pytest.mark.parametrize("count", [2, 3, 7, 50, 1000])
def test_power_rises_with_the_difference(count):
    """From the level to 1, at every size a number: no gap where a series fails."""
    values = [statistics.power(difference, 1.0, count) for difference in np.geomspace(1e-3, 1e5, 200)]
    assert all(0.0499 < value <= 1 for value in values)
    assert values == sorted(values)
    assert values[-1] > 0.999
