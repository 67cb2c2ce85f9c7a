"""Which rows a cell of a notebook stands on, read from its code, and the digests by which a change of them shows.

A cell stands on the rows that it reads and on those behind the names that it uses. `sign` writes the digests beside
the cell's outputs when these are kept; nothing is executed here.
"""

import ast
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ..recipe.schema import PROFILES

DIGITS = 16  # of a digest
KEY = "rows"  # of a cell's metadata: {path in the clone: digest}
READERS = {  # call -> position of the profile's and the experiment's name among its arguments
    "stored": (0, 1),
    "published": (0, 1),
    "run_arms": (1, 0),
}
FILES = {
    "speed.published": "results/packed.csv",
    "speed.here": "results/packed.csv",
    "tuning.table": "results/small/tuning",
    "plots.rates": "results/small/tuning",
}


def stands_on(cells: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Cell id -> paths below results/ (a file, an experiment's folder, or a profile's where the code does not name the
    experiment), of a notebook's code cells (id, source) in order."""
    behind: dict[str, set[str]] = {}
    paths = {}
    for name, source in cells:
        paths[name] = set()
        for statement in ast.parse(source).body:
            used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
            read = _read(statement).union(*(behind.get(word, ()) for word in used))
            behind |= dict.fromkeys(_assigned(statement), read)
            paths[name] |= read
    return paths


def _assigned(statement: ast.stmt) -> set[str]:
    """The names that a statement's assignments bind; those of its loops stay its own."""
    targets = [target for node in ast.walk(statement) if isinstance(node, ast.Assign) for target in node.targets]
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def _read(statement: ast.stmt) -> set[str]:
    """The paths that a statement's own calls read."""
    paths = set()
    for node in ast.walk(statement):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and called in READERS:
            profile, experiment = (
                str(argument.value) if isinstance(argument, ast.Constant) else None
                for argument in (node.args[position] for position in READERS[called])
            )
            # What a notebook calls `profile` is the sample where its outputs are kept.
            paths.add("/".join(filter(None, ["results", profile or PROFILES[0], experiment])))
        elif called in FILES:
            paths.add(FILES[called])
    return paths


def digest(path: Path) -> str:
    """sha256 over the rows in a file or folder, whatever their layout; of nothing where there is none."""
    files = [path] if path.is_file() else sorted(path.rglob("*.json"))
    total = hashlib.sha256()
    for file in files:
        text = file.read_text(encoding="utf-8")
        content = json.dumps(json.loads(text), sort_keys=True) if file.suffix == ".json" else text
        total.update(f"{file.name}\n{content}\n".encode())
    return total.hexdigest()[:DIGITS]


def read_by(cells: Iterable[tuple[str, str]], root: Path) -> dict[str, str]:
    """Path -> digest of the published rows that a notebook's code cells (id, source) stand on, but for those of the
    first profile, which are made where it runs."""
    paths = set().union(*stands_on(cells).values())
    return {path: digest(root / path) for path in sorted(paths) if not path.startswith(f"results/{PROFILES[0]}")}


def sign(cells: list, root: Path, read: dict[str, str]) -> None:
    """Write into the metadata of a notebook's code cells the digests of the rows that their outputs stand on: as they
    were `read` when the cells were run, where that is known."""
    code = [cell for cell in cells if cell.cell_type == "code"]
    for name, paths in stands_on((cell.id, cell.source) for cell in code).items():
        (cell,) = (cell for cell in code if cell.id == name)
        cell.metadata.pop(KEY, None)
        if paths and cell.outputs:
            cell.metadata[KEY] = {path: read.get(path) or digest(root / path) for path in sorted(paths)}
