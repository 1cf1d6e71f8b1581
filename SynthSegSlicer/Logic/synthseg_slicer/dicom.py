"""From a DICOM folder or file to the sorted slices of one series and their geometry.

Pixels are left to SimpleITK (GDCM), which applies the rescale slope and intercept. This file only settles what GDCM
leaves open: which series is meant, in which order its slices lie, and whether they form a regular grid at all.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .dicom_elements import (
    DESCRIPTION,
    FRAMES,
    ORIENTATION,
    PIXEL_SPACING,
    SERIES_UID,
    SHARED_GROUPS,
    Elements,
    image_elements,
)
from .errors import ScanError, ScanWarning
from .files import DEFLATE_RATIO
from .stored import UNKNOWN_AXES

MIN_SERIES_SLICES = 8
"""A series with fewer slices (localiser, screenshot, dose report) is passed over when a folder holds a larger one."""

SPACING_TOLERANCE_MM = 0.1
"""Allowed departure of one slice gap from the mean gap; positions are stored to about 0.01 mm."""

TILT_TOLERANCE = 2e-3
"""Largest sine between slice normal and stacking direction; a gantry tilt of one degree is 0.017."""

DIRECTION_TOLERANCE = 1e-3
"""Largest difference of a direction cosine between slices; headers keep six decimals, localisers differ by one."""


def is_dicom(path: Path) -> bool:
    """Return whether a file carries the ``DICM`` mark of part 10 of the DICOM standard."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def series_files(path: Path) -> list[Path]:
    """Return the files of the one series that a DICOM folder, or a file of it, stands for.

    Parameters
    ----------
    path : Path
        A folder (not searched below its first level) or one DICOM file; of a file the whole series around it is taken.

    Returns
    -------
    list of Path
        The series' files, in no particular order. Of a folder that is the only series with at least
        :data:`MIN_SERIES_SLICES` slices, or simply the only series.

    Raises
    ------
    ScanError
        No DICOM in the folder, or several series that could be meant; the message lists them.
    """
    series, damaged = _all_series(path if path.is_dir() else path.parent)
    if not path.is_dir():
        own = image_elements(path)
        if own is None:
            raise ScanError(
                f"{path}: cannot be read: it holds no DICOM image. Give a slice of the scan, or its folder."
            )
        found = next((one for one in series.values() if path in one), {path: own})
    elif not series:
        raise ScanError(
            f"{path}: this folder holds no DICOM series (sub-folders are not searched). Give the folder that directly "
            "contains the slices, or an image file."
        )
    else:
        found = _the_volume(path, sorted(series.values(), key=_slices, reverse=True))
    if damaged:
        warnings.warn(
            f"{path}: {len(damaged)} DICOM file(s) in the folder cannot be read and were left out ({damaged[0]}). If "
            "they belong to this scan, part of it is missing: copy or export it again.",
            ScanWarning,
            stacklevel=2,
        )
    claimed, held = (sum(getattr(one, what) for one in found.values()) for what in ("claimed", "pixels"))
    if claimed > DEFLATE_RATIO * held:  # of all together: a black slice alone may take a hundred bytes
        raise ScanError(
            f"{path}: cannot be read: the headers claim {claimed:,} bytes of pixels, which {held:,} compressed ones "
            "cannot hold. The files are incomplete or damaged; copy or export them again."
        )
    if not _all_say(found, PIXEL_SPACING):
        raise ScanError(f"{path}: the DICOM files do not say how large their pixels are. Export the scan again.")
    if not _all_say(found, ORIENTATION):
        warnings.warn(f"{path}: {UNKNOWN_AXES}.", ScanWarning, stacklevel=2)
    return list(found)


def _all_series(folder: Path) -> tuple[dict[str, dict[Path, Elements]], list[str]]:
    """Return the images of a folder by series, and what is wrong with those that are damaged."""
    series, damaged = defaultdict(dict), []
    for file in sorted(folder.iterdir()):
        if not file.is_file():  # pipes and devices among them, on which GDCM would wait
            continue
        try:
            elements = image_elements(file)
        except (ScanError, OSError) as error:
            damaged.append(str(error))
            continue
        if elements is not None:
            series[elements.text(SERIES_UID)][file] = elements
    return series, damaged


def _the_volume(path: Path, series: list[dict[Path, Elements]]) -> dict[Path, Elements]:
    """Return the one series, largest first, that can be meant."""
    volumes = [one for one in series if _slices(one) >= MIN_SERIES_SLICES] if len(series) > 1 else series
    if len(volumes) != 1:
        listing = "; ".join(f"{_slices(one)} slices '{_description(one)}': {next(iter(one))}" for one in series)
        raise ScanError(
            f"{path}: this folder holds {len(series)} series and it is not clear which one is meant. Give one file of "
            f"the wanted series instead of the folder: {listing}."
        )
    return volumes[0]


def series_geometry(files: list[Path]) -> tuple[list[Path], tuple[int, int, int], np.ndarray]:
    """Sort the single-frame slices of a series and return their common grid, reading headers only.

    Parameters
    ----------
    files : list of Path
        At least two slices.

    Returns
    -------
    files : list of Path
        Sorted along the slice normal (row direction x column direction).
    shape : tuple of int
        Columns, rows, slices.
    affine : numpy.ndarray
        4x4, voxel index to DICOM (LPS) mm, from the stored positions of the first and the last slice.

    Raises
    ------
    ScanError
        Slices of different size or direction, several at one place, missing ones, or a tilted gantry.
    """
    name = files[0].parent
    headers = [_header(file) for file in files]
    sizes = {header.GetSize()[:2] for header in headers}
    directions = np.array([header.GetDirection() for header in headers]).reshape(len(files), 3, 3)
    spacings = np.array([header.GetSpacing()[:2] for header in headers])
    turned = np.ptp(directions, axis=0).max() > DIRECTION_TOLERANCE
    if len(sizes) > 1 or turned or np.ptp(spacings, axis=0).max() > SPACING_TOLERANCE_MM / 100:
        raise ScanError(
            f"{name}: the slices of this series differ in size or direction (a localiser?). Choose another series, or "
            "convert this one to NIfTI first, for example with dcm2niix."
        )
    columns, rows = directions[0, :, 0], directions[0, :, 1]
    normal = np.cross(columns, rows)
    positions = np.array([header.GetOrigin() for header in headers])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    gaps = np.diff(positions @ normal)
    step = (positions[-1] - positions[0]) / (len(files) - 1)
    if gaps.min() < SPACING_TOLERANCE_MM / 2:
        raise ScanError(
            f"{name}: several slices of this series lie at the same place (repeats, echoes, diffusion or time frames). "
            "Convert it to NIfTI first, for example with dcm2niix, and give one of the volumes."
        )
    if np.abs(gaps - gaps.mean()).max() > SPACING_TOLERANCE_MM:
        worst = int(np.abs(gaps - np.median(gaps)).argmax())
        raise ScanError(
            f"{name}: the slices are unevenly spaced ({gaps[worst]:.2f} mm after slice {worst + 1}, elsewhere "
            f"{np.median(gaps):.2f} mm): a slice is missing, or the scan was taken with two thicknesses. Copy the "
            "missing files, or resample the series to an even spacing (3D Slicer's DICOM import, dcm2niix)."
        )
    if np.linalg.norm(np.cross(step, normal)) > TILT_TOLERANCE * np.linalg.norm(step):
        raise ScanError(
            f"{name}: the slices are sheared (gantry tilt). Convert the series with dcm2niix, which corrects the tilt, "
            "or harden the acquisition transform of 3D Slicer's DICOM import, and give the result."
        )
    spacing = headers[0].GetSpacing()
    affine = np.eye(4)
    affine[:3] = np.stack([columns * spacing[0], rows * spacing[1], step, positions[0]], axis=1)
    return [files[i] for i in order], (*headers[0].GetSize()[:2], len(files)), affine


def _header(file: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    return reader


def _all_say(series: dict[Path, Elements], tag: tuple[int, int]) -> bool:
    """Tell whether every file has an element, or the groups where multi-frame files keep it."""
    return all(tag in elements.values or SHARED_GROUPS in elements.values for elements in series.values())


def _slices(series: dict[Path, Elements]) -> int:
    """Return the number of slices; a single file may be a multi-frame one."""
    return len(series) if len(series) > 1 else next(iter(series.values())).number(FRAMES, 1)


def _description(series: dict[Path, Elements]) -> str:
    return next(iter(series.values())).text(DESCRIPTION)[:64] or "no description"
