"""The record that is written beside every result: what was computed from what, with what, and how long it took."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import torch

from . import __version__
from .files import SLICER_SUFFIXES, atomic
from .scan import WRITE_SUFFIXES, Scan
from .weights import Model

KEEP_FOLDERS = "SYNTHSEG_RECORD_FOLDERS"

CITATION = (
    "Billot B. et al. SynthSeg: Segmentation of brain MRI scans of any contrast and resolution without retraining. "
    "Medical Image Analysis 86 (2023) 102789. https://doi.org/10.1016/j.media.2023.102789"
)


def describe(
    scan: Scan, model: Model, device: str, options: dict, seconds: dict[str, float], warnings: list[str]
) -> dict:
    """Return the record as a plain dictionary.

    Parameters
    ----------
    scan : Scan
        The input.
    model : Model
        The weights used.
    device : str
        The device that did the work.
    options : dict
        Options of the run, plain values.
    seconds : dict
        Wall-clock time of each stage.
    warnings : list of str
        What the user should know about this run.
    """
    return {
        "software": "synthseg-slicer",
        "version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "input": {
            "name": scan.name,
            "path": None if scan.path is None else str(Path(scan.path).absolute()),
            "sha256": scan.sha256,
            "shape": list(map(int, scan.shape)),
            "voxel_size_mm": [float(size) for size in scan.voxel_size],
        },
        "weights": {"sha256": model.sha256, "version": model.card.get("version"), "name": model.card.get("name")},
        "labels": {str(label.id): label.name for label in model.labels},
        "options": options,
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "seconds": {stage: round(time, 3) for stage, time in seconds.items()},
        "warnings": warnings,
        "citation": CITATION,
    }


def path_beside(output: str | Path) -> Path:
    """Return the record's path for an output: its suffix replaced by .json."""
    output = Path(output)
    for suffix in SLICER_SUFFIXES + WRITE_SUFFIXES:
        if output.name.lower().endswith(suffix):
            return output.with_name(output.name[: -len(suffix)] + ".json")
    return output.with_suffix(".json")


def write(path: str | Path, record: dict, *, keep_folders: bool = False) -> None:
    """Write the record as JSON, without the folders that scans and outputs lie in.

    Folders are often called by a patient's name. They are kept where the environment variable :data:`KEEP_FOLDERS` is
    set to something other than 0.

    Parameters
    ----------
    path : path
    record : dict
        From :func:`describe`, with what was added to it.
    keep_folders : bool
        Keep them: its paths are relative to a data set, in which they are needed to find a file.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    if not keep_folders and os.environ.get(KEEP_FOLDERS, "0") in ("", "0"):
        record = without_folders(record)
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def without_folders(record: dict) -> dict:
    """Return a copy of a record in which no text holds the folder of a scan or an output."""
    folders = {str(Path(file).parent) for file in _files(record)} - {".", os.path.sep}
    if not folders:
        return record
    longest_first = "|".join(re.escape(folder) for folder in sorted(folders, key=len, reverse=True))
    folder = re.compile(rf"(?<![\w./\\-])(?:{longest_first})[/\\]")

    def stripped(value):
        if isinstance(value, dict):
            return {key: stripped(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [stripped(one) for one in value]
        return folder.sub("", value) if isinstance(value, str) else value

    return stripped(record)


def _files(value, key: str = "") -> Iterator[str]:
    """Yield what a record names as scans and outputs."""
    if isinstance(value, dict):
        for inner, one in value.items():
            yield from _files(one, key if key == "outputs" else inner)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _files(one, key)
    elif isinstance(value, str) and key in ("name", "path", "outputs", "scans", "timepoints"):
        yield value
