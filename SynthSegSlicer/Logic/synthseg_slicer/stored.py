"""Volumes of NIfTI, Analyze and FreeSurfer files: first what the header claims, then the voxels.

nibabel interprets the headers but does not open the files: it would read header extensions of any length, seek a footer
through gigabytes of compressed zeros, and stop before the checksum of a compressed file. Here nothing but the header is
unpacked until its claims were compared with the size of the file, and a compressed file is read to its end, where a
CRC-32 tells whether any bit changed.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .errors import ScanError
from .files import check_room, regular_file, suffix_of

NIFTI_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img")
MGH_SUFFIXES = (".mgz", ".mgh")

HEADER_BYTES = 540
"""Of NIfTI-2, the longest header."""
NIFTI_1, NIFTI_2 = 348, 540
"""The first number of a header, its length; Analyze has that of NIfTI-1."""
MGH_OFFSET = 284
"""Where the voxels of FreeSurfer's format begin."""
MOST_BESIDES = 2**26
"""Bytes before the voxels (header extensions), and behind those of a compressed file, beyond which it is refused."""
BLOCK = 2**22
"""Bytes that are unpacked at a time."""

SAME_SIZE = 1.5
"""Factor between two statements of a voxel size that spatial normalisation, which scales a head, still explains."""
TURNED = np.cos(np.radians(45.0))
"""Cosine between two statements of a voxel axis below which they name different directions."""

_UNIT_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}
UNKNOWN_AXES = (
    "the file does not say how its axes lie in the patient; the format's default was assumed. If left and right or up "
    "and down are wrong in the result, correct the header"
)


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file says of its voxels.

    Attributes
    ----------
    path : Path
        The file with the voxels.
    files : list of Path
        All files of the volume.
    shape : tuple of int
        Three axes and any of frames.
    dtype : numpy.dtype
        As stored, byte order included.
    affine : float64 array [4, 4]
        Voxel index to RAS+ world in mm.
    offset : int
        Bytes before the voxels, once unpacked.
    scaling : tuple of float
        Slope and intercept: values are slope * stored + intercept.
    notes : list of str
        What the user should know about the header; sentences without their full stop.
    """

    path: Path
    files: list[Path]
    shape: tuple[int, ...]
    dtype: np.dtype
    affine: np.ndarray
    offset: int
    scaling: tuple[float, float] = (1.0, 0.0)
    notes: list[str] = field(default_factory=list)

    def voxels(self, shape: tuple[int, int, int], frame: int | None) -> np.ndarray:
        """Read one frame.

        Parameters
        ----------
        shape : tuple of int
            Of a frame.
        frame : int or None
            Which one, from 0; None if there is one.

        Returns
        -------
        array [x, y, z]
            As stored, or float32 where it is scaled.

        Raises
        ------
        ScanError
            The file is too small for its claims, or goes on behind its voxels without end.
        OSError, EOFError, zlib.error
            It cannot be read, or its checksum is wrong.
        """
        packed = _is_packed(self.path)
        wanted, every = (math.prod(n) * self.dtype.itemsize for n in (shape, self.shape))
        check_room(self.path, [self.path], self.offset + every, packed=packed)
        data = np.empty(math.prod(shape), self.dtype)
        before = self.offset + wanted * (frame or 0)
        with _open(self.path) as file:
            if packed:
                _skip(file, before)
            else:
                file.seek(before)
            _fill(file, memoryview(data).cast("B"))
            if packed and _skip(file, every - before + self.offset - wanted + MOST_BESIDES) == 0:
                raise ScanError(
                    f"{self.path}: the file goes on for more than {MOST_BESIDES >> 20} MB behind its voxels. It is "
                    "damaged or made to fill the memory; export it again."
                )
        data = data.reshape(shape, order="F")
        slope, intercept = map(np.float64, self.scaling)
        if (slope, intercept) == (1, 0):
            return data
        scaled = np.empty(shape, np.float32, order="F")
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is treated as such
            for index in range(shape[2]):  # in double precision, a slice at a time
                scaled[..., index] = data[..., index] * slope + intercept
        return scaled


def read_header(path: Path) -> Stored:
    """Read the header of a volume and nothing else.

    Parameters
    ----------
    path : Path
        Ends in one of :data:`NIFTI_SUFFIXES` or :data:`MGH_SUFFIXES`; of a pair either file.

    Raises
    ------
    ScanError
        It claims what cannot be.
    ImportError
        nibabel is missing; it is optional inside 3D Slicer.
    OSError, EOFError, zlib.error, ValueError
        It cannot be read; nibabel's own errors are among these.
    """
    pair = suffix_of(path, (".hdr", ".img"))
    header_file, data_file = (path.with_suffix(".hdr"), path.with_suffix(".img")) if pair else (path, path)
    with _open(header_file) as file:
        raw = file.read(HEADER_BYTES)
    if suffix_of(path, MGH_SUFFIXES):
        return _mgh(path, raw)
    stored = _nifti(data_file, raw, bool(pair))
    if pair:
        stored.files.insert(0, header_file)
    return stored


def _mgh(path: Path, raw: bytes) -> Stored:
    from nibabel.freesurfer.mghformat import MGHHeader

    header = MGHHeader(raw[:MGH_OFFSET])
    notes = [] if header["goodRASFlag"] else [UNKNOWN_AXES]
    shape = tuple(int(n) for n in header["dims"])
    affine = np.array(header.get_affine(), dtype=np.float64)
    return Stored(path, [path], shape, header.get_data_dtype(), affine, MGH_OFFSET, notes=notes)


def _nifti(path: Path, raw: bytes, pair: bool) -> Stored:
    from nibabel import nifti1, nifti2
    from nibabel.spm2analyze import Spm2AnalyzeHeader

    lengths = {_int32(length, order): (length, order) for length in (NIFTI_1, NIFTI_2) for order in "<>"}
    length, order = lengths.get(raw[:4], (0, "<"))
    magic = raw[344:347] if length == NIFTI_1 else raw[4:7]
    known = {b"n+1": nifti1.Nifti1Header, b"n+2": nifti2.Nifti2Header}
    if pair:
        known = {b"ni1": nifti1.Nifti1PairHeader, b"ni2": nifti2.Nifti2PairHeader}
    kind = known.get(magic)
    if kind is None and pair and length == NIFTI_1 and magic not in (b"n+1", b"n+2"):
        kind = Spm2AnalyzeHeader
    if kind is None or len(raw) < length or not length:
        raise ScanError(
            f"{path}: cannot be read: it is no {'NIfTI or Analyze header' if pair else 'NIfTI file'}, or its beginning "
            "is damaged. Copy or export it again."
        )
    header = kind(raw[:length], order)
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    slope, intercept = header.get_slope_inter()
    offset = header.get_data_offset()
    if not 0 <= offset <= MOST_BESIDES:
        raise ScanError(f"{path}: the voxels cannot begin at byte {offset}. The header is damaged; export it again.")
    notes = []
    if kind is Spm2AnalyzeHeader:
        notes.append(UNKNOWN_AXES)
        if path.with_suffix(".mat").exists():
            notes.append("its .mat file is not read. Convert the scan to NIfTI to keep the orientation that it holds")
    else:
        affine[:3] *= _UNIT_MM[header.get_xyzt_units()[0]]
        notes += _orientation_notes(header, kind(raw[:length], order, check=False)["pixdim"][1:4], path)
    scaling = (1.0, 0.0) if slope is None else (float(slope), float(intercept or 0))
    return Stored(path, [path], header.get_data_shape(), header.get_data_dtype(), affine, offset, scaling, notes)


def _orientation_notes(header, size: np.ndarray, path: Path) -> list[str]:
    """Return what is doubtful about the two orientations of a NIfTI header; ``size`` is as stored, before repairs."""
    from nibabel.spatialimages import HeaderDataError

    told, turned = header["sform_code"] > 0, header["qform_code"] > 0
    if not told and not (np.isfinite(size).all() and size.all()):  # nibabel turns 0 into 1 mm
        raise ScanError(
            f"{path}: the voxel size {_by(size)} mm is impossible. Export the scan again, or "
            "write a correct affine into its header."
        )
    if not told and not turned:
        return [UNKNOWN_AXES]
    if told and turned:
        try:
            contradiction = contradicting_forms(header.get_sform(), header.get_qform())
        except HeaderDataError:  # no rotation; it does not count
            return []
        return [contradiction] if contradiction else []
    return []


def contradicting_forms(sform: np.ndarray, qform: np.ndarray) -> str | None:
    """Return how the two orientations that a NIfTI header holds contradict each other; None if they do not.

    Scaling and small turns between them are usual: the qform is often the scanner's space, the sform a template's.

    Parameters
    ----------
    sform, qform : array [4, 4]
        Voxel index to RAS+ world in mm.
    """
    sizes = [np.linalg.norm(form[:3, :3], axis=0) for form in (sform, qform)]
    if not all(np.isfinite(size).all() and size.all() for size in sizes):
        return None  # the one that counts is checked elsewhere; the other says nothing
    one, other = (form[:3, :3] / size for form, size in zip((sform, qform), sizes))
    if np.linalg.det(one) * np.linalg.det(other) < 0:
        return (
            "the header contradicts itself about left and right (sform and qform mirror each other). The sform was "
            "used. Compare with the original, and delete the wrong one"
        )
    if (one * other).sum(axis=0).min() < TURNED:
        return (
            "the header contradicts itself about how the axes lie (sform and qform are turned against each other). The "
            "sform was used. Compare with the original, and delete the wrong one"
        )
    if max(np.max(sizes[0] / sizes[1]), np.max(sizes[1] / sizes[0])) > SAME_SIZE:
        return (
            f"the header contradicts itself about the voxel size (sform {_by(sizes[0])} mm, pixdim "
            f"{_by(sizes[1])} mm). The sform was used. Compare with the original, and correct the wrong one"
        )
    return None


def _by(numbers: np.ndarray) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)


def _int32(number: int, order: str) -> bytes:
    return number.to_bytes(4, "little" if order == "<" else "big")


def _is_packed(path: Path) -> bool:
    return suffix_of(path, (".gz", ".mgz")) is not None


def _open(path: Path) -> BinaryIO:
    regular_file(path)
    return gzip.open(path) if _is_packed(path) else open(path, "rb")


def _skip(file: BinaryIO, count: int) -> int:
    """Read over so many bytes, or to the end of the file; return how many were missing."""
    while count > 0:
        block = file.read(min(BLOCK, count))
        if not block:
            break
        count -= len(block)
    return count


def _fill(file: BinaryIO, buffer: memoryview) -> None:
    for start in range(0, len(buffer), BLOCK):
        part = buffer[start : start + BLOCK]
        block = file.read(len(part))
        if len(block) < len(part):
            raise EOFError("the file ends before its voxels do")
        part[:] = block
