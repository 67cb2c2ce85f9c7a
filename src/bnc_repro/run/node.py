"""A run on a node of a cluster: what a job of the array calls there. torch is imported by the run's process alone."""

import os
import subprocess
import sys


class RunOnNode:
    """`python -m bnc_repro WORDS` in the folder `place`, under additional variables of the environment."""

    def __init__(self, words: list[str], environment: dict[str, str | None], place: str) -> None:
        self.words, self.environment, self.place = words, environment, place
        self._process: subprocess.Popen | None = None

    def __call__(self) -> str:
        """Train; why there is no row, "" if there is. What the run prints is in the job's files too."""
        variables = {key: value for key, value in (os.environ | self.environment).items() if value is not None}
        command, last_line = [sys.executable, "-m", "bnc_repro", *self.words], ""
        self._process = subprocess.Popen(command, env=variables, cwd=self.place, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                print(line, end="", file=sys.stderr, flush=True)
                last_line = line.strip() or last_line
        status = self._process.wait()
        return "" if status == 0 else last_line or f"its process ended with status {status}"

    def checkpoint(self):
        """What is submitted again before a time limit or at a preemption: the same run, which resumes."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.kill()
        return DelayedSubmission(RunOnNode(self.words, self.environment, self.place))
