"""The stages of a job: what is reported of them, where it can be cancelled, and how long each one took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .cancel import CancelToken

Progress = Callable[[str, float], None]
"""Called with the stage's name and the fraction of the whole job."""


class Stages:
    """Reports progress, checks for cancelling and takes the time.

    Parameters
    ----------
    progress : callable or None
        See :data:`Progress`.
    cancel : CancelToken or None
        Stops the job between its steps.

    Attributes
    ----------
    seconds : dict
        Wall-clock time of each stage that ended; times of stages with one name add up.
    """

    def __init__(self, progress: Progress | None, cancel: CancelToken | None):
        self.report = progress or (lambda stage, fraction: None)
        self.cancel = cancel or CancelToken()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str, start: float, stop: float) -> Iterator[Callable[[float], None]]:
        """Run a stage from one fraction of the job to another; yields a function to call with the stage's own fraction.

        Raises
        ------
        Cancelled
            At the beginning and at each step.
        """

        def step(fraction: float) -> None:
            self.cancel.check()
            self.report(name, start + fraction * (stop - start))
            self.cancel.check()

        begin = time.perf_counter()
        step(0.0)
        yield step
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
