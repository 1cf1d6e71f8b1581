"""Worker processes on this machine (:mod:`.worker`): started, fed, listened to, and replaced when they die."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from typing import BinaryIO

from .. import errors
from ..errors import JobError, SynthSegError
from ..files import reason
from ..job import child_environment
from .plan import IN_FLIGHT, LOST, Item, Outcome, Plan

MOST_FALSE_STARTS = 3
"""So often in a row may a process end before it is ready."""
STOP_SECONDS = 30.0
"""Time to end what is being written after :meth:`LocalWorkers.stop`; then processes are killed."""
_LOG_BYTES = 4096


class LocalWorkers:
    """A number of worker processes.

    Parameters
    ----------
    plan : Plan
    count : int
        Number of processes.

    Attributes
    ----------
    capacity : int
        Scans that may be in work at a time.
    """

    def __init__(self, plan: Plan, count: int):
        self._plan, self.capacity = plan, count * IN_FLIGHT
        self._events: queue.Queue[tuple[_Process, dict | None]] = queue.Queue()
        self._lost: list[Outcome] = []
        self._false_starts = 0
        self._processes = [_Process(plan, self._events) for _ in range(count)]

    def submit(self, item: Item, seen: str | None) -> None:
        """Give a scan to the process that has the fewest."""
        min(self._processes, key=lambda process: len(process.flight)).submit(item, seen)

    def next(self, timeout: float) -> Outcome | None:
        """Return what became of one scan, or None if nothing happened for ``timeout`` seconds.

        Raises
        ------
        SynthSegError
            No scan can be segmented.
        """
        if self._lost:
            return self._lost.pop()
        try:
            process, event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if event is None:
            self._replace(process)
        elif event["event"] == "ready":
            self._false_starts = 0
        elif event["event"] == "error":
            raise _error(event["kind"], event["message"])
        else:
            process.flight.discard(event["key"])
            return Outcome(**{name: value for name, value in event.items() if name != "event"})
        return self.next(0.0) if self._lost else None

    def stop(self) -> None:
        """End all processes, which finish what they are writing."""
        for process in self._processes:
            process.ask_to_stop()
        for process in self._processes:
            process.end(STOP_SECONDS)

    def _replace(self, dead: _Process) -> None:
        """Start another process for one that ended by itself."""
        dead.end(STOP_SECONDS)
        self._false_starts += not dead.ready
        if self._false_starts >= MOST_FALSE_STARTS:
            raise JobError("Crashed", f"Worker processes die while they start. {dead.last_words}", dead.log)
        self._lost += [Outcome(key, LOST) for key in sorted(dead.flight)]
        self._processes[self._processes.index(dead)] = _Process(self._plan, self._events)


class _Process:
    """One process, what it has in work, and the end of what its libraries print."""

    def __init__(self, plan: Plan, events: queue.Queue):
        self.flight: set[str] = set()
        self.ready = False
        self._log = bytearray()
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", f"{__package__}.worker"]
        environment = {**os.environ, **child_environment()}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env=environment,
                start_new_session=True,  # Ctrl+C is for the parent, which ends its workers in order
            )
        except OSError as error:
            raise JobError("NotStarted", f"A worker process could not be started ({reason(error)}).") from error
        self._listeners = [
            threading.Thread(target=self._listen, args=(self._process.stdout, events), daemon=True),
            threading.Thread(target=self._keep_log, args=(self._process.stderr,), daemon=True),
        ]
        for thread in self._listeners:
            thread.start()
        self._say(plan.dump())

    @property
    def log(self) -> str:
        """The end of what it printed."""
        return self._log.decode("utf-8", "replace")

    @property
    def last_words(self) -> str:
        """The last line of the log, as a sentence."""
        lines = [line.strip() for line in self.log.splitlines() if line.strip()]
        return f'Its last words: "{lines[-1]}".' if lines else "It left no message."

    def submit(self, item: Item, seen: str | None) -> None:
        self.flight.add(item.key)
        self._say(json.dumps({"item": asdict(item), "seen": seen}))

    def ask_to_stop(self) -> None:
        self._say('{"stop": true}')

    def end(self, seconds: float) -> None:
        """Wait until the process has ended, and kill it after so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._listeners:
            thread.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(BrokenPipeError):  # what it was told last did not arrive
                stream.close()

    def _say(self, line: str) -> None:
        with suppress(OSError, ValueError):  # it has died, which its closed output tells, or was ended
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def _listen(self, stream: BinaryIO, events: queue.Queue) -> None:
        for line in stream:
            if not line.endswith(b"\n"):  # it was killed in the middle of it
                break
            event = json.loads(line)
            self.ready |= event["event"] == "ready"
            events.put((self, event))
        events.put((self, None))

    def _keep_log(self, stream: BinaryIO) -> None:
        while data := os.read(stream.fileno(), 2**16):
            self._log += data
            del self._log[:-_LOG_BYTES]


def _error(kind: str, message: str) -> SynthSegError:
    """Return the error that a worker told of as an error of this process."""
    named = getattr(errors, kind, None)
    if named is None or named is JobError:
        return JobError(kind, message)
    return named(message)
