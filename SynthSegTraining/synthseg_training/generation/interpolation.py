"""Separable linear interpolation as small matrix products: on a CPU several times faster than ``interpolate``."""

from __future__ import annotations

import torch
from torch import Tensor

NEGLIGIBLE = 1e-12
"""Weights of interpolation and filtering below this are 0."""


def linear_weights(positions: Tensor, nodes: int) -> Tensor:
    """Return the matrix that interpolates linearly between equally spaced nodes.

    Parameters
    ----------
    positions : Tensor
        ``[N]`` in units of the node spacing, 0 at the first node; positions outside take the outermost node's value.
    nodes : int
        Number of nodes.

    Returns
    -------
    Tensor
        ``[N, nodes]``; rows sum to 1.
    """
    positions = positions.clamp(0, nodes - 1)
    return (1 - (positions[:, None] - torch.arange(nodes, device=positions.device)).abs_()).clamp_(min=0)


def resample(field: Tensor, weights: Tensor) -> Tensor:
    """Apply ``weights`` ``[N, n]`` along each of the last three axes of ``field`` ``[..., n, n, n]``."""
    size, nodes = weights.shape
    field = field.reshape(-1, nodes, nodes * nodes)
    channels = len(field)
    field = weights @ field
    field = weights @ field.reshape(-1, nodes, nodes)
    field = field.reshape(-1, nodes) @ weights.T
    return field.reshape(channels, size, size, size)


def voxel_centres(size: int, voxel_size: float, device: torch.device) -> Tensor:
    """Return the coordinates in mm of a crop's voxel centres along one axis, 0 in the middle of the crop."""
    return (torch.arange(size, device=device) - (size - 1) / 2) * voxel_size


def sampling_grid(position: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return positions ``[3, N, N, N]`` in voxels of a volume as ``[1, N, N, N, 3]`` for ``F.grid_sample``.

    For ``align_corners=False``; ``shape`` is that of the volume ``[x, y, z]``.
    """
    size = torch.tensor(shape, device=position.device).view(3, 1, 1, 1)
    return ((2 * position + 1) / size - 1).flip(0).movedim(0, -1)[None]  # grid_sample wants the last axis first
