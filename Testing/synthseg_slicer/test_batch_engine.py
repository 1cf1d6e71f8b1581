"""Segmenting the scans of a batch in one process: files, records, deaths, cancelling, and threads side by side."""

from __future__ import annotations

import json
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from mixed_scans import PATIENT, head, write_mixed, write_scan

from synthseg_slicer.batch import engine as engine_room
from synthseg_slicer.batch.engine import MOST_DEATHS, Engine
from synthseg_slicer.batch.ledger import DONE, FAILED, RUNNING, Ledger, Record
from synthseg_slicer.batch.plan import BUSY, EXTRAS, OPTIONS, Item, Plan, config_of, weights_of
from synthseg_slicer.cancel import CancelToken
from synthseg_slicer.caught import caught_warnings
from synthseg_slicer.errors import Cancelled, OutputError, WeightsError
from synthseg_slicer.pipeline import segment

FAST = {"fast": True, "ct": False, "native": True, "contrast": "any", "refined": False, "robust": False}


@pytest.fixture
def plan(tmp_path, tiny_weights):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    model = str(tiny_weights)
    return Plan(str(tmp_path / "in"), str(tmp_path / "out"), config_of(FAST, weights_of(model)), (), model, "cpu", 1)


@pytest.fixture
def ledger(plan, tmp_path):
    return Ledger(tmp_path / "out")


def item(key: str, **entities) -> Item:
    return Item(key, f"{key.split('.')[0]}_synthseg.nii.gz", entities)


@pytest.fixture
def scan(tmp_path, plan) -> Item:
    write_scan(tmp_path / "in", "a", ".nii.gz", *head(0, (1.2, 0.9, 1), "LPS"))
    return item("a.nii.gz")


def test_the_options_of_a_plan_are_those_of_segment():
    assert set(OPTIONS) == set(FAST) and set(OPTIONS) <= set(segment.__kwdefaults__)


def test_files_and_record_are_those_of_a_single_call(plan, ledger, scan, tmp_path):
    outcome = Engine(replace(plan, extras=EXTRAS)).process(scan)
    assert (outcome.key, outcome.status, outcome.elsewhere) == ("a.nii.gz", DONE, False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = segment(tmp_path / "in" / "a.nii.gz", model=plan.model, device="cpu", **FAST)
    labels = nib.load(tmp_path / "out" / "a_synthseg.nii.gz")
    np.testing.assert_array_equal(labels.dataobj, expected.labels)
    np.testing.assert_allclose(labels.affine, expected.affine, atol=1e-5)
    assert nib.load(tmp_path / "out" / "a_synthseg_probseg.nii.gz").shape == (*expected.labels.shape, 33)
    assert "a.nii.gz" in (tmp_path / "out" / "a_synthseg.html").read_text(encoding="utf-8")
    record = ledger.read(scan.key)
    assert record.volumes == expected.volumes and record.config == plan.id and record.seconds > 0
    warned = [text.removeprefix(f"{tmp_path}/in/a.nii.gz: ") for text in expected.provenance["warnings"]]
    assert record.warnings == warned and outcome.warnings == len(warned) > 0
    assert set(record.outputs) == {"labels", *EXTRAS}
    assert all((tmp_path / "out" / file).is_file() for file in record.outputs.values())
    written = json.loads((tmp_path / "out" / "a_synthseg.json").read_text(encoding="utf-8"))
    assert written["outputs"] == record.outputs and written["options"] == expected.provenance["options"]
    assert written["input"]["path"] == "a.nii.gz" and written["input"]["sha256"] == record.sha256
    assert str(tmp_path) not in json.dumps(written)


KEY = "sub-01/anat/sub-01_T1w.nii.gz"


@pytest.mark.parametrize("space, reference", [({}, "orig"), ({"space": "MNI152"}, f"bids:raw:{KEY}")])
def test_a_bids_scan_gets_the_fields_of_a_derivative(plan, scan, tmp_path, space, reference):
    (tmp_path / "in" / KEY).parent.mkdir(parents=True)
    (tmp_path / "in" / scan.key).rename(tmp_path / "in" / KEY)
    labels = "sub-01/anat/sub-01_dseg.nii.gz"
    Engine(plan).process(Item(KEY, labels, {"sub": "01", **space, "suffix": "T1w"}))
    written = json.loads((tmp_path / "out" / "sub-01" / "anat" / "sub-01_dseg.json").read_text(encoding="utf-8"))
    assert written["Sources"] == [f"bids:raw:{KEY}"] and written["SpatialReference"] == reference
    assert written["input"]["path"] == KEY and written["outputs"] == {"labels": labels}


def test_all_formats_side_by_side_with_broken_ones(plan, ledger, tmp_path, monkeypatch):
    broken = write_mixed(tmp_path / "in", 20, 7)
    paths = [p for p in (tmp_path / "in").glob("*/*") if p.is_file() or p.is_dir()]
    items = [item(path.relative_to(tmp_path / "in").as_posix()) for path in sorted(paths)]
    engine, inside, most = Engine(plan), [], []

    def watched(function):
        def call(*arguments, **options):
            inside.append(function)
            most.append((len(inside), inside.count(function)))
            try:
                return function(*arguments, **options)
            finally:
                inside.remove(function)

        return call

    for name in ("read_scan", "segment", "write_volume"):
        monkeypatch.setattr(engine_room, name, watched(getattr(engine_room, name)))
    with ThreadPoolExecutor(3) as pool:
        outcomes = {outcome.key: outcome for outcome in pool.map(engine.process, items)}
    assert max(together for together, _ in most) > 1 and max(alike for _, alike in most) == 1
    assert {key for key, outcome in outcomes.items() if outcome.status == FAILED} == set(broken)
    for key, text in broken.items():
        record = ledger.read(key)
        assert text in record.reason and record.kind == "ScanError" and str(tmp_path) not in record.reason
    for path in (tmp_path / "out").rglob("*"):  # the series name a patient; nothing that is written does
        assert path.is_dir() or PATIENT.encode() not in path.read_bytes()


def test_warnings_go_to_the_scan_that_gave_them(plan, ledger, tmp_path, monkeypatch):
    """One scan is read, with warnings, while another is segmented, with warnings of its own."""
    data, affine = head(0, (1, 1, 1), "RAS")
    odd = data.astype(np.float32)
    odd[0, 0, :5] = np.nan
    write_scan(tmp_path / "in", "segmented", ".nii.gz", data[:, :, :30], affine)
    write_scan(tmp_path / "in", "read", ".nii.gz", odd, affine)
    items = [item("segmented.nii.gz"), item("read.nii.gz")]
    alone = Engine(plan)
    for one in items:
        alone.process(one)
    expected = [ledger.read(one.key).warnings for one in items]
    assert expected[0] != expected[1] and "NaN" in expected[1][0] and expected[0]
    segmenting, read = threading.Event(), threading.Event()
    read_scan, segment = engine_room.read_scan, engine_room.segment

    def read_and_tell(path):
        scan = read_scan(path)
        if path.name == "read.nii.gz":
            read.set()
        return scan

    def segment_meanwhile(*arguments, **options):
        segmenting.set()
        assert read.wait(30)
        return segment(*arguments, **options)

    monkeypatch.setattr(engine_room, "read_scan", read_and_tell)
    monkeypatch.setattr(engine_room, "segment", segment_meanwhile)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(alone.process, items[0], ledger.read(items[0].key).id)]
        assert segmenting.wait(30)
        futures.append(pool.submit(alone.process, items[1], ledger.read(items[1].key).id))
        assert [future.result().elsewhere for future in futures] == [False, False]
    assert [ledger.read(one.key).warnings for one in items] == expected


def test_caught_warnings_are_those_of_their_thread():
    inside, told = threading.Event(), threading.Event()

    def other():
        inside.wait()
        with caught_warnings() as caught:
            warnings.warn("other", stacklevel=1)
        told.set()
        return caught

    with warnings.catch_warnings(record=True) as shown, ThreadPoolExecutor(1) as pool:
        future = pool.submit(other)
        with caught_warnings() as caught:
            inside.set()
            told.wait()
            for _ in range(2):
                warnings.warn("mine", stacklevel=1)  # seen before or not
        warnings.warn("outside", stacklevel=1)
    assert [str(one.message) for one in caught] == ["mine", "mine"]
    assert [str(one.message) for one in future.result()] == ["other"]
    assert [str(one.message) for one in shown] == ["outside"]


def test_a_scan_that_another_process_has_done_meanwhile_is_not_done_again(plan, ledger, scan):
    engine = Engine(plan)
    ledger.write(record := Record(scan.key, plan.id, FAILED, kind="ScanError", reason="bad"))
    outcome = engine.process(scan, seen=None)
    assert (outcome.status, outcome.reason, outcome.elsewhere) == (FAILED, "bad", True)
    assert engine.process(scan, seen=record.id).status == DONE
    ledger.write(Record(scan.key, "other options", DONE))
    assert not engine.process(scan).elsewhere
    more = Engine(replace(plan, extras=("posteriors",)))
    assert not more.process(scan).elsewhere  # what is done has no posteriors
    assert more.process(scan).elsewhere


def test_a_claimed_scan_is_left_alone(plan, scan):
    engine = Engine(plan)
    assert engine._ledger.locks.claim(scan.key)
    assert engine.process(scan).status == BUSY
    engine._ledger.locks.release(scan.key)
    assert engine.process(scan).status == DONE


def test_a_scan_whose_process_died_is_segmented_alone_and_given_up_in_the_end(
    plan, ledger, scan, tmp_path, monkeypatch
):
    write_scan(tmp_path / "in", "b", ".nii.gz", *head(1, (1, 1, 1), "RAS"))
    leftovers = [tmp_path / "out" / f".0123abcd-a_synthseg.{suffix}" for suffix in ("nii.gz", "json")]
    for path in leftovers:
        path.touch()
    ledger.write(Record(scan.key, plan.id, RUNNING, MOST_DEATHS - 1))
    engine, reading, most = Engine(plan), [], []
    read_scan = engine_room.read_scan

    def slow(path):
        reading.append(path)
        most.append(len(reading))
        try:
            threading.Event().wait(0.2)  # time for the other thread to come in
            return read_scan(path)
        finally:
            reading.remove(path)

    monkeypatch.setattr(engine_room, "read_scan", slow)
    engine._reading = threading.Semaphore(2)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(engine.process, [scan, item("b.nii.gz")]))
    assert [outcome.status for outcome in outcomes] == [DONE, DONE] and max(most) == 1
    assert not any(path.exists() for path in leftovers)
    ledger.write(Record(scan.key, plan.id, RUNNING, MOST_DEATHS))
    outcome = engine.process(scan)
    assert outcome.status == FAILED and "died 3 times" in outcome.reason
    record = ledger.read(scan.key)
    assert not record.lasting
    assert engine.process(scan, seen=record.id).status == DONE  # in a later run it gets another chance


def test_cancelling_leaves_everything_as_it_was(plan, ledger, scan, tmp_path, monkeypatch):
    token = CancelToken()
    engine = Engine(plan, token)
    before = Record(scan.key, plan.id, RUNNING, 2)
    ledger.write(before)
    read_scan = engine_room.read_scan

    def cancelling(path):
        token.cancel()
        return read_scan(path)

    monkeypatch.setattr(engine_room, "read_scan", cancelling)
    with pytest.raises(Cancelled):
        engine.process(scan)
    assert ledger.read(scan.key) == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".synthseg"]
    with pytest.raises(Cancelled):
        engine.process(item("b.nii.gz"))
    assert ledger.read("b.nii.gz") is None


def test_what_goes_wrong_is_recorded_with_its_kind(plan, ledger, scan, monkeypatch):
    engine = Engine(plan)
    for error, kind in (
        (MemoryError(), "OutOfMemory"),
        (KeyError("x"), "Unexpected"),
        (OutputError("full"), "OutputError"),
    ):
        monkeypatch.setattr(engine_room, "segment", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        known = ledger.read(scan.key)
        assert engine.process(scan, known and known.id).status == FAILED
        assert ledger.read(scan.key).kind == kind and not ledger.read(scan.key).lasting


def test_when_not_even_the_record_can_be_written_that_is_told(plan, scan, monkeypatch):
    engine = Engine(plan)
    monkeypatch.setattr(engine._ledger, "write", lambda record: (_ for _ in ()).throw(OutputError("disk full")))
    with pytest.raises(OutputError, match="disk full"):
        engine.process(scan)
    assert engine._ledger.locks.claim(scan.key)  # given back


def test_other_weights_than_those_of_the_batch_are_refused(plan):
    other = {**plan.config, "weights": {"tiny": 64 * "0"}}
    with pytest.raises(WeightsError, match="are not those that the batch was begun with"):
        Engine(replace(plan, config=other))


def test_a_plan_travels_as_text(plan):
    plan = replace(plan, extras=("page",))
    assert Plan.load(plan.dump()) == plan and "\n" not in plan.dump() and Plan.load(plan.dump()).id == plan.id
