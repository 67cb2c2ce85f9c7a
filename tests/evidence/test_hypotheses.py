"""The reading of the ablation on rows whose effect is known."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bnc_repro.evidence import hypotheses, judgement, plots, statistics, tables, tuning, verdict
from bnc_repro.evidence.rows import by_arm
from bnc_repro.recipe.expansion import arms_with_grids
from bnc_repro.recipe.parameters import PLACEMENTS
from bnc_repro.recipe.profiles import experiment_section, recipe_of
from runs_of_known_effect import ablation as rows


@pytest.mark.parametrize(
    ("linear", "word"),
    [
        ([84.0, 84.1, 84.05, 84.1, 84.0], "the learnt linear function is better than each hand-made one"),
        ([79.0, 79.1, 79.05, 79.1, 79.0], "a hand-made function is better than the learnt linear one"),
        ([80.0, 82.5, 79.0, 80.3, 80.1], "stays undecided"),
    ],
)
def test_the_answer_follows_the_numbers(linear, word):
    """A clear effect up, a clear effect down, and noise give three different sentences."""
    hand = {"ste": [80.0, 80.1, 80.1, 80.0, 80.1], "approx_sign": [80.1, 80.0, 80.05, 80.1, 80.0]}
    assert word in hypotheses.answer(rows(hand | {"linear": linear}))


def noisy(seeds, **effects):
    """Rows of arms around 80 points with a common part of each seed and a noise of 0.3 points of their own."""
    draw = np.random.default_rng(0)
    common = draw.normal(80, 1, seeds)
    return rows(
        {
            arm.replace("_", "-"): (common + effect + draw.normal(0, 0.3, seeds)).tolist()
            for arm, effect in effects.items()
        }
    )


def verdicts(made):
    """(hypothesis, condition) -> verdict."""
    return {(name, line["condition"]): line["verdict"] for name, line in hypotheses.table(made).iterrows()}


def test_a_known_effect_is_found_in_each_condition():
    """Linear two points above all, the MLP two above linear under Adam; linear two below one rival under SGD."""
    made = noisy(8, ste_adam=0, ede_adam=-1, linear_adam=2, mlp_adam=4, ste_sgd=0, ede_sgd=4, linear_sgd=2, mlp_sgd=2)
    found = verdicts(made)
    assert found["H1", "adam"] == "supported"
    assert found["H2", "adam"] == "supported"
    assert found["H1", "sgd"] == "refuted"
    assert found["H2", "sgd"] == "undecided"
    assert found["H4", "weights"] == "refuted"
    assert found["H3", "adam"] == "not run"
    assert "activations, both did not run" in hypotheses.answer(made)


def test_all_conditions_supported_support_the_hypothesis_over_them():
    """H4 holds when H1 does under both optimizers, H3 in all three placements."""
    good = {f"{arm}_{optimizer}": 3 * (arm == "linear") for optimizer in ("adam", "sgd") for arm in ("ste", "linear")}
    assert verdicts(noisy(8, **good))["H4", "weights"] == "supported"
    placed = noisy(8, **{f"{arm}_{place}": 3 * (arm == "linear") for place in PLACEMENTS for arm in ("ste", "linear")})
    assert verdicts(placed)["H3", "adam"] == "supported"


def test_no_effect_is_undecided():
    """The same mean everywhere: neither supported nor refuted, in 40 draws at most two exceptions."""
    wrong = 0
    for repeat in range(40):
        draw = np.random.default_rng(repeat)
        made = rows({arm: draw.normal(80, 1, 6).tolist() for arm in ("ste", "ede", "reste", "linear", "mlp")})
        wrong += set(verdicts(made).values()) - {"undecided", "not run"} != set()
    assert wrong <= 2


def test_identical_arms_are_one_estimator():
    """Identity gives ste's digits: one rival, one line in the ranking, and a sentence that says so."""
    made = noisy(6, ste=0, linear=2, mlp=2)
    made += [row | {"arm": "identity", "estimator": "identity"} for row in made if row["arm"] == "ste"]
    assert judgement.identical(made) == [["ste", "identity"]]
    assert judgement.hand_made(made) == ["ste"]
    assert hypotheses.ranking(made)["estimator"].tolist().count("ste = identity") == 1
    assert "ste = identity" in hypotheses.said_of_identical(made)
    assert verdicts(made)["H1", "the one that ran"] == "supported"
    same = [row for row in made if row["arm"] == "ste"]
    same += [row | {"arm": "linear", "estimator": "linear"} for row in same]
    assert verdicts(same)["H1", "the one that ran"] == "undecided"
    assert "ste = linear" in hypotheses.said_of_identical(same)


def test_a_missing_seed_costs_a_pair_and_nothing_else():
    """Pairs are taken over the seeds that both have."""
    made = [row for row in noisy(8, ste=0, linear=2, mlp=2) if (row["arm"], row["seed"]) != ("ste", 3)]
    table = hypotheses.table(made)
    assert table.loc["H1", "pairs"] == "7"
    assert table.loc["H1", "verdict"] == "supported"


def lose(made, arm, seeds):
    """The rows with these runs diverged."""
    lost = {"status": "diverged", "metrics": {}, "best": None}
    return [row | lost if (row["arm"], row["seed"]) in {(arm, seed) for seed in seeds} else row for row in made]


def test_a_diverged_run_counts_against_its_arm():
    """Linear is above on every seed that finished, but one diverged: not supported, in table and sentence."""
    made = lose(noisy(8, ste=0, linear=2, mlp=2), "linear", [5])
    assert verdicts(made)["H1", "the one that ran"] == "undecided (1 diverged)"
    assert "stays undecided" in hypotheses.answer(made)
    assert "1 of its runs diverged" in hypotheses.answer(made)


def test_a_diverged_rival_neither_wins_nor_stops_the_reading():
    """A rival that is better where it finished cannot refute; one that never finished is named as left out."""
    better = lose(noisy(8, ste=0, ede=5, linear=2, mlp=2), "ede", [1, 2, 3])
    assert verdicts(better)["H1", "the one that ran"] == "undecided"
    gone = lose(noisy(8, ste=0, ede=5, linear=2, mlp=2), "ede", range(8))
    assert verdicts(gone)["H1", "the one that ran"] == "supported"
    assert "Left out, as hardly a run finished: ede" in hypotheses.answer(gone)
    assert "ede" not in hypotheses.ranking(gone)["estimator"].tolist()
    assert tables.reliability(gone, reference="ste", chance=10).loc["ede", "collapsed"] == 8


def test_an_arm_that_never_finished_is_undecided():
    """No pair, no verdict, and a line that says why."""
    made = lose(noisy(4, ste=0, linear=2, mlp=2), "linear", range(4))
    assert verdicts(made)["H1", "the one that ran"] == "undecided (4 diverged)"
    assert "without a pair" in hypotheses.answer(made)


def test_ranks_that_cannot_be_told_apart_are_ranges():
    """A clear leader has one rank; two equals share a range, also when they tie."""
    ranks = hypotheses.ranking(noisy(10, ste=0, ede=0.02, linear=5)).set_index("estimator")["rank"]
    assert ranks["linear"] == "1"
    assert ranks["ste"] == ranks["ede"] == "2 to 3"


def test_the_smallest_detectable_difference_is_the_claims_own():
    """Against each pair of the hypotheses, at the level of Holm's first step over the two claims."""
    made = noisy(8, ste=0, linear=2, mlp=2)
    table = hypotheses.detectable(made)
    assert list(table.index) == ["linear − ste", "mlp − ste", "mlp − linear"]
    deviation = statistics.paired(*(by_arm(made)[arm] for arm in ("linear", "ste"))).deviation
    wanted = statistics.smallest_detectable(deviation, 8, confidence=1 - 0.05 / 2)
    assert table.loc["linear − ste", "smallest detectable"] == f"{wanted:.2f}"


def test_the_papers_claims_follow_the_same_tests():
    """The verdict's line on linear: agrees, disagrees, undecided, with diverged runs too; a gain of ImageNet is not
    tested here."""

    def said(made):
        table = verdict.table([], [], of_data(made))
        return table["verdict"].str.partition(" ")[0].tolist()

    assert said(noisy(8, ste=0, linear=2, mlp=3)) == ["agrees", "not"]
    assert said(noisy(8, ste=0, linear=-2, mlp=1)) == ["disagrees", "not"]
    draw = np.random.default_rng(3)
    wide = rows({arm: draw.normal(80, 2, 8).tolist() for arm in ("ste", "ede", "linear", "mlp")})
    assert said(wide) == ["undecided", "not"]
    assert "It stays open" in verdict.title(of_data(wide))
    assert said(lose(noisy(8, ste=0, linear=2, mlp=3), "linear", [0])) == ["undecided", "not"]


def of_data(made):
    """The rows with what the verdict reads beside their numbers."""
    recipe = {"data": {"root": "folder/data"}, "weight_binarizer": None}
    return [
        row
        | {
            "recipe": row["recipe"] | recipe | {"weight_binarizer": row["arm"] if row["arm"] != "float" else None},
            "device": "device",
            "profile": "sample",
        }
        for row in made
    ]


def test_only_the_papers_scale_says_reproduced():
    """The best binary arm reaches 65.7, or does not; a float one does not count; smaller scales decide nothing."""

    def said(profile, **values):
        own = [row | {"profile": profile} for row in of_data(rows(values))]
        return verdict.table(own, [], [])["verdict"][0]

    assert said("paper", ste=[60.0], float=[70.0], official=[65.8], binary=[64.0]) == "reproduced by official"
    assert said("paper", ste=[60.0], float=[70.0], official=[63.2], binary=[64.0]) == "not reproduced by binary"
    assert said("gpu", ste=[60.0], float=[70.0], official=[65.8]).startswith("not tested at this scale")
    assert said("paper", float=[70.0]) == "no binary network finished"


@pytest.mark.parametrize(
    ("effects", "short", "words"),
    [
        ({"ste": 0, "ede": 1, "linear": 3}, "No", "the learnt linear function is better than each"),
        ({"ste": 0, "identity": 3, "linear": 1}, "No", "the best soft function is worse than the identity"),
        ({"ste": 3, "ede": 0, "identity": 1, "linear": 0}, "Yes", "the best soft function is better than the identity"),
        ({"ste": 3, "identity": 3, "linear": 0}, "No", "the best soft function is equivalent to the identity"),
        ({"ste": 0, "linear": 0}, "No", "lie within 0.5 points of each other"),
        ({"ste_sgd": 0, "linear_sgd": 3, "ste_adam": 3, "linear_adam": 0}, "Not decided", "- Under adam a hand-made"),
    ],
)
def test_the_titles_question_has_an_answer_and_a_sentence_a_condition(effects, short, words):
    """No, yes, or not decided, from effects that are known; conditions that disagree decide nothing."""
    said = verdict.title(of_data(noisy(12, **effects)))
    answer, _, sentences = said.partition("\n\n")
    assert answer.endswith(f"** {short} on data with 12 seeds.")
    assert words.lower() in sentences.lower()
    assert sentences.count("\n- ") + 1 == len({arm.partition("_")[2] for arm in effects})


def test_a_title_without_runs_says_so():
    """Arms that hardly finished a run leave nothing to compare; one finished rival, the identity, is enough to try."""
    lost = of_data(rows({"ste": [None, None], "linear": [None, None]}))
    assert "Too few runs finished" in verdict.title(lost)
    alone = {"ste": [None] * 5, "identity": [80, 81, 80.2, 80.9, 80.5], "linear": [84, 85.1, 84.2, 85, 84.4]}
    said = verdict.title(of_data(rows(alone)))
    assert "** No on data" in said
    assert "best soft function" not in said


def test_what_is_open_has_a_price():
    """The seeds that would decide it are the first at which the design detects the difference seen; the hours are
    those of the runs to come; what is decided has no line."""
    made = of_data(noisy(8, ste=0, ede=-1, linear=0, mlp=3))
    table = verdict.undecided(made)
    assert "H2" not in table.index
    needed = int(table.loc["H1", "seeds needed"])
    estimate = statistics.paired(*(by_arm(made)[arm] for arm in ("linear", "ste")))
    rivals = 1 if estimate.mean > 0 else 2
    level = 1 - 0.05 / (2 * rivals)
    assert statistics.smallest_detectable(estimate.deviation, needed, confidence=level) <= abs(estimate.mean)
    assert statistics.smallest_detectable(estimate.deviation, needed - 1, confidence=level) > abs(estimate.mean)
    runs = 3 * (needed - 8)
    assert table.loc["H1", "runs more"] == f"{runs}"
    hours = runs * np.mean([row["seconds"] for row in made]) / 3600
    assert table.loc["H1", "hours, device"] == f"{hours:.1f}"
    assert "not run: activations, both" in set(table["difference seen"])


def test_learning_rates_are_the_best_of_the_published_grid():
    """Each arm of `small` trains at the rate that won on held-out images, and the whole grid is published."""
    arms = tuning.tuned_arms("linear_vs_soft", "small")
    found = tuning.judged("linear_vs_soft", "small", "results/small/tuning")
    assert len(found) == sum(len(tuning.grid("linear_vs_soft", "small", arm)) for arm in arms)
    assert arms == tuning.best(found).to_dict()
    grids = {arm: sorted(rates.unique()) for arm, rates in found.groupby("arm")["learning rate"]}
    assert not [arm for arm, rate in arms.items() if rate in (grids[arm][0], grids[arm][-1])]


def test_rates_show_every_optimizer_and_what_diverged(monkeypatch):
    """The table says how many runs diverged; the figure has them at its lower border, and all others within it."""
    held_out = {"ste-adam": {0.0125: (40.0, 42.0)}, "ste-sgd": {0.25: (41.0, 43.0), 0.6: (0.0, 44.0)}}
    lines = [
        {
            "arm": arm,
            "estimator": "ste",
            "optimizer": arm.removeprefix("ste-"),
            "seed": seed,
            "learning rate": rate,
            "held-out": value,
        }
        for arm, rates in held_out.items()
        for rate, values in rates.items()
        for seed, value in enumerate(values)
    ]
    monkeypatch.setattr(tuning, "published", lambda *_: pd.DataFrame(lines))
    table = tuning.table("linear_vs_soft", "small")
    assert table.loc["ste"].to_dict() == {
        ("adam", "0.0125"): "[41.0]", ("sgd", "0.25"): "[42.0]", ("sgd", "0.6"): "22.0, 1 diverged",
    }  # fmt: skip
    adam, sgd = plots.rates("linear_vs_soft", "small")
    lowest = sgd.get_ylim()[0]
    assert adam.get_ylim()[0] == lowest == pytest.approx(39.8)
    assert [list(line.get_ydata()) for line in sgd.lines if line.get_marker() == "x"] == [[lowest]]
    plt.close("all")


def test_every_estimator_of_small_runs_at_one_common_rate():
    """What is above what is not decided by unequal rates: in each condition one rate that all its estimators have."""
    section, at, of = experiment_section("linear_vs_soft", "small"), {}, {}
    for arm, changes in section["arms"].items():
        recipe = recipe_of("linear_vs_soft", "small", arm)
        condition = recipe.optimizer, recipe.block, changes.get("scale", "")
        at.setdefault(condition, {}).setdefault(recipe.learning_rate, set()).add(changes["estimator"])
        of.setdefault(condition, set()).add(changes["estimator"])
    assert {condition: len(estimators) for condition, estimators in of.items()} == {
        ("adam", "bireal", ""): 10, ("adam", "reactnet", ""): 2, ("sgd", "bireal", ""): 6,
        ("adam", "bireal", "all images"): 4,
    }  # fmt: skip
    assert all(of[condition] in rates.values() for condition, rates in at.items())


def test_tuning_never_sees_the_test_images():
    """Every run of a grid is judged on a share of the training images, under a seed that no result uses."""
    section, arms = experiment_section("linear_vs_soft", "small"), arms_with_grids("linear_vs_soft", "small")
    assert arms
    for arm in arms:
        for recipe in tuning.grid("linear_vs_soft", "small", arm):
            assert recipe.data.validation > 0
            assert recipe.seed not in section["seeds"]
    with pytest.raises(ValueError, match=r"has no section tuning\.imagenet_resnet"):
        tuning.grid("imagenet_resnet", "small", "binary")


def test_a_diverged_run_is_counted_not_averaged():
    """A diverged run stands in its column; the mean is of the others."""
    made = tables.table(rows({"ste": [80.0, None, 82.0]}))
    assert made.loc["ste", "diverged"] == 1
    assert made.loc["ste", "mean (%)"] == "81.0"


def test_the_reach_of_learnt_functions_is_said_over_their_seeds():
    """Smallest and largest share of both ends, learnt estimators alone, nothing where rows have none."""
    made = rows({"ste": [80.0, 81.0], "linear": [82.0, 83.0]})
    assert hypotheses.said_of_reach(made) == ""
    shares = {0: (0.9, 0.95, 1.0), 1: (0.8, 0.7, 0.996)}
    made = [row | {"curve": [{"open_share": share} for share in shares[row["seed"]]]} for row in made]
    assert hypotheses.said_of_reach(made) == (
        "`linear`: 80.0 to 90.0 % of the weights after the first epoch, 99.6 to 100.0 % after the last."
    )
