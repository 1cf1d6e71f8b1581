"""The data elements of a DICOM file (part 5 of the standard, chapter 7), walked through without loading them.

GDCM takes as much memory as an element says that it is long, and unpacks a deflated data set whole. So every length is
compared with the size of the file first, nested sequences included. Only values of a few elements are returned, none of
which names a patient.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from .errors import ScanError

SERIES_UID = (0x0020, 0x000E)
DESCRIPTION = (0x0008, 0x103E)
ORIENTATION = (0x0020, 0x0037)
PIXEL_SPACING = (0x0028, 0x0030)
SHARED_GROUPS = (0x5200, 0x9229)
"""Where multi-frame files keep their orientation and spacing."""
FRAMES, ROWS, COLUMNS, BITS, SAMPLES = ((0x0028, number) for number in (0x0008, 0x0010, 0x0011, 0x0100, 0x0002))
TRANSFER_SYNTAX = (0x0002, 0x0010)
PIXELS = (0x7FE0, 0x0010)
_WANTED = {SERIES_UID, DESCRIPTION, ORIENTATION, PIXEL_SPACING, SHARED_GROUPS, TRANSFER_SYNTAX}
_WANTED |= {FRAMES, ROWS, COLUMNS, BITS, SAMPLES}

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"

UNDEFINED = 0xFFFFFFFF
"""Length of what ends with a delimiter."""
DEEPEST = 16
"""Sequences within sequences; real files have a handful."""
LONGEST_VALUE = 4096
"""Bytes of a returned value; the standard allows 1024 at most for these."""

_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_SHORT = b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()
_LONG = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()


class _Damaged(Exception):
    """The file is no intact DICOM file; the message says why."""


@dataclass(frozen=True)
class Elements:
    """What was found of a file that holds an image.

    Attributes
    ----------
    values : dict
        ``(group, element)`` to its bytes.
    pixels : int
        Bytes of pixel data as they are stored.
    """

    values: dict[tuple[int, int], bytes]
    pixels: int

    @property
    def packed(self) -> bool:
        """Whether the pixels are compressed."""
        return self.text(TRANSFER_SYNTAX) not in ("", IMPLICIT, EXPLICIT)

    @property
    def claimed(self) -> int:
        """Bytes of the pixels, once unpacked, by the header."""
        pixels = self.number(ROWS, 0) * self.number(COLUMNS, 0) * self.number(FRAMES, 1)
        return pixels * self.number(SAMPLES, 1) * self.number(BITS, 16) // 8

    def text(self, tag: tuple[int, int]) -> str:
        """Return a value as text, on one line; empty if there is none."""
        return " ".join(self.values.get(tag, b"").decode("latin-1").replace("\0", " ").split())

    def number(self, tag: tuple[int, int], default: int) -> int:
        """Return a value that is stored as 16-bit integer (US) or as text (IS)."""
        value = self.values.get(tag, b"")
        if tag == FRAMES:
            return int(value) if value.strip(b" \0").isdigit() else default
        return struct.unpack_from("<H", value)[0] if len(value) >= 2 else default


def image_elements(path: Path) -> Elements | None:
    """Return the elements of a DICOM file that holds an image; None if it is another kind of file.

    Parameters
    ----------
    path : Path
        A regular file.

    Raises
    ------
    ScanError
        A DICOM file that is damaged, claims more than it holds, or is stored in a way that is not supported.
    """
    with open(path, "rb") as file:
        head = file.read(132)
        marked = head[128:] == b"DICM"
        if not marked and head[:2] not in (b"\x02\x00", b"\x08\x00"):  # without preamble, as before 1993
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                found = _Walk(content).run(132 if marked else 0)
            except (_Damaged, struct.error) as error:
                raise ScanError(
                    f"{path}: this DICOM file is damaged or incomplete ({error}). Copy or export it again."
                ) from error
    elements = Elements(found.values, found.pixels)
    syntax = elements.text(TRANSFER_SYNTAX)
    if syntax in (DEFLATED, BIG_ENDIAN):
        raise ScanError(
            f"{path}: this DICOM file is stored in a way that is not supported (transfer syntax {syntax}). Convert it, "
            "for example with dcm2niix or dcmconv."
        )
    if not found.values.keys() >= {ROWS, COLUMNS}:
        return None
    if not elements.packed and elements.claimed > elements.pixels:
        raise ScanError(
            f"{path}: cannot be read: the header claims {elements.claimed:,} bytes of pixels, the file holds "
            f"{elements.pixels:,}. It is incomplete or its header is damaged; copy or export it again."
        )
    return elements


class _Walk:
    """One way through a file, from its first element to its last."""

    def __init__(self, content: mmap.mmap):
        self.content, self.values, self.pixels = content, {}, 0

    def run(self, position: int) -> _Walk:
        """Walk through the meta information and, where its encoding is known here, the data set."""
        end, explicit = len(self.content), self.content[position + 4 : position + 6] in _SHORT + _LONG
        if self.content[position : position + 2] == b"\x02\x00":
            position = self._elements(position, end, True, 0, group=0x0002)
            syntax = self.values.get(TRANSFER_SYNTAX, b"").rstrip(b"\0 ").decode("latin-1")
            if syntax in (DEFLATED, BIG_ENDIAN):
                return self
            explicit = syntax != IMPLICIT
        self._elements(position, end, explicit, 0)
        return self

    def _elements(self, position: int, end: int, explicit: bool, depth: int, group: int | None = None) -> int:
        """Walk through elements up to ``end``, of one group, or to the delimiter of an item; return where that is."""
        if depth > DEEPEST:
            raise _Damaged(f"sequences nested more than {DEEPEST} deep")
        while position + 8 <= end:
            tag = struct.unpack_from("<HH", self.content, position)
            if group not in (None, tag[0]):
                return position
            if tag == _ITEM_END:
                return position + 8
            if tag == (0, 0) and self.pixels:  # padding behind the pixels
                return end
            kind, length, position = self._length(position, end, explicit)
            if length == UNDEFINED:
                start, stop = position, end
            else:
                self._check(position, length, end, tag)
                start, stop = position, position + length
            if length == UNDEFINED and kind in (b"OB", b"OW"):  # compressed pixels
                position = self._items(start, stop)
            elif kind == b"SQ" or length == UNDEFINED or self._looks_like_items(start, stop, kind):
                inner = explicit and kind != b"UN"  # sequences of unknown kind are encoded without kinds
                position = self._items(start, stop, inner, depth + 1)
            if length != UNDEFINED:
                position = stop
            if depth == 0 and tag in _WANTED:
                self.values[tag] = self.content[start : min(stop, start + LONGEST_VALUE)]
            if depth == 0 and tag == PIXELS:
                self.pixels = position - start
        return end

    def _looks_like_items(self, start: int, stop: int, kind: bytes) -> bool:
        """Tell whether a value whose kind is not stored begins as a sequence does."""
        return kind in (b"", b"UN") and stop - start >= 8 and self.content[start : start + 4] == b"\xfe\xff\x00\xe0"

    def _length(self, position: int, end: int, explicit: bool) -> tuple[bytes, int, int]:
        """Return an element's kind, its length, and where its value begins."""
        if not explicit:
            return b"", struct.unpack_from("<I", self.content, position + 4)[0], position + 8
        kind = self.content[position + 4 : position + 6]
        if kind in _SHORT:
            return kind, struct.unpack_from("<H", self.content, position + 6)[0], position + 8
        if kind not in _LONG:
            raise _Damaged(f"an element of unknown kind at byte {position}")
        if position + 12 > end:
            raise _Damaged("it ends within an element")
        return kind, struct.unpack_from("<I", self.content, position + 8)[0], position + 12

    def _items(self, position: int, end: int, explicit: bool | None = None, depth: int = 0) -> int:
        """Walk through a sequence's items up to ``end`` or its delimiter; with ``explicit`` None they hold bytes."""
        while position + 8 <= end:
            *tag, length = struct.unpack_from("<HHI", self.content, position)
            tag, position = tuple(tag), position + 8
            if tag == _SEQUENCE_END:
                return position
            if tag != _ITEM:
                raise _Damaged(f"a sequence without items at byte {position - 8}")
            if length == UNDEFINED and explicit is not None:
                position = self._elements(position, end, explicit, depth)
                continue
            self._check(position, length, end, tag)
            if explicit is not None:
                self._elements(position, position + length, explicit, depth)
            position += length
        return position

    def _check(self, position: int, length: int, end: int, tag: tuple[int, int]) -> None:
        if position + length > end:
            raise _Damaged(
                f"the element ({tag[0]:04x},{tag[1]:04x}) says that it is {length:,} bytes long, and "
                f"{end - position:,} are left"
            )
