"""Feeding workers, which are played here, and what is told meanwhile."""

from __future__ import annotations

from collections import deque

import pytest

from synthseg_slicer.batch import dispatch as dispatching
from synthseg_slicer.batch import progress as telling
from synthseg_slicer.batch.dispatch import dispatch
from synthseg_slicer.batch.ledger import DONE, FAILED
from synthseg_slicer.batch.plan import BUSY, LOST, Item, Outcome
from synthseg_slicer.batch.progress import Progress, duration
from synthseg_slicer.errors import OutputError


class Played:
    """Workers that do what a list for each scan says, one thing after the other; then it is done."""

    def __init__(self, script: dict[str, list], capacity: int = 2):
        self.capacity, self._script, self._queue = capacity, script, deque()
        self.given: list[tuple[str, str | None]] = []
        self.most = 0

    def submit(self, item, seen):
        self.given.append((item.key, seen))
        self._queue.append(item.key)
        self.most = max(self.most, len(self._queue))

    def next(self, timeout):
        if not self._queue:
            return None
        key = self._queue.popleft()
        told = self._script.get(key, [])
        told = told.pop(0) if told else DONE
        if isinstance(told, Exception):
            raise told
        return Outcome(key, told, "bad" if told == FAILED else None)


@pytest.fixture
def progress(monkeypatch):
    monkeypatch.setattr(dispatching, "RETRY_SECONDS", 0.0)
    return Progress(5, quiet=True)


def items(*keys):
    return [(Item(key, f"{key}.nii.gz", {}), f"{key}-before") for key in keys]


def test_every_scan_comes_to_an_end_with_no_more_in_work_than_fit(progress, capsys):
    workers = Played({"b": [FAILED]})
    assert dispatch(items(*"abcde"), workers, progress) == {DONE: 4, FAILED: 1}
    assert workers.most == 2 and workers.given[0] == ("a", "a-before")
    assert capsys.readouterr().err == "synthseg-slicer: b: bad\n"


def test_scans_of_lost_workers_are_given_out_again_after_the_others(progress):
    workers = Played({"a": [LOST, LOST], "b": [LOST]})
    assert dispatch(items(*"abcde"), workers, progress) == {DONE: 5, FAILED: 0}
    assert sorted(key for key, _ in workers.given) == sorted("abcde" + "aa" + "b")
    assert [key for key, _ in workers.given][:5] == list("abcde")


def test_claimed_scans_are_tried_again_until_they_are_done(progress):
    workers = Played({"a": [BUSY] * 3, "b": [BUSY, FAILED]})
    assert dispatch(items("a", "b"), workers, progress) == {DONE: 1, FAILED: 1}


def test_an_error_of_all_workers_ends_it(progress):
    with pytest.raises(OutputError, match="disk"):
        dispatch(items(*"abc"), Played({"b": [OutputError("disk full")]}), progress)


def test_the_line_tells_rate_and_remaining_time(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(telling.time, "monotonic", lambda: now[0])
    progress = Progress(103, before=1)
    for _ in range(2):
        now[0] += 30
        progress.count(Outcome("a", DONE))
    progress.show()
    assert capsys.readouterr().err == "3 of 103, 2 a minute, 50 min left\n"
    progress.show()
    assert capsys.readouterr().err == ""  # not so soon
    now[0] += 31
    progress.show(claimed=2)
    assert "waiting for 2 of another process" in capsys.readouterr().err


def test_on_a_terminal_the_line_is_written_over(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress(2)
    progress.show()
    progress.count(Outcome("a", FAILED, "bad"))
    progress.show()
    progress.close()
    text = capsys.readouterr().err
    assert text.startswith("\r\033[K[....................] 0 of 2\r\033[Ksynthseg-slicer: a: bad\n")
    assert "[##########..........] 1 of 2, 1 failed" in text and text.endswith("\r\033[K")


@pytest.mark.parametrize(
    "seconds, text", [(0, "0 s"), (89, "89 s"), (91, "2 min"), (7300, "2 h 2 min"), (200_000, "2 d 8 h")]
)
def test_times_in_words(seconds, text):
    assert duration(seconds) == text
