"""Runs that are deterministic, that resume to the last bit, and that stop with one clear sentence."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnc_repro import checkpoint, classify, config, health, images, provenance, released, train
from bnc_repro import run as run_module
from bnc_repro.classifiers import CLASSIFIERS
from bnc_repro.layers import BinaryLinear
from bnc_repro.run import folder_of, load_network, run

CPU = torch.device("cpu")

# Forks a process for every job read from stdin, so that torch is imported once.
SERVER = """
import json, os, sys
from bnc_repro import checkpoint, classify, config, train
from bnc_repro import run as run_module
from bnc_repro.run import run
import torch
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        train.SAVE_SECONDS, train.CHECK_EVERY = -1, 1
        code = 1
        try:
            if "die_in_write" in job:
                whole, count = torch.save, [0]
                def save(state, path):
                    count[0] += 1
                    whole(state, path)
                    if count[0] == job["die_in_write"]:
                        os.truncate(path, os.path.getsize(path) // 2)
                        os.kill(os.getpid(), 9)
                torch.save = save
            row = run(config.make(**job["recipe"]), __import__("pathlib").Path(job["runs"]))
            with open(job["log"] + ".row", "w") as file:
                json.dump(row, file)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    print(pid, flush=True)
    if job["wait"]:
        print(os.waitpid(pid, 0)[1], flush=True)
"""


class Server:
    """Starts runs in processes of their own; `start` gives the process id, `finish` the exit status."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(provenance.PACKAGE.parent)}, cwd=Path(__file__).parent,
        )  # fmt: skip
        self.folder = folder
        assert self.process.stdout.readline() == "ready\n"

    def start(self, recipe, runs: Path, log: str, wait: bool = False, **faults) -> int:
        job = {
            "recipe": config.as_dict(recipe),
            "runs": str(runs),
            "log": str(self.folder / log),
            "wait": wait,
        }
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


@pytest.fixture
def recipe(data):
    """Makes a recipe of three epochs of ten steps, with shifts, of a network of two binary layers."""

    def make(**changes) -> config.Recipe:
        values = {
            "width": 4, "blocks": [1, 1], "stem": "half", "epochs": 3, "batch_size": 32,
            "learning_rate": 0.02, "data": {"root": data, "augment": "shift"},
        }  # fmt: skip
        return config.make(**config.merged(values, changes))

    return make


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv("BNC_REPRO_REUSE", raising=False)


def what_counts(row: dict) -> dict:
    """A row without what the clock decides."""
    curve = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in row["curve"]]
    return {"metrics": row["metrics"], "best": row["best"], "status": row["status"], "curve": curve}


def weights(recipe, runs: Path) -> dict:
    return checkpoint.load(folder_of(recipe, runs) / checkpoint.NAMES[0])["network"]


def assert_same_run(recipe, first: Path, row: dict, second: Path, other: dict) -> None:
    assert what_counts(row) == what_counts(other)
    a, b = weights(recipe, first), weights(recipe, second)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


class Stop(Exception):
    """Where a test interrupts a training."""


def interrupt(monkeypatch, step: int) -> None:
    """Raise Stop before the step of that number is taken; keep a checkpoint after every step."""
    true, count = train.set_rates, [0]

    def set_rates(*arguments):
        count[0] += 1
        if count[0] == step:
            raise Stop
        true(*arguments)

    monkeypatch.setattr(train, "set_rates", set_rates)
    monkeypatch.setattr(train, "SAVE_SECONDS", -1)
    monkeypatch.setattr(train, "CHECK_EVERY", 1)


def test_a_run_is_deterministic_and_learns(recipe, tmp_path):
    """The same recipe gives the same weights, curve and metrics; another seed others; chance is 10 %."""
    made = recipe()
    first, second = run(made, tmp_path / "a"), run(made, tmp_path / "b")
    assert_same_run(made, tmp_path / "a", first, tmp_path / "b", second)
    assert first["best"] > 15
    assert first["curve"][-1]["loss"] < first["curve"][0]["loss"]
    assert [epoch["epoch"] for epoch in first["curve"]] == [1, 2, 3]
    assert first["status"] == "finished"
    assert first["recipe"] == config.as_dict(made)
    assert json.loads((folder_of(made, tmp_path / "a") / "row.json").read_text()) == first
    other = run(recipe(seed=1), tmp_path / "a")
    assert other["fingerprint"] != first["fingerprint"]
    assert what_counts(other) != what_counts(first)


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


def test_a_finished_run_is_returned(recipe, tmp_path, monkeypatch):
    """The row of the same recipe, data and source comes back without a training step."""
    first = run(recipe(), tmp_path)
    interrupt(monkeypatch, 1)
    assert run(recipe(data={"workers": 1}), tmp_path) == first
    with pytest.raises(Stop):
        run(recipe(learning_rate=0.03), tmp_path)


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
    with pytest.raises(
        ValueError, match=r"the disk is full. Nothing was overwritten; make room and run the same"
    ):
        run(made, tmp_path / "full")
    folder = folder_of(made, tmp_path / "full")
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.pt", "lock"]
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


def test_a_checkpoint_starts_another_run_or_is_told_not_to_fit(recipe, tmp_path):
    """init_from loads a float twin's weights into the binary network; another width is a clear refusal."""
    twin = config.float_twin(recipe(epochs=1))
    run(twin, tmp_path)
    path = str(folder_of(twin, tmp_path) / checkpoint.NAMES[0])
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 2)
        with pytest.raises(Stop):
            run(recipe(init_from=path), tmp_path)
    assert run(recipe(init_from=path, epochs=1), tmp_path)["status"] == "finished"
    with pytest.raises(ValueError, match="does not fit the network of this recipe"):
        run(recipe(init_from=path, width=8), tmp_path)
    with pytest.raises(ValueError, match=r"there is no file .*gone\.pt"):
        run(recipe(init_from=str(tmp_path / "gone.pt")), tmp_path)


def test_two_stages_start_from_the_run_with_float_weights(recipe, tmp_path):
    """init_from: float_weights trains the same recipe with float weights and binary activations first."""
    made = recipe(init_from="float_weights", epochs=1)
    first = config.with_float_weights(made)
    assert (first.weight_binarizer, first.activation_binarizer, first.init_from) == (None, "approx_sign", "")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 12)  # ten steps of the first stage, one of the second
        with pytest.raises(Stop):
            run(made, tmp_path)
    assert (folder_of(first, tmp_path) / "row.json").exists()
    start = weights(first, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "train", None)
        network = run_module.TASKS["imagenet_resnet"](made, CPU, None).network
        run_module._start_from(network, made, tmp_path)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in start.items())


def test_a_checkpoint_is_judged_without_training(recipe, tmp_path):
    """epochs=0 with init_from gives the metrics that the checkpoint's own run ended with."""
    made = recipe(epochs=1)
    row = run(made, tmp_path)
    path = str(folder_of(made, tmp_path) / checkpoint.NAMES[0])
    judged = run(recipe(epochs=0, init_from=path), tmp_path)
    for key in ("top1", "top5", "test_loss"):
        assert judged["metrics"][key] == row["metrics"][key]
    assert judged["items_per_second"] is None


def test_an_estimator_of_ones_own_is_named_by_its_file(recipe, tmp_path):
    """FILE.py:NAME trains as a name does; an edit of the file is another run; mistakes are named."""
    file = tmp_path / "mine.py"
    text = (
        "from bnc_repro.straight_through import Binarizer\n\n\nclass Wide(Binarizer):\n"
        "    def derivative(self, x):\n        return (x.abs() <= {}).to(x.dtype)\n"
    )
    file.write_text(text.format(1.0))
    made = recipe(epochs=1, weight_binarizer=f"{file}:Wide")
    row = run(made, tmp_path / "runs")
    assert row["title"] == "resnet20 Wide/approx_sign"
    assert what_counts(row) == what_counts(run(recipe(epochs=1, weight_binarizer="ste"), tmp_path / "runs"))
    before = folder_of(made, tmp_path / "runs")
    file.write_text(text.format(0.1))
    assert folder_of(made, tmp_path / "runs") != before
    assert what_counts(run(made, tmp_path / "runs"))["curve"] != what_counts(row)["curve"]
    with pytest.raises(ValueError, match=r"unknown class of .*mine\.py 'Wild'; known, nearest first: Wide"):
        run(recipe(weight_binarizer=f"{file}:Wild"), tmp_path / "runs")
    with pytest.raises(ValueError, match=r"there is no file .*gone\.py"):
        run(recipe(weight_binarizer=f"{tmp_path}/gone.py:Wide"), tmp_path / "runs")


def test_health_is_what_the_weights_did(recipe, tmp_path):
    """The share of weights on another side than an epoch before, of those beyond 1, and of those that learn."""
    row = run(recipe(epochs=2, standardize=True, weight_binarizer="ste"), tmp_path)
    assert all(0 < epoch["flip_share"] < 1 for epoch in row["curve"])
    network = load_network(tmp_path / "sample" / "imagenet_resnet" / row["fingerprint"] / "checkpoint.pt", CPU)[0]
    latent = torch.cat([m.latent_weight().flatten() for m in network.modules() if hasattr(m, "latent_weight")])
    last = row["curve"][-1]
    assert last["saturated_share"] == pytest.approx((latent.abs() > 1).double().mean().item(), abs=1e-6)
    assert last["open_share"] == pytest.approx((latent.abs() <= 1).double().mean().item(), abs=1e-6)
    sides = health.weight_signs(network)
    network.trunk.stages[0][0].conv.weight.data.neg_()
    flipped = network.trunk.stages[0][0].conv.weight.numel() / latent.numel()
    assert health.weight_health(network, sides)["flip_share"] == pytest.approx(flipped, abs=0.01)


def test_a_run_at_chance_says_so(recipe, tmp_path, capsys):
    """After CHANCE_EPOCH epochs, and at its end."""
    run(recipe(epochs=1, learning_rate=1e-9), tmp_path)
    assert ", hardly above chance" in capsys.readouterr().out
    run(recipe(epochs=3), tmp_path)
    assert "warning" not in capsys.readouterr().out


def test_pieces_add_up_to_the_batch(recipe, tmp_path):
    """Gradients of two halves are the whole batch's, but for the batch statistics, which are each half's own."""
    whole, halves = run(recipe(epochs=1), tmp_path), run(recipe(epochs=1, accumulate=2), tmp_path)
    assert whole["curve"][0]["loss"] != halves["curve"][0]["loss"]
    assert whole["curve"][0]["loss"] == pytest.approx(halves["curve"][0]["loss"], rel=0.1)
    with pytest.raises(ValueError, match="which 1 processes times 3 pieces"):
        run(recipe(accumulate=3), tmp_path)


def test_a_compiler_that_fails_is_done_without(recipe, tmp_path, monkeypatch, capsys):
    """The run says so, and is the run without it."""
    plain = run(recipe(epochs=1), tmp_path)
    monkeypatch.setattr(torch, "compile", lambda network: lambda x: torch.linalg.inv(x))
    row = run(recipe(epochs=1, compile=True), tmp_path)
    assert "torch.compile failed, going on without it: " in capsys.readouterr().out
    assert what_counts(row) == what_counts(plain)


def test_a_released_checkpoint_gives_the_same_outputs(tmp_path):
    """A network under the released code's names, written here with plain functions, loads by init_from's way."""
    torch.manual_seed(0)
    ours = CLASSIFIERS["bireal18"](width=8, blocks=(1, 2), num_classes=5, weight_binarizer="mlp",
                                   activation_binarizer="approx_sign", preset="official").eval()  # fmt: skip
    names = {"conv1.weight": (8, 3, 7, 7), "meta_net.network.Linear0.weight": (100, 1),
             "meta_net.network.Linear1.weight": (2, 100), "fc.weight": (5, 16), "fc.bias": (5,),
             "layer2.0.downsample.1.weight": (16, 8, 1, 1)}  # fmt: skip
    channels = {"layer1.0": (8, 8), "layer2.0": (8, 16), "layer2.1": (16, 16)}
    norms = {"bn1": 8, "layer2.0.downsample.2": 16}
    names["nonlinear.weight"] = (8,)
    for block, (before, after) in channels.items():
        names |= {f"{block}.binary_conv.weights": (after, before, 3, 3), f"{block}.nonlinear.weight": (after,)}
        norms[f"{block}.bn1"] = after
    state = {f"module.{name}": torch.randn(shape) * 0.3 for name, shape in names.items()}
    for name, count in norms.items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"module.{name}.{part}"] = torch.rand(count) + 0.5
        state[f"module.{name}.num_batches_tracked"] = torch.tensor(7)
    torch.save({"epoch": 3, "state_dict": state, "best_top1_acc": 1.0}, tmp_path / "model.pth.tar")

    def get(name):
        return state[f"module.{name}"]

    def norm(x, name):
        return F.batch_norm(x, *(get(f"{name}.{part}") for part in ("running_mean", "running_var", "weight", "bias")))

    images_in = torch.randn(2, 3, 64, 64)
    x = F.prelu(norm(F.conv2d(images_in, get("conv1.weight"), stride=2, padding=3), "bn1"), get("nonlinear.weight"))
    x = F.max_pool2d(x, 3, 2, 1)
    for block in channels:
        stride, weight = (2 if block == "layer2.0" else 1), get(f"{block}.binary_conv.weights")
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        binary = torch.where(centred >= 0, 1.0, -1.0) * centred.abs().mean((1, 2, 3), keepdim=True)
        y = norm(F.conv2d(torch.where(x >= 0, 1.0, -1.0), binary, stride=stride, padding=1), f"{block}.bn1")
        if stride == 2:
            x = norm(F.conv2d(F.avg_pool2d(x, 2), get(f"{block}.downsample.1.weight")), f"{block}.downsample.2")
        x = F.prelu(x + y, get(f"{block}.nonlinear.weight"))
    wanted = F.linear(x.mean((2, 3)), get("fc.weight"), get("fc.bias"))

    ours.load_state_dict(checkpoint.load(tmp_path / "model.pth.tar", released.translated)["network"])
    assert torch.allclose(ours(images_in), wanted, atol=1e-4)
    assert torch.equal(ours.weight_binarizer.layers[0].weight, get("meta_net.network.Linear0.weight"))
    torch.save({"state_dict": {"weight": torch.ones(2)}}, tmp_path / "other.pth.tar")
    with pytest.raises(ValueError, match="was not written by this project"):
        checkpoint.load(tmp_path / "other.pth.tar", released.translated)


def test_a_trained_network_comes_back_from_its_checkpoint(recipe, tmp_path):
    """load_network judges the test images as the run did, and predict gives probabilities."""
    made = recipe()
    row = run(made, tmp_path)
    network, again, labels = load_network(folder_of(made, tmp_path) / checkpoint.NAMES[0], CPU)
    assert again == made
    assert len(labels) == 10
    found = classify.accuracy(network, images.load(made.data, train=False), made, CPU)
    assert found == {key: row["metrics"][key] for key in found}


def test_nan_stops_the_run_naming_epoch_and_step(recipe, tmp_path):
    """In the ablation it is a row with status diverged; elsewhere an error. Both name epoch and step."""
    wild = {"learning_rate": 1e30, "optimizer": "sgd", "weight_binarizer": None, "activation_binarizer": None}
    said = r"the loss is (nan|inf) in epoch 1, step \d+, first seen in the output of trunk.stem.2; a smaller"
    with pytest.raises(train.Diverged, match=said):
        run(recipe(**wild), tmp_path)
    row = run(recipe(experiment="linear_vs_soft", **wild), tmp_path)
    assert row["status"] == "diverged"
    assert re.search(r"epoch 1, step \d+", row["message"])
    assert row["metrics"] == {}
    assert run(recipe(experiment="linear_vs_soft", **wild), tmp_path) == row
    with pytest.raises(train.Diverged, match="nan in epoch 3, step 2"):
        train.stop_if_diverged(torch.tensor([1.0, float("nan"), float("inf")]), 0, 2, torch.nn.Identity(), lambda: None)


def test_the_first_broken_layer_is_named():
    """A NaN parameter, or an output that is not finite, is found at the first layer it shows in; healthy: None."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    x = torch.ones(1, 2)
    assert train.first_nonfinite(network, lambda: network(x)) is None
    network[2].weight.data[0, 0] = float("nan")
    assert train.first_nonfinite(network, lambda: network(x)) == "2.weight"
    assert train.first_nonfinite(network, lambda: network(x * float("inf"))).endswith("output of 0")
    own = BinaryLinear(2, 2, weight_binarizer="mlp")
    own.weight.data[0, 0] = float("nan")
    assert train.first_nonfinite(own, lambda: own(x)) == "weight"


def test_bad_input_stops_before_training(recipe, tmp_path, monkeypatch):
    """A batch larger than the data, no data, unknown names, a GPU profile without one: a sentence each."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for changes, sentence in (
        (
            {"batch_size": 321},
            "recipe key batch_size is 321, but there are 320 training items; take a smaller",
        ),
        ({"batch_size": 41, "data": {"train_limit": 40}}, "but there are 40 training items"),
        (
            {"data": {"root": str(tmp_path / "gone")}},
            f"finds no data in {tmp_path / 'gone'}: it expects the folder",
        ),
        ({"data": {"root": ""}}, "finds no data in an empty path"),
        ({"network": "resnet21"}, "unknown network 'resnet21'; known, nearest first: resnet20"),
        ({"weight_binarizer": "mpl"}, "unknown binarizer 'mpl'; known, nearest first: mlp"),
        ({"profile": "gpu"}, "the gpu profile needs a CUDA device and this machine has none"),
        ({"teacher": str(tmp_path / "no.pt"), "distillation": 0.5}, "there is no file"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            run(recipe(**changes), tmp_path)
    assert not list(tmp_path.rglob("checkpoint*"))
    assert not list(tmp_path.rglob("row.json"))


def test_a_teacher_shares_the_loss(recipe):
    """The loss is (1 - d) cross-entropy to the labels + d to the teacher, and so is its gradient."""
    made = recipe(teacher="twin", distillation=0.75)
    torch.manual_seed(0)
    teacher, network = (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)) for _ in range(2))
    task = classify.build(made, CPU, teacher)
    batch = {key: value[:8] for key, value in task.train_set.__getitems__(range(8)).items()}
    x = images.normalise(batch["image"], "fashion_mnist")
    loss = task.loss(network, batch)
    q = teacher(x).detach().softmax(1)
    log_p = network(x).log_softmax(1)
    wanted = 0.25 * F.nll_loss(log_p, batch["label"]) - 0.75 * (q * log_p).sum(1).mean()
    torch.testing.assert_close(loss, wanted)
    parameters = list(network.parameters())
    for a, b in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(wanted, parameters), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in teacher.parameters())


def test_the_twin_is_trained_once_and_teaches(recipe, tmp_path):
    """teacher: twin trains the float twin into a run of its own, and the next seed's arm has its own twin."""
    made = recipe(teacher="twin", distillation=0.9, epochs=1)
    taught = run(made, tmp_path)
    twin = folder_of(config.float_twin(made), tmp_path)
    stamp = (twin / "row.json").stat().st_mtime_ns
    alone = run(recipe(epochs=1), tmp_path)
    assert taught["status"] == "finished"
    assert what_counts(taught) != what_counts(alone)
    run(recipe(teacher="twin", distillation=0.5, epochs=1), tmp_path)
    assert (twin / "row.json").stat().st_mtime_ns == stamp


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


def test_a_fingerprint_covers_the_source_that_is_imported(recipe, tmp_path, monkeypatch):
    """Another number in train.py makes every run another one; in posenets.py it leaves the image runs alone."""
    modules = provenance.modules
    assert "posenets" not in modules("imagenet_resnet")
    assert "classifiers" not in modules("coco_pose")
    for experiment in config.EXPERIMENTS:
        assert {"run", "train", "binarizers", "ops", "config", "optim", "provenance"} <= set(modules(experiment))
    copy = tmp_path / "copy"
    shutil.copytree(provenance.PACKAGE, copy)

    def now() -> dict:
        return {name: provenance.source_fingerprint(modules(name, copy), copy) for name in config.EXPERIMENTS}

    before, folder = now(), folder_of(recipe(), tmp_path)
    assert before == provenance.SOURCES
    with open(copy / "posenets.py", "a") as file:
        file.write("TOUCHED = 1\n")
    after = now()
    assert [name for name in before if before[name] != after[name]] == ["coco_pose"]
    with open(copy / "train.py", "a") as file:
        file.write("TOUCHED = 1\n")
    assert all(after[name] != value for name, value in now().items())
    assert folder_of(recipe(), tmp_path) == folder, "code edited after it was imported is not the code that runs"
    monkeypatch.setattr(provenance, "SOURCES", now())
    assert folder_of(recipe(), tmp_path) != folder


def test_a_fingerprint_covers_data_and_recipe_but_not_their_place(recipe, data, tmp_path):
    """Moved data is the same run; one other byte, or one other key, is another."""
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    here, there = folder_of(recipe(), tmp_path), folder_of(recipe(data={"root": str(moved)}), tmp_path)
    assert here == there
    assert folder_of(recipe(momentum=0.8), tmp_path) != here
    path = moved / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert folder_of(recipe(data={"root": str(moved)}), tmp_path) != here


@pytest.mark.parametrize("activation", ["approx_sign", "mlp"])
def test_bfloat16_trains(recipe, tmp_path, activation):
    """Under autocast every kind of binarizer takes what the layers give it, and the loss stays a number."""
    row = run(recipe(precision="bfloat16", epochs=1, activation_binarizer=activation), tmp_path)
    assert row["status"] == "finished"
    assert np.isfinite(row["curve"][0]["loss"])


def test_streams_are_independent():
    """Each name and each seed has a random stream of its own, the same on every machine."""
    found = {
        provenance.stream(seed, name) for seed in range(3) for name in ("network", "classifier", "epoch 0")
    }
    assert len(found) == 9
    assert provenance.stream(0, "network") == provenance.stream(0, "network")


def test_a_killed_write_leaves_nothing_and_a_copied_checkpoint_is_not_taken(tmp_path):
    """The next holder of a run removes half-written files; a checkpoint of another run is passed over."""
    (tmp_path / ".checkpoint.pt.99999.part").write_bytes(b"half")
    with checkpoint.locked(tmp_path):
        assert not list(tmp_path.glob(".*.part"))
    checkpoint.save(tmp_path, {"fingerprint": "anotherrun"})
    with pytest.warns(UserWarning, match="is of the run anotherrun"):
        assert checkpoint.latest(tmp_path) is None
    checkpoint.save(tmp_path, {"fingerprint": tmp_path.name, "epoch": 2})
    assert checkpoint.latest(tmp_path)["epoch"] == 2
