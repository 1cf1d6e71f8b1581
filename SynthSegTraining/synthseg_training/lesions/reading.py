"""Which voxels of a file are lesion: one rule for every mask that training or scoring reads."""

from __future__ import annotations

import os

import numpy as np

from synthseg_slicer.errors import ScanError
from synthseg_slicer.files import reason
from synthseg_slicer.labels import LESION_ID, STROKE

HEALTHY_IDS = {label.id for label in STROKE} - {0, LESION_ID}
BOUNDARY_ID = 299
"""Of grey and white matter: the one healthy class that a whole head may lack, at coarse voxels."""
ROUNDING = 1e-3
"""What a file's stored scaling may add to a label or to a share of 1."""
SHOWN = 8
"""Labels that an error lists."""


def lesion_voxels(values: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """Tell which voxels of a mask are lesion.

    - One value besides 0, or none: lesion where it is not 0.
    - A soft mask, shares in [0, 1]: lesion above one half.
    - A label map with :data:`~synthseg_slicer.labels.LESION_ID` (99): lesion where it has that label.
    - A label map of exactly the stroke network's healthy classes (the boundary of grey and white matter may lack), as
      ``synthseg-train generate`` writes it of a patient without stroke: no lesion.

    Parameters
    ----------
    values : numpy.ndarray
        Of any shape and real type.
    path : path-like
        Named in the error.

    Returns
    -------
    numpy.ndarray
        bool, of the same shape.

    Raises
    ------
    ScanError
        Negative or non-finite values, values above 1 that are no whole numbers, or several labels of which none is
        known to be the lesion's.
    """
    found = np.unique(values[values != 0])  # NaN is last, and fails the comparison
    if len(found) and not (found[0] > 0 and found[-1] < np.inf):
        raise ScanError(f"{path}: is no lesion mask: it has negative or non-finite values. Set those voxels to 0.")
    if len(found) < 2:
        return values > 0
    if found[-1] <= 1 + ROUNDING:
        return values > 0.5
    labels = np.rint(found)
    if np.abs(found - labels).max() > ROUNDING:
        raise ScanError(
            f"{path}: is no lesion mask: its values, up to {found[-1]:.4g}, are neither labels nor shares in [0, 1]. "
            "Give a mask that is 0 outside the lesion and 1 inside."
        )
    ids = {int(label) for label in labels}
    if LESION_ID in ids:
        return np.rint(values) == LESION_ID
    if ids | {BOUNDARY_ID} == HEALTHY_IDS:
        return np.zeros(values.shape, bool)
    shown = ", ".join(str(label) for label in sorted(ids)[:SHOWN]) + (", ..." if len(ids) > SHOWN else "")
    raise ScanError(
        f"{path}: which label is the lesion's? It holds {shown}. Give a mask that is 0 outside the lesion, or a label "
        f"map in which the lesion has the label {LESION_ID}."
    )


def read_lesion(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a lesion mask, see :func:`lesion_voxels`.

    Returns
    -------
    mask : numpy.ndarray
        bool ``[x, y, z]`` as stored.
    affine : numpy.ndarray
        4x4, voxel index to RAS+ world in mm.

    Raises
    ------
    ScanError
        The file cannot be read, is not three-dimensional, has no place in space, or is no lesion mask.
    """
    import nibabel as nib  # not needed to train on label maps alone

    try:
        image = nib.load(path)
        values = np.asanyarray(image.dataobj, dtype=np.float32)
    except Exception as error:  # whatever nibabel and zlib make of a damaged file
        raise ScanError(f"{path}: cannot be read ({reason(error)}). Copy or export it again.") from error
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        size = " x ".join(map(str, values.shape))
        raise ScanError(f"{path}: has {values.ndim} dimensions ({size}). Give one 3D mask.")
    if not abs(np.linalg.det(image.affine[:3, :3])) > 0:
        raise ScanError(f"{path}: its affine is singular, so the voxels have no place in space. Export it again.")
    return lesion_voxels(values, path), image.affine
