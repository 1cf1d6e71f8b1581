"""Scans whose measures lie far from those of the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..measure import INTRACRANIAL
from ..quality import DOUBTFUL_SCAN

FAR = 3.5
"""Modified z-score beyond which a value is an outlier (Iglewicz and Hoaglin 1993)."""
FEWEST = 8
"""Scans below which a median deviation says little; then nothing is compared."""

VOLUME, SHARE, QUALITY = "volume", "share", "quality"
"""What deviates: mm³, a part of the intracranial volume from 0 to 1, expected Dice."""


@dataclass(frozen=True)
class Deviation:
    """One measure of a scan that stands out.

    Attributes
    ----------
    structure : str
        Name, or ``Total-Intracranial``.
    kind : str
        :data:`VOLUME`, :data:`SHARE` or :data:`QUALITY`.
    value, median : float
        Of the scan and of the cohort.
    z : float or None
        Modified z-score; None for what stands out by itself: a structure that is missing, a low quality.
    """

    structure: str
    kind: str
    value: float
    median: float
    z: float | None


def modified_z(values: np.ndarray) -> np.ndarray:
    """Return the modified z-score of each value, 0.6745 (x - median) / MAD.

    MAD is the median absolute deviation. Where it is 0, because more than half of the values are equal, the mean
    absolute deviation takes its place: (x - median) / (1.2533 mean), the factor for normal values again (Iglewicz and
    Hoaglin 1993, How to Detect and Handle Outliers).

    Parameters
    ----------
    values : float array [n]
    """
    away = values - np.median(values)
    scale = np.median(np.abs(away)) / 0.6745 or np.mean(np.abs(away)) * 1.2533
    return away / scale if scale > 0 else np.zeros_like(away)


def deviations(
    volumes: Sequence[Mapping[str, float]], intracranial: Sequence[float | None], quality: Sequence[float | None]
) -> list[list[Deviation]]:
    """Return what stands out of each scan, the farthest first.

    Volumes, and volumes as a share of the intracranial one, are compared by their logarithms, for their distributions
    are skewed. A structure that has a volume in most scans and none in this one stands out by itself, and so does a
    quality below :data:`~synthseg_slicer.quality.DOUBTFUL_SCAN`; other qualities only where they are far below the
    others.

    Parameters
    ----------
    volumes : sequence of mapping
        Of each scan, name to mm³.
    intracranial : sequence of float or None
        mm³.
    quality : sequence of float or None
        Expected Dice of the whole.
    """
    found: list[list[Deviation]] = [[] for _ in volumes]
    total = _numbers(intracranial)
    total[total <= 0] = math.nan
    for structure in names(volumes):
        size = _numbers(one.get(structure) for one in volumes)
        for kind, values in ((VOLUME, size), (SHARE, size / total)):
            _compare(found, structure, kind, values)
        usual = _median(size)
        if usual > 0:
            for index in np.flatnonzero(size == 0).tolist():
                found[index].append(Deviation(structure, VOLUME, 0.0, usual, None))
    _compare(found, INTRACRANIAL, VOLUME, total)
    score = _numbers(quality)
    _compare(found, INTRACRANIAL, QUALITY, score)
    for index in np.flatnonzero(score < DOUBTFUL_SCAN).tolist():
        if not any(one.kind == QUALITY for one in found[index]):
            found[index].append(Deviation(INTRACRANIAL, QUALITY, float(score[index]), _median(score), None))
    return [sorted(one, key=distance, reverse=True) for one in found]


def distance(one: Deviation) -> float:
    """Return how far a deviation comes forward: low qualities and missing structures first, then by the z-score."""
    return math.inf if one.z is None or one.kind == QUALITY else abs(one.z)


def names(volumes: Iterable[Mapping[str, float]]) -> list[str]:
    """Return the names of all structures in the order in which they come first."""
    return list(dict.fromkeys(name for one in volumes for name in one))


def _numbers(values: Iterable[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _median(values: np.ndarray) -> float:
    """Return the median of what is known, 0 if nothing is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0


def _compare(found: list[list[Deviation]], structure: str, kind: str, values: np.ndarray) -> None:
    """Add the values of one measure that lie far from its median; of the quality those far below."""
    known = np.flatnonzero(np.isfinite(values) & (values > 0))
    if len(known) < FEWEST:
        return
    values = values[known]
    z = modified_z(values if kind == QUALITY else np.log(values))
    far = z < -FAR if kind == QUALITY else np.abs(z) > FAR
    for index, value, score in zip(known[far].tolist(), values[far].tolist(), z[far].tolist()):
        found[index].append(Deviation(structure, kind, value, float(np.median(values)), score))
