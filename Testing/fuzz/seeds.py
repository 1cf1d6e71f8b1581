"""Small intact scans of every format, from which the fuzzing starts. Nothing of it is stored."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

SHAPE = (24, 20, 16)
AFFINE = np.array([[-2.0, 0, 0, 20], [0, 2.5, 0, -25], [0, 0, 3.0, -20], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Seed:
    """One intact scan.

    Attributes
    ----------
    name : str
        Of the format.
    target : str
        What is read, a file name or ``.`` for the folder.
    files : dict of str to bytes
        File name to content.
    header : int
        Bytes from the beginning of a file in which its header lies.
    kind : str
        How mutations know the fields: ``nifti1``, ``nifti2``, ``mgh``, ``text`` or ``dicom``.
    compressed : str
        ``gzip`` if the whole file is, ``inner`` if only its voxels are, else empty.
    """

    name: str
    target: str
    files: dict[str, bytes]
    header: int
    kind: str
    compressed: str = ""


def make_seeds(folder: Path) -> list[Seed]:
    """Write one scan of every format below ``folder`` and return their contents."""
    data = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    seeds = []

    def add(
        name: str, target: str, header: int, kind: str, write: Callable[[Path], None], compressed: str = ""
    ) -> None:
        place = folder / name
        place.mkdir()
        write(place)
        content = {file.name: file.read_bytes() for file in sorted(place.iterdir())}
        seeds.append(Seed(name, target, content, header, kind, compressed))

    def nifti(place: Path, name: str, image=nib.Nifti1Image, **fields) -> None:
        made = image(data, AFFINE)
        made.set_qform(AFFINE, code=1)
        for field, value in fields.items():
            made.header[field] = value
        made.to_filename(place / name)

    add("nifti", "a.nii", 352, "nifti1", lambda p: nifti(p, "a.nii"))
    add("nifti-gz", "a.nii.gz", 352, "nifti1", lambda p: nifti(p, "a.nii.gz"), "gzip")
    add("nifti-scaled", "a.nii", 352, "nifti1", lambda p: nifti(p, "a.nii", scl_slope=0.5, scl_inter=-10))
    add("nifti-pair", "a.hdr", 348, "nifti1", lambda p: nifti(p, "a.img", nib.Nifti1Pair))
    add("nifti2", "a.nii", 544, "nifti2", lambda p: nifti(p, "a.nii", nib.Nifti2Image))
    add("analyze", "a.hdr", 348, "nifti1", lambda p: nib.AnalyzeImage(data, AFFINE).to_filename(p / "a.img"))
    for name in ("a.mgz", "a.mgh"):
        gz = "gzip" if name.endswith("z") else ""
        add(name[2:], name, 284, "mgh", lambda p, n=name: nib.MGHImage(data, AFFINE).to_filename(p / n), gz)
    image = sitk.GetImageFromArray(data.transpose(2, 1, 0))
    image.SetSpacing((2, 2.5, 3))
    image.SetMetaData("Remark", "made up for fuzzing")
    for name, compress in (("a.nrrd", True), ("a.nrrd", False), ("a.nhdr", False), ("a.mha", True), ("a.mha", False)):
        add(
            f"{name[2:]}{'-gz' if compress else ''}",
            name,
            600,
            "text",
            lambda p, n=name, c=compress: sitk.WriteImage(image, str(p / n), useCompression=c),
            "inner" if compress else "",
        )
    add("mhd", "a.mhd", 600, "text", lambda p: sitk.WriteImage(image, str(p / "a.mhd")))
    add("dicom", ".", 1200, "dicom", lambda p: _dicom_series(p, data))
    frames = sitk.Cast(image, sitk.sitkUInt16)
    for name, compress in (("dicom-frames", False), ("dicom-packed", True)):  # the latter in JPEG 2000
        add(
            name,
            "a.dcm",
            1500,
            "dicom",
            lambda p, c=compress: sitk.WriteImage(frames, str(p / "a.dcm"), useCompression=c),
        )
    return seeds


def unpacked(content: bytes) -> bytes:
    """Return what a gzip file holds."""
    return gzip.decompress(content)


def packed(content: bytes) -> bytes:
    """Return a gzip file, the same bytes for the same content."""
    return gzip.compress(content, 1, mtime=0)


def _dicom_series(place: Path, data: np.ndarray) -> None:
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(10):
        image = sitk.GetImageFromArray(np.ascontiguousarray(data[:, :, k].T.astype(np.uint16))[None])
        image.SetSpacing((2, 2.5, 3))
        tags = {
            "0020|000d": "1.2.3",
            "0020|000e": "1.2.3.4",
            "0008|0018": f"1.2.3.4.{k + 1}",
            "0008|0060": "MR",
            "0020|0032": f"-20\\-25\\{3 * k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(place / f"{k:02d}.dcm"))
        writer.Execute(image)
