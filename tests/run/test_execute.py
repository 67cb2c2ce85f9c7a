"""From a recipe to its row: starts, teachers, checkpoints, bad input."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from bnc_repro.images.networks import CLASSIFIERS
from bnc_repro.images.sets import load
from bnc_repro.images.task import accuracy, build
from bnc_repro.recipe.build import as_dict, float_twin, make_recipe, with_float_weights
from bnc_repro.recipe.expansion import Requested
from bnc_repro.run import execute, released
from bnc_repro.run.execute import _check_teacher, _start_from, run
from bnc_repro.run.identity import folder_of
from bnc_repro.run.judge import evaluate_network, load_network
from bnc_repro.run.plan import plan
from bnc_repro.training import checkpoint, loop
from bnc_repro.training.loop import Diverged
from runs import CPU, Stop, interrupt, weights, what_counts


def test_a_finished_run_is_returned(recipe, tmp_path, monkeypatch):
    """The row of the same recipe, data and source comes back without a training step."""
    first = run(recipe(), tmp_path)
    interrupt(monkeypatch, 1)
    assert run(recipe(data={"workers": 1}), tmp_path) == first
    with pytest.raises(Stop):
        run(recipe(learning_rate=0.03), tmp_path)


def test_a_checkpoint_starts_another_run_or_is_told_not_to_fit(recipe, tmp_path):
    """init_from loads a float twin's weights into the binary network; another width is a clear refusal."""
    twin = float_twin(recipe(epochs=1))
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
    first = with_float_weights(made)
    assert (first.weight_binarizer, first.activation_binarizer, first.init_from) == (None, "approx_sign", "")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 12)  # ten steps of the first stage, one of the second
        with pytest.raises(Stop):
            run(made, tmp_path)
    assert (folder_of(first, tmp_path) / "row.json").exists()
    start = weights(first, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "train", None)
        network = build(made, CPU).network
        _start_from(network, made, tmp_path)
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
        "from bnc_repro.binarizers.base import Binarizer\n\n\nclass Wide(Binarizer):\n"
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


def test_a_released_checkpoint_gives_the_same_outputs(tmp_path):
    """A network under the released code's names, written here with plain functions, loads by init_from's way."""
    torch.manual_seed(0)
    ours = CLASSIFIERS["bireal18"](
        width=8,
        blocks=(1, 2),
        num_classes=5,
        weight_binarizer="mlp",
        activation_binarizer="approx_sign",
        preset="official",
    ).eval()
    names = {
        "conv1.weight": (8, 3, 7, 7),
        "meta_net.network.Linear0.weight": (100, 1),
        "meta_net.network.Linear1.weight": (2, 100),
        "fc.weight": (5, 16),
        "fc.bias": (5,),
        "layer2.0.downsample.1.weight": (16, 8, 1, 1),
    }
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
    found = accuracy(network, load(made.data, train=False), made, CPU)
    assert found == {key: row["metrics"][key] for key in found}


def test_bad_input_stops_before_training(recipe, tmp_path, monkeypatch):
    """A batch larger than the data, no data, unknown names, a GPU profile without one: a sentence each."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for changes, sentence in (
        ({"batch_size": 321}, "recipe key batch_size is 321, but there are 320 training items; take a smaller"),
        ({"batch_size": 41, "data": {"train_limit": 40}}, "but there are 40 training items"),
        ({"data": {"root": str(tmp_path / "gone")}}, f"finds no data in {tmp_path / 'gone'}: it expects the folder"),
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


def test_the_twin_is_trained_once_and_teaches(recipe, tmp_path):
    """teacher: twin trains the float twin into a run of its own, and the next seed's arm has its own twin."""
    made = recipe(teacher="twin", distillation=0.9, epochs=1)
    taught = run(made, tmp_path)
    twin = folder_of(float_twin(made), tmp_path)
    stamp = (twin / "row.json").stat().st_mtime_ns
    alone = run(recipe(epochs=1), tmp_path)
    assert taught["status"] == "finished"
    assert what_counts(taught) != what_counts(alone)
    run(recipe(teacher="twin", distillation=0.5, epochs=1), tmp_path)
    assert (twin / "row.json").stat().st_mtime_ns == stamp


def test_a_checkpoint_runs_no_file_unless_the_user_names_it(recipe, tmp_path):
    """A checkpoint that was trained with FILE.py:NAME is judged only with that name given again."""
    file = tmp_path / "own.py"
    file.write_text(
        "from pathlib import Path\nfrom bnc_repro.binarizers.base import Binarizer\n"
        "Path(__file__).with_suffix('.ran').touch()\n\n\nclass Own(Binarizer):\n"
        "    def derivative(self, x):\n        return x * 0 + 1\n"
    )
    name = f"{file}:Own"
    made = recipe(weight_binarizer=name, epochs=1)
    run(made, tmp_path / "runs")
    source, mark = folder_of(made, tmp_path / "runs") / checkpoint.NAMES[0], file.with_suffix(".ran")
    mark.unlink()
    with pytest.raises(ValueError, match="a file that it would run: look at the file, then say --own"):
        load_network(source, CPU)
    assert not mark.exists()
    load_network(source, CPU, (name,))
    assert mark.exists()


def test_one_step_is_no_training(recipe, tmp_path):
    """Refused before it starts, with the number of items."""
    with pytest.raises(ValueError, match="make 1 step of training in all, with 320 training items"):
        run(recipe(epochs=1, batch_size=320), tmp_path)


def test_weights_that_the_last_update_broke_are_a_divergence(recipe, tmp_path, monkeypatch):
    """The loss of the last step, here the only one, was a number, the weights after it are none: no finished row."""
    monkeypatch.setattr(loop, "steps", lambda items, recipe: items // recipe.batch_size)
    with pytest.raises(Diverged, match="is not finite after epoch 1"):
        run(
            recipe(
                epochs=1, batch_size=320, learning_rate=1e30, weight_decay=1e30, optimizer="sgd", weight_binarizer=None
            ),
            tmp_path,
        )


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3"])
def test_a_damaged_row_in_a_runs_folder_is_named(recipe, tmp_path, text):
    """With the file and the remedy, for a run and for a sweep's plan; nothing is trained over it."""
    made = recipe()
    path = folder_of(made, tmp_path) / "row.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(
        ValueError, match=r"row\.json .*; take it from git again, or remove it and run its command again"
    ):
        run(made, tmp_path)
    assert path.read_text() == text


def test_another_runs_row_is_not_taken_for_this_ones(recipe, tmp_path):
    """A copied row, one whose name was changed, and one of a status that no run ends with are named, and stay."""
    row = run(recipe(epochs=1), tmp_path)
    other = recipe(epochs=1, seed=5)
    path = folder_of(other, tmp_path) / "row.json"
    path.parent.mkdir(parents=True)
    for changes in ({}, {"fingerprint": path.parent.name}, {"status": "banana"}):
        text = json.dumps(row | changes)
        path.write_text(text)
        (job,) = plan([Requested(other, "binary")], tmp_path)
        for ask in (lambda: run(other, tmp_path), job.row):
            with pytest.raises(
                ValueError, match=r"row\.json.*(copied here or changed; remove it|'banana', none of fin)"
            ):
                ask()
        assert path.read_text() == text
    path.unlink()
    assert run(other, tmp_path)["seed"] == 5


@pytest.fixture
def class_folders(tmp_path):
    """Makes class folders of noise, eight pictures a class in each split, and the keys of a recipe that reads them."""

    def make(name: str, classes: str, size: int = 28) -> dict:
        draw = np.random.default_rng(0)
        for part in ("train", "val"):
            for label in classes:
                folder = tmp_path / name / part / label
                folder.mkdir(parents=True)
                for i in range(8):
                    pixels = draw.integers(0, 256, (size, size, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")
        data = {"root": str(tmp_path / name), "kind": "imagefolder", "augment": "none", "image_size": [size, size]}
        return {"data": data, "epochs": 1, "batch_size": 8}

    return make


def test_other_labels_are_neither_judged_nor_taught(recipe, class_folders, tmp_path, caplog):
    """The same number of classes in another order: refused where a checkpoint is judged or teaches, before anything is
    trained; a warning where it is where training starts."""
    here, there = class_folders("ab", "ab"), class_folders("bz", "bz")
    made = recipe(**here)
    run(made, tmp_path / "runs")
    path = str(folder_of(made, tmp_path / "runs") / checkpoint.NAMES[0])
    differ = r"was trained on 2 labels \(a, b \.\.\.\), .*bz has 2 \(b, z .*first that differs is a there and b here"
    for changes in ({"init_from": path, "epochs": 0}, {"teacher": path, "distillation": 0.5}):
        with pytest.raises(ValueError, match=differ):
            run(recipe(**there | changes), tmp_path / "runs")
        assert run(recipe(**here | changes), tmp_path / "runs")["status"] == "finished"
    assert "last layer" not in caplog.text
    assert run(recipe(**there | {"init_from": path}), tmp_path / "runs")["status"] == "finished"
    assert "its last layer starts with what it knows of those" in caplog.text


def test_a_teacher_of_other_images_is_refused_before_training(recipe, class_folders, tmp_path, monkeypatch):
    """One channel against three; and torchvision's of a thousand classes."""
    taught = class_folders("ab", "ab")
    made = recipe(epochs=1)
    run(made, tmp_path / "runs")
    path = str(folder_of(made, tmp_path / "runs") / checkpoint.NAMES[0])
    with pytest.raises(ValueError, match="was trained on data of kind fashion_mnist, the run's is imagefolder; name a"):
        run(recipe(**taught, teacher=path, distillation=0.5), tmp_path / "runs")
    monkeypatch.setattr("torchvision.models.get_model", lambda *_, **__: torch.nn.Sequential(torch.nn.Flatten()))
    with pytest.raises(ValueError, match=r"does not give one answer for each of 2 labels from images of \[3, 28, 28\]"):
        run(recipe(**taught, teacher="torchvision/resnet34", distillation=0.5), tmp_path / "runs")


def test_links_that_lead_back_are_refused_where_a_network_is_judged(recipe, class_folders, tmp_path):
    """torchvision would go round in one forty times, and in two for ever."""
    here = class_folders("ab", "ab")
    made = recipe(**here)
    run(made, tmp_path / "runs")
    network, made, labels = load_network(folder_of(made, tmp_path / "runs") / checkpoint.NAMES[0], CPU)
    root = Path(here["data"]["root"])
    for name in ("one", "two"):
        (root / "val" / "a" / name).symlink_to(".")
    with pytest.raises(ValueError, match="links to a folder that it lies in; remove the link"):
        evaluate_network(network, made, labels, "it", str(root), CPU)


@pytest.mark.parametrize("change", [{"loss": "squares"}, {"sigma_px": 1.5}])
def test_a_teacher_of_other_heatmaps_is_refused(change):
    """Logits are no squares' targets, and a wider Gaussian is another target."""
    pose = {"loss": "cross_entropy", "sigma_px": 0.7}
    options = {"experiment": "coco_pose", "network": "sbpn", "data": {"kind": "coco", "image_size": [64, 48]}}
    taught, made = (make_recipe(**options, pose=pose | other) for other in ({}, change))
    (key,) = change
    with pytest.raises(ValueError, match=rf"was trained with pose\.{key} {pose[key]}, the run has {change[key]}"):
        _check_teacher(None, taught, [], made, None)


def test_a_misfit_is_said_by_its_first_difference(recipe, tmp_path):
    """One name, both shapes, the count of the others; a recipe that is none names the checkpoint."""
    made = recipe(epochs=1)
    run(made, tmp_path)
    path = folder_of(made, tmp_path) / checkpoint.NAMES[0]
    with pytest.raises(ValueError) as refused:
        run(recipe(init_from=str(path), width=8), tmp_path)
    assert re.search(
        r": \S+ is of shape \[4, .* in the file, and of shape \[8, .*, and \d+ more differ", str(refused.value)
    )
    assert "\n" not in str(refused.value)
    state = checkpoint.load(path)
    state["recipe"]["epochs"] = "many"
    checkpoint.save(tmp_path, {key: value for key, value in state.items() if key not in ("format", "checksum")})
    with pytest.raises(ValueError, match=r"checkpoint\.pt has a recipe that is none today: recipe key epochs must be"):
        load_network(tmp_path / checkpoint.NAMES[0], CPU)


def test_a_checkpoint_of_odd_values_is_one_sentence(recipe, tmp_path):
    """A value that holds itself, tensors without values of their own, a label twice, a folder."""
    state = {"recipe": as_dict(recipe()), "labels": ["a", "b"], "network": {"x": torch.zeros(1)}}
    whole = state | {"format": checkpoint.FORMAT, "checksum": checkpoint.checksum(state)}
    holds_itself = {}
    holds_itself["x"] = holds_itself
    odd = [holds_itself, *(torch.zeros(1).expand(2**42), torch.eye(2).to_sparse(), torch.zeros(2, device="meta"))]
    for value in odd:
        torch.save(whole | {"more": value}, tmp_path / "odd.pt")
        with pytest.raises(ValueError, match=r"odd\.pt (is damaged|cannot be read as a checkpoint)"):
            checkpoint.load(tmp_path / "odd.pt")
    checkpoint.save(tmp_path, state | {"labels": ["x", "x"]})
    with pytest.raises(ValueError, match="has a label twice"):
        checkpoint.load(tmp_path / checkpoint.NAMES[0])
    with pytest.raises(ValueError, match=r"there is no checkpoint .*; name a file such as runs/"):
        checkpoint.load(tmp_path)


def test_an_own_file_that_imports_another_is_refused(recipe, tmp_path, monkeypatch):
    """A run knows it by its content alone: what it takes from elsewhere could change without a word. Installed modules
    and this package are known by their versions."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "helper_of_mine.py").write_text("SLOPE = 1.0\n")
    text = (
        "import sys, math, numpy as np, torch.nn\nfrom pathlib import Path\n"
        "from bnc_repro.binarizers.base import Binarizer\n{}\n\nclass Mine(Binarizer):\n"
        "    def derivative(self, x):\n        return (x.abs() <= 1).to(x.dtype)\n"
    )
    file = tmp_path / "mine.py"
    imports = (
        f"sys.path.insert(0, {str(tmp_path)!r})\nfrom helper_of_mine import SLOPE",
        f"sys.path.insert(0, {str(tmp_path)!r})\nimport importlib\nimportlib.import_module('helper_of_mine')",
    )
    for added in imports:
        file.write_text(text.format(added))
        with pytest.raises(ValueError, match=r"mine\.py imports helper_of_mine from .*helper_of_mine\.py, whose"):
            run(recipe(weight_binarizer=f"{file}:Mine"), tmp_path / "runs")
        sys.path.remove(str(tmp_path))
        sys.modules.pop("helper_of_mine", None)
    file.write_text(text.format(""))
    assert run(recipe(epochs=1, weight_binarizer=f"{file}:Mine"), tmp_path / "runs")["status"] == "finished"
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match=r"unknown class of .*empty\.py 'Mine'; there is none"):
        run(recipe(weight_binarizer=f"{tmp_path / 'empty.py'}:Mine"), tmp_path / "runs")


def test_a_rank_that_another_program_left_is_told(recipe, tmp_path, monkeypatch):
    for rank, size, sentence in (
        ("1", None, "RANK is 1 and WORLD_SIZE 1: start several processes by torchrun, or unset RANK"),
        ("x", None, "the environment variable RANK is 'x', no whole number: unset it"),
        (None, "two", "the environment variable WORLD_SIZE is 'two', no whole number: unset it"),
        ("-1", None, "the environment variable RANK is '-1', no whole number"),
    ):
        with monkeypatch.context() as patch:
            for name, value in (("RANK", rank), ("WORLD_SIZE", size)):
                if value is not None:
                    patch.setenv(name, value)
            with pytest.raises(ValueError, match=sentence):
                run(recipe(), tmp_path)
