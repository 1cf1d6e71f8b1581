"""How good estimated maps are, on simulated scans of heads that the estimator has not seen; and a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from synthseg_slicer.files import atomic

from ..stroke.from_maps import LEAST_PD
from .network import MAPS
from .predict import Estimator, window_maps
from .simulation import MprageSimulator

UNITS = {"pd": "PD, %", "r1": "R1, 1/s", "r2s": "R2*, 1/s", "mt": "MT, %"}
TOPS = {"pd": 110.0, "r1": 1.8, "r2s": 70.0, "mt": 2.2}
"""Upper ends of the grey scales."""


def compare(estimate: Tensor, truth: Tensor, constants: Tensor | None = None) -> list[dict[str, float | str]]:
    """Compare the maps of some voxels, one row a map.

    Parameters
    ----------
    estimate, truth : Tensor
        ``[4, voxels]``.
    constants : Tensor, optional
        ``[4]``, the guess to compare with; by default the mean of each true map, which nobody knows beforehand.

    Returns
    -------
    list of dict
        ``map``; ``error``, the mean absolute error over the mean of the true map; ``constant_error``, that of the
        constants; and Pearson's ``correlation``.
    """
    constants = truth.mean(1) if constants is None else constants
    rows = []
    for name, guess, true, constant in zip(MAPS, estimate.double(), truth.double(), constants):
        rows.append(
            {
                "map": name,
                "error": float((guess - true).abs().mean() / true.mean()),
                "constant_error": float((true - constant).abs().mean() / true.mean()),
                "correlation": float(torch.corrcoef(torch.stack([guess, true]))[0, 1]),
            }
        )
    return rows


def measure(
    estimator: Estimator,
    simulator: MprageSimulator,
    count: int,
    *,
    seed: int = 0,
    window: int | None = None,
    picture: Callable[[int], Path] | None = None,
) -> list[dict[str, float | str]]:
    """Estimate the maps of simulated scans, window by window, and compare them within the head.

    Parameters
    ----------
    estimator : Estimator
    simulator : MprageSimulator
        Of held-out heads; its crop may be larger than that of training.
    count, seed : int
        Number of scans, and of their draws.
    window : int, optional
        As in :func:`~.predict.window_maps`.
    picture : callable, optional
        Given the number of a scan, tells where its :func:`map_sheet` goes.

    Returns
    -------
    list of dict
        Rows of :func:`compare`, with the number of the scan; the constants are the means over all these scans.
    """
    rng, pairs = torch.Generator().manual_seed(seed), []
    for number in range(count):
        image, truth = (part.cpu() for part in simulator.sample(rng))
        estimate = window_maps(estimator, image[0], window=window)
        if picture:
            map_sheet(picture(number), image[0], estimate, truth)
        head = truth[0] > LEAST_PD
        pairs.append((estimate[:, head], truth[:, head]))
    constants = torch.stack([truth.mean(1) for _, truth in pairs]).mean(0)
    return [{"scan": number, **row} for number, pair in enumerate(pairs) for row in compare(*pair, constants)]


def map_sheet(path: str | Path, image: Tensor, estimate: Tensor, truth: Tensor | None = None) -> None:
    """Write the middle axial slice of a scan and of its maps, estimated and, where known, true, as PNG."""
    from matplotlib.figure import Figure

    rows = [("estimated", estimate)] + ([("true", truth)] if truth is not None else [])
    figure = Figure(figsize=(15, 3.4 * len(rows)), facecolor="black", layout="constrained")
    middle = image.shape[2] // 2
    for number, (title, maps) in enumerate(rows):
        panels = [("scan", image, float(image.max()))]
        panels += [(f"{UNITS[name]}, {title}", values, TOPS[name]) for name, values in zip(MAPS, maps)]
        for column, (caption, values, top) in enumerate(panels):
            axes = figure.add_subplot(len(rows), 5, 5 * number + column + 1)
            shown = axes.imshow(values[:, :, middle].T.numpy(), cmap="gray", vmin=0, vmax=top, origin="lower")
            axes.set_axis_off()
            axes.set_title(caption, color="white", fontsize=10)
            if column:
                figure.colorbar(shown, ax=axes, shrink=0.7).ax.tick_params(colors="white", labelsize=7)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=90)
