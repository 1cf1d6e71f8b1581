"""Volumes of the segmented structures, from posteriors."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from .files import atomic
from .predict import TopPosteriors

INTRACRANIAL = "Total-Intracranial"
"""Row and column name of the sum of all structures, CSF included."""


def volumes(top: TopPosteriors, voxel_volume: float) -> dict[int, float]:
    """Return the volume of each label, the sum of its posteriors times the voxel volume.

    Parameters
    ----------
    top : TopPosteriors
        Cleaned up.
    voxel_volume : float
        mm³.

    Returns
    -------
    dict
        Label id to mm³, background left out, in channel order.
    """
    sums = np.zeros(len(top.ids))
    for channels, probabilities in zip(top.channels, top.probabilities):
        some = probabilities > 0
        sums += np.bincount(channels[some], probabilities[some].astype(np.float64), len(top.ids))
    return {label: float(total) * voxel_volume for label, total in zip(top.ids, sums) if label != 0}


def total_intracranial(volumes: dict[int, float]) -> float:
    """Return the total intracranial volume in mm³: the sum of all structures, CSF included."""
    return float(sum(volumes.values()))


def write_volumes_csv(path: str | Path, volumes: dict[int, float], names: dict[int, str]) -> None:
    """Write one scan's volumes: columns structure, label, volume_mm3; the last row is the intracranial total.

    Parameters
    ----------
    path : path
        Target, replaced if it exists.
    volumes : dict
        Label id to mm³.
    names : dict
        Label id to name.
    """
    rows = [(names.get(label, str(label)), label, volume) for label, volume in volumes.items()]
    rows.append((INTRACRANIAL, "", total_intracranial(volumes)))
    _write(path, ("structure", "label", "volume_mm3"), rows)


def write_volumes_table(path: str | Path, scans: dict[str, dict[int, float]], names: dict[int, str]) -> None:
    """Write several scans' volumes in mm³: one row a scan, one column a structure, the intracranial total last.

    Parameters
    ----------
    path : path
        Target, replaced if it exists.
    scans : dict
        Scan name to its volumes; all have the same labels.
    names : dict
        Label id to name.
    """
    labels = list(next(iter(scans.values()), {}))
    header = ("scan", *(names.get(label, str(label)) for label in labels), INTRACRANIAL)
    rows = [(scan, *(v[label] for label in labels), total_intracranial(v)) for scan, v in scans.items()]
    _write(path, header, rows)


def _write(path: str | Path, header: tuple, rows: list[tuple]) -> None:
    """Numbers are written in full precision (``repr``), so that reading them back gives the same numbers."""
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
