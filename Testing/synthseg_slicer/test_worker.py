"""The child process itself, with real processes and tiny weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from synthetic import ball

from synthseg_slicer import worker
from synthseg_slicer.cancel import CancelToken
from synthseg_slicer.errors import Cancelled, DeviceError, JobError
from synthseg_slicer.job import Job, run
from synthseg_slicer.pipeline import segment
from synthseg_slicer.scan import Scan
from synthseg_slicer.stroke import segment_lesions

LATER = "import os, sys, time; print('here', flush=True); time.sleep(60)"
"""A stand-in for torch at which the worker stays until it is ended."""
REAL = """
import os, sys
print("words from Python")
os.write(1, b'{"event": "done"}\\n')
os.system("echo words from C")
sys.path.remove(os.path.dirname(__file__))
del sys.modules["torch"]
import torch
"""
"""A stand-in for torch that prints, as libraries do, before it makes room for the real one."""

posix = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where jobs put their folders; nothing may be left there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a module in front of those that the child process would import."""

    def put(name: str, code: str) -> None:
        folder = tmp_path / "stand-ins"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return put


def scan(name: str = "T1", shape: tuple[int, int, int] = (32, 36, 40)) -> Scan:
    return Scan(ball(shape), np.diag([-1.0, 1.0, 1.0, 1.0]), name=name)


def start(job: Job) -> subprocess.Popen:
    pipe = subprocess.PIPE
    command = [sys.executable, *job.arguments]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **job.environment})


def failure_of(job: Job) -> JobError:
    """Return the error of a job whose request was changed by hand."""
    process = start(job)
    job.feed(process.stdout.read())
    job.feed_log(process.stderr.read())
    code = process.wait()
    process.communicate()
    with pytest.raises(JobError) as caught:
        job.finish(code)
    assert code == 1
    return caught.value


def failure(*arguments, **options) -> JobError:
    with pytest.raises(JobError) as caught:
        run(*arguments, **options)
    return caught.value


def test_it_gives_what_segment_gives_though_libraries_print_and_nibabel_is_missing(tiny_weights, stand_in, temporary):
    stand_in("torch", REAL)
    stand_in("nibabel", "raise ImportError('blocked')")
    seen = []
    options = {"fast": True, "model": tiny_weights, "device": "cpu"}
    (result,) = run([scan()], options, progress=lambda stage, fraction: seen.append((stage, fraction)))
    expected = segment(scan(), **options)
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_array_equal(result.affine, expected.affine)
    assert result.labels.dtype == expected.labels.dtype
    assert result.rows == expected.rows  # in full precision
    record = result.provenance
    assert record["input"] == expected.provenance["input"] and record["input"]["path"] is None
    assert record["options"] == expected.provenance["options"] and record["input"]["name"] == "T1"
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    stages = list(dict.fromkeys(stage for stage, _ in seen))
    assert stages == ["start", "weights", "read", "conform", "predict", "refine", "clean up", "write"]


def test_frames_of_a_sequence_are_done_in_turn_with_one_bar_and_answers_in_any_pieces(tiny_weights, stand_in):
    stand_in("torch", REAL)
    scans = [scan("first"), scan("second", (30, 32, 34))]
    with Job(scans, {"model": tiny_weights, "native": True, "device": "cpu"}) as job:
        process = start(job)
        output = b""
        while data := process.stdout.read1(37):
            job.feed(data)
            output += data
        job.feed_log(process.stderr.read())
        code = process.wait()
        first, second = job.finish(code)
        process.communicate()
    assert code == 0
    assert first.labels.shape == (32, 36, 40) and second.labels.shape == (30, 32, 34)
    np.testing.assert_array_equal(first.affine, scans[0].affine)
    assert "words from Python" in job.log and "words from C" in job.log
    events = [json.loads(line) for line in output.splitlines()]
    assert [event["scan"] for event in events if event["event"] == "result"] == [0, 1]
    assert events[-1] == {"event": "done"} and b"words" not in output
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert [e["stage"] for e in events if e["event"] == "progress"].count("weights") == 1


@pytest.mark.parametrize("anatomy", [True, False], ids=["with anatomy", "lesions only"])
def test_scans_of_one_head_give_what_segment_lesions_gives(stroke_weights, stand_in, anatomy):
    stand_in("torch", REAL)
    scans = [scan("T1"), scan("FLAIR", (30, 32, 34))]
    options = {"model": stroke_weights, "device": "cpu", "anatomy": anatomy, "register": False, "flips": 1}
    with pytest.warns(UserWarning) if anatomy else nullcontext():
        expected = segment_lesions(scans, **options)
    seen = []
    (result,) = run(
        scans,
        {"task": "stroke", "probability": anatomy, **options},
        progress=lambda stage, fraction: seen.append((stage, fraction)),
    )
    # a random network's lesions need not touch another one's anatomy
    assert (anatomy or expected.lesions) and result.lesions == expected.lesions and result.loads == expected.loads
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_array_equal(result.affine, expected.affine)
    for key in ("options", "warnings", "transforms", "inputs"):
        assert result.provenance[key] == expected.provenance[key]
    if anatomy:
        np.testing.assert_array_equal(result.anatomy.labels, expected.anatomy.labels)
        assert result.anatomy.rows == expected.anatomy.rows
        np.testing.assert_allclose(result.probability, expected.probability, atol=1e-6)
    else:
        assert result.anatomy is None and result.probability is None
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    stages = list(dict.fromkeys(stage for stage, _ in seen))
    assert stages[:5] == ["start", "weights", "read", "register 1 of 2", "predict 1 of 2"] and stages[-1] == "write"
    assert ("anatomy: predict" in stages) == anatomy


def test_a_bad_scan_of_a_head_and_missing_stroke_weights_are_told_in_words(stroke_weights):
    flat = Scan(ball(), np.eye(4), name="FLAIR")
    with Job([scan(), flat], {"task": "stroke", "model": stroke_weights, "anatomy": False}) as job:
        np.save(job.folder / "scan-1.npy", np.full((20, 20, 20), 5.0, np.float32))
        error = failure_of(job)
    assert error.kind == "ScanError" and str(error).startswith("FLAIR: the image is constant")
    error = failure([scan()], {"task": "stroke", "model": stroke_weights.with_name("absent.pt")})
    assert error.kind == "WeightsError" and "absent.json" in str(error)


def test_a_bad_frame_stops_the_job_and_is_named(tiny_weights):
    with Job([scan(), scan()], {"model": tiny_weights}, ["series [0]", "series [1]"]) as job:
        np.save(job.folder / "scan-1.npy", np.full((20, 20, 20), 5.0, np.float32))
        error = failure_of(job)
    assert error.kind == "ScanError" and "ScanError" in error.details
    assert str(error).startswith("Frame 2 of 2: series [1]: the image is constant")


def test_an_error_of_the_scan_names_the_scan_and_no_temporary_file(tiny_weights):
    flat = Scan(np.where(ball() > 60, 200, 100), np.eye(4), name="CT of June")
    error = failure([flat], {"model": tiny_weights, "ct": True})
    assert error.kind == "ScanError" and str(error).startswith("CT of June: treated as CT, no contrast")


def test_wrong_weights_are_an_error_in_words(tmp_path):
    error = failure([scan()], {"model": tmp_path / "absent.pt"})
    assert error.kind == "WeightsError" and "absent.json" in str(error)


@pytest.mark.parametrize("code", ["raise ModuleNotFoundError('No module', name='torch')", "raise ImportError('DLL')"])
def test_missing_torch_is_told_by_its_kind(stand_in, code):
    stand_in("torch", code)
    error = failure([scan()])
    assert error.kind == "TorchMissing" and "PyTorch" in str(error) and "Traceback" in error.details


def test_anything_else_is_unexpected_with_a_short_message(stand_in):
    stand_in("torch", "raise RuntimeError('first line\\nlast line')")
    error = failure([scan()])
    assert error.kind == "Unexpected" and "RuntimeError: last line" in str(error) and "Traceback" not in str(error)
    assert "Traceback" in error.details


LITTLE_MEMORY = (
    REAL
    + """
import resource, synthseg_slicer.pipeline
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20,) * 2)
"""
)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_running_out_of_memory_tells_how_much_is_needed_and_what_to_do(stand_in, tiny_weights):
    stand_in("torch", LITTLE_MEMORY)
    large = np.zeros((320, 320, 320), np.uint8)  # 31 MB, and 125 MB as float32
    large[100:200, 100:200, 100:200] = 9
    error = failure([Scan(large, np.eye(4), name="T1")], {"model": tiny_weights, "device": "cpu"})
    assert error.kind == "OutOfMemory" and str(error).startswith("T1: there is not enough memory")
    assert "GB were free" in str(error) and "Close other programs" in str(error)


@posix
@pytest.mark.parametrize("number, kind", [(signal.SIGKILL, "Killed"), (signal.SIGTERM, "Killed")])
def test_a_killed_worker_is_told(stand_in, number, kind):
    stand_in("torch", f"import os; os.kill(os.getpid(), {int(number)})")
    assert failure([scan()]).kind == kind


@posix
def test_a_crashed_worker_leaves_its_last_words(stand_in):
    stand_in("torch", "import faulthandler; faulthandler._sigsegv()")
    error = failure([scan()])
    assert error.kind == "Crashed" and "SIGSEGV" in str(error) and "Segmentation fault" in str(error)


def test_cancelling_ends_it_at_once(stand_in):
    stand_in("torch", LATER)
    token = CancelToken()
    begin = time.monotonic()
    with pytest.raises(Cancelled):
        run([scan()], progress=lambda stage, fraction: token.cancel(), cancel=token)
    assert time.monotonic() - begin < 20


def test_an_error_in_the_progress_callback_ends_it(stand_in):
    stand_in("torch", LATER)
    with pytest.raises(ZeroDivisionError):
        run([scan()], progress=lambda stage, fraction: 1 / 0)


def test_it_ends_and_leaves_no_scan_behind_when_its_parent_is_gone(stand_in):
    stand_in("torch", LATER)
    with Job([scan()]) as job:
        process = start(job)
        assert b"start" in process.stdout.readline()
        assert process.stderr.readline() == b"here\n"
        process.stdin.close()
        assert process.wait(timeout=20) == worker.PARENT_GONE
        assert not job.folder.exists()
        process.stdout.close()
        process.stderr.close()


@posix
def test_sigterm_ends_it_even_if_the_parent_ignores_it(stand_in):
    stand_in("torch", LATER)
    with Job([scan()]) as job:
        previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            process = start(job)
        finally:
            signal.signal(signal.SIGTERM, previous)
        process.stderr.readline()
        process.terminate()
        assert process.wait(timeout=20) == -signal.SIGTERM
        process.communicate()


def test_it_wants_exactly_one_folder():
    result = subprocess.run([sys.executable, "-m", "synthseg_slicer.worker"], capture_output=True, text=True)
    assert result.returncode == 2 and "usage" in result.stderr


def test_progress_is_reported_ten_times_a_second_with_first_and_last_of_each_stage(monkeypatch):
    now = iter(np.arange(0, 100, 0.01).tolist())
    monkeypatch.setattr(worker.time, "monotonic", lambda: next(now))
    sent = []
    progress = worker._Progress(lambda event, **fields: sent.append((fields["stage"], fields["fraction"])))
    for step in range(101):
        progress(0, 1, "predict", step / 200)
    progress(0, 1, "write", 0.6)
    progress(0, 1, "write", 1.0)
    progress.flush()
    predict = [fraction for stage, fraction in sent if stage == "predict"]
    assert predict[0] == 0.0 and predict[-1] == 0.5 and 10 <= len(predict) <= 13
    assert sent[-2:] == [("write", 0.6), ("write", 1.0)]


@pytest.mark.parametrize(
    "error, kind",
    [
        (MemoryError(), "OutOfMemory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "OutOfMemory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "OutOfMemory"),
        (RuntimeError("shape mismatch"), "Unexpected"),
        (KeyError("x"), "Unexpected"),
    ],
)
def test_errors_get_a_kind(error, kind):
    assert worker.explain(error, "no memory").kind == kind


def test_memory_that_ran_out_below_another_error_is_recognised(random_model, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("not enough memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("synthseg_slicer.predict._predict", fail)
    with pytest.raises(DeviceError) as caught:
        segment(scan(), model=random_model, device="cpu")
    assert worker.explain(caught.value, "no memory").kind == "OutOfMemory"
