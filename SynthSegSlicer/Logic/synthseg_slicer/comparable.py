"""Whether scans of several timepoints can be compared: one head, one contrast, one resolution, one field of view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from .aligned import Aligned
from .quality import CUT_BRAIN
from .scan import Scan
from .weights import Model

CLOSURE_MM = 2.0
"""Two registrations of a pair, one each way, that differ by more are reported as doubtful; good ones by 0.02."""
SAME_HEAD = 0.75
"""Share of the brain's voxels labelled alike below which two scans hardly show one head, or lie askew. A real rescan
(nm1003, nm1023) has 0.95, 2 mm askew 0.75, different heads (nm1000, nm1006; nm1003, nm1012) 0.63 and 0.61."""
SAME_CONTRAST = 0.6
"""Correlation of intensities in the brain below which contrasts are reported as different. The rescan has 0.98, T1
against T1 after contrast agent 0.79, against FLAIR 0.36, against T2 -0.63 (ms07)."""
VOXEL_RATIO = 1.2
"""Ratio of voxel sizes above which resolutions are reported as different."""
COARSER = 1.25
"""Voxels may be so many times larger than those of the scans that thresholds were measured on: 1.2 mm instead of 1."""


def similarity(labels: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return how alike scans on one grid are, two symmetric arrays [n, n].

    Parameters
    ----------
    labels, images : sequence of array [x, y, z]

    Returns
    -------
    agreement : float64 array
        2 |same structure in both| / (|brain of one| + |brain of the other|), over voxels. It does not depend on
        contrast.
    correlation : float64 array
        Pearson's, of the intensities in what is brain in both; 0 where that is nothing.
    """
    number = len(labels)
    agreement, correlation = np.eye(number), np.eye(number)
    brains = [one > 0 for one in labels]
    for i, j in combinations(range(number), 2):
        both = brains[i] & brains[j]
        same = np.count_nonzero(both & (labels[i] == labels[j]))
        total = np.count_nonzero(brains[i]) + np.count_nonzero(brains[j])
        agreement[i, j] = agreement[j, i] = 2 * same / max(total, 1)
        pair = [image[both] for image in (images[i], images[j])]
        flat = not both.any() or min(np.ptp(values) for values in pair) == 0
        correlation[i, j] = correlation[j, i] = 0.0 if flat else np.corrcoef(*pair)[0, 1]
    return agreement, correlation


def differences(
    scans: Sequence[Scan], aligned: Aligned, families: set[str], agreement: np.ndarray, correlation: np.ndarray
) -> Iterator[str]:
    """Yield what makes scans incomparable, in plain words.

    Parameters
    ----------
    scans : sequence of Scan
    aligned : Aligned
    families : set of str
        Families of contrasts that were recognised; empty if nobody looked.
    agreement, correlation : array [n, n]
        From :func:`similarity`.
    """
    for i, j in combinations(range(len(scans)), 2):
        names = f"{scans[i].name} and {scans[j].name}"
        if agreement[i, j] < SAME_HEAD:
            yield (
                f"{names}: only {100 * agreement[i, j]:.0f} % of the brain is labelled alike. They are not of one "
                "head, or not registered: look whether they lie on each other, and register them beforehand if not."
            )
        elif aligned.closures[i, j] > CLOSURE_MM:
            yield (
                f"{names}: registered one way and the other, the results differ by {aligned.closures[i, j]:.1f} mm. "
                "Look whether they lie on each other, and register them beforehand if not."
            )
    kinds = {one.is_ct for one in aligned.conformed}
    lowest = correlation[agreement >= SAME_HEAD].min()  # of others it says nothing about contrast
    if len(families) > 1 or len(kinds) > 1 or lowest < SAME_CONTRAST:
        yield (
            f"The timepoints differ in contrast (correlation in the brain down to {lowest:.2f}), which alone looks "
            "like change. Compare scans of one sequence."
        )
    sizes = np.array([sorted(scan.voxel_size) for scan in scans])
    if (sizes.max(0) / sizes.min(0)).max() > VOXEL_RATIO:
        yield "The timepoints differ in voxel size, which alone looks like change. Compare scans of one protocol."


def missing_parts(scans: Sequence[Scan], aligned: Aligned, labels: Sequence[np.ndarray]) -> Iterator[str]:
    """Yield a warning for each scan whose field of view cuts off what another one shows of the brain."""
    for scan, inside in zip(scans, aligned.inside):
        cut = max(np.count_nonzero((one > 0) & ~inside) / max(np.count_nonzero(one), 1) for one in labels)
        if cut > CUT_BRAIN:
            yield (
                f"{scan.name}: {100 * cut:.1f} % of the brain at another timepoint lies outside its field of view. "
                "Structures there seem to change."
            )


def unmeasured(
    scans: Sequence[Scan], model: Model, family: str, *, ct: bool, fast: bool, refined: bool, smoothed: bool
) -> str | None:
    """Return why the noise from scan to scan is not known for these scans and settings; None if it is.

    Parameters
    ----------
    scans : sequence of Scan
    model : Model
    family : str
        Of contrasts, that the scans were segmented as.
    ct : bool
        Whether they are CT.
    fast, refined, smoothed : bool
        Settings of the segmentation.
    """
    if model.rescan is None:
        return "it was not measured with these weights (synthseg-train rescan does)"
    if ct or family not in model.rescan.families:
        return "it was not measured for this contrast"
    if fast or not refined or smoothed:
        return "it was measured with both passes and refinement, on scans that needed no smoothing"
    coarsest = max(max(scan.voxel_size) for scan in scans)
    if coarsest > COARSER * model.rescan.coarsest:
        return f"it was measured on voxels of at most {model.rescan.coarsest:.1f} mm, here they reach {coarsest:.1f} mm"
    return None
