"""Standardisation of samples as that of whole scans."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from synthseg_slicer.conform import HEAD_MEAN

from ..generation.draws import happens, uniform


@dataclass(frozen=True)
class HeadStatistics:
    """The scale and level that a sample would have if its z-score were that of the whole head.

    A sample is a crop and standardised by itself, a scan by its whole head: fat, skin and fluid outside of the crop
    widen the head's distribution, so that the same brain has less contrast in a scan and lies at another level.
    Over nine crops of 96 mm of three simulated heads, seven sequences, factors lay between 1.0 and 2.2, means between
    .39 and .66; the default bounds leave out the extremes.

    Attributes
    ----------
    probability : float
        Probability of another scale and level; 0 (no random number is drawn then) for samples as they are.
    scale : tuple of float
        Bounds of the factor by which a sample has more contrast than the scan, log-uniform.
    level : tuple of float
        Bounds of the mean of the sample's head in the scan.
    """

    probability: float = 0.0
    scale: tuple[float, float] = (1.0, 2.0)
    level: tuple[float, float] = (0.42, 0.65)

    def draw(self, rng: torch.Generator) -> tuple[float, float] | None:
        """Return the factor and the level, or None for none."""
        if not self.probability or not happens(rng, self.probability):
            return None
        return math.exp(uniform(rng, *map(math.log, self.scale))), uniform(rng, *self.level)

    def apply(self, image: Tensor, drawn: tuple[float, float] | None) -> Tensor:
        """Return the standardised sample on the scale of the scan."""
        if drawn is None:
            return image
        scale, level = drawn
        return (image - HEAD_MEAN) / scale + level
