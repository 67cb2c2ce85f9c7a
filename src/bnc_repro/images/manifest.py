"""The manifest of a folder of pictures: path, size and hash of each, in one small file beside them.

`data check` writes it once every picture was read. Runs then compare names and sizes, and take the manifest's hash
for the data's, instead of reading a million files again.
"""

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from ..training import strict_csv
from ..training.checkpoint import atomic
from .pictures import read as read_picture

NAME = "manifest.csv"
COLUMNS = ("path", "bytes", "sha256")
FEW = 20_000  # pictures that a run without a manifest reads whole before it starts


def write(root: Path, files: Iterable[Path]) -> Path:
    """Write root/manifest.csv for `files`, which lie below root. Raises ValueError where it cannot be written, and for
    a file of that name that is no manifest."""

    def line(path: Path) -> tuple[str, int, str]:
        return path.relative_to(root).as_posix(), path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()

    target = root / NAME
    if target.exists() and not _is_ours(target):
        raise ValueError(
            f"{target} is there and does not begin with {','.join(COLUMNS)}, so it is no manifest of pictures: move it "
            "away, and run `data check` again"
        )
    with (
        atomic(target) as temporary,
        ThreadPoolExecutor() as pool,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        rows.writerows(pool.map(line, sorted(files)))
    return target


def _is_ours(target: Path) -> bool:
    """Whether the first line is a manifest's."""
    first = f"{','.join(COLUMNS)}\n".encode()
    if not target.is_file():
        return False
    with target.open("rb") as file:
        return file.read(len(first)) == first


def read(root: Path) -> dict[str, int] | None:
    """The size in bytes of each file of root/manifest.csv by its path; None if there is no manifest."""
    if not (root / NAME).is_file():
        return None
    return {path: size for path, size, _ in _lines(root)}


def _lines(root: Path) -> list[tuple[str, int, str]]:
    """Path, size in bytes and sha256 of each file. Raises ValueError for a manifest of another form."""
    target = root / NAME
    remedy = "move it away, and write it anew by `python -m bnc_repro data check`"
    lines = strict_csv.read(target, COLUMNS, remedy)
    for number, (path, size, _) in enumerate(lines, 2):
        if not size.isascii() or not size.isdecimal() or len(size) > 18:
            raise ValueError(f"{target}, line {number}, has {size!r} for a size in bytes; {remedy}")
        if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
            raise ValueError(f"{target}, line {number}, names a file outside of the folder; {remedy}")
    return [(path, int(size), digest) for path, size, digest in lines]


def changed(root: Path) -> dict[str, str]:
    """The listed files that are not what the manifest says any more: path -> sha256 now, "" where the file is gone.

    Only files that were touched after the manifest was written, or last found true, are read again.
    """
    target = root / NAME
    since, newer, different = target.stat().st_mtime_ns, 0, {}
    for name, _, digest in _lines(root):
        path = root / name
        if not path.is_file():
            different[name] = ""
        elif max(path.stat().st_mtime_ns, path.stat().st_ctime_ns) > since:
            newer += 1
            now = hashlib.sha256(path.read_bytes()).hexdigest()
            if now != digest:
                different[name] = now
    if newer and not different:
        with suppress(OSError):  # of a read-only folder, whose files are read at each start
            os.utime(target)
    return different


def files_below(root: Path) -> Iterator[Path]:
    """Every file below `root`, through linked folders too. Raises ValueError where a link leads back to where it
    lies."""
    waiting = [(root, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        real = folder.resolve()
        if real in above:
            raise ValueError(f"{folder} links to a folder that it lies in; remove the link")
        with os.scandir(folder) as entries:  # which knows files from folders without asking for each
            for entry in entries:
                if entry.is_dir():
                    waiting.append((Path(entry.path), above | {real}))
                elif entry.is_file():
                    yield Path(entry.path)


def missing_pictures(root: Path, split: str, files: Iterable[str]) -> list[str]:
    """The pictures of root/split that the manifest lists and `files`, all that are there, lack; none without one."""
    listed = [name for name in read(root) or () if name.startswith(f"{split}/")]
    there = {Path(file).relative_to(root).as_posix() for file in files}
    return [name for name in listed if name not in there]


def bad_pictures(root: Path, files: Sequence[str]) -> dict[str, str]:
    """A sentence for each of `files` that a run cannot use: by the manifest's names and sizes where there is one, else
    by reading every picture. Raises ValueError for more than FEW pictures without a manifest."""
    listed = read(root)
    if listed is None and len(files) > FEW:
        raise ValueError(
            f"{root} has {len(files)} pictures and no {NAME}: `python -m bnc_repro data check {root}` reads each of "
            "them once and writes it; runs then start at once"
        )
    if listed is not None:
        remedy = f"`python -m bnc_repro data check {root}` says more and writes {NAME} anew"

        def fault(path: str) -> str | None:
            name = Path(path).relative_to(root).as_posix()
            if name not in listed:
                return f"{path} is not in {NAME}: {remedy}"
            try:
                size = os.stat(path).st_size
            except OSError as error:
                return f"{path} cannot be read ({error.strerror}): copy it again"
            return None if size == listed[name] else f"{path} has {size} bytes, {NAME} says {listed[name]}: {remedy}"
    else:

        def fault(path: str) -> str | None:
            try:
                read_picture(path)
            except ValueError as error:
                return str(error)
            return None

    with ThreadPoolExecutor() as pool:
        return {path: sentence for path, sentence in zip(files, pool.map(fault, files), strict=True) if sentence}
