"""The runs of a sweep as a job array of a cluster, by submitit. Runs and rows are in a folder that all nodes see.

A job that a time limit or a preemption ends is queued again, and its run resumes. Runs that others need are an array
before them.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from ..recipe.build import as_dict
from ..recipe.clone import project_root
from .board import Board
from .launch import run_words
from .node import RunOnNode
from .pinned import environment
from .places import handled_signals
from .plan import Job, Pace
from .sweep import POLL_SECONDS, Result, Sweep

DEFAULTS = {"time": 240, "cpus_per_task": 1, "array_parallelism": 256}  # minutes, cores of a job, jobs at once
REQUEUES = 100  # after a time limit; a preemption does not count


def sweep_by_slurm(
    jobs: list[Job],
    profile: str,
    settings: dict[str, Any],
    *,
    workers: int | None = None,
    processes: int | str = 1,
    runs: Path | None = None,
    cluster: str = "slurm",
) -> Result:
    """Train the unfinished runs of `jobs` as a job array, `workers` of them at once; `settings` are sbatch's options.

    Raises ValueError where submitit or SLURM is not there.
    """
    try:
        import submitit
    except ImportError as error:
        raise ValueError(
            "--engine slurm needs submitit, which is not installed: pip install 'submitit>=1.5' (the extra `cluster`)"
        ) from error
    if cluster == "slurm" and not shutil.which("sbatch"):
        raise ValueError(
            "--engine slurm finds no sbatch on this machine; say it on the cluster's login node, or --engine local"
        )
    folder = (runs or project_root() / "runs").absolute()
    values = DEFAULTS | ({"gpus_per_node": 1} if profile in ("gpu", "paper") else {}) | settings
    if workers:
        values["array_parallelism"] = workers
    executor = submitit.AutoExecutor(folder / profile / "jobs", cluster, slurm_max_num_timeout=REQUEUES)
    shared = {key: values.pop(key) for key in ("cpus_per_task", "gpus_per_node") if key in values}
    executor.update_parameters(
        name="bnc_repro",
        timeout_min=values["time"],
        **shared,
        **{f"slurm_{key}": value for key, value in values.items()},
    )
    return _ClusterSweep(jobs, Pace(profile, runs), runs).run_by(executor, processes, folder)


class _ClusterSweep(Sweep):
    """The runs of `jobs` on the nodes of a cluster."""

    def run_by(self, executor, processes: int | str, folder: Path) -> Result:
        """Submit what is ready, note what ends, until nothing is left. A signal leaves the jobs to the cluster."""
        self._pending, self._board = list(self._jobs), Board(len(self._jobs), 0)
        submitted: list[tuple[Any, Job]] = []
        with handled_signals(self._stop):
            while (self._pending or submitted) and not self._stopped.is_set():
                ready = [
                    job for job in self._pending if all(needed.folder in self._result.rows for needed in job.needs)
                ]
                if ready:
                    self._pending = [job for job in self._pending if job not in ready]
                    self._started |= {job.folder: time.monotonic() for job in ready}
                    self._trained |= {job.folder for job in ready}
                    tasks = [self._task(job, processes, folder) for job in ready]
                    submitted += zip(executor.submit_array(tasks), ready)
                    names = {str(handle.job_id).partition("_")[0] for handle, _ in submitted}
                    self._board.line(f"{len(ready)} runs submitted as {', '.join(sorted(names))}")
                elif not submitted:
                    for job in self._pending:
                        self._fail(job, "a run that it needs failed")
                    self._pending = []
                for handle, job in [pair for pair in submitted if pair[0].done()]:
                    submitted.remove((handle, job))
                    self._note(job, _reason(handle), len(submitted) + 1)
                self._stopped.wait(POLL_SECONDS)
        self._result.left += [job.name for job in (*(job for _, job in submitted), *self._pending)]
        if submitted:
            self._board.line(f"{len(submitted)} jobs go on in the cluster; scancel --name bnc_repro ends them")
        return self._result

    def _task(self, job: Job, processes: int | str, folder: Path) -> RunOnNode:
        variables: dict[str, str | None] = {**environment(job.recipe.profile)}
        for key in ("BNC_DATA", "PYTHONPATH"):
            if key in os.environ:
                variables[key] = os.environ[key]
        if not job.reuse_published:
            variables["BNC_REPRO_REUSE"] = None
        words = [*run_words(as_dict(job.recipe), folder), "--processes", str(processes)]
        return RunOnNode(words, variables, str(project_root()))


def _reason(handle) -> str:
    """Why a job has left no row, as far as the cluster tells; "" if it has."""
    try:
        return handle.result()
    except Exception as error:  # of submitit: the job was cancelled, its node died, ...
        return (str(error).splitlines() or [type(error).__name__])[0]
