"""Bias field."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .draws import happens, uniform
from .interpolation import linear_weights, resample


@dataclass(frozen=True)
class BiasField:
    """G_B = G exp(B), B a small Gaussian volume upsampled linearly, eqs. 14-17 of the paper.

    Attributes
    ----------
    probability : float
        Probability of a bias field.
    sigma : float
        Upper bound of the standard deviation of log intensity, sigma_B ~ U(0, sigma).
    node_spacing : float
        Distance of the nodes in mm; 4 nodes over 160 mm as in the paper.
    """

    probability: float = 0.95
    sigma: float = 0.7
    node_spacing: float = 160 / 3

    def scaled(self, difficulty: float) -> BiasField:
        """Return the transform with its bound shrunk by a factor in [0, 1]."""
        return replace(self, sigma=self.sigma * difficulty)

    def draw(self, rng: torch.Generator, extent: float) -> Tensor | None:
        """Return the log field ``[k, k, k]`` at its nodes for a crop of this edge in mm, or None for no bias."""
        if not happens(rng, self.probability):
            return None
        nodes = max(2, round(extent / self.node_spacing) + 1)
        return torch.randn(nodes, nodes, nodes, generator=rng) * uniform(rng, 0, self.sigma)

    def apply(self, image: Tensor, nodes: Tensor | None) -> Tensor:
        """Multiply the image ``[N, N, N]`` by the field, in place."""
        if nodes is None:
            return image
        count, size = len(nodes), len(image)
        # Nodes sit on the outer faces of the crop: half a voxel beyond the first and last centre.
        positions = (torch.arange(size, device=image.device) + 0.5) * ((count - 1) / size)
        field = resample(nodes.to(image.device, non_blocking=True)[None], linear_weights(positions, count))
        return image.mul_(field[0].exp_())
