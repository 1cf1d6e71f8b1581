"""The parent's side of the child process, fed by hand: protocol, progress, and a user's words for every failure."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from synthetic import ball

from synthseg_slicer.errors import JobError, OptionError, OutputError, SynthSegError
from synthseg_slicer.job import LOG_BYTES, Job, LesionResult, Result, run
from synthseg_slicer.lesions import Lesion, Load
from synthseg_slicer.scan import Scan


@pytest.fixture
def job():
    with Job([Scan(ball(), np.eye(4), name="T1"), Scan(ball(), np.eye(4), name="T2")]) as job:
        yield job


def line(event: str, **fields) -> bytes:
    return json.dumps({"event": event, **fields}).encode() + b"\n"


def progress(stage: str, fraction: float, seconds: float, scan: int = 0) -> bytes:
    return line("progress", scan=scan, of=2, stage=stage, fraction=fraction, seconds=seconds)


def write_results(job: Job) -> None:
    row = {"name": "Brain-Stem", "label": 16, "volume": 5.0, "share": 1.0, "asymmetry": None, "quality": 0.9}
    for index in range(2):
        np.save(job.folder / f"result-{index}.npy", np.full((2, 3, 4), 16, np.uint8))
        content = {"affine": np.eye(4).tolist(), "rows": [row], "provenance": {"warnings": []}}
        (job.folder / f"result-{index}.json").write_text(json.dumps(content))


LESION = {"number": 1, "volume": 24.0, "probability": 0.9, "centre": [0.5, 1.0, 1.5], "side": "left", "structure": "x"}
LOAD = {"name": "Brain", "label": None, "volume": 48.0, "lesion": 24.0, "percent": 50.0}


@pytest.fixture
def stroke_job():
    """A job of one head that two scans show, with its result."""
    with Job([Scan(ball(), np.eye(4), name=name) for name in ("T1", "T2")], {"task": "stroke"}) as job:
        write_results(job)
        structures = json.loads((job.folder / "result-0.json").read_text())
        np.save(job.folder / "anatomy-0.npy", np.full((2, 3, 4), 16, np.uint8))
        np.save(job.folder / "probability-0.npy", np.full((2, 3, 4), 0.9, np.float32))
        content = {"affine": np.eye(4).tolist(), "lesions": [LESION], "loads": [LOAD], "anatomy": structures}
        content |= {"probability": True, "provenance": {"warnings": ["odd"]}}
        (job.folder / "result-0.json").write_text(json.dumps(content))
        job.feed(line("done"))
        yield job


def failure(job: Job, exit_code: int = 1, crashed: bool = False) -> JobError:
    with pytest.raises(SynthSegError) as caught:
        job.finish(exit_code, crashed)
    return caught.value


def test_the_request_says_what_to_do(tmp_path):
    affine = np.diag([-1.0, 1, 1, 1])
    scan = Scan(ball(), affine, tmp_path / "a.nii", "abc")
    with Job([scan], {"fast": True, "ct": None, "model": "x.pt"}, ["The T1"]) as job:
        request = json.loads((job.folder / "request.json").read_text())
        (entry,) = request["scans"]
        assert entry.pop("memory") > 1e8
        assert entry == {
            "data": "scan-0.npy",
            "affine": affine.tolist(),
            "name": "The T1",
            "path": str(tmp_path / "a.nii"),
            "sha256": "abc",
        }
        assert request["options"]["fast"] is True and request["options"]["model"].endswith("/x.pt")
        np.testing.assert_array_equal(np.load(job.folder / "scan-0.npy"), scan.data)
        assert job.arguments == ["-m", "synthseg_slicer.worker", str(job.folder)]
    assert not job.folder.exists()


def test_the_environment_lets_a_bare_python_import_the_package_and_keeps_its_own_paths(job, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "import sys, synthseg_slicer; print(synthseg_slicer.__file__, sys.path)"
    environment = {"PATH": "", **job.environment}
    command = [sys.executable, "-S", "-c", code]  # without site-packages, and so without this installation
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "Logic" in printed and str(tmp_path) in printed


@pytest.mark.parametrize(
    "count, options, names",
    [
        (0, {}, None),
        (1, {"quality": "best"}, None),
        (1, {"flips": 1}, None),
        (1, {"task": "stroke", "refined": False}, None),
        (1, {}, ["a", "b"]),
    ],
    ids=["no scan", "unknown option", "option of the stroke task", "option of the brain task", "too many names"],
)
def test_requests_that_make_no_sense_are_refused(count, options, names):
    with pytest.raises(OptionError):
        Job([Scan(ball(), np.eye(4))] * count, options, names)


def test_a_full_disk_is_an_error_in_words_and_leaves_nothing(monkeypatch, tmp_path):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        Job([Scan(ball(), np.eye(4))])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_lines_may_arrive_in_pieces_of_any_size(job, size):
    write_results(job)
    data = progress("start", 0.0, 0.1) + progress("predict", 0.4, 3.0, scan=1) + line("done")
    for start in range(0, len(data), size):
        job.feed(data[start : start + size])
    assert (job.stage, job.scan_index, job.fraction) == ("predict", 1, 1.0)
    first, second = job.finish(0)
    assert isinstance(first, Result) and first.labels.shape == (2, 3, 4)
    assert first.rows[0].name == "Brain-Stem" and second.rows[0].quality == 0.9
    assert first.provenance == {"warnings": []}


def test_the_last_line_needs_no_line_end(job):
    write_results(job)
    job.feed(line("done").rstrip())
    assert len(job.finish(0)) == 2


def test_the_fraction_never_falls(job):
    seen = []
    for scan, fraction in ((0, 0.2), (0, 0.5), (1, 0.4), (1, 0.7), (1, 1.3)):
        job.feed(progress("predict", fraction, 1.0, scan))
        seen.append(job.fraction)
    assert seen == [0.2, 0.5, 0.5, 0.7, 1.0]


def test_remaining_time_is_unknown_until_some_work_was_measured(job):
    for stage, fraction, seconds in (("start", 0.0, 0.0), ("weights", 0.1, 30.0), ("conform", 0.12, 30.1)):
        job.feed(progress(stage, fraction, seconds))
        assert job.remaining is None
    job.feed(progress("predict", 0.4, 30.5))
    assert job.remaining is None  # too early to tell
    job.feed(progress("predict", 0.32, 32.1))
    assert job.remaining == pytest.approx(0.6 * 2.0 / 0.28, rel=1e-6)  # the slow start does not count


def test_remaining_time_of_steady_work_counts_down_to_zero(job):
    job.feed(progress("conform", 0.1, 5.0))
    for step in range(2, 11):
        job.feed(progress("predict", step / 10, 5.0 + (step - 1)))
        assert job.remaining == pytest.approx(10 - step, abs=1e-6)


def test_remaining_time_follows_a_change_of_speed_smoothly(job):
    job.feed(progress("conform", 0.0, 0.0))
    for step in range(1, 6):
        job.feed(progress("predict", step / 10, step))
    before = job.remaining
    job.feed(progress("predict", 0.5, 15.0))  # it hangs for ten seconds
    assert before < job.remaining < 0.5 * 15 / 0.5
    job.feed(line("done"))
    assert job.remaining == 0.0


def test_words_that_are_no_protocol_go_to_the_log(job):
    write_results(job)
    job.feed(b'Setting up the environment\n\xff\n[]\n{"event": "progress"}\n{"no": 1}\n' + line("news") + line("done"))
    job.feed_log("Grüße".encode())
    assert "Setting up the environment" in job.log and "Grüße" in job.log and "done" not in job.log
    assert len(job.finish(0)) == 2


def test_the_log_keeps_its_end(job):
    job.feed_log(b"begin" + b"x" * LOG_BYTES)
    job.feed_log(b"end")
    assert len(job.log) == LOG_BYTES and job.log.endswith("end")


def test_an_error_of_the_worker_keeps_its_words_and_kind(job):
    job.feed_log(b"Traceback ...")
    job.feed(line("error", kind="ScanError", message="T1: the image is constant.", scan=0))
    error = failure(job)
    assert (error.kind, str(error), error.details) == ("ScanError", "T1: the image is constant.", "Traceback ...")


def test_being_killed_suggests_memory(job):
    error = failure(job, signal.SIGKILL, crashed=True)
    assert error.kind == "Killed" and "probably because memory ran out or someone ended it" in str(error)
    assert "GB" in str(error)


def test_a_shell_or_launcher_that_reports_a_signal_is_understood(job):
    assert failure(job, 128 + signal.SIGKILL).kind == "Killed"


def test_being_ended_from_outside_is_said(job):
    assert "SIGTERM" in str(failure(job, signal.SIGTERM, crashed=True))


def test_a_crash_quotes_what_python_said_about_it(job):
    job.feed_log(b"loading\n\nFatal Python error: Segmentation fault\n\nThread 1\n  File x, line 3\n")
    error = failure(job, signal.SIGSEGV, crashed=True)
    assert error.kind == "Crashed" and "SIGSEGV" in str(error) and "Segmentation fault" in str(error)
    assert "line 3" in error.details


def test_a_crash_on_windows_tells_the_code(job):
    error = failure(job, -1073741819, crashed=True)
    assert error.kind == "Crashed" and "-1073741819" in str(error) and "no message" in str(error)


def test_an_exit_without_a_reason_quotes_the_last_line_of_the_log(job):
    job.feed_log(b"python: something\nNo module named synthseg_slicer\n\n")
    error = failure(job, 1)
    assert error.kind == "Crashed" and "exit code 1" in str(error) and "No module named synthseg_slicer" in str(error)


def test_an_end_without_result_is_an_error(job):
    assert failure(job, 0).kind == "Damaged"


def test_results_count_even_if_the_process_crashes_on_its_way_out(job):
    write_results(job)
    job.feed(line("done"))
    assert len(job.finish(signal.SIGSEGV, crashed=True)) == 2


@pytest.mark.parametrize("damage", ["no array", "cut array", "two-dimensional", "no JSON", "cut JSON", "other fields"])
def test_a_damaged_result_is_an_error_that_names_the_scan(job, damage):
    write_results(job)
    array, record = job.folder / "result-1.npy", job.folder / "result-1.json"
    if damage == "no array":
        array.unlink()
    elif damage == "cut array":
        array.write_bytes(array.read_bytes()[:-5])
    elif damage == "two-dimensional":
        np.save(array, np.zeros((2, 3), np.uint8))
    elif damage == "no JSON":
        record.unlink()
    elif damage == "cut JSON":
        record.write_text(record.read_text()[:50])
    else:
        record.write_text('{"affine": [], "rows": [{"title": "x"}], "provenance": {}}')
    job.feed(line("done"))
    error = failure(job, 0)
    assert error.kind == "Damaged" and str(error).startswith("T2: ")


def test_the_scans_of_a_stroke_job_give_one_result(stroke_job):
    (result,) = stroke_job.finish(0)
    assert isinstance(result, LesionResult) and result.volume == 24.0
    assert result.lesions == [Lesion(1, 24.0, 0.9, (0.5, 1.0, 1.5), "left", "x")]
    assert result.loads == [Load("Brain", None, 48.0, 24.0, 50.0)]
    assert result.anatomy.rows[0].name == "Brain-Stem" and result.anatomy.labels.shape == (2, 3, 4)
    assert result.probability.dtype == np.float32 and result.provenance == {"warnings": ["odd"]}


def test_anatomy_and_probability_of_a_stroke_job_may_be_left_out(stroke_job):
    record = stroke_job.folder / "result-0.json"
    content = json.loads(record.read_text()) | {"anatomy": None, "loads": [], "probability": False}
    record.write_text(json.dumps(content))
    (result,) = stroke_job.finish(0)
    assert result.anatomy is None and result.probability is None and result.loads == []


@pytest.mark.parametrize("file", ["result-0.npy", "anatomy-0.npy", "probability-0.npy"])
def test_a_damaged_part_of_a_stroke_result_is_an_error(stroke_job, file):
    np.save(stroke_job.folder / file, np.zeros((2, 3)))
    error = failure(stroke_job, 0)
    assert error.kind == "Damaged" and str(error).startswith("T1: ")


def test_a_python_that_does_not_exist_is_an_error_in_words(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(JobError, match="could not be started") as caught:
        run([Scan(ball(), np.eye(4))], python=tmp_path / "python")
    assert caught.value.kind == "NotStarted" and list(tmp_path.iterdir()) == []


BARE = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "nibabel"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
import numpy as np
from synthseg_slicer import CancelToken, cancel, job, labels, measure, memory, scan
with job.Job([scan.Scan(np.arange(8000.0).reshape(20, 20, 20), np.eye(4))], {"fast": True}) as request:
    print(request.arguments[:2], measure.rows({}, {}, labels.BRAIN)[-1].name, memory.available())
assert not {"torch", "nibabel", "slicer", "qt"} & set(sys.modules)
"""


def test_the_parent_needs_neither_torch_nor_nibabel():
    result = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "synthseg_slicer.worker" in result.stdout
