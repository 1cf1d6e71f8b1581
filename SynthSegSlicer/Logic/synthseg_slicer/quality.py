"""How good a segmentation probably is: an expected Dice per structure, and an interval for each volume.

A calibration (``NAME-quality.json`` beside ``NAME.pt``, made by ``synthseg-train calibrate``) holds what structures
look like in the label maps, a linear model from features of a result to Dice, fitted to synthetic scans whose truth is
known, spoiled ones among them, and how far volumes were off. It belongs to the very weights it was made with. Without
one, the score is the mean posterior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .calibration import FEATURES, Calibration
from .predict import TopPosteriors

FARTHEST = 6.0
"""Deviations beyond so many standard deviations count the same."""
DOUBTFUL_SCAN = 0.6
"""Mean expected Dice below which the whole result is called doubtful."""
CUT_BRAIN = 0.001
"""Share of the brain's voxels at the border of the image above which some of it is missing. Our validation scans have
at most 0.0003; two of them with the upper third cut off 0.010 and 0.013."""
DOUBTFUL_STRUCTURE = 0.25
"""So far below its usual Dice a structure is called doubtful."""


@dataclass(frozen=True)
class Verdict:
    """What is thought of one result.

    Attributes
    ----------
    structures : dict
        Label id to expected Dice, or to the mean posterior where ``calibrated`` is False.
    scan : float or None
        Mean expected Dice; None where not calibrated.
    intervals : dict
        Label id, None for the whole, to the factor between a volume and the bounds of its 90 % interval.
    warnings : list of str
        In plain words.
    calibrated : bool
    """

    structures: dict[int, float]
    scan: float | None
    intervals: dict[int | None, float]
    warnings: list[str]
    calibrated: bool


def failed(verdict: Verdict) -> bool:
    """Tell whether a result is probably wrong as a whole."""
    return verdict.scan is not None and verdict.scan < DOUBTFUL_SCAN


def judge(top: TopPosteriors, voxel_volume: float, names: dict[int, str], calibration: Calibration | None) -> Verdict:
    """Judge a cleaned-up result.

    Parameters
    ----------
    top : TopPosteriors
        Cleaned up.
    voxel_volume : float
        mm³.
    names : dict
        Label id to name.
    calibration : Calibration or None
        Of the weights.
    """
    if calibration is None:
        return Verdict(confidence(top), None, {}, [], False)
    values, present = features(top, voxel_volume, calibration)
    quality = np.where(present, calibration.quality(values), 0)
    scan = float(quality.mean())
    intervals = dict(zip([*calibration.ids, None], calibration.intervals(quality).tolist()))
    warnings = []
    if present.any() and scan < DOUBTFUL_SCAN:
        warnings.append(
            f"The result is probably wrong (expected Dice {scan:.2f}). Check that the scan shows a whole head, that it "
            "is not mostly noise, and that its header says correctly where up, front and left are."
        )
    elif present.any():
        low = [
            f"{names[label]} ({value:.2f})"
            for label, value, usual in zip(calibration.ids, quality, calibration.usual)
            if value < usual - DOUBTFUL_STRUCTURE
        ]
        if low:
            warnings.append(f"Look at these structures, whose expected Dice is low: {', '.join(low)}.")
    if values[0, FEATURES.index("cut")] > CUT_BRAIN:
        warnings.append(
            "The brain reaches the border of the scan: part of it is missing, and volumes are those of the rest. Take "
            "a scan of the whole head."
        )
    structures = {label: float(value) for label, value, there in zip(calibration.ids, quality, present) if there}
    return Verdict(structures, scan, intervals, warnings, True)


def features(top: TopPosteriors, voxel_volume: float, calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Return ``[structures, features]`` of :data:`.calibration.FEATURES`, and which structures were found at all.

    Expected Dice is 2 sum_won p / (n_won + sum p), the Dice of a structure's voxels if its posteriors were right.
    Size and place are deviations from the calibration's mean in standard deviations; *cut* is the share of the
    brain's voxels that lie at the border of the image; *missing* the share of structures without a voxel.
    """
    shape = describe(top, calibration.ids)
    present = shape.count > 0
    size = np.abs(np.log(np.maximum(shape.share, 1e-6)) - calibration.share) / np.array(calibration.share_sd)
    place = np.abs(shape.place - np.array(calibration.place)) / np.array(calibration.place_sd)
    size = np.where(present, np.minimum(size, FARTHEST), FARTHEST)
    place = np.where(present, np.minimum(np.sqrt((place**2).mean(1)), FARTHEST), FARTHEST)
    brain = abs(np.log(max(shape.brain * voxel_volume, 1.0)) - calibration.brain) / calibration.brain_sd
    whole = (shape.expected.mean(), size.mean(), place.mean(), min(brain, FARTHEST), shape.cut, 1 - present.mean())
    own = np.stack([shape.expected, shape.confidence, size, place], 1)
    return np.hstack([own, np.tile(whole, (len(present), 1))]), present


@dataclass(frozen=True)
class Shape:
    """Counts, certainty, size and place of each structure of a result; arrays over structures.

    ``place`` is ``[structures, 3]``, the centroid relative to the brain's in its standard deviations along each axis;
    ``brain`` counts voxels, ``cut`` is the share of them at the image's border.
    """

    count: np.ndarray
    expected: np.ndarray
    confidence: np.ndarray
    share: np.ndarray
    place: np.ndarray
    brain: int
    cut: float


def describe(top: TopPosteriors, ids: Sequence[int]) -> Shape:
    """Return the :class:`Shape` of a cleaned-up result."""
    winner, best = winners(top)
    n = len(top.ids)
    mass = np.zeros(n)
    for channels, probabilities in zip(top.channels, top.probabilities):
        some = probabilities > 0
        mass += np.bincount(channels[some], probabilities[some].astype(np.float64), n)
    index = np.flatnonzero(winner.ravel() != top.background)
    won = winner.ravel()[index]
    certain = np.bincount(won, best.ravel()[index].astype(np.float64), n)
    counts = np.bincount(won, minlength=n).astype(float)
    position = np.stack(np.unravel_index(index, winner.shape), 1)
    pick = [top.ids.index(label) for label in ids]
    brain = len(index)
    if not brain:
        zero = np.zeros(len(pick))
        return Shape(zero, zero, zero, zero, np.zeros((len(pick), 3)), 0, 0.0)
    spread = np.maximum(position.std(0), 1.0)
    centroid = (
        np.stack([np.bincount(won, position[:, axis], n) for axis in range(3)], 1) / np.maximum(counts, 1)[:, None]
    )
    corner = np.array([box.start for box in top.box])
    outer = ((position + corner <= 0) | (position + corner >= np.array(top.shape) - 1)).any(1)
    expected = 2 * certain / np.maximum(counts + mass, 1e-9)
    place = (centroid - position.mean(0)) / spread
    return Shape(
        counts[pick],
        expected[pick],
        (certain / np.maximum(counts, 1))[pick],
        counts[pick] / brain,
        place[pick],
        brain,
        float(outer.mean()),
    )


def winners(top: TopPosteriors) -> tuple[np.ndarray, np.ndarray]:
    """Return each voxel's most probable channel in the box, background where there is none, and its probability."""
    # The bits of non-negative floats sort like the floats; NumPy compares integers twenty times faster than float16.
    bits = top.probabilities.view(np.uint16)
    best, winner = bits[0].copy(), top.channels[0].copy()
    for rank_bits, rank_channels in zip(bits[1:], top.channels[1:]):
        better = rank_bits > best
        np.copyto(best, rank_bits, where=better)
        np.copyto(winner, rank_channels, where=better)
    winner[best == 0] = top.background
    return winner, best.view(np.float16)


def confidence(top: TopPosteriors) -> dict[int, float]:
    """Return the mean posterior of each label over the voxels that it won.

    An uncalibrated score: it falls with partial volume and with doubt, and orders results of one structure, but 0.9
    does not mean that nine voxels of ten are right. Small or thin structures have more border and so lower values.

    Parameters
    ----------
    top : TopPosteriors
        Cleaned up; the winners are those of :func:`synthseg_slicer.postprocess.label_map`.

    Returns
    -------
    dict
        Label id to a value in 0 to 1; labels that won no voxel, and background, are left out.
    """
    winner, best = winners(top)
    found = winner != top.background
    winner, best = winner[found], best[found].astype(np.float64)
    counts = np.bincount(winner, minlength=len(top.ids))
    sums = np.bincount(winner, best, len(top.ids))
    return {label: float(total / n) for label, total, n in zip(top.ids, sums, counts) if n}
