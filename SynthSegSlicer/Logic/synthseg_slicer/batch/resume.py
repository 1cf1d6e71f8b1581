"""Which scans of a batch are still to be segmented, given what earlier runs recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

from .discovery import Found
from .ledger import DONE, Ledger, Record, signature
from .plan import Item, Plan


@dataclass(frozen=True)
class Resumption:
    """What is left to do.

    Attributes
    ----------
    todo : list of Item and str or None
        Scans, with the id of the record in spite of which they are to be segmented.
    changed : int
        How many of them have changed since they were segmented.
    incomplete : int
        Of how many of them results are missing, because somebody removed them or more are wanted now.
    """

    todo: list[tuple[Item, str | None]] = field(default_factory=list)
    changed: int = 0
    incomplete: int = 0


def resume(found: Found, plan: Plan, ledger: Ledger, *, redo: bool = False, retry_failed: bool = False) -> Resumption:
    """Return what is left to do.

    Left out is what is done, and what failed because the scan itself is bad, unless it has changed.

    Parameters
    ----------
    found : Found
    plan : Plan
    ledger : Ledger
    redo : bool
        Do everything again.
    retry_failed : bool
        Try bad scans again.
    """
    known = {record.key: record for record in ledger.records()}
    todo, changed, incomplete = [], 0, 0
    for item in found.items:
        record = known.get(item.key)
        if record is not None and not redo and record.lasting and record.config == plan.id:
            if record.signature != signature(found.root / item.key):
                changed += 1
            elif record.status == DONE and not _complete(item, record, plan, ledger):
                incomplete += 1
            elif record.status == DONE or not retry_failed:
                continue
        todo.append((item, record.id if record else None))
    return Resumption(todo, changed, incomplete)


def _complete(item: Item, record: Record, plan: Plan, ledger: Ledger) -> bool:
    wanted = set(item.outputs(plan.extras).items())
    return wanted <= set(record.outputs.items()) and all(
        (ledger.output / file).is_file() for file in record.outputs.values()
    )
