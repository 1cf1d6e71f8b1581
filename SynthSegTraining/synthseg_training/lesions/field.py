"""What a lesion generator returns, and the smooth random fields and separable interpolation that all of them use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..generation.interpolation import NEGLIGIBLE

STAGES = ("chronic", "acute")


@dataclass(frozen=True)
class LesionField:
    """All lesions of one stage.

    Attributes
    ----------
    core, rim : Tensor
        float32 ``[x, y, z]`` in [0, 1], ``core + rim <= 1``. The core is a cavity in a chronic lesion and the damaged
        tissue in an acute one; the rim is the gliosis around a cavity.
    stage : str
        One of :data:`STAGES`.
    """

    core: Tensor
    rim: Tensor
    stage: str

    @property
    def whole(self) -> Tensor:
        """Core and rim together."""
        return self.core + self.rim


def empty_fields(labels: Tensor) -> dict[str, LesionField]:
    """Return a field without lesion for each stage, of the shape and on the device of ``labels``."""
    return {
        stage: LesionField(*(torch.zeros(labels.shape, device=labels.device) for _ in range(2)), stage)
        for stage in STAGES
    }


def interpolate(nodes: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Apply one matrix ``[N_i, n_i]`` along each axis of ``nodes`` ``[n_0, n_1, n_2]``."""
    x, y, z = weights
    return (y @ torch.tensordot(x, nodes, 1)) @ z.T


class SmoothNoise:
    """A stationary Gaussian random field of zero mean and unit variance with several octaves, known everywhere.

    White noise on a coarse grid of nodes, filtered by a Gaussian, so that no direction is preferred; each further
    octave has half the wavelength and half the amplitude. It can be evaluated on any grid at little cost.

    Parameters
    ----------
    seed : int
        The same seed, wavelength and extent give the same field.
    wavelength : float
        Of the first octave, in mm: about the distance between two maxima.
    extent : sequence of float
        Length of the volume along each axis in mm; coordinates run from 0 to there.
    octaves : int
        Their number.
    shortest : float
        Octaves below this wavelength in mm are left out (but for the first).
    """

    WIDTH = 0.7
    """Standard deviation of the filter in node distances: narrow enough to be cheap, wide enough to hide the nodes."""

    def __init__(self, seed: int, wavelength: float, extent: Sequence[float], octaves: int = 1, shortest: float = 5.0):
        rng = torch.Generator().manual_seed(seed)
        self.octaves = []
        for octave in range(octaves):
            spacing = wavelength / 2 ** (octave + 1)
            if octave and 2 * spacing < shortest:
                break
            counts = [int(length / spacing) + 5 for length in extent]
            self.octaves.append((0.5**octave, spacing, torch.randn(counts, generator=rng)))

    def __call__(self, axes: Sequence[Tensor]) -> Tensor:
        """Return the field on the grid spanned by three axes (mm, on the device on which to compute)."""
        norm = sum(amplitude**2 for amplitude, *_ in self.octaves) ** 0.5
        field = 0.0
        for amplitude, spacing, nodes in self.octaves:
            weights = [self._weights(axis / spacing + 2, count) for axis, count in zip(axes, nodes.shape)]
            field = interpolate(nodes.to(axes[0].device).mul(amplitude / norm), weights) + field
        return field

    def _weights(self, positions: Tensor, count: int) -> Tensor:
        distance = positions[:, None] - torch.arange(count, device=positions.device)
        weights = torch.exp(-0.5 * (distance / self.WIDTH) ** 2)
        weights.masked_fill_(weights < NEGLIGIBLE, 0)
        return weights / weights.norm(dim=1, keepdim=True)  # sums of white noise then have unit variance
