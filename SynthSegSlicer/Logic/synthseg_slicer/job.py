"""The parent's side of the child process that segments (:mod:`synthseg_slicer.worker`).

Imports neither torch nor nibabel, nor anything of Slicer or Qt: :class:`Job` is fed with what the process printed by
whoever runs it, 3D Slicer's ``QProcess`` or :func:`run`.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from . import memory
from .cancel import CancelToken
from .errors import JobError, OptionError, OutputError
from .files import reason
from .lesions import Lesion, Load
from .measure import Row
from .scan import Scan
from .worker import STROKE

OPTIONS = frozenset({"task", "fast", "ct", "device", "native", "contrast", "refined", "model"})
"""Of :func:`synthseg_slicer.segment`."""
STROKE_OPTIONS = frozenset(
    {"task", "fast", "ct", "device", "native", "anatomy", "flips", "register", "fewest", "model", "probability"}
)
"""Of :func:`synthseg_slicer.stroke.segment_lesions`; ``probability`` asks for the map, as true or false."""
LOG_BYTES = 2**18
"""The end of the log that is kept."""
MEANINGFUL = 0.05, 1.0
"""Fraction of the job and seconds of segmenting before the remaining time is estimated."""
SMOOTHING = 0.2
"""Weight of the newest estimate of the remaining time."""

_LOGIC = Path(__file__).resolve().parents[1]
_CURE = "Close other programs, choose the fast quality, or crop the scan to the head."


def child_environment() -> dict[str, str]:
    """Return the environment variables to set in a Python process that runs a module of this package."""
    paths = [str(_LOGIC), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONSAFEPATH": "1",  # modules that lie in the current folder by chance are not for us
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
    }


@dataclass(frozen=True, eq=False)
class Result:
    """The segmentation of one scan.

    Attributes
    ----------
    labels : integer array [x, y, z]
        FreeSurfer label ids.
    affine : float64 array [4, 4]
        Voxel index to RAS+ world in mm.
    rows : list of Row
        One a structure, the intracranial total last.
    provenance : dict
        What :mod:`synthseg_slicer.provenance` records; ``warnings`` in it are for the user.
    """

    labels: np.ndarray
    affine: np.ndarray
    rows: list[Row]
    provenance: dict = field(repr=False)


@dataclass(frozen=True, eq=False)
class LesionResult:
    """The lesions that the scans of one head show, on the grid of the first scan.

    Attributes
    ----------
    labels : uint8 array [x, y, z]
        99 (:data:`~synthseg_slicer.labels.LESION_ID`) in lesions, else 0.
    affine : float64 array [4, 4]
        Voxel index to RAS+ world in mm.
    lesions : list of Lesion
        Largest first.
    loads : list of Load
        Share of each structure that is lesion; empty without anatomy.
    anatomy : Result or None
        Structures, on the same grid.
    probability : float32 array [x, y, z] or None
        Of lesion; only where it was asked for.
    provenance : dict
        What :mod:`synthseg_slicer.provenance` records; ``warnings`` in it are for the user.
    """

    labels: np.ndarray
    affine: np.ndarray
    lesions: list[Lesion]
    loads: list[Load]
    anatomy: Result | None
    probability: np.ndarray | None
    provenance: dict = field(repr=False)

    @property
    def volume(self) -> float:
        """Volume of all lesions in mm³."""
        return float(sum(one.volume for one in self.lesions))


class Job:
    """A request to the child process, and what it has answered so far. Also a context manager, which closes it.

    Parameters
    ----------
    scans : sequence of Scan
        All are segmented or none. For the task ``stroke`` they show one head, and the first is the reference.
    options : dict, optional
        ``task``, ``fast``, ``ct``, ``device``, ``native``, ``contrast``, ``refined`` and ``model``
        as :func:`synthseg_slicer.segment` takes them; for the task ``stroke`` those of :data:`STROKE_OPTIONS`.
    names : sequence of str, optional
        What messages call the scans; their own names by default.

    Attributes
    ----------
    stage : str
        What is being done: ``start``, ``weights``, ``read``, ``conform``, ``predict``, ``clean up``, ``write``; empty
        before the process has answered. The task ``stroke`` has ``register`` and ``predict``, followed by
        `` 1 of 2`` where there are several scans, ``anatomy: `` and a stage of the brain task, and ``measure``.
    fraction : float
        Of the whole job, 0 to 1; never falls.
    scan_index : int
        Which scan it is at.

    Raises
    ------
    OptionError
        No scan, an unknown option, or as many names as there are scans are not given.
    OutputError
        The temporary folder cannot be written.
    """

    def __init__(self, scans: Sequence[Scan], options: dict | None = None, names: Sequence[str] | None = None):
        options = dict(options or {})
        self._names = [scan.name for scan in scans] if names is None else list(names)
        self._stroke = options.get("task") == STROKE
        known = STROKE_OPTIONS if self._stroke else OPTIONS
        if unknown := sorted(set(options) - known):
            raise OptionError(f"Unknown option {', '.join(unknown)}. Known are {', '.join(sorted(known))}.")
        if not scans or len(self._names) != len(scans):
            raise OptionError(f"{len(scans)} scans and {len(self._names)} names: give at least one, and one name each.")
        self.stage, self.fraction, self.scan_index = "", 0.0, 0
        self._line, self._log, self._error, self._done = bytearray(), bytearray(), None, False
        self._begin, self._pace = None, None
        native = bool(options.get("native"))
        both = self._stroke and bool(options.get("anatomy", True))
        self._needs = [memory.estimate(scan.shape, scan.voxel_size, native, lesions=both) for scan in scans]
        self._folder = tempfile.TemporaryDirectory(prefix="synthseg-", ignore_cleanup_errors=True)
        try:
            self._write_request(scans, options)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                message = f"{self._folder.name}: the temporary folder cannot be written ({reason(error)}). Make room."
                raise OutputError(message) from error
            raise

    def _write_request(self, scans: Sequence[Scan], options: dict) -> None:
        if options.get("model") is not None:
            options["model"] = str(Path(options["model"]).absolute())
        entries = []
        for index, (scan, name, need) in enumerate(zip(scans, self._names, self._needs)):
            entry = {"data": f"scan-{index}.npy", "affine": scan.affine.tolist(), "name": name, "memory": need}
            entry |= {"path": None if scan.path is None else str(scan.path), "sha256": scan.sha256}
            np.save(self.folder / entry["data"], scan.data, allow_pickle=False)
            entries.append(entry)
        text = json.dumps({"scans": entries, "options": options})
        (self.folder / "request.json").write_text(text, encoding="utf-8")

    @property
    def folder(self) -> Path:
        """Where request and results lie until the job is closed."""
        return Path(self._folder.name)

    @property
    def arguments(self) -> list[str]:
        """Command line of the child process, after the Python executable."""
        return ["-m", "synthseg_slicer.worker", self._folder.name]

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables to set in the child process."""
        return child_environment()

    @property
    def log(self) -> str:
        """The end of what the process printed."""
        return self._log.decode("utf-8", "replace")

    @property
    def remaining(self) -> float | None:
        """About how many seconds are left; None until that can be told."""
        return None if self._pace is None else self._pace * (1 - self.fraction)

    def feed(self, data: bytes) -> None:
        """Take what came from the standard output, in pieces of any size."""
        self._line += data
        *lines, self._line = self._line.split(b"\n")
        for line in lines:
            self._read_line(line)

    def feed_log(self, data: bytes) -> None:
        """Take what came from the standard error."""
        self._log += data
        del self._log[:-LOG_BYTES]

    def _read_line(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            kind = event["event"]
            if kind == "progress":
                self._advance(event["scan"], str(event["stage"]), float(event["fraction"]), float(event["seconds"]))
            elif kind == "error":
                self._error = str(event["kind"]), str(event["message"])
            elif kind == "done":
                self.fraction, self._done = 1.0, True
        except (ValueError, KeyError, TypeError):  # none of ours, such as words of the Python executable's launcher
            self.feed_log(line + b"\n")

    def _advance(self, scan: int, stage: str, fraction: float, seconds: float) -> None:
        self.scan_index, self.stage = scan, stage
        self.fraction = max(self.fraction, min(fraction, 1.0))
        if stage in ("start", "weights"):
            return
        if self._begin is None:  # starting up says nothing about the speed of what follows
            self._begin = fraction, seconds
        done, took = self.fraction - self._begin[0], seconds - self._begin[1]
        if done >= MEANINGFUL[0] and took >= MEANINGFUL[1]:
            pace = took / done
            self._pace = pace if self._pace is None else self._pace + SMOOTHING * (pace - self._pace)

    def finish(self, exit_code: int, crashed: bool = False) -> list[Result] | list[LesionResult]:
        """Return the results after the process ended: one a scan; for the task ``stroke`` one of all scans.

        Parameters
        ----------
        exit_code : int
            As ``QProcess`` or ``subprocess`` give it.
        crashed : bool
            Whether it ended by a signal or exception of the system; ``exit_code`` is then the signal's number.

        Raises
        ------
        JobError
            There are none; the message says why in a user's words, ``kind`` in a program's.
        """
        if self._line:
            self.feed(b"\n")
        if self._error:
            raise self._failure(*self._error)
        if self._done:  # even if the process crashed later, in taking itself down
            results = self._names[:1] if self._stroke else self._names
            return [self._result(index, name) for index, name in enumerate(results)]
        if crashed or exit_code:
            raise self._death(exit_code, crashed)
        raise self._failure("Damaged", "The segmentation ended without a result. Try again; if it persists, report it.")

    def _result(self, index: int, name: str) -> Result | LesionResult:
        try:
            content = json.loads((self.folder / f"result-{index}.json").read_text(encoding="utf-8"))
            return self._lesions(content) if self._stroke else self._structures(f"result-{index}.npy", content)
        except MemoryError as error:
            raise self._failure("OutOfMemory", f"{name}: there is not enough memory for the result. {_CURE}") from error
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            message = f"{name}: the result is missing or damaged ({reason(error)}). Is the disk full? Try again."
            raise self._failure("Damaged", message) from error

    def _structures(self, file: str, content: dict) -> Result:
        rows = [Row(**row) for row in content["rows"]]
        return Result(self._array(file), _affine(content), rows, dict(content["provenance"]))

    def _lesions(self, content: dict) -> LesionResult:
        found = [Lesion(**{**one, "centre": tuple(one["centre"])}) for one in content["lesions"]]
        loads = [Load(**row) for row in content["loads"]]
        anatomy = content["anatomy"] and self._structures("anatomy-0.npy", content["anatomy"])
        probability = self._array("probability-0.npy", "f") if content["probability"] else None
        labels = self._array("result-0.npy")
        return LesionResult(labels, _affine(content), found, loads, anatomy, probability, dict(content["provenance"]))

    def _array(self, file: str, kinds: str = "ui") -> np.ndarray:
        array = np.load(self.folder / file, allow_pickle=False)
        if array.ndim != 3 or array.dtype.kind not in kinds:
            raise ValueError("wrong shape or type")
        return array

    def _death(self, exit_code: int, crashed: bool) -> JobError:
        """Return the error of a process that ended without telling why."""
        number = abs(exit_code) if crashed else exit_code - 128  # a shell's or launcher's way to say the same
        name = next((s.name for s in signal.Signals if s == number), None) if os.name == "posix" else None
        if name == "SIGKILL":
            message = "The segmentation was killed, probably because memory ran out or someone ended it."
            return self._failure("Killed", f"{message} It takes about {max(self._needs) / 2**30:.1f} GB. {_CURE}")
        if name in ("SIGTERM", "SIGINT", "SIGHUP"):
            return self._failure("Killed", f"The segmentation was ended from outside ({name}). Start it again.")
        lines = [line.strip() for line in self.log.splitlines() if line.strip()]
        fatal = [line for line in lines if line.startswith("Fatal Python error")]  # its traceback follows it
        words = f'Its last words: "{(fatal or lines)[-1]}".' if lines else "It left no message."
        how = f"crashed ({name or f'code {exit_code}'})" if crashed or name else f"failed with exit code {exit_code}"
        cure = "Try again, or choose the CPU; if this persists, report it with the log."
        return self._failure("Crashed", f"The segmentation process {how}. {words} {cure}")

    def _failure(self, kind: str, message: str) -> JobError:
        return JobError(kind, message, self.log)

    def close(self) -> None:
        """Remove the folder; call it when the process has ended."""
        self._folder.cleanup()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def run(
    scans: Sequence[Scan],
    options: dict | None = None,
    *,
    names: Sequence[str] | None = None,
    python: str | os.PathLike = sys.executable,
    progress: Callable[[str, float], None] | None = None,
    cancel: CancelToken | None = None,
) -> list[Result] | list[LesionResult]:
    """Segment scans in a child process and wait for it, for scripts without Qt.

    Parameters
    ----------
    scans, options, names
        As :class:`Job` takes them.
    python : path
        Python executable that has torch.
    progress : callable, optional
        Called with stage and fraction of the whole job; an exception that it raises ends the job.
    cancel : CancelToken, optional
        Ends the process within a tenth of a second.

    Returns
    -------
    list of Result, or of one LesionResult
        One a scan; for the task ``stroke`` one of all scans.

    Raises
    ------
    JobError, OptionError, OutputError, Cancelled
        There is no result; nothing was left behind.
    """
    with Job(scans, options, names) as job:
        pipe = subprocess.PIPE
        environment = {**os.environ, **job.environment}
        try:
            process = subprocess.Popen(
                [os.fspath(python), *job.arguments], stdin=pipe, stdout=pipe, stderr=pipe, env=environment
            )
        except OSError as error:
            raise JobError("NotStarted", f"{python}: Python could not be started ({reason(error)}).") from error
        arrived: queue.Queue = queue.Queue()
        takers = {job.feed: process.stdout, job.feed_log: process.stderr}
        pumps = [threading.Thread(target=_pump, args=(stream, take, arrived)) for take, stream in takers.items()]
        try:
            for pump in pumps:
                pump.start()
            _listen(job, arrived, progress, cancel)
            process.wait()
        finally:
            process.kill()
            process.wait()
            for pump in pumps:
                pump.join()
            for stream in (process.stdin, process.stdout, process.stderr):
                stream.close()
        return job.finish(abs(process.returncode), process.returncode < 0)


def _affine(content: dict) -> np.ndarray:
    affine = np.array(content["affine"], np.float64)
    if affine.shape != (4, 4):
        raise ValueError("wrong shape or type")
    return affine


def _pump(stream: BinaryIO, take: Callable[[bytes], None], arrived: queue.Queue) -> None:
    """Queue what arrives on a stream together with its taker; None at its end."""
    while data := os.read(stream.fileno(), 2**16):
        arrived.put((take, data))
    arrived.put(None)


def _listen(
    job: Job, arrived: queue.Queue, progress: Callable[[str, float], None] | None, cancel: CancelToken | None
) -> None:
    """Feed the job until both streams have ended."""
    streams, told = 2, None
    while streams:
        if cancel:
            cancel.check()
        try:
            item = arrived.get(timeout=0.1)
        except queue.Empty:
            continue
        if item is None:
            streams -= 1
            continue
        take, data = item
        for line in data.splitlines(keepends=True):  # on a busy machine several stages arrive at once
            take(line)
            if progress and job.stage and told != (now := (job.stage, job.fraction)):
                progress(*(told := now))
