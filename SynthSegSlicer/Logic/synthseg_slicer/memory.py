"""How much memory a segmentation takes, and how much there is. Needs neither torch nor NumPy.

The formula was fitted to peaks that ``Testing/benchmarks/memory.py`` measured.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BASE = 600e6
"""Bytes of Python, the libraries, the weights, and what the allocator keeps in reserve."""
PER_VOXEL = 105
"""Bytes per voxel of 1 mm: image, last features of both passes, and the largest posteriors."""
PER_SLAB_PIXEL = 11_000
"""Bytes per pixel of a 1 mm plane for each slab of planes in work, one for each core."""
PER_LESION_VOXEL = 100
"""Bytes per voxel of 1 mm that wait while the anatomy is segmented: logits of lesions, what was not given back."""
MOST_SLABS = 4
"""As :data:`synthseg_slicer.predict.WORKERS`."""


def estimate(
    shape: Sequence[int],
    voxel_size: Sequence[float],
    native: bool = False,
    *,
    lesions: bool = False,
    cores: int | None = None,
) -> int:
    """Return about how many bytes the process takes that segments a scan on the CPU.

    Of the two passes with the bundled weights; *fast* takes a fifth less. Measured peaks lay between 0.8 and 1.2 times
    the estimate for 96³ to 256³ at 1 mm, 320³ at 0.5 mm and 512³ at 0.35 and 0.2 mm. For scans with wide margins around
    the head it is an upper bound, because they are cropped. The application's own copy of the scan is not counted.

    Parameters
    ----------
    shape : sequence of int
        Voxels along each axis.
    voxel_size : sequence of float
        mm.
    native : bool
        Labels in the scan's own grid.
    lesions : bool
        The scan's lesions and its anatomy. Lesions alone take less than anatomy alone.
    cores : int, optional
        Of the processor; this machine's by default.
    """
    scan = math.prod(shape)
    voxels = scan * math.prod(voxel_size)
    slabs = min(cores or os.cpu_count() or 1, MOST_SLABS)
    network = PER_VOXEL * voxels + PER_SLAB_PIXEL * slabs * voxels ** (2 / 3)
    conform = 8 * scan  # a copy as float32, and it once more while an axis is resampled
    waiting = PER_LESION_VOXEL * voxels if lesions else 0
    return round(BASE + (5 if native else 4) * scan + waiting + max(network, conform))


def available() -> int | None:
    """Return how many bytes can be taken without swapping, or None where that cannot be told."""
    try:
        if sys.platform == "win32":
            return _windows()
        if sys.platform == "darwin":
            return _free_of_vm_stat(subprocess.run(["vm_stat"], capture_output=True, text=True, check=True).stdout)
        # not the C library's count of free pages, which leaves out what the file cache would give back
        return int(re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)[1]) * 1024
    except (OSError, subprocess.SubprocessError, TypeError):
        return None


def _free_of_vm_stat(text: str) -> int:
    """Return the bytes that macOS's ``vm_stat`` counts as free or as given back on demand."""
    page = int(re.search(r"page size of (\d+) bytes", text)[1])
    kinds = ("free", "inactive", "speculative", "purgeable")
    return page * sum(int(re.search(rf"^Pages {kind}:\s+(\d+)", text, re.M)[1]) for kind in kinds)


def _windows() -> int:
    class Status(ctypes.Structure):
        """MEMORYSTATUSEX."""

        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            *((name, ctypes.c_uint64) for name in ("total", "free", "total_page", "free_page", "total_virtual")),
            ("free_virtual", ctypes.c_uint64),
            ("free_extended", ctypes.c_uint64),
        )

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        raise OSError("GlobalMemoryStatusEx failed")
    return status.free
