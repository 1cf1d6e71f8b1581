"""What is compared: networks of this package, and label maps that any other tool has made."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthseg_slicer import segment
from synthseg_slicer.errors import OptionError, ScanError
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.scan import Scan, read_scan
from synthseg_slicer.weights import Model, load_model
from synthseg_training.evaluation.conversion import CONVENTIONS, conversion_table

from .dataset import Case
from .ledger import file_digest
from .scoring import read_labels

DEFAULT_NAME = "SynthSeg"
MAP_SUFFIXES = (".nii.gz", ".nii", ".mgz")


@dataclass(frozen=True)
class Network:
    """Weights and how they are used.

    Attributes
    ----------
    name : str
        In tables and figures.
    model : Model
    fast, refined, contrast, device
        As for :func:`synthseg_slicer.segment`.
    """

    name: str
    model: Model
    fast: bool = False
    refined: bool = True
    contrast: str = "auto"
    device: str = "auto"

    @property
    def weights(self) -> dict[str, str]:
        """Hashes of the general weights and, where they may be used, of the experts."""
        experts = self.model.experts if self.contrast == "auto" else {}
        return {"general": self.model.sha256} | {family: expert.sha256 for family, expert in experts.items()}

    @property
    def settings(self) -> dict:
        """What else determines the result."""
        return {"fast": self.fast, "refined": self.refined, "contrast": self.contrast}

    @property
    def names(self) -> dict[int, str]:
        """Label id to name of what it segments."""
        return self.model.names

    def inputs(self, case: Case) -> dict:
        """Return hashes of what the result is made from."""
        return {"weights": self.weights, **self.settings, "image": file_digest(case.image)}

    def segment(self, scan: Scan) -> tuple[np.ndarray, np.ndarray]:
        """Return labels ``[x, y, z]`` and their affine; warnings about a scan's quality are not repeated."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            result = segment(
                scan,
                model=self.model,
                fast=self.fast,
                refined=self.refined,
                contrast=self.contrast,
                device=self.device,
            )
        return result.labels, result.affine

    def labels(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """Segment a case's scan."""
        return self.segment(read_scan(case.image))


@dataclass(frozen=True)
class MapFolder:
    """Label maps of another tool: ``NAME.nii.gz``, ``NAME_anything.nii.gz`` (``.nii``, ``.mgz``) or ``NAME/mri/``.

    Attributes
    ----------
    name : str
        In tables and figures.
    folder : Path
        Where the maps lie; below it, FreeSurfer's subject folders are understood too.
    convention : str
        Labelling, see :mod:`synthseg_training.evaluation.conversion`; empty for FreeSurfer's ids of this package.
    """

    name: str
    folder: Path
    convention: str = ""

    @property
    def names(self) -> dict[int, str]:
        """Label id to name of what its labelling has, among the brain's labels."""
        targets = conversion_table(self.convention).values() if self.convention else ()
        known = {label for target in targets for label in target}
        return {label.id: label.name for label in BRAIN if not known or label.id in known}

    def find(self, case: Case) -> Path:
        """Return a case's map.

        Raises
        ------
        ScanError
            There is none, or several.
        """
        found = [path for path in sorted(self.folder.glob(f"{case.name}[._]*")) if path.name.endswith(MAP_SUFFIXES)]
        found = found or [p for p in (self._freesurfer(case),) if p.exists()]
        if len(found) != 1:
            what = "several label maps" if found else "no label map"
            names = f" ({', '.join(path.name for path in found)})" if found else ""
            raise ScanError(
                f"{self.folder}: {what} of {case.name} for the method {self.name}{names}. One file {case.name}.nii.gz "
                f"or {case.name}_*.nii.gz is needed, or FreeSurfer's {self._freesurfer(case).relative_to(self.folder)}."
            )
        return found[0]

    def _freesurfer(self, case: Case) -> Path:
        files = {"aparc+aseg": "aparc+aseg.mgz", "a2009s": "aparc.a2009s+aseg.mgz"}
        return self.folder / case.name / "mri" / files.get(self.convention, "aseg.mgz")

    def inputs(self, case: Case) -> dict:
        """Return hashes of what the result is made from."""
        return {"labels": file_digest(self.find(case)), "convention": self.convention}

    def labels(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """Read a case's map as FreeSurfer ids."""
        scan = read_labels(self.find(case), self.convention)
        return scan.data, scan.affine


def parse_networks(texts: Sequence[str], *, task: str = "brain", default: str = DEFAULT_NAME) -> dict[str, Model]:
    """Load weights given as ``FILE.pt`` or ``NAME=FILE.pt``; the bundled ones of the task where none are given.

    Raises
    ------
    OptionError
        Two have one name.
    WeightsError
        Weights cannot be loaded.
    """
    if not texts:
        return {default: load_model(task)}
    models: dict[str, Model] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        name, path = (_checked(name), path) if separator else (Path(text).stem, text)
        if name in models:
            raise OptionError(f"Two weights are called {name}. Name them apart: --model NAME=FILE.pt.")
        models[name] = load_model(path=path)
    return models


def parse_folders(texts: Sequence[str]) -> list[MapFolder]:
    """Return the methods given as ``NAME=FOLDER`` or ``NAME=FOLDER:CONVENTION``.

    Raises
    ------
    OptionError
        Malformed, or no such folder or convention.
    """
    methods = []
    for text in texts:
        name, separator, rest = text.partition("=")
        if not separator or not name or not rest:
            raise OptionError(f"--method {text}: give NAME=FOLDER or NAME=FOLDER:CONVENTION.")
        name = _checked(name)
        folder, _, convention = rest.rpartition(":")
        if not folder or Path(rest).is_dir():  # no convention, or a colon in the path
            folder, convention = rest, ""
        if not Path(folder).is_dir():
            raise OptionError(f"--method {name}: there is no folder {folder}.")
        if convention and convention not in CONVENTIONS:
            raise OptionError(f"--method {name}: unknown convention {convention}; known are {', '.join(CONVENTIONS)}.")
        methods.append(MapFolder(name, Path(folder), convention))
    return methods


def _checked(name: str) -> str:
    """Return the name of a method, which names a folder too."""
    if not re.fullmatch(r"[\w+-][\w .+-]*", name):
        raise OptionError(f"{name!r} cannot name a method: use letters, digits, spaces and . + - _")
    return name
