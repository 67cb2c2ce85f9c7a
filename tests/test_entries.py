"""Other doors to the clone: torch.hub, Codespaces, Binder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnc_repro.__main__ import main, parser

ROOT = Path(__file__).resolve().parent.parent


def hub(code, cwd):
    """A Python elsewhere that loads the clone through torch.hub, without the clone's package at hand."""
    load = "load = lambda entry, **options: torch.hub.load(clone, entry, source='local', **options)"
    start = f"import sys, torch\nclone = {str(ROOT)!r}\n{load}\n"
    words = [sys.executable, "-c", start + code]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_hub_gives_networks_and_published_models(tmp_path):
    """A binary classifier with two-valued weights, a pose network, a packed model that computes, elsewhere."""
    code = """
network = load("binary_resnet20", num_classes=10, width=4).eval()
print(network(torch.randn(2, 3, 32, 32)).shape[1])
weights = [layer.binary_weight()[0].unique().numel() for layer in network.modules() if hasattr(layer, "binary_weight")]
print(sorted(set(weights)))
print(type(load("binary_sbpn", num_keypoints=17, weight_binarizer="ste")).__name__)
packed = load("packed", name="sample/fashion-mnist-binary")
print(packed(torch.zeros(3, 1, 28, 28)).shape)
print(sys.modules["bnc_repro"].__file__)
"""
    done = hub(code, tmp_path)
    assert done.returncode == 0, done.stderr
    outputs, values, pose, shape, file = done.stdout.splitlines()
    assert (outputs, values, shape) == ("10", "[2]", "torch.Size([3, 10])")
    assert pose
    assert Path(file).is_relative_to(ROOT / "src")


def test_a_packed_model_starts_without_the_compiler_and_the_fingerprints():
    """What takes seconds to import, and what no inference needs, stays away: torch's compiler, the code of runs."""
    code = """
import sys, torch, bnc_repro
bnc_repro.load("sample/fashion-mnist-binary")(torch.zeros(1, 1, 28, 28))
heavy = ("torch._dynamo", "torch._inductor", "bnc_repro.run.code", "torchvision", "pandas", "matplotlib")
print(sorted(set(heavy) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip().endswith("[]")


def test_the_hub_names_the_models_that_there_are(tmp_path):
    done = hub("load('packed', name='sample/none')", tmp_path)
    assert "there is no packed network sample/none; known: sample/fashion-mnist-" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "sweep linear_vs_soft --engine slurm --hours 2",
            "--hours means nothing here: a cluster's jobs end by --slurm",
        ),
        ("sweep linear_vs_soft --slurm time=5", "--slurm means nothing here: .* say --engine slurm too"),
        ("predict model.pt picture.png --above 0", "--above means nothing here: .* say --draw FILE.png too"),
        ("data state coco_pose --kind coco", "--kind means nothing here: an experiment's recipes say"),
        ("data check . --profile small", "--profile means nothing here: `data check` takes a folder"),
        ("data check . --target here", "--target means nothing here"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(words, sentence):
    """Before anything is read."""
    options = parser().parse_args(words.split())
    with pytest.raises(ValueError, match=sentence):
        options.function(options)


@pytest.mark.parametrize(
    "words",
    [
        "draw a b c --count 0",
        "draw a b c --above nan",
        "predict a b --above 1.5",
        "same-digits --seeds 0",
        "tune x --hours 0",
        "sweep x --jobs 99999999999",
        "run x --processes 5000",
    ],
)
def test_a_number_that_makes_no_sense_is_refused(words, capsys):
    """By argparse, which names the option."""
    with pytest.raises(SystemExit):
        parser().parse_args(words.split())
    assert f"argument {words.split()[-2]}: '{words.split()[-1]}' must be a " in capsys.readouterr().err


@pytest.mark.parametrize("words", [["evaluate", "x", "--data", ""], ["evaluate", ""], ["data", "check", ""]])
def test_an_empty_path_is_not_the_present_folder(words, capsys):
    """A variable that holds nothing."""
    with pytest.raises(SystemExit):
        parser().parse_args(words)
    assert "is empty: name a file or a folder" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["same-digits", "report", "publish", "data check x", "draw a b c", "evaluate x"])
def test_what_is_left_out_is_not_empty(words):
    """argparse reads a default that is text as if it had been said."""
    assert "" not in vars(parser().parse_args(words.split())).values()


def test_a_box_may_begin_left_of_its_picture(monkeypatch, capsys):
    """-5,1,2,3 looks like an option, and is none."""
    monkeypatch.setattr(sys, "argv", ["bnc_repro", "predict", "no.pt", "no.png", "--box", "-5,1,2,3", "--box=-1,1,2,3"])
    with pytest.raises(SystemExit, match=r"there is no checkpoint no\.pt"):
        main()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_two_seeds_are_one_too_many(command, monkeypatch):
    """--seed and --set seed."""
    monkeypatch.setattr(sys, "argv", ["bnc_repro", command, "linear_vs_soft", "--seed", "3", "--set", "seed=4"])
    with pytest.raises(SystemExit, match="--seed names it too; keep one of them"):
        main()


def test_a_name_that_is_no_text_is_still_said(tmp_path):
    """On a terminal that takes UTF-8 alone: the finding, with the bytes of the name."""
    for folder in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (tmp_path / folder).mkdir(parents=True)
    os.close(os.open(os.fsencode(tmp_path / "train") + b"/\xff.txt", os.O_CREAT))
    line = [sys.executable, "-m", "bnc_repro", "data", "check", str(tmp_path)]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT, env=strict)
    assert "holds 1 file(s) outside class folders, such as \\udcff.txt" in done.stdout + done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_nowhere(closed):
    """A shell that closes a command's streams gets its exit status, and no traceback in the others."""
    for words, status in (("list networks", 0), ("run linear_vs_soft --set epochs=x", 1)):
        line = f"{sys.executable} -m bnc_repro {words} {closed}"
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == status
        assert "Traceback" not in done.stderr


def test_codespaces_and_binder_open_the_fast_track():
    """Both install from the lock, unpack the data and let no notebook train."""
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["containerEnv"] == {"BNC_REPRO_REUSE": "only"}
    assert container["postCreateCommand"].startswith("make install")
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).is_file()
    for name in ("postBuild", "start"):
        script = ROOT / "binder" / name
        assert script.stat().st_mode & 0o111, f"{name} must be executable"
        subprocess.run(["sh", "-n", script], check=True)
    assert "requirements/lock.txt" in (ROOT / "binder" / "postBuild").read_text()
    told = subprocess.run(
        [ROOT / "binder" / "start", "env"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    assert "BNC_REPRO_REUSE=only" in told.stdout.splitlines()
