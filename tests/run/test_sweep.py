"""Many runs at once: which they are, what a death, a signal, a full disk or another sweep does to them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from bnc_repro.__main__ import main
from bnc_repro.recipe import expansion
from bnc_repro.recipe.build import as_dict, float_twin, make_recipe, parse_settings, with_float_weights
from bnc_repro.recipe.clone import project_root
from bnc_repro.recipe.expansion import Requested, arms_and_seeds, tuning
from bnc_repro.recipe.profiles import experiment_section, recipe_of, tuned
from bnc_repro.run import machine
from bnc_repro.run.cluster import sweep_by_slurm
from bnc_repro.run.launch import run_words
from bnc_repro.run.node import RunOnNode
from bnc_repro.run.pinned import environment
from bnc_repro.run.plan import Pace, plan
from bnc_repro.run.sweep import LEFT_STATUS, sweep
from bnc_repro.training import memory
from runs import what_counts

ROOT = Path(__file__).parents[2]
HELPERS = ROOT / "tests" / "helpers"
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"} | environment("sample")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="what follows counts on workers on a CPU")


@pytest.fixture
def requested(recipe):
    """Makes requests for runs under the seeds 0 to `count` - 1."""

    def make(count, **changes):
        return [Requested(recipe(seed=seed, **changes), "binary", f"binary/{seed}.json") for seed in range(count)]

    return make


def words_of(data, runs, seeds, **changes):
    """A sweep's command line over small runs, a process of its own."""
    values = {"width": 4, "blocks": "[1,1]", "stem": "half", "batch_size": 32, "data.root": data, "epochs": 3} | changes
    settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    seeds = [word for seed in range(seeds) for word in ("--seed", str(seed))]
    words = ["sweep", "imagenet_resnet", "--arm", "binary", *seeds, *settings, "--runs", str(runs)]
    return [sys.executable, "-m", "bnc_repro", *words]


def start(*arguments, **changes):
    """A sweep in a process of its own, which takes signals as from a terminal: a suite that a shell has put into the
    background ignores SIGINT, and its children would too."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    default = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen(words_of(*arguments, **changes), cwd=ROOT, **pipes, **default)


def until(condition, seconds=300):
    """Wait until something is there."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def holders(runs):
    """The processes that hold runs below a folder."""
    return [int(text) for path in runs.rglob("lock.holder") if (text := path.read_text())]


def is_alive(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or while it was read
        return False


def rows_of(runs):
    """What counts of every row below a folder, by the run's folder."""
    return {path.parent.name: what_counts(json.loads(path.read_text())) for path in runs.rglob("row.json")}


def test_the_arms_and_seeds_of_params_yaml_are_expanded(monkeypatch):
    """Every pair once; a seed among the settings; the grid is rates times seeds for each arm; `all` is every
    experiment; unknown names are told."""
    section = experiment_section("linear_vs_soft", "sample")
    pairs = [(request.arm, request.recipe.seed) for request in arms_and_seeds("linear_vs_soft", "sample")]
    assert sorted(pairs) == sorted((arm, seed) for arm in section["arms"] for seed in section["seeds"])
    assert len(pairs) == len(set(pairs))
    one = arms_and_seeds("linear_vs_soft", "sample", ["mlp"], [7], {"epochs": 9})
    assert [request.recipe for request in one] == [recipe_of("linear_vs_soft", "sample", "mlp", seed=7, epochs=9)]
    assert {request.recipe.seed for request in arms_and_seeds("coco_pose", "sample", None, None, {"seed": 5})} == {5}
    everything = arms_and_seeds("all", "sample")
    assert {request.recipe.experiment for request in everything} == {"imagenet_resnet", "coco_pose", "linear_vs_soft"}
    assert len({request.copy for request in everything}) == len(everything)
    grid = tuning("all", "small", ["mlp-adam"])
    rates = {(request.recipe.learning_rate, request.recipe.seed, request.recipe.data.validation) for request in grid}
    assert rates == {(rate, seed, 0.2) for rate in (0.002, 0.005, 0.0125, 0.03, 0.075) for seed in (100, 101, 102)}
    assert {request.recipe.optimizer for request in tuning("all", "small")} == {"adam", "sgd"}
    section = tuned("linear_vs_soft", "small")
    monkeypatch.setattr(expansion, "tuned", lambda *_: section | {"learning_rates": {"adam": [0.1]}})
    with pytest.raises(ValueError, match=r"tuning\.linear_vs_soft\.learning_rates has no grid for sgd"):
        tuning("linear_vs_soft", "small", ["mlp-sgd"])
    with pytest.raises(ValueError, match="unknown arm 'mpl'; known, nearest first: mlp"):
        arms_and_seeds("linear_vs_soft", "sample", ["mpl"])


def test_what_others_need_comes_first_and_once(recipe, tmp_path):
    """Float weights and a twin that two arms start from are one run each, before them; an arm that is the twin of
    another is the same run; only what is missing is needed."""
    student, other = recipe(teacher="twin", distillation=0.5), recipe(teacher="twin", distillation=0.25)
    second = recipe(init_from="float_weights", epochs=1)
    requests = [Requested(each, "x") for each in (student, other, second, float_twin(student))]
    jobs = plan(requests, tmp_path)
    recipes = [job.recipe for job in jobs]
    assert len(jobs) == 5
    assert recipes.index(float_twin(student)) < recipes.index(student)
    assert recipes.index(with_float_weights(second)) < recipes.index(second)
    assert {job.recipe: len(job.arms) for job in jobs}[with_float_weights(second)] == 0
    assert not jobs[recipes.index(float_twin(student))].reuse_published  # its checkpoint is needed


def test_a_copy_takes_no_other_files_place(recipe, tmp_path):
    """Of the same run with other settings it does; of another run, or anything else, it is refused before a run."""
    from bnc_repro.run.execute import title

    requests, file = [Requested(recipe(seed=0), "x", "0.json")], tmp_path / "0.json"
    row = json.loads(next((project_root() / "results/sample").glob(f"{recipe().experiment}/*.json")).read_text())
    own = row | {"title": title(recipe(seed=0)), "seed": 0, "profile": recipe().profile}
    file.write_text(json.dumps(own))
    assert plan(requests, tmp_path / "runs", tmp_path)[0].copies == [file]
    others = [own | change for change in ({"experiment": "coco_pose"}, {"title": "another"}, {"seed": 1})]
    for content in ({"mine": 1}, *others):
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"0\.json is there and is .* row of .*: name another folder, or move it"):
            plan(requests, tmp_path / "runs", tmp_path)
        assert json.loads(file.read_text()) == content


def test_a_damaged_row_tells_no_time_and_stops_no_sweep(recipe, tmp_path):
    """Of another experiment, as a killed copy leaves it: empty, no JSON, or without what is looked for."""
    row = next((project_root() / "results/sample/coco_pose").glob("*.json")).read_text()
    for name, text in (("a", ""), ("b", "{}"), ("c", row.replace('"seconds"', '"minutes"')), ("d", "[1]")):
        (tmp_path / "sample" / "coco_pose" / name).mkdir(parents=True)
        (tmp_path / "sample" / "coco_pose" / name / "row.json").write_text(text)
    pace = Pace("sample", tmp_path)
    (job,) = plan([Requested(recipe(), "x")], tmp_path)
    assert pace.seconds(job) is not None


def test_a_run_in_a_worker_is_the_run_alone(requested, recipe, tmp_path, capfd):
    """The same digits as `run` in a process with one thread; copies of rows; a second sweep trains nothing; what a run
    learns from is trained once."""
    requests = requested(2, epochs=2, teacher="twin", distillation=0.5)
    result = sweep(plan(requests, tmp_path / "many", tmp_path / "rows"), "sample", workers=2, runs=tmp_path / "many")
    assert (result.status, result.trained, result.failed, result.left) == (0, 4, {}, [])
    alone = [sys.executable, "-m", "bnc_repro", *run_words(as_dict(requests[1].recipe), tmp_path / "alone")]
    subprocess.run(alone, cwd=ROOT, env=ONE_THREAD, check=True, capture_output=True)
    expected, swept = rows_of(tmp_path / "alone"), rows_of(tmp_path / "many")
    assert len(expected) == 2
    assert expected.items() <= swept.items()
    copied = json.loads((tmp_path / "rows" / "binary" / "1.json").read_text())
    assert what_counts(copied) in expected.values()
    assert "1 thread," in copied["device"]
    again = sweep(plan(requests, tmp_path / "many"), "sample", runs=tmp_path / "many")
    assert (again.status, again.trained, len(again.rows)) == (0, 0, 4)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "imagenet_resnet binary, seed 1: top1" in lines[-1] + lines[-2]
    logs = [path.read_text() for path in tmp_path.rglob("log.txt")]
    assert [log.count("epoch 1/2") for log in logs] == [1, 1, 1, 1]


def test_the_words_of_a_run_are_its_recipe(recipe):
    """What `run_words` says is read back as the same recipe, whatever its values are."""
    for each in (recipe(), recipe(weight_binarizer=None, learning_rate=1e-5, milestones=[1, 2], schedule="steps")):
        words = run_words(as_dict(each))
        settings = [word for flag, word in zip(words, words[1:]) if flag == "--set"]
        values = parse_settings(settings) | {"experiment": words[1], "profile": words[3]}
        assert make_recipe(**values) == each


@pytest.mark.slow
def test_a_killed_worker_is_tried_once_more_and_then_named(requested, tmp_path, capfd):
    """The first kill costs nothing, not a digit; a run that is killed twice is named, and the others go on."""
    undisturbed = sweep(plan(requested(2, epochs=15), tmp_path / "a"), "sample", workers=2, runs=tmp_path / "a")
    killed = []

    def kill(runs, times, folder):
        for _ in range(times):
            until((runs / folder / "checkpoint.pt").exists)
            until(lambda: is_alive(int((runs / folder / "lock.holder").read_text() or 0)))
            pid = int((runs / folder / "lock.holder").read_text())
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            until(lambda pid=pid: (runs / folder / "lock.holder").read_text() != str(pid) or not is_alive(pid))

    for runs, times, status in ((tmp_path / "b", 1, 0), (tmp_path / "c", 2, 1)):
        jobs = plan(requested(2, epochs=15), runs)
        folder = jobs[0].folder.relative_to(runs)
        thread = threading.Thread(target=kill, args=(runs, times, folder))
        thread.start()
        result = sweep(jobs, "sample", workers=2, runs=runs)
        thread.join()
        assert result.status == status
        rows = rows_of(runs)
        assert len(rows) == 3 - times
        assert rows.items() <= rows_of(tmp_path / "a").items()
    assert undisturbed.status == 0
    assert len(killed) == 3
    errors = capfd.readouterr().err
    assert errors.count("its process was ended by SIGKILL, not by the kernel for memory; it is tried once more") == 2
    assert "imagenet_resnet binary, seed 0 failed: its process was ended by SIGKILL" in errors


def test_why_a_process_died():
    """The kernel's count of kills for memory tells its kills from others'."""
    assert machine.death(-9, 4, 5).startswith("the kernel killed its process for memory; take fewer --jobs")
    assert machine.death(-9, 4, 4) == "its process was ended by SIGKILL, not by the kernel for memory"
    assert "does not say so here" in machine.death(-9, None, None)
    assert machine.death(-11, 4, 5) == "its process was ended by SIGSEGV"
    assert machine.death(3, 4, 4) == "its process ended with status 3"


def test_a_full_disk_and_a_wrong_recipe_stop_nobody_else(requested, recipe, tmp_path, capfd):
    """A worker whose writes find no room is named with the sentence of `run`; so is a start that does not fit; what
    needs a failed run fails with it; the others finish."""
    file = tmp_path / "full.py"
    file.write_text(
        "import errno, os\nfrom bnc_repro.binarizers.base import Binarizer\n\n\ndef full(descriptor):\n"
        "    raise OSError(errno.ENOSPC, 'No space left on device')\n\n\nos.fsync = full\n\n\n"
        "class Full(Binarizer):\n    def derivative(self, x):\n        return (x.abs() <= 1).to(x.dtype)\n"
    )
    full = Requested(recipe(weight_binarizer=f"{file}:Full", epochs=1), "full")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    unfit = Requested(recipe(init_from=str(tmp_path / "bad.pt"), epochs=1), "unfit")
    first = recipe(activation_binarizer=f"{file}:Full", init_from="float_weights", epochs=1)
    jobs = plan([full, unfit, Requested(first, "two stages"), *requested(1, epochs=1)], tmp_path / "runs")
    result = sweep(jobs, "sample", workers=2, runs=tmp_path / "runs")
    assert result.status == 1
    assert result.trained == 1
    assert "the disk is full" in result.failed["imagenet_resnet full, seed 0"]
    assert "cannot be read as a checkpoint" in result.failed["imagenet_resnet unfit, seed 0"]
    assert "it needs the run " in result.failed["imagenet_resnet two stages, seed 0"]
    assert "tried once more" not in capfd.readouterr().err


@pytest.mark.slow
def test_two_sweeps_share_the_work(data, tmp_path):
    """Both end well with all rows, and no run is trained twice."""
    sweeps = [start(data, tmp_path, 4, epochs=6) for _ in range(2)]
    endings = [process.communicate(timeout=600) for process in sweeps]
    assert [process.returncode for process in sweeps] == [0, 0], endings
    lines = [out.splitlines()[-1] for out, _ in endings]
    assert all(line.startswith("4 runs finished, ") for line in lines)
    assert sum(int(line.split()[3]) for line in lines) == 4
    logs = [path.read_text() for path in tmp_path.rglob("log.txt")]
    assert [log.count("epoch 1/6") for log in logs] == [1, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_all_workers_and_loses_nothing(data, tmp_path, monkeypatch, number):
    """No worker outlives its sweep; the last line says how to go on; the same command ends with the same rows."""
    go = tmp_path / "go"
    monkeypatch.setenv("BNC_TEST_GO", str(go))  # without it no run ends, however busy the machine is
    waiting = {"epochs": 6, "activation_binarizer": f"{HELPERS / 'waiting.py'}:Waiting"}
    with start(data, tmp_path, 2, **waiting) as process:
        until(lambda: len(list(tmp_path.rglob("checkpoint.previous.pt"))) == 2)
        workers = holders(tmp_path)
        assert len(workers) == 2
        process.send_signal(number)
        out, errors = process.communicate(timeout=600)
    until(lambda: not any(map(is_alive, workers)))
    assert not rows_of(tmp_path)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), errors
    if number != signal.SIGKILL:
        end = "0 runs finished, 0 of them now. 2 left, which keep their last checkpoints; the same command goes on"
        assert out.splitlines()[-1] == f"ended by {number.name}: {end}"
        assert "Traceback" not in errors
    if number == signal.SIGINT:
        go.touch()
        with start(data, tmp_path, 2, **waiting) as process:
            process.communicate(timeout=600)
        logs = [path.read_text() for path in tmp_path.rglob("log.txt")]
        assert [log.count("epoch 1/6") for log in logs] == [1, 1]
        assert len(rows_of(tmp_path)) == 2


def test_hours_start_nothing_that_would_not_end(requested, recipe, tmp_path, monkeypatch):
    """Runs that take longer than is left are not started; where nothing is known they are, and end with the hours."""
    unknown = sweep(plan(requested(1, epochs=5000), tmp_path), "sample", workers=1, hours=4 / 3600, runs=tmp_path)
    assert (unknown.status, unknown.trained, len(unknown.left)) == (LEFT_STATUS, 0, 1)
    monkeypatch.setattr(Pace, "seconds", lambda self, job: 3600.0 if job.recipe.seed else 1.0)
    jobs = plan(requested(3, epochs=1), tmp_path)
    result = sweep(jobs, "sample", workers=1, hours=1.1, runs=tmp_path)
    assert (result.status, result.trained) == (LEFT_STATUS, 1)
    assert result.left == ["imagenet_resnet binary, seed 1", "imagenet_resnet binary, seed 2"]
    assert "2 left, which keep their last checkpoints; the same command goes on" in result.summary()


def test_the_pace_is_that_of_the_most_similar_runs(requested, tmp_path, monkeypatch):
    """The longest of those whose recipes of the experiment differ in the fewest settings, whatever the seed."""
    monkeypatch.setattr("bnc_repro.run.plan.ledger.rows", lambda profile, folder: [])
    (job,), pace = plan(requested(1), tmp_path), Pace("sample", tmp_path)
    assert (pace.seconds(job), pace.memory_mib(job)) == (None, None)
    row = {"experiment": "imagenet_resnet", "seconds": 50.0, "peak_memory_mib": 700}
    pace.add(row | {"recipe": as_dict(job.recipe) | {"epochs": 9, "seed": 1}})
    assert (pace.seconds(job), pace.memory_mib(job)) == (50.0, 700)
    larger = {"epochs": 9, "batch_size": 7, "data": as_dict(job.recipe)["data"] | {"train_limit": 0}}
    pace.add(row | {"recipe": as_dict(job.recipe) | larger, "seconds": 5000.0, "peak_memory_mib": 9000})
    assert (pace.seconds(job), pace.memory_mib(job)) == (50.0, 700)  # of another size, it says nothing of this one
    for seconds in (7.0, 9.0):
        pace.add(row | {"recipe": as_dict(job.recipe) | {"seed": 4}, "seconds": seconds})
    assert pace.seconds(job) == 9.0


def test_more_workers_than_memory_is_told(requested, tmp_path, monkeypatch, capfd):
    """With the peak of a run, and a number of workers that fits."""
    monkeypatch.setattr(Pace, "memory_mib", lambda self, job: 700)
    monkeypatch.setattr(memory, "free_mib", lambda: 1500)
    sweep(plan(requested(3, epochs=1), tmp_path), "sample", workers=3, runs=tmp_path)
    errors = capfd.readouterr().err
    assert "a run held up to 700 MiB of memory, and 1500 MiB are free for 3 more workers: take --jobs 2" in errors


def test_cores_are_counted_once_and_within_the_quota(tmp_path, monkeypatch):
    """Two threads of a core are one; a container's quota is a bound; a group's limit is memory's."""
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(siblings)
    monkeypatch.setattr(machine, "CPUS", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    for module in (machine, memory):
        monkeypatch.setattr(module, "control_groups", lambda controller: iter([tmp_path] if not controller else []))
    assert machine.cores() == 2
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert machine.cores() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text(f"{300 * 2**20}\n")
    (tmp_path / "memory.current").write_text(f"{100 * 2**20}\n")
    assert machine.cores() == 2
    assert (memory.free_mib(), memory.whole_mib(torch.device("cpu"))) == (200, 300)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["linear_vs_soft", "--jobs", "0"], "'0' must be a positive number of workers, 4096 at most, or `auto`"),
        (["linear_vs_soft", "--hours", "-1"], "'-1' must be a positive number of hours"),
        (["linear_vs_sort"], "unknown experiment 'linear_vs_sort'; known, nearest first: linear_vs_soft"),
        (["all", "--arm", "stee"], "unknown arm 'stee'"),
        (["linear_vs_soft", "--set", "epoch=3"], "unknown recipe key epoch; known, nearest first: epochs"),
        (["linear_vs_soft", "--tuning"], "has no section tuning.linear_vs_soft; write its grid there"),
        (["coco_pose", "--set", "data.root=gone"], "finds no data in "),
    ],
)
def test_a_mistake_is_one_sentence(words, sentence, monkeypatch, capsys):
    """Before anything is trained."""
    monkeypatch.setattr(sys, "argv", ["bnc_repro", "sweep", *words])
    with pytest.raises(SystemExit) as ending:
        main()
    assert sentence in f"{ending.value.code}{capsys.readouterr().err}"


@pytest.mark.slow
def test_a_cluster_trains_the_same_runs(requested, tmp_path):
    """submitit's local executor stands for a cluster: what is needed first, the same rows, failures by their sentence,
    nothing twice; a job that is submitted again resumes."""
    requests = requested(1, epochs=2, init_from="float_weights")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    requests += [Requested(request.recipe, "unfit") for request in requested(1, init_from=str(tmp_path / "bad.pt"))]
    runs = tmp_path / "many"
    result = sweep_by_slurm(plan(requests, runs), "sample", {"time": 5}, runs=runs, cluster="local")
    assert (result.status, result.trained) == (1, 2)
    assert "cannot be read as a checkpoint" in result.failed["imagenet_resnet unfit, seed 0"]
    alone = tmp_path / "alone"
    sweep(plan(requests[:1], alone), "sample", workers=1, runs=alone)
    assert rows_of(runs) == rows_of(alone)
    again = sweep_by_slurm(plan(requests[:1], runs), "sample", {}, runs=runs, cluster="local")
    assert (again.status, again.trained) == (0, 0)


def test_a_job_is_queued_again_as_the_same_run():
    """What submitit asks for before a time limit ends the run's process and is the same call."""
    task = RunOnNode(["list", "experiments"], {"BNC_DATA": "x", "GONE": None}, str(ROOT))
    assert task() == ""
    again = task.checkpoint().function
    assert (again.words, again.environment, again.place) == (task.words, task.environment, task.place)
    assert "unknown" in RunOnNode(["run", "nothing"], {}, str(ROOT))()


def test_an_engine_that_is_not_there_is_named(requested, tmp_path, monkeypatch):
    """With what to install, or where to say it."""
    jobs = plan(requested(1), tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="finds no sbatch on this machine"):
        sweep_by_slurm(jobs, "sample", {}, runs=tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match="needs submitit, which is not installed: pip install"):
        sweep_by_slurm(jobs, "sample", {}, runs=tmp_path)
