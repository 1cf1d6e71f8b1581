"""Which scans a command line means (files, folders, text lists), and how their outputs are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .dicom import is_dicom
from .errors import OptionError, ScanError
from .files import SLICER_SUFFIXES, reason, regular_file
from .scan import ITK_SUFFIXES, MGH_SUFFIXES, NIFTI_SUFFIXES

SUFFIXES = tuple(suffix for suffix in NIFTI_SUFFIXES + MGH_SUFFIXES + ITK_SUFFIXES if suffix != ".img")
"""Of the scans looked for in folders; an .img file comes with its .hdr."""
RESULT = "_synthseg"
"""Part of the name of every label file; such files in a folder are results, not scans."""


def is_scan(path: Path) -> bool:
    """Tell whether a path names a single scan (a file that is no list, or a DICOM folder) rather than several."""
    return _holds_dicom(path) if path.is_dir() else path.suffix.lower() != ".txt"


def find_scans(inputs: Sequence[str | Path]) -> list[Path]:
    """Return all scans that the inputs mean, each once, in order.

    A folder with DICOM files directly in it is one scan; another one stands for the scans in it and, one level down,
    the DICOM folders in it. A .txt file lists one input a line, relative to the list; blank lines and lines that
    start with # are left out.

    Raises
    ------
    ScanError
        A folder or list without any scan, a folder that cannot be searched, or a list that is missing, no text, or
        leads back to itself.
    """
    return _find(inputs, Path(), ())


def _find(inputs: Sequence[str | Path], base: Path, lists: tuple[Path, ...]) -> list[Path]:
    """Return the scans of inputs relative to ``base``; ``lists`` are those that led here."""
    scans: dict[Path, None] = {}
    for name in inputs:
        path = base / name
        try:
            found = _meant(path, lists)
        except OSError as error:
            raise ScanError(
                f"{path}: cannot be searched for scans ({error.strerror or error}). Correct its permissions."
            ) from error
        if not found:
            raise ScanError(f"{path}: no scan found in it. Known are {', '.join(SUFFIXES)} and DICOM folders.")
        scans.update(dict.fromkeys(found))
    return list(scans)


def _meant(path: Path, lists: tuple[Path, ...]) -> list[Path]:
    if is_scan(path):
        return [path]
    if path.is_dir():
        return [p for p in sorted(path.iterdir()) if (is_scan(p) if p.is_dir() else looks_like_scan(p))]
    if path.resolve() in lists:
        raise ScanError(f"{path}: the list leads back to itself. Write one scan a line.")
    try:
        regular_file(path)  # a pipe would be waited on
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError, ScanError) as error:
        raise ScanError(f"{path}: the list cannot be read ({reason(error)}). Write one scan a line.") from error
    wanted = [line for line in lines if line and not line.startswith("#")]
    return _find(wanted, path.parent, (*lists, path.resolve()))


def output_names(scans: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Return the label file of each scan: ``folder/NAME_synthseg.nii.gz``.

    Raises
    ------
    OptionError
        Two scans would get the same name.
    """
    names: dict[Path, Path] = {}
    for scan in scans:
        target = folder / f"{stem(scan)}{RESULT}.nii.gz"
        if target in names:
            raise OptionError(f"{names[target]} and {scan} would both become {target}. Use two output folders.")
        names[target] = scan
    return {scan: target for target, scan in names.items()}


def looks_like_scan(path: Path) -> bool:
    """Tell by its name whether a file in a folder is a scan; results and hidden files are none."""
    name = path.name.lower()
    is_result = RESULT in name or name.endswith(SLICER_SUFFIXES)
    return name.endswith(SUFFIXES) and not name.startswith(".") and not is_result


def _holds_dicom(folder: Path) -> bool:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return not any(looks_like_scan(path) for path in files) and any(is_dicom(path) for path in files[:5])


def stem(scan: Path) -> str:
    """Return the name of a scan without its suffix."""
    for suffix in SUFFIXES:
        if scan.name.lower().endswith(suffix):
            return scan.name[: -len(suffix)]
    return scan.name
