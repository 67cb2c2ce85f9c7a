"""Several processes for one command: how many, and their start by torchrun."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def processes_asked(processes: int | str) -> int:
    """How many processes a number or `gpus` asks for; 1 within torchrun, which has started its own."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return 1
    if isinstance(processes, str):
        import torch

        return max(1, torch.cuda.device_count())
    return processes


def launch(processes: int) -> None:
    """Become torchrun with this very command. A process that dies is started again, and resumes."""
    words, environment = torchrun(processes, sys.argv[1:])
    os.execve(sys.executable, [sys.executable, *words], environment)


def torchrun(processes: int, words: list[str]) -> tuple[list[str], dict[str, str]]:
    """What to say to Python so that torchrun starts `python -m bnc_repro WORDS` in so many processes, and in which
    environment."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--max-restarts=3"]
    # Without this the processes of a second start may find the addresses of the first one's.
    own_store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return [*start, "-m", "bnc_repro", *words], {**os.environ, **own_store}


def run_words(recipe: dict, runs: Path | None = None) -> list[str]:
    """The words of the command line that ask for exactly this recipe, `as_dict`."""
    words = ["run", recipe["experiment"], "--profile", recipe["profile"]]
    for key, value in dotted(recipe):
        if key not in ("experiment", "profile"):
            words += ["--set", f"{key}={json.dumps(value)}"]
    return [*words, *(["--runs", str(runs)] if runs else [])]


def dotted(recipe: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a recipe, `as_dict`: each key as `--set` names it, and its value."""
    for key, value in recipe.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
