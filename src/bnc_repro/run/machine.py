"""What this machine has for several runs at once: cores, GPUs, memory, and whether the kernel killed for memory."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
CGROUPS = Path("/sys/fs/cgroup")


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


def free_memory_mib() -> int | None:
    """Memory that new processes could take, in MiB: the system's, or what the control group leaves; None if unknown."""
    free = []
    meminfo = Path("/proc/meminfo")
    for line in meminfo.read_text().splitlines() if meminfo.is_file() else ():
        if line.startswith("MemAvailable:"):
            free.append(int(line.split()[1]) // 1024)
    for folder, limit, used in (
        *((folder, "memory.max", "memory.current") for folder in _control_groups("")),
        *((folder, "memory.limit_in_bytes", "memory.usage_in_bytes") for folder in _control_groups("memory")),
    ):
        if (most := _number(folder / limit)) is not None and (taken := _number(folder / used)) is not None:
            free.append(max(0, most - taken) // 2**20)
    return min(free, default=None)


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
    for folder in _control_groups(""):
        if (folder / "cpu.max").is_file():
            most, period = (folder / "cpu.max").read_text().split()
            quotas += [int(most) / int(period)] if most.isdecimal() else []
    for folder in _control_groups("cpu"):
        most, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        quotas += [most / period] if most and period else []
    return min(quotas, default=None)


def _control_groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those above it: version 1's of `controller`, or version 2's
    ("")."""
    listed = Path("/proc/self/cgroup")
    for line in listed.read_text().splitlines() if listed.is_file() else ():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            root = CGROUPS / controller
            inner = root / path.lstrip("/")
            yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root) and folder.is_dir())


def _number(path: Path) -> int | None:
    """The natural number in a file; None for a file that is not there, or that says there is no limit."""
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdecimal() else None
