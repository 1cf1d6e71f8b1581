"""A PNG sheet of synthetic samples with the contours of their segmentations, to see what a network is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from synthseg_slicer.files import atomic
from synthseg_slicer.labels import BRAIN, STROKE

from .generation import Generator

_COLORS = {label.id: tuple(value / 255 for value in label.color) for label in (*BRAIN, *STROKE)}


def write_sheet(path: str | Path, generator: Generator, *, count: int = 12, columns: int = 4, seed: int = 0) -> None:
    """Draw samples and write one slice of each, in turn axial, coronal and sagittal, as a PNG.

    Parameters
    ----------
    path : path
        The PNG to write.
    generator : Generator
        What draws the samples.
    count, columns : int
        Number of samples, and how many stand side by side.
    seed : int
        Of the first draw; the same seed gives the same sheet.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    rng = torch.Generator().manual_seed(seed)
    rows = -(-count // columns)
    figure = Figure(figsize=(3 * columns, 3.2 * rows), facecolor="black", layout="constrained")
    for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if number < count:
            parameters = generator.draw(rng)
            image, target = (tensor.cpu().numpy() for tensor in generator.apply(parameters))
            axis = 2 - number % 3
            index = _busiest_slice(target, axis)
            _show(axes, image[0].take(index, axis), target.take(index, axis), generator.config.output_ids)
            axes.set_title(_caption(parameters), color="white", fontsize=8)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=100)


def _busiest_slice(target: np.ndarray, axis: int) -> int:
    """Return the slice of the middle half of the crop that has most labels, then most foreground."""
    quarter = target.shape[axis] // 4
    slices = range(quarter, target.shape[axis] - quarter)
    return max(slices, key=lambda i: (len(np.unique(target.take(i, axis))), np.count_nonzero(target.take(i, axis))))


def _show(axes, image: np.ndarray, target: np.ndarray, ids: tuple[int, ...]) -> None:
    axes.imshow(image.T, cmap="gray", vmin=0, vmax=max(float(image.max()), 1e-3), origin="lower")
    for channel in np.unique(target[target > 0]):
        # Labels of another anatomy than the brain have no colour of their own.
        color = _COLORS.get(ids[channel], f"C{channel % 10}")
        axes.contour((target == channel).T, levels=[0.5], colors=[color], linewidths=0.6)


def _caption(parameters) -> str:
    if hasattr(parameters, "gmm"):
        kind = parameters.gmm.contrast
    else:
        lesion = sum(focus.volume for focus in parameters.foci)
        kind = f"{type(parameters.sequence).__name__ if parameters.sequence else 'random'}, lesion {lesion:.1f} ml"
    resolution = parameters.resolution
    if not resolution.axes:
        return f"{kind}, native"
    direction = "isotropic" if len(resolution.axes) > 1 else ("sagittal", "coronal", "axial")[resolution.axes[0]]
    return f"{kind}, {direction} {resolution.spacing:.1f} mm"
