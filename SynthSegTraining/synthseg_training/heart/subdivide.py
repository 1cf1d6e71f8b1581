"""From scans with a few structures drawn on them to training maps that label everything.

Each structure is split into regions of similar intensity, and so is all that is not drawn, by a Gaussian mixture fitted
to the image. The background's number of regions is drawn anew for several versions of each map, so that what surrounds
the structures is now coarse and now fine (Billot et al. 2023, section 5.4).

A region's label is ``100 * structure + number``, the number counting from 1 in order of brightness: 50002 is the
brighter part of structure 500, and 1 to 10 are parts of the background. 0 is what lies beyond the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthseg_slicer.conform import reorient, resample
from synthseg_slicer.errors import OptionError, ScanError
from synthseg_slicer.scan import Scan, read_scan

from ..evaluation.metrics import to_grid
from ..labelmaps import LabelMapSet, pack
from .clustering import fit_mixture

STEP = 100
"""Factor between a structure's label and those of its regions; there can be one fewer of them."""
HIGHEST = 99_999
"""Largest label that is encoded; more than any convention has."""


def encode(structure: int, region: int) -> int:
    """Return the label of a structure's region; regions count from 1."""
    return STEP * structure + region


def structure_of(label: int) -> int:
    """Return the structure that a region's label belongs to; 0 for the background and what lies beyond the image."""
    return label // STEP


@dataclass(frozen=True)
class Subdivision:
    """How maps are subdivided; the defaults are the paper's.

    Attributes
    ----------
    regions : int
        Of each structure.
    background : tuple of int
        Least and most regions of the background.
    versions : int
        Maps made of each scan. Their numbers of background regions differ as long as the bounds allow.
    voxel_size : float
        In mm; scans and labels are resampled to it first.
    seed : int
        Of the numbers of regions and the starts of the clustering.
    """

    regions: int = 2
    background: tuple[int, int] = (3, 10)
    versions: int = 4
    voxel_size: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.background
        if not 1 <= self.regions < STEP or not 1 <= low <= high < STEP:
            raise OptionError(
                f"{self.regions} regions a structure and {low} to {high} of the background are asked for; there can be "
                f"1 to {STEP - 1}, and the lower bound comes first."
            )
        if self.versions < 1 or self.voxel_size <= 0:
            raise OptionError(f"{self.versions} versions at {self.voxel_size:g} mm: both must be positive.")

    def draw(self, rng: np.random.Generator) -> list[int]:
        """Return the background's number of regions in each version."""
        numbers: list[int] = []
        while len(numbers) < self.versions:
            numbers += rng.permutation(np.arange(self.background[0], self.background[1] + 1)).tolist()
        return numbers[: self.versions]


def subdivide(
    data: str | Path,
    out: str | Path,
    settings: Subdivision | None = None,
    *,
    source: str = "",
    licence: str = "",
    report: Callable[[str], None] = lambda line: None,
) -> LabelMapSet:
    """Make a cache of subdivided label maps from scans and their labels.

    Version v of the scan NAME is called ``NAME-v``; to hold a scan out of a training, name all its versions.

    Parameters
    ----------
    data : path
        Scans with references, see :func:`synthseg_training.experiments.dataset.load_dataset`.
    out : path
        The ``.npz`` to write.
    settings : Subdivision, optional
        The paper's by default.
    source, licence : str
        Kept in the cache.
    report : callable
        Receives a line per scan.

    Returns
    -------
    LabelMapSet
        What was written.

    Raises
    ------
    ScanError
        No scans, a scan or its labels cannot be read, labels that are not whole numbers from 0 to
        :data:`HIGHEST`, or nothing drawn.
    OutputError
        The cache cannot be written.
    """
    from ..experiments.dataset import load_dataset  # needs pandas

    settings = settings or Subdivision()
    maps, names = [], []
    for index, case in enumerate(load_dataset(data)):
        image, labels = on_one_grid(read_scan(case.image), read_scan(case.reference), settings.voxel_size)
        rng = np.random.default_rng((settings.seed, index))
        foreground = split_structures(image, labels, settings.regions, rng)
        numbers = settings.draw(rng)
        for version, number in enumerate(numbers, 1):
            maps.append(np.pad(with_background(foreground, image, number, rng), 1))
            names.append(f"{case.name}-{version}")
        shape = " x ".join(map(str, labels.shape))
        report(f"{case.name}: {shape} voxels, background in {', '.join(map(str, numbers))} regions")
    result = pack(maps, names, settings.voxel_size, where=str(data), source=source, licence=licence)
    result.save(out)
    return result


def on_one_grid(scan: Scan, reference: Scan, voxel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Bring a scan and its labels to RAS+ order and isotropic voxels.

    Parameters
    ----------
    scan, reference : Scan
        They may have different grids.
    voxel_size : float
        In mm.

    Returns
    -------
    image : numpy.ndarray
        float32 ``[x, y, z]``, resampled linearly.
    labels : numpy.ndarray
        int32 ``[x, y, z]``, by nearest neighbour; where the reference does not reach, background.

    Raises
    ------
    ScanError
        The reference is no label map or empty.
    """
    values = np.asarray(reference.data)
    labels = np.rint(values).astype(np.int64)
    if not np.array_equal(labels, values) or labels.min() < 0 or labels.max() > HIGHEST:
        raise ScanError(
            f"{reference.name}: is no label map (whole numbers from 0 to {HIGHEST}). Give the labels, not the scan."
        )
    image, affine = resample(*reorient(scan.data, scan.affine), voxel_size)
    labels = to_grid(labels.astype(np.int32), reference.affine, image.shape, affine)
    if not labels.any():
        raise ScanError(f"{reference.name}: no structure lies within {scan.name}. Check that both belong together.")
    return image, labels


def split_structures(image: np.ndarray, labels: np.ndarray, regions: int, rng: np.random.Generator) -> np.ndarray:
    """Return the labels of the regions of all structures, int32 ``[x, y, z]``; background stays 0."""
    split = np.zeros(labels.shape, np.int32)
    for structure in np.unique(labels[labels > 0]):
        where = labels == structure
        split[where] = encode(int(structure), 1) + _regions(image[where], regions, rng)
    return split


def with_background(foreground: np.ndarray, image: np.ndarray, regions: int, rng: np.random.Generator) -> np.ndarray:
    """Return a copy of the map with its background split, labels 1 to ``regions``."""
    split = foreground.copy()
    where = foreground == 0
    if where.any():
        split[where] = encode(0, 1) + _regions(image[where], regions, rng)
    return split


def output_of(labels: Sequence[int]) -> dict[int, int]:
    """Return label to structure, what ``anatomy.output`` of a recipe must say; background is left out."""
    return {label: structure_of(label) for label in labels if structure_of(label)}


def _regions(intensities: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return fit_mixture(intensities, count, rng).assign(intensities).astype(np.int32)
