"""The code that a run imports: its modules, their fingerprints, its commit.

A fingerprint covers the source of every module that a run imports, without comments, docstrings and formatting; a row
made by other code is therefore another run, unless `ledger` says that both give the same digits. The import closure is
read from the source text, nothing is executed. Modules are named below the package, as in "layers.binary"; a folder's
`__init__` goes by the folder's name, the package's own is no part of any run.
"""

import ast
import hashlib
import json
import platform
import subprocess
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path

from .source import meaning

PACKAGE = Path(__file__).parent.parent
# The task of each experiment; a run imports the one it needs.
TASK_MODULES = {"imagenet_resnet": "images.task", "linear_vs_soft": "images.task", "coco_pose": "poses.task"}
DIGITS = 16  # of a fingerprint in a row
# The package's own sources, read when this module is: an edit after that is not the code that runs. An editor may have
# left other files beside them.
TEXTS = {
    file: file.read_text(encoding="utf-8", errors="replace")
    for file in sorted(PACKAGE.rglob("[!.]*.py"))
    if file.is_file()
}


def file_of(module: str, package: Path | None = None) -> Path | None:
    """The source file of a module, or of a folder's `__init__`; None if there is none of that name."""
    path = (package or PACKAGE) / module.replace(".", "/")
    files = path.with_suffix(".py"), path / "__init__.py"
    return next((file for file in files if (file in TEXTS if package is None else file.is_file())), None)


def _text(file: Path) -> str:
    return TEXTS[file] if file in TEXTS else file.read_text(encoding="utf-8")


def imports(module: str, package: Path | None = None) -> set[str]:
    """Modules of this package (or of a copy of it in the folder `package`) that `module` imports, and the folders that
    they lie in."""
    file = file_of(module, package)
    assert file is not None, module
    folder = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    names = set()
    for level, source, imported in _relative_imports(_text(file)):
        base = ".".join(filter(None, [*folder[: len(folder) - level + 1], *source.split(".")]))
        names |= {base} | {f"{base}.{name}".lstrip(".") for name in imported}
    names |= {name.rpartition(".")[0] for name in names | {module}}
    return {name for name in names if name and file_of(name, package)} - {module}


@lru_cache(1024)
def _relative_imports(text: str) -> list[tuple[int, str, list[str]]]:
    """The level, the module and the names of each `from .module import name` in a source."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.level]
    return [(node.level, node.module or "", [alias.name for alias in node.names]) for node in nodes]


def closure(start: set[str], without: set[str], package: Path | None = None) -> list[str]:
    """The modules `start` and all that they import within the package, directly or not, in alphabetical order; those
    in `without` are not entered."""
    modules_found, waiting = set(start), set(start)
    while waiting:
        waiting = set().union(*(imports(module, package) for module in waiting)) - modules_found - without
        modules_found |= waiting
    return sorted(modules_found)


def modules(experiment: str, package: Path | None = None) -> list[str]:
    """The modules that a run of `experiment` imports, and that its fingerprint covers."""
    task = TASK_MODULES[experiment]
    return closure({"run.execute", task}, set(TASK_MODULES.values()) - {task}, package)


def module_fingerprints(names: list[str], package: Path | None = None) -> dict[str, str]:
    """module -> sha256 of its code without comments, docstrings and formatting."""
    files = {name: file for name in names if (file := file_of(name, package))}
    return {name: _text_fingerprint(_text(file)) for name, file in files.items()}


@lru_cache(1024)
def _text_fingerprint(text: str) -> str:
    return hashlib.sha256(meaning(text).encode()).hexdigest()[:DIGITS]


def source_fingerprint(names: list[str], package: Path | None = None) -> str:
    """sha256 over the names and the code of modules."""
    text = json.dumps(module_fingerprints(names, package), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


@cache
def source_of(experiment: str) -> str:
    """The source fingerprint of the code that runs in this process, of one experiment."""
    return source_fingerprint(modules(experiment))


def git_state() -> dict:
    """{"commit": ..., "dirty": ...} of the clone that this package's code lies in, wherever the process stands; None
    for both outside of one, and where git is not installed. Files that git does not know are a difference too."""

    def ask(*words: str) -> str | None:
        try:
            answer = subprocess.run(["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, check=False)
        except OSError:
            # No program of that name here: the row is worth more than its commit.
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    if ask("ls-files", "--error-unmatch", "__init__.py") is None:  # installed, say in a clone's own environment
        return {"commit": None, "dirty": None}
    paths = [f":/{name}" for name in ("src", "params.yaml", "pipelines", "data.dvc")]
    changed = ask("status", "--porcelain", "--untracked-files=all", "--", *paths)
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def versions() -> dict:
    """Versions of what decides a number."""
    packages = {name: metadata.version(name) for name in ("torch", "torchvision", "numpy")}
    return {"python": platform.python_version(), "system": platform.system(), **packages}
