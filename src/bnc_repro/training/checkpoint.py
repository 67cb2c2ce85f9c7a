"""Files that survive: atomic writes, the last two checkpoints, and a lock on a run's folder.

A checkpoint holds tensors and plain values only, and a checksum over all of them; it is read with `weights_only=True`.
"""

import errno
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import BaseFileLock, FileLock, Timeout

from .progress import log

FORMAT = "bnc_repro checkpoint, form 2"
OLDER = "bnc_repro checkpoint, form 1"  # without a checksum
PARTS = {"network": dict, "recipe": dict, "labels": list}
# Beside the parts, where a run goes on from.
POSITION = ("optimizers", "scaler", "curve", "epoch", "done", "seconds", "cpu_seconds", "losses", "signs", "random")
NAMES = ("checkpoint.pt", "checkpoint.previous.pt")
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # what flock says on a disk without locks


@contextmanager
def atomic(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """A temporary file beside `path`, or what it links to, that takes its place, whole, only when the block ends well;
    then what was there is kept as `previous`, if one is named."""
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
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
    with atomic(newest, previous) as temporary:
        torch.save({"format": FORMAT, **state, "checksum": checksum(state)}, temporary)


def checksum(state: dict) -> str:
    """sha256 over every value of a state, tensors by their bytes, whatever order its keys stand in."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, dict):
            for key in sorted(value, key=repr):
                digest.update(f"{key!r}:".encode())
                add(value[key])
        elif isinstance(value, (list, tuple)):
            digest.update(f"{len(value)}[".encode())
            for item in value:
                add(item)
        elif isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())

    add({key: value for key, value in state.items() if key not in ("format", "checksum")})
    return digest.hexdigest()


def _check_dense(value: object) -> None:
    """Raises ValueError for a tensor in a state that is more than the values stored for it, or has none here."""
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_meta or value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"a tensor of shape {tuple(value.shape)} is not stored value by value")
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            _check_dense(part)


def load(path: str | Path, translated: Callable[[dict], dict | None] = lambda state: None) -> dict:
    """The state in the file `path`. Raises ValueError if it is missing, damaged or not one of this project's, nor one
    that `translated` can make into one (it returns None for what it does not know)."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}; name a file such as runs/PROFILE/EXPERIMENT/NAME/{NAMES[0]}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): it is damaged, or no file that holds "
            "only tensors. Delete it, or name another one."
        ) from error
    if not isinstance(state, dict) or state.get("format") not in (FORMAT, OLDER):
        converted = translated(state)
        if converted is None:
            raise ValueError(f"{path} was not written by this project (no format {FORMAT!r}); name one that was")
        return converted
    try:
        _check_dense(state)
        unchanged = state["format"] == OLDER or checksum(state) == state.get("checksum")
    except (RuntimeError, TypeError, ValueError, MemoryError, RecursionError) as error:
        # RuntimeError is also what torch says of tensors that have no values of their own.
        raise ValueError(
            f"{path} is damaged: its values are no checkpoint's. Delete it, or name another one."
        ) from error
    if not unchanged:
        raise ValueError(f"{path} is damaged: its values do not give its checksum. Delete it, or name another one.")
    for part, kind in PARTS.items():
        if not isinstance(state.get(part), kind) or not all(isinstance(name, str) for name in state[part]):
            raise ValueError(f"{path} lacks its {part}: it is no whole checkpoint. Delete it, or name another one.")
    if len(set(state["labels"])) < len(state["labels"]):
        raise ValueError(f"{path} has a label twice: it is no whole checkpoint. Delete it, or name another one.")
    return state


def latest(folder: Path) -> dict | None:
    """The newest readable checkpoint of a run's folder, or None; a damaged one, or another run's, is passed over
    with a warning. Raises ValueError for one that holds no training to go on with, which would be written over."""
    for name in NAMES:
        if (folder / name).exists():
            try:
                state = load(folder / name)
                if state.get("fingerprint", folder.name) != folder.name:
                    raise ValueError(f"{folder / name} is of the run {state['fingerprint']}, copied here.")
            except ValueError as error:
                after = "The checkpoint before it is used." if name != NAMES[-1] else "The run begins anew."
                warnings.warn(f"{error} {after}", stacklevel=2)
                continue
            if lacking := [key for key in POSITION if key not in state]:
                raise ValueError(
                    f"{folder / name} holds no training to go on with, it lacks {lacking[0]}: move it away; as a start "
                    "the recipe key init_from names it"
                )
            return state
    return None


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Whatever is raised within, where a run takes up its folder's checkpoint, becomes a ValueError that says so."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(
            f"{folder / NAMES[0]} holds no position of this run ({why}): delete it, and the run goes on from the "
            "checkpoint before it, or begins anew"
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's folder; a second process says so and waits. The system frees the lock of a dead process. Raises
    ValueError where the disk has no locks."""
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / "lock"), folder / "lock.holder"
    if not _acquired(lock):
        name = holder.read_text() if holder.is_file() else "another one"
        log.warning(f"process {name} is on the run in {folder}; waiting for it")
        lock.acquire()
    try:
        for unfinished in folder.glob(".*.part"):  # of a process that was killed while it wrote
            unfinished.unlink()
        holder.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether another process holds the run's folder now. Raises ValueError where the disk has no locks."""
    if not (folder / "lock").is_file():
        return False
    lock = FileLock(folder / "lock")
    acquired = _acquired(lock)
    if acquired:
        lock.release()
    return not acquired


def _acquired(lock: BaseFileLock) -> bool:
    """Take the lock if nobody holds it. A disk without flock is refused: what filelock may take in its place is a mark
    that a killed process leaves behind."""
    why: Exception | None = None
    try:
        lock.acquire(blocking=False)
    except Timeout:
        pass
    except NotImplementedError as error:
        why = error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        why = error
    if why is not None or not isinstance(lock, FileLock):
        lock.release(force=True)
        raise ValueError(
            f"the disk of {lock.lock_file} has no file locks ({why or 'flock is not implemented'}), so two processes "
            "could train one run at the same time; keep runs on a disk that has them (--runs FOLDER), or mount this "
            "one with them (Lustre: -o flock; NFS: without nolock)"
        ) from why
    return lock.is_locked
