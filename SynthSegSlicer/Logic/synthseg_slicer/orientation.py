"""How the head lies in a scan whose segmentation failed, found by segmenting it in other orientations.

The network knows upright heads only, and the quality of its results tells an upright head from any other. So a coarse,
single pass over each of the eight ways in which a head can lie, once its left-right axis is known from its symmetry
(:mod:`.sanity`), shows which one the header should have named. Left and right themselves stay unknown: the mirror image
of a head is as good a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import quality
from .calibration import Calibration
from .conform import Conformed, crop_to_head, reorient, resample
from .postprocess import clean_up
from .predict import predict
from .weights import Model

VOXEL_MM = 1.5
"""Of the passes: a third of the work, and an upright head still gets 0.54 to 0.78 (at 2 mm only 0.07 to 0.25)."""
SMOOTHING = 0.5
"""Standard deviation in voxels of the Gaussian that smooths posteriors, as in the pipeline."""
SURE = 0.6
"""Expected Dice at which the search ends."""
PLAUSIBLE = 0.4
"""Least expected Dice of an orientation that is suggested. Wrong ones got at most 0.31 of five validation scans."""
BETTER = 0.2
"""So much more than the header's orientation must another one get to be suggested."""

_DIRECTIONS = (("right", "left"), ("front", "back"), ("top", "bottom"))
_LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))


@dataclass(frozen=True)
class Turn:
    """How the axes of a conformed image should have been named.

    Attributes
    ----------
    order : tuple of int
        For left-right, back-front and down-up of the head the axis of the image on which it lies.
    flips : tuple of bool
        Whether that axis runs the other way; of left-right it is unknown and False.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return ``[x, y, z]`` turned upright; left and right may be exchanged."""
        turned = image.transpose(self.order)
        return np.flip(turned, [axis for axis in range(3) if self.flips[axis]])

    def words(self) -> str:
        """Say which directions of the header are what of the head."""
        told = []
        for true, (axis, flipped) in enumerate(zip(self.order, self.flips)):
            if true == 0 and axis != 0:
                told.append(f"{' and '.join(_DIRECTIONS[axis])} are its sides")
            elif true != axis or flipped:
                told.append(f"{_DIRECTIONS[axis][0]} is its {_DIRECTIONS[true][int(flipped)]}")
        return ", ".join(told)

    def codes(self, affine: np.ndarray) -> tuple[str, tuple[str, str]]:
        """Return the directions of a scan's voxel axes, such as LAS: by its header, and as they should be.

        The latter is one of two that are each other's mirror image.

        Parameters
        ----------
        affine : array [4, 4]
            Voxel index of the scan to RAS+ world in mm.
        """
        _, straight = reorient(np.empty((1, 1, 1)), affine)
        said = np.round(np.linalg.inv(affine) @ straight)[:3, :3]  # from the conformed image's axes to the scan's
        true = said[:, self.order] * np.where(self.flips, -1, 1)
        return _codes(said), (_codes(true), _codes(true * [-1, 1, 1]))


def turns(sideways: int) -> list[Turn]:
    """Return the ways to name the axes of an image other than the header's own, given its left-right axis.

    A head that lies on its face or stands on its head by half a turn comes first, as the most likely.
    """
    first, second = (axis for axis in range(3) if axis != sideways)
    found = [
        Turn((sideways, *order), (False, *flips))
        for order in ((first, second), (second, first))
        for flips in ((True, True), (False, False), (False, True), (True, False))
    ]
    return [turn for turn in found if turn.words()]


def upright(
    model: Model,
    calibration: Calibration,
    conformed: Conformed,
    sideways: int | None,
    own: float,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Turn | None:
    """Return how the head lies, if it lies otherwise than the header says; None if that cannot be told.

    Parameters
    ----------
    model : Model
    calibration : Calibration
        Of the model, or of that whose expert it is.
    conformed : Conformed
        Its axes are in RAS+ order by the header.
    sideways : int or None
        The axis of the image on which the head's left and right lie; None if unknown, then nothing is tried.
    own : float
        Expected Dice of the result in the header's own orientation.
    device : str
        A torch device.
    progress : callable, optional
        Called with the fraction of the search before each pass; may raise to stop it.
    """
    if sideways is None:
        return None
    coarse, grid = resample(conformed.image, conformed.affine, VOXEL_MM)
    voxel_volume = float(abs(np.linalg.det(grid[:3, :3])))
    tried = turns(sideways)
    best, score = None, 0.0
    for number, turn in enumerate(tried):
        if progress:
            progress(number / len(tried))
        view = np.ascontiguousarray(turn(coarse))
        view = np.ascontiguousarray(view[crop_to_head(view)])
        top = clean_up(predict(model, view, flip=False, device=device, smoothing=SMOOTHING), model.topology)
        now = quality.judge(top, voxel_volume, model.names, calibration).scan
        if now > score:
            best, score = turn, now
        if score >= SURE:
            break
    return best if score >= max(PLAUSIBLE, own + BETTER) else None


def message(turn: Turn, affine: np.ndarray) -> str:
    """Return the warning that tells of a turned head.

    Parameters
    ----------
    turn : Turn
        From :func:`upright`.
    affine : array [4, 4]
        Voxel index of the scan to RAS+ world in mm.
    """
    said, (one, other) = turn.codes(affine)
    return (
        f"The head does not lie as the header says: what the header calls {turn.words()}. The voxel axes are said to "
        f"run {said}, but seem to run {one} or {other} (the anatomy cannot tell left from right). Correct the "
        "orientation in the header, or convert the scan again from the original; then segment again."
    )


def _codes(axes: np.ndarray) -> str:
    """Return the letters of a signed permutation ``[3, 3]``, whose rows are voxel axes and columns R, A and S."""
    world = np.abs(axes).argmax(axis=1)
    return "".join(_LETTERS[axis][int(row[axis] < 0)] for row, axis in zip(axes, world))
