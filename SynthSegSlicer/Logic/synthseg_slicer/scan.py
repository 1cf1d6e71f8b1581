"""A scan in memory, and how volumes come from and go to files.

Every reader ends in :class:`Scan`, whose constructor holds the one set of checks: what is no plausible
three-dimensional scan of a head raises :class:`~synthseg_slicer.errors.ScanError` with the file, the reason and the
cure. What can be read but deserves a look (replaced voxels, unknown orientation) is told through :class:`.ScanWarning`.
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from . import dicom
from .errors import OptionError, OutputError, ScanError, ScanWarning
from .files import atomic, check_output, check_room, reason, regular_file, suffix_of
from .stored import MGH_SUFFIXES, NIFTI_SUFFIXES, UNKNOWN_AXES, read_header
from .textheader import META_SUFFIXES, NRRD_SUFFIXES, check_stream, read_text_header

MIN_VOXEL_SIZE_MM = 0.05
"""Finer than any in-vivo scan (0.2 mm at 7 T); catches micrometre and metre mix-ups."""
MAX_VOXEL_SIZE_MM = 15.0
"""Thickest clinical slices with gap are about 10 mm."""
MIN_EXTENT_MM = 15.0
"""Smallest field of view along any axis: three 5 mm slices; nothing thinner shows a structure in context."""
MAX_EXTENT_MM = 600.0
"""Largest field of view along any axis: a whole head and neck; longer is a whole-body scan, which must be cropped
first."""
HEAD_EXTENT_MM = 80.0, 400.0
"""Usual fields of view of head scans, along each axis; used for advice only."""
MAX_VOXELS = 2**29
"""Refused before memory is taken: 2 GiB as float32, several times the largest 7 T scan."""
SHEAR_TOLERANCE = 1e-3
"""Largest cosine between two voxel axes (0.06 degrees, 0.25 mm across a head); rounding in headers stays below 1e-4."""
MIN_FINITE_FRACTION = 0.01
"""Least share of finite voxels; a stripped brain with NaN around it in a large field of view still fills some
percent."""

ITK_SUFFIXES = NRRD_SUFFIXES + META_SUFFIXES
DICOM_SUFFIXES = (".dcm", ".ima")
_ITK_READERS = dict.fromkeys(NRRD_SUFFIXES, "NrrdImageIO") | dict.fromkeys(META_SUFFIXES, "MetaImageIO")
READ_SUFFIXES = NIFTI_SUFFIXES + MGH_SUFFIXES + ITK_SUFFIXES + DICOM_SUFFIXES
WRITE_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".nrrd", ".mha")

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Scan:
    """A three-dimensional image and where its voxels lie.

    Voxels that are NaN or infinite are replaced, with a :class:`.ScanWarning`: NaN and -inf by the smallest finite
    value, +inf by the largest.

    Attributes
    ----------
    data : numpy.ndarray
        ``[x, y, z]``, float32 or an integer type of at most 32 bits; other types are converted to float32.
    affine : numpy.ndarray
        4x4 float64, voxel index to RAS+ world in mm.
    path : Path or None
        The file or folder it came from.
    sha256 : str or None
        SHA-256 of the file; of several files (DICOM series, header and data file) that of their contents one after the
        other in the order of their names.
    name : str
        What messages call it; the path by default.

    Raises
    ------
    ScanError
        Not three-dimensional, empty, constant, hardly any finite voxel, or an implausible, singular or sheared affine.
    """

    data: np.ndarray
    affine: np.ndarray
    path: Path | None = None
    sha256: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        name = self.name or str(self.path or "scan")
        data = np.asarray(self.data)
        affine = np.array(self.affine, dtype=np.float64)
        _check_type(data.dtype, name)
        check_geometry(data.shape, affine, name)
        object.__setattr__(self, "data", _checked_values(_plain_type(data), name))
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "name", name)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        return self.data.shape

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Voxel size along x, y and z in mm."""
        return tuple(float(size) for size in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


def read_scan(path: str | os.PathLike, frame: int | None = None) -> Scan:
    """Read a scan.

    NIfTI (.nii, .nii.gz, .hdr/.img) and FreeSurfer (.mgz, .mgh) files go through nibabel, NRRD (.nrrd, .nhdr),
    MetaImage (.mha, .mhd) and DICOM (a folder with one series, or any file of the series) through SimpleITK. Stored
    scaling (NIfTI ``scl_slope``, DICOM rescale) is applied. Of a NIfTI file the sform counts if its code is set, else
    the qform, else voxel sizes alone with a warning (nibabel's ``get_best_affine``); its spatial unit (metre, micron)
    is converted to mm, and unstated means mm. A fourth dimension of length one is dropped.

    Parameters
    ----------
    path : path-like
        The file or DICOM folder.
    frame : int, optional
        Which frame of a four-dimensional file to take, from 0. Without it a file of several frames is refused.

    Returns
    -------
    Scan

    Raises
    ------
    ScanError
        The file is missing, damaged, of an unknown kind, or no plausible scan of a head (see :class:`Scan`).
    OptionError
        ``frame`` outside the file's frames.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _read_dicom(path, frame)
        regular_file(path)
        if path.stat().st_size == 0:
            raise ScanError(f"{path}: the file is empty (0 bytes). Copy or export it again.")
        suffix = suffix_of(path, READ_SUFFIXES)
        if suffix in NIFTI_SUFFIXES + MGH_SUFFIXES:
            return _read_stored(path, frame)
        if suffix in ITK_SUFFIXES:
            return _read_itk(path, frame)
        if suffix in DICOM_SUFFIXES or dicom.is_dicom(path):
            return _read_dicom(path, frame)
    except (ScanError, OptionError):
        raise
    except Exception as error:  # whatever nibabel, ITK, zlib or the file system make of a damaged file
        raise ScanError(
            f"{path}: cannot be read ({reason(error)}). The file is damaged, incomplete, not readable, or not what "
            "its suffix says; copy or export it again."
        ) from error
    raise ScanError(f"{path}: unknown kind of file. Known are {', '.join(READ_SUFFIXES)} and DICOM folders.")


def write_volume(path: str | os.PathLike, data: np.ndarray, affine: np.ndarray) -> None:
    """Write a volume; either the whole file appears or nothing.

    Parameters
    ----------
    path : path-like
        Target ending in one of :data:`WRITE_SUFFIXES`; an existing file is replaced.
    data : numpy.ndarray
        ``[x, y, z]`` or ``[x, y, z, frames]``. uint8, int16, int32, uint16 and float32 are kept (but .mgz has no
        uint16: int32), bool becomes uint8, float16 and float64 float32, and other integers int32.
    affine : numpy.ndarray
        4x4, voxel index to RAS+ world in mm. NIfTI stores it in single precision as sform and, if free of shear, as
        qform, both with code 1 (scanner).

    Raises
    ------
    OutputError
        Unknown suffix, unwritable folder, full disk, or integers that do not fit.
    """
    path = Path(path)
    suffix = check_output(path, WRITE_SUFFIXES)
    data, dtype = _output_type(path, np.asarray(data), mgh=suffix in MGH_SUFFIXES)
    affine = np.asarray(affine, dtype=np.float64)
    with atomic(path) as temporary:
        if suffix in NIFTI_SUFFIXES + MGH_SUFFIXES:
            _write_nibabel(temporary, data, dtype, affine)
        else:
            write_itk(temporary, _itk_image(data.astype(dtype, copy=False), affine))


def check_geometry(shape: Sequence[int], affine: np.ndarray, name: str) -> None:
    """Refuse what cannot be the grid of a head scan, from the header alone.

    Parameters
    ----------
    shape : sequence of int
        Voxels along each axis.
    affine : numpy.ndarray
        4x4, voxel index to RAS+ world in mm.
    name : str
        Named in the error.

    Raises
    ------
    ScanError
    """
    shape = tuple(int(n) for n in shape)
    if any(n <= 0 for n in shape):
        raise ScanError(f"{name}: the image is empty (size {_times(shape)}). Export it again.")
    if len(shape) < 3 or (len(shape) == 3 and 1 in shape):
        raise ScanError(f"{name}: the image is two-dimensional (size {_times(shape)}). Give the whole stack of slices.")
    if len(shape) > 3:
        raise ScanError(f"{name}: the image has {len(shape)} dimensions (size {_times(shape)}). Give one 3D volume.")
    if np.prod(shape, dtype=np.float64) > MAX_VOXELS:
        raise ScanError(
            f"{name}: the image is too large ({_times(shape)} voxels, at most {MAX_VOXELS}). Crop it to the head or "
            "resample it to 1 mm; if it is no such image, its header is damaged."
        )
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], [0, 0, 0, 1]):
        raise ScanError(f"{name}: the affine is not a finite 4x4 matrix ending in 0 0 0 1. {_AFFINE_CURE}")
    size = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / np.where(size > 0, size, 1)
    if not size.all() or abs(np.linalg.det(axes)) < 1e-3:
        raise ScanError(f"{name}: the affine is zero or singular, so the voxels have no place in space. {_AFFINE_CURE}")
    millimetres = _times(f"{s:.4g}" for s in size)
    if size.min() < MIN_VOXEL_SIZE_MM or size.max() > MAX_VOXEL_SIZE_MM:
        raise ScanError(
            f"{name}: the voxel size {millimetres} mm is implausible (bounds {MIN_VOXEL_SIZE_MM:g} to "
            f"{MAX_VOXEL_SIZE_MM:g} mm). Correct voxel size or unit in the header; the unit should be mm."
            f"{_likely_factor(size * shape)}"
        )
    extent = size * shape
    if extent.min() < MIN_EXTENT_MM or extent.max() > MAX_EXTENT_MM:
        raise ScanError(
            f"{name}: the field of view {_times(f'{e:.4g}' for e in extent)} mm is implausible for a head (bounds "
            f"{MIN_EXTENT_MM:g} to {MAX_EXTENT_MM:g} mm). Correct the voxel size in the header ({millimetres} mm), or "
            f"crop a larger scan to the head.{_likely_factor(extent)}"
        )
    cosines = np.abs(axes.T @ axes - np.eye(3))
    if cosines.max() > SHEAR_TOLERANCE:
        raise ScanError(
            f"{name}: the affine is sheared (axes {np.degrees(np.arccos(cosines.max())):.1f} degrees apart instead of "
            "90), as after an affine registration. Resample the scan to an orthogonal grid, or restore the scanner's "
            "own affine (in NIfTI often the qform)."
        )


def itk_affine(image: sitk.Image | sitk.ImageFileReader) -> np.ndarray:
    """Return the 4x4 voxel-to-RAS+ affine of a SimpleITK image, or of a reader that has read the header.

    ITK's world is LPS+, so that the first two world axes change sign.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (-1, round(len(image.GetDirection()) ** 0.5)))[:3, :3]
    affine[:3, :3] *= image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return _LPS_RAS @ affine


def write_itk(path: Path, image: sitk.Image) -> None:
    """Write a SimpleITK image, compressed, and make sure that all of it arrived.

    ITK's writers do not report that the last flush of a file failed; reading it back does.
    """
    sitk.WriteImage(image, str(path), useCompression=True)
    sitk.ReadImage(str(path))


def _likely_factor(extent: np.ndarray) -> str:
    """Return the advice to multiply the voxel size by a power of ten, where that makes a field of view a head's."""
    for factor in (1e3, 1e-3, 10.0, 0.1):  # metres, micrometres, centimetres, tenths of mm
        if HEAD_EXTENT_MM[0] <= extent.min() * factor and extent.max() * factor <= HEAD_EXTENT_MM[1]:
            return f" Multiplied by {factor:g}, it would fit a head."
    return ""


_AFFINE_CURE = "Export the scan again, or write a correct affine into its header."


def _read_stored(path: Path, frame: int | None) -> Scan:
    name = str(path)
    try:
        stored = read_header(path)
    except ImportError as error:
        raise ScanError(
            f"{path}: reading this format needs nibabel, which is not installed. Install it (pip install nibabel; in "
            "3D Slicer: slicer.util.pip_install('nibabel')) or save the scan as .nrrd."
        ) from error
    _check_type(stored.dtype, name)
    shape, index = _pick_frame(stored.shape, frame, name)
    check_geometry(shape, stored.affine, name)
    for note in stored.notes:
        warnings.warn(f"{name}: {note}.", ScanWarning, stacklevel=3)
    return Scan(stored.voxels(shape, index), stored.affine, path, _sha256(stored.files))


def _read_itk(path: Path, frame: int | None) -> Scan:
    name = str(path)
    text = read_text_header(path) if suffix_of(path, ITK_SUFFIXES) else None
    files = text.files if text else [path]
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO" if text is None else _ITK_READERS[suffix_of(path, ITK_SUFFIXES)])
    reader.SetFileName(name)
    reader.ReadImageInformation()
    _check_itk_type(reader, name)
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    shape, index = _pick_frame(size if components == 1 else (*size, components), frame, name)
    affine = itk_affine(reader) if len(size) >= 3 else np.eye(4)
    check_geometry(shape, affine, name)
    if text:
        stored = math.prod(size) * components * _itk_bytes(reader)
        check_room(path, files, stored, packed=text.packed)
        check_stream(text, stored)
    if suffix_of(path, NRRD_SUFFIXES) and not reader.HasMetaDataKey("NRRD_space"):
        warnings.warn(f"{name}: {UNKNOWN_AXES}.", ScanWarning, stacklevel=3)
    if len(size) == 4:
        reader.SetExtractSize([*size[:3], 0])
        reader.SetExtractIndex([0, 0, 0, index or 0])
    image = reader.Execute()
    if components > 1:
        image = sitk.VectorIndexSelectionCast(image, index)
    return Scan(_itk_array(image), affine, path, _sha256(files))


def _read_dicom(path: Path, frame: int | None) -> Scan:
    files = dicom.series_files(path)
    if len(files) == 1:
        scan = _read_itk(files[0], frame)
        warnings.warn(
            f"{path}: multi-frame DICOM; the order and spacing of its frames are those ITK reports. Check left and "
            "right on the result, or convert it with dcm2niix.",
            ScanWarning,
            stacklevel=3,
        )
        return Scan(scan.data, scan.affine, path, scan.sha256)
    if frame not in (None, 0):
        raise OptionError(f"{path}: frame {frame} does not exist; a DICOM series is one volume.")
    files, shape, affine = dicom.series_geometry(files)
    affine = _LPS_RAS @ affine
    check_geometry(shape, affine, str(path))
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(file) for file in files])
    image = reader.Execute()
    _check_itk_type(image, str(path))
    return Scan(_itk_array(image), affine, path, _sha256(files))


def _pick_frame(shape: Sequence[int], frame: int | None, name: str) -> tuple[tuple[int, ...], int | None]:
    """Return the shape of one frame, and the index into the last axis or None if there is nothing to pick."""
    shape = tuple(int(n) for n in shape)
    trailing = [n for n in shape[3:] if n != 1]
    frames = trailing[0] if trailing else 1
    if len(trailing) > 1:
        raise ScanError(f"{name}: the image has more than one axis of frames ({_times(shape)}). Give one 3D volume.")
    if frame is not None and not 0 <= frame < frames:
        raise OptionError(f"{name}: frame {frame} does not exist; the file has frames 0 to {frames - 1}.")
    if frames == 0:
        raise ScanError(f"{name}: the image is empty (size {_times(shape)}). Export it again.")
    if frames == 1:
        return shape[:3], None
    if frame is None:
        raise ScanError(
            f"{name}: the file holds {frames} frames (size {_times(shape)}), not one scan. Extract one to a file of "
            "its own (of NIfTI and MGH the first with: nib-roi -t 0:1 IN OUT.nii.gz), or in Python read one with "
            f"read_scan: frame=0 to frame={frames - 1}."
        )
    if shape[-1] != frames:
        raise ScanError(f"{name}: frames must be the last axis ({_times(shape)}). Extract one to a file of its own.")
    return shape[:3], frame


def _check_type(dtype: np.dtype, name: str) -> None:
    if dtype.names:
        raise ScanError(f"{name}: the image is in colour (RGB). Give the grey image it was made from.")
    if dtype.kind not in "uifb":
        raise ScanError(f"{name}: voxels of type {dtype} are not intensities. Give a real-valued image (magnitude).")


def _check_itk_type(image: sitk.Image | sitk.ImageFileReader, name: str) -> None:
    if "complex" in sitk.GetPixelIDValueAsString(image.GetPixelIDValue()):
        raise ScanError(f"{name}: voxels are complex numbers. Give the magnitude image.")
    if image.GetPixelIDValue() == sitk.sitkVectorUInt8 and _components(image) in (3, 4):
        raise ScanError(f"{name}: the image is in colour (RGB). Give the grey image it was made from.")


def _itk_bytes(reader: sitk.ImageFileReader) -> int:
    """Return how many bytes one component of a voxel takes."""
    return sitk.Image([1, 1], reader.GetPixelIDValue()).GetSizeOfPixelComponent()


def _components(image: sitk.Image | sitk.ImageFileReader) -> int:
    if isinstance(image, sitk.Image):
        return image.GetNumberOfComponentsPerPixel()
    return image.GetNumberOfComponents()


def _plain_type(data: np.ndarray) -> np.ndarray:
    """Return the array in native byte order as float32 or an integer type of at most 32 bits."""
    if data.dtype.kind in "ui" and data.dtype.itemsize <= 4:
        return data.astype(data.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite and is treated as such
        return data.astype(np.float32, copy=False)


def _checked_values(data: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        low, high = data.min(), data.max()  # NaN or infinite if any voxel is: no mask needed in the usual case
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = np.isfinite(data)
        share = np.count_nonzero(finite) / data.size
        if share < MIN_FINITE_FRACTION:
            raise ScanError(
                f"{name}: {'no' if share == 0 else 'hardly any'} voxel holds a finite number ({share:.1%}; the others "
                "are NaN or infinite). Export the scan again."
            )
        low, high = data[finite].min(), data[finite].max()
        warnings.warn(
            f"{name}: {data.size - np.count_nonzero(finite)} voxels ({1 - share:.1%}) are NaN or infinite; NaN was "
            f"replaced by the smallest finite value ({low:g}), infinity by the largest ({high:g}).",
            ScanWarning,
            stacklevel=4,
        )
        data = np.nan_to_num(data, nan=low, neginf=low, posinf=high)
    if low == high:
        raise ScanError(f"{name}: the image is constant (every voxel is {low:g}). Export the scan again.")
    return data


def _write_nibabel(path: Path, data: np.ndarray, dtype: np.dtype, affine: np.ndarray) -> None:
    try:
        import nibabel as nib
    except ImportError as error:
        raise OutputError(f"{path.name}: writing this format needs nibabel; install it or choose .nrrd.") from error
    kind = nib.MGHImage if suffix_of(path, MGH_SUFFIXES) else nib.Nifti1Image
    header = kind.header_class()
    header.set_data_dtype(dtype)
    image = kind(data, affine, header)
    if kind is nib.Nifti1Image:
        image.header.set_xyzt_units("mm")
        image.set_sform(affine, code=1)
        try:
            image.set_qform(affine, code=1, strip_shears=False)
        except nib.spatialimages.HeaderDataError:
            image.set_qform(None, code=0)  # a quaternion cannot hold shear
    image.to_filename(path)


def _output_type(path: Path, data: np.ndarray, mgh: bool) -> tuple[np.ndarray, np.dtype]:
    """Return the data and the type to store it as; float16 is left to be widened slice by slice."""
    if data.dtype.kind == "b":
        return data.view(np.uint8), np.dtype(np.uint8)
    if data.dtype.kind == "f":
        return (data if data.dtype.itemsize <= 4 else data.astype(np.float32)), np.dtype(np.float32)
    kept = (np.uint8, np.int16, np.int32) if mgh else (np.uint8, np.int16, np.int32, np.uint16)
    if data.dtype.newbyteorder("=") in kept:
        return data, data.dtype.newbyteorder("=")
    limits = np.iinfo(np.int32)
    if data.dtype.kind not in "ui" or (data.size and not limits.min <= data.min() <= data.max() <= limits.max):
        raise OutputError(f"{path}: values of type {data.dtype} cannot be stored in an image. Convert them first.")
    return data.astype(np.int32), np.dtype(np.int32)


def _itk_image(data: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """Return a SimpleITK image (LPS+) of ``[x, y, z]``, or a vector image of ``[x, y, z, frames]``."""
    axes = (2, 1, 0) if data.ndim == 3 else (2, 1, 0, 3)
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(axes)), isVector=data.ndim == 4)
    lps = _LPS_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def _itk_array(image: sitk.Image) -> np.ndarray:
    """Return the voxels as ``[x, y, z]``; SimpleITK's own arrays are ``[z, y, x]``."""
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0)


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(set(files), key=lambda f: f.name):
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _times(numbers: Sequence) -> str:
    return " x ".join(str(number) for number in numbers)
