"""What tests of runs share."""

from pathlib import Path

import torch

from bnc_repro.run.identity import folder_of
from bnc_repro.training import checkpoint, loop

CPU = torch.device("cpu")


def what_counts(row: dict) -> dict:
    """A row without what the clock decides."""
    curve = [
        {key: value for key, value in epoch.items() if key not in ("seconds", "cpu_seconds")} for epoch in row["curve"]
    ]
    return {"metrics": row["metrics"], "best": row["best"], "status": row["status"], "curve": curve}


def weights(recipe, runs: Path) -> dict:
    return checkpoint.load(folder_of(recipe, runs) / checkpoint.NAMES[0])["network"]


def assert_same_run(recipe, first: Path, row: dict, second: Path, other: dict) -> None:
    assert what_counts(row) == what_counts(other)
    a, b = weights(recipe, first), weights(recipe, second)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


class Stop(Exception):
    """Where a test interrupts a training."""


def interrupt(monkeypatch, step: int) -> None:
    """Raise Stop before the step of that number is taken; keep a checkpoint after every step."""
    true, count = loop.set_rates, [0]

    def counted(*arguments):
        count[0] += 1
        if count[0] == step:
            raise Stop
        true(*arguments)

    monkeypatch.setattr(loop, "set_rates", counted)
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1)
    monkeypatch.setattr(loop, "CHECK_EVERY", 1)
