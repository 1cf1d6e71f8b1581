"""Quantitative maps of one head: what a signal equation needs to know about the tissue, and their files."""

from __future__ import annotations

import os
import warnings
from contextlib import ExitStack
from dataclasses import InitVar, dataclass
from pathlib import Path

import torch
from torch import Tensor

from synthseg_slicer.errors import OptionError, OutputError, ScanError
from synthseg_slicer.files import atomic, reason

FILE_SUFFIXES: dict[str, str] = {
    "pd": "_PDmap.nii.gz",
    "r1": "_R1map.nii.gz",
    "r2": "_R2map.nii.gz",
    "r2s": "_R2starmap.nii.gz",
    "mt": "_MTsat.nii.gz",
}
"""Map to the end of its file name, after BIDS-qMRI; also the order of :meth:`QuantitativeMaps.stack`."""

R2_OVER_R2S = 2 / 3
"""R2 over R2* where R2 was not measured: 0.65 in grey and 0.69 in white matter at 3 T (R2 of Stanisz 2005, R2* of
Weiskopf 2013)."""
HIGHEST_ASSUMED_R2 = 25.0
"""In s^-1. Beyond about 37 s^-1 R2* tells of susceptibility (sinuses, bone), which a spin echo refocuses."""

AFFINE_TOLERANCE_MM = 1e-3
"""Maps of one set share a grid; single precision of NIfTI headers stays below this."""


@dataclass(frozen=True, eq=False)
class QuantitativeMaps:
    """Maps of equal shape ``[x, y, z]``, floating point, on one device.

    Attributes
    ----------
    pd : Tensor
        Proton density in percent of water.
    r1, r2, r2s : Tensor
        Longitudinal relaxation rate, transverse ones of the spin echo (R2) and of the gradient echo (R2*), in s^-1.
    mt : Tensor
        Magnetisation transfer saturation in percent (MTsat, p.u.).
    check : bool, optional
        Whether to look for negative and non-finite values, which waits for the device; shapes and types are always
        checked.

    Raises
    ------
    OptionError
        Maps that differ in shape or device, are not three-dimensional or not floating point; negative or non-finite
        values.
    """

    pd: Tensor
    r1: Tensor
    r2: Tensor
    r2s: Tensor
    mt: Tensor
    check: InitVar[bool] = True

    def __post_init__(self, check: bool) -> None:
        for name, values in self.items():
            if values.ndim != 3 or not values.is_floating_point():
                kind = f"{values.dtype} {list(values.shape)}"
                raise OptionError(f"The map {name} is {kind}; it must be floating point [x, y, z].")
            if values.shape != self.pd.shape or values.device != self.pd.device:
                raise OptionError(
                    f"The map {name} ({list(values.shape)}, {values.device}) and the map pd ({list(self.pd.shape)}, "
                    f"{self.pd.device}) differ. Bring all maps to one grid and device."
                )
            # NaN fails every comparison.
            if check and values.numel() and not (values.min() >= 0 and values.max() < float("inf")):
                raise OptionError(f"The map {name} holds negative or non-finite values. Set those voxels to 0.")

    def items(self) -> list[tuple[str, Tensor]]:
        """Return the names and maps in the order of :meth:`stack`."""
        return [(name, getattr(self, name)) for name in FILE_SUFFIXES]

    @property
    def shape(self) -> torch.Size:
        """Voxels along x, y and z."""
        return self.pd.shape

    @property
    def device(self) -> torch.device:
        """Where the maps are."""
        return self.pd.device

    def to(self, device: torch.device | str) -> QuantitativeMaps:
        """Return the maps on a device."""
        return QuantitativeMaps(*(values.to(device) for _, values in self.items()), check=False)

    def stack(self) -> Tensor:
        """Return the maps as ``[5, x, y, z]``: PD, R1, R2, R2*, MT."""
        return torch.stack([values for _, values in self.items()])

    @classmethod
    def unstack(cls, stacked: Tensor, *, check: bool = True) -> QuantitativeMaps:
        """Return the maps of ``[5, x, y, z]``, as views of it."""
        if len(stacked) != len(FILE_SUFFIXES):
            raise OptionError(f"A stack of {len(stacked)} maps; it must be 5: {', '.join(FILE_SUFFIXES)}.")
        return cls(*stacked, check=check)


def save_maps(maps: QuantitativeMaps, folder: str | os.PathLike, name: str, affine) -> list[Path]:
    """Write one NIfTI a map, float32: ``NAME_PDmap.nii.gz`` and so on; none of them appears if one cannot be written.

    Parameters
    ----------
    maps : QuantitativeMaps
        The maps.
    folder : path-like
        Existing folder.
    name : str
        Beginning of the file names, such as ``sub-01``.
    affine : array_like
        4x4, voxel index to RAS+ world in mm.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    OutputError
        The folder is missing or cannot be written, or nibabel is not installed.
    """
    try:
        import nibabel as nib  # optional inside 3D Slicer
    except ImportError as error:
        raise OutputError(f"{folder}: writing NIfTI needs nibabel. Install it (pip install nibabel).") from error
    paths = [Path(folder) / f"{name}{suffix}" for suffix in FILE_SUFFIXES.values()]
    with ExitStack() as files:
        # The files are renamed when the stack unwinds, so after the last one has been written.
        for path, (_, values) in zip(paths, maps.items()):
            temporary = files.enter_context(atomic(path))
            nib.Nifti1Image(values.float().cpu().numpy(), affine).to_filename(temporary)
    return paths


def load_maps(folder: str | os.PathLike, name: str | None = None) -> tuple[QuantitativeMaps, Tensor]:
    """Read a set of maps from NIfTI files, turned to RAS+ order.

    Without a map of R2 it is taken as :data:`R2_OVER_R2S` times R2*, at most :data:`HIGHEST_ASSUMED_R2`. Negative and
    non-finite voxels, which fits leave behind, become 0 with a warning.

    Parameters
    ----------
    folder : path-like
        Where the files lie.
    name : str, optional
        Beginning of the file names; by default the only one in the folder that has a ``_PDmap.nii.gz``.

    Returns
    -------
    maps : QuantitativeMaps
        float32.
    affine : Tensor
        4x4 float64, voxel index to RAS+ world in mm.

    Raises
    ------
    ScanError
        A map other than R2 is missing, damaged or not three-dimensional, or the maps differ in their grid.
    OptionError
        The folder holds no set or several, and no name was given.
    """
    folder = Path(folder)
    name = _only_name(folder) if name is None else name
    paths = {key: folder / f"{name}{suffix}" for key, suffix in FILE_SUFFIXES.items()}
    missing = [path.name for key, path in paths.items() if key != "r2" and not path.is_file()]
    if missing:
        raise ScanError(f"{folder}: maps of {name!r} are missing: {', '.join(missing)}. Only R2 may be left out.")
    read = {key: _read(path) for key, path in paths.items() if path.is_file()}
    values, affine = {key: tensor for key, (tensor, _) in read.items()}, read["pd"][1]
    for key, (tensor, other) in read.items():
        if tensor.shape != values["pd"].shape or (other - affine).abs().max() > AFFINE_TOLERANCE_MM:
            raise ScanError(f"{paths[key]}: its grid is not that of {paths['pd'].name}. Resample it.")
    if "r2" not in values:
        values["r2"] = (values["r2s"] * R2_OVER_R2S).clamp_(max=HIGHEST_ASSUMED_R2)
    return QuantitativeMaps(**values), affine


def _only_name(folder: Path) -> str:
    suffix = FILE_SUFFIXES["pd"]
    # Hidden files are unfinished ones and those of macOS.
    names = sorted(path.name.removesuffix(suffix) for path in folder.glob(f"[!.]*{suffix}"))
    if len(names) != 1:
        found = f"several sets of maps ({', '.join(names)}); name one" if names else f"no file *{suffix}"
        raise OptionError(f"{folder}: holds {found}.")
    return names[0]


def _read(path: Path) -> tuple[Tensor, Tensor]:
    """Return one map and its affine."""
    try:
        import nibabel as nib  # optional inside 3D Slicer

        image = nib.as_closest_canonical(nib.load(path))
        values, affine = torch.from_numpy(image.get_fdata(dtype="float32").copy()), torch.from_numpy(image.affine)
    except ImportError as error:
        raise ScanError(f"{path}: reading NIfTI needs nibabel. Install it (pip install nibabel).") from error
    except Exception as error:  # whatever nibabel and zlib make of a damaged file
        raise ScanError(f"{path}: cannot be read ({reason(error)}). Copy or export it again.") from error
    if values.ndim != 3:
        raise ScanError(f"{path}: has {values.ndim} dimensions. Give one 3D volume.")
    bad = ~(values.isfinite() & (values >= 0))
    if bad.any():
        warnings.warn(f"{path}: {int(bad.sum())} negative or non-finite voxels were set to 0.", stacklevel=3)
    return values.masked_fill_(bad, 0), affine
