"""Real scans with lesion masks as training samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from synthseg_slicer.conform import conform, reorient, resample, standardise
from synthseg_slicer.errors import OptionError, ScanError
from synthseg_slicer.labels import LESION_ID
from synthseg_slicer.scan import read_scan

from ..generation.draws import happens, integer
from ..generation.interpolation import sampling_grid
from ..lesions.reading import read_lesion
from ..losses import UNKNOWN_HEALTHY
from .model import StrokeConfig

IMAGE, MASK = "_image.nii.gz", "_dseg.nii.gz"
ON_LESION = 0.7
"""Share of the crops that are centred on a lesion voxel, where there are any."""
GRID_TOLERANCE_MM = 1e-2


class RealScans:
    """Crops of real scans with lesion masks, deformed, with bias field, noise and low resolution.

    Parameters
    ----------
    folder : path
        ``NAME_image.nii.gz`` with ``NAME_dseg.nii.gz``, the lesion mask (see
        :func:`~synthseg_training.lesions.reading.lesion_voxels`), on the same grid. All are kept in memory, in half
        precision.
    config : StrokeConfig
        Its crop and its spatial transform, bias field, noise, resolution and statistics are used.

    Raises
    ------
    ScanError
        No scans, one that cannot be read or without its mask, or a mask that is none or on another grid.
    OptionError
        The voxels of the samples are not those of 1 mm that scans are conformed to.
    """

    def __init__(self, folder: str | Path, config: StrokeConfig):
        self.config = config
        paths = sorted(Path(folder).glob(f"*{IMAGE}"))
        if not paths:
            raise ScanError(f"{folder}: no NAME{IMAGE}. Name the scans so, and their lesion masks NAME{MASK}.")
        self.names = [path.name.removesuffix(IMAGE) for path in paths]
        self.scans = [_read(path) for path in paths]

    @property
    def config(self) -> StrokeConfig:
        """Settings of the transforms."""
        return self._config

    @config.setter
    def config(self, config: StrokeConfig) -> None:
        if config.voxel_size != 1.0:
            raise OptionError(f"Real scans are trained on at 1 mm; the recipe's voxel size is {config.voxel_size} mm.")
        self._config = config

    def sample(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return an image ``[1, N, N, N]``, standardised, and its target: lesion's channel or ``UNKNOWN_HEALTHY``."""
        config = self.config
        image, mask = self.scans[integer(rng, len(self.scans))]
        box = [[0.0, float(n - 1)] for n in image.shape]
        spatial = config.spatial.draw(rng, config.extent, box, 1.0)
        where = mask.nonzero()
        if len(where) and happens(rng, ON_LESION):
            spatial.centre[:] = where[integer(rng, len(where))].tolist()
        position = config.spatial.coordinates(spatial, config.crop, 1.0, 1.0, image.device)
        grid = sampling_grid(position, image.shape)
        values = torch.stack([image.float(), mask.float()])[None]
        crop, lesion = F.grid_sample(values, grid, align_corners=False)[0]
        axes = config.flip.draw(rng)
        crop, lesion = (config.flip.apply(volume, axes) for volume in (crop, lesion))
        crop = config.bias.apply(crop.contiguous(), config.bias.draw(rng, config.extent))
        crop = config.noise.apply(crop, config.noise.draw(rng), integer(rng, 2**62))
        crop = config.resolution.apply(crop, config.resolution.draw(rng), 1.0)
        healthy = UNKNOWN_HEALTHY if config.healthy_classes else 0
        target = torch.full(lesion.shape, healthy, dtype=torch.uint8)
        target[lesion > 0.5] = config.output_ids.index(LESION_ID)
        crop = config.statistics.apply(standardise(crop.clamp_(0, 1)), config.statistics.draw(rng))
        return crop[None], target


def _read(path: Path) -> tuple[Tensor, Tensor]:
    """Return a conformed scan and its mask on that grid, float16 and bool ``[x, y, z]``."""
    beside = path.with_name(path.name.removesuffix(IMAGE) + MASK)
    if not beside.exists():
        raise ScanError(
            f"{path}: its lesion mask {beside.name} is missing. Put it beside the scan, or take the scan away."
        )
    scan, (mask, affine) = read_scan(path), read_lesion(beside)
    if scan.shape != mask.shape or np.abs(scan.affine - affine).max() > GRID_TOLERANCE_MM:
        raise ScanError(f"{beside}: its grid is not that of {path.name}. Resample it.")
    lesion = resample(*reorient(mask.astype(np.float32), scan.affine), 1.0)[0] > 0.5
    return torch.from_numpy(conform(scan).image).half(), torch.from_numpy(lesion)
