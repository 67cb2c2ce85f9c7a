"""Files that survive: atomic writes, the last two checkpoints, and a lock on a run's folder.

A checkpoint holds tensors and plain values only and is read with `weights_only=True`.
"""

import errno
import fcntl
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

FORMAT = "bnc_repro checkpoint, form 1"
NAMES = ("checkpoint.pt", "checkpoint.previous.pt")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place, whole, only when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        if not full and not isinstance(error, OSError) and "file write failed" not in str(error):
            raise
        why = "the disk is full" if full else str(error)
        raise ValueError(
            f"cannot write {path}: {why}. Nothing was overwritten; make room and run the same command "
            "again, it goes on from the last complete checkpoint."
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """`value` as indented JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


def save(folder: Path, state: dict) -> None:
    """Write `state` as the folder's newest checkpoint; the one before is kept."""
    newest, previous = (folder / name for name in NAMES)
    with atomic(newest) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)
        if newest.exists():
            os.replace(newest, previous)


def load(path: str | Path, translated: Callable[[dict], dict | None] = lambda state: None) -> dict:
    """The state in the file `path`. Raises ValueError if it is missing, damaged or not one of this project's, nor one
    that `translated` can make into one (it returns None for what it does not know)."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}; a row's `checkpoint` key names one that exists")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): it is damaged, or no file that holds "
            "only tensors. Delete it, or name another one."
        ) from error
    if isinstance(state, dict) and state.get("format") == FORMAT:
        return state
    made = translated(state)
    if made is None:
        raise ValueError(f"{path} was not written by this project (no format {FORMAT!r}); name one that was")
    return made


def latest(folder: Path) -> dict | None:
    """The newest readable checkpoint of a run's folder, or None; a damaged one, or another run's, is passed over
    with a warning."""
    for name in NAMES:
        if (folder / name).exists():
            try:
                state = load(folder / name)
                if state.get("fingerprint", folder.name) != folder.name:
                    raise ValueError(f"{folder / name} is of the run {state['fingerprint']}, copied here.")
                return state
            except ValueError as error:
                warnings.warn(f"{error} The checkpoint before it is used.", stacklevel=2)
    return None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's folder; a second process says so and waits. The system frees the lock of a dead process."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another one"
            print(f"process {holder} is on the run in {folder}; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        for unfinished in folder.glob(".*.part"):  # of a process that was killed while it wrote
            unfinished.unlink()
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
