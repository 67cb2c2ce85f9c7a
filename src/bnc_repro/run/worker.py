"""A run in a process of its own: the process, and the handle by which the sweep holds it.

Each run gets a fresh process, forked by Python's fork server, which has imported torch once: a start costs
milliseconds, memory and random state are the run's own, and one process's death is nobody else's. (A pool of loky, or
ProcessPoolExecutor, ends every worker when one dies.) The process leads a process group, so that what it starts ends
with it, and it ends itself when the sweep's end of their pipe closes, however that came about.
"""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

from ..recipe.build import as_dict, make_recipe
from ..training.checkpoint import is_locked
from ..training.progress import log
from .execute import run
from .launch import run_words, torchrun
from .plan import Job

LOG = "log.txt"  # what a run's process prints, in the run's folder

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__, "bnc_repro.images.task", "bnc_repro.poses.task"])


class Worker:
    """The process of one run, from its start."""

    def __init__(self, job: Job, environment: dict[str, str], runs: Path | None, processes: int = 1) -> None:
        self._connection, connection = _context.Pipe()
        arguments = (connection, as_dict(job.recipe), job.folder, runs, job.reuse_published, processes)
        self._process = _context.Process(target=_work, args=(*arguments, os.getcwd(), os.environ | environment))
        self._process.start()
        connection.close()

    def messages(self) -> Iterator[tuple[str, str]]:
        """What the run says until its process ends: pairs of a kind (`progress`, `warning`, `refused`, `failed`,
        `busy`, `finished`) and a text."""
        while True:
            ready = wait([self._connection, self._process.sentinel])
            try:
                while self._connection.poll():
                    yield self._connection.recv()
            except (EOFError, ConnectionError):
                break
            if self._process.sentinel in ready:
                break
        self._process.join()
        self._signal(signal.SIGKILL)  # what it has left behind, and itself if the fork server died

    @property
    def exitcode(self) -> int | None:
        """The process's exit status, minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def end(self) -> None:
        """Ask the process group to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process group."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        assert self._process.pid is not None
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:  # it leads no group yet, or is gone
            if self._process.exitcode is None:
                os.kill(self._process.pid, number)


class _Messages(logging.Handler):
    """Lines of progress and warnings, to the log and to the sweep."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        kind = "warning" if record.levelno >= logging.WARNING else "progress"
        print(record.getMessage(), flush=True)
        self._connection.send((kind, record.getMessage()))


def _work(
    connection: Connection,
    recipe: dict,
    folder: Path,
    runs: Path | None,
    reuse_published: bool,
    processes: int,
    place: str,
    environment: dict[str, str],
) -> None:
    """The run, in its process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep decides
    os.setsid()
    threading.Thread(target=_end_with_the_sweep, args=(connection,), daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(place)
    try:
        if is_locked(folder):  # since this process was asked for
            connection.send(("busy", ""))
            return
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if processes > 1:
            _run_by_torchrun(connection, recipe, runs, reuse_published, processes)
        else:
            log.setLevel(logging.INFO)
            log.addHandler(_Messages(connection))
            run(make_recipe(**recipe), runs, reuse_published=reuse_published)
        connection.send(("finished", ""))
    except ValueError as error:
        connection.send(("refused", str(error)))
    except Exception as error:
        first_line = (str(error).splitlines() or ["no message"])[0]
        connection.send(("failed", f"{type(error).__name__}: {first_line} ({folder / LOG} has more)"))
        traceback.print_exc()


def _run_by_torchrun(
    connection: Connection, recipe: dict, runs: Path | None, reuse_published: bool, processes: int
) -> None:
    words, environment = torchrun(processes, run_words(recipe, runs))
    if not reuse_published:
        environment.pop("BNC_REPRO_REUSE", None)
    with subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            connection.send(("progress", line.strip()))
    if process.returncode:
        raise RuntimeError(f"torchrun ended with status {process.returncode}")


def _end_with_the_sweep(connection: Connection) -> None:
    try:
        connection.recv()  # the sweep never says anything
    except (EOFError, OSError):
        os.killpg(0, signal.SIGTERM)
