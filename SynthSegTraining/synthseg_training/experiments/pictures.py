"""Label maps of several methods side by side, on slices of the scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from synthseg_slicer.conform import reorient
from synthseg_slicer.files import atomic
from synthseg_slicer.planes import PLANES, labelled_box, window
from synthseg_slicer.report import COLORS
from synthseg_slicer.scan import Scan
from synthseg_training.evaluation.metrics import to_grid

OPACITY = 0.55
INCHES = 1.9
"""Width of one picture."""


def side_by_side(
    path: Path,
    scan: Scan,
    maps: Sequence[tuple[str, np.ndarray, np.ndarray]],
    colors: Mapping[int, Sequence[int]] = COLORS,
) -> Path:
    """Write a PNG: a row a plane, first the scan alone, then each label map over it; radiological orientation.

    Parameters
    ----------
    path : Path
        Target, ending in .png.
    scan : Scan
        What was segmented.
    maps : sequence of (str, array, array)
        Title, label map ``[x, y, z]`` and its affine; brought to the scan's grid by nearest neighbour. The slices go
        through the middle of the first one.
    colors : mapping
        Label id to red, green, blue in 0-255; other labels are not shown.
    """
    from matplotlib.figure import Figure

    image, affine = reorient(np.asarray(scan.data, np.float32), scan.affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    labels = [to_grid(np.asarray(own), matrix, image.shape, affine) for _, own, matrix in maps]
    first = labels[0]
    box, centre = labelled_box(first, spacing), labelled_box(first, spacing, margin=0.0)
    low, high = window(image[box], first[box])
    grey = np.clip((image - low) / (high - low), 0, 1)
    figure = Figure(figsize=(INCHES * (1 + len(labels)), 2.1 * len(PLANES)), layout="constrained")
    rows = figure.subplots(len(PLANES), 1 + len(labels), squeeze=False)
    for plane, row in zip(PLANES, rows):
        where: list = list(box)
        where[plane.normal] = (centre[plane.normal].start + centre[plane.normal].stop) // 2
        aspect = spacing[plane.down] / spacing[plane.across]
        for axes, title, own in zip(row, ["scan", *(title for title, _, _ in maps)], [None, *labels]):
            picture = tile(grey[tuple(where)], None if own is None else own[tuple(where)], colors)
            axes.imshow(picture, aspect=aspect, interpolation="nearest")
            axes.axis("off")
            if plane is PLANES[0]:
                axes.set_title(title, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=130)
    return path


def tile(grey: np.ndarray, labels: np.ndarray | None, colors: Mapping[int, Sequence[int]]) -> np.ndarray:
    """Return a slice as a picture ``[rows, columns, 3]`` in [0, 1]: the first axis runs left, the second up.

    Parameters
    ----------
    grey : array [across, down]
        Intensities in [0, 1] of a slice of a RAS+ volume.
    labels : int array [across, down] or None
        Painted over it, but for those without a colour.
    colors : mapping
        Label id to red, green, blue in 0-255.
    """
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for label in () if labels is None else np.unique(labels[labels > 0]):
        if label in colors:
            inside = labels == label
            picture[inside] = (1 - OPACITY) * picture[inside] + OPACITY * np.array(colors[label]) / 255
    return picture.swapaxes(0, 1)[::-1, ::-1]
