"""Overlap and surface distance of two binary structures."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Dice coefficient 2 |A and B| / (|A| + |B|) of two boolean arrays; NaN when both are empty."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else float("nan")


def surface_distance_95(a: np.ndarray, b: np.ndarray, voxel_size: tuple[float, float, float]) -> float:
    """Return the 95th percentile of the surface distances (SD95, Billot et al. 2023, section 4.3).

    Parameters
    ----------
    a, b : ndarray
        Boolean ``[x, y, z]``.
    voxel_size : tuple of float
        Voxel edges in mm.

    Returns
    -------
    float
        In mm, over the distances from each surface voxel to the other surface, both directions pooled; NaN when one of
        the structures is empty.
    """
    if not a.any() or not b.any():
        return float("nan")
    return float(np.percentile(np.concatenate(surface_distances(a, b, voxel_size)), 95))


def surface_distances(
    a: np.ndarray, b: np.ndarray, voxel_size: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances in mm from each surface voxel of A to the surface of B, and from B to A; neither empty."""
    box = tuple(slice(max(0, i.min() - 1), i.max() + 2) for i in np.nonzero(a | b))
    a, b = np.pad(a[box], 1), np.pad(b[box], 1)
    surface_a, surface_b = a & ~binary_erosion(a), b & ~binary_erosion(b)
    to_a = distance_transform_edt(~surface_a, sampling=voxel_size)
    to_b = distance_transform_edt(~surface_b, sampling=voxel_size)
    return to_b[surface_a], to_a[surface_b]


def to_grid(labels: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], target_affine: np.ndarray) -> np.ndarray:
    """Bring a label map ``[x, y, z]`` to another grid by nearest neighbour; outside its field of view is 0."""
    if labels.shape == tuple(shape) and np.allclose(affine, target_affine, atol=1e-4):
        return labels
    # One slab at a time: the coordinates of a whole volume would take 24 bytes a voxel.
    matrix = np.linalg.inv(affine) @ target_affine
    result = np.zeros(shape, labels.dtype)
    plane = np.indices(shape[1:]).reshape(2, -1)
    for x in range(shape[0]):
        index = np.vstack([np.full(plane.shape[1], x), plane])
        source = np.rint(matrix[:3, :3] @ index + matrix[:3, 3:]).astype(int)
        inside = np.all((source >= 0) & (source < np.array(labels.shape)[:, None]), axis=0)
        result[x].reshape(-1)[inside] = labels[tuple(source[:, inside])]
    return result
