"""What is reported of a lesion map: components, volumes, and how much of which structure they take."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .files import atomic
from .labels import Label

FEWEST_MM3 = 10.0
"""Components below this volume are dropped: one voxel of a thick-slice scan, or noise of a thin one."""
LEAST_CONTACT = 0.2
"""Least share of a lesion's surface that touches brain tissue. A cortical infarct has the skull on one side only."""
CERTAIN = 0.9
"""Probability that a tenth of a lesion's voxels must reach. Of what stroke 0.2.0 found on synthetic scans, 89 of 101
lesions above 1 ml do, and none of 23 above 0.1 ml that were none (by a script outside the repository). Chosen by false
alarms on healthy scans: docs/explanation/stroke.md."""
CERTAIN_SHARE = 0.1
NOT_TISSUE = (4, 5, 14, 15, 24, 43, 44)
"""Fluid. A lesion filled with fluid looks like it, so lesion voxels there count for the nearest tissue."""


@dataclass(frozen=True)
class Lesion:
    """One connected lesion.

    Attributes
    ----------
    number : int
        1 for the largest.
    volume : float
        mm³.
    probability : float
        Mean lesion probability of its voxels.
    centre : tuple of float
        Centre of mass, RAS+ mm.
    side : str
        ``left``, ``right``, ``both`` (at least a tenth on each side), or empty where the anatomy is unknown.
    structure : str
        The structure that holds most of it; empty where unknown.
    """

    number: int
    volume: float
    probability: float
    centre: tuple[float, float, float]
    side: str = ""
    structure: str = ""


@dataclass(frozen=True)
class Load:
    """How much of a structure, or of a hemisphere, is lesion.

    Attributes
    ----------
    name : str
    label : int or None
        None for a hemisphere and for the whole.
    volume : float
        Of the structure with its lesions, mm³.
    lesion : float
        Of its lesions, mm³.
    percent : float
        100 lesion / volume.
    """

    name: str
    label: int | None
    volume: float
    lesion: float
    percent: float


def components(mask: np.ndarray, voxel_volume: float, fewest: float = FEWEST_MM3) -> np.ndarray:
    """Return the connected components of a lesion mask, numbered from the largest, small ones dropped.

    Components hang together through faces, edges or corners, so that thin lesions between thick slices stay whole.

    Parameters
    ----------
    mask : bool array [x, y, z]
    voxel_volume : float
        mm³.
    fewest : float
        Least volume in mm³.

    Returns
    -------
    int32 array [x, y, z]
        0 where there is no lesion.
    """
    image = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
    smallest = max(1, int(np.ceil(fewest / voxel_volume)))
    image = sitk.RelabelComponent(image, minimumObjectSize=smallest, sortByObjectSize=True)
    return sitk.GetArrayFromImage(image).astype(np.int32)


def in_tissue(lesion: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Drop lesions that do not lie in brain tissue, such as muscles of the neck that look like one.

    A connected lesion stays where at least :data:`LEAST_CONTACT` of its surface voxels touch the largest component of
    the tissue. Distances would not do: the middle of a large infarct is far from any tissue that is left.

    Parameters
    ----------
    lesion, tissue : bool array [x, y, z]
        Without any tissue, as from a network of two classes, all lesions stay.

    Returns
    -------
    bool array [x, y, z]
    """
    from .postprocess import largest_component  # needs torch, which the Slicer application may lack

    if not lesion.any() or not tissue.any():
        return lesion
    tissue = largest_component(tissue)
    beside = sitk.GetArrayFromImage(sitk.BinaryDilate(sitk.GetImageFromArray(tissue.astype(np.uint8)), (1, 1, 1)))
    image = sitk.GetImageFromArray(lesion.astype(np.uint8))
    numbered = sitk.GetArrayFromImage(sitk.ConnectedComponent(image, True))
    surface = lesion & ~sitk.GetArrayFromImage(sitk.BinaryErode(image, (1, 1, 1))).astype(bool)
    size = np.bincount(numbered[surface], minlength=int(numbered.max()) + 1)
    contact = np.bincount(numbered[surface & (beside > 0)], minlength=len(size))
    kept = contact >= LEAST_CONTACT * np.maximum(size, 1)
    kept[0] = False
    return kept[numbered]


def certain(lesion: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Drop connected lesions of which the network is nowhere sure: thresholding with hysteresis (Canny 1986).

    A connected lesion stays where at least :data:`CERTAIN_SHARE` of its voxels have the probability :data:`CERTAIN`.

    Parameters
    ----------
    lesion : bool array [x, y, z]
    probability : float array [x, y, z]

    Returns
    -------
    bool array [x, y, z]
    """
    numbered = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(lesion.astype(np.uint8)), True))
    size = np.bincount(numbered.ravel())
    sure = np.bincount(numbered[probability >= CERTAIN], minlength=len(size))
    kept = sure >= CERTAIN_SHARE * size
    kept[0] = False
    return kept[numbered]


def nearest_labels(labels: np.ndarray, where: np.ndarray, without: Sequence[int] = NOT_TISSUE) -> np.ndarray:
    """Return for each voxel of ``where`` the nearest label that is neither background nor one of ``without``.

    By watershed from the labels on a flat image, which grows them at the same speed.

    Parameters
    ----------
    labels : int array [x, y, z]
    where : bool array [x, y, z]

    Returns
    -------
    int array [x, y, z]
        0 outside ``where``, and where nothing is near because there are no such labels at all.
    """
    markers = np.where(np.isin(labels, (0, *without)), 0, labels).astype(np.int32)
    if not where.any() or not markers.any():
        return np.zeros_like(markers)
    box = tuple(
        slice(int(found[0]), int(found[-1]) + 1)
        for found in (
            np.flatnonzero((where | (markers > 0)).any(axis=tuple(other for other in range(3) if other != axis)))
            for axis in range(3)
        )
    )
    distance = sitk.SignedMaurerDistanceMap(
        sitk.GetImageFromArray((markers[box] > 0).astype(np.uint8)), insideIsPositive=False, squaredDistance=False
    )
    grown = sitk.MorphologicalWatershedFromMarkers(
        distance, sitk.GetImageFromArray(markers[box]), markWatershedLine=False, fullyConnected=True
    )
    nearest = np.zeros_like(markers)
    nearest[box] = sitk.GetArrayFromImage(grown)
    return np.where(where, nearest, 0)


def describe(
    numbered: np.ndarray,
    probability: np.ndarray,
    affine: np.ndarray,
    nearest: np.ndarray | None,
    labels: Sequence[Label],
) -> list[Lesion]:
    """Return one entry a lesion, largest first.

    Parameters
    ----------
    numbered : int array [x, y, z]
        From :func:`components`.
    probability : float array [x, y, z]
    affine : array [4, 4]
        Voxel index to RAS+ mm.
    nearest : int array [x, y, z] or None
        Structure of each lesion voxel, from :func:`nearest_labels`.
    labels : sequence of Label
        Of the anatomy.
    """
    voxel_volume = float(abs(np.linalg.det(affine[:3, :3])))
    by_id = {label.id: label for label in labels}
    found = []
    index = np.flatnonzero(numbered)
    which = numbered.ravel()[index]
    order = np.argsort(which, kind="stable")
    for part in np.split(index[order], np.flatnonzero(np.diff(which[order])) + 1) if len(index) else []:
        position = np.stack(np.unravel_index(part, numbered.shape)).mean(1)
        centre = tuple(float(v) for v in (affine @ [*position, 1])[:3])
        side, structure = "", ""
        if nearest is not None:
            ids, counts = np.unique(nearest.ravel()[part], return_counts=True)
            known = {by_id[i]: int(n) for i, n in zip(ids.tolist(), counts.tolist()) if i in by_id and i != 0}
            if known:
                structure = max(known, key=known.get).name
                side = _side(known)
        number = int(numbered.ravel()[part[0]])
        certainty = float(probability.ravel()[part].mean())
        found.append(Lesion(number, len(part) * voxel_volume, certainty, centre, side, structure))
    return found


def _side(counts: dict[Label, int]) -> str:
    total = sum(counts.values())
    share = {side: sum(n for label, n in counts.items() if label.side == side) / total for side in ("left", "right")}
    sides = [side for side, part in share.items() if part >= 0.1]
    return "both" if len(sides) == 2 else (sides[0] if sides else "")


def loads(anatomy: np.ndarray, nearest: np.ndarray, labels: Sequence[Label], voxel_volume: float) -> list[Load]:
    """Return the load of each structure that holds lesions or tissue, of both hemispheres and of the whole.

    A structure's volume is that of its voxels in the anatomy, plus lesion voxels that the anatomy took for fluid or
    background and that lie nearest to it: a cavity belongs to the tissue that was there.

    Parameters
    ----------
    anatomy : int array [x, y, z]
        Label ids of the brain task.
    nearest : int array [x, y, z]
        Structure of each lesion voxel, 0 elsewhere.
    labels : sequence of Label
        Of the anatomy.
    voxel_volume : float
        mm³.
    """
    tissue = [label for label in labels if label.id != 0 and label.id not in NOT_TISSUE]
    size = int(max(anatomy.max(), nearest.max(), *(label.id for label in labels))) + 1
    with_lesion = np.where(nearest > 0, nearest, anatomy)
    volumes = np.bincount(with_lesion.ravel(), minlength=size) * voxel_volume
    lesions = np.bincount(nearest.ravel(), minlength=size) * voxel_volume

    def load(name: str, label: int | None, ids: list[int]) -> Load:
        volume, lesion = float(volumes[ids].sum()), float(lesions[ids].sum())
        return Load(name, label, volume, lesion, 100 * lesion / volume if volume else 0.0)

    rows = [load(label.name, label.id, [label.id]) for label in tissue]
    for side in ("left", "right"):
        rows.append(load(f"{side.capitalize()}-Hemisphere", None, [label.id for label in tissue if label.side == side]))
    return [*rows, load("Brain", None, [label.id for label in tissue])]


def write_lesions_csv(path: str | Path, found: Sequence[Lesion]) -> None:
    """Write one row a lesion: number, volume in mm³ and ml, mean probability, centre in RAS+ mm, side, structure."""
    header = ("lesion", "volume_mm3", "volume_ml", "probability", "x_mm", "y_mm", "z_mm", "side", "structure")
    rows = [
        (one.number, one.volume, one.volume / 1000, one.probability, *one.centre, one.side, one.structure)
        for one in found
    ]
    _write(path, header, rows)


def write_loads_csv(path: str | Path, rows: Sequence[Load]) -> None:
    """Write one row a structure: name, label, volume_mm3, lesion_mm3, lesion_percent."""
    names = [field.name for field in fields(Load)]
    header = [{"name": "structure", "volume": "volume_mm3", "lesion": "lesion_mm3", "percent": "lesion_percent"}]
    _write(path, tuple(header[0].get(name, name) for name in names), [astuple(row) for row in rows])


def _write(path: str | Path, header: tuple, rows: list[tuple]) -> None:
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
