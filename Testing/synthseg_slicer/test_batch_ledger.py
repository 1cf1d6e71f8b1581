"""The account of a batch: records, claims between processes, settings, what is left to do, and the tables."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest
from mixed_scans import head, write_dicom

from synthseg_slicer.batch import locks
from synthseg_slicer.batch.cohort import describe_dataset, write_cohort
from synthseg_slicer.batch.discovery import Found
from synthseg_slicer.batch.ledger import DONE, FAILED, RUNNING, Ledger, Record, signature
from synthseg_slicer.batch.plan import PAGE, POSTERIORS, Item, Plan, config_of
from synthseg_slicer.batch.resume import resume
from synthseg_slicer.errors import OptionError, OutputError
from synthseg_slicer.files import atomic
from synthseg_slicer.labels import BRAIN

posix = pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
CONFIG = config_of({"fast": False, "ct": None}, {"brain": 64 * "a"})


@pytest.fixture
def ledger(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    ledger = Ledger(folder)
    yield ledger
    ledger.close()


@pytest.fixture
def plan(tmp_path, ledger):
    (tmp_path / "in").mkdir()
    return Plan(str(tmp_path / "in"), str(ledger.output), CONFIG)


def settings(config=CONFIG, is_bids=False) -> dict:
    plan = Plan("", "", config)
    return {"id": plan.id, "config": config, "is_bids": is_bids, "labels": [asdict(label) for label in BRAIN]}


@contextmanager
def other_process(ledger, code: str):
    """Run code with another ``ledger`` on the same folder in a process that waits when it has printed a line."""
    lines = ("import sys", "from synthseg_slicer.batch.ledger import *", "ledger = Ledger(sys.argv[1])", code)
    script = "\n".join((*lines, "print('here', flush=True)", "sys.stdin.read()"))
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", script, str(ledger.output)]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
    try:
        assert process.stdout.readline() == "here\n"
        yield process
    finally:
        process.kill()
        process.communicate()


# ---- records ----


def test_a_record_comes_back_as_it_was_written(ledger):
    volumes = {2: 0.1, 58: 1e6}
    record = Record(
        "a/ü\udcff.nii", "c", DONE, 2, {"sub": "01"}, [1, 2, 3], None, None, 0.5, volumes, ["w"], {"labels": "x"}
    )
    ledger.write(record)
    assert ledger.read(record.key) == record and list(ledger.records()) == [record]
    ledger.write(replace(record, status=FAILED))
    assert [one.status for one in ledger.records()] == [FAILED]
    ledger.discard(record.key)
    assert ledger.read(record.key) is None and list(ledger.records()) == []


def test_a_damaged_record_counts_as_none_and_leftovers_of_killed_writers_go(ledger):
    ledger.write(Record("a", "c", DONE))
    (path,) = ledger.output.glob(".synthseg/records/??/*.json")
    path.write_text(path.read_text()[:50])
    (leftover := path.with_name(f".0123abcd-{path.name}")).write_text("{}")
    (other := path.with_name(".0123abcd-other.json")).write_text("{}")
    assert ledger.read("a") is None and list(ledger.records()) == []
    ledger.write(Record("a", "c", DONE))
    assert ledger.read("a").status == DONE and not leftover.exists() and other.exists()


def test_a_full_disk_is_told(ledger, monkeypatch):
    @contextmanager
    def full(path):
        raise OutputError(f"{path}: cannot be written (No space left on device).")
        yield

    monkeypatch.setattr("synthseg_slicer.batch.ledger.atomic", full)
    with pytest.raises(OutputError, match="No space left"):
        ledger.write(Record("a", "c", DONE))


def test_no_account_can_be_kept_where_a_file_is_in_the_way(tmp_path):
    (tmp_path / ".synthseg").touch()
    with pytest.raises(OutputError, match="the account of the batch cannot be kept"):
        Ledger(tmp_path)


@pytest.mark.parametrize("kind, lasting", [("ScanError", True), ("OutputError", False), ("Died", False)])
def test_only_a_bad_scan_is_not_tried_again(kind, lasting):
    assert Record("a", "c", FAILED, kind=kind).lasting is lasting


def test_the_signature_tells_a_change_of_any_file_of_a_scan(tmp_path):
    header, data = tmp_path / "x.nhdr", tmp_path / "x.raw"
    header.write_text("a")
    data.write_bytes(b"ab")
    before = signature(header)
    assert before[:2] == [2, 3]
    os.utime(data, ns=(1, before[2] + 10**9))
    assert signature(header) != before
    series = write_dicom(tmp_path / "series", head(0, (1, 1, 1), "RAS")[0], head(0, (1, 1, 1), "LPS")[1])
    before = signature(series)
    next(series.iterdir()).unlink()
    assert signature(series)[0] == before[0] - 1
    assert signature(tmp_path / "absent") is None


# ---- claims ----


@posix
def test_a_claim_excludes_other_processes_until_it_is_released_or_its_process_is_killed(ledger):
    with other_process(ledger, "assert ledger.locks.claim('a')") as process:
        assert not ledger.locks.claim("a")
        assert ledger.locks.claim("b") and not ledger.locks.claim("b")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert ledger.locks.claim("a")
    with other_process(ledger, "assert not ledger.locks.claim('a') and not ledger.locks.claim('b')"):
        ledger.locks.release("a")
    with other_process(ledger, "assert ledger.locks.claim('a')"):
        pass


@posix
@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_lock_that_another_process_holds_is_not_taken_for_a_missing_one(tmp_path, monkeypatch, number):
    def refuse(self, kind, byte):
        raise OSError(number, os.strerror(number))  # which one depends on the system

    monkeypatch.setattr(locks.Locks, "_lock", refuse)
    ledger = Ledger(tmp_path)
    assert ledger.locks.supported and not ledger.locks.claim("a") and not ledger.locks.alone(locks.RUN)
    ledger.close()


@pytest.mark.parametrize("how", ["no fcntl", "no locks on the file system", "none at such a place in a file"])
def test_without_locks_claims_are_granted_within_the_process(tmp_path, monkeypatch, how):
    def refuse(self, kind, byte):
        if how == "no locks on the file system":
            raise OSError(errno.ENOLCK, "No locks available")
        if byte > 2**31:
            raise OSError(errno.EOVERFLOW, "Value too large for defined data type")

    if how == "no fcntl":
        monkeypatch.setattr(locks, "fcntl", None)
    else:
        monkeypatch.setattr(locks.Locks, "_lock", refuse)
    ledger = Ledger(tmp_path)
    assert not ledger.locks.supported
    assert ledger.locks.claim("a") and not ledger.locks.claim("a")
    ledger.locks.release("a")
    assert ledger.locks.claim("a") and ledger.locks.alone(locks.RUN)
    ledger.join(settings())
    with ledger.locks.exclusive(locks.TABLES):
        pass
    ledger.close()


# ---- settings ----


def test_other_options_or_weights_are_noticed_and_named(ledger):
    ledger.join(settings())
    ledger.join(settings())
    other = config_of({"fast": True, "ct": None}, {"brain": 64 * "b", "brain-t1": 64 * "c"})
    with pytest.raises(OptionError) as caught:
        ledger.join(settings(other))
    message = str(caught.value)
    assert "fast: no, now yes; weights brain: aaaaaaaaaaaa…, now bbbbbbbbbbbb…; weights brain-t1: none" in message
    assert "--redo" in message and ledger.settings()["config"] == CONFIG
    ledger.join(settings(other), redo=True)
    assert ledger.settings()["config"] == other


@posix
def test_settings_with_which_another_process_works_are_not_replaced(ledger):
    other = config_of({"fast": True, "ct": None}, {})
    with other_process(ledger, f"ledger.join({settings()!r})"):
        ledger.join(settings())  # the same ones are shared
        with pytest.raises(OptionError, match="Another process is working there"):
            ledger.join(settings(other), redo=True)
    ledger.join(settings(other), redo=True)


@pytest.mark.parametrize("text, message", [("{", "is damaged"), ('{"format": 99}', "another version")])
def test_settings_that_cannot_be_understood_are_refused(ledger, text, message):
    (ledger.output / ".synthseg" / "settings.json").write_text(text)
    with pytest.raises(OutputError, match=message):
        ledger.join(settings())


# ---- what is left to do ----


def made(plan, ledger, key, status=DONE, **changes) -> Item:
    """Write a scan, its record and its results; return the item."""
    root, item = ledger.output.parent / "in", Item(key, f"{key}_synthseg.nii.gz", {})
    (root / key).write_text(key)
    (ledger.output / item.labels).touch()
    facts = {"signature": signature(root / key), "outputs": item.outputs(), **changes}
    ledger.write(Record(key, facts.pop("config", plan.id), status, **facts))
    return item


def test_what_is_done_is_left_out_and_everything_else_is_left_to_do(plan, ledger):
    done = made(plan, ledger, "done")
    bad = made(plan, ledger, "bad", FAILED, kind="ScanError", outputs={})
    other = [
        made(plan, ledger, "disk full", FAILED, kind="OutputError"),
        made(plan, ledger, "interrupted", RUNNING),
        made(plan, ledger, "of other options", config="other"),
        Item("new", "new_synthseg.nii.gz", {}),
    ]
    found = Found(ledger.output.parent / "in", [done, bad, *other], False)
    left = resume(found, plan, ledger)
    assert [item for item, _ in left.todo] == other and (left.changed, left.incomplete) == (0, 0)
    seen = dict((item.key, seen) for item, seen in left.todo)
    assert seen["new"] is None and seen["interrupted"] == ledger.read("interrupted").id
    assert [item.key for item, _ in resume(found, plan, ledger, retry_failed=True).todo][:1] == ["bad"]
    assert len(resume(found, plan, ledger, redo=True).todo) == 6


def test_changed_scans_and_missing_results_are_made_again(plan, ledger):
    items = [made(plan, ledger, name) for name in ("kept", "changed", "fixed", "removed")]
    root = ledger.output.parent / "in"
    (root / "changed").write_text("more than before")
    made(plan, ledger, "fixed", FAILED, kind="ScanError", signature=[1, 0, 0])
    (ledger.output / items[3].labels).unlink()
    found = Found(root, items, False)
    left = resume(found, plan, ledger)
    assert [item.key for item, _ in left.todo] == ["changed", "fixed", "removed"]
    assert (left.changed, left.incomplete) == (2, 1)
    left = resume(found, replace(plan, extras=(POSTERIORS,)), ledger)  # more is wanted now
    assert (len(left.todo), left.incomplete) == (4, 2)


# ---- tables ----


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def records(ledger, plan, entities=True) -> None:
    volumes = {label.id: float(label.id) for label in BRAIN if label.id}
    who = {"sub": "01", "ses": "a", "suffix": "T1w"}, {"sub": "02", "suffix": "FLAIR"}, {"sub": "03", "suffix": "T1w"}
    one, two, three = who if entities else ({}, {}, {})
    keys = ("b", "a", "c")
    for key in keys:
        (ledger.output.parent / "in" / key).touch()
    outputs = {"labels": "b_dseg.nii.gz", PAGE: "b_dseg.html"}
    ledger.write(
        Record("b", plan.id, DONE, quality=0.7891, volumes=volumes, outputs=outputs, warnings=["w"], entities=one)
    )
    ledger.write(Record("a", plan.id, FAILED, kind="ScanError", reason="no\tgood\nat all", entities=two))
    ledger.write(Record("c", plan.id, RUNNING, entities=three))
    ledger.write(Record("gone", plan.id, DONE))
    ledger.write(Record("old", "other options", DONE))


def test_the_tables_hold_every_scan_that_came_to_an_end(plan, ledger):
    ledger.join(settings(is_bids=True))
    records(ledger, plan)
    described = write_cohort(ledger, ledger.output.parent / "in", keys=["b"])
    assert [record.key for record in described] == ["a", "b"]
    failed, done = rows(ledger.output / "volumes.tsv")
    assert (failed["participant_id"], failed["session_id"], failed["suffix"]) == ("sub-02", "n/a", "FLAIR")
    assert (done["participant_id"], done["session_id"], done["quality"]) == ("sub-01", "ses-a", "0.789")
    assert failed["status"] == "failed" and failed["Brain-Stem"] == failed["quality"] == "n/a"
    assert done["Brain-Stem"] == "16.000"
    assert float(done["Total-Intracranial"]) == sum(label.id for label in BRAIN)
    columns = json.loads((ledger.output / "volumes.json").read_text())
    assert set(columns) | {"participant_id", "session_id", "suffix"} == set(done)
    assert rows(ledger.output / "problems.tsv") == [
        {"scan": "a", "problem": "failed", "text": "no good at all"},
        {"scan": "b", "problem": "warning", "text": "w"},
    ]
    page = (ledger.output / "report.html").read_text(encoding="utf-8")
    assert "b_dseg.html" in page and "at all" in page


def test_scans_that_are_gone_are_left_out_but_not_those_that_were_asked_for(plan, ledger):
    ledger.join(settings())
    records(ledger, plan, entities=False)
    (ledger.output.parent / "in" / "a").unlink()
    write_cohort(ledger, ledger.output.parent / "in")
    assert [row["scan"] for row in rows(ledger.output / "volumes.tsv")] == ["b"]
    write_cohort(ledger, ledger.output.parent / "in", keys=["a", "b"])
    table = rows(ledger.output / "volumes.tsv")
    assert [row["scan"] for row in table] == ["a", "b"] and "participant_id" not in table[0]


def test_a_derived_dataset_is_described(plan, ledger):
    ledger.join(settings(is_bids=True))
    describe_dataset(ledger, ledger.output.parent / "in")
    description = json.loads((ledger.output / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["DatasetLinks"] == {"raw": "../in"}
    assert description["GeneratedBy"][0]["Name"] == "synthseg-slicer"
    assert "brain aaaaaaaaaaaa" in description["GeneratedBy"][0]["Description"]
    assert rows(ledger.output / "dseg.tsv")[1] == {
        "index": "2",
        "name": "Left-Cerebral-White-Matter",
        "color": "#f5f5f5",
    }
    assert "volumes.tsv" in (ledger.output / ".bidsignore").read_text()
    assert len(json.loads((ledger.output / "seg-synthseg_probseg.json").read_text())["LabelMap"]) == len(BRAIN)


@posix
def test_tables_are_written_by_one_process_at_a_time(plan, ledger):
    ledger.join(settings())
    writer = threading.Thread(target=write_cohort, args=(ledger, ledger.output.parent / "in"))
    with other_process(ledger, f"held = ledger.locks.exclusive({locks.TABLES}); held.__enter__()"):
        writer.start()
        writer.join(0.3)
        assert writer.is_alive() and not (ledger.output / "volumes.tsv").exists()
    writer.join(10)
    assert (ledger.output / "volumes.tsv").exists()


def test_leftovers_of_outputs_are_found_by_their_names(tmp_path):
    from synthseg_slicer.files import remove_leftovers

    target = tmp_path / "a[1].nii.gz"
    outer = atomic(target)
    inner = atomic(outer.__enter__())  # writers of files are atomic themselves
    inner.__enter__().touch()  # as if it had been killed here
    kept = [
        tmp_path / name for name in (".x-a[1].nii.gz", "a[1].nii.gz", ".0123abcd-xa[1].nii.gz", ".0123abcd-a1.nii.gz")
    ]
    for path in kept:
        path.touch()
    assert len(list(tmp_path.iterdir())) == len(kept) + 1
    remove_leftovers(target)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
