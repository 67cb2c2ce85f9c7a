"""Where a number comes from: random streams, the source that was run, the data it saw, the machine.

A run's fingerprint covers its recipe, its data and the source of every module it imports, without comments, docstrings
and formatting; a row made by other code is therefore another run, unless `ledger` says that both give the same digits.
The import closure is read from the source text, nothing is executed.
"""

import ast
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from .source import meaning

PACKAGE = Path(__file__).parent
# The task of each experiment; a run imports the one it needs.
TASK_MODULES = {"imagenet_resnet": "classify", "linear_vs_soft": "classify", "coco_pose": "pose"}
DIGITS = 16  # of a fingerprint in a row


def stream(seed: int, name: str) -> int:
    """The seed of the random stream `name` of a run: independent streams for network, order, classifier."""
    return int.from_bytes(hashlib.sha256(f"{name}/{seed}".encode()).digest()[:6], "big")


def imports(module: str, package: Path | None = None) -> set[str]:
    """Modules of this package (or of a copy of it in the folder `package`) that `module` imports."""
    folder, found = package or PACKAGE, set()
    for node in ast.walk(ast.parse((folder / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
    return {name for name in found if (folder / f"{name}.py").is_file()}


def closure(start: set[str], without: set[str], package: Path | None = None) -> list[str]:
    """The modules `start` and all that they import within the package, directly or not, in alphabetical order; those
    in `without` are not entered."""
    found, waiting = set(start), set(start)
    while waiting:
        waiting = set().union(*(imports(module, package) for module in waiting)) - found - without
        found |= waiting
    return sorted(found)


def modules(experiment: str, package: Path | None = None) -> list[str]:
    """The modules that a run of `experiment` imports, and that its fingerprint covers."""
    task = TASK_MODULES[experiment]
    return closure({"run", task}, set(TASK_MODULES.values()) - {task}, package)


def module_fingerprints(names: list[str], package: Path | None = None) -> dict[str, str]:
    """module -> sha256 of its code without comments, docstrings and formatting."""
    texts = ((name, ((package or PACKAGE) / f"{name}.py").read_text()) for name in names)
    return {name: hashlib.sha256(_meaning(text).encode()).hexdigest()[:DIGITS] for name, text in texts}


_meaning = lru_cache(meaning)


def source_fingerprint(names: list[str], package: Path | None = None) -> str:
    """sha256 over the names and the code of modules."""
    text = json.dumps(module_fingerprints(names, package), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


# Read when this module is: an edit after that is not the code that runs.
SOURCES = {experiment: source_fingerprint(modules(experiment)) for experiment in TASK_MODULES}


def recipe_fingerprint(identity: dict) -> str:
    """sha256 of what makes two recipes the same, `config.identity`."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:DIGITS]


def file_fingerprint(path: str | Path) -> str:
    """sha256 of one file's content. Raises ValueError if it is not there."""
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}; correct the path")
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def data_fingerprint(root: str | Path) -> str:
    """sha256 over the relative paths and contents below `root` (paths and sizes where it exceeds 1 GiB); of the
    manifest alone where there is one, as a run compares it with the files."""
    if (Path(root) / "manifest.csv").is_file():
        return file_fingerprint(Path(root) / "manifest.csv")
    files = sorted(_files(Path(root)))
    stamps = tuple((str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _data_fingerprint(str(root), stamps)


def _files(root: Path) -> Iterator[Path]:
    """Every file below `root`, through linked folders too. Raises ValueError where a link leads back to where it
    lies."""
    waiting = [(root, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        real = folder.resolve()
        if real in above:
            raise ValueError(f"{folder} links to a folder that it lies in; remove the link")
        for path in folder.iterdir():
            if path.is_dir():
                waiting.append((path, above | {real}))
            elif path.is_file():
                yield path


@lru_cache
def _data_fingerprint(root: str, stamps: tuple) -> str:
    small = sum(size for _, size, _ in stamps) < 2**30
    digest = hashlib.sha256()
    for name, size, _ in stamps:
        digest.update(f"{name}\0{size}\0".encode())
        if small:
            digest.update((Path(root) / name).read_bytes())
    return digest.hexdigest()


def run_fingerprint(parts: dict[str, str]) -> str:
    """The twelve characters that name a run's folder, from the fingerprints of recipe, data and source."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def git_state() -> dict:
    """{"commit": ..., "dirty": ...} of the clone that this package's code lies in, wherever the process stands; None
    for both outside of one. Files that git does not know are a difference too."""
    def ask(*words: str) -> str | None:
        done = subprocess.run(["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    if ask("ls-files", "--error-unmatch", "__init__.py") is None:  # installed, say in a clone's own environment
        return {"commit": None, "dirty": None}
    paths = [f":/{name}" for name in ("src", "params.yaml", "pipelines", "data.dvc")]
    changed = ask("status", "--porcelain", "--untracked-files=all", "--", *paths)
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def versions() -> dict:
    """Versions of what decides a number."""
    packages = {name: metadata.version(name) for name in ("torch", "torchvision", "numpy")}
    return {"python": platform.python_version(), "system": platform.system(), **packages}
