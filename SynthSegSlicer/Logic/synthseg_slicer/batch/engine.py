"""Segmenting scans in one process: the weights are loaded once; reading, inference and writing of scans overlap."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from .. import provenance
from ..cancel import CancelToken
from ..caught import caught_warnings
from ..errors import Cancelled, OutputError, WeightsError
from ..files import atomic, reason, remove_leftovers
from ..pages import write_scan_page
from ..pipeline import Segmentation, segment
from ..posteriors import write_posteriors
from ..predict import resolve_device
from ..scan import Scan, read_scan, write_volume
from ..weights import load_model
from ..worker import explain
from . import bids
from .ledger import DONE, FAILED, RUNNING, Ledger, Record, signature
from .plan import BUSY, OPTIONS, PAGE, POSTERIORS, Item, Outcome, Plan, weights_of

MOST_DEATHS = 3
"""A scan during which the process died so often is given up. After the first time it is segmented with no other in the
process, so that scans do not answer for their neighbours."""


class Engine:
    """Segments the scans of a batch; :meth:`process` may be called from several threads.

    Parameters
    ----------
    plan : Plan
    cancel : CancelToken, optional
        Ends what is in work; scans that it ends are as if they had never been begun.
    ledger : Ledger, optional
        Of the output folder, if this process has one already: there must be only one (:class:`.locks.Locks`).

    Raises
    ------
    WeightsError, DeviceError, OutputError
        No scan could be segmented here.
    """

    def __init__(self, plan: Plan, cancel: CancelToken | None = None, ledger: Ledger | None = None):
        self._plan, self._cancel = plan, cancel or CancelToken()
        self._root, self._output = Path(plan.root), Path(plan.output)
        if plan.threads is not None:
            torch.set_num_threads(plan.threads)
        resolve_device(plan.device)
        self._model = load_model(path=plan.model)
        if weights_of(plan.model) != plan.config["weights"]:
            raise WeightsError(
                f"The weights here ({plan.model or 'bundled'}) are not those that the batch was begun with. Install "
                "the same version of the package on all machines."
            )
        self._ledger = ledger or Ledger(plan.output)
        self._gate = _Gate()
        self._reading, self._computing, self._writing = threading.Lock(), threading.Lock(), threading.Lock()

    def process(self, item: Item, seen: str | None = None) -> Outcome:
        """Segment a scan and record what became of it.

        Parameters
        ----------
        item : Item
        seen : str, optional
            Id of the record in spite of which the scan is to be segmented. A newer one means that another process has
            done it.

        Raises
        ------
        OutputError
            Not even the record can be written.
        Cancelled
        """
        self._cancel.check()
        if not self._ledger.locks.claim(item.key):
            return Outcome(item.key, BUSY)
        try:
            known = self._ledger.read(item.key)
            if known and known.id != seen and self._settled(known):
                return _outcome(known, elsewhere=True)
            died = known.attempts if known and known.status == RUNNING else 0
            with self._gate(alone=died > 0):
                return _outcome(self._attempt(item, known, died))
        finally:
            self._ledger.locks.release(item.key)

    def _settled(self, known: Record) -> bool:
        if known.status == RUNNING or known.config != self._plan.id:
            return False
        return known.status == FAILED or set(self._plan.extras) <= set(known.outputs)

    def _attempt(self, item: Item, known: Record | None, died: int) -> Record:
        path = self._root / item.key
        begun = Record(item.key, self._plan.id, RUNNING, died + 1, entities=item.entities, signature=signature(path))
        outputs = {kind: self._output / file for kind, file in item.outputs(self._plan.extras).items()}
        if died:
            for file in (*outputs.values(), provenance.path_beside(outputs["labels"])):
                remove_leftovers(file)
        if died >= MOST_DEATHS:
            why = (
                f"The process that segmented it died {died} times without a word: it was killed, memory ran out, or "
                "the file crashes a reader. Segment it by itself to see."
            )
            record = replace(begun, status=FAILED, kind="Died", reason=why)
        else:
            self._ledger.write(begun)
            try:
                record = self._segmented(item, path, outputs, begun)
            except Cancelled:
                self._ledger.write(known) if known else self._ledger.discard(item.key)
                raise
            except Exception as error:
                failure = explain(error, "There is not enough memory. Use fewer workers, or crop the scan to the head.")
                record = replace(begun, status=FAILED, kind=failure.kind, reason=_told(str(failure), path, item.key))
        self._ledger.write(record)
        return record

    def _segmented(self, item: Item, path: Path, outputs: dict[str, Path], begun: Record) -> Record:
        options = {name: self._plan.config["options"][name] for name in OPTIONS}
        with caught_warnings() as caught:
            with self._reading:
                self._cancel.check()
                begin = time.perf_counter()
                scan = read_scan(path)
                read_seconds = time.perf_counter() - begin
            with self._computing:
                result = segment(scan, model=self._model, device=self._plan.device, cancel=self._cancel, **options)
        messages = [
            _told(str(warning.message), path, item.key)
            for warning in caught
            if issubclass(warning.category, UserWarning)
        ]
        result.provenance["warnings"] = messages
        result.provenance["seconds"]["read"] = round(read_seconds, 3)
        result.provenance["input"] |= {"name": item.key, "path": item.key}  # elsewhere they may name patients
        result.provenance["outputs"] = item.outputs(self._plan.extras)
        if item.entities:
            result.provenance.update(bids.sidecar(item.key, item.entities))
        with self._writing:
            self._cancel.check()
            self._write(scan, result, outputs)
        return replace(
            begun,
            status=DONE,
            quality=result.verdict.scan,
            volumes=result.volumes,
            warnings=messages,
            outputs=result.provenance["outputs"],
            sha256=scan.sha256,
            seconds=round(sum(result.provenance["seconds"].values()), 3),
        )

    def _write(self, scan: Scan, result: Segmentation, outputs: dict[str, Path]) -> None:
        """Write all files under temporary names, then rename them all."""
        labels = outputs["labels"]
        try:
            labels.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{labels.parent}: cannot be made ({reason(error)}). Check the output folder.") from error
        with ExitStack() as stack:
            temporary = {kind: stack.enter_context(atomic(file)) for kind, file in outputs.items()}
            write_volume(temporary["labels"], result.labels, result.affine)
            if POSTERIORS in temporary:
                shape = (*result.labels.shape, len(result.top.ids))
                channels = map(result.posterior, result.top.ids)
                write_posteriors(temporary[POSTERIORS], channels, shape, result.affine)
            if PAGE in temporary:
                write_scan_page(temporary[PAGE], scan, result)
            record = stack.enter_context(atomic(provenance.path_beside(labels)))
            provenance.write(record, result.provenance, keep_folders=True)


class _Gate:
    """Lets many threads in at a time, or one alone, who need not wait for those that come later."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside, self._waiting, self._alone = 0, 0, False

    @contextmanager
    def __call__(self, alone: bool) -> Iterator[None]:
        with self._changed:
            if alone:
                self._waiting += 1
                self._changed.wait_for(lambda: not self._inside)
                self._waiting -= 1
            else:
                self._changed.wait_for(lambda: not (self._alone or self._waiting))
            self._inside += 1
            self._alone = alone
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._alone = False
                self._changed.notify_all()


def _outcome(record: Record, elsewhere: bool = False) -> Outcome:
    return Outcome(record.key, record.status, record.reason, len(record.warnings), elsewhere)


def _told(text: str, path: Path, key: str) -> str:
    """Return a message about a scan without its absolute path, and without its name at the beginning."""
    return text.replace(str(path), key).removeprefix(f"{key}: ")
