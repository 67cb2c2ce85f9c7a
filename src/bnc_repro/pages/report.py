"""The fast track: every page made anew from published rows, nothing trained.

Cells that need a trained network (tagged `checkpoint`) keep their committed outputs; all others are executed.
"""

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat

from ..recipe.clone import project_root
from . import notebook

NOTE = (
    "**Made from published rows: nothing was trained on this machine.** Each row names the commit and the machine that "
    "trained it; outputs of cells that need a trained network are those of the published notebook."
)

LONGEST = "07-what-binary-buys"  # it measures times


def report(profile: str = "sample") -> list[Path]:
    """Execute every stage's notebook from the rows in results/, side by side, and return the pages' paths.

    They stand in runs/<profile>/report/. Raises ValueError with the notebook's last line where one fails, for
    instance because a row is not published.
    """

    def page(name: str) -> str:
        words = [sys.executable, "-m", "bnc_repro", "report", "--profile", profile, "--page", name]
        process = subprocess.run(words, capture_output=True, text=True, check=False)
        if process.returncode:
            lines = process.stderr.strip().splitlines() or [f"it ended with status {process.returncode}"]
            raise ValueError(f"{name}: {lines[-1]}")
        return process.stdout.strip().splitlines()[-1]

    longest_first = sorted(notebook.REPORTED, key=lambda name: name != LONGEST)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sorted(Path(path) for path in pool.map(page, longest_first))


def write_page(name: str, profile: str) -> Path:
    """One page of the report, in this process and its kernel."""
    os.environ["BNC_REPRO_REUSE"] = "only"
    source = project_root() / "notebooks" / f"{name}.ipynb"
    target = project_root() / "runs" / profile / "report" / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shown, kept = nbformat.read(source, 4), {}
    for cell in shown.cells:
        if notebook.CHECKPOINT in cell.metadata.get("tags", []):
            kept[cell.id] = copy.deepcopy(cell)
            cell.source = ""
    nbformat.write(shown, target)
    notebook.run_cells(target, target, name, profile)
    executed = nbformat.read(target, 4)
    for i, cell in enumerate(executed.cells):
        executed.cells[i] = kept.get(cell.id, cell)
    executed.cells.insert(1, nbformat.v4.new_markdown_cell(NOTE))
    nbformat.write(executed, target)
    return notebook.write_html(target)
