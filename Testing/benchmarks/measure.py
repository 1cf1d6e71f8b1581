"""Time and peak memory of a function in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def peak_megabytes() -> float:
    """Return the most memory that this process has held, in MB (Linux counts kilobytes, macOS bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a child begins at what its parent held
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def measure(function: Callable[[], object], repeats: int) -> dict:
    """Return the least of several times in s, and by how many MB the process grew beyond what it held before."""
    before = peak_megabytes()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "megabytes": peak_megabytes() - before, "all_seconds": seconds}


def in_child(script: str, *arguments: str) -> dict:
    """Run a benchmark script in a fresh process and return the JSON of its last line."""
    command = [sys.executable, str(Path(script).resolve()), *arguments]
    result = subprocess.run(command, capture_output=True, encoding="utf-8")
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    return json.loads(result.stdout.strip().splitlines()[-1])
