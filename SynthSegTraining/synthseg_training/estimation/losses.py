"""Losses of the estimator: L2 first, then L1 + L2 on maps and their gradients (eq. 2), and a perceptual distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthseg_slicer.network import space_to_depth

from .network import TYPICAL

PERCEPTUAL_WEIGHT = 0.1
FLOOR = 1e-2
"""Squared length of a feature vector below which it counts as nothing, so that noise in air is not blown up."""

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Distance of two sets of maps in units of :data:`~.network.TYPICAL`, ``[B, 4, X, Y, Z]``, as a scalar."""


def scaled(maps: Tensor) -> Tensor:
    """Return maps ``[B, 4, X, Y, Z]`` in units of their typical values, so that none dominates by its unit."""
    return maps / maps.new_tensor(TYPICAL)[:, None, None, None]


def first_phase_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of scaled maps."""
    return F.mse_loss(scaled(prediction), scaled(target))


def second_phase_loss(prediction: Tensor, target: Tensor, perceptual: Perceptual | None = None) -> Tensor:
    """Return L1 + L2 of scaled maps and of their spatial gradients, eq. 2, plus 0.1 of a perceptual distance.

    Gradients are differences of neighbouring voxels, averaged over the three axes.
    """
    prediction, target = scaled(prediction), scaled(target)
    loss = _l1_l2(prediction, target)
    for axis in (2, 3, 4):
        loss = loss + _l1_l2(prediction.diff(dim=axis), target.diff(dim=axis)) / 3
    if perceptual is not None:
        loss = loss + PERCEPTUAL_WEIGHT * perceptual(prediction, target)
    return loss


def _l1_l2(a: Tensor, b: Tensor) -> Tensor:
    return F.l1_loss(a, b) + F.mse_loss(a, b)


class FeatureDistance(nn.Module):
    """LPIPS-like distance (Zhang et al. 2018): of normalised features of a fixed network, each map an image of its own.

    Where Zhang et al. learn a weight for each feature, all weigh the same.

    Parameters
    ----------
    layers : sequence of nn.Module
        Applied one after the other to images ``[B, 1, X, Y, Z]`` with values near [0, 1]; the output of each counts.
        They are frozen.
    """

    def __init__(self, layers: Sequence[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers).eval().requires_grad_(False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared distance of the feature vectors, averaged over the layers."""
        x, y = (maps.flatten(0, 1)[:, None] / 2 for maps in (prediction, target))
        distance = prediction.new_zeros(())
        for layer in self.layers:
            x, y = layer(x), layer(y)
            distance = distance + (_unit(x) - _unit(y)).square().sum(1).mean()
        return distance / len(self.layers)


def _unit(features: Tensor) -> Tensor:
    features = features.float()
    return features * (features.square().sum(1, keepdim=True) + FLOOR).rsqrt()


def random_features(widths: tuple[int, ...] = (8, 16, 32), seed: int = 0) -> FeatureDistance:
    """Return a distance by fixed random convolutions: no weights needed, texture and edges count all the same."""
    generator = torch.Generator().manual_seed(seed)
    layers, channels = [], 1
    for width in widths:
        convolution = nn.Conv3d(channels, width, 3, stride=2, padding=1, bias=False)
        convolution.weight.data.normal_(0, (2 / (27 * channels)) ** 0.5, generator=generator)
        layers.append(nn.Sequential(convolution, nn.ReLU()))
        channels = width
    return FeatureDistance(layers)


def brain_features(levels: int = 3) -> FeatureDistance:
    """Return a distance by the encoder of the bundled brain network, which has seen every contrast.

    It stands in for the paper's Med3D network, whose weights may not be bundled.
    """
    from synthseg_slicer.weights import load_model

    encoder = load_model("brain").network.encoder
    first = nn.Sequential(_SpaceToDepth(), encoder[0])
    return FeatureDistance([first, *(nn.Sequential(nn.MaxPool3d(2), level) for level in encoder[1:levels])])


class _SpaceToDepth(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return space_to_depth(image)


PERCEPTUAL: dict[str, Callable[[], Perceptual]] = {"brain": brain_features, "random": random_features}
"""Perceptual distances by the name that a recipe gives; add your own."""
