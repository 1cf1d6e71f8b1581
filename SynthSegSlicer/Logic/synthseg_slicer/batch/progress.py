"""What a batch tells while it runs: how many scans are done, how fast, and how long the others will take."""

from __future__ import annotations

import sys
import time
from collections import deque

from .ledger import FAILED
from .plan import Outcome

WINDOW = 50
"""The rate is that of so many scans at last."""
LINE_SECONDS = 30.0
"""On no terminal, at most one line in so many seconds."""
BAR = 20


class Progress:
    """A line on standard error that is written over; on no terminal, a line now and then.

    Parameters
    ----------
    total : int
        Scans of the batch.
    before : int
        Of them done by earlier runs.
    quiet : bool
        Show no line.
    """

    def __init__(self, total: int, before: int = 0, quiet: bool = False):
        self._total, self._done, self._failed, self._quiet = total, before, 0, quiet
        self._times = deque([time.monotonic()], maxlen=WINDOW + 1)
        self._terminal = sys.stderr.isatty()
        self._shown, self._last = None, time.monotonic()

    def count(self, outcome: Outcome) -> None:
        """Take in that a scan came to an end."""
        self._done += 1
        self._times.append(time.monotonic())
        if outcome.status == FAILED:
            self._failed += 1
            self.tell(f"{outcome.key}: {outcome.reason}")

    def tell(self, text: str) -> None:
        """Print a line of its own."""
        self._clear()
        print(f"synthseg-slicer: {text}", file=sys.stderr)

    def show(self, claimed: int = 0) -> None:
        """Show where things stand if it is time to; ``claimed`` scans are all that is left and others work on them."""
        if self._quiet:
            return
        text = f"{self._line()}, waiting for {claimed} of another process" if claimed else self._line()
        if self._terminal and text != self._shown:
            done = round(BAR * self._done / max(self._total, 1))
            print(f"\r\033[K[{'#' * done}{'.' * (BAR - done)}] {text}", end="", file=sys.stderr, flush=True)
            self._shown = text
        elif not self._terminal and time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line."""
        self._clear()

    def _clear(self) -> None:
        if self._shown is not None:
            print("\r\033[K", end="", file=sys.stderr)
            self._shown = None

    def _line(self) -> str:
        text = f"{self._done} of {self._total}"
        if self._failed:
            text += f", {self._failed} failed"
        if len(self._times) < 2:
            return text
        pace = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        left = pace * (self._total - self._done)
        return f"{text}, {60 / max(pace, 1e-6):.3g} a minute, {duration(left)} left"


def duration(seconds: float) -> str:
    """Return a time in words: ``3 d 4 h``, ``2 h 5 min``, ``12 min``, ``40 s``."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{round(seconds)} s"
    if minutes < 90:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
