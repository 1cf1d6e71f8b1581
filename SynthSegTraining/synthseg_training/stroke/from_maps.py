"""Training samples of the stroke task from measured or estimated quantitative maps (qATLAS, section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from synthseg_slicer.errors import OptionError, ScanError
from synthseg_slicer.labels import LESION_ID

from ..generation.draws import happens, integer
from ..generation.resolution import ResolutionParameters
from ..generation.spatial import SpatialParameters
from ..labelmaps import ISOTROPY_TOLERANCE
from ..lesions.reading import read_lesion
from ..losses import UNKNOWN_HEALTHY
from ..physics import Sequence, at_field, load_maps
from ..physics.field import REFERENCE_TESLA
from ..physics.maps import FILE_SUFFIXES
from .model import StrokeConfig, StrokeGenerator

MASK = "_dseg.nii.gz"
LEAST_PD = 5.0
"""Proton density in percent above which a voxel belongs to the head."""
ON_LESION = 0.7
"""Share of the crops that are centred on a lesion voxel, along axes where the head does not fit into the crop."""
KEPT = 16
"""Sets that stay in memory, about 0.1 GB each; the others are read again when they are drawn."""


@dataclass(frozen=True, eq=False)
class MapSet:
    """Maps of one head.

    Attributes
    ----------
    maps : Tensor
        float16 ``[5, x, y, z]`` as of :meth:`~synthseg_training.physics.QuantitativeMaps.stack`; an ulp is 0.05 %.
    lesion : Tensor
        bool ``[x, y, z]``.
    voxel_size : float
        In mm.
    box : list
        First and last voxel of the head along each axis.
    """

    maps: Tensor
    lesion: Tensor
    voxel_size: float
    box: list[list[float]]


class MapFolder:
    """Map sets of a folder, read when needed.

    Parameters
    ----------
    folder : path
        ``NAME_PDmap.nii.gz``, ``NAME_R1map.nii.gz``, ``NAME_R2starmap.nii.gz``, ``NAME_MTsat.nii.gz``, if there is one
        ``NAME_R2map.nii.gz``, isotropic; and ``NAME_dseg.nii.gz`` where there are lesions (see
        :func:`~synthseg_training.lesions.reading.lesion_voxels`), on any grid in the same space.
    tesla : float
        Field strength of the maps, 0.3 to 7 T; they are brought to 3 T.

    Raises
    ------
    ScanError
        No map set in the folder; when a set is read, also what :func:`~synthseg_training.physics.load_maps` raises,
        voxels that are not isotropic, and a mask that cannot be read, is none or lies elsewhere.
    """

    def __init__(self, folder: str | Path, tesla: float = REFERENCE_TESLA):
        self.folder, self.tesla = Path(folder), tesla
        suffix = FILE_SUFFIXES["pd"]
        self.names = sorted(path.name.removesuffix(suffix) for path in self.folder.glob(f"[!.]*{suffix}"))
        if not self.names:
            raise ScanError(f"{folder}: no map sets (NAME{suffix}). Write some with 'synthseg-train estimate-maps'.")
        self._sets: dict[int, MapSet] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> MapSet:
        if index not in self._sets:
            if len(self._sets) >= KEPT:
                del self._sets[next(iter(self._sets))]
            self._sets[index] = self._read(self.names[index])
        return self._sets[index]

    def check(self) -> None:
        """Read every set once: what is wrong with one shows now and not after days of training."""
        for index in range(len(self)):
            self[index]

    def _read(self, name: str) -> MapSet:
        maps, affine = load_maps(self.folder, name)
        if self.tesla != REFERENCE_TESLA:
            maps = at_field(maps, REFERENCE_TESLA, self.tesla)
        sizes = affine[:3, :3].norm(dim=0)
        if sizes.max() > (1 + ISOTROPY_TOLERANCE) * sizes.min():
            shown = " x ".join(f"{size:.3g}" for size in sizes.tolist())
            raise ScanError(f"{self.folder / name}: voxels of {shown} mm. Resample the maps to isotropic ones.")
        head = maps.pd > LEAST_PD
        if not head.any():
            raise ScanError(f"{self.folder / name}: PD is nowhere above {LEAST_PD:g}. It must be in percent of water.")
        box = []
        for axis in range(3):
            found = head.movedim(axis, 0).flatten(1).any(1).nonzero()
            box.append([float(found.min()), float(found.max())])
        path = self.folder / f"{name}{MASK}"
        lesion = _read_mask(path, maps.shape, affine) if path.is_file() else torch.zeros(maps.shape, dtype=torch.bool)
        return MapSet(maps.stack().half(), lesion, float(sizes.mean()), box)


@dataclass(frozen=True)
class MapsParameters:
    """Everything random about one sample; names as in :class:`~.model.StrokeParameters`."""

    map_index: int
    seed: int
    spatial: SpatialParameters
    flipped: tuple[int, ...]
    sequence: Sequence
    field_strength: float
    gain: Tensor | None
    noise: float
    resolution: ResolutionParameters
    statistics: tuple[float, float] | None


class MapsGenerator(StrokeGenerator):
    """Draws scans of map sets, deformed at random, with their lesions: acquisition and target as for label maps.

    Nothing is known of healthy tissue: the target tells lesion from background, or with
    ``config.healthy_classes`` lesion from :data:`~synthseg_training.losses.UNKNOWN_HEALTHY`.

    Parameters
    ----------
    folder : path
        See :class:`MapFolder`; every set is read once when the generator is made.
    config : StrokeConfig, optional
        Its transforms from ``sequences`` on apply to physical appearance, ``spatial`` and ``flip`` to the maps; those
        of labels and lesions have no meaning here. Two classes by default: ``output_ids`` (0, 99).
    device : torch.device or str
        Where samples are made.
    tesla : float
        Field strength of the maps in the folder.
    """

    def __init__(
        self,
        folder: str | Path,
        config: StrokeConfig | None = None,
        device: torch.device | str = "cpu",
        tesla: float = REFERENCE_TESLA,
    ):
        self.config = config or StrokeConfig(healthy_classes=False)
        self.sets = MapFolder(folder, tesla)
        self.sets.check()
        self._device = torch.device(device)

    @property
    def device(self) -> torch.device:
        """Where samples are made."""
        return self._device

    def draw(self, rng: torch.Generator) -> MapsParameters:
        """Draw the parameters of one sample from a generator on the CPU."""
        config, index = self.config, integer(rng, len(self.sets))
        one = self.sets[index]
        spatial = config.spatial.draw(rng, config.extent, one.box, one.voxel_size)
        where = one.lesion.nonzero()
        if len(where) and happens(rng, ON_LESION):
            voxel = where[integer(rng, len(where))].tolist()
            for axis, (first, last) in enumerate(one.box):
                if (last - first) * one.voxel_size > config.extent:
                    spatial.centre[axis] = float(voxel[axis])
        return MapsParameters(
            map_index=index,
            seed=integer(rng, 2**62),
            spatial=spatial,
            flipped=config.flip.draw(rng),
            sequence=self._draw_sequence(rng),
            field_strength=config.field_strength.draw(rng),
            gain=config.gain.draw(rng, config.extent),
            noise=config.noise.draw(rng),
            resolution=config.resolution.draw(rng),
            statistics=config.statistics.draw(rng),
        )

    def tissue(self, parameters: MapsParameters) -> tuple[Tensor, Tensor]:
        """Return the maps ``[5, N, N, N]`` and the target, uint8 ``[N, N, N]``, of a sample."""
        config, one = self.config, self.sets[parameters.map_index]
        position = config.spatial.coordinates(
            parameters.spatial, config.crop, config.voxel_size, one.voxel_size, self.device
        )
        grid = _sampling_grid(position, one.lesion.shape)
        crops = []
        for values in (*one.maps, one.lesion):
            crop = F.grid_sample(values.to(self.device, torch.float32)[None, None], grid, align_corners=True)[0, 0]
            crops.append(config.flip.apply(crop, parameters.flipped))
        target = torch.full_like(crops[0], UNKNOWN_HEALTHY if config.healthy_classes else 0, dtype=torch.uint8)
        target[crops.pop() > 0.5] = config.output_ids.index(LESION_ID)
        return torch.stack(crops), target


def _sampling_grid(position: Tensor, shape: torch.Size) -> Tensor:
    """Return positions ``[3, X, Y, Z]`` in voxels as ``grid_sample`` wants them: last axis first, corners at +/- 1."""
    last = torch.tensor(shape, device=position.device, dtype=position.dtype).view(3, 1, 1, 1) - 1
    return (position * (2 / last) - 1).flip(0).movedim(0, -1)[None]


def _read_mask(path: Path, shape: torch.Size, affine: Tensor) -> Tensor:
    """Return a lesion mask on the grid of the maps, bool."""
    mask, mask_affine = read_lesion(path)
    mask = torch.from_numpy(mask)
    to_mask = torch.linalg.inv(torch.from_numpy(mask_affine)) @ affine
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij")
    position = torch.einsum("ij,jxyz->ixyz", to_mask[:3, :3].float(), torch.stack(axes))
    grid = _sampling_grid(position + to_mask[:3, 3].float().view(3, 1, 1, 1), mask.shape)
    resampled = F.grid_sample(mask.float()[None, None], grid, align_corners=True)[0, 0] > 0.5
    if mask.any() and not resampled.any():
        raise OptionError(f"{path}: the lesion lies outside the maps. Bring mask and maps into one space.")
    return resampled
