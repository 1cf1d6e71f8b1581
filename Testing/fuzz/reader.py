"""The child process that reads spoiled scans and says of each what became of it, one JSON object a line.

Reads lines ``{"path": ..., "segment": true or false, "sha256": ... or null}`` from its standard input.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from synthetic import Threshold

from synthseg_slicer import sanity, segment
from synthseg_slicer.conform import conform
from synthseg_slicer.errors import SynthSegError
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.scan import MAX_VOXELS, Scan, read_scan
from synthseg_slicer.weights import Model

HEADROOM = 3 * 2**30
"""Bytes of address space beyond what the libraries take."""
MOST_RATIO = 1100
"""Voxels a byte of the files at the very most: deflate packs 1032 bytes into one."""


def main() -> None:
    """Answer until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what ITK prints
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    model = Model(Threshold(), BRAIN, "", {})
    print(json.dumps({"outcome": "ready"}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line), model)), file=answers, flush=True)


def _answer(case: dict, model: Model) -> dict:
    Path("/proc/self/clear_refs").write_text("5")  # start the peak of the resident memory anew
    before, begin = _peak(), time.monotonic()
    path = Path(case["path"])
    try:
        scan = read_scan(path)
    except SynthSegError as error:
        return _told("refused", begin, before, str(error))
    except Exception as error:
        return _told("wrong error", begin, before, f"{type(error).__name__}: {error}")
    read = _told("accepted", begin, before)
    if fault := _nonsense(scan, path, case["sha256"]):
        return read | {"outcome": "nonsense", "message": fault}
    try:
        sanity.check(scan, conform(scan).image) if not case["segment"] else segment(scan, model=model)
    except SynthSegError as error:
        return read | {"outcome": "refused", "message": str(error), "seconds": time.monotonic() - begin}
    except Exception as error:
        return read | {"outcome": "wrong error", "message": f"{type(error).__name__}: {error}"}
    return read | {"outcome": "segmented" if case["segment"] else "accepted"}


def _told(outcome: str, begin: float, before: int, message: str = "") -> dict:
    return {
        "outcome": outcome,
        "seconds": time.monotonic() - begin,
        "memory": _peak() - before,
        "message": message,
    }


def _nonsense(scan: Scan, path: Path, sha256: str | None) -> str:
    """Return what is wrong with a scan that was accepted; empty if nothing is."""
    if not np.isfinite(scan.affine).all() or abs(np.linalg.det(scan.affine[:3, :3])) < 1e-6:
        return f"affine {scan.affine.tolist()}"
    if scan.data.ndim != 3 or min(scan.shape) < 2 or scan.data.size > MAX_VOXELS:
        return f"shape {scan.shape}"
    if not np.isfinite(scan.data).all():
        return "voxels that are not finite"
    files = path.iterdir() if path.is_dir() else path.parent.iterdir()
    if scan.data.size > MOST_RATIO * sum(file.stat().st_size for file in files):
        return f"{scan.data.size} voxels from too small a file"
    if sha256 and hashlib.sha256(np.ascontiguousarray(scan.data).tobytes()).hexdigest() != sha256:
        return "voxels other than those that were stored"
    return ""


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    main()
