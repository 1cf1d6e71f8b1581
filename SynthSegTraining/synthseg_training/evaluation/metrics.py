"""Overlap and surface distances of binary structures, errors of volumes and asymmetry; docs/reference/metrics.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

from synthseg_slicer.labels import Label
from synthseg_slicer.measure import rows

DISTANCES = ("sd95_mm", "mean_distance_mm", "hausdorff_mm", "hd95_mm")
"""Keys of :func:`distance_scores`."""


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Dice coefficient 2 |A and B| / (|A| + |B|) of two boolean arrays; NaN when both are empty."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else float("nan")


def distance_scores(a: np.ndarray, b: np.ndarray, voxel_size: tuple[float, float, float]) -> dict[str, float]:
    """Return all surface distances of two structures for the price of one.

    The surface is made of the voxels that have a face neighbour outside the structure, also where the array ends, and a
    distance is that from the centre of a surface voxel to the centre of the nearest one of the other surface, as in
    MONAI.

    Parameters
    ----------
    a, b : ndarray
        Boolean ``[x, y, z]``.
    voxel_size : tuple of float
        Voxel edges in mm.

    Returns
    -------
    dict
        In mm, :data:`DISTANCES`: SD95 and mean of the distances of both directions pooled, Hausdorff distance and its
        95th percentile, each the larger of the two directions; NaN when one of the structures is empty.
    """
    if not a.any() or not b.any():
        return dict.fromkeys(DISTANCES, float("nan"))
    directed = surface_distances(a, b, voxel_size)
    pooled = np.concatenate(directed)
    values = (
        np.percentile(pooled, 95),
        pooled.mean(),
        pooled.max(),
        max(np.percentile(distances, 95) for distances in directed),
    )
    return {name: float(value) for name, value in zip(DISTANCES, values)}


def surface_distance_95(a: np.ndarray, b: np.ndarray, voxel_size: tuple[float, float, float]) -> float:
    """Return the 95th percentile of the surface distances in mm (SD95, Billot et al. 2023, section 4.3).

    Both directions are pooled; parameters as for :func:`distance_scores`.
    """
    return distance_scores(a, b, voxel_size)["sd95_mm"]


def mean_surface_distance(a: np.ndarray, b: np.ndarray, voxel_size: tuple[float, float, float]) -> float:
    """Return the mean of the surface distances in mm, both directions pooled; see :func:`distance_scores`."""
    return distance_scores(a, b, voxel_size)["mean_distance_mm"]


def hausdorff(a: np.ndarray, b: np.ndarray, voxel_size: tuple[float, float, float]) -> float:
    """Return the Hausdorff distance in mm, the largest of the surface distances; see :func:`distance_scores`."""
    return distance_scores(a, b, voxel_size)["hausdorff_mm"]


def hausdorff_95(a: np.ndarray, b: np.ndarray, voxel_size: tuple[float, float, float]) -> float:
    """Return the 95th percentile of the surface distances in mm, the larger of both directions (HD95).

    Unlike SD95 the directions are not pooled; see :func:`distance_scores`.
    """
    return distance_scores(a, b, voxel_size)["hd95_mm"]


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


def volume_error(volume: float, reference: float) -> float:
    """Return by how much a volume is too large, in percent of the reference; NaN where the reference is 0."""
    return 100 * (volume - reference) / reference if reference else float("nan")


def asymmetry_errors(
    volumes: Mapping[int, float], reference: Mapping[int, float], labels: Iterable[Label]
) -> dict[int, float]:
    """Return by how much asymmetry indices are off.

    Parameters
    ----------
    volumes, reference : mapping
        Label id to mm³; absent ones are 0.
    labels : iterable of Label
        With their sides and partners.

    Returns
    -------
    dict
        Id of both structures of each pair to the difference of 100 (L - R) / ((L + R) / 2) in percentage points, from
        -400 to 400; NaN where one of the label maps has neither side.
    """
    labels = [label for label in labels if label.side != "none"]
    # A structure's asymmetry is None where it has no volume on either side, which becomes NaN.
    found, true = (
        {row.label: np.nan if row.asymmetry is None else row.asymmetry for row in rows(dict(v), {}, labels)}
        for v in (volumes, reference)
    )
    return {label.id: found[label.id] - true[label.id] for label in labels}


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
