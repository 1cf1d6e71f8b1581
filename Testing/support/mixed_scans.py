"""Scans in files that tests make up: all formats, orientations and voxel sizes, and broken ones."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from synthetic import ball

from synthseg_slicer.scan import write_volume

PATIENT = "DOE^JANE"
"""Name of the patient in the DICOM files; nothing that is written may hold it."""
SUFFIXES = (".nii.gz", ".nrrd", ".mgz", ".mha", ".nii", "")
"""Formats; empty for a DICOM folder."""
ORIENTATIONS = ("RAS", "LPS", "LIA", "PIR", "SRA")
SIZES_MM = ((1, 1, 1), (1.2, 0.9, 1), (1, 1, 3), (0.8, 0.8, 0.8))
SHAPE = (40, 38, 36)


def write_dicom(folder, data, lps, *, uid="1.2.3.4", skip=(), drift=0.0, shift=0.0, tags=None):
    """Write one CT series with scrambled file names; ``drift`` shears the stack, ``shift`` moves it."""
    folder.mkdir(exist_ok=True)
    size = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / size
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in set(range(data.shape[2])) - set(skip):
        image = sitk.GetImageFromArray(np.ascontiguousarray(data[:, :, k].T)[None])
        image.SetSpacing(size.tolist())
        position = lps[:3, :3] @ [0, drift * k, k + shift] + lps[:3, 3]
        header = {
            "0020|000d": "1.2.3",
            "0020|000e": uid,
            "0008|0018": f"{uid}.{k + 1}",
            "0008|0060": "CT",
            "0008|103e": f"series {uid}",
            "0020|0032": "\\".join(f"{p:.6f}" for p in position),
            "0020|0037": "\\".join(f"{c:.6f}" for c in axes[:, :2].T.ravel()),
            "0028|1052": "-1024",
            "0028|1053": "1",
            **(tags or {}),
        }
        for tag, value in header.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid[-1]}_{k * 7 % 100:02d}.dcm"))
        writer.Execute(image)
    return folder


def head(seed: int, voxel_size: tuple[float, float, float], orientation: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a bright ball of its own size and noise, int16 ``[x, y, z]``, and its affine."""
    shape = tuple(max(10, round(n / size)) for n, size in zip(SHAPE, voxel_size))
    random = np.random.default_rng(seed)
    data = ball(shape, radius=random.uniform(0.25, 0.4) * min(shape)) + random.normal(0, 2, shape)
    affine = np.diag([*map(float, voxel_size), 1.0])
    affine[:3, 3] = random.uniform(-30, 30, 3)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(orientation))
    turned = nib.apply_orientation(data, turn)
    return np.round(turned).astype(np.int16), affine @ inv_ornt_aff(turn, shape)


def write_scan(folder: Path, stem: str, suffix: str, data: np.ndarray, affine: np.ndarray) -> Path:
    """Write a scan in the format of the suffix (empty: a DICOM folder with a patient's name) and return its path."""
    path = folder / f"{stem}{suffix}"
    if suffix:
        write_volume(path, data, affine)
        return path
    tags = {"0010|0010": PATIENT, "0008|0060": "MR"}
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    right_handed = np.linalg.det(lps[:3, :3]) > 0
    if not right_handed:  # slices of DICOM are stacked along row x column
        lps = lps @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, data.shape[2] - 1], [0, 0, 0, 1.0]])
        data = data[:, :, ::-1]
    return write_dicom(path, data, lps, uid=f"1.2.{zlib.crc32(stem.encode())}", tags=tags)


def write_broken(folder: Path, number: int) -> tuple[Path, str]:
    """Write a broken scan, a different kind for each number, and return its path and what its error must say."""
    stem = folder / f"broken{number:03d}"
    data, affine = head(number, (1, 1, 1), "RAS")
    kind = number % 7
    if kind == 0:  # truncated
        write_volume(path := stem.with_suffix(".nii.gz"), data, affine)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path, "cannot be read"
    if kind == 1:
        (path := stem.with_suffix(".nii")).touch()
        return path, "the file is empty"
    if kind == 2:
        (path := stem.with_suffix(".nrrd")).write_text("This is a letter, not a scan.\n")
        return path, "cannot be read"
    if kind == 3:  # a header that promises 70 terabytes
        header = nib.Nifti1Header()
        header.set_data_dtype(np.int16)
        header["dim"][:4] = (3, 32767, 32767, 32767)
        header["magic"], header["vox_offset"] = b"n+1", 352
        (path := stem.with_suffix(".nii")).write_bytes(header.binaryblock + bytes(100))
        return path, "too large"
    if kind == 4:  # a slice is missing
        return write_dicom(stem, data, np.diag([1.0, 1, 1, 1]), skip=(7,)), "unevenly spaced"
    if kind == 5:
        write_volume(path := stem.with_suffix(".mgz"), np.zeros_like(data), affine)
        return path, "constant"
    write_volume(path := stem.with_suffix(".mha"), data[:, :, 0][..., None], affine)
    return path, "two-dimensional"


def write_mixed(folder: Path, count: int, broken: int) -> dict[str, str]:
    """Write scans of mixed formats and geometries in a tree, some of them broken.

    Parameters
    ----------
    folder : Path
    count : int
        Of all scans.
    broken : int
        Of broken ones, spread among the others.

    Returns
    -------
    dict
        Key of each broken scan to what its error must say.
    """
    expected = {}
    bad = {round((number + 0.5) * count / broken) for number in range(broken)}
    for number in range(count):
        place = folder / f"site{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        if number in bad:
            path, text = write_broken(place, len(expected))
            expected[path.relative_to(folder).as_posix()] = text
        else:
            suffix, orientation, voxel_size = (
                kinds[number % len(kinds)] for kinds in (SUFFIXES, ORIENTATIONS, SIZES_MM)
            )
            write_scan(place, f"scan{number:03d}", suffix, *head(number, voxel_size, orientation))
    return expected
