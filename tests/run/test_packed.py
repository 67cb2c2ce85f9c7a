"""A checkpoint packed, judged, exported and measured by the command line's own functions."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import bnc_repro
from bnc_repro import create_network
from bnc_repro.binarizers import BINARIZERS
from bnc_repro.packed import benchmark
from bnc_repro.recipe.build import as_dict, make_recipe
from bnc_repro.run import export, judge, packed
from bnc_repro.training import checkpoint

CPU = torch.device("cpu")


def trained_like(name: str, **options) -> nn.Module:
    """A network whose normalisation is that of a trained one: without it sums of +-1 are often exactly 0."""
    torch.manual_seed(0)
    network = create_network(name, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    with torch.no_grad():
        for _ in range(5):
            network.train()(torch.randn(4, 3, 64, 64))
    return network.eval()


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A checkpoint of a narrow network for the sample's pictures, as a run writes it."""
    values = {"network": "resnet20", "width": 4, "blocks": [1, 1], "stem": "half", "data": _sample()}
    recipe = make_recipe(experiment="imagenet_resnet", profile="sample", **values)
    labels = judge.task_module(recipe.experiment).build(recipe, CPU).labels
    network = judge.task_module(recipe.experiment).make_network(recipe, len(labels))
    folder = tmp_path_factory.mktemp("run")
    state = {"network": network.state_dict(), "recipe": as_dict(recipe), "labels": list(labels)}
    checkpoint.save(folder, state)
    return folder / checkpoint.NAMES[0]


def _sample() -> dict:
    return {"root": "data/fashion-mnist", "kind": "fashion_mnist", "image_size": [28, 28]}


def command(*words: object) -> subprocess.CompletedProcess:
    done = [sys.executable, "-m", "bnc_repro", *map(str, words)]
    return subprocess.run(done, capture_output=True, text=True, check=False)


def test_a_packed_file_is_judged_as_its_checkpoint(source, tmp_path):
    """The command packs beside the checkpoint; evaluation and loading take the file, and it knows its labels."""
    done = command("pack", source)
    assert done.returncode == 0, done.stderr
    file = Path(done.stdout.splitlines()[-1])
    assert file == source.with_suffix(".safetensors")
    wanted, metrics = packed.evaluate(source, None, CPU), packed.evaluate(file, None, CPU)
    assert metrics["top1"] == pytest.approx(wanted["top1"], abs=0.2)
    assert metrics["test_loss"] == pytest.approx(wanted["test_loss"], rel=1e-3)
    assert json.loads(command("evaluate", file).stdout) == metrics
    network, recipe, labels, *_ = packed.load_network(file, CPU)
    _, of_checkpoint, names = judge.load_network(source, CPU)
    assert (recipe, labels) == (of_checkpoint, names)
    images = torch.randn(2, 1, 28, 28)
    assert torch.equal(bnc_repro.load(file)(images), network(images))


def test_a_packed_file_predicts(source, tmp_path):
    """One line of JSON per picture, its probabilities those of the network."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    file = packed.pack_checkpoint(source, tmp_path / "small.safetensors")[0]
    (wanted,) = packed.predict(source, [tmp_path / "picture.png"], CPU)
    (line,) = packed.predict(file, [tmp_path / "picture.png"], CPU)
    assert line["classes"] == pytest.approx(wanted["classes"], abs=1e-3)


def test_what_cannot_be_packed_or_loaded_is_one_sentence(source, tmp_path):
    """A packed file is not packed again, a checkpoint not overwritten, a name without a file not guessed."""
    file = packed.pack_checkpoint(source, tmp_path / "small.safetensors")[0]
    with pytest.raises(ValueError, match="packed already"):
        packed.pack_checkpoint(file)
    with pytest.raises(ValueError, match="checkpoint itself"):
        packed.pack_checkpoint(source, source)
    with pytest.raises(ValueError, match=r"no packed network|unknown packed network"):
        bnc_repro.load("small/no-such-model")
    with pytest.raises(ValueError, match="no file"):
        bnc_repro.load(tmp_path / "nothing.safetensors")
    done = command("benchmark", source, "--rounds", "0")
    assert done.returncode == 2


def test_the_benchmark_takes_a_checkpoint_of_grey_pictures(source):
    """Every contestant that is installed has as many rounds as asked for."""
    _, comparison = packed.compare(source, rounds=2)
    assert all(len(values) == 2 for values in comparison.milliseconds.values())
    assert {"packed", "torch float32"} <= set(comparison.milliseconds)


def test_the_benchmark_gives_every_contestant_its_threads(source, monkeypatch):
    """All calls find torch with so many threads, and torch has its own again afterwards; the table says so."""
    before, seen = torch.get_num_threads(), set()
    eager = benchmark.RIVALS[benchmark.EAGER]

    def counting(*arguments):
        call = eager(*arguments)
        return lambda: seen.add(torch.get_num_threads()) or call()

    monkeypatch.setitem(benchmark.RIVALS, benchmark.EAGER, counting)
    _, comparison = packed.compare(source, rounds=1, batch=4, threads=2)
    assert seen == {2}
    assert torch.get_num_threads() == before
    assert str(comparison).startswith("2 threads each, by the clock\n")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with pytest.raises(ValueError, match="threads must be from 1 to the 2 processors of this machine, got 3"):
        packed.compare(source, rounds=1, threads=3)


@pytest.mark.parametrize("name", BINARIZERS)
def test_every_estimator_is_exported_and_runs_in_onnxruntime(name, tmp_path):
    """As weights and as activations: a checked file of standard operators whose outputs are torch's."""
    onnx = pytest.importorskip("onnx")
    options = {"num_classes": 4, "width": 4, "blocks": (1, 1), "weight_binarizer": name, "activation_binarizer": name}
    told = export.to_onnx(trained_like("resnet20", **options), (3, 32, 32), tmp_path / "n.onnx")
    assert told.apart <= 1, told
    nodes = onnx.load(tmp_path / "n.onnx").graph.node
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}


@pytest.mark.parametrize(
    ("name", "outputs"), [("bireal18", "num_classes"), ("sbpn", "num_keypoints"), ("bhrnet", "num_keypoints")]
)
def test_residual_networks_are_valid_and_hold_a_byte_a_weight(name, outputs, tmp_path):
    """onnx's checker and onnxruntime take them, any batch too; every binary weight is an int8 of -1 or +1."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    binary = {"weight_binarizer": "mlp", "activation_binarizer": "approx_sign"}
    network = trained_like(name, width=8, **{outputs: 4}, **binary)
    told = export.to_onnx(network, (3, 64, 64), tmp_path / "n.onnx")
    assert told.apart <= 1, told
    layers = [m for m in network.modules() if isinstance(m, bnc_repro.BinaryConv2d)]
    assert told.binary_weights == sum(layer.weight.numel() for layer in layers)
    assert told.float_bytes - told.size_bytes == pytest.approx(3 * told.binary_weights, rel=0.05)
    signs = [t for t in onnx.load(tmp_path / "n.onnx").graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert all(set(np.unique(onnx.numpy_helper.to_array(t))) == {-1, 1} for t in signs)
    x = torch.randn(3, 3, 64, 64)
    (y,) = onnxruntime.InferenceSession(tmp_path / "n.onnx").run(None, {"images": x.numpy()})
    with torch.no_grad():
        assert y.shape == tuple(network(x).shape)


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm], ids=["new", "old"])
def test_a_binary_layer_with_weight_norm_is_exported(norm, tmp_path):
    pytest.importorskip("onnx")
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))
    bnc_repro.binarize(model, weight_binarizer="ste")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the older one's age
        norm(model[1])
    told = export.to_onnx(model.eval(), (3, 9, 9), tmp_path / "n.onnx")
    assert (told.binary_weights, told.apart) == (81, 0)


def test_a_floor_row_is_exported_and_no_foreign_file_is_written_over(tmp_path):
    """softmax regression has no convolution that says its channels; a second export takes the first one's place."""
    pytest.importorskip("onnx")
    options = {"network": "softmax_regression", "weight_binarizer": None, "activation_binarizer": None}
    recipe = make_recipe(experiment="imagenet_resnet", profile="sample", data=_sample(), **options)
    network = judge.task_module(recipe.experiment).make_network(recipe, 10)
    labels = [str(label) for label in range(10)]
    checkpoint.save(tmp_path, {"network": network.state_dict(), "recipe": as_dict(recipe), "labels": labels})
    source, file, foreign = tmp_path / checkpoint.NAMES[0], tmp_path / "n.onnx", tmp_path / "f.onnx"
    foreign.write_bytes(b"somebody's")
    for _ in range(2):
        done = command("export", source, file)
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("0 binary weights")
    done = command("export", source, foreign)
    assert done.returncode == 1
    assert "f.onnx is there and was not made by this command: name another file, or remove it" in done.stderr
    assert foreign.read_bytes() == b"somebody's"


def test_without_onnx_the_install_line_is_said(monkeypatch, tmp_path):
    """One sentence, before anything is written."""
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'onnx>=.*' 'onnxruntime>=.*' \(extra `export`\)"):
        export.to_onnx(
            trained_like("resnet20", num_classes=4, width=4, blocks=(1, 1)), (3, 32, 32), tmp_path / "n.onnx"
        )
    assert not list(tmp_path.iterdir())


def test_a_packed_file_is_not_exported_and_a_device_has_no_folder_of_its_own(source, tmp_path):
    file = packed.pack_checkpoint(source, tmp_path / "small.safetensors")[0]
    with pytest.raises(ValueError, match="packed already; name the checkpoint that it was packed from"):
        export.export_checkpoint(file, tmp_path / "n.onnx")
    for device in ("/dev/stdin", "/proc/self/fd/0"):
        with pytest.raises(ValueError, match=r"no folder of its own: name a FILE\.safetensors"):
            packed.file_for(Path(device))


def test_an_output_is_refused_where_its_links_lead_nowhere_or_its_name_is_too_long(tmp_path):
    from bnc_repro.run import outputs

    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    with pytest.raises(ValueError, match=r"loop\.json cannot be written \(Too many levels of symbolic links\)"):
        outputs.check(loop, ".json")
    with pytest.raises(ValueError, match=r"cannot be written \(File name too long\): name another file"):
        outputs.check(tmp_path / f"{'a' * 300}.json", ".json")
    outputs.check(tmp_path / "new.json", ".json", loop)
    (tmp_path / "link.json").symlink_to(tmp_path / "not there yet.json")
    outputs.check(tmp_path / "link.json", ".json")
