"""A number changed in a row by hand is found in each page that says it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from bnc_repro.__main__ import main
from bnc_repro.pages import publish, sources, stale

ROOT = Path(__file__).parents[2]
KEPT = ("README.md", "docs", "notebooks", "params.yaml", "paper.csv", "pipelines", "results")


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A clone's pages and rows, elsewhere, and the process within it."""
    for name in KEPT:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def raised(root, profile, experiment, arm, by):
    """A row of that arm in results/, with its headline raised by hand."""
    for path in sorted((root / "results" / profile / experiment).glob("*.json")):
        row = json.loads(path.read_text())
        if row["arm"] == arm and row["status"] == "finished":
            row["metrics"][row["headline"]] += by
            path.write_text(json.dumps(row))
            return row
    raise AssertionError(arm)


def command(root):
    words = [sys.executable, "-m", "bnc_repro", "stale"]
    return subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)


def test_the_published_pages_are_not_stale():
    assert stale.stale(ROOT) == []


def test_rows_of_other_code_are_named(copy):
    """One row with a source that nothing joins to today's: its folder, how many, and what to do."""
    path = sorted((copy / "results/presets/linear_vs_soft").glob("*.json"))[0]
    row = json.loads(path.read_text())
    row["fingerprints"]["source"] = "0123456789abcdef"
    path.write_text(json.dumps(row))
    (line,) = [line for line in stale.stale(copy) if "rows by code" in line]
    assert line.startswith("results/presets/linear_vs_soft, 1 of ")
    assert "(0123456789abcdef): `make same-digits` joins the two" in line


@pytest.mark.slow
def test_the_command_names_page_and_block(copy, monkeypatch, capsys):
    """Status 0 and a sentence before, status 1 and the block with what it says and what its rows say after."""
    monkeypatch.setattr(sys, "argv", ["bnc_repro", "stale"])
    main()
    assert capsys.readouterr().out == "nothing is stale: every page says what its rows say\n"
    raised(copy, "small", "linear_vs_soft", first_arm(copy), 7.0)
    after = command(copy)
    assert after.returncode == 1, after.stderr
    lines = after.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("README.md, block answer, of results/small/linear_"))
    assert lines[at + 1].startswith("    says: ")
    assert lines[at + 2].startswith("    rows say: ")
    assert lines[at + 1].partition(": ")[2] in (copy / "README.md").read_text()
    assert lines[at + 2].partition(": ")[2] not in (copy / "README.md").read_text()
    assert any(line.startswith("docs/real-data-verdict.md, block small") for line in lines)
    assert any(line.startswith("notebooks/04-verdict.ipynb, cell small-answer") for line in lines)
    assert not any("results/sample" in line for line in lines)


def first_arm(root):
    """An arm of the learnt linear function."""
    rows = [json.loads(path.read_text()) for path in (root / "results/small/linear_vs_soft").glob("*.json")]
    return min(row["arm"] for row in rows if row["estimator"] == "linear")


def test_a_row_of_the_sample_is_in_figure_cells_and_card(copy):
    row = raised(copy, "sample", "imagenet_resnet", "binary", 3.0)
    lines = stale.stale(copy)
    assert any(line.startswith("README.md, block verdict, of results/sample") for line in lines)
    assert any(line.startswith(f"{publish.FIGURE}, of results/sample") for line in lines)
    cells = {line.partition(",")[0] for line in lines if line.startswith("notebooks/") and "results/sample" in line}
    assert {"notebooks/01-imagenet-resnet.ipynb", "notebooks/04-verdict.ipynb"} <= cells
    assert "notebooks/02-coco-pose.ipynb" not in cells
    if row["seed"] == 0:  # the seed that is packed
        assert any(re.match(r"results/models/sample/.*binary\.md, of results/sample/imagenet", line) for line in lines)


def test_layout_is_no_change(copy):
    """A row written with other spaces and another order of keys holds the same numbers."""
    path = next((copy / "results" / "sample" / "imagenet_resnet").glob("*.json"))
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items())), indent=4))
    assert stale.stale(copy) == []


def test_a_cell_stands_on_what_its_names_stand_on():
    cells = [
        ("read", 'rows = stored("small", "coco_pose")\nother = 1'),
        ("derived", "means = [row for row in rows]"),
        ("used", "print(means)"),
        ("unused", "print(other)"),
        ("loop", "for own in rows:\n    print(own)"),
        ("after", "own = 2\nprint(own)"),
        ("here", 'run_arms("linear_vs_soft", profile, seeds)'),
        ("all", "[published('small', name) for name in names]"),
        ("speed", "speed.published()"),
        ("again", "rows = []\nprint(rows)"),
    ]
    small = {"results/small/coco_pose"}
    assert sources.stands_on(cells) == {
        "read": small,
        "derived": small,
        "used": small,
        "unused": set(),
        "loop": small,
        "after": set(),
        "here": {"results/sample/linear_vs_soft"},
        "all": {"results/small"},
        "speed": {"results/packed.csv"},
        "again": small,  # its first statement still read the name
    }


def test_outputs_without_a_signature_are_stale(copy):
    """Whoever edits outputs by hand, or keeps them without `make publish`, is found."""
    path = copy / "notebooks" / "03-linear-vs-soft.ipynb"
    notebook = nbformat.read(path, 4)
    (cell,) = (cell for cell in notebook.cells if cell.id == "answer")
    del cell.metadata[sources.KEY]
    nbformat.write(notebook, path)
    (line,) = stale.stale(copy)
    assert line.startswith("notebooks/03-linear-vs-soft.ipynb, cell answer, of results/sample/linear_vs_soft")
