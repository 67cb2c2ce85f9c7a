"""The lock file as data: the conda environment made from it, and the lock without torch.

    python requirements/pins.py environment     # environment.yml, printed
    python requirements/pins.py without-torch   # the lock for a machine that brings its own torch, printed

Standard library only: it runs before anything is installed.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "lock.txt"
START = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[^\s;\\]+)")
TORCH_AND_CUDA = re.compile(r"(torch|torchvision|triton|(nvidia|cuda)-.*)")


def normalized(name):
    """The form in which the lock spells a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def entries(text):
    """The lock's requirements as (name, version, lines); comments above the first one are left out."""
    found = []
    for line in text.splitlines():
        if start := START.match(line):
            found.append((start["name"], start["version"], [line]))
        elif found:
            found[-1][2].append(line)
    return found


def asked_for(project):
    """Requirement strings that pyproject.toml names itself, in its order: core, extras, build."""
    extras = project["project"]["optional-dependencies"].values()
    groups = project["dependency-groups"].values()
    return [*project["project"]["dependencies"], *(r for part in (*extras, *groups) for r in part)]


def environment(project, text):
    """environment.yml: the oldest supported Python, and the lock's version of everything asked for."""
    versions = {name: version for name, version, _ in entries(text)}
    names = [normalized(re.match(r"[\w.-]+", r)[0]) for r in asked_for(project)]
    python = project["project"]["requires-python"].removeprefix(">=")
    pins = "".join(f"      - {name}=={versions[name]}\n" for name in dict.fromkeys(names))
    return (
        "# Made by `make lock` from pyproject.toml and requirements/lock.txt: the same versions for conda.\n"
        "#     conda env create -f environment.yml && conda activate bnc_repro\n"
        "name: bnc_repro\nchannels:\n  - conda-forge\ndependencies:\n"
        f"  - python={python}\n  - git\n  - make\n  - pip\n  - pip:\n{pins}      - -e .\n"
    )


def without_torch(text):
    """The lock less torch, torchvision and the CUDA packages that only they need."""
    return "".join("\n".join(lines) + "\n" for name, _, lines in entries(text) if not TORCH_AND_CUDA.fullmatch(name))


if __name__ == "__main__":
    what = sys.argv[1:]
    if what == ["environment"]:
        print(environment(tomllib.loads((ROOT / "pyproject.toml").read_text()), LOCK.read_text()), end="")
    elif what == ["without-torch"]:
        print(without_torch(LOCK.read_text()), end="")
    else:
        sys.exit(__doc__)
