"""Which scans a command line means (files, folders, text lists), and how their outputs are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .dicom import is_dicom
from .errors import OptionError, ScanError
from .files import SLICER_SUFFIXES
from .scan import ITK_SUFFIXES, MGH_SUFFIXES, NIFTI_SUFFIXES

SUFFIXES = tuple(suffix for suffix in NIFTI_SUFFIXES + MGH_SUFFIXES + ITK_SUFFIXES if suffix != ".img")
"""Of the scans looked for in folders; an .img file comes with its .hdr."""
RESULT = "_synthseg"
"""Part of the name of every label file; such files in a folder are results, not scans."""


def is_scan(path: Path) -> bool:
    """Tell whether a path names a single scan (a file that is no list, or a DICOM folder) rather than several."""
    return _holds_dicom(path) if path.is_dir() else path.suffix.lower() != ".txt"


def find_scans(inputs: Sequence[str | Path], base: Path = Path()) -> list[Path]:
    """Return all scans that the inputs mean, each once, in order.

    A folder with DICOM files directly in it is one scan; another one stands for the scans in it and, one level down,
    the DICOM folders in it. A .txt file lists one input a line, relative to the list; blank lines and lines that
    start with # are left out.

    Raises
    ------
    ScanError
        A folder or list without any scan, or a list that is missing or no text.
    """
    scans: dict[Path, None] = {}
    for name in inputs:
        path = base / name
        if is_scan(path):
            found = [path]
        elif path.is_dir():
            entries = sorted(path.iterdir())
            found = [p for p in entries if (is_scan(p) if p.is_dir() else _looks_like_scan(p))]
        else:
            try:
                lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
            except (OSError, UnicodeDecodeError) as error:
                raise ScanError(f"{path}: the list cannot be read ({error}). Write one scan a line.") from error
            found = find_scans([line for line in lines if line and not line.startswith("#")], path.parent)
        if not found:
            raise ScanError(f"{path}: no scan found in it. Known are {', '.join(SUFFIXES)} and DICOM folders.")
        scans.update(dict.fromkeys(found))
    return list(scans)


def output_names(scans: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Return the label file of each scan: ``folder/NAME_synthseg.nii.gz``.

    Raises
    ------
    OptionError
        Two scans would get the same name.
    """
    names: dict[Path, Path] = {}
    for scan in scans:
        target = folder / f"{_stem(scan)}{RESULT}.nii.gz"
        if target in names:
            raise OptionError(f"{names[target]} and {scan} would both become {target}. Use two output folders.")
        names[target] = scan
    return {scan: target for target, scan in names.items()}


def _looks_like_scan(path: Path) -> bool:
    name = path.name.lower()
    is_result = RESULT in name or name.endswith(SLICER_SUFFIXES)
    return name.endswith(SUFFIXES) and not name.startswith(".") and not is_result


def _holds_dicom(folder: Path) -> bool:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return not any(_looks_like_scan(path) for path in files) and any(is_dicom(path) for path in files[:5])


def _stem(scan: Path) -> str:
    for suffix in SUFFIXES:
        if scan.name.lower().endswith(suffix):
            return scan.name[: -len(suffix)]
    return scan.name
