"""Thick slices made from thin ones: what a scan would look like with another slice spacing."""

from __future__ import annotations

import math

import numpy as np
import torch

from synthseg_slicer.scan import Scan
from synthseg_training.generation.interpolation import linear_weights
from synthseg_training.generation.resolution import Resolution, gaussian_matrix

DIRECTIONS = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Name of the slices to the world axis that they are stacked along."""


def thick_slices(scan: Scan, direction: str, spacing: float) -> Scan:
    """Return the scan as acquired in slices as thick as their spacing (eqs. 20-23 of Billot et al. 2023).

    Parameters
    ----------
    scan : Scan
        With thinner slices.
    direction : str
        ``axial``, ``coronal`` or ``sagittal``: along the array axis nearest to the patient's.
    spacing : float
        Slice spacing and thickness in mm.

    Returns
    -------
    Scan
        As many slices as fit from the first voxel's outer face on.

    Raises
    ------
    ValueError
        The slices would be thinner than the scan's voxels, or none would fit.
    """
    axis = int(np.abs(scan.affine[DIRECTIONS[direction], :3] / scan.voxel_size).argmax())
    size, step = scan.shape[axis], spacing / scan.voxel_size[axis]
    if not 1 <= step <= size:
        raise ValueError(
            f"{direction} slices of {spacing:g} mm cannot be cut from {size} voxels of {scan.voxel_size[axis]:g} mm"
        )
    centres = (step - 1) / 2 + step * np.arange(math.floor(size / step))
    matrix = (
        linear_weights(torch.from_numpy(centres), size) @ gaussian_matrix(Resolution().profile * step, size).double()
    )
    data = np.moveaxis(np.tensordot(matrix.numpy(), scan.data, axes=(1, axis)), 0, axis)
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, axis] * centres[0]
    affine[:3, axis] *= step
    return Scan(data.astype(np.float32), affine, scan.path, scan.sha256, f"{scan.name}, {spacing:g} mm {direction}")
