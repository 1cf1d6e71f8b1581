"""Which slices of a scan are pictured, how they lie in the picture, and which intensities are black and white."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MARGIN_MM = 12.0
"""Shown around the labelled region."""


class Plane(NamedTuple):
    """How one plane is pictured.

    All three axes run against the picture: right or anterior is at picture left (radiological), superior or anterior on
    top.

    Attributes
    ----------
    name : str
    normal, down, across : int
        RAS+ axis across the slices, down the picture, and from its left to its right.
    letters : str
        At the left and at the right edge.
    """

    name: str
    normal: int
    down: int
    across: int
    letters: str


PLANES = (
    Plane("axial", 2, 1, 0, "RL"),
    Plane("coronal", 1, 2, 0, "RL"),
    Plane("sagittal", 0, 2, 1, "AP"),
)


def labelled_box(labels: np.ndarray, spacing: np.ndarray, margin: float = MARGIN_MM) -> tuple[slice, slice, slice]:
    """Return the bounding box of all labels plus a margin in mm; the whole grid if there is no label.

    Parameters
    ----------
    labels : array [x, y, z]
        0 where there is none.
    spacing : array [3]
        mm.
    margin : float
        mm.
    """
    box = []
    for axis, n in enumerate(labels.shape):
        found = np.flatnonzero(labels.any(axis=tuple(other for other in range(3) if other != axis)))
        around = round(margin / float(spacing[axis]))
        box.append(slice(max(0, found[0] - around), min(n, found[-1] + 1 + around)) if len(found) else slice(0, n))
    return tuple(box)


def window(image: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the intensities shown black and white; white is set by the labelled tissue, not by scalp fat."""
    low = float(np.percentile(image, 1))
    high = float(np.percentile(image[labels > 0] if labels.any() else image, 99.5))
    return (low, high) if low < high else (low, low + 1.0)


def spread(extent: slice, count: int) -> list[int]:
    """Return ``count`` indices at the centres of equal parts of an extent."""
    length = extent.stop - extent.start
    return [extent.start + int(length * (i + 0.5) / count) for i in range(count)]
