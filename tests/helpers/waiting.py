"""A binarizer whose training waits after three epochs, until the file that GO names is there."""

import os
import time
from pathlib import Path

from bnc_repro.binarizers.base import Binarizer

CALLS = 3 * 10 * 2 + 1  # of two binary layers in ten steps an epoch, three epochs and one call more
GO = "BNC_TEST_GO"


class Waiting(Binarizer):
    """Clipped straight-through."""

    calls = 0

    def derivative(self, x):
        Waiting.calls += 1
        while Waiting.calls >= CALLS and not Path(os.environ[GO]).exists():
            time.sleep(0.01)
        return (x.abs() <= 1).to(x.dtype)
