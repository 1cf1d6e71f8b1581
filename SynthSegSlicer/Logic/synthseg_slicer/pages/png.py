"""Greyscale pictures as PNG in memory; ITK writes files only."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

LEVEL = 9
"""Of compression: one percent smaller than zlib's usual, and a slice takes milliseconds."""


def data_uri(grey: np.ndarray) -> str:
    """Return a picture as the address of an image that carries its own data.

    Rows are stored as they are (filter 0): air around a head packs better so than as differences.

    Parameters
    ----------
    grey : uint8 array [rows, columns]
    """
    height, width = grey.shape
    rows = np.pad(grey, ((0, 0), (1, 0)))  # the filter of each row
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), LEVEL)), (b"IEND", b"")
    packed = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + packed).decode()
