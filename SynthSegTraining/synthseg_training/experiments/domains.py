"""The domain of a scan, its contrast and resolution: what SynthSeg-R and SynthSeg-RC are trained for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthseg_slicer.errors import OptionError
from synthseg_slicer.scan import read_scan
from synthseg_training.evaluation.scans import THIN
from synthseg_training.evaluation.slices import DIRECTIONS
from synthseg_training.generation.priors import CONTRASTS

from .dataset import Case

ANISOTROPIC = 1.5
"""Ratio of the largest to the smallest voxel edge from which a scan counts as one of thick slices."""
STEP = 0.5
"""Spacings are rounded to this many mm, so that scans of one protocol share a domain."""


@dataclass(frozen=True, order=True)
class Domain:
    """A contrast at a resolution.

    Attributes
    ----------
    contrast : str
        One of :data:`synthseg_training.generation.priors.CONTRASTS`.
    spacing : float
        In mm: of the slices, or of isotropic voxels.
    direction : str
        ``axial``, ``coronal``, ``sagittal``, or ``isotropic``.
    """

    contrast: str
    spacing: float = 1.0
    direction: str = "isotropic"

    @property
    def resolution(self) -> str:
        """The resolution as words."""
        return f"{self.spacing:g} mm" + ("" if self.direction == "isotropic" else f" {self.direction}")

    def __str__(self) -> str:
        """Return contrast and resolution."""
        return f"{self.contrast} {self.resolution}"

    @property
    def resolution_settings(self) -> dict:
        """Settings of :class:`synthseg_training.generation.resolution.Resolution` that make this one alone."""
        bounds = [self.spacing, self.spacing]
        if self.direction != "isotropic":
            directions = [DIRECTIONS[self.direction]]
            return {"probability": 1.0, "isotropic_share": 0.0, "anisotropic": bounds, "directions": directions}
        if self.spacing > THIN:
            return {"probability": 1.0, "isotropic_share": 1.0, "isotropic": bounds}
        return {"probability": 0.0}


def domain_of(case: Case, contrast: str = "", *, needed: bool = True) -> Domain:
    """Return a scan's domain from its contrast's name and its header.

    Parameters
    ----------
    case : Case
        Whose ``contrast`` begins with ``t1``, ``t2``, ``pd``, ``flair`` or ``ct``, in any case.
    contrast : str
        For cases without one.
    needed : bool
        Whether the contrast must be known; "any" stands for unknown ones otherwise.

    Raises
    ------
    OptionError
        The contrast is needed and unknown.
    """
    name = (case.contrast or contrast).lower()
    family = next((family for family in CONTRASTS if name.startswith(family)), "any")
    if needed and family == "any":
        known = f"is {name}, none of" if name else "is not known; SynthSeg-RC needs one of"
        raise OptionError(
            f"{case.image}: the contrast {known} {', '.join(CONTRASTS)}. Give a table of scans with a column "
            "'contrast', or --contrast, or leave the arm RC out."
        )
    scan = read_scan(case.image)
    sizes = np.array(scan.voxel_size)
    if sizes.max() < ANISOTROPIC * sizes.min():
        return Domain(family, max(STEP, _rounded(sizes.mean())))
    axis = int(np.abs(scan.affine[:3, sizes.argmax()]).argmax())
    direction = next(name for name, world in DIRECTIONS.items() if world == axis)
    return Domain(family, _rounded(sizes.max()), direction)


def _rounded(spacing: float) -> float:
    return float(round(spacing / STEP) * STEP)
