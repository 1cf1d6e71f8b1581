"""What the receiver adds to the signal: noise of magnitude images, and the coil's uneven sensitivity."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..generation.bias import BiasField
from ..generation.draws import happens, uniform


def rician(signal: Tensor, sigma: float | Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return the magnitude of the signal with complex Gaussian noise, eq. 7 of the paper (Gudbjartsson 1995).

    Parameters
    ----------
    signal : Tensor
        Any shape.
    sigma : float or Tensor
        Standard deviation of the noise in each of the two channels, in units of the signal. The mean is
        ``sigma sqrt(pi / 2)`` where there is no signal, the mean square ``signal^2 + 2 sigma^2`` everywhere.
    generator : torch.Generator, optional
        On the device of the signal.
    """
    real, imaginary = (torch.empty_like(signal).normal_(generator=generator).mul_(sigma) for _ in range(2))
    return torch.hypot(real.add_(signal), imaginary)


@dataclass(frozen=True)
class RicianNoise:
    """Rician noise of random strength.

    Attributes
    ----------
    probability : float
        Probability of noise.
    sigma : tuple of float
        Bounds of the noise's standard deviation, uniform, relative to the mean of the signal where there is any. The
        reciprocal is the signal-to-noise ratio.
    """

    probability: float = 0.8
    sigma: tuple[float, float] = (0.0, 0.1)

    def scaled(self, difficulty: float) -> RicianNoise:
        """Return the transform with its upper bound shrunk by a factor in [0, 1]."""
        low, high = self.sigma
        return replace(self, sigma=(low, low + (high - low) * difficulty))

    def draw(self, rng: torch.Generator) -> float:
        """Return the relative standard deviation, 0 for no noise."""
        return uniform(rng, *self.sigma) if happens(rng, self.probability) else 0.0

    def apply(self, image: Tensor, sigma: float, seed: int) -> Tensor:
        """Return the magnitude image with noise, which is drawn on the image's device."""
        if not sigma:
            return image
        mean = image.sum() / image.count_nonzero().clamp_(min=1)
        return rician(image, mean * sigma, torch.Generator(image.device).manual_seed(seed))


@dataclass(frozen=True)
class ReceiveField(BiasField):
    """Smooth sensitivity of the receive coil, the factor B of the signal equations: exp of a small Gaussian volume.

    Attributes
    ----------
    probability, sigma, node_spacing
        As in :class:`~synthseg_training.generation.bias.BiasField`.
    """

    probability: float = 0.8
    sigma: float = 0.4

    def gain(self, nodes: Tensor | None, size: int, device: torch.device | str = "cpu") -> Tensor | float:
        """Return the field ``[size, size, size]`` of what :meth:`draw` gave; 1.0 for none."""
        return 1.0 if nodes is None else self.apply(torch.ones(size, size, size, device=device), nodes)
