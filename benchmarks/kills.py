"""Do kills change a digit? Small runs of the ablation, undisturbed, and again while random workers, and then whole
sweeps, are killed at random moments; every metric and curve is compared.

    python benchmarks/kills.py [--workers 20] [--sweeps 10] [--seed 0]

It runs in the clone; what it trains goes to a temporary folder. The exit status is 1 if a digit differs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = "sweep linear_vs_soft --arm ste --arm mlp --seed 0 --seed 1 --jobs 2 --set epochs=4 --set data.train_limit=2000"
RUNS = 4
TIMES = ("seconds", "cpu_seconds")  # what the clock decides


def start(folder: Path) -> subprocess.Popen:
    """A sweep over the runs in `folder`."""
    words = [sys.executable, "-m", "bnc_repro", *WORDS.split(), "--runs", str(folder)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rows(folder: Path) -> dict[str, dict]:
    """What counts of the rows in `folder`: all but what the clock decides."""
    kept = {}
    for path in sorted(folder.rglob("row.json")):
        row = json.loads(path.read_text())
        curve = [{key: value for key, value in epoch.items() if key not in TIMES} for epoch in row["curve"]]
        kept[path.parent.name] = {"metrics": row["metrics"], "best": row["best"], "curve": curve}
    return kept


def workers(folder: Path) -> list[int]:
    """The processes that are on a run now."""
    pids = []
    for path in folder.rglob("lock.holder"):
        text = path.read_text()
        if text and not (path.parent / "row.json").exists() and Path(f"/proc/{text}").exists():
            pids.append(int(text))
    return pids


def disturbed(folder: Path, kills: int, draw: random.Random, whole: bool) -> tuple[int, int, int, list[dict]]:
    """Sweep again and again into new folders, until so many processes have been killed and no run is open: how many
    were, how many sweeps were started, how many runs were closed, and the rows of every folder."""
    killed, starts, collected = 0, 0, []
    while killed < kills:
        runs = folder / f"{len(collected)}"
        while len(rows(runs)) < RUNS:
            process, starts = start(runs), starts + 1
            while process.poll() is None:
                time.sleep(draw.uniform(0.5, 3.0))
                pids = workers(runs)
                if killed < kills and pids and process.poll() is None:
                    os.kill(process.pid if whole else draw.choice(pids), signal.SIGKILL)
                    killed += 1
            process.wait()
        collected.append(rows(runs))
    return killed, starts, sum(map(len, collected)), collected


def main() -> None:
    """Kill, compare, say what was seen."""
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--workers", type=int, default=20)
    options.add_argument("--sweeps", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    asked, differing = options.parse_args(), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder, draw = Path(temporary), random.Random(asked.seed)
        start(folder / "undisturbed").wait()
        expected = rows(folder / "undisturbed")
        assert len(expected) == RUNS
        for what, count, whole in (("workers", asked.workers, False), ("sweeps", asked.sweeps, True)):
            killed, starts, closed, collected = disturbed(folder / what, count, draw, whole)
            different = sum(kept != expected for kept in collected)
            differing += different
            print(
                f"{killed} {what} killed in {starts} sweeps, {closed} runs: {different} of {len(collected)} sets of "
                f"{RUNS} rows differ from the undisturbed ones",
                flush=True,
            )
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
