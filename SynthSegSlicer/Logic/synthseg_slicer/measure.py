"""Volumes of the segmented structures, from posteriors, and what is derived from them. Needs no torch."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .files import atomic
from .labels import BRAIN_IDS, Label

if TYPE_CHECKING:
    from .predict import TopPosteriors

INTRACRANIAL = "Total-Intracranial"
"""Row and column name of the sum of all structures, CSF included."""

TOTAL = "Total"
"""Its name where structures are not the brain's."""


@dataclass(frozen=True)
class Row:
    """What is reported of one structure, or of the intracranial total.

    Attributes
    ----------
    name : str
    label : int or None
        Label id; None for the total.
    volume : float
        mm³.
    share : float
        Of the intracranial volume, 0 to 1; 0 if nothing was segmented.
    asymmetry : float or None
        Asymmetry index 100 (L - R) / ((L + R) / 2) in percent, from -200 (right only) to 200 (left only), the same on
        both rows of a pair; None for a structure without partner and where neither has a volume.
    quality : float or None
        Expected Dice, of the total that of the whole result (:mod:`synthseg_slicer.quality`); None where there is no
        such structure.
    low, high : float or None
        Bounds in mm³ between which the true volume lies in nine cases of ten; None where not calibrated.
    """

    name: str
    label: int | None
    volume: float
    share: float
    asymmetry: float | None = None
    quality: float | None = None
    low: float | None = None
    high: float | None = None


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


def total_name(labels: Iterable[int]) -> str:
    """Return what the sum of all structures is called: :data:`INTRACRANIAL`, or :data:`TOTAL` outside the brain."""
    return INTRACRANIAL if set(BRAIN_IDS).issuperset(labels) else TOTAL


def rows(
    volumes: dict[int, float],
    quality: dict[int | None, float | None],
    labels: Iterable[Label],
    intervals: dict[int | None, float] | None = None,
) -> list[Row]:
    """Return one row a structure in the order of the labels, background left out, and the intracranial total last.

    Parameters
    ----------
    volumes : dict
        Label id to mm³.
    quality : dict
        Label id, None for the total, to 0 to 1.
    labels : iterable of Label
        Names, sides and partners.
    intervals : dict, optional
        Label id, None for the total, to the factor between a volume and the bounds of its interval.
    """
    total = total_intracranial(volumes)
    intervals = intervals or {}

    def bounds(label: int | None, volume: float) -> tuple[float | None, float | None]:
        factor = intervals.get(label)
        return (None, None) if factor is None or not volume else (volume / factor, volume * factor)

    def row(label: Label) -> Row:
        volume = volumes.get(label.id, 0.0)
        share = volume / total if total else 0.0
        asymmetry = _asymmetry(label, volumes)
        return Row(label.name, label.id, volume, share, asymmetry, quality.get(label.id), *bounds(label.id, volume))

    labels = list(labels)
    name = total_name(label.id for label in labels)
    last = Row(name, None, total, 1.0 if total else 0.0, None, quality.get(None), *bounds(None, total))
    return [*(row(label) for label in labels if label.id != 0), last]


def _asymmetry(label: Label, volumes: dict[int, float]) -> float | None:
    left, right = volumes.get(label.id, 0.0), volumes.get(label.partner, 0.0)
    if label.partner == label.id or not left + right:
        return None
    if label.side == "right":
        left, right = right, left
    return 200 * (left - right) / (left + right)


def write_volumes_csv(path: str | Path, rows: Iterable[Row]) -> None:
    """Write one scan's rows: structure, label, volume_mm3, share, asymmetry_percent, quality and the volume's bounds.

    What does not exist (a label of the total, the asymmetry of a midline structure) is left empty.

    Parameters
    ----------
    path : path
        Target, replaced if it exists.
    rows : iterable of Row
        From :func:`rows`.
    """
    header = (
        "structure",
        "label",
        "volume_mm3",
        "share",
        "asymmetry_percent",
        "quality",
        "volume_low_mm3",
        "volume_high_mm3",
    )
    _write(path, header, [astuple(row) for row in rows])


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
    header = ("scan", *(names.get(label, str(label)) for label in labels), total_name(labels))
    rows = [(scan, *(v[label] for label in labels), total_intracranial(v)) for scan, v in scans.items()]
    _write(path, header, rows)


def _write(path: str | Path, header: tuple, rows: list[tuple]) -> None:
    """Numbers are written in full precision (``repr``), so that reading them back gives the same numbers."""
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
