"""PNG sheets: synthetic samples with their contours, to see what a network is trained on; patients of a trial."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from synthseg_slicer.files import atomic
from synthseg_slicer.labels import BRAIN, STROKE

from .evaluation.lesions import PatientSlice
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


def write_trial_sheet(path: str | Path, patients: Sequence[PatientSlice], *, most: int = 10) -> None:
    """Write patients of a trial as a PNG: a row a patient, a column a sequence, the contour of what was found in each.

    Parameters
    ----------
    path : path
        The PNG to write.
    patients : sequence of PatientSlice
        What :func:`synthseg_training.evaluation.lesions.trial` showed.
    most : int
        Rows. Of more patients these are shown at equal distances between the best and the worst by mean Dice.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    ordered = sorted(patients, key=lambda patient: -patient.dice)
    if len(ordered) > most:
        ordered = [ordered[round(index)] for index in np.linspace(0, len(ordered) - 1, most)]
    names = list(ordered[0].scans)
    size = (1.7 * (1 + len(names)), 1.85 * len(ordered))
    figure = Figure(figsize=size, facecolor="black", layout="constrained")
    for patient, row in zip(ordered, figure.subplots(len(ordered), 1 + len(names), squeeze=False)):
        first = patient.scans[names[0]][0]
        title = f"patient {patient.patient + 1}, {patient.lesion_ml:.0f} ml: true"
        _show_lesion(row[0], first, patient.target, title, "#ff5050")
        for axes, name in zip(row[1:], names):
            image, found, dice = patient.scans[name]
            _show_lesion(axes, image, found, f"{name} {dice:.2f}", "#40e0ff")
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=100)


def _show_lesion(axes, image: np.ndarray, lesion: np.ndarray, title: str, color: str) -> None:
    axes.set_axis_off()
    low, high = np.percentile(image, (1, 99.5))
    axes.imshow(image.T, cmap="gray", vmin=low, vmax=max(high, low + 1e-3), origin="lower")
    axes.set_title(title, color="white", fontsize=7)
    if lesion.any():
        axes.contour(lesion.T, levels=[0.5], colors=[color], linewidths=0.8)


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
