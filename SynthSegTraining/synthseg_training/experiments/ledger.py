"""What an experiment has done already: one record a unit of work, each written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from synthseg_slicer import __version__
from synthseg_slicer.files import atomic

SHOWN = 4
"""Differences that a refusal names."""


class Ledger:
    """Records of an experiment's units of work, from which the same command goes on after any interruption.

    Parameters
    ----------
    folder : Path
        The experiment's; ``settings.json`` and ``units/`` are kept in it, and it is made if need be.
    settings : dict
        What all units have in common besides this package's version, plain values. More scans, arms or seeds are more
        units, not other settings.

    Raises
    ------
    ValueError
        The folder holds units of other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder = Path(folder)
        self.units = self.folder / "units"
        self.units.mkdir(parents=True, exist_ok=True)
        path, settings = self.folder / "settings.json", _plain({"version": __version__, **settings})
        if path.exists():
            self._refuse(path, _read(path), settings, f"Give another folder, or empty {self.folder}.")
        else:
            _write(path, settings)

    def once(self, key: str, inputs: dict[str, Any], work: Callable[[], Any]) -> Any:
        """Return a unit's result, from its record or, the first time, by doing the work.

        Parameters
        ----------
        key : str
            Names the unit.
        inputs : dict
            What this unit is made from (hashes of weights and scans), plain values.
        work : callable
            Returns the result in plain values.

        Raises
        ------
        ValueError
            The record was made from other inputs.
        """
        path = self.path(key)
        if not path.exists():
            _write(path, {"key": key, "inputs": _plain(inputs), "result": _plain(work())})
        record = _read(path)
        self._refuse(
            path, record["inputs"], _plain(inputs), f"Delete {path} to do this part anew, or give another folder."
        )
        return record["result"]

    def path(self, key: str) -> Path:
        """Return the record's file: legible, and different for keys that differ in other characters only."""
        return self.units / f"{re.sub('[^A-Za-z0-9.+-]+', '_', key)}-{digest(key)[:8]}.json"

    def _refuse(self, path: Path, before: dict, now: dict, cure: str) -> None:
        old, new = dict(_flat(before)), dict(_flat(now))
        differing = [name for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name)]
        if differing:
            changes = [
                f"{name} was {old.get(name, 'not given')}, is {new.get(name, 'not given')}" for name in differing
            ]
            more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
            raise ValueError(f"{path} was made otherwise: {'; '.join(changes[:SHOWN])}{more}. {cure}")


def digest(value: Any) -> str:
    """Return the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file; read anew only when its size or date changed."""
    state = Path(path).stat()
    return _file_digest(str(path), state.st_size, state.st_mtime_ns)


@cache
def _file_digest(path: str, size: int, modified: int) -> str:
    result = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            result.update(block)
    return result.hexdigest()


def _plain(value: Any) -> Any:
    """Return the value as it will be read back: tuples become lists, keys text."""
    return json.loads(json.dumps(value, default=lambda number: number.item()))  # numpy's numbers


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}). Delete it; its part is then done anew.") from error


def _write(path: Path, content: Any) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
