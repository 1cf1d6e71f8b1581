"""A worker process of a batch: ``python -m synthseg_slicer.batch.worker``. :mod:`.processes` is the other side.

The first line on its standard input is the plan, each further one a scan, or ``{"stop": true}``::

    {"item": {"key": "sub-01/anat/sub-01_T1w.nii.gz", "labels": "...", "entities": {...}}, "seen": null}

It answers on its standard output with one JSON object a line::

    {"event": "ready"}
    {"event": "outcome", "key": "...", "status": "done", "reason": null, "warnings": 0, "elsewhere": false}
    {"event": "error", "kind": "OutputError", "message": "..."}

An error means that no scan can be segmented; the process then ends with exit code 1. It lives no longer than its
parent: when its standard input closes it ends at once.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from ..allocation import keep_freed_memory
from ..cancel import CancelToken
from ..errors import Cancelled
from ..worker import PARENT_GONE, explain, take_standard_output
from .plan import IN_FLIGHT, Item, Plan

_NO_MEMORY = "There is not enough memory to start another worker. Use fewer."


def main() -> int:
    """Segment what the parent asks for and return the exit code."""
    send = take_standard_output()
    faulthandler.enable()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a parent that ignores it hands that down
    warnings.simplefilter("ignore")  # they are kept with the results
    keep_freed_memory(one_arena=True)
    cancel = CancelToken()
    try:
        from .engine import Engine

        engine = Engine(Plan.load(sys.stdin.buffer.readline()), cancel)
    except Exception as error:
        failure = explain(error, _NO_MEMORY)
        send("error", kind=failure.kind, message=str(failure))
        return 1
    send("ready")

    def work(request: dict) -> None:
        try:
            send("outcome", **asdict(engine.process(Item(**request["item"]), request["seen"])))
        except Cancelled:
            pass
        except Exception as error:
            failure = explain(error, _NO_MEMORY)
            send("error", kind=failure.kind, message=str(failure))

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for line in sys.stdin.buffer:
            if not line.endswith(b"\n"):  # the parent was killed in the middle of it
                break
            request = json.loads(line)
            if "stop" in request:
                cancel.cancel()
                return 0
            pool.submit(work, request)
        os._exit(PARENT_GONE)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # libraries that take themselves down may crash, and take their time
