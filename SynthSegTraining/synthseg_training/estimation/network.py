"""The estimator: a residual U-Net whose four outputs are quantitative maps, positive by construction."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAPS = ("pd", "r1", "r2s", "mt")
"""Output channels: PD in percent of water, R1 and R2* in s^-1, MT saturation in percent."""
TYPICAL = (80.0, 1.0, 25.0, 1.2)
"""Values of each map in a head, to one or two digits: where training begins, and the units in which losses count."""
LARGEST_LOG = 8.0
"""Outputs before the exponential are capped here (exp(8) = 2981, beyond any tissue), lest an early step overflow."""


class EstimatorUNet(nn.Module):
    """The residual U-Net of qATLAS (Chalcroft et al. 2025, section 2.1): GELU, instance norm, linear upsampling.

    The image ``[B, 1, X, Y, Z]``, standardised by :func:`synthseg_slicer.conform.standardise`, becomes maps
    ``[B, 4, X, Y, Z]``, see :data:`MAPS`; X, Y and Z are multiples of ``multiple``. The paper says neither where the
    residual units lie in the decoder (here: one a level) nor how levels are halved (strided convolution). R2 is not
    estimated: MPRAGE hardly tells it from R2*, and :func:`synthseg_training.physics.load_maps` has a rule.

    Parameters
    ----------
    widths : tuple of int
        Features of the levels, finest first.
    units : int
        Residual units of each level of the encoder.
    dropout : float
        Share of features (whole channels) that training drops in each unit.
    """

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 192, 384), units: int = 2, dropout: float = 0.1):
        super().__init__()
        self.options = {"widths": list(widths), "units": units, "dropout": dropout}
        self.multiple = 2 ** (len(widths) - 1)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        channels = 1
        for level, width in enumerate(widths):
            first = ResidualUnit(channels, width, dropout, stride=2 if level else 1)
            self.encoder.append(nn.Sequential(first, *(ResidualUnit(width, width, dropout) for _ in range(units - 1))))
            channels = width
        for width in reversed(widths[:-1]):
            self.decoder.append(ResidualUnit(channels + width, width, dropout))
            channels = width
        self.head = nn.Conv3d(channels, len(MAPS), 1)
        nn.init.normal_(self.head.weight, std=0.01)
        *rates, mt = TYPICAL
        self.head.bias.data = torch.tensor([*map(math.log, rates), math.log(mt / (100 - mt))])

    def forward(self, image: Tensor) -> Tensor:
        """Return the maps, float32."""
        x, skips = image, []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        skips.pop()
        for unit in self.decoder:
            x = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
            x = unit(torch.cat([skips.pop(), x], 1))
        return quantities(self.head(x).float())


def quantities(f: Tensor) -> Tensor:
    """Return the maps that the last layer's values stand for: exp(f) for PD, R1 and R2*, eq. 1 for MT.

    Parameters
    ----------
    f : Tensor
        ``[B, 4, X, Y, Z]``.
    """
    return torch.cat([f[:, :-1].clamp(max=LARGEST_LOG).exp(), 100 * f[:, -1:].sigmoid()], 1)


class ResidualUnit(nn.Module):
    """Two 3x3x3 convolutions beside a shortcut; both are normalised, so that the scan's scale cancels at once."""

    def __init__(self, channels: int, width: int, dropout: float, stride: int = 1):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv3d(channels, width, 3, stride, padding=1, bias=False),
            _instance_norm(width),
            nn.GELU(),
            nn.Dropout3d(dropout),
            nn.Conv3d(width, width, 3, padding=1, bias=False),
            _instance_norm(width),
        )
        self.shortcut = nn.Identity()
        if channels != width or stride > 1:
            self.shortcut = nn.Sequential(nn.Conv3d(channels, width, 1, stride, bias=False), _instance_norm(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return features at 1 / stride of the resolution."""
        return F.gelu(self.branch(x) + self.shortcut(x))


def _instance_norm(width: int) -> nn.Module:
    """Return instance normalisation with scale and shift; as groups of one channel it is up to four times faster."""
    return nn.GroupNorm(width, width)
