"""Batches under Dask distributed, with real schedulers and workers that are killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from batches import METHOD, SLOW, alive, children, failed, labels, same_tables, start, until
from mixed_scans import write_mixed

from synthseg_slicer.batch import cluster
from synthseg_slicer.batch.cluster import DaskWorkers, local_processes
from synthseg_slicer.batch.ledger import Ledger
from synthseg_slicer.batch.plan import LOST, OPTIONS, Item, Outcome, Plan, config_of, weights_of
from synthseg_slicer.cli import main
from synthseg_slicer.errors import ClusterError, OptionError, OutputError

linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes through /proc")
PLAN = Plan("", "", {})


def test_schedulers_are_told_apart_and_unknown_ones_refused():
    assert (local_processes("local"), local_processes("local:4")) == (1, 4)
    assert local_processes("tcp://localhost:8786") is None and local_processes("slurm:20") is None
    for scheduler in ("", "lsf:2", "local:0", "local:", "local:x", "slurm:-1"):
        with pytest.raises(OptionError, match=r"is unknown\. Choose local:N"):
            local_processes(scheduler)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    if pytest.importorskip("distributed"):
        with pytest.raises(ClusterError, match=r"--scheduler slurm needs dask-jobqueue .* pip install dask-jobqueue"):
            DaskWorkers(PLAN, "slurm:2")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"--scheduler needs Dask .* pip install 'synthseg-slicer\[batch\]'"):
        DaskWorkers(PLAN, "local")


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(ClusterError, match=f"no connection to the Dask scheduler {address}"):
        DaskWorkers(PLAN, address)


def test_a_worker_that_serves_several_batches_keeps_one_account_of_a_folder(tiny_weights, tmp_path, monkeypatch):
    monkeypatch.setattr("synthseg_slicer.allocation.keep_freed_memory", lambda **_: None)
    monkeypatch.setattr(cluster, "_engine", None)
    monkeypatch.setattr(cluster, "_ledgers", {})
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii").touch()
    out = tmp_path / "out"
    folders = str(tmp_path / "in"), str(out)
    weights = weights_of(str(tiny_weights))
    first, second = (
        Plan(*folders, config_of(dict.fromkeys(OPTIONS, False) | {"contrast": "any", "fast": fast}, weights))
        for fast in (True, False)
    )
    first, second = (replace(plan, model=str(tiny_weights), device="cpu", threads=1).dump() for plan in (first, second))
    scan = asdict(Item("a.nii", "a_synthseg.nii.gz", {}))
    out.mkdir()
    assert cluster.segment_on_worker(first, scan, None)["status"] == "failed"
    engine, account = cluster._engine[1], cluster._ledgers[str(out)]
    cluster.segment_on_worker(first, scan, account.read("a.nii").id)
    assert cluster._engine[1] is engine  # the weights were not loaded again
    cluster.segment_on_worker(second, scan, account.read("a.nii").id)
    assert cluster._engine[1] is not engine and cluster._ledgers == {str(out): account}
    shutil.rmtree(out)
    out.mkdir()
    assert cluster.segment_on_worker(second, scan, None)["status"] == "failed"
    assert cluster._ledgers[str(out)] is not account and Ledger(out).read("a.nii").status == "failed"


@pytest.fixture
def asked(monkeypatch):
    """Ask for a scan whose future, an :func:`answer`, ends in a certain way, and return what the workers say of it."""
    client = SimpleNamespace(status="running")
    monkeypatch.setattr(cluster, "_connect", lambda scheduler: (None, client))
    workers = DaskWorkers(PLAN, "tcp://localhost:8786")

    def ask(future: SimpleNamespace) -> Outcome | None:
        client.submit = lambda *_, **__: future
        workers.submit(Item("a", "a_synthseg.nii.gz", {}), None)
        return workers.next(1)

    return ask


def test_an_answer_that_does_not_arrive_is_asked_for_again(asked):
    killed = pytest.importorskip("distributed.scheduler").KilledWorker
    assert asked(answer("finished", {"key": "a", "status": "done"})) == Outcome("a", "done")
    assert asked(answer("finished", TimeoutError())) == Outcome("a", LOST)  # its worker died meanwhile
    assert asked(answer("lost")) == Outcome("a", LOST)  # the same, and the client knows
    assert asked(answer("error", killed("task", "worker", 3))) == Outcome("a", LOST)


def test_what_no_other_worker_could_mend_ends_the_batch(asked):
    pytest.importorskip("distributed")
    with pytest.raises(ClusterError, match=r"scheduler \(tcp://localhost:8786\) was lost"):
        asked(answer("cancelled"))
    with pytest.raises(OutputError, match=r"^out: the disk is full\."):
        asked(answer("error", OutputError("out: the disk is full.")))
    with pytest.raises(ClusterError, match="A Dask worker failed: KeyError"):
        asked(answer("error", KeyError("x")))


def answer(status: str, value: dict | Exception | None = None) -> SimpleNamespace:
    """Return a future of Dask that has come to an end."""

    def result(timeout: float) -> dict:
        if isinstance(value, Exception):
            raise value
        return value

    future = SimpleNamespace(status=status, result=result, exception=lambda timeout: value)
    future.add_done_callback = lambda function: function(future)
    return future


@pytest.fixture
def slow(tmp_path, monkeypatch) -> None:
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "slow"))


@linux
def test_lost_workers_and_a_lost_scheduler_change_nothing_in_the_tables(tiny_weights, tmp_path, capsys, slow):
    pytest.importorskip("distributed")
    source, out = tmp_path / "in", tmp_path / "out"
    broken = write_mixed(source, 10, 3)
    port = free_port()
    scheduler = dask("scheduler", "--host", "127.0.0.1", "--port", port)
    nanny = dask("worker", f"tcp://127.0.0.1:{port}", "--nthreads", 3, "--memory-limit", 0, "--death-timeout", 10)
    try:
        batch = start(tiny_weights, source, out, "--scheduler", f"tcp://127.0.0.1:{port}")
        until(lambda: len(labels(out)) >= 1)
        lost = workers_of(nanny.pid)
        for pid in lost:
            os.kill(pid, signal.SIGKILL)
        before = len(labels(out))
        until(lambda: len(labels(out)) > before)
        assert not any(map(alive, lost))
        scheduler.kill()
        _, stderr = batch.communicate(timeout=90)
    finally:
        for process in (scheduler, nanny):
            process.kill()
            process.wait()
        for pid in workers_of(nanny.pid):
            os.kill(pid, signal.SIGKILL)
    assert batch.returncode == 1 and 2 <= len(labels(out)) < 7
    (line,) = [line for line in stderr.splitlines() if "was lost" in line]
    assert line.endswith("of 10 scans are done. Run the same command again to go on.")
    assert "Traceback" not in stderr
    method = ("--model", str(tiny_weights), *METHOD)
    assert main(["batch", str(source), str(out), *method, "--scheduler", "local:1"]) == 1
    assert main(["batch", str(source), str(tmp_path / "whole"), *method]) == 1
    assert "7 of 10 scans are segmented, 3 failed" in capsys.readouterr().err
    assert same_tables(out, tmp_path / "whole") and set(failed(out)) == set(broken)
    assert {record.status for record in Ledger(out).records()} == {"done", "failed"}
    assert not list(out.rglob(".????????-*"))


def dask(*arguments) -> subprocess.Popen:
    program = Path(sys.executable).with_name("dask")
    command = [str(program), *map(str, arguments), "--no-dashboard"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a nanny, but not the helpers of Python's multiprocessing."""
    return [child for child in children(pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
