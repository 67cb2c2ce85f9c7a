"""The wheel, built and installed outside of the clone: the library works there, and what needs the clone says so."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnc_repro.images.task import make_network
from bnc_repro.recipe.build import as_dict, make_recipe
from bnc_repro.training import checkpoint

ROOT = Path(__file__).resolve().parent.parent
PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
pytestmark = pytest.mark.slow
NEEDS_THE_CLONE = [
    *("run linear_vs_soft", "sweep linear_vs_soft", "tune linear_vs_soft", "list rows", "data state linear_vs_soft"),
    *("notebook 00-binarizing-by-classification", "report", "code", "same-digits", "publish"),
]
POSIX_MODULES = ["fcntl", "resource", "pwd", "grp", "termios"]
OF_OS = ["sched_getaffinity", "sched_setaffinity", "fork", "killpg", "getuid", "setsid", "getpgid", "sysconf"]
OF_SIGNAL = ["SIGKILL", "SIGHUP", "SIGALRM", "alarm", "pthread_sigmask"]


@pytest.fixture(scope="session")
def outside(tmp_path_factory):
    """An empty folder, and a function that runs a Python there which finds the wheel in place of the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    site, empty = folder / "site", folder / "empty"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    empty.mkdir()

    def python(*words: object) -> subprocess.CompletedProcess:
        command = [sys.executable, *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": str(site)}
        return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)

    where = python("-c", "import bnc_repro; print(bnc_repro.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(site), where.stdout + where.stderr
    return empty, python


@pytest.fixture(scope="session")
def pictures(outside):
    """Class folders of two classes, and a checkpoint of an untrained network for them, as a run writes it."""
    empty, _ = outside
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("bright", "dark"):
            (empty / "pictures" / split / name).mkdir(parents=True)
            for count in range(3):
                pixels = draw.integers(128 * (name == "bright"), 128 + 127 * (name == "bright"), (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(empty / "pictures" / split / name / f"{count}.png")
    data = {"root": "data/elsewhere", "kind": "imagefolder", "image_size": [32, 32]}
    values = {"network": "resnet20", "width": 4, "blocks": [1, 1], "stem": "half", "data": data}
    recipe = make_recipe(experiment="imagenet_resnet", profile="small", **values)
    network = make_network(recipe, 2)
    state = {"network": network.state_dict(), "recipe": as_dict(recipe), "labels": ["bright", "dark"]}
    checkpoint.save(empty, state)
    return empty / "pictures", empty / checkpoint.NAMES[0]


def test_the_python_of_the_readme_runs(outside):
    """Its ten lines, then the packing of a network by name."""
    empty, python = outside
    (empty / "readme.py").write_text("\n".join(PYTHON.findall((ROOT / "README.md").read_text())))
    ran = python("readme.py")
    assert ran.returncode == 0, ran.stderr
    assert "binary" in ran.stdout


def test_a_checkpoint_is_judged_on_a_folder(outside, pictures):
    """`data check`, `evaluate`, `predict` and `pack` know no clone; the packed file says what its checkpoint says."""
    _, python = outside
    folder, file = pictures
    checked = python("-m", "bnc_repro", "data", "check", folder)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    judged = python("-m", "bnc_repro", "evaluate", file, "--data", folder)
    assert judged.returncode == 0, judged.stderr
    metrics = json.loads(judged.stdout)
    assert 0 <= metrics["top1"] <= 100
    picture = folder / "val" / "dark" / "0.png"
    guessed = python("-m", "bnc_repro", "predict", file, picture)
    assert guessed.returncode == 0, guessed.stderr
    assert json.loads(guessed.stdout)["picture"] == str(picture)
    packed = python("-m", "bnc_repro", "pack", file)
    assert packed.returncode == 0, packed.stderr
    of_packed = python("-m", "bnc_repro", "evaluate", packed.stdout.splitlines()[-1], "--data", folder)
    assert json.loads(of_packed.stdout)["test_loss"] == pytest.approx(metrics["test_loss"], rel=1e-3)


@pytest.mark.parametrize("words", ["list binarizers", "list networks", "list experiments", "environment"])
def test_names_are_listed_without_a_clone(outside, words):
    listed = outside[1]("-m", "bnc_repro", *words.split())
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout


@pytest.mark.parametrize("words", NEEDS_THE_CLONE)
def test_what_needs_the_clone_says_so_in_one_sentence(outside, words):
    refused = outside[1]("-m", "bnc_repro", *words.split())
    assert refused.returncode == 1
    (sentence,) = refused.stderr.splitlines()
    assert "is not inside a clone of bnc_repro" in sentence
    assert not refused.stdout


def test_an_extra_that_is_not_there_is_named(outside):
    """One sentence with the extra that brings it, never a traceback."""
    hidden = "import runpy, sys; sys.modules['matplotlib'] = None; sys.argv[1:] = 'draw results.json . a.png'.split()\n"
    refused = outside[1]("-c", hidden + "runpy.run_module('bnc_repro', run_name='__main__')")
    assert refused.returncode == 1
    (sentence,) = refused.stderr.splitlines()
    assert "matplotlib, which is not installed: pip install 'matplotlib>=3.9' (extra `notebooks`)" in sentence


def test_a_checkpoint_without_data_names_both_ways(outside, pictures):
    """Its own data lies in a clone: evaluation names the clone and the option that does without."""
    refused = outside[1]("-m", "bnc_repro", "evaluate", pictures[1])
    assert refused.returncode == 1
    (sentence,) = refused.stderr.splitlines()
    assert "--data FOLDER" in sentence


def test_the_library_imports_without_what_windows_lacks(outside):
    """No module of POSIX, no signal and no call of the operating system that Windows does not have."""
    code = f"""
import os, signal, sys, torch
for name in {POSIX_MODULES}:
    sys.modules[name] = None
for module, names in ((os, {OF_OS}), (signal, {OF_SIGNAL})):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
import bnc_repro, bnc_repro.run.judge, bnc_repro.commands, bnc_repro.__main__
for name in bnc_repro.__all__:
    getattr(bnc_repro, name)
from bnc_repro import binarize, create_network, pack
network = create_network("resnet20", num_classes=2, width=4, weight_binarizer="mlp", activation_binarizer="ste")
network(torch.randn(2, 3, 32, 32)).sum().backward()
print(pack(network.eval(), (32, 32))(torch.randn(1, 3, 32, 32)).shape[1])
print(binarize(torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(3))), weight_binarizer="linear"))
"""
    ran = outside[1]("-c", code)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("2\n")
