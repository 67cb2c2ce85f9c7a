"""Which rows are compared with each other, and at which learning rates.

A condition is a placement under an optimizer on one kind of block at one scale. In each an estimator may have rows at
its own best rate and at one rate that all of them have.
"""

from collections import Counter
from typing import NamedTuple

from ..recipe.schema import Recipe

BLOCK = Recipe.block  # of the trunk that no condition names


class Place(NamedTuple):
    """What arms must share to be compared."""

    placement: str
    optimizer: str
    block: str
    scale: str

    @property
    def answers(self) -> bool:
        """Whether claims are judged here for the title: on Bi-Real's blocks at the contest's own scale."""
        return (self.block, self.scale) == (BLOCK, "")

    @property
    def words(self) -> list[str]:
        """Each part as a condition is called by it; those that no condition names are empty."""
        return ["" if part == BLOCK else part for part in self]


def place_of(row: dict) -> Place:
    """Where a row's arm is compared."""
    recipe = row["recipe"]
    return Place(row["placement"], recipe["optimizer"], recipe.get("block", BLOCK), row.get("scale", ""))


def conditions(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of each condition at every estimator's own rate, with the estimator as their arm. A condition is called
    by what differs between the rows: the placement, the optimizer, both ("weights-adam") or, where there is only one,
    nothing (""); by its blocks where they are not Bi-Real's ("adam-reactnet"), and by its scale."""
    return {
        condition: at_own_rates(condition_rows) for condition, condition_rows in every_rate_by_condition(rows).items()
    }


def conditions_at_common_rate(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of each condition at the rate that most of its estimators have."""
    return {
        condition: at_common_rate(condition_rows) for condition, condition_rows in every_rate_by_condition(rows).items()
    }


def at_own_rates(rows: list[dict]) -> list[dict]:
    """Of a condition's rows, those at every estimator's own rate."""
    rates = own_rates_of(rows)
    return [row for row in rows if rate_of(row) == rates[row["arm"]]]


def at_common_rate(rows: list[dict]) -> list[dict]:
    """Of a condition's rows, those at the rate that most of its estimators have, in the order of these."""
    rate, order = common_rate_of(rows), list(dict.fromkeys(row["arm"] for row in rows))
    return sorted((row for row in rows if rate_of(row) == rate), key=lambda row: order.index(row["arm"]))


def every_rate_by_condition(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of each condition at all their rates, with the estimator as their arm."""
    words = [place_of(row).words for row in rows]
    differ = [axis for axis, parts in enumerate(zip(*words, strict=True)) if len(set(parts)) > 1]
    by_condition: dict[str, list[dict]] = {}
    for row, parts in zip(rows, words, strict=True):
        condition = "-".join(parts[axis] for axis in differ if parts[axis])
        by_condition.setdefault(condition, []).append(row | {"arm": row["estimator"]})
    return by_condition


def rate_of(row: dict) -> float:
    """The learning rate of a row."""
    return row["recipe"].get("learning_rate", 0.0)


def common_rate_of(rows: list[dict]) -> float:
    """The rate that most estimators of a condition have, of equals the larger."""
    counts = Counter(rate for _, rate in {(row["arm"], rate_of(row)) for row in rows})
    return max(counts, key=lambda rate: (counts[rate], rate))


def own_rates_of(rows: list[dict]) -> dict[str, float]:
    """estimator -> the rate of its rows; of two the one that is not the common one."""
    common, rates = common_rate_of(rows), {}
    for row in rows:
        if rates.get(row["arm"], common) == common:
            rates[row["arm"]] = rate_of(row)
    return rates
