"""Acquisition: slice thickness, slice spacing and their direction."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .draws import happens, integer, uniform
from .interpolation import NEGLIGIBLE, linear_weights


@dataclass(frozen=True)
class ResolutionParameters:
    """One acquisition.

    Attributes
    ----------
    axes : list of int
        Axes along which the resolution is low: none, one or all three.
    spacing, thickness : float
        Slice spacing and thickness in mm.
    alpha : float
        Deviation of the slice profile's width from nominal.
    phase : float
        Position of the first slice within the crop, in slice spacings.
    """

    axes: list[int]
    spacing: float = 0.0
    thickness: float = 0.0
    alpha: float = 1.0
    phase: float = 0.0


@dataclass(frozen=True)
class Resolution:
    """Blur by the slice profile, sample at the slice spacing and interpolate back, eqs. 20-26 of the paper.

    Along one axis all three steps are linear, hence one N x N matrix.

    Attributes
    ----------
    probability : float
        Probability of a low resolution; otherwise the image keeps that of the crop.
    isotropic_share : float
        Share of low-resolution samples that are so along all three axes.
    isotropic, anisotropic : tuple of float
        Bounds of the slice spacing in mm, isotropic and along one axis.
    directions : tuple of int
        Axes of the image (x, y, z; sagittal, coronal, axial slices) of which the one with low resolution is drawn.
    alpha : tuple of float
        Bounds of the random deviation of the slice profile's width.
    profile : float
        Standard deviation of the slice profile over slice thickness. 2 ln(10) / (2 pi), about 0.733, is that of eq. 23,
        meant to divide the power at the cut-off frequency by ten; the reference implementation uses 0.75.
    in_plane_sigma : float
        Standard deviation in mm of a blur along axes of native resolution: 0 in the paper, 0.5 in the reference
        implementation.
    """

    probability: float = 0.95
    isotropic_share: float = 0.1
    isotropic: tuple[float, float] = (1.0, 4.0)
    anisotropic: tuple[float, float] = (1.0, 8.0)
    directions: tuple[int, ...] = (0, 1, 2)
    alpha: tuple[float, float] = (1 / 1.03, 1.03)
    profile: float = math.log(10) / math.pi
    in_plane_sigma: float = 0.0

    def scaled(self, difficulty: float) -> Resolution:
        """Return the transform with the bounds of the spacing, and its probability, shrunk by a factor in [0, 1]."""

        def shrunk(bounds: tuple[float, float]) -> tuple[float, float]:
            return bounds[0], bounds[0] + (bounds[1] - bounds[0]) * difficulty

        return replace(
            self,
            probability=self.probability * difficulty,
            isotropic=shrunk(self.isotropic),
            anisotropic=shrunk(self.anisotropic),
        )

    def draw(self, rng: torch.Generator) -> ResolutionParameters:
        """Draw an acquisition."""
        if not happens(rng, self.probability):
            return ResolutionParameters([])
        isotropic = happens(rng, self.isotropic_share)
        axes = [0, 1, 2] if isotropic else [self.directions[integer(rng, len(self.directions))]]
        bounds = self.isotropic if isotropic else self.anisotropic
        spacing = uniform(rng, *bounds)
        thickness = uniform(rng, bounds[0], spacing)
        return ResolutionParameters(axes, spacing, thickness, uniform(rng, *self.alpha), uniform(rng, 0, 1))

    def apply(self, image: Tensor, parameters: ResolutionParameters, voxel_size: float) -> Tensor:
        """Return the image ``[N, N, N]`` as acquired and resampled to its own voxels, of ``voxel_size`` mm."""
        size, device = len(image), image.device
        for axis in range(3):
            if axis in parameters.axes:
                matrix = self.matrix(parameters, size, voxel_size, device)
            elif self.in_plane_sigma > 0:
                matrix = gaussian_matrix(self.in_plane_sigma / voxel_size, size, device)
            else:
                continue
            if axis == 0:
                image = (matrix @ image.reshape(size, -1)).reshape(image.shape)
            elif axis == 1:
                image = matrix @ image
            else:
                image = image @ matrix.T
        return image

    def matrix(self, parameters: ResolutionParameters, size: int, voxel_size: float, device: torch.device) -> Tensor:
        """Return blur, sampling at the slices and interpolation back as one ``[N, N]`` matrix."""
        sigma = self.sigma(parameters, voxel_size)
        spacing = parameters.spacing / voxel_size
        slices = math.ceil((size - 1) / spacing) + 2
        first = (parameters.phase - 1) * spacing
        centres = first + spacing * torch.arange(slices, device=device)
        voxels = torch.arange(size, device=device)
        sampling = linear_weights(centres, size)
        interpolation = linear_weights((voxels - first) / spacing, slices)
        return interpolation @ (sampling @ gaussian_matrix(sigma, size, device))

    def sigma(self, parameters: ResolutionParameters, voxel_size: float) -> float:
        """Return the standard deviation of the slice profile in voxels, eq. 23."""
        return self.profile * parameters.alpha * parameters.thickness / voxel_size


def gaussian_matrix(sigma: float, size: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the ``[N, N]`` matrix of a Gaussian blur (sigma in voxels) normalised at the borders."""
    voxels = torch.arange(size, device=device)
    kernel = (voxels[:, None] - voxels).div(max(sigma, 1e-3)).square_().mul_(-0.5).exp_()
    # Far tails are subnormal numbers: some CPUs multiply matrices slowly with them (Testing/benchmarks/training.py).
    kernel.masked_fill_(kernel < NEGLIGIBLE, 0)
    return kernel.div_(kernel.sum(1, keepdim=True))
