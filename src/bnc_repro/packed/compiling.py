"""How kernels are compiled, and kept for the next process."""

import hashlib
from pathlib import Path

from numba import njit

STAMP = hashlib.blake2b(
    b"".join(
        (Path(__file__).parent / f"{name}.py").read_bytes()
        for name in ("lanes", "kernels", "tables", "floats", "program")
    ),
    digest_size=6,
).hexdigest()


def jit(function):
    """Compiled without the interpreter's lock, and kept on disk. numba takes what it kept as long as the function's own
    file is unchanged; kernels are made of several, so a stamp of all is part of the name under which one is kept."""
    function.__qualname__ = f"{function.__name__}_{STAMP}"
    return njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")(function)
