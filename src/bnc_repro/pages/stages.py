"""What DVC's stages depend on beside files: fingerprints of code and of data folders, written each time."""

import ast
import hashlib
import json
from pathlib import Path

from ..recipe.clone import project_root
from ..recipe.profiles import experiment_section, experiments, recipe_of
from ..recipe.schema import EXPERIMENTS
from ..run.code import PACKAGE, file_of, imports, module_fingerprints, modules
from ..run.identity import data_fingerprint
from ..training.checkpoint import write_json
from . import notebook

READ = {"04-verdict": EXPERIMENTS, "07-what-binary-buys": ("imagenet_resnet", "coco_pose")}  # of several experiments


def notebook_modules(name: str) -> list[str]:
    """The modules that a notebook's stage runs: those that its cells import, `pages.notebook` and the command line, and
    of the experiments that it reads what their runs import."""
    named = {"pages.notebook"}
    for node in ast.walk(ast.parse("\n".join(notebook.code(name)))):
        module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        if isinstance(node, ast.ImportFrom) and module.split(".")[0] == PACKAGE.name:
            base = module.partition(".")[2]
            named |= {base} | {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
    skipped = {"run", "run.execute", "run.judge", "run.tasks"}  # whose imports are those of every experiment
    reached = waiting = {module for module in named - skipped if module and file_of(module)}
    while waiting:
        waiting = set().union(*map(imports, waiting)) - reached - skipped
        reached = reached | waiting
    read = READ.get(name) or filter(None, [notebook.STAGES[name]])
    return sorted({"__main__", *reached}.union(*map(modules, read)))


def write_code(folder: Path, profile: str) -> list[Path]:
    """What stages depend on instead of files of source: for each experiment of the profile and each notebook a file
    with the fingerprint of every module that it runs (without comments, docstrings and formatting), and of the
    notebook's cells (without outputs, ids and metadata)."""
    of_names = {name: modules(name) for name in experiments(profile)}
    of_names |= {name: notebook_modules(name) for name in notebook.STAGES}
    every = module_fingerprints(sorted(set().union(*of_names.values())))
    fingerprints = {name: {module: every[module] for module in names} for name, names in of_names.items()}
    for name in notebook.STAGES:
        cells = "\n\n".join(notebook.code(name)).encode()
        fingerprints[name][f"notebooks/{name}.ipynb"] = hashlib.sha256(cells).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in fingerprints.items():
        write_json(folder / f"{name}.json", content)
    return [folder / f"{name}.json" for name in fingerprints]


def write_state(experiment: str, profile: str, target: str | None) -> Path:
    """The fingerprint of each data folder of an experiment, null where there is none, as a file for stages."""
    section = experiment_section(experiment, profile)
    recipes = [recipe_of(experiment, profile, arm) for arm in section["arms"]]
    folders = {recipe.data.root: recipe.data.folder for recipe in recipes}
    path = project_root() / (target or f"runs/{profile}/data/{experiment}.json")
    if path.suffix != ".json":
        raise ValueError(f"--target {target} must end in .json, which says what will be in it")
    if path.exists() and not _is_state(path):
        raise ValueError(f"{path} is there and holds no state of data folders: name another file, or move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {root: data_fingerprint(folder) if folder.is_dir() else None for root, folder in folders.items()})
    return path


def _is_state(path: Path) -> bool:
    try:
        state = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(state, dict) and all(value is None or isinstance(value, str) for value in state.values())
