"""Soft posteriors as one four-dimensional NIfTI file, written channel by channel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .errors import OutputError
from .files import atomic, check_output

SUFFIXES = (".nii.gz", ".nii")


def write_posteriors(
    path: str | Path, channels: Iterable[np.ndarray], shape: tuple[int, int, int, int], affine: np.ndarray
) -> None:
    """Write posteriors as float32 NIfTI [x, y, z, label]; only one channel is in memory at a time.

    Parameters
    ----------
    path : path
        Target ending in .nii.gz or .nii.
    channels : iterable of array [x, y, z]
        One per label, in channel order.
    shape : tuple of int
        x, y, z and number of channels.
    affine : array [4, 4]
        Voxel index to world mm.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    check_output(path, SUFFIXES)
    try:
        import nibabel as nib  # optional inside 3D Slicer
        from nibabel.openers import Opener
    except ImportError as error:
        raise OutputError(f"{path}: writing posteriors needs nibabel. Install it (pip install nibabel).") from error
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(shape)
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header.set_xyzt_units("mm")
    header.set_data_offset(352)
    with atomic(path) as temporary, Opener(str(temporary), "wb", compresslevel=1) as file:
        header.write_to(file)
        for channel in channels:
            file.write(channel.astype(np.float32).tobytes(order="F"))
