"""What this machine has for several runs at once: cores, GPUs, and whether the kernel killed for memory."""

import os
import signal
from pathlib import Path

from ..training.memory import control_groups, number_in

CPUS = Path("/sys/devices/system/cpu")


def cores() -> int:
    """Physical cores that this process may use: two threads of one core count once, and a container's quota holds."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = (CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list" for cpu in allowed)
    physical = {path.read_text() if path.is_file() else str(path) for path in siblings}
    quota = _cpu_quota()
    return max(1, len(physical) if quota is None else min(len(physical), round(quota)))


def gpus() -> list[str]:
    """The GPUs that torch sees here, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]


def kills_for_memory() -> int | None:
    """How many processes the kernel has killed for memory since the machine started; None where it does not say."""
    vmstat = Path("/proc/vmstat")
    for line in vmstat.read_text().splitlines() if vmstat.is_file() else ():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return None


def death(exitcode: int | None, kills_before: int | None, kills_after: int | None) -> str:
    """Why a process ended that should not have, from its exit status (minus the signal) and the kernel's counts of
    kills for memory before and after."""
    if exitcode is None or exitcode >= 0:
        return f"its process ended with status {exitcode}"
    name = signal.Signals(-exitcode).name
    if exitcode != -signal.SIGKILL:
        return f"its process was ended by {name}"
    if kills_before is None or kills_after is None:
        return f"its process was ended by {name}: by hand, or by the kernel for memory (which does not say so here)"
    if kills_after > kills_before:
        return "the kernel killed its process for memory; take fewer --jobs, or more accumulate"
    return f"its process was ended by {name}, not by the kernel for memory"


def _cpu_quota() -> float | None:
    quotas = []
    for folder in control_groups(""):
        if (folder / "cpu.max").is_file():
            most, period = (folder / "cpu.max").read_text().split()
            quotas += [int(most) / int(period)] if most.isdecimal() else []
    for folder in control_groups("cpu"):
        most, period = number_in(folder / "cpu.cfs_quota_us"), number_in(folder / "cpu.cfs_period_us")
        quotas += [most / period] if most and period else []
    return min(quotas, default=None)
