"""The device of a run: which one, what it is called, how much memory was held."""

import ctypes
import math
import os
import re
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import nn

from ..recipe.schema import Recipe
from ..training import distributed


def pick_device(recipe: Recipe) -> torch.device:
    """CUDA where there is one, else the CPU; the larger profiles refuse to crawl on a CPU."""
    if torch.cuda.is_available():
        torch.cuda.set_device(distributed.on_this_machine())
        return torch.device("cuda", distributed.on_this_machine())
    if recipe.profile in ("gpu", "paper"):
        raise ValueError(f"the {recipe.profile} profile needs a CUDA device and this machine has none; run `small`")
    return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """What decides the digits of a run: the GPU, or the processor, the threads, the instruction sets that torch's own
    kernels, oneDNN's and MKL's really use, and whether square roots are rounded exactly."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")
    threads = torch.get_num_threads()
    kernels = torch.backends.cpu.get_cpu_capability()
    libraries = f"oneDNN {_onednn_kernel()}{_mkl_branch()}{_square_roots()}"
    return f"{model}, {threads} thread{'s' if threads > 1 else ''}, {kernels}, {libraries}"


@cache
def _onednn_kernel() -> str:
    """What oneDNN really calls for a convolution here, such as "avx512_core", from its own report of the call; "none"
    where torch has no oneDNN or does not use it, and on Windows, where it cannot be asked."""
    if sys.platform == "win32" or not torch.backends.mkldnn.is_available():
        return "none"
    report = re.compile(rb"primitive,exec,cpu,convolution,[a-z_]*:?([a-z0-9_]+)")
    with tempfile.TemporaryFile() as file, torch.no_grad():
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)  # the report is written by the C library
        try:
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                nn.functional.conv2d(torch.zeros(2, 16, 8, 8), torch.zeros(16, 16, 3, 3), padding=1)
            ctypes.CDLL(None).fflush(None)
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        file.seek(0)
        kernel = report.search(file.read())
    return kernel[1].decode() if kernel else "none"


MKL_COMPATIBLE = 3  # of MKL's `mkl_cbwr_get(MKL_CBWR_BRANCH = 1)`, in its mkl_types.h


def _mkl_branch() -> str:
    """ ", MKL compatible" where MKL, asked itself, computes alike on every processor; "" where it chooses."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return ", MKL compatible" if library.mkl_serv_cbwr_get(1) == MKL_COMPATIBLE else ""
    except (AttributeError, OSError):  # a torch without MKL, or with one of its own
        return ""


def _square_roots() -> str:
    """ ", exact roots" where torch rounds square roots as IEEE 754 asks; "" where they come from the processor's own
    approximation, which is a matter of its vendor."""
    numbers = range(1, 4097)
    exact = torch.tensor([math.sqrt(number) for number in numbers])
    return ", exact roots" if torch.tensor(numbers, dtype=torch.float32).sqrt().equal(exact) else ""


def peak_memory_mib(device: torch.device) -> int:
    """The most memory that this process held so far: the device's on CUDA, else its own."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    try:
        import resource
    except ImportError:  # Windows keeps no such account
        return 0
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(held / (2**20 if sys.platform == "darwin" else 1024))
