"""The command line of batches with real worker processes: kills, interruptions, sharing, BIDS."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest
from batches import METHOD, SLOW, alive, children, failed, labels, same_tables, start, until
from mixed_scans import PATIENT, head, write_mixed, write_scan
from synthetic import TINY, random_network

from synthseg_slicer.batch import processes
from synthseg_slicer.batch.command import cores
from synthseg_slicer.batch.ledger import Ledger
from synthseg_slicer.batch.plan import LOST, Item, Plan, config_of, weights_of
from synthseg_slicer.batch.processes import LocalWorkers
from synthseg_slicer.cli import main
from synthseg_slicer.errors import JobError, WeightsError
from synthseg_slicer.weights import save_model

linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes through /proc")
posix = pytest.mark.skipif(os.name != "posix", reason="signals")
DEADLY = """
import os, signal, sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("deadly.nii.gz"):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""
"""Imported by Python when it starts: a process that opens a certain file dies."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    return save_model(folder / "tiny.pt", random_network(), {"architecture": "fast", "options": TINY})


@pytest.fixture
def scans(tmp_path) -> tuple[Path, dict[str, str]]:
    """A tree of ten scans, three of them broken, and what their errors must say."""
    return tmp_path / "in", write_mixed(tmp_path / "in", 10, 3)


@pytest.fixture
def slow(tmp_path, monkeypatch) -> None:
    """Let processes that are started take half a second to write a label file."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "slow"))


@pytest.fixture
def run(weights, capsys):
    """Run a command in this process; return exit code and standard error."""

    def call(*arguments, command="batch"):
        code = main([command, *map(str, (*arguments, "--model", weights, *METHOD))])
        return code, capsys.readouterr().err

    return call


@linux
def test_kills_change_nothing_in_the_tables(run, weights, scans, tmp_path, slow):
    source, broken = scans
    code, stderr = run(source, tmp_path / "whole", "--workers", "2")
    assert code == 1 and "7 of 10 scans are segmented, 3 failed" in stderr and len(labels(tmp_path / "whole")) == 7
    out = tmp_path / "killed"
    batch = start(weights, source, out)
    until(lambda: len(labels(out)) >= 1)
    os.kill(children(batch.pid)[0], signal.SIGKILL)
    before = len(labels(out))
    until(lambda: len(labels(out)) > before)
    workers = children(batch.pid)
    batch.kill()
    batch.communicate()
    until(lambda: not any(map(alive, workers)))  # they end with their parent
    done = {path: path.stat().st_mtime_ns for path in out.rglob("[!.]*_synthseg.nii.gz")}
    assert 2 <= len(done) < 7
    recorded = [record.outputs["labels"] for record in Ledger(out).records() if record.status == "done"]
    code, stderr = run(source, out)
    assert code == 1 and "10 scans, of which" in stderr
    assert same_tables(out, tmp_path / "whole") and labels(out) == labels(tmp_path / "whole")
    assert set(failed(out)) == set(broken) and all(text in failed(out)[key] for key, text in broken.items())
    again = [path for path, time in done.items() if path.stat().st_mtime_ns != time]
    assert not {path.relative_to(out).as_posix() for path in again} & set(recorded)  # what was recorded was kept
    assert not list(out.rglob(".????????-*"))
    for path in out.rglob("*"):
        assert path.is_dir() or not any(word in path.read_bytes() for word in (PATIENT.encode(), bytes(tmp_path)))


def test_a_second_run_does_nothing_and_other_options_are_refused(run, scans, tmp_path):
    source, _ = scans
    out = tmp_path / "out"
    assert run(source, out)[0] == 1
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*_synthseg.*")}
    code, stderr = run(source, out)
    assert code == 1 and "10 scans, of which 10 are done" in stderr
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*_synthseg.*")}
    code, stderr = run(source, out, "--native")
    assert code == 2 and "native: no, now yes" in stderr and "--redo" in stderr
    for name in failed(out):  # nothing good is left
        path = source / name
        path.rename(path.with_name("gone")) if path.is_dir() else path.unlink()
    code, stderr = run(source, out, "--native", "--redo", "--report")
    assert code == 0 and "7 of 7 scans are segmented" in stderr and failed(out) == {}
    assert all(path.stat().st_mtime_ns != time for path, time in times.items())
    assert len(list(out.glob("*/*_synthseg.html"))) == 7 and (out / "report.html").exists()


@linux
def test_a_scan_that_kills_its_process_is_given_up_and_no_other_suffers(run, weights, scans, tmp_path, monkeypatch):
    source, broken = scans
    write_scan(source, "deadly", ".nii.gz", *head(0, (1, 1, 1), "RAS"))
    (tmp_path / "stand-ins").mkdir()
    (tmp_path / "stand-ins" / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stand-ins"))
    code, _ = run(source, tmp_path / "out", "-q")
    assert code == 1 and set(failed(tmp_path / "out")) == {*broken, "deadly.nii.gz"}
    assert "died 3 times" in failed(tmp_path / "out")["deadly.nii.gz"]
    monkeypatch.delenv("PYTHONPATH")
    assert run(source, tmp_path / "out")[0] == 1
    assert set(failed(tmp_path / "out")) == set(broken)  # the next run gave it another chance


@posix
def test_an_interrupted_run_ends_in_order(weights, scans, tmp_path, slow):
    source, _ = scans
    out = tmp_path / "out"
    batch = start(weights, source, out)
    until(lambda: len(labels(out)) >= 2)
    batch.send_signal(signal.SIGTERM)  # Ctrl+C does the same
    _, stderr = batch.communicate(timeout=60)
    assert batch.returncode == 130
    assert "of 10 scans are done. Run the same command again to go on." in stderr
    assert not list(out.rglob(".????????-*"))
    assert {record.status for record in Ledger(out).records()} <= {"done", "failed"}  # none counts as interrupted


def test_two_processes_share_a_folder(weights, scans, tmp_path, slow):
    source, broken = scans
    out = tmp_path / "out"
    pair = [start(weights, source, out) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in pair]
    assert [process.returncode for process in pair] == [1, 1], errors
    assert len(labels(out)) == 7 and set(failed(out)) == set(broken)
    attempts = [record.attempts for record in Ledger(out).records()]
    assert attempts == [1] * 10


def test_a_bids_dataset_is_segmented_and_summed_up_as_a_bids_app(run, tmp_path):
    root, out = tmp_path / "raw", tmp_path / "derivatives"
    for number, name in enumerate(("sub-01/ses-a/anat/sub-01_ses-a_T1w", "sub-02/anat/sub-02_FLAIR")):
        (root / name).parent.mkdir(parents=True)
        write_scan((root / name).parent, Path(name).name, ".nii.gz", *head(number, (1, 1, 1), "RAS"))
    (root / "sub-02" / "anat" / "sub-02_T2w.nii.gz").touch()
    (root / "dataset_description.json").write_text(json.dumps({"Name": "raw", "BIDSVersion": "1.10.0"}))
    code, stderr = run(root, out, "group", command="bids")
    assert code == 2 and "Run the level 'participant' first" in stderr
    code, stderr = run(root, out, "participant", "--participant_label", "sub-01", "--probseg", command="bids")
    assert code == 0 and not (out / "volumes.tsv").exists()
    assert (out / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_seg-synthseg_desc-T1w_probseg.nii.gz").exists()
    assert run(root, out, "participant", "--participant_label", "02", command="bids")[0] == 1
    code, stderr = run(root, out, "group", command="bids")
    assert code == 1 and "2 of 3 scans are segmented, 1 failed" in stderr
    with open(out / "volumes.tsv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["participant_id"], row["session_id"], row["suffix"], row["status"]) for row in table] == [
        ("sub-01", "ses-a", "T1w", "done"),
        ("sub-02", "n/a", "FLAIR", "done"),
        ("sub-02", "n/a", "T2w", "failed"),
    ]
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    code, stderr = run(root, out, "group", "--participant_label", "01", command="bids")
    assert code == 2 and "Leave the filters out" in stderr


def test_nothing_to_segment_and_wrong_options_are_refused(run, scans, tmp_path):
    source, _ = scans
    out = tmp_path / "out"
    for arguments, message in (
        ((source / "absent", out), "there is no such file"),
        ((source, out, "--workers", "0"), "--workers is at least 1"),
        ((source, out, "--workers", "2", "--scheduler", "local"), "Give one of them"),
        ((source, out, "--filter", "acq"), "write ENTITY=LABEL"),
        ((source, out, "--participant-label", "01"), "filters need a BIDS dataset"),
    ):
        code, stderr = run(*arguments)
        assert code == 2 and message in stderr
    (tmp_path / "file").touch()
    code, stderr = run(source, tmp_path / "file")
    assert code == 2 and "the folder cannot be made" in stderr


def test_another_dataset_is_not_written_over(run, tmp_path):
    root = tmp_path / "raw"
    (root / "sub-01" / "anat").mkdir(parents=True)
    (root / "sub-01" / "anat" / "sub-01_T1w.nii.gz").touch()
    (root / "dataset_description.json").write_text("{}")
    code, stderr = run(root, root)
    assert code == 2 and "is the dataset itself" in stderr
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "dataset_description.json").write_text("{}")
    code, stderr = run(root, tmp_path / "other")
    assert code == 2 and "holds another dataset" in stderr
    assert (tmp_path / "other" / "dataset_description.json").read_text() == "{}"


def test_when_all_scans_fail_the_exit_code_says_so(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii").touch()
    code, stderr = run(tmp_path / "in", tmp_path / "out")
    assert code == 2 and "0 of 1 scans are segmented, 1 failed" in stderr


def local(tmp_path, weights) -> Plan:
    (tmp_path / "out").mkdir()
    config = config_of({}, weights_of(str(weights)))
    return Plan(str(tmp_path), str(tmp_path / "out"), config, (), str(weights), "cpu", 1)


def test_weights_that_cannot_be_loaded_end_the_batch_before_it_begins(tmp_path, weights):
    plan = local(tmp_path, weights)
    broken = Plan(plan.root, plan.output, {**plan.config, "weights": {}}, (), plan.model, "cpu", 1)
    workers = LocalWorkers(broken, 1)
    try:
        workers.submit(Item("a", "a.nii.gz", {}), None)
        with pytest.raises(WeightsError, match="are not those that the batch was begun with"):
            until(lambda: workers.next(1.0), 30)
    finally:
        workers.stop()


def test_workers_that_die_while_they_start_are_not_started_for_ever(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(processes, "child_environment", lambda: {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"})
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nprint('no luck', file=sys.stderr)\nos._exit(7)")
    workers = LocalWorkers(local(tmp_path, weights), 1)
    try:
        workers.submit(Item("a", "a.nii.gz", {}), None)
        with pytest.raises(JobError, match=r'die while they start\. Its last words: "no luck"'):
            until(lambda: (outcome := workers.next(1.0)) and outcome.status != LOST, 30)
    finally:
        workers.stop()


def test_a_worker_that_is_killed_in_the_middle_of_a_word_is_noticed(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(processes, "child_environment", lambda: {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"})
    says = '{"event": "ready"}\n{"event": "outcome", "key": "a", "sta'
    (tmp_path / "sitecustomize.py").write_text(f"import os\nos.write(1, {says.encode()!r})\nos._exit(7)")
    workers = LocalWorkers(local(tmp_path, weights), 1)
    try:
        workers.submit(Item("a", "a.nii.gz", {}), None)
        until(lambda: (outcome := workers.next(1.0)) and (outcome.key, outcome.status) == ("a", LOST), 30)
    finally:
        workers.stop()


def test_the_cores_of_this_process_are_counted():
    assert 1 <= cores() <= (os.cpu_count() or 1)
