"""Running ``synthseg-slicer batch`` in processes of their own, and interfering with them."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from synthseg_slicer.job import child_environment

TABLES = ("volumes.tsv", "problems.tsv", "volumes.json", "dseg.tsv")
SLOW = """
import os, time
replace = os.replace
def slowly(source, target):
    time.sleep(0.5 if str(target).endswith("_synthseg.nii.gz") else 0)
    replace(source, target)
os.replace = slowly
"""
"""Imported by Python when it starts: gives tests the time to interfere between two scans."""
METHOD = ("--device", "cpu", "--fast", "--threads", "1")


def start(weights: Path, *arguments) -> subprocess.Popen:
    """Run ``synthseg-slicer batch`` in a process of its own."""
    command = (sys.executable, "-m", "synthseg_slicer.cli", "batch", *arguments, "--model", weights, *METHOD)
    environment = {**os.environ, **child_environment()}
    return subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True, env=environment)


def labels(out: Path) -> list[str]:
    """Return the names of the label files in an output folder."""
    return sorted(path.name for path in out.rglob("[!.]*_synthseg.nii.gz"))


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started (Linux)."""
    return [int(pid) for task in Path(f"/proc/{pid}/task").glob("*/children") for pid in task.read_text().split()]


def alive(pid: int) -> bool:
    """Tell whether there is such a process, and not only what is left of it (Linux)."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def same_tables(one: Path, other: Path) -> bool:
    """Tell whether the tables in two output folders are the same, byte for byte."""
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in TABLES)


def failed(out: Path) -> dict[str, str]:
    """Return the failed scans of the table of problems, and their reasons."""
    with open(out / "problems.tsv", newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row["scan"]: row["text"] for row in rows if row["problem"] == "failed"}
