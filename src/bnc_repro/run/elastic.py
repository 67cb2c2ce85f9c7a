"""A command within one of torchrun's processes: torchrun then shows the first error, not each process's."""

import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ErrorHandler, record

from ..training import distributed
from ..training.checkpoint import atomic

VARIABLE = "TORCHELASTIC_ERROR_FILE"  # by which torchrun says where a process leaves its error


class WholeErrors(ErrorHandler):
    """torch's writer of a process's error, whose file is whole or absent: torchrun ends the others as soon as one has
    died, reads what they wrote, and falls over a file it ended in the middle, where it should start them again."""

    def record_exception(self, e: BaseException) -> None:
        """Leave the error where torchrun looks for it."""
        file = os.environ.get(VARIABLE)
        if not file:
            super().record_exception(e)
            return
        try:
            with atomic(Path(file)) as temporary:
                os.environ[VARIABLE] = str(temporary)
                super().record_exception(e)
        finally:
            os.environ[VARIABLE] = file


def in_torchrun(function: Callable[[Namespace], None], options: Namespace) -> None:
    """Call the command's function with its options as one of torchrun's processes, and leave the others after it."""
    record(function, WholeErrors())(options)
    distributed.part()
