"""What DVC's stages depend on beside files: fingerprints of code and of data folders, written each time."""

import hashlib
import re
from pathlib import Path

from . import config, notebook, provenance
from .checkpoint import write_json


def modules(name: str) -> list[str]:
    """The modules that a notebook's stage runs: those that its cells name, this one, and of the experiments that it
    reads what their runs import."""
    cells = "\n".join(notebook.code(name))
    named = {part for line in re.findall(r"^from bnc_repro import (.+)", cells, re.M) for part in line.split(", ")}
    named |= set(re.findall(r"^from bnc_repro\.(\w+)", cells, re.M)) | {"notebook", "__main__"}
    found = set(provenance.closure({"notebook"} | named - {"run", "__main__"}, {"run"}))
    experiments = config.EXPERIMENTS if name == "04-verdict" else filter(None, [notebook.STAGES[name]])
    return sorted(found.union({"__main__"}, *map(provenance.modules, experiments)))


def write_code(folder: Path, profile: str) -> list[Path]:
    """What stages depend on instead of files of source: for each experiment of the profile and each notebook a file
    with the fingerprint of every module that it runs (without comments, docstrings and formatting), and of the
    notebook's cells (without outputs, ids and metadata)."""
    wanted = {name: {"modules": provenance.modules(name)} for name in config.experiments(profile)}
    wanted |= {name: {"modules": modules(name), "cells": "\n\n".join(notebook.code(name))} for name in notebook.STAGES}
    folder.mkdir(parents=True, exist_ok=True)
    for name, parts in wanted.items():
        fingerprints = provenance.module_fingerprints(parts["modules"])
        if "cells" in parts:
            fingerprints[f"notebooks/{name}.ipynb"] = hashlib.sha256(parts["cells"].encode()).hexdigest()
        write_json(folder / f"{name}.json", fingerprints)
    return [folder / f"{name}.json" for name in wanted]


def write_state(experiment: str, profile: str, target: str | None) -> Path:
    """The fingerprint of each data folder of an experiment, null where there is none, as a file for stages."""
    section = config.experiment_section(experiment, profile)
    recipes = [config.recipe(experiment, profile, arm) for arm in section["arms"]]
    folders = {recipe.data.root: recipe.data.folder for recipe in recipes}
    path = config.project_root() / (target or f"runs/{profile}/data/{experiment}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {root: provenance.data_fingerprint(folder) if folder.is_dir() else None
                      for root, folder in folders.items()})  # fmt: skip
    return path
