"""Many runs at once on one machine: finished ones are skipped, the others trained in worker processes.

Threads of a pool hold one worker process each (`worker` says why these are not the pool's own). Runs resume, a lock
keeps every folder to one process, and a row is there or not: a sweep keeps no state of its own, and several sweeps may
share the same runs.
"""

import queue
import signal
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from ..training import memory
from ..training.checkpoint import is_locked, write_json
from . import machine
from .board import Board, duration
from .device import pick_device
from .places import Slot, handled_signals, set_for_workers, slots
from .plan import Job, Pace
from .worker import Worker

POLL_SECONDS = 0.5
GRACE_SECONDS = 20  # for torchrun, which ends its own processes
LEFT_STATUS = 75  # sysexits' EX_TEMPFAIL: the time was up, the same command goes on
BUSY = "another process is on the run"
CAUTION = 1.25  # a run may take so many times what those before it took


@dataclass
class Result:
    """How a sweep ended. `signal` is the one that ended it, 0 for none."""

    rows: dict[Path, dict] = field(default_factory=dict)  # by the run's folder
    trained: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # the run's name -> why
    left: list[str] = field(default_factory=list)  # names
    signal: int = 0

    @property
    def status(self) -> int:
        """The exit status of the command."""
        if self.signal:
            return 128 + self.signal
        return 1 if self.failed else LEFT_STATUS if self.left else 0

    def summary(self) -> str:
        """The last line: what is there, and how to go on."""
        parts = [f"{len(self.rows)} runs finished, {self.trained} of them now"]
        if self.failed:
            parts.append(f"{len(self.failed)} failed: " + "; ".join(self.failed))
        if self.left:
            parts.append(f"{len(self.left)} left, which keep their last checkpoints; the same command goes on")
        why = f"ended by {signal.Signals(self.signal).name}: " if self.signal else ""
        return why + ". ".join(parts)


def sweep(
    jobs: list[Job],
    profile: str,
    *,
    workers: int | None = None,
    processes: int = 1,
    hours: float | None = None,
    runs: Path | None = None,
) -> Result:
    """Train the unfinished runs of `jobs` in `workers` worker processes (None: as many as cores or GPUs); in at most
    `hours`, if a number of them is given. A line is printed for each.

    Raises ValueError for a device that the profile cannot do without.
    """
    places, variables = slots(profile, workers, processes)
    if not machine.gpus():
        for job in jobs[:1]:
            pick_device(job.recipe)
    with set_for_workers(variables):
        return Sweep(jobs, Pace(profile, runs), runs, processes).run(places, hours)


class Sweep:
    """The runs of `jobs` on this machine, each in so many processes."""

    def __init__(self, jobs: list[Job], pace: Pace, runs: Path | None, processes: int = 1) -> None:
        self._pace, self._runs, self._processes = pace, runs, processes
        self._result = Result()
        self._stopped = threading.Event()
        self._workers: set[Worker] = set()
        self._pending: list[Job] = []
        self._running: dict[Future, Job] = {}
        self._started: dict[Path, float] = {}
        self._trained: set[Path] = set()  # runs that a worker of this sweep was on
        self._deadline = float("inf")
        self._jobs = self._unfinished(jobs)
        self._board = Board(0, 0)

    def run(self, places: list[Slot], hours: float | None) -> Result:
        """Train; start nothing that would not end within `hours`, and end then."""
        if hours is not None:
            self._deadline = time.monotonic() + hours * 3600
        # The longest first, so that no worker is left alone with it at the end.
        self._pending = sorted(self._jobs, key=lambda job: -(self._pace.seconds(job) or 0))
        places = places[: max(1, len(self._pending))]
        free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in places:
            free.put(slot)
        self._board = Board(len(self._pending), len(places))
        warned, waiting = self._warned_of_memory(places), False
        with handled_signals(self._stop), ThreadPoolExecutor(len(places)) as pool:
            while (self._pending or self._running) and not self._stopped.is_set():
                while len(self._running) < len(places) and (job := self._next()):
                    self._started[job.folder] = time.monotonic()
                    self._running[pool.submit(self._train, job, free)] = job
                if not self._running and self._pending and not waiting:
                    waiting = True
                    self._board.line(f"waiting for {len(self._pending)} runs that other processes train")
                for future in wait(self._running, POLL_SECONDS, FIRST_COMPLETED).done or self._pause():
                    self._note(self._running.pop(future), future.result(), len(places))
                    warned = warned or self._warned_of_memory(places)
                self._board.show([slot.text for slot in places], self._seconds_left(len(places)))
                if time.monotonic() > self._deadline:
                    self._stop(0)
            self._end_workers()
        self._board.close()
        return self._result

    def _unfinished(self, jobs: list[Job]) -> list[Job]:
        """The jobs that have no row, and those that these need; rows that are there are kept."""
        wanted: set[Path] = set()
        for job in reversed(jobs):  # what is needed stands before what needs it
            row = job.row()
            if row is not None:
                self._keep(job, row)
            elif job.arms or job.folder in wanted:
                wanted |= {job.folder, *(needed.folder for needed in job.needs)}
        return [job for job in jobs if job.folder in wanted - self._result.rows.keys()]

    def _keep(self, job: Job, row: dict) -> None:
        self._result.rows[job.folder] = row
        try:
            for path in job.copies:
                write_json(path, row)
        except ValueError as error:  # a full disk
            self._fail(job, str(error))

    def _fail(self, job: Job, reason: str) -> None:
        self._result.failed[job.name] = reason
        self._board.line(f"{job.name} failed: {reason}", warning=True)

    def _next(self) -> Job | None:
        """The first run that a worker may take now, taken from those that wait. Runs that another process has finished,
        that cannot be had any more or that would take too long are taken from them too."""
        for job in list(self._pending):
            lacking = [needed for needed in job.needs if needed.folder not in self._result.rows]
            alive = [*self._pending, *self._running.values()]
            missed = [needed.name for needed in lacking if needed not in alive]
            if lacking and not missed:
                continue
            try:
                if is_locked(job.folder):  # its row is looked for later
                    continue
            except ValueError as error:
                self._pending.remove(job)
                self._fail(job, str(error))
                continue
            self._pending.remove(job)
            seconds, row = self._pace.seconds(job), job.row()
            if row is not None:
                self._keep(job, row)
                self._board.finished(f"{job.name}: finished by another process", None)
            elif missed and missed[0] in self._result.failed:
                self._fail(job, f"it needs the run {missed[0]}, which failed")
            elif missed or (seconds and time.monotonic() + CAUTION * seconds > self._deadline):
                self._result.left.append(job.name)
            else:
                return job
        return None

    def _train(self, job: Job, free: "queue.SimpleQueue[Slot]") -> str:
        """Hold a worker while it trains; why there is no row, "" if there is. If it dies, another one is started."""
        slot = free.get()
        try:
            ended, reason = self._tried(job, slot)
            if not ended and not self._stopped.is_set():
                self._board.line(f"{job.name}: {reason}; it is tried once more", warning=True)
                reason = self._tried(job, slot)[1]
            return reason
        finally:
            slot.text = ""
            free.put(slot)

    def _tried(self, job: Job, slot: Slot) -> tuple[bool, str]:
        """Whether a worker came to an end of its own, and why there is no row."""
        kills, outcome = machine.kills_for_memory(), None
        slot.text = f"{job.name}: starts"
        worker = Worker(job, slot.environment, self._runs, self._processes)
        self._workers.add(worker)
        if self._stopped.is_set():  # while it started
            worker.end()
        for kind, text in worker.messages():
            if kind == "warning":
                self._board.line(f"{job.name}: {text}", warning=True)
            elif kind == "progress":
                slot.text = f"{job.name}: {'trains' if job.folder.name in text else text}"  # a run begins with its name
                self._trained.add(job.folder)
            else:
                outcome = BUSY if kind == "busy" else text
        self._workers.discard(worker)
        if outcome is not None:
            return True, outcome
        return False, machine.death(worker.exitcode, kills, machine.kills_for_memory())

    def _note(self, job: Job, reason: str, workers: int) -> None:
        """What has become of a run that a worker took."""
        if reason == BUSY:
            self._pending.append(job)
            return
        row = None if reason else job.row()
        if row is None:
            self._fail(job, reason or f"there is no row in {job.folder}")
            return
        seconds = time.monotonic() - self._started[job.folder]
        self._pace.add(row, max(seconds, row["seconds"]))  # it may have gone on from a checkpoint
        self._result.trained += job.folder in self._trained
        value = row["metrics"].get(row["headline"])
        measure = row["message"] if value is None else f"{row['headline']} {value:.4g}"
        self._board.finished(f"{job.name}: {measure} ({duration(seconds)})", self._seconds_left(workers))
        self._keep(job, row)

    def _seconds_left(self, workers: int) -> float | None:
        """How long the rest will take, from what runs took so far."""
        now, rest = time.monotonic(), []
        for job in (*self._running.values(), *self._pending):
            seconds = self._pace.seconds(job)
            if seconds is None:
                return None
            rest.append(max(0.0, seconds - (now - self._started.get(job.folder, now))))
        return max(sum(rest) / workers, *rest) if rest else None

    def _warned_of_memory(self, places: list[Slot]) -> bool:
        """Say so if the workers will need more memory than there is; whether it is known what they need."""
        peaks = [peak for job in self._pending if (peak := self._pace.memory_mib(job))]
        free, count = memory.free_mib(), len(places) - len(self._running)
        if not peaks or free is None or places[0].environment:  # on a GPU a row tells the GPU's memory
            return not self._pending
        if count * max(peaks) > free:
            text = f"a run held up to {max(peaks)} MiB of memory, and {free} MiB are free for {count} more workers"
            self._board.line(f"{text}: take --jobs {max(1, free // max(peaks) + len(self._running))}", warning=True)
        return True

    def _pause(self) -> tuple[()]:
        if not self._running:
            self._stopped.wait(POLL_SECONDS)
        return ()

    def _stop(self, number: int) -> None:
        self._result.signal = number
        self._stopped.set()

    def _end_workers(self) -> None:
        """End all workers at once, and keep the rows of those that were just ready."""
        for worker in list(self._workers):
            worker.end()
        wait(self._running, GRACE_SECONDS)
        for worker in list(self._workers):
            worker.kill()
        for future, job in self._running.items():
            row = job.row() if not future.result() else None
            if row is None:
                self._result.left.append(job.name)
            else:
                self._result.trained += job.folder in self._trained
                self._keep(job, row)
        self._result.left += [job.name for job in self._pending]
