"""How sure a number is: means with intervals, paired differences, and the smallest difference a design can see.

Student's t throughout: runs are few, their spread is estimated. Differences are paired by seed, since arms of one
seed start from the same weights and see the data in the same order.
"""

import math
from dataclasses import dataclass

from scipy import optimize, stats

# Without one of five seeds an interval of four is left: t = 3.2 standard errors wide, of three 4.3, of two 12.7. With
# three seeds the rule would rest on two, which no difference seen here could pass and which one rerun overturns.
SEEDS_TO_JUDGE = 5
WANTED_POWER = 0.8  # Cohen 1988


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` values, its standard deviation, and the bounds of its 95 % interval (nan for one value)."""

    mean: float
    deviation: float
    low: float
    high: float
    count: int
    values: tuple[float, ...] = ()  # what it is the mean of, a seed each


def estimate(values: list[float], confidence: float = 0.95) -> Estimate:
    """Mean of `values` with Student's t interval. Raises ValueError for no values."""
    if not values:
        raise ValueError("there are no values to take the mean of")
    count, mean = len(values), math.fsum(values) / len(values)
    if count == 1:
        return Estimate(mean, math.nan, math.nan, math.nan, 1, tuple(values))
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = stats.t.ppf((1 + confidence) / 2, count - 1) * deviation / math.sqrt(count)
    return Estimate(mean, deviation, mean - half, mean + half, count, tuple(values))


def paired(first: dict[int, float], second: dict[int, float]) -> Estimate:
    """first - second over the seeds (keys) that both have. Raises ValueError if they share none."""
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise ValueError("the two arms share no seed: run both with the same seeds")
    return estimate([first[seed] - second[seed] for seed in shared])


def power(difference: float, deviation: float, count: int, confidence: float = 0.95) -> float:
    """The probability that Student's two-sided test of `count` pairs of this deviation sees a true difference.

    The statistic is noncentral t with count - 1 degrees of freedom (Cohen 1988). Raises ValueError below 2 pairs.
    """
    if count < 2:
        raise ValueError(f"a spread needs at least 2 pairs, got {count}")
    if deviation == 0:
        return float(difference != 0)
    critical = stats.t.ppf((1 + confidence) / 2, count - 1)
    shift = abs(difference) * math.sqrt(count) / deviation
    if shift > 1e3 + 10 * critical:  # scipy's series gives nan far out, where nothing is missed
        return 1.0
    # The wrong side's share is at most that of a normal number beyond -shift: nothing from 6 on, where scipy gives nan.
    wrong_side = stats.nct.cdf(-critical, count - 1, shift) if shift < 6 else 0.0
    return float(stats.nct.sf(critical, count - 1, shift) + wrong_side)


def smallest_detectable(deviation: float, count: int, confidence: float = 0.95) -> float:
    """The true difference that `count` pairs of this deviation would call significant four times out of five.

    Raises ValueError below 2 pairs.
    """
    if deviation == 0:
        return 0.0
    unit = deviation / math.sqrt(count)
    high = unit
    while power(high, deviation, count, confidence) < WANTED_POWER:
        high *= 2
    missing = lambda difference: power(difference, deviation, count, confidence) - WANTED_POWER
    return float(optimize.brentq(missing, 0.0, high, xtol=unit * 1e-9))


def pairs_needed(deviation: float, difference: float, confidence: float = 0.95) -> int | None:
    """The fewest pairs of this deviation that would show a true difference of this size; None: over a thousand."""
    if power(difference, deviation, 1000, confidence) < WANTED_POWER:
        return None
    return next(count for count in range(2, 1001) if power(difference, deviation, count, confidence) >= WANTED_POWER)


def p_value(difference: Estimate) -> float:
    """Student's two-sided p for a mean of 0; 1 for a single value or for differences that are all 0."""
    if difference.count < 2 or difference.mean == 0 == difference.deviation:
        return 1.0
    if difference.deviation == 0:
        return 0.0
    t = difference.mean / (difference.deviation / math.sqrt(difference.count))
    return float(2 * stats.t.sf(abs(t), difference.count - 1))


def equivalence_p(difference: Estimate, margin: float) -> float:
    """p of two one-sided t-tests (Schuirmann 1987): that the true mean lies within `margin` of 0; 1 for one value."""
    if difference.count < 2:
        return 1.0
    if difference.deviation == 0:
        return float(abs(difference.mean) >= margin)
    error = difference.deviation / math.sqrt(difference.count)
    return float(stats.t.sf((margin - abs(difference.mean)) / error, difference.count - 1))


def without_each(difference: Estimate) -> list[Estimate]:
    """The estimate without the first seed, without the second, and so on."""
    values = list(difference.values)
    return [estimate(values[:i] + values[i + 1 :]) for i in range(len(values))]


def equivalent(difference: Estimate, margin: float) -> bool:
    """Whether the mean lies within `margin` of 0 at the 5 % level, with all seeds and without any one of them."""
    if difference.count < SEEDS_TO_JUDGE:
        return False
    return all(equivalence_p(part, margin) < 0.05 for part in [difference, *without_each(difference)])


def holm(values: list[float]) -> list[float]:
    """Holm's adjusted p for a family of separate claims (Holm 1979): reject those below the level."""
    order, adjusted, reached = sorted(range(len(values)), key=values.__getitem__), [0.0] * len(values), 0.0
    for i, index in enumerate(order):
        reached = max(reached, min(1.0, (len(values) - i) * values[index]))
        adjusted[index] = reached
    return adjusted


def compare(difference: Estimate) -> str:
    """The rule by which this project judges: "above" or "below" if the 95 % interval excludes 0 and still does, on the
    same side, without any one of the seeds; else "undecided". "identical" if every difference is 0, and "not judged"
    below `SEEDS_TO_JUDGE` seeds, whatever the values are."""
    if difference.mean == 0 == difference.deviation:
        return "identical"
    if difference.count < SEEDS_TO_JUDGE:
        return "not judged"
    estimates = [difference, *without_each(difference)]
    if all(part.low > 0 for part in estimates):
        return "above"
    return "below" if all(part.high < 0 for part in estimates) else "undecided"
