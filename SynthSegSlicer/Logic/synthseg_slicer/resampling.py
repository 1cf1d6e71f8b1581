"""Volumes and posteriors on a grid that is turned against their own, by trilinear interpolation."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from .postprocess import label_dtype
from .predict import TopPosteriors


def sample(volumes: np.ndarray, to_index: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return volumes interpolated trilinearly on another grid, and where that grid lies inside them.

    A voxel is inside up to half a voxel beyond the outer centres, whose values are repeated there.

    Parameters
    ----------
    volumes : float32 array [channels, x, y, z]
    to_index : float64 array [4, 4]
        Voxel index of the target to voxel index of the volumes.
    shape : tuple of int
        Of the target.

    Returns
    -------
    values : float32 array [channels, *shape]
        0 outside.
    inside : bool array [*shape]
    """
    size = np.array(volumes.shape[1:])
    scale = torch.from_numpy(np.diag(2 / size) @ to_index[:3, :3]).float()
    offset = torch.from_numpy((2 * to_index[:3, 3] + 1) / size - 1).float()
    source = torch.from_numpy(volumes)[None]
    ones = torch.ones_like(source[:, :1])
    x, y, z = (torch.arange(n, dtype=torch.float32) for n in shape)
    plane = y[:, None, None] * scale[:, 1] + z[None, :, None] * scale[:, 2] + offset
    moved, cover = np.empty((len(volumes), *shape), np.float32), np.empty(shape, np.float32)
    for index in range(shape[0]):
        # grid_sample wants the last array axis first
        where = (plane + x[index] * scale[:, 0]).flip(-1)[None, None]
        moved[:, index] = F.grid_sample(source, where, align_corners=False)[0, :, 0].numpy()
        cover[index] = F.grid_sample(ones, where, align_corners=False)[0, 0, 0].numpy()
    inside = cover > 0.5
    return np.where(inside, moved / np.maximum(cover, 0.5), 0), inside


def labels_on_grid(top: TopPosteriors, to_index: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the label map on a turned grid: arg-max of the trilinearly interpolated posteriors, label by label.

    The counterpart of :func:`.postprocess.resample_labels`, which wants grids with common axes.

    Parameters
    ----------
    top : TopPosteriors
        Cleaned up: probabilities add up to 1.
    to_index : float64 array [4, 4]
        Voxel index of the target to voxel index of ``top``.
    shape : tuple of int
        Of the target.

    Returns
    -------
    array [*shape]
        Label ids.
    """
    best, total = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    best_channel = np.full(shape, top.background, np.uint8)
    corner = np.array([b.start for b in top.box])
    for channel in range(len(top.ids)):
        found = np.nonzero(((top.channels == channel) & (top.probabilities > 0)).any(0))
        if channel == top.background or not len(found[0]):
            continue
        low, high = (np.array([bound(axis) for axis in found]) for bound in (np.min, np.max))
        part = (slice(None), *(slice(a, b + 1) for a, b in zip(low, high)))
        chosen = replace(top, channels=top.channels[part], probabilities=top.probabilities[part])
        volume = np.pad(chosen.boxed(channel), 1)  # zeros around, so that nothing is repeated beyond the box
        first = corner + low - 1
        target = _reached(to_index, first, volume.shape, shape)
        if not all(t.stop > t.start for t in target):
            continue
        shift, back = np.eye(4), np.eye(4)
        shift[:3, 3] = [t.start for t in target]
        back[:3, 3] = -first
        size = tuple(t.stop - t.start for t in target)
        values = sample(volume[None].astype(np.float32), back @ to_index @ shift, size)[0][0]
        total[target] += values
        better = values > best[target]
        best[target][better] = values[better]
        best_channel[target][better] = channel
    best_channel[1 - total >= best] = top.background
    return np.array(top.ids, label_dtype(top.ids))[best_channel]


def _reached(
    to_index: np.ndarray, first: np.ndarray, size: tuple[int, ...], shape: tuple[int, int, int]
) -> tuple[slice, ...]:
    """Return the box of a target of ``shape`` that holds what a box of the source, ``size`` from ``first``, reaches."""
    corners = first + np.array(list(itertools.product(*((0, n - 1) for n in size))))
    from_source = np.linalg.inv(to_index)
    placed = corners @ from_source[:3, :3].T + from_source[:3, 3]
    starts, stops = np.floor(placed.min(0)), np.ceil(placed.max(0)) + 1
    return tuple(slice(int(max(a, 0)), int(min(b, n))) for a, b, n in zip(starts, stops, shape))
