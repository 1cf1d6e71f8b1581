"""What the processes of a batch tell each other, as plain values that travel as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from .. import __version__
from ..cards import expert_files, read_card, weight_file

OPTIONS = ("fast", "ct", "native", "contrast", "refined", "robust")
"""Of :func:`synthseg_slicer.segment`, which results depend on."""


POSTERIORS, PAGE = EXTRAS = "posteriors", "page"
"""What can be written of a scan besides labels: soft posteriors, a report."""
IN_FLIGHT = 3
"""Scans that a process should have in work: one is read, one segmented, one written. More would only take memory."""
BUSY, LOST = "busy", "lost"
"""Outcomes besides the states of a record: another process holds the scan's claim; the process ended meanwhile."""


@dataclass(frozen=True)
class Item:
    """A scan to segment.

    Attributes
    ----------
    key : str
        Its path relative to the input, with slashes; what records and messages call it.
    labels : str
        Label file, relative to the output folder, with slashes.
    entities : dict
        Of its BIDS name, ``suffix`` included; empty for other scans.
    """

    key: str
    labels: str
    entities: dict[str, str]

    def outputs(self, extras: Iterable[str] = ()) -> dict[str, str]:
        """Return kind of output to file, relative to the output folder, of labels and of some of :data:`EXTRAS`."""
        stem = self.labels.removesuffix(".nii.gz")
        paths = {POSTERIORS: f"{stem.removesuffix('_dseg')}_probseg.nii.gz", PAGE: f"{stem}.html"}
        return {"labels": self.labels} | {kind: paths[kind] for kind in extras}


@dataclass(frozen=True)
class Outcome:
    """What became of a scan that a process was given.

    Attributes
    ----------
    key : str
    status : str
        ``done``, ``failed``, ``busy`` or ``lost``.
    reason : str or None
        Why it failed.
    warnings : int
        How many there were.
    elsewhere : bool
        Whether another process had done it meanwhile.
    """

    key: str
    status: str
    reason: str | None = None
    warnings: int = 0
    elsewhere: bool = False


@dataclass(frozen=True)
class Plan:
    """How a batch is done.

    Attributes
    ----------
    root, output : str
        Input and output folder, absolute. Scans are at ``root/key``.
    config : dict
        What results depend on: ``version`` of this package, ``options`` (:data:`OPTIONS`), and ``weights``, file to
        SHA-256. A folder holds results of one config only.
    extras : tuple of str
        What is written besides labels, of :data:`EXTRAS`.
    model : str or None
        Weight file; None for the bundled one.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    threads : int or None
        CPU threads of each process; None leaves torch's own choice.
    """

    root: str
    output: str
    config: dict
    extras: tuple[str, ...] = ()
    model: str | None = None
    device: str = "auto"
    threads: int | None = None

    @property
    def id(self) -> str:
        """Of the config."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:16]

    def dump(self) -> str:
        """Return the plan as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str | bytes) -> Plan:
        """Return the plan that :meth:`dump` wrote."""
        content = json.loads(text)
        return cls(**{**content, "extras": tuple(content["extras"])})


def config_of(options: dict, weights: dict[str, str]) -> dict:
    """Return a plan's config; ``options`` are :data:`OPTIONS`, ``weights`` what :func:`weights_of` returns."""
    return {"version": __version__, "options": options, "weights": weights}


def weights_of(model: str | None, task: str = "brain") -> dict[str, str]:
    """Return name and SHA-256 of the weights that will be used, as their cards say, and of their calibration.

    Loading compares the weights with their cards.

    Raises
    ------
    WeightsError
        They are missing, or their cards.
    """
    path = weight_file(task, model)
    found = {file.stem: read_card(file)["sha256"] for file in (path, *expert_files(path).values())}
    calibration = path.with_name(f"{path.stem}-quality.json")
    if calibration.exists():
        found[calibration.stem] = hashlib.sha256(calibration.read_bytes()).hexdigest()
    return found
