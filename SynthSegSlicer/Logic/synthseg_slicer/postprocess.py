"""Clean-up of posteriors by topology, label maps, and label maps on another grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import SimpleITK as sitk

from .errors import OptionError
from .predict import TopPosteriors

THRESHOLD = 0.25
"""Posterior above which a voxel counts as part of a structure for connectivity (SynthSeg's rule)."""

GRID_TOLERANCE = 1e-3
"""Voxels. Two grids coincide when indices map to whole numbers within this; affines in files carry single precision."""

SLAB_VOXELS = 2**23
"""Voxels of the output grid that are resampled at once; bounds the memory to about 100 MB whatever the grid."""


def clean_up(top: TopPosteriors, topology: dict[int, int]) -> TopPosteriors:
    """Keep the largest connected component of the whole and of each topology class, and renormalise.

    The rules of SynthSeg: foreground (all labels but background) survives inside the largest component of "summed
    foreground posterior > 0.25"; then the labels of a topology class survive inside the largest component of "any of
    their posteriors > 0.25"; components are connected through faces. What is left is divided by its sum; a voxel with
    nothing left is background.

    Parameters
    ----------
    top : TopPosteriors
        As predicted.
    topology : dict
        Label id to topology class; labels of class 0 are subject to the first rule only.

    Returns
    -------
    TopPosteriors
        On the same box. Probabilities of a voxel add up to 1; their order may no longer descend.
    """
    channels, probabilities = top.channels, top.probabilities.astype(np.float32)
    if not channels.size:
        return top
    foreground = channels != top.background
    # From the background's own posterior, so that labels beyond the four kept count too.
    whole = largest_component(1 - np.where(foreground, 0, probabilities).sum(0) > THRESHOLD)
    class_of = np.array([topology.get(label, 0) for label in top.ids], np.uint8)
    classes = class_of[channels]
    # Four posteriors above 0.25 would exceed 1, so three ranks hold all members of a class's mask.
    strong = np.where(whole & (probabilities[:3] > THRESHOLD), classes[:3], 0)
    kept = np.zeros_like(strong)
    for topology_class, where in _members(strong):
        box = _bounds(where[1:])
        inside = tuple(w - b.start for w, b in zip(where[1:], box))
        mask = np.zeros([b.stop - b.start for b in box], bool)
        mask[inside] = True
        kept[where] = np.where(largest_component(mask)[inside], topology_class, 0)
    survives = classes == 0
    for rank in kept:
        survives |= classes == rank
    probabilities[foreground & ~(survives & whole)] = 0
    total = probabilities.sum(0)
    nothing = total <= 0
    probabilities /= np.where(nothing, 1, total)
    probabilities[0][nothing] = 1
    channels = channels.copy()
    channels[0][nothing] = top.background
    return replace(top, channels=channels, probabilities=probabilities.astype(np.float16))


def _members(classes: np.ndarray) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """Yield each non-zero value of an array with the indices where it occurs (a tuple of index arrays)."""
    flat = np.flatnonzero(classes)
    values = classes.ravel()[flat]
    flat = flat[np.argsort(values, kind="stable")]
    ends = np.cumsum(np.bincount(values, minlength=1))
    for value in np.unique(values):
        yield int(value), np.unravel_index(flat[ends[value - 1] : ends[value]], classes.shape)


def _bounds(indices: tuple[np.ndarray, ...]) -> tuple[slice, ...]:
    """Return the smallest box around voxels given as one index array an axis."""
    return tuple(slice(int(index.min()), int(index.max()) + 1) for index in indices)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Return the largest face-connected component of a mask [x, y, z]; the mask itself when it is empty."""
    image = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), False)
    components = sitk.GetArrayViewFromImage(image)  # valid as long as the image is held
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return components == sizes.argmax() if sizes.any() else mask


def label_dtype(ids: tuple[int, ...]) -> type:
    """Return the smallest type in which every file format stores the label ids: uint8, else int16, else int32."""
    return next((t for t in (np.uint8, np.int16) if max(ids) <= np.iinfo(t).max and min(ids) >= 0), np.int32)


def label_map(top: TopPosteriors) -> np.ndarray:
    """Return the most probable label id of each voxel of the whole image, [x, y, z]."""
    best = top.probabilities.argmax(0)[None]
    ids = np.array(top.ids, label_dtype(top.ids))
    labels = np.zeros(top.shape, ids.dtype)
    labels[top.box] = ids[np.take_along_axis(top.channels, best, 0)[0]]
    return labels


class GridMap:
    """How the voxels of one grid lie in another whose axes are the same up to order, direction and spacing.

    Parameters
    ----------
    shape, affine
        Of the target grid.
    source_affine : array [4, 4]
        Of the source grid.

    Attributes
    ----------
    order : tuple of int
        ``order[a]`` is the target axis that runs along source axis ``a``.
    coordinates : list of three float64 arrays
        Per source axis: source index of each target voxel along that axis.
    """

    def __init__(self, shape: tuple[int, ...], affine: np.ndarray, source_affine: np.ndarray):
        self.shape = tuple(shape)
        matrix = np.linalg.inv(source_affine) @ affine
        self.order = tuple(int(axis) for axis in np.abs(matrix[:3, :3]).argmax(1))
        along = matrix[range(3), self.order]
        across = matrix[:3, :3].copy()
        across[range(3), self.order] = 0
        if sorted(self.order) != [0, 1, 2] or np.abs(across).dot(self.shape).max() > 0.1:
            raise OptionError("The two grids do not share their axes; resample one of them first.")
        self.coordinates = [
            scale * np.arange(self.shape[axis]) + offset
            for scale, axis, offset in zip(along, self.order, matrix[:3, 3])
        ]

    def is_copy(self) -> bool:
        """Tell whether every target voxel coincides with a source voxel (or lies outside)."""
        return all(np.abs(c - np.round(c)).max() < GRID_TOLERANCE for c in self.coordinates)

    def to_target(self, array: np.ndarray) -> np.ndarray:
        """Return an array whose axes follow the source in the target's axis order."""
        return array.transpose(np.argsort(self.order))

    def sample(self, volume: np.ndarray) -> np.ndarray:
        """Resample a volume on the source grid trilinearly (its border repeated beyond it); [x, y, z] of the target."""
        weights = [_tent(c, slice(0, n)) for c, n in zip(self.inside(volume.shape), volume.shape)]
        return self.to_target(_linear(volume, weights))

    def inside(self, shape: tuple[int, ...]) -> list[np.ndarray]:
        """Return the coordinates, those beyond a source of this shape moved to its border."""
        return [np.clip(c, 0, n - 1) for c, n in zip(self.coordinates, shape)]


def resample_labels(top: TopPosteriors, grid: GridMap) -> np.ndarray:
    """Return the label map on another grid: arg-max of the trilinearly interpolated posteriors.

    Where the grids coincide up to order, direction and extent of axes, voxels are copied. Otherwise the posteriors are
    interpolated label by label, each in its own box, with a running arg-max, in slabs of the target; background is what
    the others leave of 1.

    Parameters
    ----------
    top : TopPosteriors
        Cleaned up: probabilities add up to 1.
    grid : GridMap
        From the target grid to that of ``top``.

    Returns
    -------
    array [x, y, z]
        Label ids on the target grid.
    """
    coordinates = grid.inside(top.shape)
    if grid.is_copy():
        indices = [np.round(c).astype(int) for c in coordinates]
        return np.ascontiguousarray(grid.to_target(label_map(top)[np.ix_(*indices)]))
    ids = np.array(top.ids, label_dtype(top.ids))
    labels = np.zeros([len(c) for c in coordinates], ids.dtype)
    reached = [_reached(c, box) for c, box in zip(coordinates, top.box)]
    step = max(1, SLAB_VOXELS // max(1, labels[0].size))
    for start in range(reached[0].start, reached[0].stop, step):
        slab = (slice(start, min(start + step, reached[0].stop)), *reached[1:])
        labels[slab] = ids[_best_channels(top, [c[s] for c, s in zip(coordinates, slab)])]
    return np.ascontiguousarray(grid.to_target(labels))


def _best_channels(top: TopPosteriors, coordinates: list[np.ndarray]) -> np.ndarray:
    """Return the channel of the largest interpolated posterior on a lattice of coordinates within the source."""
    shape = [len(c) for c in coordinates]
    part = tuple(
        slice(max(int(c.min()) - b.start, 0), int(min(np.ceil(c.max()) + 1, b.stop)) - b.start)
        for c, b in zip(coordinates, top.box)
    )
    channels, probabilities = (array[(slice(None), *part)] for array in (top.channels, top.probabilities))
    best, total = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    best_channel = np.full(shape, top.background, np.uint8)
    present = np.where((probabilities > 0) & (channels != top.background), channels + np.uint8(1), np.uint8(0))
    for channel, where in _members(present):
        box = _bounds(where[1:])
        volume = np.zeros([s.stop - s.start for s in box], np.float32)
        volume[tuple(w - s.start for w, s in zip(where[1:], box))] = probabilities[where]
        whole = [slice(b.start + p.start + s.start, b.start + p.start + s.stop) for b, p, s in zip(top.box, part, box)]
        target = tuple(_reached(c, w) for c, w in zip(coordinates, whole))
        weights = [_tent(c[t], w) for c, t, w in zip(coordinates, target, whole)]
        sampled = _linear(volume, weights)
        total[target] += sampled
        better = sampled > best[target]
        best[target][better] = sampled[better]
        best_channel[target][better] = channel - 1
    best_channel[1 - total >= best] = top.background
    return best_channel


def _tent(coordinates: np.ndarray, source: slice) -> np.ndarray:
    """Return linear interpolation as a matrix [coordinates, source] for part of a source axis."""
    return np.maximum(0, 1 - np.abs(coordinates[:, None] - np.arange(source.start, source.stop))).astype(np.float32)


def _reached(coordinates: np.ndarray, source: slice) -> slice:
    """Return the range of coordinates that part of a source axis contributes to."""
    found = np.flatnonzero((coordinates > source.start - 1) & (coordinates < source.stop))
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _linear(volume: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """Apply one matrix [new, old] along each axis of a volume."""
    for axis, matrix in enumerate(weights):
        volume = np.moveaxis(np.tensordot(matrix, volume, axes=(1, axis)), 0, axis)
    return volume
