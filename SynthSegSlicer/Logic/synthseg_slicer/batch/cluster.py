"""Workers under Dask distributed: on this machine, at an address, or started by a batch system through dask-jobqueue.

Each worker process loads the weights once and keeps them (:func:`segment_on_worker`). The scheduler moves the scans of
a lost worker to others; if the scheduler itself is lost the batch ends, and a rerun goes on.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..errors import ClusterError, OptionError, SynthSegError
from ..files import reason
from .ledger import Ledger
from .plan import IN_FLIGHT, LOST, Item, Outcome, Plan

if TYPE_CHECKING:
    from distributed import Client, Future

    from .engine import Engine

QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster"}
"""Batch systems, and dask-jobqueue's classes for them."""
RETRIES = 2
"""So often is a scan tried again whose worker could not even record what became of it."""
CONNECT_SECONDS = 30
"""Time to find the scheduler."""
RESULT_SECONDS = 10
"""Time to fetch what a worker says became of a scan, a few bytes; others wait meanwhile."""

_lock = threading.Lock()
_engine: tuple[str, Engine] | None = None
_ledgers: dict[str, Ledger] = {}
"""Output folder to its account, which engines with different plans share if one follows another."""


def segment_on_worker(plan: str, item: dict, seen: str | None) -> dict:
    """Segment a scan in a Dask worker; the function that tasks call.

    Parameters
    ----------
    plan : str
        From :meth:`.Plan.dump`.
    item : dict
        Fields of an :class:`.Item`.
    seen : str or None
        See :meth:`.Engine.process`.

    Returns
    -------
    dict
        Fields of an :class:`.Outcome`.
    """
    global _engine
    loaded = Plan.load(plan)
    with _lock:
        ledger = _ledgers.get(loaded.output)
        if ledger is None or not ledger.is_there:
            ledger, _engine = Ledger(loaded.output), None
            _ledgers[loaded.output] = ledger
        if _engine is None or _engine[0] != plan:
            from ..allocation import keep_freed_memory
            from .engine import Engine

            keep_freed_memory(one_arena=True)
            _engine = plan, Engine(loaded, ledger=ledger)
        engine = _engine[1]
    return asdict(engine.process(Item(**item), seen))


class DaskWorkers:
    """The workers of a Dask scheduler.

    Parameters
    ----------
    plan : Plan
        Its folders must be the same on all machines.
    scheduler : str
        ``local`` or ``local:N`` for N processes on this machine; an address such as ``tcp://host:8786``; ``slurm``,
        ``pbs`` or ``sge``, with ``:N`` for N jobs, set up as dask-jobqueue's configuration says.

    Attributes
    ----------
    capacity : int
        All scans are given to the scheduler at once.

    Raises
    ------
    ClusterError
        A package is missing, or there is no scheduler at the address.
    OptionError
        The scheduler is unknown.
    """

    capacity = 2**31

    def __init__(self, plan: Plan, scheduler: str):
        self._plan, self._scheduler = plan.dump(), scheduler
        self._outcomes: queue.Queue[Outcome | Exception] = queue.Queue()
        self._futures: dict[str, Future] = {}
        self._cluster, self._client = _connect(scheduler)

    def submit(self, item: Item, seen: str | None) -> None:
        """Give a scan to the scheduler."""
        try:
            future = self._client.submit(segment_on_worker, self._plan, asdict(item), seen, pure=False, retries=RETRIES)
        except Exception as error:  # the client of a lost scheduler raises what it likes
            raise self._lost() from error
        self._futures[item.key] = future
        future.add_done_callback(lambda future, key=item.key: self._take(future, key))

    def next(self, timeout: float) -> Outcome | None:
        """Return what became of one scan, or None if nothing happened for ``timeout`` seconds.

        Raises
        ------
        ClusterError
            The scheduler is lost.
        SynthSegError
            What a worker raised.
        """
        try:
            outcome = self._outcomes.get(timeout=timeout)
        except queue.Empty:
            if self._client.status != "running":
                raise self._lost() from None
            return None
        if isinstance(outcome, Exception):
            raise outcome
        self._futures.pop(outcome.key, None)
        return outcome

    def stop(self) -> None:
        """Take back what is not begun, leave the scheduler, and end it if it was started here."""
        with suppress(Exception):  # it may be gone
            self._client.cancel(list(self._futures.values()))
        for part in (self._client, self._cluster):
            with suppress(Exception):
                if part is not None:
                    part.close(timeout=5)

    def _take(self, future: Future, key: str) -> None:
        """Queue what a future has come to; called in a thread of the client."""
        self._outcomes.put(self._come_to(future, key))

    def _come_to(self, future: Future, key: str) -> Outcome | Exception:
        from distributed.scheduler import KilledWorker

        try:
            if future.status == "cancelled":  # the client does so when it loses the scheduler
                return self._lost()
            if future.status == "finished":
                return Outcome(**future.result(timeout=RESULT_SECONDS))
            error = future.exception(timeout=RESULT_SECONDS) if future.status == "error" else None
        except Exception:  # of whatever kind: the answer did not arrive
            error = None
        if error is None or isinstance(error, KilledWorker):
            # a worker that dies before it could hand over its answer has recorded it: who asks again hears it at once
            return Outcome(key, LOST)
        if isinstance(error, SynthSegError):
            return error
        return ClusterError(f"A Dask worker failed: {type(error).__name__}: {reason(error)}.")

    def _lost(self) -> ClusterError:
        return ClusterError(f"The Dask scheduler ({self._scheduler}) was lost.")


def local_processes(scheduler: str) -> int | None:
    """Return how many processes a scheduler is to start on this machine, or None for other machines.

    Raises
    ------
    OptionError
        The scheduler is unknown.
    """
    name, count = _parsed(scheduler)
    return count if name == "local" else None


def _parsed(scheduler: str) -> tuple[str, int]:
    """Return what kind of scheduler is meant, empty for an address, and how many workers it is to start."""
    if "://" in scheduler:
        return "", 0
    name, colon, count = scheduler.partition(":")
    if name not in ("local", *QUEUES) or (colon and not (count.isdigit() and int(count))):
        raise OptionError(
            f"The scheduler '{scheduler}' is unknown. Choose local:N, {', '.join(f'{one}:N' for one in QUEUES)}, or an "
            "address such as tcp://host:8786."
        )
    return name, int(count or 1)


def _connect(scheduler: str) -> tuple[object | None, Client]:
    """Return the cluster that was started, if one was, and a client."""
    name, count = _parsed(scheduler)
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            f"--scheduler needs Dask ({error}). Install it: pip install 'synthseg-slicer[batch]'."
        ) from error
    for name_of_log in ("distributed", "distributed.client"):  # what matters is told here
        logging.getLogger(name_of_log).setLevel(logging.CRITICAL)
    try:
        cluster = _start(name, count) if name else None
        return cluster, distributed.Client(cluster or scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(f"There is no connection to the Dask scheduler {scheduler} ({reason(error)}).") from error


def _start(name: str, count: int):
    """Return a cluster with so many workers."""
    if name == "local":
        from distributed import LocalCluster

        with _deaf_children():
            return LocalCluster(
                n_workers=count,
                threads_per_worker=IN_FLIGHT,
                memory_limit=0,  # a worker keeps freed memory; Dask would pause it for that
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
    try:
        import dask_jobqueue
    except ImportError as error:
        raise ClusterError(
            f"--scheduler {name} needs dask-jobqueue ({error}). Install it: pip install dask-jobqueue."
        ) from error
    cluster = getattr(dask_jobqueue, QUEUES[name])()
    cluster.scale(jobs=count)
    return cluster


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Let processes that are started ignore Ctrl+C, which a terminal sends to all; this one ends them in order."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set it
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
