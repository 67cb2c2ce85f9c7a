"""Where a number comes from: random streams, the source that was run, the data it saw, the machine.

A run's fingerprint covers its recipe, its data and the source of every module it imports; a row made by other
code is therefore another run. The import closure is read from the source text, nothing is executed.
"""

import ast
import hashlib
import json
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).parent


def stream(seed: int, name: str) -> int:
    """The seed of the random stream `name` of a run: independent streams for network, order, classifier."""
    return int.from_bytes(hashlib.sha256(f"{name}/{seed}".encode()).digest()[:6], "big")


def imports(module: str, function: str | None = None) -> set[str]:
    """Modules of this package that `module` imports; of its functions only `function` counts, if one is named."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    body: list[ast.AST] = [tree]
    if function is not None:
        kept = [node for node in tree.body if not isinstance(node, ast.FunctionDef) or node.name == function]
        if not any(isinstance(node, ast.FunctionDef) and node.name == function for node in kept):
            raise ValueError(f"{module}.py has no function {function}")
        body = list(kept)
    found = set()
    for node in (inner for outer in body for inner in ast.walk(outer)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
    return {name for name in found if (PACKAGE / f"{name}.py").is_file()}


def closure(module: str, function: str | None = None) -> list[str]:
    """`module` and all that it imports within this package, directly or not, in alphabetical order."""
    seen, waiting = {module}, imports(module, function)
    while waiting:
        seen |= waiting
        waiting = set().union(*map(imports, waiting)) - seen
    return sorted(seen)


def source_fingerprint(modules: list[str]) -> str:
    """sha256 over the names and texts of `modules`."""
    digest = hashlib.sha256()
    for name in modules:
        digest.update(f"{name}\0".encode() + (PACKAGE / f"{name}.py").read_bytes() + b"\0")
    return digest.hexdigest()


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
    files = sorted(path for path in Path(root).rglob("*") if path.is_file())
    stamps = tuple((str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _data_fingerprint(str(root), stamps)


@lru_cache
def _data_fingerprint(root: str, stamps: tuple) -> str:
    small = sum(size for _, size, _ in stamps) < 2**30
    digest = hashlib.sha256()
    for name, size, _ in stamps:
        digest.update(f"{name}\0{size}\0".encode())
        if small:
            digest.update((Path(root) / name).read_bytes())
    return digest.hexdigest()


def run_fingerprint(identity: dict, data: str, source: str) -> str:
    """The twelve characters that name a run's folder."""
    text = json.dumps([identity, data, source], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def git_state(folder: Path) -> dict:
    """{"commit": ..., "dirty": ...} of the clone; None for both outside of one."""
    def ask(*words: str) -> str | None:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    changed = ask("status", "--porcelain", "--untracked-files=no", "--", "src", "params.yaml", "data.dvc")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def versions() -> dict:
    """Versions of what decides a number."""
    packages = {name: metadata.version(name) for name in ("torch", "torchvision", "numpy")}
    return {"python": platform.python_version(), "system": platform.system(), **packages}
