"""The tables over all scans of a batch, made from the ledger alone: the same whatever happened on the way to it."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..files import atomic
from ..labels import Label
from ..measure import total_intracranial, total_name
from . import bids
from .ledger import DONE, FAILED, Ledger, Record
from .locks import TABLES
from .plan import PAGE

NOTHING = "n/a"
"""What tables of BIDS hold where there is no value."""
VOLUMES, PROBLEMS, REPORT = "volumes.tsv", "problems.tsv", "report.html"
IGNORED = (VOLUMES, "volumes.json", PROBLEMS, "*.html")
"""Files that BIDS does not know; in .bidsignore, for its validator."""
DIGITS = 3
"""Volumes are rounded to a thousandth of a mm³, quality to a thousandth."""


def describe_dataset(ledger: Ledger, root: Path) -> None:
    """Write the table of labels and, of a BIDS dataset, what makes the output one.

    Parameters
    ----------
    ledger : Ledger
        Somebody has worked in it (:meth:`.Ledger.join`).
    root : Path
        Where scans lie.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    settings, output = ledger.settings(), ledger.output
    labels = [Label(**label) for label in settings["labels"]]
    with ledger.locks.exclusive(TABLES):
        _write_table(output / "dseg.tsv", ("index", "name", "color"), [_lookup(label) for label in labels])
        if settings["is_bids"]:
            description = bids.dataset_description(root, output, settings["config"])
            _write_json(output / "dataset_description.json", description)
            _write_json(output / f"seg-{bids.SEGMENTATION}_probseg.json", {"LabelMap": [one.name for one in labels]})
            _write_text(output / ".bidsignore", "".join(f"{name}\n" for name in IGNORED))


def write_cohort(ledger: Ledger, root: Path, keys: Iterable[str] = ()) -> list[Record]:
    """Write the tables, and the report if there are reports on scans.

    Parameters
    ----------
    ledger : Ledger
        Somebody has worked in it (:meth:`.Ledger.join`).
    root : Path
        Where scans lie. Scans that are no longer there are left out,
    keys : iterable of str
        but for these.

    Returns
    -------
    list of Record
        Of the scans in the tables, sorted.

    Raises
    ------
    OutputError
        A table cannot be written.
    """
    settings, output, keys = ledger.settings(), ledger.output, set(keys)
    labels = [Label(**label) for label in settings["labels"]]
    with ledger.locks.exclusive(TABLES):  # else the one who read earlier might write later
        records = [
            record
            for record in ledger.records()
            if record.config == settings["id"]
            and record.status in (DONE, FAILED)
            and (record.key in keys or os.path.lexists(root / record.key))
        ]
        records.sort(key=lambda record: record.key)
        _write_table(output / VOLUMES, *_volumes(records, labels))
        _write_json(output / "volumes.json", _columns(labels))
        _write_table(output / PROBLEMS, ("scan", "problem", "text"), _problems(records))
        if any(PAGE in record.outputs for record in records):
            _write_report(output / REPORT, records, labels)
    return records


def _volumes(records: Sequence[Record], labels: Sequence[Label]) -> tuple[tuple[str, ...], list[tuple]]:
    """Return header and rows of the table of volumes, a row a scan."""
    structures = [label for label in labels if label.id != 0]
    with_entities = any(record.entities for record in records)
    header = ("participant_id", "session_id", "suffix") if with_entities else ()
    header += ("scan", "status", "quality", *(one.name for one in structures), total_name(one.id for one in labels))
    rows = []
    for record in records:
        volumes = [record.volumes.get(one.id) for one in structures]
        total = total_intracranial(record.volumes) if record.volumes else None
        row = _who(record) if with_entities else ()
        rows.append((*row, record.key, record.status, *map(_number, (record.quality, *volumes, total))))
    return header, rows


def _who(record: Record) -> tuple[str, ...]:
    subject, session = (record.entities.get(entity) for entity in ("sub", "ses"))
    return (
        f"sub-{subject}" if subject else NOTHING,
        f"ses-{session}" if session else NOTHING,
        record.entities.get("suffix", NOTHING),
    )


def _problems(records: Sequence[Record]) -> list[tuple]:
    """Return the rows of the table of failed scans and of warnings, failed ones first."""
    failed = [(record.key, FAILED, record.reason) for record in records if record.status == FAILED]
    return failed + [(record.key, "warning", text) for record in records for text in record.warnings]


def _lookup(label: Label) -> tuple:
    return label.id, label.name, "#{:02x}{:02x}{:02x}".format(*label.color)


def _columns(labels: Sequence[Label]) -> dict:
    """Return what the columns of the table of volumes mean."""
    total = total_name(label.id for label in labels)
    volumes = {
        label.name: {"Description": f"Volume of {label.name}, FreeSurfer label {label.id}", "Units": "mm^3"}
        for label in labels
        if label.id != 0
    }
    return {
        "scan": {"Description": "The scan, relative to the input"},
        "status": {
            "Description": "Whether it could be segmented",
            "Levels": {DONE: "yes", FAILED: f"no; see {PROBLEMS}"},
        },
        "quality": {"Description": "Expected Dice, mean over the structures; n/a for weights without calibration"},
        **volumes,
        total: {"Description": "Sum of all structures", "Units": "mm^3"},
    }


def _write_report(path: Path, records: Sequence[Record], labels: Sequence[Label]) -> None:
    from ..pages import CohortEntry, write_cohort_page

    names = {label.id: label.name for label in labels}
    entries = [
        CohortEntry(
            record.key,
            record.status,
            record.reason or "",
            {names[label]: volume for label, volume in record.volumes.items()},
            record.quality,
            record.warnings,
            record.outputs.get(PAGE),
            total_intracranial(record.volumes) if record.volumes else None,
        )
        for record in records
    ]
    write_cohort_page(path, entries)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{round(value, DIGITS) + 0:.{DIGITS}f}"  # + 0 makes -0.0 zero


def _write_table(path: Path, header: Sequence[str], rows: Iterable[tuple]) -> None:
    with (
        atomic(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,  # undecodable names
    ):
        writer = csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
        writer.writerow(header)
        writer.writerows(
            [" ".join(str(value).split()) if isinstance(value, str) else value for value in row] for row in rows
        )


def _write_json(path: Path, content: dict) -> None:
    _write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
