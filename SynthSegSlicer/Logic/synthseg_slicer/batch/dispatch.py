"""Feeding scans to workers until each has come to an end, whatever happens to workers and to other processes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from .ledger import DONE, FAILED
from .plan import BUSY, LOST, Item, Outcome
from .progress import Progress

TICK = 0.5
"""Seconds between two looks at the clock while nothing happens."""
RETRY_SECONDS = 2.0
"""After so long a scan that another process had claimed is tried again."""


class Workers(Protocol):
    """Processes that segment: :class:`.processes.LocalWorkers`, :class:`.cluster.DaskWorkers`."""

    capacity: int

    def submit(self, item: Item, seen: str | None) -> None: ...

    def next(self, timeout: float) -> Outcome | None: ...

    def stop(self) -> None: ...


def dispatch(pending: Iterable[tuple[Item, str | None]], workers: Workers, progress: Progress) -> dict[str, int]:
    """Have all scans segmented.

    A scan whose worker was lost is given out again, after the others; the engine limits how often
    (:data:`.engine.MOST_DEATHS`). One that another process has claimed is tried again until that has done it, or has
    given the claim back.

    Parameters
    ----------
    pending : iterable of Item and str or None
        Scans, with the id of the record in spite of which they are to be segmented.
    workers : Workers
    progress : Progress
        Is told of each scan that came to an end.

    Returns
    -------
    dict
        How many are ``done`` and ``failed``.

    Raises
    ------
    SynthSegError
        What the workers raise.
    """
    waiting, claimed, flight = deque(pending), deque(), {}
    counts = {DONE: 0, FAILED: 0}
    while waiting or claimed or flight:
        while waiting and len(flight) < workers.capacity:
            item, seen = waiting.popleft()
            flight[item.key] = item, seen
            workers.submit(item, seen)
        outcome = workers.next(TICK)
        if outcome is not None and outcome.key in flight:
            work = flight.pop(outcome.key)
            if outcome.status == LOST:
                waiting.append(work)
            elif outcome.status == BUSY:
                claimed.append((time.monotonic() + RETRY_SECONDS, work))
            else:
                counts[outcome.status] += 1
                progress.count(outcome)
        while claimed and claimed[0][0] <= time.monotonic():
            waiting.append(claimed.popleft()[1])
        progress.show(claimed=len(claimed) if not (waiting or flight) else 0)
    return counts
