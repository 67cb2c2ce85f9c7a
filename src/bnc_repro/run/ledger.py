"""When a published row is still true: the ledger of code that gives the same digits.

A row was made by some source. It is current if that source has today's fingerprint, or if lines of
results/equivalent.csv join the two: each says that runs of a profile's experiment were trained by both, on one machine,
and that every number in their rows was the same. `same_digits` writes the lines, after training; nobody else does.
"""

import csv
import json
from pathlib import Path

from ..recipe.clone import project_root
from ..training import strict_csv
from .code import SOURCES

COLUMNS = ("profile", "experiment", "old", "new", "runs", "values", "old_commit", "new_commit", "device", "date")


def path() -> Path:
    """results/equivalent.csv of the clone."""
    return project_root() / "results" / "equivalent.csv"


def lines() -> list[dict[str, str]]:
    """The ledger's lines; none where there is no ledger. Raises ValueError for a file of another form."""
    if not path().is_file():
        return []
    rest = strict_csv.read(path(), COLUMNS, "take it from git again")
    return [dict(zip(COLUMNS, line, strict=True)) for line in rest]


def add(entries: list[dict[str, str]]) -> None:
    """Write lines; one of the same profile, experiment and old source is replaced."""

    def key(line: dict) -> tuple[str, ...]:
        return line["profile"], line["experiment"], line["old"]

    every = {key(line): line for line in [*lines(), *entries]}
    temporary = path().with_suffix(".part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(every[name] for name in sorted(every))
    temporary.replace(path())


def joined(profile: str, experiment: str) -> set[str]:
    """Today's source fingerprint of `experiment` and every one that the ledger joins to it for this profile."""
    sources, before = {SOURCES[experiment]}, 0
    pairs = [
        {line["old"], line["new"]} for line in lines() if (line["profile"], line["experiment"]) == (profile, experiment)
    ]
    while len(sources) > before:
        before = len(sources)
        sources = sources.union(*(pair for pair in pairs if pair & sources))
    return sources


def is_current(row: dict) -> bool:
    """Whether today's code would give this row's digits."""
    return row["fingerprints"]["source"] in joined(row["profile"], row["experiment"])


def rows(profile: str, folder: str) -> list[dict]:
    """The rows of results/<profile>/<folder>/, an experiment's or those of its tuning."""
    paths = sorted((project_root() / "results" / profile / folder).glob("*.json"))
    return [json.loads(file.read_text()) for file in paths]
