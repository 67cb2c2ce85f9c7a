"""The site: it builds without a warning, and what its pages and the README show as Python runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "-c", "docs", ".", tmp_path / "site"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    index = (tmp_path / "site" / "docs" / "index.html").read_text()
    assert "The verdict" in index
    assert "<table" in index
    assert (tmp_path / "site" / "notebooks" / "04-verdict.html").is_file()
    for page in (tmp_path / "site" / "notebooks").glob("*.html"):
        assert "<p>|" not in page.read_text(), f"{page.name} shows a table of an output as its source"
    assert "bnc_repro.convert.binarize" in (tmp_path / "site" / "docs" / "reference.html").read_text()


@pytest.mark.parametrize("page", [page for page in PAGES if PYTHON.search((ROOT / page).read_text())])
def test_the_python_of_a_page_runs(page):
    """From top to bottom, each block after the one before it."""
    scope: dict = {"__name__": "page"}
    for block in PYTHON.findall((ROOT / page).read_text()):
        exec(compile(block, page, "exec"), scope)
