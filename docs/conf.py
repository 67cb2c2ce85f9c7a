"""The site: `make docs` builds it from committed notebook outputs and docstrings. Nothing is executed.

The clone's root is the source folder, so the pages in it and the links among them are those of the repository.
"""

import os
import sys
from pathlib import Path

import bnc_repro

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "docs"))
os.chdir(ROOT)
import rows_page  # noqa: E402

project = "bnc_repro"
author = copyright = "bnc_repro contributors"
version = release = bnc_repro.__version__

root_doc = "docs/index"
include_patterns = ["docs/**", "notebooks/*.ipynb", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LOG.md"]
# Walked otherwise, tens of thousands of files in .venv alone, for pages that include_patterns leaves out.
exclude_patterns = [".*", "build", "data", "data-store", "results", "runs", "src", "tests"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.viewcode", "sphinx_copybutton"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables in outputs too, which CommonMark does not know
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

default_role = "code"  # docstrings write code in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
toc_object_entries = False

templates_path = []
html_title = "Binarizing by classification, reproduced"
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "navbar_persistent": [],
}
html_copy_source = True  # what the download button gives
html_extra_path = ["root"]


def setup(app) -> None:
    """The page of the rows is written anew for each build."""
    rows_page.write(ROOT)
