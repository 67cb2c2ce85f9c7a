"""Forks a process for every job read from stdin, so that torch is imported once.

A job is a line of JSON: the recipe, the folder of runs, the log, whether to wait, and with `die_in_write` the number of
the checkpoint in whose write the process kills itself, half of the file on the disk.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from bnc_repro.recipe import make_recipe
from bnc_repro.run import run
from bnc_repro.training import loop


def dies_in_write(number: int):
    """torch.save that kills the process in the middle of its write of that number."""
    whole, count = torch.save, [0]

    def save(state, path):
        count[0] += 1
        whole(state, path)
        if count[0] == number:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    return save


def work(job: dict) -> None:
    """One run, its row beside its log."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    loop.SAVE_SECONDS, loop.CHECK_EVERY = -1, 1
    if "die_in_write" in job:
        torch.save = dies_in_write(job["die_in_write"])
    row = run(make_recipe(**job["recipe"]), Path(job["runs"]))
    Path(job["log"] + ".row").write_text(json.dumps(row))


print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(job)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    print(pid, flush=True)
    if job["wait"]:
        print(os.waitpid(pid, 0)[1], flush=True)
