"""Small tables of ours as CSV, read back only in the very form they were written in."""

import csv
from collections.abc import Sequence
from pathlib import Path


def read(path: Path, columns: Sequence[str], remedy: str) -> list[list[str]]:
    """The lines below the header of a CSV file, each with one text per column, the first of them being line 2.

    Raises ValueError, which ends in `remedy`, for an empty file, for one that is no UTF-8 or no CSV, for another header
    and for a line with more or fewer values.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file, strict=True)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"{path} is empty or no CSV text; {remedy}") from error
    if header != list(columns):
        raise ValueError(f"{path} has other columns than {', '.join(columns)}; {remedy}")
    for number, line in enumerate(lines, 2):
        if len(line) != len(columns):
            raise ValueError(f"{path}, line {number}, has {len(line)} values, not {len(columns)}; {remedy}")
    return lines
