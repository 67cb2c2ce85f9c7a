"""Intervals and verdicts against hand-made numbers."""

import math

import pytest

from bnc_repro import statistics


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
