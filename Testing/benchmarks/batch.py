"""A batch of scans against kills and against a loop of single calls, and its memory over the run.

usage: python Testing/benchmarks/batch.py [-n 200] [--workers 1] [--dask] [--loop 20] [--keep FOLDER]

1. Scans of mixed formats and geometries, a tenth of them broken in seven ways, are segmented without interruption.
2. The same into another folder, with ``kill -9`` of a worker after a quarter of them and of the scheduler after half:
   the command itself, which feeds its workers, or with ``--dask`` a Dask scheduler of its own. The same command is then
   given again. The tables must be those of the first run, byte for byte, and name every broken scan with its reason.
3. The first scans that are not broken, once more as a batch and as a loop of single ``segment`` calls.

The network is tiny, random and the same everywhere, and the scans are small: what is measured is everything around the
network, where a batch has something to gain. ``--bundled`` takes the bundled weights and heads of 128 mm instead, for 3
only.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import numpy as np
from mixed_scans import write_mixed
from synthetic import TINY, random_network

from synthseg_slicer.scan import write_volume
from synthseg_slicer.weights import save_model

TABLES = ("volumes.tsv", "problems.tsv", "volumes.json", "dseg.tsv")
CLI = (sys.executable, "-m", "synthseg_slicer.cli")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=200, help="scans (default 200)")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--dask", action="store_true", help="interrupt a batch under Dask")
    parser.add_argument("--loop", type=int, default=20, help="scans of the comparison with single calls")
    parser.add_argument("--bundled", action="store_true", help="only that comparison, with the bundled weights")
    parser.add_argument("--keep", metavar="FOLDER", help="work in this folder and leave it")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(options.keep or stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        if options.bundled:
            compare(folder, bundled_scans(folder / "heads", options.loop), ())
            return
        weights = save_model(folder / "tiny.pt", random_network(), {"architecture": "fast", "options": TINY})
        scans = folder / "scans"
        broken = write_mixed(scans, options.n, options.n // 10)
        print(f"{options.n} scans, {len(broken)} of them broken", flush=True)
        method = ("--model", str(weights), "--threads", "1")
        whole = uninterrupted(folder, scans, method, options.workers)
        interrupted = by_dask if options.dask else by_hand
        result = interrupted(folder, scans, method, options)
        same = all((whole / name).read_bytes() == (result / name).read_bytes() for name in TABLES)
        print(f"tables after the kills are those of the uninterrupted run: {same}")
        print(f"temporary files left: {len(list(result.rglob('.????????-*')))}")
        problems = [line.split("\t") for line in (result / "problems.tsv").read_text().splitlines()]
        reasons = {scan: text for scan, problem, text in problems if problem == "failed"}
        named = set(reasons) == set(broken) and all(text in reasons[scan] for scan, text in broken.items())
        print(f"every broken scan is named with its reason, and no other: {named}")
        good = sorted(path for path in scans.rglob("scan*") if path.suffix != ".dcm")[: options.loop]
        compare(folder, good, method)
        if not (same and named):
            sys.exit(1)


def uninterrupted(folder: Path, scans: Path, method: tuple[str, ...], workers: int) -> Path:
    """Segment all scans and print how long it took and how much memory a worker held on the way."""
    output = folder / "whole"
    begin = time.perf_counter()
    batch = start("batch", scans, output, *method, "--workers", workers)
    memory: dict[int, float] = {}

    def sample() -> None:
        for pid in children(batch.pid):
            memory[len(labels(output))] = max(resident_megabytes(pid), memory.get(len(labels(output)), 0.0))

    until(lambda: batch.poll() is not None, each=sample)
    seconds, total = time.perf_counter() - begin, len(labels(output))
    print(f"uninterrupted: {seconds:.0f} s, {60 * total / seconds:.0f} scans a minute")
    at = {share: max(size for done, size in memory.items() if done <= share * total) for share in (0.1, 0.25, 0.5, 1)}
    print("most resident memory of a worker in MB until " + ", ".join(f"{s:.0%}: {m:.0f}" for s, m in at.items()))
    return output


def by_hand(folder: Path, scans: Path, method: tuple[str, ...], options: argparse.Namespace) -> Path:
    """Segment all scans, with a worker killed on the way, and then the command itself."""
    output = folder / "killed"
    command = ("batch", scans, output, *method, "--workers", options.workers)
    batch = start(*command)
    until(lambda: len(labels(output)) >= 0.25 * options.n)
    kill("a worker", children(batch.pid)[0], output)
    until(lambda: len(labels(output)) >= 0.5 * options.n)
    kill("the command", batch.pid, output)
    batch.wait()
    again(command, output)
    return output


def by_dask(folder: Path, scans: Path, method: tuple[str, ...], options: argparse.Namespace) -> Path:
    """Segment all scans under Dask, with a worker killed on the way, and then the scheduler."""
    output = folder / "killed"
    command = ("batch", scans, output, *method, "--scheduler", "tcp://127.0.0.1:8799")
    scheduler, workers = dask(options.workers)
    batch = start(*command)
    until(lambda: len(labels(output)) >= 0.25 * options.n)
    kill("a worker", children(workers.pid)[-1], output)
    until(lambda: len(labels(output)) >= 0.5 * options.n)
    kill("the scheduler", scheduler.pid, output)
    scheduler.wait()
    seconds = seconds_of(batch.wait)
    print(f"the command ended with exit code {batch.returncode} after {seconds:.0f} s more")
    workers.wait()
    scheduler, workers = dask(options.workers)
    again(command, output)
    for process in (workers, scheduler):
        process.terminate()
        process.wait()
    return output


def dask(workers: int) -> tuple[subprocess.Popen, subprocess.Popen]:
    """Start a scheduler and a nanny with workers."""
    program = Path(sys.executable).with_name("dask")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [program, "scheduler", "--host", "127.0.0.1", "--port", "8799", "--no-dashboard"], **quiet
    )
    options = ("--nthreads", "3", "--nworkers", str(workers), "--memory-limit", "0", "--death-timeout", "15")
    return scheduler, subprocess.Popen([program, "worker", "tcp://127.0.0.1:8799", *options, "--no-dashboard"], **quiet)


def again(command: tuple, output: Path) -> None:
    before = len(labels(output))
    seconds = seconds_of(start(*command).wait)
    print(f"the same command again: {before} label files were there, {len(labels(output))} are now; {seconds:.0f} s")


def compare(folder: Path, scans: list[Path], method: tuple[str, ...]) -> None:
    """Print the times of a batch and of a loop of single calls over the same scans."""
    (folder / "list.txt").write_text("".join(f"{scan.absolute()}\n" for scan in scans))
    (folder / "loop").mkdir(exist_ok=True)

    def loop() -> None:
        for number, scan in enumerate(scans):
            start("segment", scan, "-o", folder / "loop" / f"{number}.nii.gz", "-q", *method).wait()

    single = seconds_of(loop)
    batch = seconds_of(start("batch", folder / "list.txt", folder / "once", *method).wait)
    text = f"{len(scans)} scans: loop of single calls {single:.1f} s, batch {batch:.1f} s"
    print(f"{text}, {single / batch:.1f} times the throughput")


def bundled_scans(folder: Path, count: int) -> list[Path]:
    """Return rendered head phantoms of 128 mm."""
    from inference import head_image

    folder.mkdir(exist_ok=True)
    image = 1000 * np.pad(head_image((112, 112, 112)), 8)
    for number in range(count):
        write_volume(folder / f"{number}.nii.gz", (image * (1 + 0.05 * number)).astype(np.int16), np.eye(4))
    return sorted(folder.glob("*.nii.gz"))


def start(*arguments) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    return subprocess.Popen([*CLI, *map(str, arguments)], stderr=subprocess.DEVNULL, env=environment)


def kill(what: str, pid: int, output: Path) -> None:
    os.kill(pid, signal.SIGKILL)
    print(f"kill -9 of {what} after {len(labels(output))} label files", flush=True)


def labels(output: Path) -> list[Path]:
    return list(output.rglob("[!.]*_synthseg.nii.gz"))


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, in the order of their ids (Linux)."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(child) for file in found for child in file.read_text().split())


def resident_megabytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def until(condition: Callable[[], bool], each: Callable[[], object] = lambda: None) -> None:
    while not condition():
        each()
        time.sleep(0.2)


def seconds_of(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
