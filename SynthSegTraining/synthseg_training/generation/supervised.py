"""Real scans with label maps as training samples, augmented as synthetic ones are: the supervised baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from synthseg_slicer.conform import conform, crop_to_head
from synthseg_slicer.errors import OptionError, ScanError
from synthseg_slicer.scan import read_scan

from ..labelmaps import LabelMapSet
from .draws import integer
from .interpolation import sampling_grid
from .model import GeneratorConfig, prepared_maps

IMAGE, LABELS = "_image.nii.gz", "_dseg.nii.gz"
INTENSITIES = 255.0
"""Scans in [0, 1] are multiplied by this, the range in which the bias field and its clipping work."""


class LabelledScans:
    """Crops of real scans with their label maps, for a network that learns from them (Billot et al. 2023, section 4.3).

    Deformation, mirroring, bias field, gamma and resolution are those of the synthetic samples; contrast and noise are
    the scan's own.

    Parameters
    ----------
    folder : path
        ``NAME_image.nii.gz`` with ``NAME_dseg.nii.gz``, in the labels of the generator's anatomy. All are kept in
        memory, conformed to 1 mm, the images in half precision.
    config : GeneratorConfig
        Settings of the transforms.

    Raises
    ------
    ScanError
        No scans, one without its label map, or a map without any structure of the anatomy.
    OptionError
        The voxels of the samples are not those of 1 mm that scans are conformed to; or ``config`` is set anew with
        another anatomy than that which the label maps were read for.
    """

    def __init__(self, folder: str | Path, config: GeneratorConfig):
        self._anatomy = config.anatomy
        self.config = config
        paths = sorted(Path(folder).glob(f"*{IMAGE}"))
        if not paths:
            raise ScanError(f"{folder}: no NAME{IMAGE}. Name the scans so, and their label maps NAME{LABELS}.")
        pairs = [_read(path, config) for path in paths]
        drawn = {0}.union(*(np.unique(labels).tolist() for _, labels in pairs))
        mirrored = {right for left, right in config.anatomy.pairs.items() if left in drawn}
        mirrored |= {left for left, right in config.anatomy.pairs.items() if right in drawn}
        self.labels = tuple(sorted(drawn | mirrored))
        maps = [torch.from_numpy(np.searchsorted(self.labels, labels).astype(np.uint8)) for _, labels in pairs]
        names = [path.name.removesuffix(IMAGE) for path in paths]
        self.images = [image for image, _ in pairs]
        self.maps, self._boxes = prepared_maps(LabelMapSet(maps, self.labels, names), config.anatomy)
        self._target_table = config.anatomy.target_table(self.labels)

    @property
    def config(self) -> GeneratorConfig:
        """Settings of the transforms."""
        return self._config

    @config.setter
    def config(self, config: GeneratorConfig) -> None:
        if config.voxel_size != 1.0:
            raise OptionError(
                f"Real scans are trained on at 1 mm; the recipe's voxel size is {config.voxel_size} mm. Leave out "
                "stages of another voxel size."
            )
        if config.anatomy != self._anatomy:
            raise OptionError("Real scans are read for one anatomy. Give it to the recipe's generator, not to a stage.")
        self._config = config

    @torch.no_grad()
    def sample(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return an image ``[1, N, N, N]`` in [0, 1] and its target, indices into ``config.output_ids``."""
        config = self.config
        index = integer(rng, len(self.maps))
        spatial = config.spatial.draw(rng, config.extent, self._boxes[index], 1.0)
        flipped = config.flip.draw(rng)
        labels = config.spatial.apply(self.maps[index], spatial, config.crop, 1.0, 1.0)
        position = config.spatial.coordinates(spatial, config.crop, 1.0, 1.0, labels.device)
        grid = sampling_grid(position, self.maps[index].shape)
        image = F.grid_sample(self.images[index].float()[None, None], grid, align_corners=False)[0, 0]
        labels, image = (config.flip.apply(volume, flipped) for volume in (labels, image))
        image = config.bias.apply(image.mul(INTENSITIES).contiguous(), config.bias.draw(rng, config.extent))
        image = config.gamma.apply(image, config.gamma.draw(rng))
        image = config.resolution.apply(image, config.resolution.draw(rng), 1.0).clamp_(max=1)
        table = config.anatomy.substitution(self.labels, config.flip.changes(flipped, config.anatomy))
        return image[None], self._target_table[table.long()][labels.long()]


def _read(path: Path, config: GeneratorConfig) -> tuple[Tensor, np.ndarray]:
    """Return a conformed scan (float16) and its labels on that grid, cropped to the head, a voxel of nothing around."""
    from ..evaluation.metrics import to_grid  # scipy, which training on label maps does without

    beside = path.with_name(path.name.removesuffix(IMAGE) + LABELS)
    if not beside.exists():
        raise ScanError(
            f"{path}: its label map {beside.name} is missing. Put it beside the scan, or take the scan away."
        )
    conformed, reference = conform(read_scan(path)), read_scan(beside)
    labels = np.rint(reference.data).astype(np.int32)
    if not np.isin(labels, [label for label in config.anatomy.output if label]).any():
        raise ScanError(f"{beside}: holds no structure of the recipe's anatomy. Convert its labels.")
    labels = to_grid(labels, reference.affine, conformed.image.shape, conformed.affine)
    head = crop_to_head(conformed.image)
    image = torch.from_numpy(np.pad(conformed.image[head], 1)).half()
    return image, np.pad(labels[head], 1)
