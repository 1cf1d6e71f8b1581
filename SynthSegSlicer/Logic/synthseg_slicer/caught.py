"""Warnings of one thread, caught while other threads go on: :func:`warnings.catch_warnings` takes those of all."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_log: ContextVar[list[warnings.WarningMessage] | None] = ContextVar("caught_warnings", default=None)


@contextmanager
def caught_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Collect the warnings that this thread gives inside the block, each :class:`UserWarning` whether seen before or
    not; those of threads outside such blocks are shown as ever.

    Yields
    ------
    list of warnings.WarningMessage
        Filled as they come.
    """
    log: list[warnings.WarningMessage] = []
    with _SHARED:
        token = _log.set(log)
        try:
            yield log
        finally:
            _log.reset(token)


class _Shared:
    """The change of the interpreter's one way to show warnings, made by the first thread and undone by the last."""

    def __init__(self) -> None:
        self._lock, self._users, self._saved = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                show = warnings.showwarning
                warnings.simplefilter("always", UserWarning)

                def dispatch(message, category, filename, lineno, file=None, line=None) -> None:
                    log = _log.get()
                    if log is None:
                        show(message, category, filename, lineno, file, line)
                    else:
                        log.append(warnings.WarningMessage(message, category, filename, lineno, file, line))

                warnings.showwarning = dispatch
            self._users += 1

    def __exit__(self, *_) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._saved.__exit__(None, None, None)


_SHARED = _Shared()
