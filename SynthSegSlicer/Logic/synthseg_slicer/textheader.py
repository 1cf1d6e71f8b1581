"""What the text headers of NRRD and MetaImage files name: where their voxels lie, and whether these are compressed.

ITK opens whatever file such a header names, devices and files of other users included. So the headers are looked at
first: voxels may lie in the same file, or in one other file in the header's folder or below it.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from .errors import ScanError
from .files import regular_file, suffix_of

NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")

LONGEST = 2**20
"""Bytes in which a header must end; they have some hundred."""
LONGEST_LINE, LONGEST_PAIR = 1000, 2**16
"""Bytes of a line with a field, and of one with a key and value of the user's own (NRRD's ``:=``)."""
BLOCK = 2**22
"""Bytes that are unpacked at a time."""

_NRRD_DATA = re.compile(rb"^\s*data ?file\s*:(?!=)\s*(.*?)\s*$", re.M | re.I)
_NRRD_ENCODING = re.compile(rb"^\s*encoding\s*:(?!=)\s*(\S*)", re.M | re.I)
_NRRD_SKIP = re.compile(rb"^\s*(line|byte) ?skip\s*:(?!=)\s*[^0\s]", re.M | re.I)
_BLANK = re.compile(rb"\r?\n\r?\n")
_META_DATA = re.compile(rb"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*(.*?)[ \t\r]*$", re.M)
_META_PACKED = re.compile(rb"^[ \t]*CompressedData[ \t]*[=:][ \t]*T", re.M | re.I)
_META_NDIMS = re.compile(rb"^[ \t]*NDims[ \t]*[=:][ \t]*(\S*)", re.M)
_META_AXES = range(2, 6)  # ITK writes beyond its tables where there are more than ten
_CURE = "Save the scan again as one file (.nrrd, .mha or .nii.gz)."


@dataclass(frozen=True)
class TextHeader:
    """What a header says of its voxels.

    Attributes
    ----------
    files : list of Path
        The header, and the data file if it is another one.
    packed : bool
        Whether the voxels are not plainly the bytes in the file.
    stream : int or None
        Where in the last file a zlib or gzip stream with the voxels begins; None where there is none, or this is not
        known.
    """

    files: list[Path]
    packed: bool
    stream: int | None = None


def read_text_header(path: Path) -> TextHeader:
    """Read what the header of an NRRD or MetaImage file names.

    Raises
    ------
    ScanError
        It has no end, or names several files, a file elsewhere, or none that exists.
    """
    regular_file(path)
    with open(path, "rb") as file:
        head = file.read(LONGEST)
    nrrd = suffix_of(path, NRRD_SUFFIXES) is not None
    return _nrrd(path, head) if nrrd else _meta(path, head)


def check_stream(header: TextHeader, size: int) -> None:
    """Unpack compressed voxels for the sake of their checksum, which ITK does not heed.

    Parameters
    ----------
    header : TextHeader
        Nothing is done where ``stream`` is None.
    size : int
        Bytes that the voxels take.

    Raises
    ------
    zlib.error, EOFError
        Damaged, or of another size.
    """
    if header.stream is None:
        return
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either header
    with open(header.files[-1], "rb") as file:
        file.seek(header.stream)
        while size >= 0 and not unpack.eof:
            block = unpack.unconsumed_tail or file.read(BLOCK)
            if not block:
                break
            size -= len(unpack.decompress(block, BLOCK))
    if size or not unpack.eof:
        raise EOFError("the compressed voxels are more or fewer than the header says")


def _nrrd(path: Path, head: bytes) -> TextHeader:
    if not head.startswith(b"NRRD000"):
        raise ScanError(f"{path}: cannot be read: it is no NRRD file. Copy or export it again.")
    end = _BLANK.search(head)
    if end is None and len(head) == LONGEST:
        raise ScanError(f"{path}: the header does not end within {LONGEST >> 20} MB. {_CURE}")
    fields = head[: end.start()] if end else head
    _check_lines(path, fields)
    files = [path, *(_named(path, name) for name in _NRRD_DATA.findall(fields))]
    encoding = _NRRD_ENCODING.search(fields)
    kind = encoding[1].lower() if encoding else b""
    stream = None
    if kind in (b"gz", b"gzip") and not _NRRD_SKIP.search(fields):
        stream = 0 if len(files) > 1 else end.end() if end else None
    return TextHeader(files, kind != b"raw", stream)


def _meta(path: Path, head: bytes) -> TextHeader:
    line = _META_DATA.search(head)
    if line is None or head[: line.end()].count(b"ElementDataFile") != 1:
        raise ScanError(
            f"{path}: cannot be read: the header does not say plainly where its voxels are (ElementDataFile). {_CURE}"
        )
    fields = head[: line.start()]
    _check_lines(path, fields)
    if not all(axes.isdigit() and int(axes) in _META_AXES for axes in _META_NDIMS.findall(fields)):
        raise ScanError(f"{path}: the header claims an impossible number of axes (NDims). {_CURE}")
    packed = _META_PACKED.search(fields) is not None
    local = line[1].upper() == b"LOCAL"
    stream = (line.end() + 1 if local else 0) if packed and b"HeaderSize" not in fields else None
    return TextHeader([path] if local else [path, _named(path, line[1])], packed, stream)


def _check_lines(path: Path, fields: bytes) -> None:
    """Refuse lines on which ITK's parsers write beyond their buffers."""
    for line in fields.splitlines():
        longest = LONGEST_PAIR if b":=" in line else LONGEST_LINE
        if len(line) > longest or b"\0" in line:
            shown = line[:30].decode("latin-1").replace("\0", "")
            raise ScanError(f"{path}: the header has a line that is no text or longer than usual ({shown}…). {_CURE}")


def _named(header: Path, name: bytes) -> Path:
    """Return the data file that a header names."""
    text = name.decode("utf-8", "replace")
    if text.upper().startswith("LIST") or "%" in text:
        raise ScanError(f"{header}: the voxels are spread over several files, which is not supported. {_CURE}")
    outside = PureWindowsPath(text).anchor or ".." in PurePosixPath(text.replace("\\", "/")).parts
    if outside or text.startswith(("/", "\\", "~")):
        raise ScanError(f"{header}: the header names voxels outside its own folder ({text}). {_CURE}")
    regular_file(header.parent / text)
    return header.parent / text
