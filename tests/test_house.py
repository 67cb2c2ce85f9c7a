"""The house rules, as tests: who may import whom, how code is written, what notebooks and files hold."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "bnc_repro"

# Imported where they are used: training must not need them. Tables and figures may.
EXTRAS = set("dvc matplotlib nbclient nbconvert nbformat pandas papermill pycocotools seaborn submitit".split())
MAY_IMPORT_EXTRAS = ("evidence.", "pages.")  # tables, figures and notebooks
LONGEST_MODULE = 350  # lines
LONGEST_NOTEBOOK_FUNCTION = 10  # lines
LARGEST_FILE = 20 * 2**20  # bytes


def files():
    """What git tracks or would track; in a tree without git, all but what the tools leave behind."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        names = [name for name in listed.stdout.split("\0") if name]
        return [path for name in names if (path := ROOT / name).is_file()]
    left_behind = set(".git .venv runs __pycache__ .ipynb_checkpoints .pytest_cache .ruff_cache".split())
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in left_behind]
        found += [Path(folder, name) for name in names]
    return found


FILES = files()
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def code_cells(path):
    """A notebook's code cells as Python: magics and shell lines are blanked."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield re.sub(r"^\s*[%!].*$", "", "".join(cell["source"]), flags=re.M)


NOTEBOOKS = {path: list(code_cells(path)) for path in FILES if path.suffix == ".ipynb"}


def imports(tree):
    """Dotted names of all that a tree imports, with the package's own in the form bnc_repro.module."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["bnc_repro" if node.level else "", node.module or ""]))
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == "bnc_repro" else {base}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                found.add(re.sub(r"^\.", "bnc_repro.", str(node.args[0].value)))
    return found


def at_import(tree):
    """What runs when a module is imported: its body and those of its classes, without functions."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        yield node
        pending += ast.iter_child_nodes(node)


@pytest.fixture(params=MODULES)
def module(request):
    return request.param


def test_the_arrows_of_the_house():
    """The contracts of pyproject.toml: folders in one order, no circle within a folder, recipes without torch."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


def test_module_fits_its_room(module):
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_MODULE


def test_module_opens_with_its_claim(module):
    assert ast.get_docstring(TREES[module])


def test_public_functions_and_classes_say_what_they_are(module):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [n for n in TREES[module].body if isinstance(n, kinds) and not n.name.startswith("_")]
    assert not [node.name for node in public if not ast.get_docstring(node)], "without a docstring"


def test_extras_are_imported_where_they_are_used(module):
    if module.startswith(MAY_IMPORT_EXTRAS):
        return
    found = set()
    for node in at_import(TREES[module]):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {dotted.split(".")[0] for dotted in imports(ast.Module([node], []))}
    assert not found & EXTRAS, f"{module}: import {sorted(found & EXTRAS)} inside the function that needs it"


def test_importing_the_library_needs_no_extra():
    """In a Python where the extras cannot be imported, everything but tables and figures can be."""
    names = [f"bnc_repro.{name}" for name in MODULES if not name.startswith((*MAY_IMPORT_EXTRAS, "__main__"))]
    code = (
        "import importlib, sys\n"
        f"for extra in {sorted(EXTRAS)}: sys.modules[extra] = None\n"
        f"for name in {names}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def python_sources():
    yield from ((path, path.read_text(encoding="utf-8")) for path in FILES if path.suffix == ".py")
    yield from ((path, cell) for path, cells in NOTEBOOKS.items() for cell in cells)


def test_checkpoints_are_loaded_as_weights_only():
    """torch.load runs what a foreign file tells it to, unless weights_only=True."""
    for path, source in python_sources():
        for node in ast.walk(ast.parse(source)):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"):
                continue
            said = {keyword.arg: keyword.value for keyword in node.keywords}
            value = said.get("weights_only")
            assert isinstance(value, ast.Constant), f"{path.relative_to(ROOT)}:{node.lineno}"
            assert value.value is True, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_notebooks_hold_no_training_loop():
    for path, cells in NOTEBOOKS.items():
        assert not [cell for cell in cells if ".backward(" in cell], f"{path.name} trains: call the library"


def test_notebooks_hold_no_long_function():
    for path, cells in NOTEBOOKS.items():
        for node in (node for cell in cells for node in ast.walk(ast.parse(cell))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= LONGEST_NOTEBOOK_FUNCTION, f"{path.name}: {node.name} belongs in the library"


# Spelled so that this file passes its own test.
MACHINE_PATH = re.compile(r"(?<![\w./~$}-])/(root|home|Users|work|opt)/[\w.]")
HOSTS = re.compile(
    r"(?i)\b(pypi|pythonhosted|download\.pytorch|registry\.npmjs|(repo|conda)\.anaconda|deb\.debian)"
    r"\.(org|com)\b"
)
OUTSIDE = "/".join(("..", "shared"))


def test_files_name_no_machine_no_registry_and_nothing_outside():
    found = []
    for path in FILES:
        content = path.read_bytes()
        if b"\0" in content[:8192]:
            continue
        text = content.decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            named = (OUTSIDE in line, f"{ROOT}/" in line, MACHINE_PATH.search(line), HOSTS.search(line))
            if any(named):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_no_file_is_large():
    large = [str(path.relative_to(ROOT)) for path in FILES if path.stat().st_size > LARGEST_FILE]
    assert not large


@pytest.mark.parametrize(
    "tool",
    [
        ["ruff", "check", "--no-cache", "--output-format=concise", "."],
        ["ruff", "format", "--no-cache", "--check", "src", "tests", "benchmarks", "docs", "tools", "requirements"],
        ["basedpyright", "--pythonpath", sys.executable],
        ["codespell"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_tools_find_nothing(tool):
    """Linter, formatter, types, spelling."""
    words = [Path(sys.executable).with_name(tool[0]), *tool[1:]]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
