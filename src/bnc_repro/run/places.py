"""Where the runs of a sweep may train: a slot per core or GPU, the environment of their processes, the signals that end
them."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from . import machine
from .pinned import environment

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Slot:
    """What a worker may use: its environment, and what it is at."""

    environment: dict[str, str]
    text: str = ""


def slots(profile: str, jobs: int | None, processes: int) -> tuple[list[Slot], dict[str, str]]:
    """Places for `jobs` workers of so many processes each, and the environment that all start with. None: one for each
    physical core, or for each GPU. Raises ValueError where there are fewer GPUs than processes."""
    gpus = machine.gpus()
    if not gpus:
        count = jobs or max(1, machine.cores() // processes)
        return [Slot({}) for _ in range(count)], {"OMP_NUM_THREADS": "1"} | environment(profile)
    if processes > len(gpus):
        raise ValueError(f"--processes {processes} needs as many GPUs, and this machine has {len(gpus)}; take fewer")
    groups = [gpus[first : first + processes] for first in range(0, len(gpus) - processes + 1, processes)]
    count = jobs or len(groups)
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, machine.cores() // (count * processes)))
    visible = [{"CUDA_VISIBLE_DEVICES": ",".join(groups[index % len(groups)])} for index in range(count)]
    return [Slot(gpus_of_slot) for gpus_of_slot in visible], {"OMP_NUM_THREADS": threads} | environment(profile)


@contextmanager
def handled_signals(stop: Callable[[int], None]) -> Iterator[None]:
    """Let signals that ask to end call `stop` with their number; those that are ignored (nohup) stay so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDINGS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: stop(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def set_for_workers(values: dict[str, str]) -> Iterator[None]:
    """What the fork server, which imports torch, starts with."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
