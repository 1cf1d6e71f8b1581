"""How sure the network was of each structure."""

from __future__ import annotations

import numpy as np

from .predict import TopPosteriors


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
    # The bits of non-negative floats sort like the floats; NumPy compares integers twenty times faster than float16.
    bits = top.probabilities.view(np.uint16)
    best, winner = bits[0].copy(), top.channels[0].copy()
    for rank_bits, rank_channels in zip(bits[1:], top.channels[1:]):
        better = rank_bits > best
        np.copyto(best, rank_bits, where=better)
        np.copyto(winner, rank_channels, where=better)
    found = (winner != top.background) & (best > 0)
    winner, best = winner[found], best[found].view(np.float16).astype(np.float64)
    counts = np.bincount(winner, minlength=len(top.ids))
    sums = np.bincount(winner, best, len(top.ids))
    return {label: float(total / n) for label, total, n in zip(top.ids, sums, counts) if n}
