"""The environment is pinned once: lock, environment.yml, pyproject.toml, Makefile and CI say the same."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import bnc_repro

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements" / "lock.txt").read_text()
UV_LOCK = (ROOT / "requirements" / "uv.txt").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def load_pins():
    spec = importlib.util.spec_from_file_location("pins", ROOT / "requirements" / "pins.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pins = load_pins()
NOT_A_PIN = re.compile(r"://|index|find-links|trusted-host|@ |file:|(^|\s)-[efi]\b|(^|\s)/\w")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
LOCKED = {name: version for name, version, _ in pins.entries(LOCK)}


def make(*words, cwd=ROOT, **environment):
    """make as a person's shell would start it: without what an enclosing make hands down."""
    ours = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "TORCH", "CONFIRM", "DATA")
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        ["make", *words], cwd=cwd, env=inherited | environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("text", [LOCK, UV_LOCK], ids=["lock", "uv"])
def test_every_requirement_is_hashed(text):
    found = pins.entries(text)
    assert found
    for name, _, lines in found:
        hashes = [line for line in lines[1:] if HASH.fullmatch(line)]
        assert hashes, f"{name} has no hash"
        rest = [line for line in lines[1:] if line not in hashes and not line.startswith("    #")]
        assert not rest, f"{name}: {rest}"


@pytest.mark.parametrize("text", [LOCK, UV_LOCK], ids=["lock", "uv"])
def test_lock_names_no_host_and_no_path(text):
    for line in text.splitlines():
        assert not NOT_A_PIN.search(line), line


def test_one_version_for_every_python():
    names = [name for name, _, _ in pins.entries(LOCK)]
    assert len(names) == len(set(names))


def test_lock_satisfies_pyproject():
    for text in [*pins.asked_for(PROJECT), *PROJECT["build-system"]["requires"]]:
        requirement = Requirement(text)
        name = pins.normalized(requirement.name)
        assert name in LOCKED, f"{name} is not in the lock: make lock"
        assert requirement.specifier.contains(LOCKED[name]), f"{text}: the lock has {LOCKED[name]}: make lock"


def test_build_backend_is_pinned():
    """The editable install builds without fetching: what [build-system] asks for is in the lock."""
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


def test_environment_pins_equal_the_locks():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    pinned = dict(line.split("==") for line in pip if line != "-e .")
    assert pinned == {name: LOCKED[name] for name in pinned}
    assert set(pinned) == {pins.normalized(Requirement(text).name) for text in pins.asked_for(PROJECT)}
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert f"python={oldest}" in environment["dependencies"]


def test_environment_is_what_make_lock_writes():
    assert (ROOT / "environment.yml").read_text() == pins.environment(PROJECT, LOCK)


def test_lock_without_torch_lacks_torch_and_cuda_alone():
    """TORCH=own installs this: nothing in it may bring torch back, and nothing else may be missing."""
    left = {name for name, _, _ in pins.entries(pins.without_torch(LOCK))}
    gone = set(LOCKED) - left
    assert {"torch", "torchvision", "triton"} <= gone
    for name in gone - {"torch", "torchvision"}:
        assert name == "triton" or name.startswith(("nvidia-", "cuda-")), name
    assert not [name for name in left if "cuda" in name or "nvidia" in name]


def test_version_is_said_once():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == bnc_repro.__version__
    assert f"## [{bnc_repro.__version__}] - " in (ROOT / "CHANGELOG.md").read_text()


def test_help_lists_every_public_target():
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.M)
    shown = make("help").stdout
    listed = " ".join(re.findall(r"^make (.{15}) \S", shown, re.M)).split()
    assert set(listed) == set(phony.split()) - {"again"}
    assert make().stdout == shown, "help is what make says when nothing is asked"


def test_ci_runs_make_test_and_elsewhere_the_library():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    assert code == ["set -eu", 'cd "$(dirname "$0")/.."', "exec make test"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    commands = {job: [step["run"] for step in it["steps"] if "run" in step] for job, it in workflow["jobs"].items()}
    install, of_library = commands.pop("library")
    assert commands == {"quick": ["make test ARGS='-m \"not slow\"'"], "test": ["make test"]}
    assert install == "python -m pip install --editable .[packed,test]"
    *words, marks, one, two, three, four, five = shlex.split(of_library)
    assert " ".join([*words, marks]) == "python -m pytest -n auto -m not slow"
    assert all((ROOT / path).exists() for path in (one, two, three, four, five))


@pytest.fixture
def bare_copy(tmp_path):
    """The files an install reads, in an empty folder."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "requirements", copy / "requirements")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.mark.parametrize(
    ("version", "status", "said"),
    [("3.10", 0, "is Python 3.10, and this needs 3.11 or newer"), ("", 127, "does not run")],
)
def test_a_python_that_is_too_old_stops_first(bare_copy, tmp_path, version, status, said):
    """One sentence with the remedy, before anything is made."""
    python = tmp_path / "python3-stub"
    python.write_text(f"#!/bin/sh\necho {version}\nexit {status}\n")
    python.chmod(0o755)
    for target in ("install", "repro", "test"):
        done = make(target, cwd=bare_copy, PYTHON=str(python))
        assert done.returncode != 0
        sentence, *rest = done.stderr.splitlines()
        assert said in sentence
        assert "PYTHON=python3.12 make install" in sentence
        assert all(line.startswith("make") for line in rest)
        assert not (bare_copy / ".venv").exists()


def test_an_unknown_torch_stops_first(bare_copy):
    done = make("install", "TORCH=mine", cwd=bare_copy)
    assert done.returncode != 0
    assert "TORCH=mine is not known" in done.stderr
    assert not (bare_copy / ".venv").exists()


def test_runs_are_not_removed_without_confirmation(bare_copy):
    row = bare_copy / "runs" / "sample" / "row.json"
    row.parent.mkdir(parents=True)
    row.write_text("{}")
    done = make("clean-runs", cwd=bare_copy)
    assert done.returncode != 0
    assert "CONFIRM=1" in done.stdout
    assert row.exists()
    assert make("clean", cwd=bare_copy).returncode == 0
    assert row.exists()
    assert make("clean-runs", "CONFIRM=1", cwd=bare_copy).returncode == 0
    assert not row.exists()
