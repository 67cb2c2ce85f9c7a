"""Which claims the ablation's rows decide: first the verdicts, words come after.

H1 the learnt linear function is above each hand-made one, H2 the MLP is above linear, H3 H1 holds in every placement,
H4 H1 holds under every optimizer, H5 is H1 of a linear function whose gates start within the weights. "Above each" is
an intersection-union test (Berger 1982): its p is the largest of the rivals', no correction is due for their number.
The other way round, "below one of them", is corrected for it (Bonferroni). Over the claims of one family, H1, H2 and H5
in every condition, Holm's procedure is applied, both ways.

A row names its estimator, its placement and, where it is not the contest's own, its scale; a condition is a placement
under an optimizer on one kind of block at one scale, and arms of one condition are compared with each other. Each scale
has a family of its own. Whatever diverged in a run cannot be above anything; pairs are those
that both finished.

Learning rates: an estimator may have rows at its own best rate and at one rate common to all of its condition. An
effect between unequal rates may be the rates'. It is decided only if it shows at the common rate too.
"""

from dataclasses import dataclass

from ..recipe.parameters import PLACEMENTS
from ..recipe.schema import LEARNT, learnt
from . import statistics
from .conditions import (
    Place,
    at_common_rate,
    at_own_rates,
    common_rate_of,
    conditions,
    every_rate_by_condition,
    own_rates_of,
    place_of,
)
from .rows import UNITS, binarizers_of, by_arm
from .statistics import Estimate

REACHED = "linear from 2 sd"  # linear with both gates started at two standard deviations of the weights
CLAIMS = (
    ("H1", "linear above each hand-made", "linear"),
    ("H2", "mlp above linear", "mlp"),
    ("H5", f"{REACHED} above each hand-made", REACHED),
)
OPTIMIZERS = ("adam", "sgd")
LEVEL = 0.05
FLAT = 1e-5  # a derivative that varies by less, relative to its largest value, is a constant in float32


def identical(rows: list[dict]) -> list[list[str]]:
    """Groups of estimators whose runs agree in every digit over the seeds that they share (two at least)."""
    groups: list[list[str]] = []
    values = by_arm(rows)
    for arm, seeds in values.items():
        for group in groups:
            shared = seeds.keys() & values[group[0]].keys()
            if len(shared) > 1 and all(seeds[seed] == values[group[0]][seed] for seed in shared):
                group.append(arm)
                break
        else:
            groups.append([arm])
    return [group for group in groups if len(group) > 1]


def identities(rows: list[dict]) -> dict[str, list[int]]:
    """Learnt estimator -> the seeds in which all its gates stayed open to the end: over the whole range that its curve
    covers its derivative is one positive number, so that it is the identity's."""
    seeds: dict[str, list[int]] = {}
    for row in rows:
        learnt = row["curve"][-1].get("estimator") if row["curve"] else None
        if learnt and row["status"] == "finished":
            low, high = min(learnt["derivative"]), max(learnt["derivative"])
            if low > 0 and high - low <= FLAT * high:
                seeds.setdefault(row["arm"], []).append(row["seed"])
    return seeds


def hand_made(rows: list[dict]) -> list[str]:
    """The estimators that are nobody's classifier; of those that give the same digits, the first. A network without
    binary weights and inputs is no estimator's."""
    floats = {row["arm"] for row in rows if not any(binarizers_of(row))}
    classifiers = {*learnt_ones(rows), *floats}
    groups = [[arm for arm in group if arm not in classifiers] for group in identical(rows)]
    doubles = {arm for group in groups for arm in group[1:]}
    return [arm for arm in by_arm(rows) if arm not in classifiers and arm not in doubles]


def learnt_ones(rows: list[dict]) -> list[str]:
    """The estimators that are a classifier, whatever they are called."""
    names = {row["arm"] for row in rows if any(map(learnt, binarizers_of(row)))}
    return [arm for arm in by_arm(rows) if arm in names or arm in LEARNT]


def diverged(rows: list[dict]) -> dict[str, int]:
    """estimator -> its runs that diverged."""
    counts = dict.fromkeys(by_arm(rows), 0)
    for row in rows:
        counts[row["arm"]] += row["status"] == "diverged"
    return counts


def paired(rows: list[dict], arm: str, rivals: list[str]) -> dict[str, Estimate]:
    """rival -> arm - rival, over the seeds that both finished; rivals with fewer than two such pairs are left out."""
    values = by_arm(rows)
    pairs = {rival: values.get(arm, {}).keys() & values.get(rival, {}).keys() for rival in rivals}
    return {rival: statistics.paired(values[arm], values[rival]) for rival, seeds in pairs.items() if len(seeds) > 1}


def margin_of(headline: str) -> float:
    """Within so much of each other two estimators are equivalent, in the headline's unit."""
    return 0.5 if UNITS[headline] == "points" else 0.005


@dataclass(frozen=True)
class Pair:
    """An arm against a rival, both at their own rates and, where both ran there, at the common one."""

    arm: str
    rival: str
    difference: Estimate  # arm - rival
    rates: tuple[float, float]
    common_rate: float
    at_common: Estimate | None
    margin: float

    @property
    def relation(self) -> str:
        """above, below, equivalent, identical, undecided or not judged: `statistics.compare`, at the common rate too
        where the own rates differ."""
        return self._decided[0]

    @property
    def reason(self) -> str:
        """Why a difference that shows at the own rates is not decided, or ""."""
        return self._decided[1]

    @property
    def at_equal_rates(self) -> bool:
        """Whether both own rates are one."""
        return self.rates[0] == self.rates[1]

    @property
    def at_own_rates(self) -> str:
        """The relation whatever the rates are."""
        return self._relation(self.difference)

    def _relation(self, difference: Estimate) -> str:
        relation = statistics.compare(difference)
        near = relation == "undecided" and statistics.equivalent(difference, self.margin)
        return "equivalent" if near else relation

    @property
    def _decided(self) -> tuple[str, str]:
        relation = self.at_own_rates
        if relation not in ("above", "below", "equivalent") or self.at_equal_rates:
            return relation, ""
        unequal = f"unequal learning rates, {self.arm} {self.rates[0]:g} and {self.rival} {self.rates[1]:g}"
        if self.at_common is None:
            return "undecided", f"it shows only at {unequal}"
        if self._relation(self.at_common) != relation:
            return "undecided", f"it shows at {unequal}, and not at the common rate {self.common_rate:g}"
        return relation, ""


def pairs_of(condition: str, rows: list[dict], arm: str, rivals: list[str]) -> dict[str, Pair]:
    """rival -> the pair, in one condition of all the rows; rivals without two pairs of seeds are left out."""
    every_rate = every_rate_by_condition(rows)[condition]
    at_common = paired(at_common_rate(every_rate), arm, rivals)
    rates, rate, margin = own_rates_of(every_rate), common_rate_of(every_rate), margin_of(every_rate[0]["headline"])
    return {
        rival: Pair(arm, rival, difference, (rates[arm], rates[rival]), rate, at_common.get(rival), margin)
        for rival, difference in paired(at_own_rates(every_rate), arm, rivals).items()
    }


@dataclass
class Test:
    """H1, H2 or H5 in one condition, tested and judged."""

    name: str
    text: str
    condition: str
    place: Place
    arm: str
    pairs: dict[str, Pair]  # by rival
    left_out: list[str]  # rivals without two pairs
    lost: int  # runs of the arm that diverged
    headline: str
    p_above: float  # of the claim
    p_below: float  # of the other way round, below one of the rivals
    holm_above: float = 1.0
    holm_below: float = 1.0

    @property
    def estimates(self) -> dict[str, Estimate]:
        """rival -> arm - rival at their own rates."""
        return {rival: pair.difference for rival, pair in self.pairs.items()}

    @property
    def verdict(self) -> str:
        """supported, refuted, equivalent or undecided, by Holm's values over the family and where neither one seed nor
        unequal rates decide; not judged with too few seeds (`statistics.compare`)."""
        return self._verdict([pair.relation for pair in self.pairs.values()])

    @property
    def reason(self) -> str:
        """Why what the own rates would decide is not decided, or ""."""
        at_own_rates = self._verdict([pair.at_own_rates for pair in self.pairs.values()])
        side = {"supported": "above", "refuted": "below", "equivalent": "equivalent"}.get(at_own_rates)
        if side is None or self.verdict == at_own_rates:
            return ""
        return next(pair.reason for pair in self.pairs.values() if pair.reason and pair.at_own_rates == side)

    def _verdict(self, relations: list[str]) -> str:
        if "not judged" in relations:
            return "not judged"
        if self.holm_above < LEVEL and set(relations) == {"above"}:
            return "supported"
        if self.holm_below < LEVEL and "below" in relations:
            return "refuted"
        return "equivalent" if relations and set(relations) <= {"equivalent"} else "undecided"

    @property
    def beaten(self) -> list[str]:
        """The rivals that the arm is above, by Holm's values over this test's rivals at the rate with the larger p.
        None if one of its runs diverged."""
        if self.lost:
            return []
        p = [
            max(statistics.p_value(difference) for difference in (pair.difference, pair.at_common) if difference)
            for pair in self.pairs.values()
        ]
        pairs = zip(self.pairs.items(), statistics.holm(p), strict=True)
        return [rival for (rival, pair), value in pairs if pair.relation == "above" and value < LEVEL]

    def without_each(self) -> tuple[float, float]:
        """The smallest and the largest p of the difference to the weakest rival without any one seed."""
        values = [statistics.p_value(part) for part in statistics.without_each(self.estimates[hardest(self)])]
        return min(values), max(values)


@dataclass(frozen=True)
class OverConditions:
    """H3 or H4: H1 over all placements, or over all optimizers."""

    name: str
    text: str
    condition: str
    verdict: str
    missing: list[str]


def tests(rows: list[dict]) -> list[Test]:
    """H1, H2 and H5 in every condition, each tested and judged."""
    judged = []
    for condition, condition_rows in conditions(rows).items():
        if len({row["seed"] for row in condition_rows}) < 2:
            continue  # of one seed there are no pairs yet
        lost, headline, place = diverged(condition_rows), condition_rows[0]["headline"], place_of(condition_rows[0])
        for name, text, arm in CLAIMS:
            rivals = ["linear"] if name == "H2" else hand_made(condition_rows)
            if arm not in lost or not set(rivals) & lost.keys():
                continue
            pairs = pairs_of(condition, rows, arm, [rival for rival in rivals if rival in lost])
            estimates = {rival: pair.difference for rival, pair in pairs.items()}
            left_out = [rival for rival in rivals if rival not in estimates]
            p = {rival: statistics.p_value(e) for rival, e in estimates.items()}
            above = [p[rival] if e.mean > 0 and not lost[arm] else 1.0 for rival, e in estimates.items()]
            below = [p[rival] if e.mean < 0 and not lost[rival] else 1.0 for rival, e in estimates.items()]
            p_below = min(1.0, len(estimates) * min(below)) if estimates else 1.0
            p_above = max(above, default=1.0)
            judged.append(
                Test(name, text, condition, place, arm, pairs, left_out, lost[arm], headline, p_above, p_below)
            )
    for scale in {test.place.scale for test in judged}:
        family = [test for test in judged if test.place.scale == scale]
        for test, value in zip(family, statistics.holm([test.p_above for test in family]), strict=True):
            test.holm_above = value
        for test, value in zip(family, statistics.holm([test.p_below for test in family]), strict=True):
            test.holm_below = value
    return judged


def hardest(test: Test) -> str:
    """The rival that the claim fails at, or passes last: the largest p, of equals the smallest difference."""
    estimates = test.estimates
    return max(
        estimates,
        key=lambda rival: (
            statistics.p_value(estimates[rival]) if estimates[rival].mean > 0 else 1.0,
            -estimates[rival].mean,
        ),
    )


def over_conditions(judged_tests: list[Test]) -> list[OverConditions]:
    """H3 for every optimizer and H4 for every placement, judged by H1: supported in all, refuted in one, not run where
    a condition is missing, else undecided."""
    judged = {}
    for test in judged_tests:
        if test.name == "H1" and test.place.answers:
            judged[test.place.placement, test.place.optimizer] = test.verdict
    lines = []
    for name, text, axis, wanted in (
        ("H3", "H1 for weights, activations and both", 0, PLACEMENTS),
        ("H4", "H1 under SGD and under Adam", 1, OPTIMIZERS),
    ):
        for other in dict.fromkeys(key[1 - axis] for key in judged):
            verdicts = {key[axis]: verdict for key, verdict in judged.items() if key[1 - axis] == other}
            words = set(verdicts.values())
            missing = [part for part in wanted if part not in verdicts]
            if "refuted" in words:
                verdict = "refuted"
            elif missing:
                verdict = "not run"
            elif "not judged" in words:
                verdict = "not judged"
            else:
                verdict = "supported" if words == {"supported"} else "undecided"
            lines.append(OverConditions(name, text, other, verdict, missing))
    return lines
