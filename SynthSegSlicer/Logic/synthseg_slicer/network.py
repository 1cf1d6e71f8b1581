"""The segmentation networks: SynthSeg's U-Net, the fast one whose weights are bundled, the stroke paper's.

All map an image ``[B, 1, X, Y, Z]`` with intensities in [0, 1] to logits ``[B, labels, X, Y, Z]``; X, Y and Z must be
multiples of ``network.multiple``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import OptionError


class PaperUNet(nn.Module):
    """The 3D U-Net of SynthSeg (Billot et al. 2023, section 3.2): 24 features, five levels, ELU, 13.2 M parameters.

    Two 3x3x3 convolutions with ELU a level, batch normalisation once at the end of each level, max-pooling by 2,
    nearest upsampling, and skips that carry the second convolution's output before its batch normalisation.

    Parameters
    ----------
    n_labels : int
        Number of output channels.
    features : int
        Features of the first level, doubled at each level below.
    levels : int
        Number of resolutions.
    """

    def __init__(self, n_labels: int = 33, features: int = 24, levels: int = 5):
        super().__init__()
        self.n_labels = n_labels
        self.multiple = 2 ** (levels - 1)
        widths = [features * 2**level for level in range(levels)]
        self.encoder = nn.ModuleList()
        self.encoder_norm = nn.ModuleList()
        channels = 1
        for width in widths:
            self.encoder.append(_two_elu_convolutions(channels, width))
            self.encoder_norm.append(nn.BatchNorm3d(width, eps=1e-3, momentum=0.01))
            channels = width
        self.decoder = nn.ModuleList()
        self.decoder_norm = nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.decoder.append(_two_elu_convolutions(channels + width, width))
            self.decoder_norm.append(nn.BatchNorm3d(width, eps=1e-3, momentum=0.01))
            channels = width
        self.head = nn.Conv3d(channels, n_labels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``[B, labels, X, Y, Z]`` for an image ``[B, 1, X, Y, Z]``."""
        return self.head(self.features(image))

    def features(self, image: Tensor) -> Tensor:
        """Return the last feature volume ``[B, features, X, Y, Z]``, from which ``head`` makes the logits."""
        skips = []
        x = image
        for level, (convolutions, norm) in enumerate(zip(self.encoder, self.encoder_norm)):
            if level:
                x = F.max_pool3d(x, 2)
            x = convolutions(x)
            skips.append(x)
            x = norm(x)
        skips.pop()
        for convolutions, norm in zip(self.decoder, self.decoder_norm):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = norm(convolutions(torch.cat([skips.pop(), x], dim=1)))
        return x


def _two_elu_convolutions(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels, width, 3, padding=1),
        nn.ELU(inplace=True),
        nn.Conv3d(width, width, 3, padding=1),
        nn.ELU(inplace=True),
    )


class FastUNet(nn.Module):
    """A U-Net at half resolution with a thin full-resolution branch; 6.6 times fewer multiply-adds than the paper's.

    The *trunk* sees the image as 2x2x2 blocks (space to depth) and works at 2, 4, 8 and 16 mm for a 1 mm image. Its
    features give *coarse* logits at 2 mm. The *fine* branch joins the image at full resolution with sub-pixel
    features of the trunk, one 3x3x3 convolution later adds its logits to the trilinearly upsampled coarse ones. The
    trunk can thus be trained alone at 2 mm, and the fine branch, whose reach is two voxels, can be evaluated slab by
    slab: no full-resolution feature or logit volume is ever needed (:mod:`synthseg_slicer.predict`).

    Parameters
    ----------
    n_labels : int
        Number of output channels.
    widths : tuple of int
        Features of the trunk's levels, finest first.
    fine_width : int
        Features of the full-resolution branch.
    """

    reach = 2
    """Voxels by which the fine branch looks beyond the voxel it labels (two 3x3x3 convolutions)."""

    def __init__(self, n_labels: int = 33, widths: tuple[int, ...] = (32, 64, 128, 256), fine_width: int = 16):
        super().__init__()
        self.n_labels = n_labels
        self.multiple = 2 ** len(widths)
        self.encoder = nn.ModuleList()
        channels = 8
        for width in widths:
            self.encoder.append(nn.Sequential(_NormedConvolution(channels, width), _NormedConvolution(width, width)))
            channels = width
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.up.append(nn.Conv3d(channels, width, 1, bias=False))
            self.decoder.append(_NormedConvolution(width, width))
            channels = width
        self.coarse_head = nn.Conv3d(channels, n_labels, 1)
        self.fine_image = nn.Conv3d(1, fine_width, 3, padding=1)
        self.fine_trunk = nn.Conv3d(channels, 8 * fine_width, 1)
        self.fine_norm = nn.BatchNorm3d(fine_width)
        self.fine = _NormedConvolution(fine_width, fine_width)
        self.fine_head = nn.Conv3d(fine_width, n_labels, 1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        first = self.encoder[0][0].conv.weight
        # All eight voxels of a block start with the same weights: the stem begins as an average, so that a trunk
        # trained on 2 mm images (eight equal voxels a block) meets the statistics of 1 mm images when the fine branch
        # joins.
        first.data.copy_(first.data.mean(1, keepdim=True).expand_as(first))
        nn.init.normal_(self.coarse_head.weight, std=0.01)
        nn.init.zeros_(self.fine_head.weight)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``[B, labels, X, Y, Z]`` for an image ``[B, 1, X, Y, Z]``."""
        trunk = self.trunk(space_to_depth(image))
        return self.fine_logits(image, trunk) + upsample(self.coarse_head(trunk))

    def forward_both(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return full-resolution logits and the coarse logits at half resolution, for deep supervision."""
        trunk = self.trunk(space_to_depth(image))
        coarse = self.coarse_head(trunk)
        return self.fine_logits(image, trunk) + upsample(coarse), coarse

    def forward_coarse(self, image: Tensor) -> Tensor:
        """Return coarse logits for an image that is already at the trunk's resolution, ``[B, 1, X, Y, Z]``."""
        return self.coarse_head(self.trunk(image.expand(-1, 8, -1, -1, -1)))

    def trunk(self, blocks: Tensor) -> Tensor:
        """Return trunk features ``[B, widths[0], X, Y, Z]`` from blocks ``[B, 8, X, Y, Z]``."""
        skips = []
        x = blocks
        for level, convolutions in enumerate(self.encoder):
            x = convolutions(F.max_pool3d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, convolution in zip(self.up, self.decoder):
            x = F.interpolate(up(x), scale_factor=2, mode="nearest")
            x = convolution(x.add_(skips.pop()) if not x.requires_grad else x + skips.pop())
        return x

    def fine_logits(self, image: Tensor, trunk: Tensor) -> Tensor:
        """Return the fine branch's logits; ``image`` has twice the trunk's extent in each direction."""
        return self.fine_head(self.fine_features(image, trunk))

    def fine_features(self, image: Tensor, trunk: Tensor) -> Tensor:
        """Return the fine branch's last features ``[B, fine_width, X, Y, Z]``; ``fine_head`` makes logits of them."""
        x = self.fine_image(image) + self._sub_pixels(trunk)
        return self.fine(F.relu(self.fine_norm(x), inplace=True))

    def _sub_pixels(self, trunk: Tensor) -> Tensor:
        """Return ``depth_to_space(self.fine_trunk(trunk))``; channels-last, a voxel's features move as one piece."""
        layer = self.fine_trunk
        weight, bias = (p.unflatten(0, (-1, 8)).transpose(0, 1).flatten(0, 1) for p in (layer.weight, layer.bias))
        x = F.conv3d(trunk, weight, bias).movedim(1, -1)
        b, nx, ny, nz, _ = x.shape
        x = x.reshape(b, nx, ny, nz, 2, 2, 2, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return x.reshape(b, 2 * nx, 2 * ny, 2 * nz, -1).movedim(-1, 1)


class _NormedConvolution(nn.Module):
    """3x3x3 convolution, batch normalisation, ReLU; after :func:`fold_batch_norm` the normalisation is gone."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.conv = nn.Conv3d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


def space_to_depth(image: Tensor) -> Tensor:
    """Rearrange ``[B, 1, 2X, 2Y, 2Z]`` to ``[B, 8, X, Y, Z]``; channel = 4 dx + 2 dy + dz within the block."""
    b, _, x, y, z = image.shape
    blocks = image.reshape(b, x // 2, 2, y // 2, 2, z // 2, 2)
    return blocks.permute(0, 2, 4, 6, 1, 3, 5).reshape(b, 8, x // 2, y // 2, z // 2)


def depth_to_space(features: Tensor) -> Tensor:
    """Rearrange ``[B, C * 8, X, Y, Z]`` to ``[B, C, 2X, 2Y, 2Z]``, the inverse order of :func:`space_to_depth`."""
    b, c8, x, y, z = features.shape
    blocks = features.reshape(b, c8 // 8, 2, 2, 2, x, y, z)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c8 // 8, 2 * x, 2 * y, 2 * z)


def upsample(coarse: Tensor) -> Tensor:
    """Double the resolution trilinearly; a coarse voxel's centre lies in the middle of its 2x2x2 block."""
    with torch.autocast(coarse.device.type, enabled=False):  # which would make float32 of it: twice the memory traffic
        return F.interpolate(coarse, scale_factor=2, mode="trilinear", align_corners=False)


class ResidualUNet(nn.Module):
    """The stroke paper's network (Chalcroft et al. 2025, section 2.4), MONAI's residual U-Net: 18.6 M parameters.

    One residual unit a level, PReLU, instance normalisation. Needs the package monai, for training and inference; the
    bundled weights do without it.

    Parameters
    ----------
    n_labels : int
        Number of output channels.
    widths : tuple of int
        Features of the levels.

    Raises
    ------
    OptionError
        MONAI is not installed.
    """

    def __init__(self, n_labels: int = 6, widths: tuple[int, ...] = (32, 64, 128, 256, 320, 320)):
        super().__init__()
        try:
            from monai.networks.nets import UNet
        except ImportError as error:
            raise OptionError(
                f"The architecture 'residual' needs MONAI ({error}). Install it: pip install monai."
            ) from error
        self.n_labels = n_labels
        self.multiple = 2 ** (len(widths) - 1)
        strides = (2,) * (len(widths) - 1)
        self.unet = UNet(3, 1, n_labels, tuple(widths), strides, num_res_units=1, act="PRELU", norm="INSTANCE")

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``[B, labels, X, Y, Z]`` for an image ``[B, 1, X, Y, Z]``."""
        return self.unet(image)


ARCHITECTURES = {"paper": PaperUNet, "fast": FastUNet, "residual": ResidualUNet}


def build(architecture: str, **options) -> nn.Module:
    """Return an untrained network by name (``paper``, ``fast`` or ``residual``) with the constructor's options."""
    return ARCHITECTURES[architecture](**options)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Fold every batch normalisation that follows a convolution directly into it, in place; for inference only.

    Returns
    -------
    nn.Module
        The network, in evaluation mode. The paper's network, which normalises after the activation, is left as it is.
    """
    network.eval()
    for module in network.modules():
        if isinstance(module, _NormedConvolution) and isinstance(module.norm, nn.BatchNorm3d):
            module.conv = nn.utils.fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return network


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
