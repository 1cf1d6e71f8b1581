"""Segmentations of methods, each made and scored once; what a network made is kept in ``labels/METHOD``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from synthseg_slicer.scan import write_volume

from .dataset import Case
from .ledger import Ledger, file_digest
from .methods import MapFolder, Network
from .scoring import read_labels, read_reference, scores, structures_of


def scored(
    ledger: Ledger,
    method: Network | MapFolder,
    case: Case,
    *,
    distances: bool = True,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Segment and score a scan, or return what the ledger has of it.

    Parameters
    ----------
    ledger : Ledger
        Of the experiment; what a network made is kept in its folder.
    method : Network or MapFolder
    case : Case
        A scan with its reference.
    distances : bool
        Whether to compute SD95 too; among the ledger's settings if it varies.
    report : callable
        Receives a line.

    Returns
    -------
    DataFrame
        A row a structure of the reference: scores (:func:`.scoring.scores`), ``method``, ``scan``, ``group``.

    Raises
    ------
    ScanError
        A file is missing or cannot be read.
    ValueError
        The record was made from other weights or files.
    """
    structures = structures_of(method.names)
    inputs = method.inputs(case) | {"reference": file_digest(case.reference), "convention": case.convention}

    def work() -> list[dict]:
        return scores(*_labels(method, case, ledger.folder), read_reference(case, structures), structures, distances)

    rows = ledger.once(f"{method.name}/{case.name}", inputs, work)
    table = pd.DataFrame(rows).assign(method=method.name, scan=case.name, group=case.group)
    report(f"{method.name}, {case.name}: Dice {table['dice'].mean():.3f}")
    return table


def kept(method: Network | MapFolder, case: Case, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return labels ``[x, y, z]`` and affine for a picture: those kept below the folder, where they still are."""
    path = _path(method, case, folder)
    if isinstance(method, MapFolder) or not path.exists():
        return _labels(method, case, folder)
    labels = read_labels(path)
    return labels.data, labels.affine


def _labels(method: Network | MapFolder, case: Case, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a method's labels and their affine; what a network made is kept."""
    labels, affine = method.labels(case)
    if isinstance(method, Network):
        path = _path(method, case, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(path, labels, affine)
    return labels, affine


def _path(method: Network | MapFolder, case: Case, folder: Path) -> Path:
    return folder / "labels" / method.name / f"{case.name}_dseg.nii.gz"
