"""The account of a batch, in the folder ``.synthseg`` of its output: how it is done, and a record a scan.

Each record is a small JSON file of its own, replaced whole, and only the process that holds the scan's claim writes it.
So neither a killed process nor two processes at once can spoil it. Paths in it are relative, and it holds nothing of
what DICOM files say about patients.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from ..errors import OptionError, OutputError, ScanError
from ..files import atomic, reason, remove_leftovers
from .locks import RUN, SETUP, Locks

FOLDER = ".synthseg"
RUNNING, DONE, FAILED = "running", "done", "failed"
"""States of a scan; one that is ``running`` though nobody holds its claim was interrupted by the end of its process."""
FORMAT = 1


@dataclass(frozen=True)
class Record:
    """What is known of a scan.

    Attributes
    ----------
    key : str
        Path of the scan relative to the input, with slashes.
    config : str
        Id of the options and weights (:class:`.plan.Plan`).
    status : {"running", "done", "failed"}
    attempts : int
        How often it was begun in a row without coming to an end.
    entities : dict
        Of a BIDS name: entity to label, and ``suffix``.
    signature : list of int or None
        Size and time of change of the scan (:func:`signature`).
    kind, reason : str or None
        Why it failed: name of the error, and text.
    quality : float or None
        Expected Dice.
    volumes : dict
        Label id to mm³.
    warnings : list of str
    outputs : dict
        Kind of output to path relative to the output folder.
    sha256 : str or None
        Of the scan.
    seconds : float or None
        Reading and inference.
    id, time : str
        Of this record.
    """

    key: str
    config: str
    status: str
    attempts: int = 1
    entities: dict[str, str] = field(default_factory=dict)
    signature: list[int] | None = None
    kind: str | None = None
    reason: str | None = None
    quality: float | None = None
    volumes: dict[int, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    sha256: str | None = None
    seconds: float | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    time: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    @property
    def lasting(self) -> bool:
        """Whether a new attempt would end the same: it is done, or the scan itself is bad."""
        return self.status == DONE or (self.status == FAILED and self.kind == ScanError.__name__)


class Ledger:
    """The account in an output folder.

    Parameters
    ----------
    output : path
        The output folder, which exists; ``.synthseg`` is made in it.

    Raises
    ------
    OutputError
        It cannot be made.
    """

    def __init__(self, output: str | Path):
        self.output = Path(output)
        self._folder = self.output / FOLDER
        try:
            (self._folder / "records").mkdir(parents=True, exist_ok=True)
            self.locks = Locks(self._folder / "locks")
        except OSError as error:
            raise OutputError(
                f"{self._folder}: the account of the batch cannot be kept ({reason(error)}). Choose another output "
                "folder."
            ) from error

    @property
    def is_there(self) -> bool:
        """Whether the account is still in its folder, and not one that was made after the folder was removed."""
        return self.locks.are_on(self._folder / "locks")

    def close(self) -> None:
        """Leave the folder."""
        self.locks.close()

    def settings(self) -> dict | None:
        """Return what :meth:`join` wrote, or None if nobody has worked in the folder yet.

        Raises
        ------
        OutputError
            It is damaged.
        """
        path = self._folder / "settings.json"
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            if settings["format"] == FORMAT:
                return settings
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{path}: is damaged ({reason(error)}). Choose another output folder.") from error
        raise OutputError(f"{path}: was written by another version of this package. Choose another output folder.")

    def join(self, settings: dict, redo: bool = False) -> None:
        """Begin to work in the folder with these settings, which all who work in it share.

        Parameters
        ----------
        settings : dict
            Plain values; ``config`` of it is compared with those of earlier runs.
        redo : bool
            Replace other settings, unless somebody is working with them right now.

        Raises
        ------
        OptionError
            The folder holds results of another ``config``.
        OutputError
            The settings cannot be written.
        """
        with self.locks.exclusive(SETUP):
            before = self.settings()
            if before is None or before["config"] != settings["config"]:
                if before is not None:
                    changes = _changes(before["config"], settings["config"])
                    message = f"{self.output}: holds results made with other settings ({changes})."
                    if not redo:
                        raise OptionError(
                            f"{message} Choose another output folder, or give --redo to make them all again."
                        )
                    if not self.locks.alone(RUN):
                        raise OptionError(f"{message} Another process is working there with them; wait for its end.")
                with atomic(self._folder / "settings.json") as temporary:
                    text = json.dumps({"format": FORMAT, **settings}, indent=1, ensure_ascii=False)
                    temporary.write_text(text + "\n", encoding="utf-8")
            self.locks.share(RUN)

    def read(self, key: str) -> Record | None:
        """Return the record of a scan, or None if there is none, or none that can be read."""
        return _parsed(self._path(key))

    def write(self, record: Record) -> None:
        """Write the record of a scan whose claim this process holds.

        Raises
        ------
        OutputError
            It cannot be written, because the disk is full, for example.
        """
        path = self._path(record.key)
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({reason(error)}). Make room on the disk.") from error
        remove_leftovers(path)
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")

    def discard(self, key: str) -> None:
        """Remove the record of a scan whose claim this process holds."""
        with suppress(OSError):
            self._path(key).unlink()

    def records(self) -> Iterator[Record]:
        """Yield all records, in no particular order."""
        for path in self._folder.glob("records/??/*.json"):
            if (record := None if path.name.startswith(".") else _parsed(path)) is not None:
                yield record

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return self._folder / "records" / name[:2] / f"{name}.json"


def signature(path: Path) -> list[int] | None:
    """Return size and time of last change of a scan, of its files together; None where it cannot be told.

    Parameters
    ----------
    path : Path
        A file, with the data file beside a detached header, or a DICOM folder.
    """
    try:
        if path.is_dir():
            files = [file for file in path.iterdir() if file.is_file()]
        elif path.suffix.lower() in (".hdr", ".nhdr", ".mhd"):
            files = [file for file in path.parent.iterdir() if file.stem == path.stem]
        else:
            files = [path]
        stats = [file.stat() for file in files]
    except OSError:
        return None
    return [len(files), sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)]


def _parsed(path: Path) -> Record | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**content)
        return Record(**{**content, "volumes": {int(label): volume for label, volume in record.volumes.items()}})
    except (OSError, ValueError, TypeError):
        return None


def _changes(before: dict, now: dict) -> str:
    """Return what differs between two configurations, in words."""
    before, now = _flat(before), _flat(now)
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: {_word(before.get(name))}, now {_word(now.get(name))}" for name in names)


def _flat(config: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in config.items():
        flat |= _flat(value, f"{name} ") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _word(value) -> str:
    words = {None: "none", True: "yes", False: "no"}
    if isinstance(value, (bool, type(None))):
        return words[value]
    return f"{str(value)[:12]}…" if len(str(value)) > 32 else str(value)
