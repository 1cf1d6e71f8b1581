"""The child process in which 3D Slicer segments: ``python -m synthseg_slicer.worker FOLDER``.

:class:`synthseg_slicer.job.Job` is the other side. It writes FOLDER/request.json and one array a scan::

    {"scans": [{"data": "scan-0.npy", "affine": 4x4, "name": "T1", "path": null, "sha256": null, "memory": 3e9}],
     "options": {...}}

``memory`` is about how many bytes that scan takes. The options are those of :func:`synthseg_slicer.segment`: task,
fast, ct, device, native, model; for the task ``stroke``, whose scans show one head, those of
:func:`synthseg_slicer.stroke.segment_lesions`, with ``probability`` true or false. The worker answers on
its standard output with one JSON object a line::

    {"event": "progress", "scan": 0, "of": 1, "stage": "predict", "fraction": 0.31, "seconds": 2.5}
    {"event": "result", "scan": 0, "path": "result-0.json"}
    {"event": "error", "kind": "ScanError", "message": "...", "scan": 0}
    {"event": "done"}

``fraction`` is of the whole job, ``seconds`` since the start. ``result-0.json`` holds affine, rows and provenance,
``result-0.npy`` the labels. A stroke job has this one result: affine, lesions, loads, provenance, whether there is a
``probability-0.npy``, and as ``anatomy`` affine, rows and provenance of ``anatomy-0.npy``, or null. The first error
ends the job, with exit code 1. Whatever libraries print goes to standard error, which is the log.

The process lives no longer than its parent: when its standard input closes it removes FOLDER, which may hold a
patient's scan, and ends.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from . import memory
from .allocation import keep_freed_memory
from .errors import SynthSegError
from .files import atomic, reason

STARTUP = 0.3
"""Share of the progress bar for importing torch and loading the weights, in scans: 1 to 2 s where a scan takes 5."""
INTERVAL = 0.1
"""Least seconds between two reports of progress within a stage."""
PARENT_GONE = 3
"""Exit code after the standard input closed."""

STROKE = "stroke"
"""The task whose scans all show one head; the other tasks segment each scan by itself."""

Send = Callable[..., None]


class _Failure(Exception):
    """An error as the parent is told of it."""

    def __init__(self, kind: str, message: str, scan: int | None = None):
        super().__init__(message)
        self.kind, self.scan = kind, scan


class _Progress:
    """Reports progress, not too often, but always the first and the last of each stage."""

    def __init__(self, send: Send):
        self._send, self._begin = send, time.monotonic()
        self._stage, self._sent, self._held = None, 0.0, None

    def __call__(self, scan: int, of: int, stage: str, fraction: float) -> None:
        seconds = time.monotonic() - self._begin
        event = {"scan": scan, "of": of, "stage": stage, "fraction": round(fraction, 4), "seconds": round(seconds, 3)}
        if (scan, stage) != self._stage:
            self.flush()
        elif seconds - self._sent < INTERVAL:
            self._held = event
            return
        self._stage, self._sent, self._held = (scan, stage), seconds, None
        self._send("progress", **event)

    def flush(self) -> None:
        """Report what was held back."""
        if self._held:
            self._send("progress", **self._held)
            self._held = None


def main() -> int:
    """Do the job in the folder that the command line names and return the exit code."""
    if len(sys.argv) != 2:
        print("usage: python -m synthseg_slicer.worker FOLDER", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    send = take_standard_output()
    faulthandler.enable()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a parent that ignores it hands that down
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    keep_freed_memory()
    try:
        _work(folder, send)
    except Exception as error:
        traceback.print_exc()
        failure = explain(error, "There is not enough memory to start. Close other programs, then try again.")
        send("error", kind=failure.kind, message=str(failure), scan=failure.scan)
        return 1
    send("done")
    return 0


def _work(folder: Path, send: Send) -> None:
    """Segment all scans."""
    free = memory.available()
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    scans, options = request["scans"], request["options"]
    lesions = options.get("task") == STROKE
    of, progress = 1 if lesions else len(scans), _Progress(send)

    def report(scan: int, stage: str, done: float) -> None:
        progress(scan, of, stage, done / (STARTUP + of))

    report(0, "start", 0.0)
    _import_torch()
    from .pipeline import segment
    from .predict import resolve_device
    from .weights import load_model

    report(0, "weights", 0.8 * STARTUP)
    model = load_model(options.get("task", "brain"), options.pop("model", None))
    resolve_device(options.get("device", "auto"))  # an error of the whole job, not of its first scan
    if lesions:
        _segment_lesions(folder, scans, model, options, free, report)
        progress.flush()
        send("result", scan=0, path="result-0.json")
        return
    for index, entry in enumerate(scans):

        def step(stage: str, fraction: float, index: int = index) -> None:
            if stage not in ("weights", "done"):  # the weights are loaded already, and the result is not yet out
                report(index, stage, STARTUP + index + fraction)

        try:
            step("read", 0.0)
            scan = _read(folder, entry)
            segmentation = segment(scan, model=model, progress=step, **options)
            _write(folder, index, segmentation)
        except Exception as error:
            failure = explain(error, _memory_message(entry, free))
            frame = f"Frame {index + 1} of {of}: " if of > 1 else ""
            raise _Failure(failure.kind, f"{frame}{failure}", index) from error
        del scan, segmentation  # before the next one is read
        step("write", 1.0)
        progress.flush()
        send("result", scan=index, path=f"result-{index}.json")


def _segment_lesions(
    folder: Path, entries: list[dict], model, options: dict, free: int | None, report: Callable[[int, str, float], None]
) -> None:
    """Segment the lesions of the one head that all scans show, and write them."""
    from .stroke import segment_lesions

    def step(stage: str, fraction: float) -> None:
        if stage not in ("weights", "done"):
            report(0, stage, STARTUP + fraction)

    options = {name: value for name, value in options.items() if name != "task"}
    asked = options.pop("probability", False)
    try:
        step("read", 0.0)
        scans = [_read(folder, entry) for entry in entries]
        result = segment_lesions(scans, model=model, progress=step, **options)
        _write_lesions(folder, result, asked)
    except Exception as error:
        failure = explain(error, _memory_message(max(entries, key=lambda entry: entry["memory"]), free))
        raise _Failure(failure.kind, str(failure), 0) from error
    step("write", 1.0)


def _import_torch() -> None:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name == "torch":
            raise _Failure("TorchMissing", "PyTorch is not installed. Install it, then try again.") from error
        raise _Failure("TorchMissing", f"PyTorch is incomplete ({error}). Install it again.") from error
    except (ImportError, OSError) as error:  # OSError: a library of its own that does not load
        raise _Failure("TorchMissing", f"PyTorch cannot be loaded ({reason(error)}). Install it again.") from error


def _read(folder: Path, entry: dict):
    """Return the scan of one entry of the request."""
    import numpy as np

    from .scan import Scan

    data = np.load(folder / entry["data"], allow_pickle=False)
    path = None if entry["path"] is None else Path(entry["path"])
    return Scan(data, entry["affine"], path, entry["sha256"], entry["name"])


def _write(folder: Path, index: int, segmentation) -> None:
    """Write a result; its JSON file comes last and is there only if the whole result is."""
    _write_array(folder / f"result-{index}.npy", segmentation.labels)
    _write_json(folder / f"result-{index}.json", _describe(segmentation))


def _write_lesions(folder: Path, result, probability: bool) -> None:
    """Write the result of a stroke job, its JSON file last."""
    _write_array(folder / "result-0.npy", result.labels)
    if probability:
        _write_array(folder / "probability-0.npy", result.probability)
    if result.anatomy:
        _write_array(folder / "anatomy-0.npy", result.anatomy.labels)
    content = {
        "affine": result.affine.tolist(),
        "lesions": [asdict(one) for one in result.lesions],
        "loads": [asdict(row) for row in result.loads],
        "anatomy": _describe(result.anatomy) if result.anatomy else None,
        "probability": probability,
        "provenance": result.provenance,
    }
    _write_json(folder / "result-0.json", content)


def _describe(segmentation) -> dict:
    return {
        "affine": segmentation.affine.tolist(),
        "rows": [asdict(row) for row in segmentation.rows],
        "provenance": segmentation.provenance,
    }


def _write_array(path: Path, array) -> None:
    import numpy as np

    with atomic(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def _write_json(path: Path, content: dict) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def explain(error: Exception, no_memory: str) -> _Failure:
    """Return an error's ``kind`` and, as its text, what the user is told of it: ``no_memory`` if that ran out."""
    if isinstance(error, _Failure):
        return error
    if _out_of_memory(error):
        return _Failure("OutOfMemory", no_memory)
    if isinstance(error, SynthSegError):
        return _Failure(type(error).__name__, str(error))
    text = f"{type(error).__name__}: {reason(error)}"
    return _Failure("Unexpected", f"Something went wrong that should not have ({text}). Please report it with the log.")


def _out_of_memory(error: BaseException | None) -> bool:
    """Tell whether memory ran out, here or in what the error came from."""
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from .predict import out_of_memory

    while error is not None and not out_of_memory(error):
        error = error.__cause__
    return error is not None


def _memory_message(entry: dict, free: int | None) -> str:
    there = "" if free is None else f", and {free / 2**30:.1f} GB were free"
    return (
        f"{entry['name']}: there is not enough memory. Segmenting this scan takes about {entry['memory'] / 2**30:.1f} "
        f"GB{there}. Close other programs, choose the fast quality, or crop the scan to the head."
    )


def take_standard_output() -> Send:
    """Keep the standard output for the protocol, and let everything else that is printed go to standard error."""
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(event: str, **fields) -> None:
        try:
            channel.write(json.dumps({"event": event, **fields}).encode("ascii") + b"\n")
            channel.flush()
        except OSError:  # nobody listens any more
            os._exit(PARENT_GONE)

    return send


def _end_with_parent(folder: Path) -> None:
    """Wait until the standard input closes, then remove the folder and end the process at once."""
    if sys.platform == "win32":
        _wait_on_windows()
    else:
        try:
            while os.read(0, 4096):
                pass
        except OSError:  # there never was a standard input
            pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(PARENT_GONE)


def _wait_on_windows() -> None:
    """Ask now and then instead of waiting in a read, during which importing NumPy hangs (numpy issue 24290)."""
    import ctypes
    import msvcrt

    peek = ctypes.windll.kernel32.PeekNamedPipe
    handle = ctypes.c_void_p(msvcrt.get_osfhandle(0))
    while peek(handle, None, 0, None, None, None):
        time.sleep(0.5)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the results are out; libraries that take themselves down may crash, and take their time
