"""What ``synthseg-slicer batch`` and ``synthseg-slicer bids`` do."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..arguments import check_threads
from ..cards import read_card, weight_file
from ..errors import OptionError, OutputError, ScanError, SynthSegError
from ..files import reason
from . import bids
from .cohort import PROBLEMS, VOLUMES, describe_dataset, write_cohort
from .discovery import DESCRIPTION, Filters, Found, find
from .dispatch import Workers, dispatch
from .ledger import DONE, FAILED, FOLDER, Ledger, Record
from .plan import OPTIONS, PAGE, POSTERIORS, Plan, config_of, weights_of
from .progress import Progress
from .resume import Resumption, resume


def run_bids(options: argparse.Namespace) -> int:
    """Do one level of a BIDS App and return the exit code."""
    if options.level == "participant":
        return run_batch(options)
    if options.participant_label or options.session_label or options.suffix or options.filter:
        raise OptionError("The level 'group' is about all that was segmented. Leave the filters out.")
    root = find(options.source, options.output, is_bids=True).root
    if not (Path(options.output) / FOLDER).is_dir():
        raise ScanError(f"{options.output}: holds no results yet. Run the level 'participant' first.")
    with closing(Ledger(options.output)) as ledger:
        return _summary(write_cohort(ledger, root), ledger, tables=True)


def run_batch(options: argparse.Namespace) -> int:
    """Segment all scans that the input means, write the tables, and return the exit code."""
    check_threads(options.threads)
    if options.workers is not None and (options.workers < 1 or options.scheduler):
        raise OptionError("--workers is at least 1, and --scheduler says itself how many (local:N). Give one of them.")
    is_app = options.level == "participant"
    found = find(options.source, options.output, _filters(options), is_bids=True if is_app else None)
    _make_output(Path(options.output), found)
    plan = _plan(options, found)
    with closing(Ledger(plan.output)) as ledger:
        ledger.join(_settings(plan, found), options.redo)
        describe_dataset(ledger, found.root)
        if not _segmented(found, plan, ledger, options):
            return 1
        if not is_app:  # its jobs run side by side, each with a few participants; the level 'group' makes the tables
            write_cohort(ledger, found.root, [item.key for item in found.items])
        return _summary(_records(found, ledger), ledger, tables=not is_app)


def _segmented(found: Found, plan: Plan, ledger: Ledger, options: argparse.Namespace) -> bool:
    """Segment what earlier runs left, and return whether all came to an end; if not, it was told why."""
    left = resume(found, plan, ledger, redo=options.redo, retry_failed=options.retry_failed)
    progress = Progress(len(found.items), len(found.items) - len(left.todo), options.quiet)
    for text in () if options.quiet else _news(found, left, ledger):
        progress.tell(text)
    if not left.todo:
        return True
    try:
        with _interruptible():
            workers = _workers(plan, options, len(left.todo))
            try:
                dispatch(left.todo, workers, progress)
            finally:
                workers.stop()
    except (SynthSegError, KeyboardInterrupt) as error:
        ended = sum(record.lasting for record in _records(found, ledger))
        standing = f"{ended} of {len(found.items)} scans are done. Run the same command again to go on."
        if isinstance(error, KeyboardInterrupt):
            progress.tell(standing)
            raise
        if not ended:
            raise
        progress.tell(f"{error} {standing}")
        return False
    finally:
        progress.close()
    return True


def _records(found: Found, ledger: Ledger) -> list[Record]:
    """Return the records of the scans that the input means, made with the present settings."""
    keys, config = {item.key for item in found.items}, ledger.settings()["id"]
    return [record for record in ledger.records() if record.key in keys and record.config == config]


def _workers(plan: Plan, options: argparse.Namespace, todo: int) -> Workers:
    if options.scheduler:
        from .cluster import DaskWorkers

        return DaskWorkers(plan, options.scheduler)
    from .processes import LocalWorkers

    return LocalWorkers(plan, min(options.workers or 1, todo))


def _filters(options: argparse.Namespace) -> Filters:
    entities: dict[str, set[str]] = {}
    for pair in options.filter:
        entity, equals, label = pair.partition("=")
        if not (entity and equals and label):
            raise OptionError(f"--filter {pair}: write ENTITY=LABEL, such as acq=mprage.")
        entities.setdefault(entity, set()).add(label)
    suffixes = tuple(options.suffix or bids.SUFFIXES)
    return Filters(suffixes, tuple(options.participant_label), tuple(options.session_label), entities)


def _make_output(output: Path, found: Found) -> None:
    """Make the output folder; refuse one whose files are of somebody else."""
    if found.is_bids:
        if output.resolve() == found.root:
            raise OptionError(f"{output}: is the dataset itself. Choose another folder, such as derivatives/synthseg.")
        if (output / DESCRIPTION).exists() and not (output / FOLDER).is_dir():
            raise OptionError(f"{output}: holds another dataset ({DESCRIPTION}). Choose another folder.")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: the folder cannot be made ({reason(error)}). Choose another one.") from error


def _plan(options: argparse.Namespace, found: Found) -> Plan:
    extras = {POSTERIORS: options.probseg, PAGE: options.report}
    model = None if options.model is None else str(Path(options.model).absolute())
    threads = options.threads
    processes = options.workers or 1
    if options.scheduler:
        from .cluster import local_processes

        processes = local_processes(options.scheduler)
    if threads is None and processes is not None:
        threads = max(1, cores() // processes)
    method = {name: getattr(options, "refine" if name == "refined" else name) for name in OPTIONS}
    return Plan(
        str(found.root),
        str(Path(options.output).resolve()),
        config_of(method, weights_of(model)),
        tuple(kind for kind, wanted in extras.items() if wanted),
        model,
        options.device,
        threads,
    )


def _settings(plan: Plan, found: Found) -> dict:
    """Return what all who work in the output folder share."""
    labels = read_card(weight_file(path=plan.model))["labels"]
    return {"id": plan.id, "config": plan.config, "is_bids": found.is_bids, "labels": labels}


def _news(found: Found, left: Resumption, ledger: Ledger) -> Iterator[str]:
    """Yield what the user should know before it begins."""
    total, todo = len(found.items), len(left.todo)
    yield f"{total} scan{'' if total == 1 else 's'}" + (f", of which {total - todo} are done" if todo < total else "")
    if left.changed:
        yield f"{left.changed} changed since they were segmented, and are segmented again"
    if left.incomplete:
        yield f"of {left.incomplete} results are missing; they are segmented again"
    if found.unnamed:
        yield f"{len(found.unnamed)} images have no BIDS names and are left out, such as {found.unnamed[0]}"
    if not ledger.locks.supported:
        yield f"{ledger.output}: no locks on this file system; only one process at a time may work in this folder"


def _summary(records: Iterable[Record], ledger: Ledger, tables: bool) -> int:
    """Tell how many scans are done, and return the exit code."""
    states = [record.status for record in records]
    done, failed = states.count(DONE), states.count(FAILED)
    text = f"{done} of {len(states)} scans are segmented"
    text += f", {failed} failed" if failed else ""
    text += f": see {ledger.output / PROBLEMS}" if failed and tables else ""
    text += f"; volumes in {ledger.output / VOLUMES}" if tables else ""
    print(f"synthseg-slicer: {text}", file=sys.stderr)
    return (1 if done else 2) if failed else 0


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM, with which batch systems announce the end of a job, do what Ctrl+C does."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set it
        yield
        return

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
