"""Scores of label maps against references, a row a structure."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from synthseg_slicer.errors import ScanError
from synthseg_slicer.files import reason
from synthseg_slicer.scan import check_geometry
from synthseg_training.evaluation.conversion import convert
from synthseg_training.evaluation.metrics import to_grid
from synthseg_training.evaluation.scans import compare

from .dataset import Case

LEFT_OUT = (0, 24)
"""Background, and CSF around the brain, on whose extent references disagree."""


def structures_of(names: Mapping[int, str]) -> dict[int, str]:
    """Return what is scored of a network's labels (id to name)."""
    return {label: name for label, name in names.items() if label not in LEFT_OUT}


@dataclass(frozen=True, eq=False)
class Labels:
    """A label map; unlike a scan it may be empty.

    Attributes
    ----------
    data : int32 array [x, y, z]
    affine : array [4, 4]
        Voxel index to RAS+ world in mm.
    """

    data: np.ndarray
    affine: np.ndarray

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """In mm."""
        return tuple(float(size) for size in np.linalg.norm(self.affine[:3, :3], axis=0))


def read_labels(path: Path, convention: str = "") -> Labels:
    """Read a label map (NIfTI, MGZ), of another convention as FreeSurfer ids.

    Raises
    ------
    ScanError
        The file cannot be read, is no label map, or not of that convention.
    """
    try:
        image = nib.load(path)
        data = np.asanyarray(image.dataobj)
        data = data.reshape(data.shape[:3]) if data.ndim > 3 and data.shape[3:] == (1,) * (data.ndim - 3) else data
        check_geometry(data.shape, image.affine, str(path))
        labels = np.rint(data).astype(np.int32)
        if not np.array_equal(labels, data):
            raise ScanError(f"{path}: holds values that are no whole numbers. Give a label map, not interpolated.")
        if convention:
            labels = convert(labels, convention, voxel_size=nib.affines.voxel_sizes(image.affine))
    except ScanError:
        raise
    except (OSError, ValueError, EOFError, zlib.error, ImageFileError) as error:
        raise ScanError(
            f"{path}: {reason(error)}. Give a label map (NIfTI, MGZ) of the labelling you named."
        ) from error
    return Labels(labels, image.affine)


def read_reference(case: Case, structures: Collection[int]) -> Labels:
    """Read a case's reference.

    Raises
    ------
    ScanError
        It holds none of the structures: it is no such reference, or its convention was not named.
    """
    reference = read_labels(case.reference, case.convention)
    if not np.isin(reference.data, list(structures)).any():
        raise ScanError(
            f"{case.reference}: holds none of the structures to score. Name its labelling by --convention or in the "
            "table's column 'convention', or take it away."
        )
    return reference


def scores(
    labels: np.ndarray, affine: np.ndarray, reference: Labels, structures: Mapping[int, str], distances: bool = True
) -> list[dict]:
    """Return ``label, structure, dice, sd95_mm`` of each structure of the reference, on the reference's grid.

    Parameters
    ----------
    labels : int array [x, y, z]
        FreeSurfer ids.
    affine : array [4, 4]
        Voxel index to RAS+ world in mm.
    reference : Labels
        From :func:`read_reference`.
    structures : mapping
        Label id to name.
    distances : bool
        Whether to compute SD95 (seconds a scan); NaN otherwise.
    """
    prediction = to_grid(np.asarray(labels), affine, reference.data.shape, reference.affine)
    return compare(prediction, reference.data, structures, reference.voxel_size if distances else None)
