"""Edits of the deformed labels: mirroring, skull-stripping and lesions.

All but the mirroring itself replace labels by labels. They are composed on the short list of labels, as one lookup
table, before anything touches a voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .anatomy import Anatomy
from .draws import happens


@dataclass(frozen=True)
class Flip:
    """Random mirroring along each axis by itself.

    Left/right mirroring swaps left and right labels, so that anatomy stays on its side. Mirroring along the other axes
    turns a head back to front or upside down; left is left all the same, and labels stay as they are.

    Attributes
    ----------
    probability : float
        Probability of left/right mirroring.
    anterior_posterior, inferior_superior : float
        Probability of mirroring along y and along z. The stroke paper has .8 along every axis; SynthSeg has none.
    """

    probability: float = 0.5
    anterior_posterior: float = 0.0
    inferior_superior: float = 0.0

    def draw(self, rng: torch.Generator) -> tuple[int, ...]:
        """Return the axes to mirror, some of 0, 1, 2."""
        # Axes that are never mirrored take no random number: samples stay those of before there was a choice.
        others = ((1, self.anterior_posterior), (2, self.inferior_superior))
        first = (0,) if happens(rng, self.probability) else ()
        return first + tuple(axis for axis, probability in others if probability and happens(rng, probability))

    def apply(self, volume: Tensor, axes: Sequence[int]) -> Tensor:
        """Mirror a crop ``[x, y, z]``; once more undoes it."""
        return volume.flip(tuple(axes)) if axes else volume

    def changes(self, axes: Sequence[int], anatomy: Anatomy) -> dict[int, int]:
        """Return label to label."""
        return {**anatomy.pairs, **{right: left for left, right in anatomy.pairs.items()}} if 0 in axes else {}


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
