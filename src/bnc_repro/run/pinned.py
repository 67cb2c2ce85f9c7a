"""The settings under which small profiles train on x86 processors, so that a run's digits are those of every machine.

Sums of floats depend on their order, and their order on the number of threads and on the instruction set: torch's own
kernels, oneDNN's and MKL's each choose theirs from the processor. The profiles of two cores fix all of it to one thread
and AVX2, which every x86 processor since about 2015 has; `gpu` and `paper` keep what is fastest. torch reads the number
of threads when it is imported, and the libraries read theirs when they first compute: all are set before.

MKL has two parts. Its matrix products take other kernels on AMD under the setting AVX2, the same ones under COMPATIBLE.
Its vector mathematics, through which torch takes square roots, does not heed that setting: its kernels start from the
instruction `rsqrtps`, an approximation whose bits each vendor chooses, and Adam divides by their result. Its kernels of
type 3 alone use no such instruction and round square roots as IEEE 754 asks. The variable that selects them is not
documented, so the row says whether it worked ("exact roots"). LOG.md has the measurements.
"""

import os
import platform
import re
from pathlib import Path

PINNED_PROFILES = ("sample", "small", "presets")
AVX2 = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_VML_DEBUG_CPU_TYPE": "3",
}
# how the device of a row ends whose run was pinned
PINNED_DEVICE = ", 1 thread, AVX2, oneDNN avx2, MKL compatible, exact roots"


def environment(profile: str) -> dict[str, str]:
    """The variables that a process needs before it imports torch for a run of `profile`; {} where nothing is pinned:
    under the larger profiles, and on a processor without AVX2."""
    return dict(AVX2) if profile in PINNED_PROFILES and _has_avx2() else {}


def pin(profile: str) -> None:
    """Give this process `environment(profile)`. It takes full effect where torch has not been imported."""
    os.environ.update(environment(profile))


def is_pinned(profile: str, device: str) -> bool:
    """Whether a run of `profile` on `device` (as rows name it) computes with the profile's settings; a profile without
    settings, and a GPU, have none to miss."""
    on_cpu = re.search(r", \d+ threads?\b", device) is not None
    return not environment(profile) or not on_cpu or device.endswith(PINNED_DEVICE)


def _has_avx2() -> bool:
    flags = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not flags.is_file():
        return False
    return any(line.startswith("flags") and " avx2 " in f"{line} " for line in flags.read_text().splitlines())
