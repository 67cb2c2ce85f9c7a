"""Runs that are stopped, killed or robbed of their disk end with the same bits."""

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from bnc_repro.recipe.build import as_dict
from bnc_repro.run.code import PACKAGE
from bnc_repro.run.execute import run
from bnc_repro.run.identity import folder_of
from bnc_repro.run.judge import load_network
from bnc_repro.training import checkpoint
from runs import CPU, Stop, assert_same_run, interrupt


class Server:
    """Starts runs in processes of their own; `start` gives the process id, `finish` the exit status."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).parents[1] / "helpers" / "run_server.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
            cwd=Path(__file__).parent,
        )
        self.folder = folder
        assert self.process.stdout.readline() == "ready\n"

    def start(self, recipe, runs: Path, log: str, wait: bool = False, **faults) -> int:
        job = {"recipe": as_dict(recipe), "runs": str(runs), "log": str(self.folder / log), "wait": wait}
        self.process.stdin.write(json.dumps(job | faults) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def finish(self, *arguments, **faults) -> int:
        self.start(*arguments, wait=True, **faults)
        return int(self.process.stdout.readline())

    def row(self, log: str) -> dict:
        return json.loads((self.folder / f"{log}.row").read_text())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.process.stdin.close()
    made.process.wait(10)
    made.process.stdout.close()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("step", [1, 11, 15, 30])
def test_an_interrupted_run_ends_with_the_same_bits(recipe, tmp_path, step, optimizer):
    """Stopped before the first step, after an epoch, inside one, before the last step: nothing differs."""
    made = recipe(optimizer=optimizer, schedule="cosine", weight_binarizer="mlp", activation_binarizer="ede")
    whole = run(made, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, step)
        with pytest.raises(Stop):
            run(made, tmp_path / "parts")
    folder = folder_of(made, tmp_path / "parts")
    assert not (folder / "row.json").exists()
    state = checkpoint.latest(folder)
    assert (state is None) if step == 1 else (state["epoch"] * 10 + state["done"] == step - 1)
    assert_same_run(made, tmp_path / "whole", whole, tmp_path / "parts", run(made, tmp_path / "parts"))


def test_a_run_stopped_at_twenty_random_steps_ends_with_the_same_bits(recipe, tmp_path):
    """Each time it goes on for some steps; the weights at the end are the undisturbed run's, bit by bit."""
    made = recipe(epochs=5, weight_binarizer="mlp", precision="bfloat16")
    whole = run(made, tmp_path / "whole")
    places = sorted(np.random.default_rng(0).choice(np.arange(1, 51), 20, replace=False))
    for before, place in zip([0, *places], places, strict=False):
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, int(place - max(before, 1)) + 1)
            with pytest.raises(Stop):
                run(made, tmp_path / "parts")
        state = checkpoint.latest(folder_of(made, tmp_path / "parts"))
        assert (state["epoch"] * 10 + state["done"] if state else 0) == place - 1
    assert_same_run(made, tmp_path / "whole", whole, tmp_path / "parts", run(made, tmp_path / "parts"))


def test_a_full_disk_is_told_and_costs_nothing(recipe, tmp_path, monkeypatch):
    """ENOSPC inside a write: one sentence, the checkpoint before stays, no rubbish, then it goes on."""
    made, whole = recipe(), torch.save
    undisturbed = run(made, tmp_path / "whole")
    count = [0]

    def save(state, path):
        count[0] += 1
        whole(state, path)
        if count[0] == 2:
            os.truncate(path, os.path.getsize(path) // 2)
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(ValueError, match=r"the disk is full. Nothing was overwritten; make room and run the same"):
        run(made, tmp_path / "full")
    folder = folder_of(made, tmp_path / "full")
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.pt", "lock", "lock.holder"]
    assert checkpoint.load(folder / "checkpoint.pt")["epoch"] == 1
    assert_same_run(made, tmp_path / "whole", undisturbed, tmp_path / "full", run(made, tmp_path / "full"))


def test_a_write_that_fails_keeps_the_file_before(tmp_path, monkeypatch):
    """write_json replaces whole files only; errors that are not the disk's pass unchanged."""
    path = tmp_path / "row.json"
    checkpoint.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        checkpoint.write_json(path, {"a": object()})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(ValueError, match=r"cannot write .*row\.json: the disk is full"):
        checkpoint.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["row.json"]


def test_the_checkpoint_before_gives_way_only_to_a_whole_one(tmp_path, monkeypatch):
    """A disk that fails while the newest is made safe costs neither of the two that are there."""
    for epoch in (1, 2):
        checkpoint.save(tmp_path, {"network": {}, "recipe": {}, "labels": [], "epoch": epoch})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "input/output error")))
    with pytest.raises(ValueError, match="Nothing was overwritten"):
        checkpoint.save(tmp_path, {"network": {}, "recipe": {}, "labels": [], "epoch": 3})
    assert [checkpoint.load(tmp_path / name)["epoch"] for name in checkpoint.NAMES] == [2, 1]


def test_a_damaged_checkpoint_falls_back_with_a_warning(recipe, tmp_path):
    """The newest checkpoint cut in half: the one before is used, and the end is the same."""
    made = recipe()
    whole = run(made, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 25)
        with pytest.raises(Stop):
            run(made, tmp_path / "cut")
    newest = folder_of(made, tmp_path / "cut") / checkpoint.NAMES[0]
    os.truncate(newest, newest.stat().st_size // 2)
    with pytest.warns(UserWarning, match=r"checkpoint\.pt cannot be read .*The checkpoint before it is used"):
        after = run(made, tmp_path / "cut")
    assert_same_run(made, tmp_path / "whole", whole, tmp_path / "cut", after)


def test_no_flipped_bit_goes_unnoticed(recipe, tmp_path):
    """A bit flipped anywhere in the file: what is loaded is what was saved, or nothing is."""
    made = recipe(epochs=1)
    run(made, tmp_path)
    path = folder_of(made, tmp_path) / checkpoint.NAMES[0]
    true, content = checkpoint.checksum(checkpoint.load(path)), path.read_bytes()
    draw, refused = np.random.default_rng(0), 0
    for position in draw.integers(0, len(content), 60).tolist():
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = checkpoint.load(path)
        except ValueError:
            refused += 1
        else:
            assert checkpoint.checksum(loaded) == true
    assert refused > 10


def test_parts_that_are_missing_or_not_finite_are_told(recipe, tmp_path):
    """A state without its network, or with a number that is none, is no checkpoint to judge."""
    made = recipe(epochs=1)
    run(made, tmp_path)
    path = folder_of(made, tmp_path) / checkpoint.NAMES[0]
    state = checkpoint.load(path)
    for part in ("network", "recipe", "labels"):
        checkpoint.save(tmp_path, {key: value for key, value in state.items() if key != part})
        with pytest.raises(ValueError, match=rf"lacks its {part}"):
            load_network(tmp_path / checkpoint.NAMES[0], CPU)
    first = next(iter(state["network"]))
    checkpoint.save(tmp_path, state | {"network": state["network"] | {first: state["network"][first] * float("nan")}})
    with pytest.raises(ValueError, match=f"not finite, first in {first}"):
        load_network(tmp_path / checkpoint.NAMES[0], CPU)


def test_foreign_files_are_no_checkpoints(tmp_path):
    """A missing file, other tensors, a pickled object and text are each refused by name."""
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.pt")
    torch.save(Stop("an object"), tmp_path / "object.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    for name, sentence in (
        ("gone.pt", "there is no checkpoint {}"),
        ("other.pt", "{} was not written by this project"),
        ("object.pt", "{} cannot be read as a checkpoint"),
        ("text.pt", "{} cannot be read as a checkpoint"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence.format(tmp_path / name))):
            load_network(tmp_path / name, CPU)


def test_a_process_killed_inside_the_write_costs_nothing(recipe, tmp_path, server):
    """SIGKILL with half of a checkpoint written: the one before is whole, and the end is the same."""
    made = recipe()
    assert server.finish(made, tmp_path / "whole", "whole") == 0
    for write in (1, 4, 12):
        assert server.finish(made, tmp_path / "killed", "killed", die_in_write=write) == signal.SIGKILL
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            state = checkpoint.latest(folder_of(made, tmp_path / "killed"))
        assert (state is None) == (write == 1)
    assert server.finish(made, tmp_path / "killed", "killed") == 0
    assert_same_run(made, tmp_path / "whole", server.row("whole"), tmp_path / "killed", server.row("killed"))


def test_killed_at_random_moments_the_row_is_the_same(recipe, tmp_path, server):
    """kill -9 at five random moments, started again each time: an undisturbed run, to the bit."""
    made = recipe(epochs=12)
    started = time.monotonic()
    assert server.finish(made, tmp_path / "whole", "steady") == 0
    seconds = time.monotonic() - started
    draw = np.random.default_rng()
    moments, reached = draw.uniform(0.1, 0.45, 5) * seconds, []
    for moment in moments:
        pid = server.start(made, tmp_path / "killed", "hunted")
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        state = checkpoint.latest(folder_of(made, tmp_path / "killed"))
        reached.append(-1 if state is None else state["epoch"] * 10 + state["done"])
    assert reached == sorted(reached), moments
    assert server.finish(made, tmp_path / "killed", "hunted") == 0, moments
    assert_same_run(made, tmp_path / "whole", server.row("steady"), tmp_path / "killed", server.row("hunted"))


def test_a_second_process_waits_and_says_so(recipe, tmp_path, server):
    """Two processes on one run: the second names the first and waits; both return the one row."""
    made = recipe(epochs=12)
    folder = folder_of(made, tmp_path)
    first = server.start(made, tmp_path, "one")
    for _ in range(1000):  # at most 20 s
        if (folder / "checkpoint.pt").exists():
            break
        time.sleep(0.02)
    assert server.finish(made, tmp_path, "two") == 0
    said = (server.folder / "two").read_text()
    assert f"process {first} is on the run in {folder}; waiting for it" in said
    assert "epoch 1/12" not in said
    assert server.row("one") == server.row("two")


def test_a_killed_write_leaves_nothing_and_a_copied_checkpoint_is_not_taken(tmp_path):
    """The next holder of a run removes half-written files; a checkpoint of another run is passed over."""
    (tmp_path / ".checkpoint.pt.99999.part").write_bytes(b"half")
    with checkpoint.locked(tmp_path):
        assert not list(tmp_path.glob(".*.part"))
    whole = {"network": {}, "recipe": {}, "labels": []} | dict.fromkeys(checkpoint.POSITION, 0)
    checkpoint.save(tmp_path, whole | {"fingerprint": "anotherrun"})
    with pytest.warns(UserWarning, match="is of the run anotherrun"):
        assert checkpoint.latest(tmp_path) is None
    checkpoint.save(tmp_path, whole | {"fingerprint": tmp_path.name, "epoch": 2})
    assert checkpoint.latest(tmp_path)["epoch"] == 2


def test_a_network_without_its_training_is_nothing_to_go_on_with(tmp_path):
    """Weights alone, put into a run's folder."""
    checkpoint.save(tmp_path, {"network": {}, "recipe": {}, "labels": []})
    with pytest.raises(ValueError, match=r"holds no training to go on with, it lacks optimizers: move it away"):
        checkpoint.latest(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_refused(tmp_path, monkeypatch, code):
    """The same sentence for each way in which a disk says it, also where a lock's file lies there already."""

    def flock(descriptor, operation):
        raise OSError(code, os.strerror(code))

    with checkpoint.locked(tmp_path):
        pass
    monkeypatch.setattr(fcntl, "flock", flock)
    for folder in (tmp_path, tmp_path / "new"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # filelock's own, of what it would do instead
            with pytest.raises(ValueError, match=r"has no file locks .* keep runs on a disk that has them"):
                with checkpoint.locked(folder):
                    pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="has no file locks"):
            checkpoint.is_locked(tmp_path)


def test_a_lock_of_another_process_is_seen(tmp_path):
    """is_locked follows a lock that another process holds and dies with."""
    code = f"import fcntl, time; file = open({str(tmp_path / 'lock')!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
    assert not checkpoint.is_locked(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", code + "print('held', flush=True); time.sleep(60)"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert checkpoint.is_locked(tmp_path)
        process.kill()
    assert not checkpoint.is_locked(tmp_path)


POSITIONS = {
    "epoch beyond the last": lambda state: state.update(epoch=5, curve=state["curve"] * 5),
    "epoch of text": lambda state: state.update(epoch="x"),
    "another curve": lambda state: state.update(curve=[]),
    "no curve": lambda state: state.update(curve=5),
    "a step beyond the epoch": lambda state: state.update(done=99),
    "a step before it": lambda state: state.update(done=-1),
    "fewer losses": lambda state: state.update(losses=state["losses"][:1]),
    "no weights": lambda state: state.update(network={}),
    "no optimizer": lambda state: state.update(optimizers=[]),
    "a generator of another size": lambda state: state.update(random=state["random"][:8]),
    "no time": lambda state: state.update(seconds=None),
}


def test_a_checkpoint_whose_position_is_not_the_runs_is_refused(recipe, tmp_path):
    """Whole, with its checksum and the run's name: it would end a run that never trained."""
    made = recipe()
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 15)
        with pytest.raises(Stop):
            run(made, tmp_path)
    folder = folder_of(made, tmp_path)
    whole = (folder / checkpoint.NAMES[0]).read_bytes()
    for change in POSITIONS.values():
        (folder / checkpoint.NAMES[0]).write_bytes(whole)
        state = checkpoint.load(folder / checkpoint.NAMES[0])
        change(state)
        checkpoint.save(folder, {key: value for key, value in state.items() if key not in ("format", "checksum")})
        with pytest.raises(ValueError, match=r"checkpoint\.pt holds no position of this run \(.*\): delete it"):
            run(made, tmp_path)
        assert not (folder / "row.json").exists()


def test_what_is_written_atomically_goes_where_a_link_leads(tmp_path):
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link.json", tmp_path / "there" / "target.json"
    link.symlink_to(target)
    for value in (1, 2):
        checkpoint.write_json(link, value)
        assert link.is_symlink()
        assert json.loads(target.read_text()) == value
