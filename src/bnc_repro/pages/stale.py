"""What is stale: pages that do not say what their rows say, and rows that today's code would not make. `make stale`.

Blocks between marks and models' cards are written anew from the published rows and compared; figures and the outputs
of notebooks are told by the digests of the rows that they were made from; rows by the ledger.
"""

import difflib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from ..evidence.rows import read
from ..recipe.schema import PROFILES
from ..run import ledger
from . import models, notebook, publish, sources


def stale(root: Path) -> list[str]:
    """A line for each block, figure, cell and card that is stale: its page, its name, its rows, and for text what it
    says and what its rows say; then one for each folder with rows of other code than today's."""
    return [*_blocks(root), *_figures(root), *_cells(root), *_cards(root), *_rows(root)]


def _rows(root: Path) -> Iterator[str]:
    joined = cache(ledger.joined)
    for folder in sorted((root / "results").glob("*/*/")):
        rows = [read(path) for path in sorted(folder.glob("*.json"))]
        old = [row for row in rows if row["fingerprints"]["source"] not in joined(row["profile"], row["experiment"])]
        if old:
            sources_of_old = ", ".join(sorted({row["fingerprints"]["source"] for row in old}))
            yield (
                f"{folder.relative_to(root)}, {len(old)} of {len(rows)} rows by code that is not today's "
                f"({sources_of_old}): `make same-digits` joins the two, or the runs are made anew"
            )


def _blocks(root: Path) -> Iterator[str]:
    for name, block in publish.blocks().items():
        for page in publish.PAGES:
            text = publish.block_of(name, (root / page).read_text(encoding="utf-8"))
            if text not in (None, block):
                rows = ", ".join(publish.STANDS_ON[name])
                yield f"{page}, block {name}, of {rows}: `make publish` writes it anew"
                yield from _differences(text, block)


def _differences(said: str, right: str) -> Iterator[str]:
    lines = list(difflib.unified_diff(said.splitlines(), right.splitlines(), n=0, lineterm=""))[2:]  # two of heading
    words = {"-": "says", "+": "rows say"}
    yield from (f"    {words[line[0]]}: {line[1:]}" for line in lines if line[0] in words)


def _figures(root: Path) -> Iterator[str]:
    with Image.open(root / publish.FIGURE) as picture:
        told = picture.info.get(publish.ROWS)
    if told != sources.digest(root / publish.FIGURE_ROWS):
        yield f"{publish.FIGURE}, of {publish.FIGURE_ROWS}: `make publish` draws it anew"


def _cells(root: Path) -> Iterator[str]:
    digest = cache(lambda path: sources.digest(root / path))
    for name in notebook.STAGES:
        code = notebook.code_cells(root / "notebooks" / f"{name}.ipynb")
        paths = sources.stands_on((cell["id"], "".join(cell["source"])) for cell in code)
        for cell in code:
            signed = cell["metadata"].get(sources.KEY, {})
            changed = [path for path in sorted(paths[cell["id"]]) if signed.get(path) != digest(path)]
            if cell["outputs"] and changed:
                remedy = f"`python -m bnc_repro notebook {name}`, then `make publish`"
                yield f"notebooks/{name}.ipynb, cell {cell['id']}, of {', '.join(changed)}: {remedy}"


def _cards(root: Path) -> Iterator[str]:
    for profile in PROFILES:
        for name, row in models.of_rows(profile).items():
            file = root / "results" / "models" / profile / f"{name}.md"
            if file.is_file():
                said, right = (
                    "\n".join(line for line in text.splitlines() if not line.startswith("| file |"))
                    for text in (file.read_text(encoding="utf-8"), models.card(f"{profile}/{name}", row, 0, 0))
                )
                if said != right:
                    rows = f"results/{profile}/{row['experiment']}/{row['fingerprint']}.json"
                    yield f"{file.relative_to(root)}, of {rows}: `make publish` packs and writes it anew"
                    yield from _differences(said, right)
