"""What a run says: lines of progress on stdout, warnings on stderr, both from the first process only."""

import logging
import sys
from collections.abc import Iterable

from tqdm import tqdm

from . import distributed

log = logging.getLogger("bnc_repro")
log.addFilter(lambda record: distributed.rank() == 0)


class _Streams(logging.StreamHandler):
    """To whatever stdout and stderr are when a line is written; warnings and worse to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        super().emit(record)


def show() -> None:
    """Let lines of progress be seen, unless the program that uses this library has handlers that show them already."""
    log.setLevel(logging.INFO)
    if not log.hasHandlers():
        log.addHandler(_Streams())


def progress_bar(steps: range, name: str) -> Iterable[int]:
    """A bar on a terminal, nothing elsewhere: the line per epoch is enough there."""
    hidden = not sys.stderr.isatty() or distributed.rank() > 0
    return tqdm(steps, name, steps.stop, initial=steps.start, leave=False, disable=hidden)
