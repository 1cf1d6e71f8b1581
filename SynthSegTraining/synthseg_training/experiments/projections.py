"""Lesions as projections along the three axes: all of a head in three pictures that show nothing of the scan but its
outline, so that they may be passed on."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from synthseg_slicer.files import atomic

FOUND, TRUE, OUTLINE = "#0072b2", "#d55e00", "#808080"
MOST = 40
"""Rows of a figure."""
_AXES = (0, 1, 2)
_NAMES = ("from the right", "from behind: right is right", "from above: right is right")


def packed(mask: np.ndarray) -> dict:
    """Return the projections of a mask along x, y and z as plain values.

    Parameters
    ----------
    mask : bool array [x, y, z]
        In RAS order.
    """
    views = [mask.any(axis) for axis in _AXES]
    data = b"".join(np.packbits(view).tobytes() for view in views)
    return {"shape": list(mask.shape), "bits": base64.b64encode(zlib.compress(data, 9)).decode()}


def unpacked(plain: Mapping) -> list[np.ndarray]:
    """Return what :func:`packed` was given: three bool arrays ``[y, z]``, ``[x, z]``, ``[x, y]``."""
    data, start, views = zlib.decompress(base64.b64decode(plain["bits"])), 0, []
    for axis in _AXES:
        shape = [length for other, length in enumerate(plain["shape"]) if other != axis]
        length = -(-int(np.prod(shape)) // 8)
        bits = np.frombuffer(data, np.uint8, length, start)
        views.append(np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool))
        start += length
    return views


def draw(rows: Sequence[tuple[str, Mapping]], path_stem: str | Path) -> list[Path]:
    """Draw the outline of each head, what the reference marks and what was found in it.

    Parameters
    ----------
    rows : sequence of (title, views)
        ``views`` has the projections ``outline``, ``true`` and ``found``, each from :func:`packed`; the first
        :data:`MOST` are drawn.
    path_stem : path
        Of the files, without suffix; the folder is made.

    Returns
    -------
    list of Path
        PNG and PDF.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = rows[:MOST]
    columns = 1 if len(rows) < 4 else 2
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(5.2 * columns, 1.95 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, 3 * columns, squeeze=False).reshape(lines * columns, 3)
    for row in panels:
        for axes in row:
            axes.set_axis_off()
            axes.set_anchor("S")
    for (title, views), row in zip(rows, panels):
        shown = {name: unpacked(views[name]) for name in ("outline", "true", "found")}
        for axis, axes in zip(_AXES, row):
            outline, true, found = (shown[name][axis].T for name in ("outline", "true", "found"))
            axes.imshow(np.ones((*outline.shape, 3)), origin="lower")
            if outline.any():
                axes.contour(outline, levels=[0.5], colors=[OUTLINE], linewidths=0.7)
            for mask, color in ((true, TRUE), (found, FOUND)):
                if mask.any():
                    axes.contourf(mask, levels=[0.5, 1], colors=[color], alpha=0.45)
                    axes.contour(mask, levels=[0.5], colors=[color], linewidths=0.8)
        row[1].set_title(title, fontsize=8)
    for axes, name in zip(panels[0], _NAMES):
        axes.text(0.5, 0, name, transform=axes.transAxes, ha="center", va="top", fontsize=6, color=OUTLINE)
    legend = [
        Patch(color=TRUE, alpha=0.6, label="marked in the reference"),
        Patch(color=FOUND, alpha=0.6, label="found"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    stem = Path(path_stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".pdf")]
    for path in paths:
        with atomic(path) as partial:
            figure.savefig(partial, format=path.suffix[1:], dpi=130)
    return paths
