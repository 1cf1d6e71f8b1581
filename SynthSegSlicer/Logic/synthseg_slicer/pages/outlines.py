"""Outlines of the labels in a slice, as paths of Scalable Vector Graphics (SVG).

A label's border runs along edges of voxels. Its path goes through the middles of these edges, which cuts corners by
half a voxel at most; neighbours share the middles, so that their outlines lie upon each other.
"""

from __future__ import annotations

import numpy as np

# Clockwise on the screen: east, south, west, north. An edge starts at a corner of voxels and keeps its label on its
# right: the upper edge of a voxel runs east from its upper left corner, and so on.
_STEP = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
_START = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])  # corner of the voxel at which its edge in each direction starts
_NEIGHBOUR = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])  # voxel on the other side of that edge


def outlines(ids: np.ndarray) -> dict[int, str]:
    """Return the outline of each label as the data of an SVG path.

    Voxels of a label that touch at a corner only are not connected; holes are loops of their own (fill rule
    ``evenodd``).

    Parameters
    ----------
    ids : int array [rows, columns]
        0 is background.

    Returns
    -------
    dict
        Label id to path data, in half voxels: voxel ``[r, c]`` spans x from 2c to 2c + 2 and y from 2r to 2r + 2.
    """
    label, corner, direction = _edges(ids)
    following = _following(label, corner, direction, ids.shape)
    middle = 2 * corner + _STEP[direction]  # y, x in half voxels
    step = middle[following] - middle
    turns = (step[np.argsort(following)] != step).any(axis=1)  # the step to this middle differs from the one after it
    paths: dict[int, list[str]] = {}
    next_edge, turning = following.tolist(), turns.tolist()
    visited = bytearray(len(label))
    for first in np.flatnonzero(turns).tolist():
        if visited[first]:
            continue
        points, edge = [], first
        while not visited[edge]:
            visited[edge] = 1
            if turning[edge]:
                points.append(edge)
            edge = next_edge[edge]
        paths.setdefault(int(label[first]), []).append(_path(middle[points]))
    return {one: "".join(paths[one]) for one in sorted(paths)}


def _edges(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return label, starting corner [row, column] and direction of all edges between a label and something else."""
    padded = np.pad(ids, 1)
    inner = padded[1:-1, 1:-1]
    labels, corners, directions = [], [], []
    for direction, (down, right) in enumerate(_NEIGHBOUR):
        other = padded[1 + down : padded.shape[0] - 1 + down, 1 + right : padded.shape[1] - 1 + right]
        found = np.argwhere((inner > 0) & (inner != other))
        labels.append(inner[tuple(found.T)])
        corners.append(found + _START[direction])
        directions.append(np.full(len(found), direction))
    return np.concatenate(labels).astype(np.int64), np.concatenate(corners), np.concatenate(directions)


def _following(label: np.ndarray, corner: np.ndarray, direction: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return for each edge the index of the one after it: to the right if there is one, else ahead, else to the left.

    Where two voxels of a label touch at a corner, turning right stays at the same voxel.
    """

    def code(label: np.ndarray, corner: np.ndarray, direction: np.ndarray) -> np.ndarray:
        return ((label * (shape[0] + 1) + corner[:, 0]) * (shape[1] + 1) + corner[:, 1]) * 4 + direction

    own = code(label, corner, direction)
    order = np.argsort(own)
    known = own[order]
    end = corner + _STEP[direction]
    following = np.full(len(label), -1)
    for turn in (1, 0, 3):
        wanted = code(label, end, (direction + turn) % 4)
        where = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
        hit = (following < 0) & (known[where] == wanted) if len(known) else np.zeros(0, bool)
        following[hit] = order[where[hit]]
    return following


def _path(points: np.ndarray) -> str:
    """Return a closed loop through points [y, x] in the shortest notation: one absolute move, then relative lines."""
    y, x = points[0].tolist()
    parts = [f"M{x} {y}"]
    for down, right in np.diff(points, axis=0).tolist():
        if down == 0:
            parts.append(f"h{right}")
        elif right == 0:
            parts.append(f"v{down}")
        else:
            parts.append(f"l{right}{down}" if down < 0 else f"l{right} {down}")
    return "".join([*parts, "z"])
