"""Several processes train what one process trains, count every image once, and survive the death of one."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bnc_repro.recipe.build import make_recipe, merged
from bnc_repro.recipe.clone import project_root
from bnc_repro.recipe.profiles import recipe_of
from bnc_repro.run.code import PACKAGE
from bnc_repro.run.elastic import WholeErrors
from bnc_repro.run.execute import run
from bnc_repro.run.identity import folder_of
from bnc_repro.training import checkpoint, distributed
from bnc_repro.training.optim import batch_factor
from tiny import TINY

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
HELPERS = Path(__file__).parents[1] / "helpers"


def environment() -> dict:
    return {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"}


def settings(root: str, **changes) -> dict:
    """A recipe of two epochs of ten steps."""
    return merged(TINY, {"epochs": 2, "data": {"root": root, "augment": "shift"}}, changes)


def result(script: str, argument: str, target: Path, processes: int):
    """What a script of the helpers writes to `target`, given both: here, or in so many processes."""
    words = [str(HELPERS / script), argument, str(target)]
    if processes == 1:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words)
            runpy.run_path(words[0], run_name="__main__")
    else:
        done = subprocess.run(
            [*TORCHRUN, f"--nproc-per-node={processes}", *words],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(target.read_text())


def exact(recipes: list[dict], target: Path, processes: int) -> list[dict]:
    return result("train_exactly.py", json.dumps(recipes), target, processes)


def test_two_processes_train_what_one_trains(data, tmp_path):
    """Twenty steps with the same global batch, whole or in pieces: the same losses to 1e-5, the same test images."""
    (one,) = exact([settings(data)], tmp_path / "one.json", 1)
    two, pieces = exact([settings(data), settings(data, accumulate=2)], tmp_path / "two.json", 2)
    assert len(one["steps"]) == 20
    assert max(one["steps"]) - min(one["steps"]) > 0.1  # it moved
    for other in (two, pieces):
        assert other["steps"] == pytest.approx(one["steps"], abs=1e-5)
        for a, b in zip(one["curve"], other["curve"], strict=True):
            assert (a["top1"], a["top5"]) == (b["top1"], b["top5"])
            assert a["test_loss"] == pytest.approx(b["test_loss"], abs=1e-5)


def test_two_processes_judge_each_person_once(tmp_path):
    """A pose network that has learnt something has the AP and PCK of one process, from as many people."""
    made = make_recipe(
        experiment="coco_pose",
        network="sbpn",
        stem="half",
        width=16,
        blocks=[1, 1],
        head=32,
        weight_binarizer=None,
        activation_binarizer=None,
        batch_size=16,
        learning_rate=0.01,
        epochs=4,
        data={"root": str(project_root() / "data" / "people"), "kind": "coco", "image_size": [64, 48]},
        pose={"sigma_px": 0.7, "loss": "cross_entropy"},
    )
    row = run(made, tmp_path / "runs")
    assert row["metrics"]["AP"] > 0.05
    source = folder_of(made, tmp_path / "runs") / checkpoint.NAMES[0]
    one, two = (result("judge_once.py", str(source), tmp_path / f"{count}.json", count) for count in (1, 2))
    (all_people,) = one["counts"]
    assert sum(two["counts"]) == all_people
    assert abs(two["counts"][0] - two["counts"][1]) <= 2  # the flip test looks twice
    for name, value in one["metrics"].items():
        assert two["metrics"][name] == pytest.approx(value, abs=1e-9), name


def command(root: str, runs: Path, **changes) -> list[str]:
    values = settings(root, **changes)
    given = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    words = [word for one in given for word in ("--set", one)]
    start = [sys.executable, "-m", "bnc_repro", "run", "imagenet_resnet"]
    return [*start, "--runs", str(runs), "--processes", "2", *words]


def test_a_worker_that_is_killed_is_started_again(data, tmp_path):
    """kill -9 of one of two processes in the second epoch: the run ends with the undisturbed one's metrics."""
    recipe = recipe_of("imagenet_resnet", **settings(data, epochs=3))
    killed = {**environment(), "PYTHONPATH": os.pathsep.join([str(HELPERS / "falling"), str(PACKAGE.parent)])}
    rows, said = [], []
    for runs, variables in ((tmp_path / "whole", environment()), (tmp_path / "killed", killed)):
        done = subprocess.run(
            command(data, runs, epochs=3), env=variables, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("epoch 1/3: ") == 1  # not trained again
        said.append(done.stderr)
        rows.append(json.loads((folder_of(recipe, runs) / "row.json").read_text()))
    for words in ("the second process falls", "the second process starts again"):
        assert [one.count(words) for one in said] == [0, 1]
    assert rows[0]["processes"] == 2
    for key in ("metrics", "best", "status"):
        assert rows[0][key] == rows[1][key]


def test_a_process_ended_while_it_tells_its_error_leaves_none(tmp_path, monkeypatch):
    """torchrun, which starts killed processes again, fell over the empty file of one that it had ended too early."""
    place, whole = tmp_path / "error.json", []

    class Ended(BaseException):
        """What SIGTERM does to a process."""

    def fall(error, file):
        whole.append(place.exists())
        raise Ended

    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(place))
    with monkeypatch.context() as patch:
        patch.setattr(json, "dump", fall)
        with pytest.raises(Ended):
            WholeErrors().record_exception(ValueError("a peer has gone"))
    assert whole == [False]
    assert list(tmp_path.iterdir()) == []
    WholeErrors().record_exception(ValueError("a peer has gone"))
    assert "a peer has gone" in json.loads(place.read_text())["message"]["message"]


def test_a_failing_process_ends_the_job_with_its_error(data, tmp_path):
    """A batch larger than the data is told by the processes, torchrun names it as the root cause, and nothing hangs."""
    words = command(data, tmp_path, batch_size=400)
    words = [*TORCHRUN, "--nproc-per-node=2", *words[1 : words.index("--processes")], *words[words.index("--set") :]]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    cause = done.stderr.partition("Root Cause (first observed failure)")[2]
    assert "recipe key batch_size is 400, but there are 320 training items" in cause


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": {"root": "/nowhere"}}, "finds no data in /nowhere"),
        ({"batch_size": 31}, "batch_size is 31 in all, which 2 processes times 1 pieces"),
    ],
)
def test_a_mistake_is_told_before_processes_start(data, tmp_path, changes, sentence):
    """One sentence of the command itself."""
    done = subprocess.run(
        command(data, tmp_path, **changes), env=environment(), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("bnc_repro: ")
    assert sentence in done.stderr


def test_one_process_communicates_with_nobody():
    """Without torchrun every function is the identity of its kind."""
    assert (distributed.rank(), distributed.size()) == (0, 1)
    assert distributed.share(3) == [0, 1, 2]
    assert distributed.gathered([1, 2]) == [1, 2]
    assert distributed.by_the_first(lambda: 5) == 5
    network = torch.nn.Linear(1, 1)
    assert distributed.parallel(network, torch.device("cpu")) is network
    with pytest.raises(ValueError, match="sync_batch_norm needs CUDA"):
        distributed.sync_batch_norm(network, torch.device("cpu"))


def test_a_rate_is_meant_for_a_batch():
    """Four times the batch: four times the rate of SGD, twice that of Adam; no base, no change."""
    assert batch_factor("sgd", 1024, 256) == 4
    assert batch_factor("adam", 1024, 256) == batch_factor("adamw", 1024, 256) == 2
    assert batch_factor("sgd", 1024, 0) == 1
