"""Several processes for one command: how many, and their start by torchrun."""

import os
import sys


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
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = ["--max-restarts=3", "-m", "bnc_repro", *sys.argv[1:]]
    # Without this the processes of a second start may find the addresses of the first one's.
    own_store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    os.execve(sys.executable, [*torchrun, *words], {**os.environ, **own_store})
