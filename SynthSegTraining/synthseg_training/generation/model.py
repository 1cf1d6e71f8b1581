"""SynthSeg's generative model: all transforms in the paper's order, one pair of image and target a draw."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from synthseg_slicer.errors import OptionError

from ..labelmaps import LabelMapSet
from .anatomy import Anatomy
from .bias import BiasField
from .draws import integer
from .edits import Flip, Lesions, SkullStripping, SkullStrippingParameters
from .gmm import GaussianMixture, GaussianParameters
from .intensity import Gamma
from .resolution import Resolution, ResolutionParameters
from .spatial import Spatial, SpatialParameters


@dataclass(frozen=True)
class GeneratorConfig:
    """Settings of the generative model; the defaults are the paper's. A transform's ``probability: 0`` switches it off.

    Attributes
    ----------
    crop : int
        Edge of the samples in voxels.
    voxel_size : float
        Voxel size of the samples in mm. With 2 and half the crop, the same draw gives the same anatomy at half the
        resolution.
    anatomy : Anatomy
        Roles of the labels.
    spatial, flip, skull_stripping, lesions, gmm, bias, gamma, resolution
        The transforms.
    """

    crop: int = 160
    voxel_size: float = 1.0
    anatomy: Anatomy = field(default_factory=Anatomy)
    spatial: Spatial = field(default_factory=Spatial)
    flip: Flip = field(default_factory=Flip)
    skull_stripping: SkullStripping = field(default_factory=SkullStripping)
    lesions: Lesions = field(default_factory=Lesions)
    gmm: GaussianMixture = field(default_factory=GaussianMixture)
    bias: BiasField = field(default_factory=BiasField)
    gamma: Gamma = field(default_factory=Gamma)
    resolution: Resolution = field(default_factory=Resolution)

    @property
    def output_ids(self) -> tuple[int, ...]:
        """Labels of the segmentation in the order of the network's channels."""
        return self.anatomy.output_ids

    @property
    def extent(self) -> float:
        """Edge of the samples in mm."""
        return self.crop * self.voxel_size

    def scaled(self, difficulty: float) -> GeneratorConfig:
        """Return the settings of an easier task, for a curriculum.

        Parameters
        ----------
        difficulty : float
            1 for these settings, 0 for no deformation, bias, gamma, noise or low resolution; bounds shrink linearly.
            Contrast, flips and label edits stay as they are.
        """
        if not 0 <= difficulty <= 1:
            raise OptionError(f"The difficulty is {difficulty}; it must lie between 0 and 1.")
        names = ("spatial", "gmm", "bias", "gamma", "resolution")
        return replace(self, **{name: getattr(self, name).scaled(difficulty) for name in names})


@dataclass(frozen=True)
class Parameters:
    """Everything random about one sample, which replays exactly with the same settings on the same kind of device."""

    map_index: int
    seed: int
    spatial: SpatialParameters
    flipped: tuple[int, ...]
    skull_stripping: SkullStrippingParameters
    lesions: bool
    gmm: GaussianParameters
    bias: Tensor | None
    gamma: float
    resolution: ResolutionParameters


class Generator:
    """Draws synthetic scans with their segmentations from label maps (Billot et al. 2023, section 3.1).

    Samples are made on the device of the label maps. Nothing in :meth:`apply` waits for that device.

    Parameters
    ----------
    label_maps : LabelMapSet
        The maps.
    config : GeneratorConfig, optional
        Settings; the paper's by default.
    """

    def __init__(self, label_maps: LabelMapSet, config: GeneratorConfig | None = None):
        self.config = config or GeneratorConfig()
        self.labels = label_maps.labels
        self.map_voxel = label_maps.voxel_size
        self.maps, self._boxes = prepared_maps(label_maps, self.config.anatomy)
        self._target_table = self.config.anatomy.target_table(self.labels)

    @property
    def device(self) -> torch.device:
        """Where samples are made."""
        return self.maps[0].device

    def draw(self, rng: torch.Generator) -> Parameters:
        """Draw the parameters of one sample from a generator on the CPU."""
        config = self.config
        index = integer(rng, len(self.maps))
        return Parameters(
            map_index=index,
            seed=integer(rng, 2**62),
            spatial=config.spatial.draw(rng, config.extent, self._boxes[index], self.map_voxel),
            flipped=config.flip.draw(rng),
            skull_stripping=config.skull_stripping.draw(rng),
            lesions=config.lesions.draw(rng),
            gmm=config.gmm.draw(rng, self.labels, config.anatomy),
            bias=config.bias.draw(rng, config.extent),
            gamma=config.gamma.draw(rng),
            resolution=config.resolution.draw(rng),
        )

    @torch.no_grad()
    def apply(self, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Make the sample that the parameters describe.

        Returns
        -------
        image : Tensor
            float32 ``[1, N, N, N]`` in [0, 1].
        target : Tensor
            uint8 ``[N, N, N]``, indices into ``config.output_ids``.
        """
        with torch.autocast(self.device.type, enabled=False):
            config = self.config
            labels, table = self.deformed_labels(parameters)
            image = config.gmm.apply(labels, parameters.gmm, table, parameters.seed, config.voxel_size)
            image = config.bias.apply(image, parameters.bias)
            image = config.gamma.apply(image, parameters.gamma)
            image = config.resolution.apply(image, parameters.resolution, config.voxel_size)
            image.clamp_(max=1)  # rounding in the matrix products
            target_table = self._target_table[table].to(self.device, non_blocking=True)
            target = target_table.index_select(0, labels.reshape(-1)).reshape(labels.shape)
            return image[None], target

    def sample(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw and make one sample."""
        return self.apply(self.draw(rng))

    def deformed_labels(self, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Return the deformed, mirrored labels and the table of the edits that are still to be made.

        Returns
        -------
        labels : Tensor
            int32 ``[N, N, N]``, indices into ``self.labels``.
        table : Tensor
            int32 ``[labels]`` on the CPU; ``table[labels]`` are the labels (indices) after all edits.
        """
        config = self.config
        edits = config.lesions.changes(parameters.lesions, config.anatomy)
        return deformed_labels(config, self.maps[parameters.map_index], parameters, edits, self.labels, self.map_voxel)


def deformed_labels(
    config, label_map: Tensor, parameters, edits: dict[int, int], labels: tuple[int, ...], map_voxel: float
) -> tuple[Tensor, Tensor]:
    """Deform and mirror a label map, and compose the edits of labels that mirroring and a sample ask for.

    Parameters
    ----------
    config, parameters
        Of any generative model with ``spatial``, ``flip`` and ``skull_stripping``.
    label_map : Tensor
        Indices into ``labels``.
    edits : dict
        Label to label, made after mirroring and before skull-stripping.
    labels : tuple of int
        Of the maps.
    map_voxel : float
        Voxel size of the map in mm.

    Returns
    -------
    labels, table : Tensor
        As of :meth:`Generator.deformed_labels`.
    """
    deformed = config.spatial.apply(label_map, parameters.spatial, config.crop, config.voxel_size, map_voxel)
    deformed = config.flip.apply(deformed, parameters.flipped)
    table = torch.arange(len(labels), dtype=torch.int32)
    mirrored = config.flip.changes(parameters.flipped, config.anatomy)
    for changes in (mirrored, edits, config.skull_stripping.changes(parameters.skull_stripping, config.anatomy)):
        if changes:
            table = config.anatomy.substitution(labels, changes)[table]
    return deformed.to(torch.int32), table


def prepared_maps(label_maps: LabelMapSet, anatomy: Anatomy) -> tuple[list[Tensor], list[list[list[float]]]]:
    """Return the maps with a background border, and the box of the segmented structures in each of them.

    Raises
    ------
    OptionError
        There are no maps.
    """
    if not label_maps.maps:
        raise OptionError("There are no label maps to draw samples from.")
    maps = [_with_background_border(label_map) for label_map in label_maps.maps]
    # Fluid is segmented too, but it follows the spinal cord down the neck.
    central = set(anatomy.output) - {0, *anatomy.fluid}
    wanted = torch.tensor([label in central for label in label_maps.labels])
    return maps, [_bounding_box(label_map, wanted) for label_map in maps]


def _with_background_border(label_map: Tensor) -> Tensor:
    """Return the map with a layer of background around it, added where it is missing."""
    faces = (label_map.select(axis, side) for axis in range(3) for side in (0, -1))
    return F.pad(label_map, (1,) * 6) if any(bool(face.any()) for face in faces) else label_map.contiguous()


def _bounding_box(label_map: Tensor, wanted: Tensor) -> list[list[float]]:
    """Return the first and last voxel, per axis, of the labels that are wanted (of the whole map if it has none)."""
    inside = wanted.to(label_map.device)[label_map.int()]
    if not inside.any():
        inside = torch.ones_like(inside)
    box = []
    for axis in range(3):
        found = inside.movedim(axis, 0).flatten(1).any(1).nonzero().flatten()
        box.append([float(found[0]), float(found[-1])])
    return box
