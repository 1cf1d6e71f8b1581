"""Label maps of other tools as the labels of :mod:`synthseg_slicer.labels`, by the tables in the folder ``labels``."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

import numpy as np
from scipy.spatial import cKDTree

CONVENTIONS: dict[str, tuple[str, ...]] = {
    "aseg": ("aseg",),
    "aparc+aseg": ("aseg", "aparc"),
    "a2009s": ("aseg", "a2009s"),
    "neuromorphometrics": ("neuromorphometrics",),
    "gif": ("gif",),
}
"""Name to the tables it is put together from: FreeSurfer's aseg (SAMSEG's too) without and with the cortex of aparc
(Desikan-Killiany, DKT) or aparc.a2009s (Destrieux), Neuromorphometrics, and GIF version 3 of NiftySeg."""

LARGEST = 99_999
"""Largest number that may be an id; those of FreeSurfer's parcellations have five digits."""

Table = dict[int, tuple[int, ...]]


@cache
def conversion_table(name: str) -> Table:
    """Return a convention's ids with the FreeSurfer ids that they become.

    Several ids stand for a structure that the convention draws without a side, or as a part of whatever is around it:
    a voxel becomes the one whose nearest voxel is closest.

    Raises
    ------
    ValueError
        There is no such convention.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"no labelling {name!r} is known; use one of {', '.join(CONVENTIONS)}")
    table: Table = {}
    for part in CONVENTIONS[name]:
        text = (files(__package__) / "labels" / f"{part}.tsv").read_text(encoding="utf-8")
        lines = (line for line in text.splitlines() if not line.startswith("#"))
        for row in csv.DictReader(lines, delimiter="\t"):
            table[int(row["index"])] = tuple(int(label) for label in row["mapping"].split("|"))
    return table


def convert(
    labels: np.ndarray,
    name: str,
    unknown: str = "error",
    *,
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> np.ndarray:
    """Convert a label map to FreeSurfer ids of the 33 labels.

    Parameters
    ----------
    labels : array [x, y, z]
        Integers of any type, also as floats.
    name : str
        One of :data:`CONVENTIONS`.
    unknown : {"error", "background"}
        What is done with ids that the table does not have.
    voxel_size : tuple of float
        In mm, for what is nearest.

    Returns
    -------
    int32 array [x, y, z]

    Raises
    ------
    ValueError
        Unknown name or option, values that are no ids, ids that the table does not have, or a structure without a side
        in a map that has neither side of it.
    """
    if unknown not in ("error", "background"):
        raise ValueError(f"unknown={unknown!r} is neither 'error' nor 'background'")
    table = conversion_table(name)
    whole = np.asarray(labels)
    if not np.issubdtype(whole.dtype, np.integer):
        if not np.array_equal(np.rint(whole), whole):
            raise ValueError("a label map holds whole numbers; this one does not. Was it interpolated?")
        whole = whole.astype(np.int64)
    low, high = whole.min(initial=0), whole.max(initial=0)
    if low < 0 or high > LARGEST:
        raise ValueError(f"a label map's ids lie between 0 and {LARGEST}, not {low} and {high}: this is none")
    ids, inverse = _unique(whole)
    strangers = [int(i) for i in ids if int(i) not in table]
    if strangers and unknown == "error":
        raise ValueError(
            f"the labelling {name} has no {', '.join(map(str, strangers))}: name another one "
            f"({', '.join(CONVENTIONS)}), or convert with unknown='background' to drop them"
        )
    targets = [table.get(int(i), (0,)) for i in ids]
    result = np.array([target[0] if len(target) == 1 else 0 for target in targets], np.int32)[inverse]
    # All voxels without a side are decided by those with one, whatever the order of the ids.
    decided = {
        number: _nearest(result, np.argwhere(inverse == number), target, voxel_size, name, int(ids[number]))
        for number, target in enumerate(targets)
        if len(target) > 1
    }
    for number, chosen in decided.items():
        result[inverse == number] = chosen
    return result


def _unique(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids in use and for each voxel the position of its own; counting is much quicker than sorting."""
    counts = np.bincount(labels.ravel())
    used = np.flatnonzero(counts)
    position = np.zeros(len(counts), np.int32)
    position[used] = np.arange(len(used))
    return used, position[labels]


def _nearest(
    result: np.ndarray, voxels: np.ndarray, labels: tuple[int, ...], voxel_size, name: str, own: int
) -> np.ndarray:
    """Return for each of the voxels [n, 3] the one of the labels that is nearest in the converted map."""
    candidates = np.argwhere(np.isin(result, labels))
    if not len(candidates):
        raise ValueError(
            f"label {own} of {name} belongs to the nearest of {', '.join(map(str, labels))}, of which this map has none"
        )
    tree = cKDTree(candidates * np.asarray(voxel_size), balanced_tree=False)
    _, index = tree.query(voxels * np.asarray(voxel_size))
    return result[tuple(candidates[index].T)]
