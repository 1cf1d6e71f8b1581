"""How intact scans are spoiled: bits, numbers, lines and lengths of their headers, and their ends."""

from __future__ import annotations

import random
import re
import struct
from dataclasses import dataclass, field

from seeds import Seed, packed, unpacked

INTEGERS = (0, 1, 2, 3, 4, 7, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
FLOATS = (0.0, -0.0, 1e-30, 1e-3, 0.05, 1.0, 15.0, 100.0, 1e9, 1e30, 3e38, float("inf"), float("nan"))
WORDS = (
    "0", "-1", "1", "4", "0.001", "1e9", "1e308", "-1e308", "nan", "inf", "32767", "2147483648", "99999999999999999999",
    "LIST", "LOCAL", "../../../../etc/passwd", "/etc/passwd", "/dev/zero", "%d 1 9 1", "none", "", "gzip", "raw",
    "double", "MET_DOUBLE", "block", "left-handed", "(1,0,0)", "(0,0,0) (0,0,0) (0,0,0)",
    "A" * 900, "A" * 5000, "A" * 70000, "\x00", "\n",
)  # fmt: skip

FIELDS = {
    "nifti1": (
        (0, "i"), (40, "h"), (42, "h"), (44, "h"), (46, "h"), (48, "h"), (50, "h"), (70, "h"), (72, "h"), (76, "f"),
        (80, "f"), (84, "f"), (88, "f"), (92, "f"), (108, "f"), (112, "f"), (116, "f"), (123, "b"), (252, "h"),
        (254, "h"), (256, "f"), (260, "f"), (264, "f"), (268, "f"), (280, "f"), (296, "f"), (316, "f"), (320, "f"),
        (344, "i"), (348, "i"),
    ),
    "nifti2": (
        (0, "i"), (4, "i"), (12, "h"), (14, "h"), (16, "q"), (24, "q"), (32, "q"), (40, "q"), (48, "q"), (104, "d"),
        (112, "d"), (120, "d"), (128, "d"), (168, "q"), (176, "d"), (184, "d"), (344, "i"), (348, "i"), (352, "d"),
        (400, "d"), (440, "d"), (480, "d"), (500, "i"), (540, "i"),
    ),
    "mgh": (
        (0, "i"), (4, "i"), (8, "i"), (12, "i"), (16, "i"), (20, "i"), (24, "i"), (28, "h"), (30, "f"), (34, "f"),
        (38, "f"), (42, "f"), (46, "f"), (58, "f"), (74, "f"), (78, "f"), (82, "f"), (86, "f"),
    ),
}  # fmt: skip
"""Byte offset and :mod:`struct` code of each field that decides what is read."""


@dataclass(frozen=True)
class Case:
    """A spoiled scan; ``intact`` tells that its header and its voxels before compression were left alone."""

    seed: Seed
    how: str
    files: dict[str, bytes] = field(repr=False)
    intact: bool = False


def mutate(seed: Seed, rng: random.Random) -> Case:
    """Return one spoiled version of a scan."""
    name = rng.choice(sorted(seed.files))
    content = seed.files[name]
    stream = seed.compressed and rng.random() < 0.25
    how, change = rng.choice(_ways(seed, name))
    if stream:  # the bytes as they lie on the disk; the checksum must tell
        start = 10 if seed.compressed == "gzip" else len(content) // 2
        spoiled, how = _flip(content, rng, start, len(content)), "compressed bits"
    elif seed.compressed == "gzip":
        spoiled = packed(change(unpacked(content), rng))
        if how == "truncated" and rng.random() < 0.5:
            spoiled = _truncated(content, rng)
    else:
        spoiled = change(content, rng)
    return Case(seed, how, {**seed.files, name: spoiled}, bool(stream))


def _ways(seed: Seed, name: str) -> list:
    header = min(seed.header, len(seed.files[name]))
    ways = [
        ("bits", lambda content, rng: _flip(content, rng, 0, header)),
        ("bytes", lambda content, rng: _overwrite(content, rng, header)),
        ("truncated", _truncated),
        ("spliced", lambda content, rng: _spliced(content, rng, header)),
    ]
    if seed.kind == "text":
        return ways + 3 * [("words", lambda content, rng: _words(content, rng, header))]
    if seed.kind == "dicom":
        return ways + 3 * [("lengths", lambda content, rng: _elements(content, rng, header))]
    return ways + 4 * [("fields", lambda content, rng: _fields(content, rng, FIELDS[seed.kind]))]


def _flip(content: bytes, rng: random.Random, start: int, stop: int) -> bytes:
    spoiled = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        spoiled[rng.randrange(start, stop)] ^= 1 << rng.randrange(8)
    return bytes(spoiled)


def _overwrite(content: bytes, rng: random.Random, header: int) -> bytes:
    spoiled = bytearray(content)
    value = rng.choice((b"\x00", b"\xff", b"\x7f", b"\x80", rng.randbytes(1))) * rng.choice((1, 2, 4, 8, 64))
    place = rng.randrange(header)
    spoiled[place : place + len(value)] = value
    return bytes(spoiled[: len(content)])


def _truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.choice((rng.randrange(len(content)), len(content) - 1, rng.randrange(400), 0))]


def _spliced(content: bytes, rng: random.Random, header: int) -> bytes:
    place, length = rng.randrange(header), rng.choice((1, 2, 4, 100, 4096))
    if rng.random() < 0.5:
        return content[:place] + content[place + length :]
    return content[:place] + rng.choice((bytes(length), rng.randbytes(length), content[:length])) + content[place:]


def _fields(content: bytes, rng: random.Random, fields: tuple) -> bytes:
    spoiled = bytearray(content)
    big = content[:4] == b"\x00\x00\x00\x01"  # MGH is big-endian; NIfTI as this machine
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place, code = rng.choice(fields)
        size = struct.calcsize(code)
        if place + size > len(spoiled):
            continue
        if code in "fd":
            value = rng.choice(FLOATS) * rng.choice((1, -1))
        else:
            bits = 8 * size
            value = (rng.choice(INTEGERS) * rng.choice((1, -1)) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
        struct.pack_into((">" if big else "<") + code, spoiled, place, value)
    return bytes(spoiled)


def _words(content: bytes, rng: random.Random, header: int) -> bytes:
    """Replace a word, or repeat, drop or exchange lines of a header in text."""
    head, rest = content[:header], content[header:]
    if rng.random() < 0.6:
        words = list(re.finditer(rb"[^\s,():=]+", head))
        word = rng.choice(words)
        return head[: word.start()] + rng.choice(WORDS).encode() + head[word.end() :] + rest
    lines = head.split(b"\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(3):
        case 0:
            lines.insert(one, lines[other])
        case 1:
            del lines[one]
        case 2:
            lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines) + rest


def _elements(content: bytes, rng: random.Random, header: int) -> bytes:
    """Change the length, the kind or the value of an element of a DICOM file."""
    spoiled = bytearray(content)
    elements = [
        m.start() for m in re.finditer(rb"[\x02\x08\x10\x18\x20\x28]\x00.[\x00-\x20]|\xe0\x7f\x10\x00", content, re.S)
    ]
    place = rng.choice(elements)
    match rng.randrange(4):
        case 0:
            struct.pack_into("<H", spoiled, min(place + 6, len(spoiled) - 2), rng.choice(INTEGERS) % 2**16)
        case 1:
            struct.pack_into(
                "<I", spoiled, min(place + rng.choice((4, 8)), len(spoiled) - 4), rng.choice(INTEGERS) % 2**32
            )
        case 2:
            spoiled[place + 4 : place + 6] = rng.choice((b"OB", b"OW", b"SQ", b"UN", b"UT", b"DS", b"XX"))
        case 3:
            numbers = list(re.finditer(rb"\d[\d.\\-]*", content[132:header]))
            number = rng.choice(numbers)
            word = rng.choice(WORDS[:13]).encode()[: len(number[0])].ljust(len(number[0]), b" ")
            spoiled[132 + number.start() : 132 + number.end()] = word
    return bytes(spoiled[: max(len(content), place + 6)])
