"""Pasting of lesions into tissue probability maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..generation.draws import happens, integer, uniform
from .field import LesionField, SmoothNoise

CHANNELS = ("cavity", "gliosis", "acute")
"""The lesion channels that follow the tissues."""


@dataclass(frozen=True)
class PasteParameters:
    """Depth of the fading (0 for none), its wavelength in mm, and the seed of its field."""

    fading: float
    wavelength: float
    seed: int


@dataclass(frozen=True)
class Paste:
    """Soft-edged, fading lesions in tissue probabilities, as in physics-constrained stroke segmentation (sec. 2.2).

    Attributes
    ----------
    probability : float
        Probability of fading.
    fading : tuple of float
        Bounds of the largest loss of opacity. A lesion that healthy tissue outweighs anywhere would be a target that
        no reader would draw.
    wavelength : tuple of float
        Bounds of the wavelength of the fading in mm.
    alpha : float
        Opacity of a lesion that does not fade.
    threshold : float
        Lesion probability above which a voxel is lesion in the target. The paper's code has .2, by which a lesion grows
        into tissue that is mostly healthy; .4, a little below half of ``alpha``, leaves the edge where it is.
    """

    probability: float = 0.5
    fading: tuple[float, float] = (0.1, 0.4)
    wavelength: tuple[float, float] = (20.0, 80.0)
    alpha: float = 0.9
    threshold: float = 0.2

    def draw(self, rng: torch.Generator) -> PasteParameters:
        """Draw the fading."""
        fading = uniform(rng, *self.fading) if happens(rng, self.probability) else 0.0
        return PasteParameters(fading, uniform(rng, *self.wavelength), integer(rng, 2**62))

    @torch.no_grad()
    def apply(
        self, probabilities: Tensor, lesions: Sequence[LesionField], parameters: PasteParameters, voxel_size: float
    ) -> tuple[Tensor, Tensor]:
        """Replace tissue by lesion: p_k (1 - lesion), and the lesion's own channels.

        The lesions are opened by one voxel (eroded, dilated), which drops specks and smooths corners, and averaged over
        3 x 3 x 3 voxels, so that their borders to fluid share voxels with it as all borders in a scan do.

        Parameters
        ----------
        probabilities : Tensor
            float32 ``[K, x, y, z]`` in [0, 1], summing to 1.
        lesions : sequence of LesionField
            From :class:`.LesionShapes` or :class:`.LesionMasks`.
        parameters : PasteParameters
            The fading.
        voxel_size : float
            In mm.

        Returns
        -------
        probabilities : Tensor
            ``[K + 3, x, y, z]``, summing to what it summed to; the last channels are :data:`CHANNELS`.
        target : Tensor
            bool ``[x, y, z]``: lesion of any kind.
        """
        shape, device = probabilities.shape[1:], probabilities.device
        channels = torch.zeros(len(CHANNELS), *shape, device=device)
        for lesion in lesions:
            channels[CHANNELS.index("acute" if lesion.stage == "acute" else "cavity")] += lesion.core
            channels[CHANNELS.index("gliosis")] += lesion.rim
        whole = channels.sum(0)
        kept = _extreme(_extreme(whole, torch.minimum), torch.maximum)
        opacity = kept.div_(whole.clamp_(min=1e-6)).clamp_(max=1).mul_(self.alpha)
        channels = _box(channels.mul_(opacity))
        if parameters.fading:
            axes = [torch.arange(count, device=device) * voxel_size for count in shape]
            extent = [count * voxel_size for count in shape]
            noise = SmoothNoise(parameters.seed, parameters.wavelength, extent)(axes)
            channels *= 1 - parameters.fading * torch.sigmoid(noise.mul_(2))
        lesion = channels.sum(0)
        return torch.cat([probabilities * (1 - lesion), channels]), lesion > self.threshold


def _extreme(image: Tensor, which) -> Tensor:
    """Return the minimum or maximum over each voxel and its six neighbours."""
    result = image.clone()
    for axis in range(image.ndim):
        low, high = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
        result[low] = which(result[low], image[high])
        result[high] = which(result[high], image[low])
    return result


def _box(channels: Tensor) -> Tensor:
    """Return the mean over 3 x 3 x 3 voxels, continued by the border values, of ``[C, x, y, z]``."""
    for axis in (1, 2, 3):
        last = channels.shape[axis] - 1
        padded = torch.cat([channels.narrow(axis, 0, 1), channels, channels.narrow(axis, last, 1)], axis)
        channels = (padded.narrow(axis, 0, last + 1) + channels + padded.narrow(axis, 2, last + 1)).div_(3)
    return channels
