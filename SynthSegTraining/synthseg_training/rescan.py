"""Measure how far volumes differ from scan to scan of an unchanged head: what a change must exceed to be believed.

Scans that were really repeated are rare, so most of it comes from simulated ones: of a scan two are made that differ in
what differs between two visits (pose, voxel size, receive field, contrast, noise), and both go through
:func:`synthseg_slicer.longitudinal.segment_timepoints`. That gives the noise of each structure. What happens to a real
visit besides (motion, distortion, drifting gradients, water) is taken from real pairs: one standard deviation in
percent for all structures, which adds to that of the simulated visits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from synthseg_slicer.conform import PERCENTILES, conform
from synthseg_slicer.longitudinal import segment_timepoints
from synthseg_slicer.midpoint import rigid_exp
from synthseg_slicer.rescan import CONFIDENCE, RescanNoise
from synthseg_slicer.robust import noise_level
from synthseg_slicer.scan import Scan, read_scan
from synthseg_slicer.weights import Model
from synthseg_training.evaluation.scans import IMAGE_SUFFIX

SIMULATED, REAL = "simulated", "real"
COLUMNS = ["scan", "kind", "family", "label", "structure", "first_mm3", "later_mm3", "difference_percent"]
TOTAL = 0
"""Stands for the sum of all among the labels; as the background's it has no volume of its own."""
MOST_ADDED = 20.0
"""Percent that real visits may add."""
HEAD = 0.05
"""Share of the intensity range above which a voxel counts as head, for the simulated field of view."""
MARGIN_MM = 15.0
"""Of the simulated field of view around the head: it may be shifted and turned."""


@dataclass(frozen=True)
class Visit:
    """By how much a simulated visit differs from the scan that it is made of; all bounds of uniform distributions.

    Attributes
    ----------
    rotation : float
        Degrees about each axis.
    shift : float
        mm along each axis.
    voxel_size : float
        Relative change of the voxels' edge.
    bias : float
        Standard deviation of the logarithm of the receive field's change, at nodes :attr:`spacing` mm apart.
    exponent : float
        Deviation from 1 of the exponent applied to intensities in [0, 1].
    noise : float
        Standard deviation of the noise added, relative to the scan's own (not drawn).
    """

    rotation: float = 5.0
    shift: float = 5.0
    voxel_size: float = 0.08
    bias: float = 0.1
    exponent: float = 0.05
    noise: float = 1.0
    spacing: float = 50.0


def retake(scan: Scan, rng: np.random.Generator, visit: Visit = Visit()) -> Scan:
    """Return a scan as another visit would have shown the same head.

    The scan is interpolated once, by cubic splines, on a grid of other voxel size and pose, of which its header says
    nothing; what was one value all around a stripped brain stays without noise.

    Parameters
    ----------
    scan : Scan
    rng : numpy.random.Generator
    visit : Visit
    """
    data = np.asarray(scan.data, dtype=np.float32)
    low, high = np.percentile(data, PERCENTILES)
    size = float(rng.uniform(1 - visit.voxel_size, 1 + visit.voxel_size))
    turn = np.zeros((4, 4))
    x, y, z = np.radians(rng.uniform(-visit.rotation, visit.rotation, 3))
    turn[:3, :3] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
    pose = rigid_exp(turn)
    first, last = _head(data > low + HEAD * (high - low))
    around = MARGIN_MM / np.array(scan.voxel_size)
    first, last = first - around, last + around
    shape = tuple(np.ceil((last - first + 1) / size).astype(int))
    centre = scan.affine[:3, :3] @ ((first + last) / 2) + scan.affine[:3, 3]
    pose[:3, 3] = centre - pose[:3, :3] @ centre + rng.uniform(-visit.shift, visit.shift, 3)
    affine = scan.affine.copy()
    affine[:3, :3] *= size
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    index = np.linalg.inv(scan.affine) @ pose @ affine
    darkest = float(data.min())
    values = ndimage.affine_transform(data, index[:3, :3], index[:3, 3], shape, order=3, cval=darkest)
    inside = ndimage.affine_transform((data > darkest).astype(np.float32), index[:3, :3], index[:3, 3], shape, order=1)
    values = np.clip((values - low) / max(high - low, 1e-6), 0, None)
    values = values ** rng.uniform(1 - visit.exponent, 1 + visit.exponent)
    counts = [max(2, round(n * s / visit.spacing)) for n, s in zip(shape, np.array(scan.voxel_size) * size)]
    nodes = torch.from_numpy(rng.normal(0, visit.bias, counts))[None, None].float()
    values *= F.interpolate(nodes, size=shape, mode="trilinear", align_corners=True)[0, 0].exp().numpy()
    own = noise_level(conform(scan).image)
    values += rng.normal(0, visit.noise * own, shape) * (inside > 0.5)
    return Scan((np.clip(values, 0, None) * (high - low)).astype(np.float32), affine, name=scan.name)


def named_scans(folder: Path, names: Sequence[str]) -> list[Scan]:
    """Return the scans ``NAME_image.nii.gz`` of a folder, called NAME, in the order asked for; one may occur twice."""
    return [replace(read_scan(folder / f"{name}{IMAGE_SUFFIX}"), name=name) for name in names]


def measure(
    model: Model,
    scans: Sequence[Scan],
    pairs: Sequence[tuple[Scan, Scan]] = (),
    *,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Segment simulated and real pairs of visits.

    Parameters
    ----------
    model : Model
        With its experts.
    scans : sequence of Scan
        Of each, two visits are simulated; one that occurs twice is taken twice.
    pairs : sequence of (Scan, Scan)
        Heads that were really scanned twice.
    seed : int
        Of the visits.
    report : callable
        Receives a line a pair.

    Returns
    -------
    DataFrame
        :data:`COLUMNS`: a row a pair and structure, the last of each pair the total with label :data:`TOTAL`.
    """
    rng = np.random.default_rng(seed)
    rows = []
    taken = ((SIMULATED, scan.name, retake(scan, rng), retake(scan, rng)) for scan in scans)
    for kind, name, first, second in [*taken, *((REAL, f"{a.name} {b.name}", a, b) for a, b in pairs)]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            timeline = segment_timepoints([first, second], model=model)
        family = timeline.provenance["options"]["contrast"]
        for row in timeline.changes:
            if row.change_percent is not None:
                volumes = row.first_mm3, row.later_mm3, row.change_percent
                rows.append((name, kind, family, row.label or TOTAL, row.structure, *volumes))
        percent = [row.change_percent for row in timeline.changes[:-1] if row.change_percent is not None]
        report(f"{kind} {name} ({family}): root mean square difference {np.sqrt(np.mean(np.square(percent))):.2f} %")
    return pd.DataFrame(rows, columns=COLUMNS)


def fit(table: pd.DataFrame, model: Model, coarsest: float, facts: dict) -> RescanNoise:
    """Return the noise from :func:`measure`'s table.

    The standard error of measurement of structure s is sqrt(e_s^2 + c^2): e_s^2 is mean(d^2) / 2 over simulated pairs,
    d their difference in percent, both sides of a structure and all contrasts together; c is what a real visit adds, by
    maximum likelihood of the real pairs' differences d ~ N(0, 2 (e_s^2 + c^2)); 0 without such pairs.

    Parameters
    ----------
    table : DataFrame
    model : Model
        That the table was made with.
    coarsest : float
        Largest voxel edge in mm of the scans.
    facts : dict
        To be kept. Added are the number of pairs, c, and the share of differences beyond their thresholds: of simulated
        pairs by e_s from the other heads, of real pairs by all and by simulated pairs alone.

    Raises
    ------
    ValueError
        There is no simulated pair.
    """
    simulated, real = (table[table["kind"] == kind] for kind in (SIMULATED, REAL))
    if simulated.empty:
        raise ValueError("no simulated pair: give scans to simulate visits of")
    variances = _variances(simulated, model)
    added = _added(real, variances)
    shares = []
    for name, rows in simulated.groupby("scan"):
        others = simulated[simulated["scan"] != name]
        if len(others):
            known = _variances(others, model)
            shares.append(_beyond(rows, known, _added(real, known)))
    facts = facts | {
        "pairs": {kind: int(((table["kind"] == kind) & (table["label"] == TOTAL)).sum()) for kind in (SIMULATED, REAL)},
        "added_by_real_visits_percent": added,
        "simulated_beyond_thresholds_of_other_heads": float(np.mean(np.concatenate(shares))) if shares else None,
        "real_beyond_thresholds": float(_beyond(real, variances, added).mean()) if len(real) else None,
        "real_beyond_thresholds_of_simulated": float(_beyond(real, variances, 0).mean()) if len(real) else None,
    }
    ids = [*(label for label in model.ids if label != 0), None]
    deviations = [float(np.hypot(np.sqrt(variances[label or TOTAL]), added)) for label in ids]
    return RescanNoise(model.all_sha256, ids, deviations, sorted(simulated["family"].unique()), coarsest, facts)


def _variances(simulated: pd.DataFrame, model: Model) -> dict[int, float]:
    """Return the variance of measurement, in squared percent, of each label and of the total."""
    side = {label: min(label, partner) for label, partner in model.partners.items()}  # the background's is TOTAL
    found = (simulated["difference_percent"] ** 2).groupby(simulated["label"].map(side)).mean() / 2
    # a structure that these scans lack altogether is as noisy as the noisiest one there is
    return {label: float(found.get(key, found.max())) for label, key in side.items()}


def _added(real: pd.DataFrame, variances: dict[int, float]) -> float:
    """Return the standard deviation in percent that real visits add to a structure's own, by maximum likelihood."""
    if real.empty:
        return 0.0
    own = real["label"].map(variances).to_numpy()
    squares = real["difference_percent"].to_numpy() ** 2 / 2

    def cost(added: float) -> float:
        total = own + added**2
        return float((np.log(total) + squares / total).sum())

    return float(minimize_scalar(cost, bounds=(0.0, MOST_ADDED), method="bounded").x)


def _beyond(rows: pd.DataFrame, variances: dict[int, float], added: float) -> np.ndarray:
    """Tell which differences exceed their thresholds."""
    deviation = np.sqrt(2 * (rows["label"].map(variances).to_numpy() + added**2))
    return np.abs(rows["difference_percent"].to_numpy()) > CONFIDENCE * deviation


def _head(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last voxel of a mask along each axis."""
    found = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    return np.array([where[0] for where in found]), np.array([where[-1] for where in found])
