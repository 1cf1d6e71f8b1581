"""Stopping a job from outside; without torch, so that any caller can have it."""

from __future__ import annotations

import threading

from .errors import Cancelled


class CancelToken:
    """Cancels a running :func:`synthseg_slicer.segment` or :func:`synthseg_slicer.job.run` from another thread or from
    its progress callback."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the job to stop; it does so within a fraction of a second to a few seconds, and writes nothing."""
        self._event.set()

    def check(self) -> None:
        """Raise :class:`~synthseg_slicer.errors.Cancelled` once cancelled."""
        if self._event.is_set():
            raise Cancelled("Cancelled. Nothing was written.")
