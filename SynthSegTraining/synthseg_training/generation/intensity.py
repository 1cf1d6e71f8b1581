"""Rescaling of intensities and random gamma."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .draws import happens

HIGHEST = 300.0
"""Intensities are clipped here before the rescaling, so that a strong bias field does not darken everything else."""


@dataclass(frozen=True)
class Gamma:
    """Clip to [0, 300], rescale to [0, 1] and raise to the power exp(gamma), gamma ~ N(0, sigma^2), eqs. 18-19.

    Attributes
    ----------
    probability : float
        Probability of a random exponent; the image is rescaled in any case.
    sigma : float
        Standard deviation of the exponent's logarithm.
    """

    probability: float = 1.0
    sigma: float = 0.5

    def scaled(self, difficulty: float) -> Gamma:
        """Return the transform with its standard deviation shrunk by a factor in [0, 1]."""
        return replace(self, sigma=self.sigma * difficulty)

    def draw(self, rng: torch.Generator) -> float:
        """Return the logarithm of the exponent."""
        return self.sigma * torch.randn((), generator=rng).item() if happens(rng, self.probability) else 0.0

    def apply(self, image: Tensor, gamma: float) -> Tensor:
        """Rescale the image in place; a constant image becomes 0."""
        low, high = image.clamp_(0, HIGHEST).aminmax()
        image.sub_(low).div_((high - low).clamp_(min=1e-6))
        return image.pow_(float(torch.tensor(gamma).exp())) if gamma else image
