"""The ledger of code that gives the same digits, and the proof behind it."""

import copy
import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from bnc_repro.evidence import same_digits
from bnc_repro.run import ledger
from bnc_repro.run.code import PACKAGE, source_of

ROOT = Path(__file__).resolve().parents[2]
TODAY = source_of("linear_vs_soft")


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone of which nothing but its ledger is read."""
    (tmp_path / "params.yaml").write_text("{}")
    for name in ("pipelines", "results"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def line(old, new, profile="sample", experiment="linear_vs_soft", **more):
    return dict.fromkeys(ledger.COLUMNS, "1") | {
        "profile": profile,
        "experiment": experiment,
        "old": old,
        "new": new,
        **more,
    }


def row(source, profile="sample"):
    return {"profile": profile, "experiment": "linear_vs_soft", "fingerprints": {"source": source}}


def test_lines_join_code_through_others_and_for_their_profile_alone(clone):
    """first - second - today is a chain; what lies on no chain, or on another profile's, is not current."""
    assert ledger.is_current(row(TODAY))
    assert not ledger.is_current(row("first"))
    ledger.add([line("first", "second"), line("second", TODAY), line("third", "fourth"), line("fifth", TODAY, "small")])
    assert ledger.joined("sample", "linear_vs_soft") == {"first", "second", TODAY}
    assert ledger.is_current(row("first"))
    assert not ledger.is_current(row("third"))
    assert not ledger.is_current(row("fifth"))
    assert ledger.is_current(row("fifth", "small"))
    assert ledger.joined("sample", "coco_pose") == {source_of("coco_pose")}


def test_a_newer_proof_takes_the_place_of_the_older_one(clone):
    """One line for each old source of a profile's experiment."""
    ledger.add([line("first", "second", runs="1")])
    ledger.add([line("first", TODAY, runs="2")])
    assert [(entry["new"], entry["runs"]) for entry in ledger.lines()] == [(TODAY, "2")]


def test_a_ledger_of_another_form_is_one_sentence(clone):
    ledger.path().write_text("old,new\na,b\n")
    with pytest.raises(ValueError, match="has other columns than profile, experiment"):
        ledger.lines()


ROW = {
    "experiment": "linear_vs_soft",
    "status": "finished",
    "metrics": {"top1": 80.5, "slope": math.nan},
    "seconds": 3.0,
    "curve": [{"epoch": 1, "loss": 0.25, "seconds": 1.0}, {"epoch": 2, "loss": 0.125, "seconds": 2.0}],
    "examples": [],
    "device": "one",
}


def test_the_first_digit_that_differs_is_named():
    """Every metric and every epoch counts, times and machines do not, NaN is itself."""
    other = copy.deepcopy(ROW) | {"seconds": 9.0, "device": "another"}
    other["curve"][0]["seconds"] = 7.0
    assert same_digits.difference(ROW, other) == (8, None)
    other["curve"][1]["loss"] = math.nextafter(0.125, 1)
    assert same_digits.difference(ROW, other)[1] == "curve[1].loss: 0.125 became 0.12500000000000003"
    other["metrics"]["top1"] = 80.6
    assert same_digits.difference(ROW, other)[1] == "metrics.top1: 80.5 became 80.6"
    assert "curve" in same_digits.difference(ROW, ROW | {"curve": ROW["curve"][:1]})[1]
    missing = ROW | {"metrics": {"top1": 80.5}}
    assert same_digits.difference(ROW, missing)[1] == "metrics.slope: nan became None"


def proof(monkeypatch, clone, new):
    """What `prove` says of one pair whose old row is ROW and whose new one is `new`."""
    recipe = {"data": {"root": str(clone)}}
    pair = same_digits.Pair("sample", "linear_vs_soft", "first", "0" * 40, "a run", recipe)
    monkeypatch.setattr(same_digits, "pairs", lambda *_: [pair])
    monkeypatch.setattr(same_digits, "checked_out", lambda commit, folder: nullcontext(folder))
    monkeypatch.setattr(same_digits, "train", lambda pair, place, runs: ROW if runs.name == "old" else new)
    words = []
    return same_digits.prove(["sample"], say=words.append), words


def test_a_line_is_written_only_where_every_digit_is_the_same(clone, monkeypatch):
    """The same rows are joined; one other digit is named with its run, and nothing is written."""
    fine, words = proof(monkeypatch, clone, ROW | {"curve": [{"epoch": 1, "loss": 0.5}] * 2})
    assert not fine
    assert "a run: curve[0].loss: 0.25 became 0.5" in words[-1]
    assert ledger.lines() == []
    fine, words = proof(monkeypatch, clone, copy.deepcopy(ROW))
    assert fine
    (entry,) = ledger.lines()
    assert (entry["old"], entry["new"], entry["runs"]) == ("first", TODAY, "1")


def test_rows_of_one_code_are_joined_alone(clone, monkeypatch):
    """Of all published rows of other code, those that are named; a code that made none is refused."""
    made = {name: row(name) | {"title": name, "seed": 0, "commit": name, "recipe": {"rate": name}} for name in "abc"}
    made["c"]["fingerprints"]["source"] = TODAY
    monkeypatch.setattr(same_digits, "experiments", lambda profile: ("linear_vs_soft",))
    monkeypatch.setattr(ledger, "rows", lambda profile, folder: made.values() if folder != "tuning" else [])
    monkeypatch.setattr(same_digits, "cut", lambda recipe, keep_length: recipe)
    assert [pair.source for pair in same_digits.pairs(["sample"])] == ["a", "b"]
    assert [pair.source for pair in same_digits.pairs(["sample"], sources=["b"])] == ["b"]
    assert same_digits.pairs(["sample"], sources=[TODAY]) == []
    with pytest.raises(ValueError, match=r"no published row was made by the code other: `stale` names those"):
        same_digits.pairs(["sample"], sources=["b", "other"])


def test_rows_are_joined_through_code_that_the_ledger_joins_them_to(clone, monkeypatch):
    """By that code instead of each row's own, each shape of run once; a row on no chain to it by its own."""
    made = [row(name) | {"title": name, "seed": 0, "commit": name, "recipe": {"rate": 1}} for name in ("a", "b", "c")]
    monkeypatch.setattr(same_digits, "experiments", lambda profile: ("linear_vs_soft",))
    monkeypatch.setattr(ledger, "rows", lambda profile, folder: made if folder != "tuning" else [])
    monkeypatch.setattr(same_digits, "cut", lambda recipe, keep_length: recipe)
    monkeypatch.setattr(same_digits, "make_recipe", lambda **values: values)
    monkeypatch.setattr(same_digits, "as_dict", lambda values: values)
    monkeypatch.setattr(same_digits, "sources_of", lambda commit: {"linear_vs_soft": "middle"})
    ledger.add([line("a", "middle"), line("b", "middle")])
    found = same_digits.pairs(["sample"], through="abc")
    assert [(pair.source, pair.commit) for pair in found] == [("middle", "abc"), ("c", "c")]
    ledger.add([line("middle", TODAY), line("c", TODAY)])
    assert all(ledger.is_current(one) for one in made)


def test_git_is_asked_for_the_code_that_runs(tmp_path):
    """From wherever a run starts, its row names the commit of the clone that its code lies in, and says whether that
    was edited, new files included; a package outside of git has neither."""
    clone, elsewhere = tmp_path / "clone", tmp_path / "elsewhere"
    shutil.copytree(PACKAGE, clone / "src" / "bnc_repro", ignore=shutil.ignore_patterns("__pycache__"))
    (clone / "notebooks").mkdir()
    elsewhere.mkdir()
    code = "import json; from bnc_repro.run.code import git_state; print(json.dumps(git_state()))"
    environment = os.environ | {"PYTHONPATH": str(clone / "src"), "PYTHONDONTWRITEBYTECODE": "1"}

    def state(place):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    def git(*words, place=clone):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        return subprocess.run(["git", *identity, *words], cwd=place, capture_output=True, text=True, check=True).stdout

    assert state(clone) == {"commit": None, "dirty": None}
    for place in (clone, elsewhere):
        git("init", "--quiet", place=place)
        git("add", ".", place=place)
        git("commit", "--quiet", "--allow-empty", "-m", place.name, place=place)
    commit = git("rev-parse", "HEAD").strip()
    for place in (clone, clone / "notebooks", elsewhere):
        assert state(place) == {"commit": commit, "dirty": False}
    (clone / "src" / "bnc_repro" / "new.py").write_text("x = 1\n")
    assert state(clone / "notebooks") == {"commit": commit, "dirty": True}


def test_a_run_that_cannot_be_made_loses_no_other_experiments_line(clone, monkeypatch):
    """A line is written as soon as an experiment's runs are compared; the one that failed is named and not joined."""
    recipe = {"data": {"root": str(clone)}}
    wanted = [
        same_digits.Pair(profile, "linear_vs_soft", source, "0" * 40, f"a run of {profile}", recipe)
        for profile, source in (("presets", "first"), ("small", "second"), ("presets", "first"))
    ]
    seen = []

    def train(pair, place, runs):
        if pair.profile == "small":
            raise ValueError("the disk is full")
        seen.append([line["profile"] for line in ledger.lines()])
        return ROW

    monkeypatch.setattr(same_digits, "pairs", lambda *_: wanted)
    monkeypatch.setattr(same_digits, "checked_out", lambda commit, folder: nullcontext(folder))
    monkeypatch.setattr(same_digits, "train", train)
    words = []
    assert not same_digits.prove(["presets", "small"], say=words.append)
    assert [(line["profile"], line["old"], line["runs"]) for line in ledger.lines()] == [("presets", "first", "2")]
    assert any(
        "small linear_vs_soft: not joined, 1 of 1 runs differ. First: a run of small: the disk" in w for w in words
    )


def test_every_setting_of_published_rows_is_walked_by_some_pair():
    """Not every combination of them: each network with its binarizers, and each value of any other key."""
    base = {"network": "n", "weight_binarizer": "ste", "optimizer": "adam", "seed": 0, "data": {"validation": 0.0}}
    changes = [
        {}, {"seed": 1}, {"optimizer": "sgd"}, {"weight_binarizer": "mlp"}, {"weight_binarizer": "mlp", "seed": 2},
        {"weight_binarizer": "mlp", "optimizer": "sgd"}, {"weight_binarizer": "mlp", "preset": "paper"},
        {"data": {"validation": 0.2}}, {"weight_binarizer": "mlp", "data": {"validation": 0.2}},
    ]  # fmt: skip
    made = [same_digits.Pair("small", "e", "s", "c", str(i), base | change) for i, change in enumerate(changes)]
    assert [pair.name for pair in same_digits._walking(made)] == ["0", "2", "3", "6", "7"]
    of_sample = [same_digits.Pair("sample", "e", "s", "c", str(i), base | change) for i, change in enumerate(changes)]
    assert len(list(same_digits._walking(of_sample))) == len(changes)
    other = [same_digits.Pair("small", "e", source, "c", source, base) for source in "ab"]
    assert [pair.name for pair in same_digits._walking(other)] == ["a", "b"]
