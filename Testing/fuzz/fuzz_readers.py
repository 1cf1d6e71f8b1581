"""Read thousands of spoiled scans and see that each is refused with a reason or segmented.

    python Testing/fuzz/fuzz_readers.py -n 5000 --seed 0

Small intact scans of every format are made up (:mod:`seeds`), spoiled (:mod:`mutations`) and read in a child process
with a limit on memory (:mod:`reader`). Found and kept are, in a folder of their own each: crashes of the process, hangs
(more than 5 s to read), errors that are none of the package's own, silent nonsense (what was accepted has no finite
affine, no finite voxels, more voxels than the file can hold, or voxels that a checksum should have refused), and greed
(more than 300 MB for a file of some kilobytes). The exit code is 0 if there are none. Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import selectors
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from mutations import Case, mutate
from seeds import make_seeds

from synthseg_slicer.scan import read_scan

SLOW_S = 5.0
"""A file that takes longer to read hangs."""
PATIENCE_S = 60.0
"""For what follows the reading: conforming and segmenting an accepted scan."""
GREEDY = 300e6
"""Bytes of resident memory that reading a spoiled file of some kilobytes may take."""
GOOD = ("refused", "accepted", "segmented")


class Child:
    """The reading process, started again when it dies."""

    def __init__(self, log: Path):
        self._log = open(log, "ab")
        self._process = None

    def ask(self, question: dict) -> dict:
        """Return the answer, or what became of the process."""
        if self._process is None:
            self._start()
        process = self._process
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
        line = self._line(SLOW_S + PATIENCE_S)
        if line is None:
            self.close()
            return {"outcome": "hang", "seconds": SLOW_S + PATIENCE_S, "memory": 0, "message": ""}
        if not line:
            code = process.wait()
            self._process = None
            return {"outcome": "crash", "seconds": 0.0, "memory": 0, "message": f"exit code {code}"}
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("reader.py"))]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, bufsize=0)
        if not self._line(300):
            raise SystemExit(f"the reading process does not start; see {self._log.name}")

    def _line(self, seconds: float) -> bytes | None:
        """Return one line, nothing at the end of the stream, None if there is none in time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            line = b""
            while not line.endswith(b"\n"):
                if not selector.select(seconds):
                    return None
                part = self._process.stdout.read(2**16)
                if not part:
                    return b""
                line += part
        return line


def fuzz(count: int, seed: int, folder: Path, segmented: float) -> tuple[dict[str, Counter], list[dict]]:
    """Read ``count`` spoiled scans; a share of ``segmented`` of those that are accepted is segmented.

    Returns
    -------
    outcomes : dict of str to Counter
        Of each format.
    answers : list of dict
        Everything that was said of each case.
    """
    rng = random.Random(seed)
    (folder / "seeds").mkdir(parents=True)
    seeds = make_seeds(folder / "seeds")
    hashes = {seed.name: _voxels(folder / "seeds" / seed.name / seed.target) for seed in seeds}
    child, outcomes, answers = Child(folder / "log.txt"), defaultdict(Counter), []
    try:
        for number in range(count):
            case = mutate(seeds[number % len(seeds)], rng)
            place = folder / f"{number:06d}-{case.seed.name}"
            _write(case, place)
            question = {"path": str(place / case.seed.target), "segment": rng.random() < segmented}
            answer = child.ask(question | {"sha256": hashes[case.seed.name] if case.intact else None})
            if answer["outcome"] in GOOD and answer["seconds"] > SLOW_S:
                answer["outcome"] = "hang"
            if answer["outcome"] in GOOD and answer["memory"] > GREEDY:
                answer["outcome"] = "greed"
            outcomes[case.seed.name][answer["outcome"]] += 1
            answers.append(answer | {"case": place.name, "how": case.how})
            if answer["outcome"] in GOOD:
                _remove(place)
    finally:
        child.close()
    return outcomes, answers


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=5000, help="spoiled scans (default 5000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--segment", type=float, default=0.1, help="share of the accepted that is segmented")
    parser.add_argument("-o", "--output", type=Path, help="keep what was found there (default: a temporary folder)")
    options = parser.parse_args()
    folder = options.output or Path(tempfile.mkdtemp(prefix="fuzz-"))
    outcomes, answers = fuzz(options.n, options.seed, folder, options.segment)
    kinds = sorted({kind for counts in outcomes.values() for kind in counts}, key=lambda k: (k not in GOOD, k))
    print(f"| format | {' | '.join(kinds)} |\n|---|{'---|' * len(kinds)}")
    for name, counts in outcomes.items():
        print(f"| {name} | {' | '.join(str(counts[kind]) for kind in kinds)} |")
    total = sum(outcomes.values(), Counter())
    print(f"| all | {' | '.join(str(total[kind]) for kind in kinds)} |")
    slowest, largest = (max(answers, key=lambda a, k=key: a[k]) for key in ("seconds", "memory"))
    print(f"\nslowest {slowest['seconds']:.2f} s, most memory {largest['memory'] / 1e6:.0f} MB")
    bad = [answer for answer in answers if answer["outcome"] not in GOOD]
    for answer in bad:
        print(f"{answer['outcome']}: {folder / answer['case']} ({answer['how']}): {answer['message'][:300]}")
    sys.exit(1 if bad else 0)


def _voxels(path: Path) -> str:
    return hashlib.sha256(np.ascontiguousarray(read_scan(path).data).tobytes()).hexdigest()


def _write(case: Case, place: Path) -> None:
    place.mkdir()
    for name, content in case.files.items():
        (place / name).write_bytes(content)


def _remove(place: Path) -> None:
    for file in place.iterdir():
        file.unlink()
    place.rmdir()


if __name__ == "__main__":
    main()
