"""Affine matrices that the exchange with 3D Slicer needs; no Slicer here."""

from __future__ import annotations

import numpy as np


def orthogonal_part(matrix: np.ndarray) -> np.ndarray:
    """Return the rotation, or rotation with reflection, that comes nearest to a linear transform.

    The orthogonal factor of the polar decomposition (Higham 1986): scaling, shear and translation are left out.

    Parameters
    ----------
    matrix : array [4, 4]
        Linear transform.

    Returns
    -------
    float64 array [4, 4]
        Orthogonal; its inverse is its transpose.
    """
    left, _, right = np.linalg.svd(np.asarray(matrix, dtype=np.float64)[:3, :3])
    result = np.eye(4)
    result[:3, :3] = left @ right
    return result


def right_handed(labels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn the last axis round where the voxel axes form a left-handed system; every voxel keeps its place.

    VTK makes surfaces of left-handed images inside out.

    Parameters
    ----------
    labels : array [x, y, z]
        Voxels.
    affine : array [4, 4]
        Voxel index to world.

    Returns
    -------
    labels, affine : array [x, y, z], float64 array [4, 4]
        A view of the labels, and an affine of positive determinant.
    """
    affine = np.array(affine, dtype=np.float64)
    if np.linalg.det(affine[:3, :3]) > 0:
        return labels, affine
    affine[:3, 3] += affine[:3, 2] * (labels.shape[2] - 1)
    affine[:3, 2] *= -1
    return labels[:, :, ::-1], affine
