"""Draw the icons of the extension and the module: a coronal slice, scan on one side, segmentation on the other.

``python Testing/extension/make_icon.py SCAN LABELS`` with the two files that ``synthseg-slicer demo`` writes
(``mni152.nii.gz`` and ``mni152_synthseg.nii.gz``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from synthseg_slicer.labels import BRAIN

ROOT = Path(__file__).resolve().parents[2]
ICONS = (
    ROOT / "SynthSegSlicer.png",
    ROOT / "SynthSegSlicer" / "Resources" / "Icons" / "SynthSegSlicer.png",
)
SIZE = 128  # pixels, as the extensions catalogue wants
SUPERSAMPLING = 8
ANTERIOR = -14.0  # mm, a coronal plane through hippocampus, thalamus, putamen and pallidum
MARGIN = 8  # mm between the brain and the edge of the tile
CORNER = 0.18  # radius of the tile's corners, part of its side
TILE = (24, 30, 44)  # dark, so that the white matter stands out in light and dark themes
GREY = (8, 99)  # percentiles of the brain's intensities that become black and white
COLORS = 200  # of the palette: keeps the file small


def draw(scan: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> Image.Image:
    """Return the icon.

    Parameters
    ----------
    scan, labels : ndarray, [x, y, z]
        RAS+, the same grid of 1 mm.
    affine : ndarray, 4 x 4
        Voxel to world, mm.

    Returns
    -------
    PIL.Image.Image
        :data:`SIZE` pixels squared, with transparent corners; patient's right is on the left, as radiologists look.
    """
    plane = round((ANTERIOR - affine[1, 3]) / affine[1, 1])
    scan, labels = (np.flip(volume[:, plane, :].T, (0, 1)) for volume in (scan, labels))
    brain = ndimage.binary_fill_holes(labels > 0)
    rows, columns = (np.flatnonzero(brain.any(axis)) for axis in (1, 0))
    side = max(np.ptp(rows), np.ptp(columns)) + 1 + 2 * MARGIN
    top, left = (round((span[0] + span[-1] + 1 - side) / 2) for span in (rows, columns))
    scan, labels, brain = (
        np.pad(image, side)[top + side : top + 2 * side, left + side : left + 2 * side]
        for image in (scan, labels, brain)
    )
    middle = np.flatnonzero(np.isin(labels, [label.id for label in BRAIN if label.side == "left"]).any(0))[0]

    def enlarge(image: np.ndarray, order: int) -> np.ndarray:
        return ndimage.zoom(image.astype(float), SIZE * SUPERSAMPLING / side, order=order)

    black, white = np.percentile(scan[brain], GREY)
    picture = np.clip((enlarge(scan, 3) - black) / (white - black), 0, 1)[..., None] * (255, 255, 255)
    # The labels are enlarged one by one and compete, which gives smooth outlines.
    present = [label for label in BRAIN if (labels == label.id).any()]
    votes = [enlarge(ndimage.gaussian_filter((labels == label.id) * 1.0, 0.7), 1) for label in present]
    colors = np.array([label.color for label in present])[np.argmax(votes, axis=0)]
    right_half = np.arange(len(picture)) >= middle * len(picture) / side
    picture = np.where(right_half[None, :, None], colors, picture)
    picture[enlarge(ndimage.gaussian_filter(brain * 1.0, 0.8), 3) < 0.5] = TILE
    tile = Image.new("L", picture.shape[:2])
    ImageDraw.Draw(tile).rounded_rectangle((0, 0, *tile.size), CORNER * len(picture), fill=255)
    pixels = np.dstack([picture, np.asarray(tile)]).round().astype(np.uint8)
    icon = Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return icon.quantize(COLORS, Image.Quantize.FASTOCTREE)


def main() -> None:
    """Read the two files, write the icons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("labels", type=Path)
    arguments = parser.parse_args()
    scan, labels = (nib.as_closest_canonical(nib.load(path)) for path in (arguments.scan, arguments.labels))
    icon = draw(scan.get_fdata(), np.asarray(labels.dataobj), scan.affine)
    for path in ICONS:
        path.parent.mkdir(parents=True, exist_ok=True)
        icon.save(path, optimize=True)


if __name__ == "__main__":
    main()
