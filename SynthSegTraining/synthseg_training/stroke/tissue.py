"""Tissue of a sample: which values each label and lesion takes, and the maps that come of it (qSynth, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..generation.anatomy import BRAIN_PAIRS, Anatomy
from ..generation.draws import integer, uniform
from ..generation.gmm import GaussianMixture
from ..generation.resolution import gaussian_matrix
from ..lesions import CHANNELS
from ..lesions.field import SmoothNoise
from ..physics import CHANGES, LABEL_TISSUES, LEAST_CHANGE, TISSUES, WATER, Tissue

FWHM_PER_WAVELENGTH = 0.83
"""Width of the Gaussian filter that would make :class:`SmoothNoise` of one octave from white noise, relative to its
wavelength (measured from the autocorrelation at wavelengths of 4 to 16 voxels: 0.80 to 0.85)."""
BRAIN_TISSUES = ("gm", "gm_wm", "wm", "thalamus", "striatum", "pallidum")
"""Classes whose structures differ from each other and whose myelination varies."""
WHITE = 1.5
"""Below this width in voxels texture is independent noise."""


@dataclass(frozen=True)
class TissueParameters:
    """Means and standard deviations of each quantity.

    Attributes
    ----------
    means, stds : Tensor
        ``[quantities, labels + 3]``; the last three are the lesion channels cavity, gliosis, acute.
    changed : tuple of str
        Lesion channels whose values are factors of the tissue in place.
    fwhm : float
        Width of the texture in voxels.
    myelin : Tensor or None
        ``[quantities, labels + 3]``, how much each quantity varies with the regional myelination.
    wavelength : float
        Of that variation in mm.
    seed : int
        Of that variation.
    """

    means: Tensor
    stds: Tensor
    fwhm: float
    changed: tuple[str, ...] = ()
    myelin: Tensor | None = None
    wavelength: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Texture:
    """Map(x) = sum_k p_k(x) (mu_k + sigma_k noise(x)), noise smooth within classes.

    Gliosis and acute lesions change the tissue that they lie in instead of replacing it: for them mu and sigma are
    factors of what the healthy classes make there.

    Attributes
    ----------
    fwhm : tuple of float
        Bounds of the noise's width in voxels.
    mixing : float
        Standard deviation in mm of the Gaussian that turns labels into shares of tissue: partial volume.
    share : float
        Of the within-class standard deviation that is drawn as texture (the authors' code: 0.1).
    spread : float
        Factor of the spread of the class means between subjects; 1 is the table's.
    own : float
        Spread that each structure, both sides together, has of its own about its class, in the same unit. The brain
        stem differs from all other tissue, but is no lesion.
    myelin : float
        Largest standard deviation of the regional myelination, which moves the brain's tissues along the line from
        grey to white matter, relative to their difference. Temporal poles are less myelinated than central regions.
    wavelength : tuple of float
        Bounds of the wavelength in mm over which it varies.
    """

    fwhm: tuple[float, float] = (0.0, 10.0)
    mixing: float = 0.6
    share: float = 0.1
    spread: float = 1.0
    own: float = 0.0
    myelin: float = 0.0
    wavelength: tuple[float, float] = (20.0, 80.0)

    def draw_physics(self, rng: torch.Generator, labels: tuple[int, ...]) -> TissueParameters:
        """Draw PD, R1, R2, R2* and MT of all tissues from their priors (:mod:`synthseg_training.physics.priors`)."""
        drawn = {name: self._draw_tissue(rng, tissue) for name, tissue in TISSUES.items()}
        lesions = {"cavity": drawn["cavity"]}
        for name, change in CHANGES.items():
            means, stds = self._draw_tissue(rng, change, WATER)
            # water comes (PD) and relaxation slows
            lesions[name] = torch.cat([means[:1].clamp(min=1), means[1:].clamp(max=1 - LEAST_CHANGE)]), stds
        names = [LABEL_TISSUES.get(label, "soft") for label in labels]
        columns = [drawn[name] for name in names] + [lesions[name] for name in CHANNELS]
        means, stds = (torch.stack([column[part] for column in columns], 1) for part in (0, 1))
        parameters = TissueParameters(means, stds, uniform(rng, *self.fwhm), tuple(CHANGES))
        if self.own:
            self._draw_own(rng, labels, means)
        if self.myelin:
            towards_white = (drawn["wm"][0] - drawn["gm"][0]) * uniform(rng, 0, self.myelin)
            brain = torch.tensor([name in BRAIN_TISSUES for name in names + list(CHANNELS)])
            wavelength, seed = uniform(rng, *self.wavelength), integer(rng, 2**62)
            parameters = replace(parameters, myelin=towards_white[:, None] * brain, wavelength=wavelength, seed=seed)
        return parameters

    def _draw_tissue(self, rng: torch.Generator, tissue: Tissue, common: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return the means and the standard deviations of one tissue."""
        means, stds = tissue.draw(rng, self.share, common)
        typical = torch.tensor([prior.mean for prior in tissue.priors])
        return (typical + (means - typical) * self.spread).clamp_(min=0), stds

    def _draw_own(self, rng: torch.Generator, labels: tuple[int, ...], means: Tensor) -> None:
        """Add to the means of the brain's structures what they differ from their classes."""
        left_of = {right: left for left, right in BRAIN_PAIRS.items()}
        drawn: dict[int, Tensor] = {}
        for column, label in enumerate(labels):
            name = LABEL_TISSUES.get(label, "soft")
            if name in BRAIN_TISSUES:
                structure = left_of.get(label, label)
                if structure not in drawn:
                    spread = torch.tensor([prior.mean_spread for prior in TISSUES[name].priors])
                    drawn[structure] = torch.randn(len(spread), generator=rng) * spread * self.own
                means[:, column] = (means[:, column] + drawn[structure]).clamp_(min=0)

    def draw_random(
        self, rng: torch.Generator, labels: tuple[int, ...], anatomy: Anatomy, gmm: GaussianMixture
    ) -> TissueParameters:
        """Draw intensities as SynthSeg does, those of the lesions too ('Synth', Chalcroft et al. 2024)."""
        tissue = gmm.draw(rng, labels, anatomy)
        means = torch.rand(len(CHANNELS), generator=rng).mul_(gmm.mean[1] - gmm.mean[0]).add_(gmm.mean[0])
        stds = torch.rand(len(CHANNELS), generator=rng).mul_(gmm.std[1] - gmm.std[0]).add_(gmm.std[0])
        return TissueParameters(torch.cat([tissue.means, means])[None], torch.cat([tissue.stds, stds])[None], 0.0)

    def apply(
        self, labels: Tensor, lesions: Tensor, parameters: TissueParameters, table: Tensor, seed: int, voxel_size: float
    ) -> Tensor:
        """Return the maps ``[quantities, N, N, N]``.

        Parameters
        ----------
        labels : Tensor
            int32 ``[N, N, N]``, indices into the labels of the maps.
        lesions : Tensor
            ``[1 + 3, N, N, N]``: share of healthy tissue and of each lesion channel.
        parameters : TissueParameters
        table : Tensor
            int32 ``[labels]``, label that stands in for each label after the edits.
        seed : int
            Of the texture.
        voxel_size : float
            In mm.
        """
        device, flat, size = labels.device, labels.reshape(-1), len(labels)
        blur = gaussian_matrix(self.mixing / voxel_size, size, device) if self.mixing else None
        columns = torch.cat([table.long(), torch.arange(len(table), parameters.means.shape[1])])
        means, stds = (values[:, columns].to(device) for values in (parameters.means, parameters.stds))
        maps = torch.empty((len(means), *labels.shape), device=device)
        myelination = None
        if parameters.myelin is not None:
            axes = [torch.arange(count, device=device, dtype=torch.float32) * voxel_size for count in labels.shape]
            extent = [count * voxel_size for count in labels.shape]
            myelination = SmoothNoise(parameters.seed, parameters.wavelength, extent)(axes)
            slopes = parameters.myelin[:, columns].to(device)
        for quantity, (mean, std) in enumerate(zip(means, stds)):
            image = mean.index_select(0, flat).reshape(labels.shape)
            noise = None
            if bool((parameters.stds[quantity] > 0).any()):
                noise = self._noise(labels.shape, parameters.fwhm, seed + quantity, device)
                image.addcmul_(noise, std.index_select(0, flat).reshape(labels.shape))
            if myelination is not None:
                image.addcmul_(myelination, slopes[quantity].index_select(0, flat).reshape(labels.shape))
            if blur is not None:
                image = _blurred(image, blur)
            kept, added = lesions[0].clone(), torch.zeros_like(image)
            for channel, (name, weight) in enumerate(zip(CHANNELS, lesions[1:]), len(table)):
                value = mean[channel] if noise is None else noise * std[channel] + mean[channel]
                (kept if name in parameters.changed else added).addcmul_(weight, value)
            maps[quantity] = image.mul_(kept).add_(added).clamp_(min=0)
        return maps

    def _noise(self, shape: torch.Size, fwhm: float, seed: int, device: torch.device) -> Tensor:
        """Return noise of unit variance, ``fwhm`` voxels wide."""
        if fwhm < WHITE:
            generator = torch.Generator(device).manual_seed(seed)
            return torch.empty(shape, device=device).normal_(generator=generator)
        axes = [torch.arange(count, device=device, dtype=torch.float32) for count in shape]
        return SmoothNoise(seed, fwhm / FWHM_PER_WAVELENGTH, shape)(axes)


def _blurred(image: Tensor, matrix: Tensor) -> Tensor:
    size = len(image)
    image = (matrix @ image.reshape(size, -1)).reshape(image.shape)
    return (matrix @ image) @ matrix.T


def shares(labels: Tensor, member: Tensor, sigma: float) -> Tensor:
    """Return the share of each voxel that belongs to a class, after mixing by a Gaussian of ``sigma`` voxels.

    Parameters
    ----------
    labels : Tensor
        int32 ``[N, N, N]``.
    member : Tensor
        bool ``[labels]``.
    """
    mask = member.to(labels.device)[labels.reshape(-1).long()].reshape(labels.shape).float()
    return _blurred(mask, gaussian_matrix(sigma, len(labels), labels.device))
