"""The fast track: every page made anew from published rows, nothing trained.

Cells that need a trained network (tagged `checkpoint`) keep their committed outputs; all others are executed.
"""

import copy
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import repeat
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

    They stand in runs/<profile>/report/. Raises ValueError with the last line of a notebook that fails, for instance
    because a row is not published.
    """
    longest_first = sorted(notebook.REPORTED, key=lambda name: name != LONGEST)
    try:
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"), _be_silent) as pool:
            return sorted(pool.map(_page, longest_first, repeat(profile)))
    except BrokenProcessPool:
        raise ValueError("a process that makes pages was ended from outside, perhaps for want of memory") from None


def _be_silent() -> None:
    """What cells print stands on their page, and why one fails in the error that is raised."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _page(name: str, profile: str) -> Path:
    """`write_page`, whose error names the page and crosses to another process as one line."""
    try:
        return write_page(name, profile)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{name}: {lines[-1]}") from None


def write_page(name: str, profile: str) -> Path:
    """One page of the report, by this process and a kernel."""
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
