"""Scans of one head on one grid halfway between them, ready to be segmented alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations

import numpy as np

from . import registration, sanity
from .conform import ANTIALIAS_SIGMA, SPACING_TOLERANCE, Conformed, conform, crop_to_head, smooth
from .midpoint import Frame, Midpoint, displacement, midpoint
from .resampling import sample
from .robust import NOISY, denoised, noise_level
from .scan import Scan
from .stages import Stages
from .weights import Model


@dataclass(frozen=True, eq=False)
class Aligned:
    """Scans on a common grid; lists are in the order of the scans.

    Attributes
    ----------
    space : Midpoint
    conformed : list of Conformed
        Interpolated once, from the scan's own voxels.
    inside : list of bool array
        Where on the grid each scan has a value of its own.
    crop : tuple of slice
        Box around the heads of all.
    smoothed : bool
        Whether all were smoothed against the noise of one.
    closures : dict
        ``i, j`` with i < j: by how many mm the two registrations of a pair contradict each other.
    """

    space: Midpoint
    conformed: list[Conformed]
    inside: list[np.ndarray]
    crop: tuple[slice, slice, slice]
    smoothed: bool
    closures: dict[tuple[int, int], float]


def align(
    scans: Sequence[Scan],
    model: Model,
    *,
    ct: bool | None,
    robust: bool | None,
    stage: Stages,
    start: float,
    stop: float,
) -> Aligned:
    """Register every pair of scans both ways and sample all of them halfway.

    Parameters
    ----------
    scans : sequence of Scan
        Two or more of one head.
    model : Model
        Whose voxel size the grid has.
    ct, robust
        See :func:`.pipeline.segment`; ``robust`` by default if one of the scans is noisy.
    stage : Stages
        Is told the stages "register" and "conform".
    start, stop : float
        Their share of the whole job.

    Raises
    ------
    ScanError
        Scans that cannot be registered, or that cannot be segmented.
    """
    asked = {"ct": ct, "voxel_size": model.voxel_size, "ct_window": model.ct_window}
    middle = start + 0.9 * (stop - start)
    pairs = list(permutations(range(len(scans)), 2))
    ways = {}
    for done, (i, j) in enumerate(pairs):
        step = (middle - start) / len(pairs)
        with stage(f"register {done + 1} of {len(pairs)}", start + done * step, start + (done + 1) * step):
            ways[i, j] = registration.register(scans[i], scans[j])
    with stage("conform", middle, stop):
        frames, kinds = [], []
        for scan in scans:
            own = conform(scan, **asked)  # checks it, and says how its axes lie
            if model.mirrored:  # a head
                sanity.check(scan, own.image, model.voxel_size)
            frames.append(Frame.of(own.image.shape, own.affine))
            kinds.append(own.is_ct)
        space = midpoint(frames, ways, model.voxel_size)
        conformed, inside = [], []
        for scan, transform, is_ct in zip(scans, space.transforms, kinds):
            brought, reached = bring(scan, transform, space, model.ct_window if is_ct else None)
            conformed.append(replace(conform(brought, **{**asked, "ct": is_ct}), source=scan))
            inside.append(reached)
        smoothed = any(noise_level(one.image) > NOISY for one in conformed) if robust is None else robust
        if smoothed:
            conformed = [replace(one, image=denoised(one.image, model.voxel_size)) for one in conformed]
        boxes = [crop_to_head(one.image) for one in conformed]
        crop = tuple(slice(min(b[a].start for b in boxes), max(b[a].stop for b in boxes)) for a in range(3))
    both = combinations(range(len(scans)), 2)
    closures = {(i, j): displacement(ways[j, i] @ ways[i, j], frames[i].pose[:3, 3]) for i, j in both}
    return Aligned(space, conformed, inside, crop, bool(smoothed), closures)


def bring(
    scan: Scan, transform: np.ndarray, space: Midpoint, window: tuple[float, float] | None = None
) -> tuple[Scan, np.ndarray]:
    """Return a scan interpolated on the midpoint's grid, and where the grid lies inside it.

    As in :func:`.conform.conform`: CT is clipped first, and axes with finer voxels than the grid's are smoothed by a
    Gaussian of :data:`.conform.ANTIALIAS_SIGMA` grid voxels. Beyond the scan lies its darkest value.

    Parameters
    ----------
    scan : Scan
    transform : float64 array [4, 4]
        World mm of the scan to world mm of the midpoint.
    space : Midpoint
    window : tuple of float, optional
        Hounsfield units that CT is clipped to.
    """
    data = scan.data.astype(np.float32)
    if window is not None:
        data = np.clip(data, *window)
    ratios = np.linalg.norm(space.affine[:3, :3], axis=0)[0] / np.array(scan.voxel_size)
    data = smooth(data, np.where(ratios > 1 + SPACING_TOLERANCE, ANTIALIAS_SIGMA * ratios, 0.0))
    darkest = data.min()
    data -= darkest
    values, inside = sample(data[None], np.linalg.inv(transform @ scan.affine) @ space.affine, space.shape)
    return Scan(values[0] + darkest, space.affine, name=scan.name), inside


def canonical_order(scans: Sequence[Scan]) -> list[int]:
    """Return the scans' places in an order that depends on their content alone."""

    def digest(place: int) -> bytes:
        scan = scans[place]
        content = hashlib.sha256(np.ascontiguousarray(scan.data))
        content.update(f"{scan.data.dtype.str} {scan.shape}".encode())
        content.update(np.ascontiguousarray(scan.affine))
        return content.digest()

    return sorted(range(len(scans)), key=digest)
