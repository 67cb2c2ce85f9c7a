"""Rows as files, and when a published one is still true: the ledger of code that gives the same digits.

A row was made by some source. It is current if that source has today's fingerprint, or if lines of
results/equivalent.csv join the two: each says that runs of a profile's experiment were trained by both, on one machine,
and that every number in their rows was the same. `same_digits` writes the lines, after training; nobody else does.
"""

import csv
import json
import reprlib
from pathlib import Path

from ..recipe.build import make_recipe
from ..recipe.clone import project_root
from ..training import strict_csv
from .code import source_of

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


def joined(profile: str, experiment: str, source: str = "") -> set[str]:
    """A source fingerprint of `experiment`, today's unless another is named, and every one that the ledger joins to it
    for this profile."""
    sources, before = {source or source_of(experiment)}, 0
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
    return [read_row(path) for path in sorted((project_root() / "results" / profile / folder).glob("*.json"))]


STATUSES = ("finished", "diverged")
FORM: dict[str, type | tuple[type, ...]] = {  # what readers of a row rely on
    "experiment": str,
    "profile": str,
    "fingerprint": str,
    "fingerprints": dict,
    "title": str,
    "seed": int,
    "status": str,
    "headline": str,
    "metrics": dict,
    "recipe": dict,
    "curve": list,
}


def read_row(path: Path) -> dict:
    """The row in a file. Raises ValueError, naming the file, for one that is damaged or of another form."""
    remedy = "take it from git again, or remove it and run its command again"
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is empty" if path.stat().st_size == 0 else "no JSON"
        raise ValueError(f"{path} cannot be read as a row ({why}); {remedy}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path} holds {reprlib.repr(row)}, which is no row; {remedy}")
    for key, kind in FORM.items():
        if not isinstance(row.get(key), kind) or isinstance(row[key], bool):
            raise ValueError(f"{path} is no whole row: its key {key} is {reprlib.repr(row.get(key))}; {remedy}")
    if row["status"] not in STATUSES:
        raise ValueError(f"{path}: its status is {row['status']!r}, none of {', '.join(STATUSES)}; {remedy}")
    broken = [key for key, value in row["metrics"].items() if type(value) not in (int, float, type(None), str, list)]
    if broken:
        value = reprlib.repr(row["metrics"][broken[0]])
        raise ValueError(f"{path}: its metric {broken[0]} is {value}, no number; {remedy}")
    for part in ("recipe", "data", "source"):
        if not isinstance(row["fingerprints"].get(part), str):
            raise ValueError(f"{path} is no whole row: fingerprints.{part} is missing; {remedy}")
    try:
        make_recipe(**row["recipe"])
    except ValueError as error:
        raise ValueError(f"{path} has a recipe that is none today: {error}") from error
    return row
