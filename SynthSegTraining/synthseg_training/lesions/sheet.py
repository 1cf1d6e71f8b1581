"""A PNG sheet of lesions in three planes, to judge their shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synthseg_slicer.files import atomic
from synthseg_training.generation.priors import BRAIN_TISSUES, tissue_mean

from .shapes import LesionShapes
from .territories import SIDE_OF

_RIGHT_TO_LEFT = {
    41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13, 53: 17, 54: 18, 57: 25, 58: 26, 60: 28,
    62: 30, 163: 136, 164: 137,
}  # fmt: skip


def write_sheet(
    path: str | Path, labels: Tensor, shapes: LesionShapes, voxel_size: float = 1.0, *, count: int = 12, seed: int = 0
) -> None:
    """Draw lesions and write the axial, coronal and sagittal slice with most of each, as a PNG.

    Parameters
    ----------
    path : path
        The PNG to write.
    labels : Tensor
        FreeSurfer ids ``[x, y, z]`` in RAS order.
    shapes : LesionShapes
        What draws the lesions.
    voxel_size : float
        In mm.
    count, seed : int
        Number of patients and seed of the first draw.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    from matplotlib.figure import Figure

    rng = torch.Generator().manual_seed(seed)
    tissue = np.zeros(max(int(labels.max()) + 1, 256))
    for label in range(len(tissue)):
        name = BRAIN_TISSUES.get(_RIGHT_TO_LEFT.get(label, label))
        tissue[label] = tissue_mean(name, "t1") / 255 if name else 0
    grey = tissue[labels.cpu().numpy()]
    brain = np.isin(labels.cpu().numpy(), [*SIDE_OF, 16, 24])
    box = [np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = tuple(slice(max(found[0] - 4, 0), found[-1] + 5) for found in box)
    columns = 2
    rows = -(-count // columns)
    figure = Figure(figsize=(6 * columns, 2.4 * rows), facecolor="black", layout="constrained")
    axes = figure.subplots(rows, 3 * columns, squeeze=False).reshape(rows * columns, 3)
    for panel in axes.flat:
        panel.set_axis_off()
    for row in axes[:count]:
        foci = shapes.draw(rng)
        fields = {field.stage: field for field in shapes.apply(labels, foci, voxel_size)}
        cavity, rim, acute = (
            values.cpu().numpy()[box]
            for values in (fields["chronic"].core, fields["chronic"].rim, fields["acute"].core + fields["acute"].rim)
        )
        whole = cavity + rim + acute
        image = np.repeat(grey[box][..., None], 3, -1)
        for values, color in ((cavity, (0.1, 0.1, 0.6)), (rim, (1.0, 0.75, 0.2)), (acute, (0.9, 0.25, 0.25))):
            image = image * (1 - 0.85 * values[..., None]) + 0.85 * values[..., None] * np.array(color)
        for panel, axis in zip(row, (2, 1, 0)):
            index = int(whole.sum(axis=tuple({0, 1, 2} - {axis})).argmax())
            panel.imshow(image.take(index, axis).transpose(1, 0, 2), origin="lower", vmin=0, vmax=1)
        main = foci[0]
        wedge = " wedge" if main.wedge else ""
        total = whole.sum() * voxel_size**3 / 1000
        caption = f"{main.territory}{wedge}, foci: {len(foci)}, {sum(f.volume for f in foci):.1f} ml ({total:.1f})"
        row[1].set_title(caption, color="white", fontsize=8)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
