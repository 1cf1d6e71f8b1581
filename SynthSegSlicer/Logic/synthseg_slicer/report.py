"""A picture of a segmentation, for a first look without a viewer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import SimpleITK as sitk

from .conform import reorient
from .files import atomic, check_output
from .labels import BRAIN
from .planes import PLANES, labelled_box, spread, window
from .scan import write_itk

COLORS: dict[int, tuple[int, int, int]] = {label.id: label.color for label in BRAIN}
UNKNOWN_COLOR = (255, 0, 0)
"""For label ids without a colour of their own."""

GAP = 12
"""Black pixels between tiles."""

_GLYPHS = {
    "R": ("####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#"),
    "L": ("#....", "#....", "#....", "#....", "#....", "#....", "#####"),
    "A": (".###.", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"),
    "P": ("####.", "#...#", "#...#", "####.", "#....", "#....", "#...."),
}


def overlay_picture(
    path: str | os.PathLike,
    image: np.ndarray,
    labels: np.ndarray,
    affine: np.ndarray,
    *,
    slices: int = 4,
    pixel_size: float = 0.75,
    opacity: float = 0.45,
    colors: Mapping[int, Sequence[int]] = COLORS,
    region: np.ndarray | None = None,
) -> None:
    """Write a PNG of axial, coronal and sagittal slices, plain on the left and with labels on the right.

    Slices are spread evenly through the labelled region. Orientation is radiological: the patient's right is at the
    left of axial and coronal tiles; sagittal tiles face left. Letters R, L, A, P say so. Voxels are shown as they are,
    with true proportions.

    Parameters
    ----------
    path : path-like
        Target, ending in .png.
    image : numpy.ndarray
        ``[x, y, z]``, any intensities; black is the 1st percentile of what is pictured, white the 99.5th of what is
        labelled.
    labels : numpy.ndarray
        Integer ids on the same grid; 0 is transparent.
    affine : numpy.ndarray
        4x4, voxel index to RAS+ world in mm, in any axis order.
    slices : int
        Number of slices a plane.
    pixel_size : float
        Picture pixel in mm.
    opacity : float
        Of the labels' fill, 0 to 1; their outlines are drawn fully.
    colors : mapping
        Label id to red, green, blue in 0-255; others are drawn in :data:`UNKNOWN_COLOR`.
    region : numpy.ndarray, optional
        Mask of what is to be seen around the labels, on the same grid; by default little more than the labels.

    Raises
    ------
    OutputError
        The picture cannot be written.
    ValueError
        Image and labels differ in shape.
    """
    check_output(path, (".png",))
    if image.shape != labels.shape:
        raise ValueError(f"image {image.shape} and labels {labels.shape} are not on one grid")
    image, oriented = reorient(image, affine)
    labels, _ = reorient(labels, affine)
    spacing = np.linalg.norm(oriented[:3, :3], axis=0)
    shown = labels if region is None else (labels > 0) | reorient(region, affine)[0]
    box = labelled_box(shown, spacing)
    centre = labelled_box(labels if labels.any() else shown, spacing, margin=0.0)
    low, high = window(image[box], shown[box])
    table = _color_table(labels, colors)

    rows = []
    for _, normal, down, across, letters in PLANES:
        plain, painted = [], []
        for index in spread(centre[normal], slices):
            where = [box[0], box[1], box[2]]
            where[normal] = index
            grey, ids = image[tuple(where)], labels[tuple(where)]
            pick = _pixels(grey.shape, spacing[[across, down]], pixel_size)
            grey, ids = grey.T[pick], ids.T[pick]
            tile = np.repeat(np.clip((grey.astype(np.float32) - low) / (high - low), 0, 1)[..., None] * 255, 3, axis=2)
            plain.append(_lettered(tile, letters))
            painted.append(_lettered(_painted(tile, ids, table, opacity), letters))
        rows.append(_side_by_side(plain + painted))
    width = max(row.shape[1] for row in rows)
    sheet = np.concatenate([np.pad(row, ((0, GAP), (0, width - row.shape[1]), (0, 0))) for row in rows])
    picture = sitk.GetImageFromArray(np.ascontiguousarray(sheet), isVector=True)
    with atomic(path) as temporary:
        write_itk(temporary, picture)


def _pixels(shape: Sequence[int], spacing: Sequence[float], pixel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxel that each picture row and column shows, given a slice ``[across, down]``; both axes run
    backwards."""
    counts = [max(1, round(n * s / pixel_size)) for n, s in zip(shape, spacing)]
    across, down = (((np.arange(c) + 0.5) * n / c).astype(int)[::-1] for c, n in zip(counts, shape))
    return np.ix_(down, across)


def _painted(tile: np.ndarray, ids: np.ndarray, table: np.ndarray, opacity: float) -> np.ndarray:
    edge = np.zeros(ids.shape, dtype=bool)
    edge[:-1] |= ids[:-1] != ids[1:]
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    weight = np.where(ids > 0, np.where(edge, 1.0, opacity), 0.0)[..., None]
    return tile * (1 - weight) + table[ids] * weight


def _color_table(labels: np.ndarray, colors: Mapping[int, Sequence[int]]) -> np.ndarray:
    table = np.tile(np.float32(UNKNOWN_COLOR), (int(labels.max()) + 1, 1))
    for label, color in colors.items():
        if label < len(table):
            table[label] = color
    return table


def _lettered(tile: np.ndarray, letters: str) -> np.ndarray:
    """Write a letter at the left and at the right edge, half way down."""
    tile = tile.copy()
    for letter, at_left in zip(letters, (True, False)):
        glyph = np.array([[c == "#" for c in row] for row in _GLYPHS[letter]]).repeat(2, axis=0).repeat(2, axis=1)
        height, width = glyph.shape
        if tile.shape[0] < 2 * height or tile.shape[1] < 7 * width:
            continue  # too small to write on
        top = (tile.shape[0] - height) // 2
        left = 2 if at_left else tile.shape[1] - width - 2
        tile[top : top + height, left : left + width][glyph] = 255
    return tile


def _side_by_side(tiles: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.pad(tile.astype(np.uint8), ((0, 0), (0, GAP), (0, 0))) for tile in tiles], axis=1)
