"""Files that are written whole or not at all, and refused before a long job if they could not be written."""

from __future__ import annotations

import errno
import glob
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError, ScanError

SLICER_SUFFIXES = (".seg.nrrd", ".mrb")
"""Files of 3D Slicer, which :mod:`.mrml` writes: a segmentation, a scene."""
DEFLATE_RATIO = 1032
"""Bytes that one byte of gzip, zlib or deflate can stand for at most (zlib's technical details)."""


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields a temporary path in the same folder and with the same suffix; write to it. When the block ends it is flushed
    to disk and renamed to ``path``; when the block raises it is removed.

    Raises
    ------
    OutputError
        In place of an ``OSError``, or a ``RuntimeError`` of ITK, that the block or the rename raises.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OutputError as error:
        if temporary.name not in str(error):
            raise
        # of a block inside this one: the user knows the file by its own name
        raise OutputError(str(error).replace(temporary.name, path.name)) from error
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: cannot be written ({reason(error)}). {_cure(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def remove_leftovers(path: str | os.PathLike) -> None:
    """Remove what processes that were killed inside :func:`atomic` left of a file; none may be writing it now."""
    path = Path(path)
    for temporary in path.parent.glob(f".*-{glob.escape(path.name)}"):
        if re.fullmatch(r"(\.[0-9a-f]{8}-)+", temporary.name.removesuffix(path.name)):  # several if one was in another
            with suppress(OSError):
                temporary.unlink()


def check_output(path: str | os.PathLike, suffixes: Sequence[str]) -> str:
    """Check before a long job that an output could be written, and return its suffix.

    Raises
    ------
    OutputError
        Suffix not among ``suffixes``, the folder missing or not writable, or a folder where the file should be.
    """
    path = Path(path)
    suffix = suffix_of(path, suffixes)
    if suffix is None:
        raise OutputError(f"{path}: unknown suffix for this output. Use one of {', '.join(suffixes)}.")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder. Give the name of a file.")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist. Create it first.")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: the folder {path.parent} is not writable. Choose another one.")
    return suffix


def regular_file(path: Path) -> None:
    """Refuse what is no file, such as a pipe or a device, on which a reader would wait or never come to an end.

    Raises
    ------
    ScanError
    """
    if not path.is_file():
        what = "is no regular file" if path.exists() else "there is no such file"
        raise ScanError(f"{path}: {what}. Check the path, or copy the scan to a file.")


def check_room(path: Path, files: Sequence[Path], size: int, *, packed: bool) -> None:
    """Refuse a header that claims more voxels than its files can hold, before memory is taken for them.

    Parameters
    ----------
    path : Path
        Named in the error.
    files : sequence of Path
        All files of the volume.
    size : int
        Bytes that it claims once unpacked.
    packed : bool
        Whether the files are compressed; one byte then holds at most :data:`DEFLATE_RATIO`.

    Raises
    ------
    ScanError
    """
    for file in files:
        regular_file(file)
    held = sum(file.stat().st_size for file in files) * (DEFLATE_RATIO if packed else 1)
    if size > held:
        raise ScanError(
            f"{path}: cannot be read: the header claims {size:,} bytes of voxels, the file can hold at most {held:,}. "
            "It is incomplete or its header is damaged; copy or export it again."
        )


def suffix_of(path: Path, suffixes: Sequence[str]) -> str | None:
    """Return the one of the suffixes that the file name ends with, in lower case; None if there is none."""
    return next((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), None)


def reason(error: BaseException) -> str:
    """Return the last telling line of an error; ITK and nibabel wrap it in several."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _cure(error: BaseException) -> str:
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "The disk is full or a quota is used up; make room. Nothing was left behind."
    return "Check that the folder exists and is writable and that the disk is not full. Nothing was left behind."
