"""Real lesion masks, such as those of ATLAS, in place of generated shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from synthseg_slicer.conform import reorient
from synthseg_slicer.errors import OptionError, ScanError

from ..generation.draws import happens, integer, uniforms
from ..generation.spatial import affine_matrix
from ..labelmaps import SUFFIXES
from .field import STAGES, LesionField, SmoothNoise, empty_fields
from .reading import read_lesion
from .territories import BRAINSTEM, CEREBELLUM, KIND_OF, NONE, SIDE_OF, Brain

LEAST_VOLUME = 10.0
"""In mm³: a mask with less is taken for empty."""


@dataclass(frozen=True)
class MaskWarp:
    """How masks vary.

    Attributes
    ----------
    flip : float
        Probability of a mirroring along each axis.
    rotation : float
        Bound of the rotation about each axis in radians.
    scaling : float
        Bound of the relative change of size along each axis, in [0, 1).
    elastic : float
        Standard deviation in mm of the smooth displacement, of 40 mm wavelength.
    acute : float
        Probability that the mask is pasted as an acute lesion rather than a cavity.
    """

    flip: float = 0.5
    rotation: float = 0.35
    scaling: float = 0.2
    elastic: float = 3.0
    acute: float = 0.3

    def __post_init__(self):
        if not 0 <= self.scaling < 1:
            raise OptionError(f"The scaling of lesion masks is {self.scaling}; it must lie in [0, 1).")


@dataclass(frozen=True)
class MaskFolder(MaskWarp):
    """Where a recipe's real masks lie, how many lesions take their shape from them, and how they vary.

    Attributes
    ----------
    folder, pattern
        As of :class:`LesionMasks`; no masks without a folder.
    share : float
        Share of the samples with lesions that have a mask of the folder rather than drawn shapes.
    """

    folder: str | None = None
    share: float = 1.0
    pattern: str = "*"

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise OptionError(f"The share of lesion masks is {self.share}; it must lie between 0 and 1.")

    def read(self, voxel_size: float) -> LesionMasks | None:
        """Return the masks, resampled to the voxel size in mm, or None without a folder; raises what they raise."""
        return LesionMasks(self.folder, voxel_size, self, pattern=self.pattern) if self.folder else None


@dataclass(frozen=True)
class MaskParameters:
    """One lesion with the shape of a mask.

    Attributes
    ----------
    index : int
        Which mask.
    matrix : list of list of float
        3 x 3, from mm in the crop to mm in the mask.
    seed : int
        Of the displacement.
    place : float
        In [0, 1): which voxel of tissue its centre lies on.
    stage : str
        "chronic" or "acute".
    volume : float
        In ml, of the whole scaled mask; what falls beyond the tissue is cut off.
    """

    index: int
    matrix: list[list[float]]
    seed: int
    place: float
    stage: str
    volume: float


class LesionMasks:
    """Lesion masks from a folder, pasted at random places without registration; used like :class:`.LesionShapes`.

    Parameters
    ----------
    folder : path
        Folder whose NIfTI or MGZ volumes, also in subfolders, are lesion masks, read as by
        :func:`~.reading.lesion_voxels`.
    voxel_size : float
        To which the masks are resampled, in mm.
    warp : MaskWarp, optional
        How they vary.
    pattern : str
        Only files whose name matches are read, e.g. ``*lesion_mask.nii.gz`` in a folder that holds scans too.

    Raises
    ------
    ScanError
        No such folder, no mask in it, or one that is unreadable, not three-dimensional, empty or no mask.
    OptionError
        The voxel size is not positive.
    """

    def __init__(
        self, folder: str | Path, voxel_size: float = 1.0, warp: MaskWarp | None = None, *, pattern: str = "*"
    ):
        if not voxel_size > 0:
            raise OptionError(f"The voxel size of lesion masks is {voxel_size} mm; it must be positive.")
        self.warp, self.voxel_size = warp or MaskWarp(), voxel_size
        if not Path(folder).is_dir():
            raise ScanError(f"{folder}: there is no such folder of lesion masks. Give the folder with the masks.")
        found = (path for path in Path(folder).rglob(pattern) if path.name.endswith(SUFFIXES))
        self.paths = sorted(path for path in found if not path.name.startswith("."))  # macOS writes ._NAME beside NAME
        if not self.paths:
            raise ScanError(
                f"No lesion masks ({', '.join(SUFFIXES)}) named {pattern} in {folder}. Give the folder with the masks."
            )
        self.masks = _read_all(tuple((path, path.stat().st_mtime_ns) for path in self.paths), voxel_size)

    def __len__(self) -> int:
        return len(self.masks)

    def draw(self, rng: torch.Generator) -> tuple[MaskParameters, ...]:
        """Draw one mask, its warp and its place."""
        warp = self.warp
        index = integer(rng, len(self))
        mirrors = torch.tensor([-1.0 if happens(rng, warp.flip) else 1.0 for _ in range(3)])
        scaling = [1 / value for value in uniforms(rng, 3, 1 - warp.scaling, 1 + warp.scaling)]
        matrix = affine_matrix(uniforms(rng, 3, -warp.rotation, warp.rotation), scaling, [0.0] * 6)
        focus = MaskParameters(
            index=index,
            matrix=(torch.diag(mirrors) @ matrix).tolist(),
            seed=integer(rng, 2**62),
            place=uniforms(rng, 1, 0, 1)[0],
            stage=STAGES[int(happens(rng, warp.acute))],
            volume=self.masks[index].float().sum().item() * self.voxel_size**3 / math.prod(scaling) / 1000,
        )
        return (focus,)

    @torch.no_grad()
    def apply(
        self, labels: Tensor, foci: Sequence[MaskParameters], voxel_size: float, ids: Sequence[int] | None = None
    ) -> list[LesionField]:
        """Put each mask's centre on a random voxel of tissue; keep what falls on tissue of that side.

        Parameters and result are those of :meth:`.LesionShapes.apply`; there is no rim.
        """
        fields = empty_fields(labels)
        brain = Brain(labels, voxel_size, ids)
        tissue = (brain.kind != NONE).flatten().nonzero().flatten()
        for focus in foci if len(tissue) else ():
            flat = tissue[min(int(focus.place * len(tissue)), len(tissue) - 1)]
            seed = torch.unravel_index(flat, brain.kind.shape)
            mask = self._warped(labels, focus, voxel_size, [axis[i].item() for axis, i in zip(brain.axes, seed)])
            allowed = brain.table(_reachable(int(brain.kind[seed]), int(brain.side[seed]))).float().to(labels.device)
            mask *= allowed[labels.long().clamp_(max=len(brain.ids) - 1)]
            mask *= 1 - sum(field.core for field in fields.values())
            fields[focus.stage].core.add_(mask)
        return list(fields.values())

    def _warped(self, labels: Tensor, parameters: MaskParameters, voxel_size: float, centre: Sequence[float]) -> Tensor:
        mask = self.masks[parameters.index].to(labels.device, torch.float32)
        axes = [torch.arange(count, device=labels.device) * voxel_size - c for count, c in zip(labels.shape, centre)]
        extent = [count * voxel_size for count in labels.shape]
        positions = []
        for axis, (row, count) in enumerate(zip(parameters.matrix, mask.shape)):
            x, y, z = (value * a for value, a in zip(row, axes))
            position = (x[:, None, None] + y[:, None]) + z
            if self.warp.elastic:
                from_zero = [values - values[0] for values in axes]
                noise = SmoothNoise(parameters.seed + axis, 40.0, extent)
                position.add_(noise(from_zero), alpha=self.warp.elastic)
            positions.append(position.mul_(2 / (count * self.voxel_size)))  # the mask spans [-1, 1]
        grid = torch.stack(positions[::-1], -1)[None]  # grid_sample wants the last array axis first
        return F.grid_sample(mask[None, None], grid, align_corners=False)[0, 0]


def _reachable(kind: int, side: int) -> dict[int, float]:
    """Return 1 for each label that a lesion with its centre in this tissue may take."""
    if kind in (BRAINSTEM, CEREBELLUM):
        return {label: 1.0 for label, other in KIND_OF.items() if other in (BRAINSTEM, CEREBELLUM)}
    return {
        label: 1.0
        for label, other in KIND_OF.items()
        if other not in (NONE, BRAINSTEM, CEREBELLUM) and SIDE_OF[label] == side
    }


@lru_cache(maxsize=2)
def _read_all(files: tuple[tuple[Path, int], ...], voxel_size: float) -> list[Tensor]:
    """Return the masks of files, given with the time when they changed.

    They are kept, since a training makes a generator for each stage and each validation.
    """
    return [_read(path, voxel_size) for path, _ in files]


def _read(path: Path, voxel_size: float) -> Tensor:
    """Return the mask, cropped to the lesion, with one layer of zeros around it, float16 ``[x, y, z]`` in [0, 1]."""
    inside, affine = reorient(*read_lesion(path))
    if inside.mean() > 0.5:
        message = f"{path} is no lesion mask: most of it is above 0."
        raise ScanError(f"{message} Give masks that are 0 outside the lesion, or name them with 'pattern'.")
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if inside.sum() * sizes.prod() < LEAST_VOLUME:
        raise ScanError(f"The lesion mask {path} is empty or below {LEAST_VOLUME:g} mm³. Take it out of the folder.")
    found = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    crop = inside[tuple(slice(f[0], f[-1] + 1) for f in found)]
    mask = torch.from_numpy(np.pad(crop, 1).astype(np.float32))
    counts = [max(3, round(count * size / voxel_size)) for count, size in zip(mask.shape, sizes)]
    if counts != list(mask.shape):
        mode = "area" if all(new <= old for new, old in zip(counts, mask.shape)) else "trilinear"
        mask = F.interpolate(mask[None, None], size=counts, mode=mode)[0, 0]
    return mask.half()
