"""Edits of the deformed labels: mirroring, skull-stripping and lesions.

All but the mirroring itself replace labels by labels. They are composed on the short list of labels, as one lookup
table, before anything touches a voxel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .anatomy import Anatomy
from .draws import happens


@dataclass(frozen=True)
class Flip:
    """Left/right mirroring with left and right labels swapped, so that anatomy stays on its side."""

    probability: float = 0.5

    def draw(self, rng: torch.Generator) -> bool:
        """Return whether to mirror."""
        return happens(rng, self.probability)

    def apply(self, labels: Tensor, flipped: bool) -> Tensor:
        """Mirror a crop ``[x, y, z]`` along x."""
        return labels.flip(0) if flipped else labels

    def changes(self, flipped: bool, anatomy: Anatomy) -> dict[int, int]:
        """Return label to label."""
        return {**anatomy.pairs, **{right: left for left, right in anatomy.pairs.items()}} if flipped else {}


@dataclass(frozen=True)
class SkullStrippingParameters:
    """Whether the extra-cerebral labels and the fluid around the brain become background."""

    stripped: bool
    fluid_dropped: bool


@dataclass(frozen=True)
class SkullStripping:
    """Random removal of the extra-cerebral labels (paper, section 4.2).

    Attributes
    ----------
    probability : float
        Probability of a skull-stripped sample.
    fluid_probability : float
        Probability that the CSF around the brain goes too, in a skull-stripped sample.
    """

    probability: float = 0.5
    fluid_probability: float = 0.3

    def draw(self, rng: torch.Generator) -> SkullStrippingParameters:
        """Draw what to remove."""
        stripped = happens(rng, self.probability)
        return SkullStrippingParameters(stripped, stripped and happens(rng, self.fluid_probability))

    def changes(self, parameters: SkullStrippingParameters, anatomy: Anatomy) -> dict[int, int]:
        """Return label to label."""
        gone = anatomy.removable if parameters.stripped else ()
        return dict.fromkeys((*gone, *(anatomy.fluid if parameters.fluid_dropped else ())), 0)


@dataclass(frozen=True)
class Lesions:
    """Random pasting of the map's white-matter lesions (paper, section 4.2); without it they are white matter."""

    probability: float = 0.5

    def draw(self, rng: torch.Generator) -> bool:
        """Return whether to paste the lesions."""
        return happens(rng, self.probability)

    def changes(self, pasted: bool, anatomy: Anatomy) -> dict[int, int]:
        """Return label to label."""
        return {} if pasted else dict(anatomy.lesions)
