"""Which scans an experiment runs on: a BIDS folder, a table of paths, or the folder format of ``evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from synthseg_slicer.batch.bids import FOLDERS, SEGMENTATION, Name
from synthseg_slicer.errors import ScanError
from synthseg_training.evaluation.scans import IMAGE_SUFFIX, REFERENCE_SUFFIX, group_of, subject_of

LESION_SUFFIX = "_lesion.nii.gz"
TABLE_SUFFIXES = (".csv", ".tsv")
NO_IMAGES = ("dseg", "probseg", "mask", "defacemask", "roi")
"""BIDS suffixes of what is drawn on scans."""
ACQUIRED_SPACES = ("", "orig", "native", "individual", "scanner", "T1w", "T2w", "FLAIR")
"""Values of BIDS' entity ``space`` that are no template: references in them lie on the scan."""
FREE_ENTITIES = frozenset({"desc", "space", "label", "atlas", "seg", "res", "hemi"})
"""Entities that only a reference has; all its others must be those of the scan."""


@dataclass(frozen=True)
class Case:
    """A scan with its reference.

    Attributes
    ----------
    name : str
        Unique within the dataset.
    image, reference : Path
        Files; of a scan without a reference the latter is None.
    dataset, contrast : str
        By which results are grouped; empty where unknown.
    subject : str
        Scans of one subject (and session) share it.
    convention : str
        Labelling of the reference, a name of :mod:`synthseg_training.evaluation.conversion`; empty for this package's.
    """

    name: str
    image: Path
    reference: Path | None
    dataset: str = ""
    contrast: str = ""
    subject: str = ""
    convention: str = ""

    @property
    def group(self) -> str:
        """Dataset and contrast as one word."""
        return " ".join(part for part in (self.dataset, self.contrast) if part) or "all"


def load_dataset(
    path: str | Path, *, kind: str = "anatomy", names: Sequence[str] = (), desc: str = "", convention: str = ""
) -> list[Case]:
    """Find scans and their references.

    Three forms are understood:

    - a table (CSV or TSV) with the columns ``name``, ``image`` and ``reference``, and optionally ``dataset``,
      ``contrast`` (or ``modality``), ``subject`` and ``convention``; paths are relative to the table;
    - a folder with ``NAME_image.nii.gz`` and ``NAME_dseg.nii.gz`` (lesions: ``NAME_lesion.nii.gz`` or
      ``NAME_dseg.nii.gz``), where the letters that begin a name are the dataset and what follows the last hyphen is
      the contrast;
    - a BIDS dataset with references anywhere below it: ``*_dseg.nii.gz``, or for lesions ``*_mask.nii.gz`` with
      ``label-lesion``, ``label-L`` or "lesion" in ``desc`` and ``*_roi.nii.gz``. A reference belongs to the scans of
      its subject that have all its entities, so that ``sub-1_desc-aseg_dseg.nii.gz`` serves every contrast.

    Parameters
    ----------
    path : path
        Table or folder.
    kind : {"anatomy", "lesion"}
        What the references show.
    names : sequence of str
        Restrict to these scans.
    desc : str
        BIDS: take only references with this ``desc``.
    convention : str
        Of references that the table names none for.

    Returns
    -------
    list of Case
        Those with a reference, sorted by name.

    Raises
    ------
    ScanError
        The path is none of these forms, a file or column is missing, a name occurs twice, a scan has several
        references, or no scan (or not every named one) has a reference.
    """
    path = Path(path)
    if not path.exists():
        raise ScanError(f"{path}: there is no such file or folder. Check the spelling of the path.")
    if path.is_file():
        cases = _from_table(path)
    elif next(path.glob("*" + IMAGE_SUFFIX), None):
        cases = _from_folder(path, kind)
    elif next(path.glob("sub-*/"), None):
        cases = _from_bids(path, kind, desc)
    else:
        raise ScanError(
            f"{path}: holds neither NAME{IMAGE_SUFFIX} files nor sub-* folders (BIDS). Rename the scans so, or give a "
            "table (.csv, .tsv) with the columns name, image and reference."
        )
    return _checked(cases, path, names, convention)


def _checked(cases: list[Case], path: Path, names: Sequence[str], convention: str) -> list[Case]:
    seen: dict[str, Case] = {}
    for case in cases:
        if case.name in seen:
            raise ScanError(
                f"{path}: two scans are named {case.name} ({seen[case.name].image}, {case.image}). Rename one."
            )
        seen[case.name] = case
    if unknown := sorted(set(names) - set(seen)):
        raise ScanError(f"{path}: holds no scan named {', '.join(unknown)}; there are {', '.join(sorted(seen))}.")
    chosen = [case for name, case in sorted(seen.items()) if not names or name in names]
    if bare := [case.name for case in chosen if case.reference is None and names]:
        raise ScanError(f"{path}: holds no reference for {', '.join(bare)}. Add it, or leave the name out.")
    chosen = [case for case in chosen if case.reference is not None]
    if not chosen:
        raise ScanError(f"{path}: none of the {len(seen)} scans has a reference (see 'synthseg-train experiment -h').")
    return [replace(case, convention=case.convention or convention) for case in chosen]


def _from_table(path: Path) -> list[Case]:
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise ScanError(f"{path}: no table of scans. Give a .csv or .tsv file, or a folder.")
    try:
        table = pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",", dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise ScanError(
            f"{path}: cannot be read as a table ({error}). Separate columns by commas, in .tsv by tabs."
        ) from error
    if missing := [column for column in ("name", "image", "reference") if column not in table]:
        raise ScanError(f"{path}: lacks the column {', '.join(missing)}; it has {', '.join(map(str, table))}. Add it.")
    cases = []
    for line, row in enumerate(table.to_dict("records"), 2):
        files = [path.parent / row[column] if row[column] else None for column in ("image", "reference")]
        for file, column in zip(files, ("image", "reference")):
            if file is None and column == "image":
                raise ScanError(f"{path}: line {line} names no image. Fill it in, or take the line away.")
            if file is not None and not file.is_file():
                raise ScanError(f"{path}: line {line}: the {column} {file} is no file. Correct the path.")
        contrast = row.get("contrast") or row.get("modality") or ""
        subject = row.get("subject") or row["name"]
        cases.append(Case(row["name"], *files, row.get("dataset", ""), contrast, subject, row.get("convention", "")))
    return cases


def _from_folder(path: Path, kind: str) -> list[Case]:
    suffixes = (LESION_SUFFIX, REFERENCE_SUFFIX) if kind == "lesion" else (REFERENCE_SUFFIX,)
    cases = []
    for image in path.glob("*" + IMAGE_SUFFIX):
        name = image.name.removesuffix(IMAGE_SUFFIX)
        references = [path / (name + suffix) for suffix in suffixes if (path / (name + suffix)).exists()]
        contrast = name.rpartition("-")[2] if "-" in name else ""
        subject = subject_of(name) or name
        cases.append(Case(name, image, references[0] if references else None, group_of(name), contrast, subject))
    return cases


# -- BIDS --------------------------------------------------------------------------------------------------------------


def _from_bids(root: Path, kind: str, desc: str) -> list[Case]:
    parsed = ((path, Name.parse(path.name)) for path in sorted(root.rglob("sub-*.nii*")))
    files = [(path, name) for path, name in parsed if name is not None]
    raw = [(path, name) for path, name in files if "derivatives" not in path.relative_to(root).parts]
    images = [(path, name) for path, name in raw if path.parent.name in FOLDERS and name.suffix not in NO_IMAGES]
    wanted = _is_lesion if kind == "lesion" else _is_segmentation
    by_subject: dict[str, list[tuple[Path, Name]]] = {}
    for path, name in files:
        if wanted(name) and (not desc or name.entities.get("desc") == desc):
            by_subject.setdefault(name.entities["sub"], []).append((path, name))
    cases = []
    for path, name in images:
        subject = "_".join(f"{key}-{name.entities[key]}" for key in ("sub", "ses") if key in name.entities)
        reference = _reference(path, name, by_subject.get(name.entities["sub"], []))
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        cases.append(Case(stem, path, reference, root.resolve().name, name.suffix, subject))
    return cases


def _reference(image: Path, name: Name, candidates: list[tuple[Path, Name]]) -> Path | None:
    """Return the most specific reference whose entities are all the image's.

    Raises
    ------
    ScanError
        Two are equally specific.
    """
    fitting: dict[int, list[Path]] = {}
    image_space = name.entities.get("space", "")
    for path, reference in candidates:
        own = {key: value for key, value in reference.entities.items() if key not in FREE_ENTITIES}
        space = reference.entities.get("space", "")
        on_scan = space == image_space if image_space else space in ACQUIRED_SPACES
        if on_scan and own.items() <= name.entities.items():
            fitting.setdefault(len(own), []).append(path)
    if not fitting:
        return None
    best = fitting[max(fitting)]
    if len(best) > 1:
        raise ScanError(
            f"{image}: has several references ({', '.join(map(str, best))}). Name the one to take by --desc, or give a "
            "table of scans."
        )
    return best[0]


def _is_segmentation(name: Name) -> bool:
    return name.suffix == "dseg" and name.entities.get("seg") != SEGMENTATION  # what this package made is no reference


def _is_lesion(name: Name) -> bool:
    marked = name.entities.get("label") in ("L", "lesion") or "lesion" in name.entities.get("desc", "").lower()
    return name.suffix == "roi" or (name.suffix == "mask" and marked)
