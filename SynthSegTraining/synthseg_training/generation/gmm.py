"""The initial image: a Gaussian mixture conditioned on the labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .anatomy import Anatomy
from .draws import happens, integer, uniform
from .interpolation import linear_weights, resample
from .priors import BRAIN_TISSUES, CONTRASTS, tissue_mean


@dataclass(frozen=True)
class ClassPrior:
    """Prior of one class: bounds of the uniform, or mean and standard deviation of the normal distribution."""

    mean: tuple[float, float]
    std: tuple[float, float]


@dataclass(frozen=True)
class GaussianParameters:
    """One draw of the mixture.

    Attributes
    ----------
    means, stds : Tensor
        Mean and standard deviation of each label, ``[labels]`` float32 on a scale of 0-255.
    contrast : str
        Kind of draw.
    variation : Tensor or None
        Amplitude ``[labels]`` of the smooth variation within each label, None for none.
    """

    means: Tensor
    stds: Tensor
    contrast: str
    variation: Tensor | None = None


@dataclass(frozen=True)
class GaussianMixture:
    """G(x) ~ N(mu_L(x), sigma_L(x)^2) with mu and sigma drawn anew for every sample, eqs. 11-13 of the paper.

    Left and right structures are independent classes; the labels of :attr:`Anatomy.shared` share one. Background has
    its own rule: exactly 0, or dark, or like any class.

    Attributes
    ----------
    mean, std : tuple of float
        Bounds of the uniform priors of every class.
    background_zero, background_dark : float
        Shares of samples with background exactly 0 and with dark background.
    dark_mean, dark_std : tuple of float
        Bounds of the uniform priors of a dark background.
    priors : dict
        Label to its own prior, for contrast-specific models (SynthSeg-RC); it overrides everything else.
    normal : bool
        Whether :attr:`priors` are normal distributions rather than uniform ones.
    realistic_share : float
        Share of samples whose classes take their means from a tissue-ordered contrast (:mod:`.priors`), with a dark
        background; the paper's model has none.
    contrasts : tuple of str
        Which ones, drawn with equal probability.
    realistic_spread : float
        Standard deviation of a tissue's mean around the table's value; classes of a tissue differ by a third of it.
    realistic_std : tuple of float
        Bounds of the noise of such samples.
    tissues : dict
        Label to tissue; labels without one follow the general rule.
    variation : float
        Standard deviation of the amplitude with which a smooth random field is added within each label: structures
        such as the thalamus are brighter on one side than on the other, so that their edges must be known by shape.
        The paper's model has none.
    variation_spacing : float
        Distance of that field's nodes in mm.
    """

    mean: tuple[float, float] = (0.0, 255.0)
    std: tuple[float, float] = (0.0, 35.0)
    background_zero: float = 0.05
    background_dark: float = 0.25
    dark_mean: tuple[float, float] = (0.0, 15.0)
    dark_std: tuple[float, float] = (0.0, 5.0)
    priors: dict[int, ClassPrior] = field(default_factory=dict)
    normal: bool = False
    realistic_share: float = 0.0
    contrasts: tuple[str, ...] = CONTRASTS
    realistic_spread: float = 15.0
    realistic_std: tuple[float, float] = (1.0, 12.0)
    tissues: dict[int, str] = field(default_factory=BRAIN_TISSUES.copy)
    variation: float = 0.0
    variation_spacing: float = 12.0

    def scaled(self, difficulty: float) -> GaussianMixture:
        """Return the transform with the bounds of the noise shrunk by a factor in [0, 1]."""

        def shrunk(bounds: tuple[float, float]) -> tuple[float, float]:
            return bounds[0], bounds[0] + (bounds[1] - bounds[0]) * difficulty

        return replace(self, std=shrunk(self.std), realistic_std=shrunk(self.realistic_std))

    def draw(self, rng: torch.Generator, labels: tuple[int, ...], anatomy: Anatomy) -> GaussianParameters:
        """Draw the parameters of all labels of the maps."""
        count = len(labels)
        means = torch.rand(count, generator=rng).mul_(self.mean[1] - self.mean[0]).add_(self.mean[0])
        stds = torch.rand(count, generator=rng).mul_(self.std[1] - self.std[0]).add_(self.std[0])
        contrast = "random"
        if happens(rng, self.realistic_share):
            contrast = self.contrasts[integer(rng, len(self.contrasts))]
            self._draw_realistic(rng, contrast, labels, anatomy, means, stds)
        self._draw_background(rng, contrast, labels, means, stds)
        for label, prior in self.priors.items():
            if label in labels:
                index = labels.index(label)
                means[index], stds[index] = (self._draw_prior(rng, bounds) for bounds in (prior.mean, prior.std))
        for group in anatomy.shared:
            present = [labels.index(label) for label in group if label in labels]
            for other in present[1:]:
                means[other], stds[other] = means[present[0]], stds[present[0]]
        variation = torch.randn(count, generator=rng) * self.variation if self.variation else None
        return GaussianParameters(means, stds, contrast, variation)

    def _draw_prior(self, rng: torch.Generator, bounds: tuple[float, float]) -> float:
        if self.normal:
            return max(0.0, bounds[0] + bounds[1] * torch.randn((), generator=rng).item())
        return uniform(rng, *bounds)

    def _draw_background(
        self, rng: torch.Generator, contrast: str, labels: tuple[int, ...], means: Tensor, stds: Tensor
    ) -> None:
        index = labels.index(0)
        kind = torch.rand((), generator=rng).item()
        if kind < self.background_zero:
            means[index] = stds[index] = 0.0
        elif kind < self.background_zero + self.background_dark or contrast != "random":
            means[index], stds[index] = uniform(rng, *self.dark_mean), uniform(rng, *self.dark_std)

    def _draw_realistic(
        self,
        rng: torch.Generator,
        contrast: str,
        labels: tuple[int, ...],
        anatomy: Anatomy,
        means: Tensor,
        stds: Tensor,
    ) -> None:
        """Overwrite the classes that have a tissue: both sides alike, all classes of one tissue close to each other."""
        left_of = {right: left for left, right in anatomy.pairs.items()}
        tissues = sorted(set(self.tissues.values()))
        shift = dict(zip(tissues, (torch.randn(len(tissues), generator=rng) * self.realistic_spread).tolist()))
        noise = dict(zip(tissues, torch.rand(len(tissues), generator=rng).tolist()))
        low, high = self.realistic_std
        own_shift = (torch.randn(len(labels), generator=rng) * self.realistic_spread / 3).tolist()
        drawn = {}
        for label, own in zip(labels, own_shift):
            if label in self.tissues:
                tissue = self.tissues[label]
                mean = min(max(tissue_mean(tissue, contrast) + shift[tissue] + own, 0.0), 255.0)
                drawn[label] = mean, low + (high - low) * noise[tissue]
        for index, label in enumerate(labels):
            key = label if label in drawn else left_of.get(label)
            if key in drawn:
                means[index], stds[index] = drawn[key]

    def apply(
        self, labels: Tensor, parameters: GaussianParameters, table: Tensor, seed: int, voxel_size: float = 1.0
    ) -> Tensor:
        """Sample the image.

        Parameters
        ----------
        labels : Tensor
            int32 ``[N, N, N]``, indices into the labels of the maps.
        parameters : GaussianParameters
            One mean and standard deviation a label.
        table : Tensor
            int32 ``[labels]``: label that stands in for each label after the edits.
        seed : int
            Of the noise, drawn on the device of ``labels``.
        voxel_size : float
            In mm. Larger voxels average the independent noise of voxels of 1 mm: sigma / voxel_size^1.5.

        Returns
        -------
        Tensor
            float32 ``[N, N, N]``, >= 0.
        """
        device, flat = labels.device, labels.reshape(-1)
        stds = parameters.stds * voxel_size**-1.5
        means, stds = (values[table].to(device, non_blocking=True) for values in (parameters.means, stds))
        noise = torch.empty(labels.shape, device=device)
        noise.normal_(generator=torch.Generator(device).manual_seed(seed))
        image = means.index_select(0, flat).reshape(labels.shape)
        if parameters.variation is not None:
            amplitude = parameters.variation[table].to(device, non_blocking=True)
            field = self._smooth(len(labels), voxel_size, seed, device)
            image.addcmul_(field, amplitude.index_select(0, flat).reshape(labels.shape))
        return image.addcmul_(noise, stds.index_select(0, flat).reshape(labels.shape)).clamp_(min=0)

    def _smooth(self, size: int, voxel_size: float, seed: int, device: torch.device) -> Tensor:
        """Return a smooth random field ``[size, size, size]`` of about unit variance, between nodes linear."""
        count = max(2, round(size * voxel_size / self.variation_spacing) + 1)
        nodes = torch.randn(1, count, count, count, generator=torch.Generator().manual_seed(seed + 1)).to(device)
        positions = torch.arange(size, device=device) * ((count - 1) / max(size - 1, 1))
        return resample(nodes, linear_weights(positions, count))[0].mul_(1.5)  # interpolation loses half the variance
