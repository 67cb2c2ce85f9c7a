"""What a sweep says: on a terminal a live line per worker and one for all, elsewhere a line per finished run."""

import sys

from tqdm import tqdm

MINUTE, HOUR = 60, 3600


class Board:
    """The lines of `workers` workers and of `total` runs, of which the finished ones are counted."""

    def __init__(self, total: int, workers: int) -> None:
        self._total, self._count = total, 0
        self._bars: list[tqdm] = []
        if sys.stderr.isatty():
            self._bars = [tqdm(bar_format="{desc}", position=1 + index, leave=False) for index in range(workers)]
            form = "{n_fmt}/{total_fmt} runs |{bar}| {elapsed}{postfix}"
            self._bars.insert(0, tqdm(total=total, bar_format=form, position=0, leave=False))

    def line(self, text: str, *, warning: bool = False) -> None:
        """A line that stays."""
        stream = sys.stderr if warning else sys.stdout
        if self._bars:
            tqdm.write(text, stream)
        else:
            print(text, file=stream, flush=True)

    def finished(self, text: str, seconds_left: float | None) -> None:
        """A run is finished, and the others will take about so long."""
        self._count += 1
        left = "" if seconds_left is None else f"; about {duration(seconds_left)} left"
        self.line(f"{self._count}/{self._total} {text}{left}")

    def show(self, workers: list[str], seconds_left: float | None) -> None:
        """What each worker is at."""
        if not self._bars:
            return
        self._bars[0].n = self._count
        self._bars[0].set_postfix_str("" if seconds_left is None else f"about {duration(seconds_left)} left")
        for bar, text in zip(self._bars[1:], workers):
            bar.set_description_str(text[: max(20, (bar.ncols or 100) - 1)])

    def close(self) -> None:
        """Take the live lines away."""
        for bar in reversed(self._bars):
            bar.close()
        self._bars = []


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"
