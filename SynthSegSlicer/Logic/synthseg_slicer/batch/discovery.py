"""Which scans a batch means, and how their results are called."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import OptionError, ScanError
from ..inputs import RESULT, SUFFIXES, find_scans, is_scan, looks_like_scan, stem
from . import bids
from .plan import Item

DESCRIPTION = "dataset_description.json"
"""The file that every BIDS dataset has."""


@dataclass(frozen=True)
class Filters:
    """Which scans of a BIDS dataset are meant; empty means all.

    Attributes
    ----------
    suffixes : collection of str
        Kinds of scan.
    participants, sessions : collection of str
        Labels, with ``sub-`` and ``ses-`` or without.
    entities : mapping of str to collection of str
        Labels that other entities must have.
    """

    suffixes: Collection[str] = bids.SUFFIXES
    participants: Collection[str] = ()
    sessions: Collection[str] = ()
    entities: Mapping[str, Collection[str]] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, set[str]]:
        """Entity to the labels that it may have."""
        wanted = {"sub": self.participants, "ses": self.sessions}
        short = {entity: {label.removeprefix(f"{entity}-") for label in labels} for entity, labels in wanted.items()}
        return {entity: set(labels) for entity, labels in {**self.entities, **short}.items() if labels}


@dataclass(frozen=True)
class Found:
    """What a batch is about.

    Attributes
    ----------
    root : Path
        Absolute; scans are at ``root/item.key``.
    items : list of Item
        In the order of their keys.
    is_bids : bool
        Whether ``root`` is a BIDS dataset.
    unnamed : list of str
        Images where scans are expected whose names are not those of BIDS; they are left out.
    """

    root: Path
    items: list[Item]
    is_bids: bool
    unnamed: list[str] = field(default_factory=list)


def find(source: str | Path, output: str | Path, filters: Filters | None = None, is_bids: bool | None = None) -> Found:
    """Find the scans of a batch.

    Parameters
    ----------
    source : path
        A BIDS dataset; a folder, searched with its sub-folders, where a folder with DICOM files is one scan; a .txt
        list (:func:`synthseg_slicer.inputs.find_scans`); or a single scan.
    output : path
        Output folder; scans in it are no input.
    filters : Filters, optional
        For BIDS datasets.
    is_bids : bool, optional
        Whether ``source`` must be a BIDS dataset; by default it is one if it has a dataset_description.json.

    Raises
    ------
    ScanError
        There is no scan, or no such BIDS dataset.
    OptionError
        Filters for something that is no BIDS dataset, or two scans whose results would have the same name.
    """
    source = Path(source)
    described = (source / DESCRIPTION).is_file()
    if is_bids and not described:
        raise ScanError(f"{source}: is no BIDS dataset ({DESCRIPTION} is missing). Check the path.")
    if described:
        root = source.resolve()
        found = _bids(root, filters or Filters())
    else:
        if filters is not None and filters != Filters():
            raise OptionError(
                f"{source}: filters need a BIDS dataset ({DESCRIPTION} is missing). Leave them out, or give a list."
            )
        found = _others(source, Path(output).resolve())
    _check_names(found.items)
    return found


def _bids(root: Path, filters: Filters) -> Found:
    wanted, suffixes = filters.labels, {suffix.lower() for suffix in filters.suffixes}
    items, unnamed, participants = [], [], set()
    for path in _images_of_bids(root):
        key = path.relative_to(root).as_posix()
        name = bids.Name.parse(path.name)
        if name is None or Path(key).parts[:-2] != Path(name.folder).parts[:-1]:
            unnamed.append(key)
            continue
        participants.add(name.entities["sub"])
        if name.suffix.lower() in suffixes and all(name.entities.get(e) in labels for e, labels in wanted.items()):
            labels = f"{name.folder}/{name.derived('dseg')}.nii.gz"
            items.append(Item(key, labels, {**name.entities, "suffix": name.suffix}))
    if missing := sorted(wanted.get("sub", set()) - participants):
        raise ScanError(f"{root}: there is no participant {', '.join(missing)} in this dataset. Check the labels.")
    if not items:
        raise ScanError(
            f"{root}: no scan found in this BIDS dataset (suffix {', '.join(filters.suffixes)} in "
            f"{' or '.join(bids.FOLDERS)}). Check the filters."
        )
    return Found(root, items, True, unnamed)


def _images_of_bids(root: Path) -> Iterator[Path]:
    """Yield the NIfTI images in ``sub-*/[ses-*/](anat|ct)``, in order."""
    for subject in sorted(root.glob("sub-*/")):
        for base in (subject, *sorted(subject.glob("ses-*/"))):
            for folder in (base / name for name in bids.FOLDERS):
                yield from sorted(path for path in folder.glob("*.nii*") if not path.name.startswith("."))


def _others(source: Path, output: Path) -> Found:
    if source.is_dir() and not is_scan(source):
        root = source.resolve()
        paths = list(_tree(root, output))
        if not paths:
            raise ScanError(f"{source}: no scan found in it. Known are {', '.join(SUFFIXES)} and DICOM folders.")
    else:  # a list or one scan; the folder itself may be a link, the name of the scan is kept
        root = source.parent.resolve()
        paths = [path.parent.resolve() / path.name for path in find_scans([source])]
    keys = sorted({Path(os.path.relpath(path, root)).as_posix() for path in paths})
    return Found(root, [Item(key, _mirrored(key), {}) for key in keys], False)


def _tree(root: Path, output: Path) -> Iterator[Path]:
    """Yield the scans below a folder; links to folders are followed, but no folder is entered twice."""
    entered = {os.path.realpath(root)}
    for folder, folders, files in os.walk(root, onerror=_unreadable, followlinks=True):
        here = Path(folder)
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(here / name)
            if name.startswith(".") or real in entered or Path(real) == output:
                continue
            entered.add(real)
            try:
                is_dicom = is_scan(here / name)
            except OSError as error:
                _unreadable(error)
            if is_dicom:
                yield here / name
            else:
                kept.append(name)
        folders[:] = kept
        yield from (here / name for name in sorted(files) if looks_like_scan(here / name))


def _unreadable(error: OSError) -> None:
    raise ScanError(
        f"{error.filename}: cannot be searched for scans ({error.strerror}). Correct its permissions, or give a list."
    ) from error


def _mirrored(key: str) -> str:
    """Return the label file of a scan outside BIDS: the same place in the output, from which ``..`` cannot lead out."""
    path = Path(key)
    parts = [part for part in path.parent.parts if part not in ("..", path.anchor)]
    return Path(*parts, f"{stem(path)}{RESULT}.nii.gz").as_posix()


def _check_names(items: list[Item]) -> None:
    taken: dict[str, str] = {}
    for item in items:
        other = taken.setdefault(item.labels, item.key)
        if other != item.key:
            raise OptionError(
                f"{other} and {item.key} would both become {item.labels}. Rename one, or use two output folders."
            )
