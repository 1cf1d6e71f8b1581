"""A batch of scans against kills and against a loop of single calls, and its memory over the run.

usage: python Testing/benchmarks/batch.py [-n 200] [--workers 2] [--loop 20] [--keep FOLDER]

1. Scans of mixed formats and geometries, a tenth of them broken in seven ways, are segmented without interruption.
2. The same into another folder, with ``kill -9`` of each of the workers in turn, and then of the command that feeds
   them. The same command is then given again. The tables must be those of the first run, byte for byte, and name every
   broken scan with its reason.
3. The same again under Dask, with ``kill -9`` of each of the workers in turn, and then of the scheduler.
4. The first scans that are not broken, once more as a batch and as a loop of single ``segment`` calls.

The exit code is 1 if a table differs or a broken scan is not named.

The network is tiny, random and the same everywhere, and the scans are small: what is measured is everything around the
network, where a batch has something to gain. ``--bundled`` takes the bundled weights and heads of 128 mm instead, for 4
only.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import nibabel as nib
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
    parser.add_argument("--workers", type=int, default=2, help="processes of 1 to 3 (default 2)")
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
        killed = by_hand(folder, scans, method, options), by_dask(folder, scans, method, options)
        right = all([*(is_same(whole, result) for result in killed), names_broken(whole, broken)])
        good = sorted(path for path in scans.rglob("scan*") if path.suffix != ".dcm")[: options.loop]
        compare(folder, good, method)
        if not right:
            sys.exit(1)


def is_same(whole: Path, killed: Path) -> bool:
    """Print and return whether a run with kills wrote what the one without wrote, and nothing else."""
    differ = [name for name in TABLES if (whole / name).read_bytes() != (killed / name).read_bytes()]
    print(f"{killed.name}: tables that differ from those of the uninterrupted run: {len(differ)} of {len(TABLES)}")
    files = [{path.relative_to(folder): path for path in labels(folder)} for folder in (whole, killed)]
    other = [path for path in files[0] if path not in files[1] or not equal_voxels(path, *files)]
    other += files[1].keys() - files[0].keys()
    leftovers = list(killed.rglob(".????????-*"))
    print(f"{killed.name}: label files that differ: {len(other)} of {len(files[0])}; temporary files: {len(leftovers)}")
    return not (differ or other or leftovers)


def equal_voxels(name: Path, *folders: dict[Path, Path]) -> bool:
    first, second = (nib.load(files[name]) for files in folders)
    return np.array_equal(first.dataobj, second.dataobj) and np.array_equal(first.affine, second.affine)


def names_broken(result: Path, broken: dict[str, str]) -> bool:
    """Print and return whether each broken scan is in the table of problems with its reason, and no other."""
    lines = [line.split("\t") for line in (result / "problems.tsv").read_text().splitlines()]
    reasons = {scan: text for scan, problem, text in lines if problem == "failed"}
    named = [scan for scan, text in broken.items() if text in reasons.get(scan, "")]
    print(f"broken scans named with their reason: {len(named)} of {len(broken)}; others: {len(reasons) - len(named)}")
    for scan in sorted(reasons):
        print(f"    {scan}: {reasons[scan]}")
    return len(named) == len(broken) == len(reasons)


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
    """Segment all scans, with each worker killed on the way, and then the command itself."""
    output = folder / "killed"
    command = ("batch", scans, output, *method, "--workers", options.workers)
    batch = start(*command)
    kill_on_the_way(lambda: children(batch.pid), "the command", batch, batch, output, options)
    again(command, output)
    return output


def by_dask(folder: Path, scans: Path, method: tuple[str, ...], options: argparse.Namespace) -> Path:
    """Segment all scans under Dask, with each worker killed on the way, and then the scheduler."""
    output, port = folder / "dask", free_port()
    command = ("batch", scans, output, *method, "--scheduler", f"tcp://127.0.0.1:{port}")
    with dask(port, options.workers) as (scheduler, nannies):
        batch = start(*command)
        kill_on_the_way(lambda: children(nannies.pid, "spawn_main"), "the scheduler", scheduler, batch, output, options)
    with dask(port, options.workers):
        again(command, output)
    return output


def kill_on_the_way(
    workers: Callable[[], list[int]],
    what: str,
    feeder: subprocess.Popen,
    batch: subprocess.Popen,
    output: Path,
    options: argparse.Namespace,
) -> None:
    """Kill the workers that the batch began with one by one, then what feeds them, and wait for the batch's end."""

    def wait_for(share: float) -> None:
        until(lambda: len(labels(output)) >= share * options.n or batch.poll() is not None)
        if batch.returncode is not None:
            sys.exit(f"{output.name}: the batch ended before it could be killed ({batch.returncode})")

    wait_for(0.1)
    for number, pid in enumerate(workers()):
        wait_for(0.1 + 0.2 * number)
        kill(f"worker {number + 1} (process {pid})", pid, output)
    wait_for(0.7)
    kill(what, feeder.pid, output)
    feeder.wait()
    print(f"{output.name}: the command ended after {seconds_of(batch.wait):.0f} s")


@contextmanager
def dask(port: int, workers: int) -> Iterator[tuple[subprocess.Popen, subprocess.Popen]]:
    """Start a scheduler and the nannies of workers, and end them."""
    program = Path(sys.executable).with_name("dask")
    options = ("--nthreads", "3", "--nworkers", str(workers), "--memory-limit", "0", "--death-timeout", "15")
    commands = (
        ("scheduler", "--host", "127.0.0.1", "--port", str(port)),
        ("worker", f"tcp://127.0.0.1:{port}", *options),
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen([program, *command, "--no-dashboard"], **quiet) for command in commands]
    try:
        yield tuple(processes)
    finally:
        for process in reversed(processes):  # nannies first, which end their workers
            process.terminate()
            process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def again(command: tuple, output: Path) -> None:
    before = len(labels(output))
    seconds = seconds_of(start(*command).wait)
    print(f"{output.name}: the same command again: {before} label files, then {len(labels(output))}; {seconds:.0f} s")


def compare(folder: Path, scans: list[Path], method: tuple[str, ...]) -> None:
    """Print the times of a batch and of a loop of single calls over the same scans.

    Processor time says how they compare where other work takes part of the machine.
    """
    (folder / "list.txt").write_text("".join(f"{scan.absolute()}\n" for scan in scans))
    (folder / "loop").mkdir(exist_ok=True)

    def loop() -> None:
        for number, scan in enumerate(scans):
            start("segment", scan, "-o", folder / "loop" / f"{number}.nii.gz", "-q", *method).wait()

    single = costs(loop)
    batch = costs(lambda: start("batch", folder / "list.txt", folder / "once", *method).wait())
    for what, one, many in zip(("wall-clock", "processor"), single, batch):
        print(f"{len(scans)} scans, {what} time: loop {one:.1f} s, batch {many:.1f} s, ratio {one / many:.1f}")


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
    print(f"{output.name}: kill -9 of {what} after {len(labels(output))} label files", flush=True)


def labels(output: Path) -> list[Path]:
    return list(output.rglob("[!.]*_synthseg.nii.gz"))


def children(pid: int, command: str = "") -> list[int]:
    """Return the processes that a process has started, in the order of their ids, if their command has a text."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    pids = sorted(int(child) for file in found for child in file.read_text().split())
    return [child for child in pids if command in Path(f"/proc/{child}/cmdline").read_text()]


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
    return costs(function)[0]


def costs(function: Callable[[], object]) -> tuple[float, float]:
    """Return wall-clock seconds, and processor seconds of the processes that ended meanwhile and were waited for."""
    before = os.times()
    function()
    after = os.times()
    cpu = sum(getattr(after, kind) - getattr(before, kind) for kind in ("children_user", "children_system"))
    return after.elapsed - before.elapsed, cpu


if __name__ == "__main__":
    main()
