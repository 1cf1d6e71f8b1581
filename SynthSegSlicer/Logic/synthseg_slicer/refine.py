"""Let the scan's own intensities sharpen the borders that the network drew.

The network's posteriors say where structures usually lie; the intensities say where the edge runs in this scan. Both
are joined as in classical Bayesian segmentation (Wells 1996, Van Leemput 1999, Ashburner & Friston 2005), with the
posteriors in place of a probabilistic atlas: every tissue has a Gaussian whose mean and variance are estimated from the
scan by expectation maximisation, together with a smooth bias field. Nothing is known of the contrast beforehand; where
tissues look alike, their Gaussians overlap and the posteriors stay.

With p_k(x) the network's posterior of label k, c(k) its tissue and I(x) the intensity:

    q_k(x)  ~  p_k(x) * L_c(k)(I(x))^WEIGHT,        L_c(i) = N(i - b(x); mu_c, sigma_c^2) + FLOOR     (expectation)
    mu_c, sigma_c^2 = mean and variance of I - b under the weights sum of q_k over the labels of c    (maximisation)
    b(x) = G * (sum_k q_k (I - mu_c) / sigma_c^2)  /  G * (sum_k q_k / sigma_c^2),  G a wide Gaussian     (bias field)

``WEIGHT`` < 1 because neighbouring voxels, blurred and interpolated, are no independent witnesses. ``FLOOR`` keeps an
unusual intensity (a lesion, a vessel) from deciding. Background has no Gaussian but a histogram.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .predict import TopPosteriors

WEIGHT = 0.35
FLOOR = 0.2
"""In units of the density of intensities, whose range is 1."""
ITERATIONS = 3
BIAS_SIGMA = 25.0
"""Standard deviation in voxels of 1 mm of the Gaussian that smooths the bias field."""
NODE_SPACING = 8
"""Voxels between the nodes on which the bias field is computed."""
BINS = 64
"""Of the background's histogram."""
UNSURE = 0.02
"""Voxels whose foreground is less probable than this stay as they are."""
LEAST_VARIANCE = 1e-4

SHARED = ((4, 5, 14, 15, 24, 43, 44), (17, 18, 53, 54))
"""Structures of one tissue beyond left and right: fluid; hippocampus and amygdala."""


def tissue_of(ids: tuple[int, ...], partners: dict[int, int]) -> list[int]:
    """Return the tissue index of each channel; 0 is background, both sides of a structure are one tissue.

    Parameters
    ----------
    ids : tuple of int
        Label id of each channel.
    partners : dict
        Label id to the id of its mirror structure.
    """
    group = {label: min(shared) for shared in SHARED if set(shared) <= set(ids) for label in shared}
    keys = [group.get(label, min(label, partners.get(label, label))) for label in ids]
    order = {0: 0} | {key: i for i, key in enumerate(sorted(set(keys) - {0}), 1)}
    return [order[key] for key in keys]


@torch.inference_mode()
def refine(
    top: TopPosteriors,
    image: np.ndarray,
    partners: dict[int, int],
    *,
    weight: float = WEIGHT,
    progress: Callable[[float], None] | None = None,
) -> TopPosteriors:
    """Return the posteriors given the intensities.

    Parameters
    ----------
    top : TopPosteriors
        As predicted, before the clean-up.
    image : float32 array [x, y, z]
        The conformed image, intensities in [0, 1], of shape ``top.shape``.
    partners : dict
        Label id to the id of its mirror structure.
    weight : float
        Exponent of the likelihood, 0 to 1; 0 changes nothing.
    progress : callable, optional
        Called with the fraction done; an exception that it raises stops the work.

    Returns
    -------
    TopPosteriors
        The same labels in each voxel, the most probable first; each voxel's sum is kept.
    """
    probabilities = torch.from_numpy(top.probabilities)
    if not probabilities.numel() or not weight:
        return top
    channels = torch.from_numpy(top.channels)
    background = torch.where(channels == top.background, probabilities, probabilities.new_zeros(())).sum(0)
    chosen = (probabilities.sum(0) - background > UNSURE).flatten().nonzero()[:, 0]
    if not len(chosen):
        return top
    tissues = torch.tensor(tissue_of(top.ids, partners))
    found = channels.flatten(1)[:, chosen]
    prior = probabilities.flatten(1)[:, chosen].float()
    intensity = torch.from_numpy(np.ascontiguousarray(image[top.box])).flatten()[chosen]
    tissue = tissues[found.long()]
    field = _SmoothField(probabilities.shape[1:], chosen)
    total, bias, posterior = prior.sum(0), torch.zeros_like(intensity), prior
    for iteration in range(ITERATIONS):
        corrected = intensity - bias
        gaussians = _Gaussians.estimate(posterior, tissue, corrected, int(tissues.max()) + 1)
        if iteration:
            bias = field.fit(*gaussians.residual(posterior, tissue, intensity))
            corrected = intensity - bias
        posterior = prior * gaussians.likelihood(tissue, corrected).pow_(weight)
        posterior *= total / posterior.sum(0).clamp_min(1e-20)
        if progress:
            progress((iteration + 1) / ITERATIONS)
    posterior, order = posterior.sort(0, descending=True)
    new_channels, new_probabilities = channels.flatten(1).clone(), probabilities.flatten(1).clone()
    new_channels[:, chosen] = found.gather(0, order)
    new_probabilities[:, chosen] = posterior.half()
    shape = top.channels.shape
    return replace(top, channels=new_channels.view(shape).numpy(), probabilities=new_probabilities.view(shape).numpy())


@dataclass(frozen=True)
class _Gaussians:
    """Mean and variance of each tissue, float32 ``[tissues]``, and the background's density ``[BINS]``."""

    mean: Tensor
    variance: Tensor
    background: Tensor

    @classmethod
    def estimate(cls, posterior: Tensor, tissue: Tensor, intensity: Tensor, count: int) -> _Gaussians:
        sums = torch.zeros(3, count, dtype=torch.float64)
        histogram = torch.zeros(BINS, dtype=torch.float64)
        bins = _bin(intensity)
        for weights, tissues in zip(posterior.double(), tissue):
            for power, row in enumerate(sums):
                row += torch.bincount(tissues, weights * intensity**power, count)
            histogram += torch.bincount(bins, torch.where(tissues == 0, weights, 0.0), BINS)
        # A tissue that is hardly there is given the mean and the variance of everything: its weight is a few voxels.
        everything = sums.sum(1) * 1e-5
        mass, first, second = sums + everything[:, None]
        mean = first / mass
        variance = (second / mass - mean**2).clamp_min(LEAST_VARIANCE)
        density = (histogram + histogram.mean()) / (2 * histogram.sum()).clamp_min(1e-9) * BINS
        return cls(mean.float(), variance.float(), density.float())

    def likelihood(self, tissue: Tensor, intensity: Tensor) -> Tensor:
        """Return the likelihood of each voxel's candidates ``[4, voxels]``."""
        scale = (2 * torch.pi * self.variance).rsqrt()
        deviation = intensity - self.mean[tissue]
        density = deviation.square_().div_(-2 * self.variance[tissue]).exp_().mul_(scale[tissue])
        return torch.where(tissue == 0, self.background[_bin(intensity)], density).add_(FLOOR)

    def residual(self, posterior: Tensor, tissue: Tensor, intensity: Tensor) -> tuple[Tensor, Tensor]:
        """Return precision-weighted residuals and precisions, summed over each voxel's candidates."""
        precision = torch.where(tissue == 0, 0.0, posterior / self.variance[tissue])
        return (precision * (intensity - self.mean[tissue])).sum(0), precision.sum(0)


class _SmoothField:
    """Gaussian smoothing of values at scattered voxels of a grid, computed on a lattice of nodes.

    Nodes lie symmetrically in the grid, so that a mirrored scan gets a mirrored field.
    """

    def __init__(self, shape: torch.Size, voxels: Tensor):
        self.shape, self.voxels = shape, voxels
        self.down, self.up = zip(*(_node_matrices(size) for size in shape))

    def fit(self, numerator: Tensor, denominator: Tensor) -> Tensor:
        """Return the smoothed quotient at the voxels."""
        numerator, denominator = self._at_nodes(numerator), self._at_nodes(denominator)
        nodes = numerator / denominator.clamp_min(1e-6 * denominator.max().clamp_min(1e-20))
        return _separable(nodes, self.up).flatten()[self.voxels]

    def _at_nodes(self, values: Tensor) -> Tensor:
        volume = values.new_zeros(self.shape.numel())
        volume[self.voxels] = values
        return _separable(volume.view(self.shape), self.down)


def _node_matrices(size: int) -> tuple[Tensor, Tensor]:
    """Return matrices [nodes, size] that smooth and [size, nodes] that interpolate linearly, along one axis."""
    nodes = max(2, round(size / NODE_SPACING) + 1)
    position, voxel = torch.linspace(0, size - 1, nodes), torch.arange(size)
    smooth = ((position[:, None] - voxel) / BIAS_SIGMA).square().mul(-0.5).exp()
    spacing = max(size - 1, 1) / (nodes - 1)
    return smooth, (1 - (voxel[:, None] - position).abs() / spacing).clamp_min(0)


def _separable(volume: Tensor, matrices: tuple[Tensor, ...]) -> Tensor:
    for matrix in matrices:
        volume = torch.tensordot(volume, matrix, dims=([0], [1]))  # the new axis comes last: three turns restore order
    return volume


def _bin(intensity: Tensor) -> Tensor:
    return (intensity * BINS).long().clamp_(0, BINS - 1)
