"""What is decided on rows of known effects: rates, equivalence, single seeds, diverged arms, one function twice."""

import json

import numpy as np
import pytest
import yaml
from scipy import stats

from bnc_repro.evidence import conditions, hypotheses, judgement, statistics, verdict
from bnc_repro.evidence.rows import published, sets
from bnc_repro.recipe.clone import project_root
from runs_of_known_effect import ablation


def values(mean, seeds=20, spread=0.3, seed=0):
    """A common part of each seed and a noise of its own."""
    common = np.random.default_rng(99).normal(0, 1, seeds)
    return (mean + common + np.random.default_rng(seed).normal(0, spread, seeds)).tolist()


def own_and_common(own, common, rate=0.05):
    """Rows of linear at `rate` and of both estimators at 0.01."""
    rows = ablation({"ste": values(80, seed=1), "linear": common})
    return rows + ablation({"linear": own}, rates={"linear": rate})


def only(rows):
    (test,) = judgement.tests(rows)
    return test


@pytest.mark.parametrize(("effect", "word"), [(2, "supported"), (-2, "refuted")])
def test_an_effect_at_equal_rates_is_decided(effect, word):
    assert only(ablation({"ste": values(80, seed=1), "linear": values(80 + effect, seed=2)})).verdict == word


@pytest.mark.parametrize("effect", [2, -2])
def test_an_effect_between_unequal_rates_alone_is_not_decided(effect):
    """Nobody ran linear at ste's rate: rates are named in the reason, the answer and the verdict's line."""
    linear = values(80 + effect, seed=2)
    rows = ablation({"ste": values(80, seed=1), "linear": linear}, rates={"linear": 0.005})
    test = only(rows)
    assert test.holm_above < 0.001 or test.holm_below < 0.001
    assert test.verdict == "undecided"
    assert test.reason == "it shows only at unequal learning rates, linear 0.005 and ste 0.01"
    assert test.reason in hypotheses.answer(rows)
    assert "Not decided" in verdict.title([row | {"recipe": row["recipe"] | {"data": {"root": "d"}}} for row in rows])


def test_a_reason_is_given_only_where_rates_stand_in_the_way():
    """Linear is above approx_sign at another rate, and level with ste at its own: nothing to say of rates."""
    rows = ablation(
        {"ste": values(80, seed=1, spread=2), "approx_sign": values(70, seed=3), "linear": values(80, seed=2)},
        rates={"approx_sign": 0.5},
    )
    assert (only(rows).verdict, only(rows).reason) == ("undecided", "")


def test_an_effect_that_vanishes_at_the_common_rate_is_not_decided():
    test = only(own_and_common(own=values(82, seed=2), common=values(80, seed=3)))
    assert statistics.compare(test.estimates["ste"]) == "above"
    assert test.verdict == "undecided"
    assert "not at the common rate 0.01" in test.reason


def test_whom_an_undecided_claim_beats_all_the_same_is_said():
    """Of three rivals one is level: the other two are named. With a run that diverged, and where Holm over the rivals
    takes it back (p = 0.017, of four), nobody is."""
    arms = {"ste": values(70, seed=1), "approx_sign": values(78, seed=3), "identity": values(80, seed=4, spread=2)}
    rows = ablation(arms | {"linear": values(80, seed=2)})
    assert (only(rows).verdict, only(rows).beaten) == ("undecided", ["ste", "approx_sign"])
    assert "it is above ste, approx_sign (" in hypotheses.answer(rows)
    said = verdict.title([row | {"recipe": row["recipe"] | {"data": {"root": "d"}}} for row in rows])
    assert "beats 2 of the 3 hand-made ones (ste, approx_sign), and against the others it stays open" in said
    assert only(ablation(arms | {"linear": [None, *values(80, seed=2)[1:]]})).beaten == []
    level = {name: values(80, seed=seed, spread=2) for seed, name in enumerate(("identity", "ede", "approx_sign"), 4)}
    barely = only(ablation(level | {"ste": [80.0] * 20, "linear": [82.4, 79.4] * 10}))
    assert (barely.pairs["ste"].relation, barely.beaten) == ("above", [])


@pytest.mark.parametrize(("effect", "word"), [(2, "supported"), (-2, "refuted")])
def test_an_effect_that_shows_at_the_common_rate_too_is_decided(effect, word):
    test = only(own_and_common(own=values(80 + effect, seed=2), common=values(80 + effect, seed=3)))
    assert (test.verdict, test.reason) == (word, "")
    assert test.estimates["ste"].values == pytest.approx(
        np.subtract(values(80 + effect, seed=2), values(80, seed=1)).tolist()
    )


def test_the_common_rate_is_the_one_that_most_have():
    rows = ablation({"ste": [1, 2], "ede": [1, 2], "linear": [3, 4], "mlp": [3, 4]}, rates={"mlp": 0.5, "linear": 0.5})
    rows += ablation({"linear": [5, 6]})
    (common,) = conditions.conditions_at_common_rate(rows).values()
    assert {(row["arm"], row["recipe"]["learning_rate"]) for row in common} == {
        ("ste", 0.01), ("ede", 0.01), ("linear", 0.01),
    }  # fmt: skip
    (own,) = conditions.conditions(rows).values()
    assert {row["recipe"]["learning_rate"] for row in own if row["arm"] == "linear"} == {0.5}


def test_equivalence_within_the_margin():
    """A tenth of a point apart with a spread of 0.3 over twenty seeds: equivalent; half a point apart: not."""
    near = ablation({"ste": values(80, seed=1), "linear": values(80.1, seed=2)})
    assert only(near).verdict == "equivalent"
    assert "lie within 0.5 points of each other" in hypotheses.answer(near)
    assert only(ablation({"ste": values(80, seed=1), "linear": values(80.5, seed=2)})).verdict != "equivalent"
    assert only(ablation({"ste": values(80, 4, seed=1), "linear": values(80.1, 4, seed=2)})).verdict == "not judged"


def test_equivalence_is_two_one_sided_tests():
    """By hand: both one-sided tests of scipy against the margin's ends, the larger p."""
    difference = [0.2, -0.1, 0.3, 0.05, -0.2, 0.1, 0.15]
    above = stats.ttest_1samp(difference, -0.5, alternative="greater").pvalue
    below = stats.ttest_1samp(difference, 0.5, alternative="less").pvalue
    assert statistics.equivalence_p(statistics.estimate(difference), 0.5) == pytest.approx(max(above, below), rel=1e-9)
    carried = [0.4, 0.4, 0.42, 0.41, 0.4, -0.9]
    assert not statistics.equivalent(statistics.estimate(carried), 0.5)


def test_a_claim_that_one_seed_decides_is_not_decided():
    test = only(ablation({"ste": [80.0] * 5, "linear": [80.1, 80.9, 81.0, 81.1, 80.3]}))
    assert test.holm_above < judgement.LEVEL
    assert test.verdict == "undecided"
    low, high = test.without_each()
    assert low < judgement.LEVEL < high


def test_a_diverged_arm_is_named_and_supports_nothing():
    linear = [*values(84, seed=2)[:-1], None]
    rows = ablation({"ste": values(80, seed=1), "linear": linear})
    assert only(rows).verdict == "undecided"
    assert "1 diverged" in hypotheses.table(rows).loc["H1", "verdict"]


def test_one_function_under_two_names_is_one_estimator():
    rows = ablation({"ste": values(80, seed=1), "clip": values(80, seed=1), "linear": values(82, seed=2)})
    assert list(only(rows).estimates) == ["ste"]
    assert "ste = clip" in hypotheses.said_of_identical(rows)


def test_a_learnt_function_whose_gates_stay_open_is_the_identity_by_seed():
    """A constant positive derivative over the whole range; a gate, a slope that turns or a negative one is none."""
    shapes = {0: [1.0, 1.0, 1.0], 1: [0.0, 1.0, 1.0], 2: [2.0, 2.0, 2.0], 3: [-1.0, -1.0, -1.0], 4: [1.0, 1.1, 1.0]}
    rows = [
        row | {"curve": [{"estimator": {"derivative": shapes[row["seed"]]}}]} for row in ablation({"linear": [1.0] * 5})
    ]
    assert judgement.identities(rows) == {"linear": [0, 2]}
    assert "`linear` is the identity in 2 of 5 seeds (0, 2)" in hypotheses.said_of_identical(rows)


@pytest.mark.parametrize(("effect", "word"), [(2, "supported"), (-2, "refuted"), (0.05, "equivalent")])
def test_linear_whose_gates_start_in_reach_is_judged_like_linear(effect, word):
    """H5 against each hand-made one, in words of its own; it is nobody's rival among the hand-made."""
    names = ("ste", "linear", judgement.REACHED)
    rows = ablation(
        dict(zip(names, (values(80, seed=1), values(80, seed=2), values(80 + effect, seed=3)), strict=True))
    )
    verdicts = {test.name: test for test in judgement.tests(rows)}
    assert verdicts["H5"].verdict == word
    assert list(verdicts["H1"].pairs) == list(verdicts["H5"].pairs) == ["ste"]
    assert judgement.learnt_ones(rows) == ["linear", judgement.REACHED]
    assert "whose gates start within the weights" in hypotheses.answer(rows)
    assert f"{judgement.REACHED} − linear" in set(hypotheses.differences(rows)["pair"])


def test_blocks_are_a_condition_of_their_own():
    """Arms on ReactNet's blocks are compared with each other, have no part in H4, and do not answer the title."""
    arms = {"ste": values(80, seed=1), "linear": values(82, seed=2)}
    shifted = {"ste-reactnet": values(90, seed=3), "linear-reactnet": values(86, seed=4)}
    rows = ablation(arms | {f"{arm}-sgd": own for arm, own in arms.items()} | shifted)
    verdicts = {(test.name, test.condition): test.verdict for test in judgement.tests(rows)}
    assert verdicts == {("H1", "adam"): "supported", ("H1", "sgd"): "supported", ("H1", "adam-reactnet"): "refuted"}
    over = {line.name: line for line in judgement.over_conditions(judgement.tests(rows))}
    assert over["H4"].verdict == "supported"
    title = verdict.title([row | {"recipe": row["recipe"] | {"data": {"root": "d"}}} for row in rows])
    assert "No on d" in title
    assert "reactnet" not in title


def test_the_conditions_with_the_most_seeds_answer_the_title():
    """Twenty seeds under Adam decide; five under SGD, which refute, are shown with their number."""
    rows = ablation({"ste": values(80, seed=1), "linear": values(82, seed=2)})
    rows += ablation({"ste-sgd": values(80, 5, 0.1, seed=3), "linear-sgd": values(70, 5, 0.1, seed=4)})
    title = verdict.title([row | {"recipe": row["recipe"] | {"data": {"root": "d"}}} for row in rows])
    assert "No on d with 20 seeds.\n\n- Under adam the learnt" in title
    assert "\n- Under sgd (5 seeds) a hand-made" in title


def test_a_classifier_under_another_preset_is_no_hand_made_rival():
    """`mlp (paper)` is the mlp by its recipe, whatever it is called; its line judges the classifying claim."""
    rows = ablation({"ste": values(80, seed=1), "linear": values(82, seed=2), "mlp (paper)": values(30, seed=3)})
    rows = [row | {"recipe": row["recipe"] | {"data": {"root": "d"}}, "title": ""} for row in rows]
    for row in rows:
        row["recipe"]["preset"] = "paper" if row["estimator"] == "mlp (paper)" else "fixed"
    assert list(only(rows).pairs) == ["ste"]
    lines = verdict.table([], [], rows)
    (line,) = [line for _, line in lines.iterrows() if "preset `paper`" in line["measured"]]
    assert line["verdict"] == "disagrees at this scale"
    assert "minus ste −50" in line["measured"] or "minus ste −49" in line["measured"]


def test_the_preset_that_classifies_judges_the_classifying_claim():
    """Rows of `presets`: the preset `paper` collapses in some runs and is far below ste, whatever `fixed` does."""
    line = verdict.table([], [], [], published("presets", "linear_vs_soft")).iloc[0]
    assert "preset `paper`" in line["measured"]
    assert "runs collapsed" in line["measured"]
    assert line["verdict"] == "disagrees at this scale"


def test_a_reader_with_scipy_alone_gets_the_printed_numbers():
    """Means, intervals, p and Holm's p of the answer on CIFAR-10, at own and at common rates, from results/ and
    params.yaml."""
    raw = [json.loads(path.read_text()) for path in (project_root() / "results/small/linear_vs_soft").glob("*.json")]
    text = (project_root() / "pipelines/small/params.yaml").read_text()
    section = yaml.safe_load(text)["linear_vs_soft"]

    def keys(values: dict) -> tuple:
        """What tells arms apart, of a recipe or of an arm of params.yaml."""
        plain = section["recipe"] | {"optimizer": "adam", "preset": "fixed", "block": "bireal", "gates": 0.0} | values
        return tuple(plain[key] for key in ("weight_binarizer", "optimizer", "preset", "block", "gates", "epochs"))

    own, seeds, what = {}, {}, {}
    for name, arm in section["arms"].items():
        place = arm.get("optimizer", "adam"), arm.get("block", "bireal"), arm.get("scale", "")
        if not name.endswith("-common"):
            own[*place, arm["estimator"]] = arm["learning_rate"]
        what[*place, arm["estimator"]] = keys(arm)
        seeds[*place, arm["estimator"]] = set(arm.get("seeds", section["seeds"]))
    by: dict = {}
    for row in raw:
        by.setdefault((keys(row["recipe"]), row["recipe"]["learning_rate"]), {})[row["seed"]] = row["metrics"]["top1"]

    def recomputed(place: tuple, arm: str, rival: str, rates: tuple[float, float]):
        first, second = by[what[*place, arm], rates[0]], by[what[*place, rival], rates[1]]
        assert first.keys() == second.keys() == seeds[*place, arm] == seeds[*place, rival]
        result = stats.ttest_rel([first[seed] for seed in sorted(first)], [second[seed] for seed in sorted(first)])
        interval = result.confidence_interval(0.95)
        return np.mean([first[seed] - second[seed] for seed in first]), interval.low, interval.high, result.pvalue

    tests = judgement.tests(published("small", "linear_vs_soft"))
    scales = {test.place.scale for test in tests}
    families: dict = {scale: {"holm_above": [], "holm_below": [], "tests": []} for scale in scales}
    compared = 0
    for test in tests:
        place, p_above, p_below = test.place[1:], [], []
        for rival, pair in test.pairs.items():
            rates, estimate = (own[*place, test.arm], own[*place, rival]), pair.difference
            mean, low, high, p = recomputed(place, test.arm, rival, rates)
            assert pair.rates == rates
            assert [estimate.mean, estimate.low, estimate.high] == pytest.approx([mean, low, high])
            p_above.append(p if mean > 0 else 1.0)
            p_below.append(p if mean < 0 else 1.0)
            *interval, _ = recomputed(place, test.arm, rival, (pair.common_rate,) * 2)
            assert pair.at_common is not None
            assert [pair.at_common.mean, pair.at_common.low, pair.at_common.high] == pytest.approx(interval)
            compared += 1
        family = families[test.place.scale]
        family["tests"].append(test)
        family["holm_above"].append(max(p_above))
        family["holm_below"].append(min(1.0, len(p_below) * min(p_below)))
    for family in families.values():
        for printed in ("holm_above", "holm_below"):
            order = np.argsort(family[printed])
            steps = [min(1.0, (len(order) - i) * family[printed][index]) for i, index in enumerate(order)]
            for index, value in zip(order, np.maximum.accumulate(steps), strict=True):
                assert getattr(family["tests"][index], printed) == pytest.approx(value)
    # Two linear ones with five hand-made ones and mlp with linear under Adam, linear with four and mlp with linear
    # under SGD, linear with ste on ReactNet's blocks.
    assert compared == 2 * 5 + 1 + 4 + 1 + 1


def test_a_scale_of_its_own_answers_nothing_and_weighs_on_no_claim():
    """Rows of a larger size are a condition with a family of its own: the other claims keep their Holm values, the
    title does not hear of it, and data sets are grouped by it."""
    contest = ablation({"ste": values(80, seed=1), "linear": values(82, seed=2), "mlp": values(82.1, seed=3)})
    large = [row | {"scale": "all images"} for row in ablation({"ste": values(90, 3, seed=4), "linear": [80, 81, 82]})]
    rows = [row | {"recipe": row["recipe"] | {"data": {"root": "d"}}, "profile": "small"} for row in [*contest, *large]]
    float_network = large[0]["recipe"] | {"weight_binarizer": None, "data": {"root": "d"}}
    rows += [row | {"arm": "float", "estimator": "float", "recipe": float_network} for row in rows[-6:-3]]
    assert list(conditions.conditions(rows)) == ["", "all images"]
    alone, together = judgement.tests(rows[: len(contest)]), judgement.tests(rows)
    for before, after in zip(alone, together, strict=False):
        assert (before.holm_above, before.holm_below) == (after.holm_above, after.holm_below)
    assert together[-1].verdict == "not judged"
    assert list(together[-1].pairs) == ["ste"]
    assert verdict.title(rows) == verdict.title(rows[: len(contest)])
    first_seed = [row for row in rows if row["seed"] == 0 or not row.get("scale")]
    assert [test.condition for test in judgement.tests(first_seed)] == [""] * len(alone)
    assert [line.condition for line in judgement.over_conditions(together)] == ["adam", "weights"]
    assert [len(group) for group in sets(rows)] == [len(contest), len(large) + 3]
    shown = verdict.table([], [], rows)["measured"]
    assert sum("d, all images" in line for line in shown) == 1
