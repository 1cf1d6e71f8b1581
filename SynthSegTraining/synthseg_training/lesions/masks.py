"""Real lesion masks, such as those of ATLAS, in place of generated shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from synthseg_slicer.errors import OptionError, ScanError

from ..generation.draws import happens, integer, uniforms
from ..generation.spatial import affine_matrix
from ..labelmaps import SUFFIXES
from .field import STAGES, LesionField, SmoothNoise, empty_fields
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
class MaskParameters:
    """Which mask, its warp (3 x 3, from crop mm to mask mm, and the seed of the displacement), place and stage."""

    index: int
    matrix: list[list[float]]
    seed: int
    place: float
    stage: str


class LesionMasks:
    """Lesion masks from a folder, pasted at random places without registration; interchangeable with ``LesionShapes``.

    Parameters
    ----------
    folder : path
        Folder whose NIfTI or MGZ volumes, also in subfolders, are lesion masks: above 0 means lesion.
    voxel_size : float
        To which the masks are resampled, in mm.
    warp : MaskWarp, optional
        How they vary.
    pattern : str
        Only files whose name matches are read, e.g. ``*lesion_mask.nii.gz`` in a folder that holds scans too.

    Raises
    ------
    ScanError
        No mask in the folder, or one that is unreadable, not three-dimensional, empty or no mask.
    OptionError
        The voxel size is not positive.
    """

    def __init__(
        self, folder: str | Path, voxel_size: float = 1.0, warp: MaskWarp | None = None, *, pattern: str = "*"
    ):
        if not voxel_size > 0:
            raise OptionError(f"The voxel size of lesion masks is {voxel_size} mm; it must be positive.")
        self.warp, self.voxel_size = warp or MaskWarp(), voxel_size
        paths = sorted(path for path in Path(folder).rglob(pattern) if path.name.endswith(SUFFIXES))
        if not paths:
            raise ScanError(
                f"No lesion masks ({', '.join(SUFFIXES)}) named {pattern} in {folder}. Give the folder with the masks."
            )
        self.paths = paths
        self.masks = [_read(path, voxel_size) for path in paths]

    def __len__(self) -> int:
        return len(self.masks)

    def draw(self, rng: torch.Generator) -> MaskParameters:
        """Draw a mask, its warp and its place."""
        warp = self.warp
        index = integer(rng, len(self))
        mirrors = torch.tensor([-1.0 if happens(rng, warp.flip) else 1.0 for _ in range(3)])
        scaling = [1 / value for value in uniforms(rng, 3, 1 - warp.scaling, 1 + warp.scaling)]
        matrix = affine_matrix(uniforms(rng, 3, -warp.rotation, warp.rotation), scaling, [0.0] * 6)
        return MaskParameters(
            index=index,
            matrix=(torch.diag(mirrors) @ matrix).tolist(),
            seed=integer(rng, 2**62),
            place=uniforms(rng, 1, 0, 1)[0],
            stage=STAGES[int(happens(rng, warp.acute))],
        )

    @torch.no_grad()
    def apply(
        self, labels: Tensor, parameters: MaskParameters, voxel_size: float, ids: Sequence[int] | None = None
    ) -> list[LesionField]:
        """Put the mask's centre on a random voxel of tissue; keep what falls on tissue of that side.

        Parameters and result are those of :meth:`.LesionShapes.apply`; there is no rim.
        """
        fields = empty_fields(labels)
        brain = Brain(labels, voxel_size, ids)
        tissue = (brain.kind != NONE).flatten().nonzero().flatten()
        if len(tissue):
            flat = tissue[min(int(parameters.place * len(tissue)), len(tissue) - 1)]
            seed = torch.unravel_index(flat, brain.kind.shape)
            mask = self._warped(labels, parameters, voxel_size, [axis[i].item() for axis, i in zip(brain.axes, seed)])
            allowed = brain.table(_reachable(int(brain.kind[seed]), int(brain.side[seed]))).float().to(labels.device)
            mask *= allowed[labels.long().clamp_(max=len(brain.ids) - 1)]
            fields[parameters.stage] = replace(fields[parameters.stage], core=mask)
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


def _read(path: Path, voxel_size: float) -> Tensor:
    """Return the mask, cropped to the lesion, with one layer of zeros around it, float16 ``[x, y, z]`` in [0, 1]."""
    import nibabel as nib  # not needed without real masks
    from nibabel.filebasedimages import ImageFileError

    try:
        image = nib.as_closest_canonical(nib.load(path))
        values = np.squeeze(np.asanyarray(image.dataobj, dtype=np.float32))
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        raise ScanError(f"Cannot read the lesion mask {path}: {error}. Replace it or take it out.") from error
    if values.ndim != 3:
        raise ScanError(f"The lesion mask {path} has shape {values.shape}; give one three-dimensional mask a file.")
    if not np.isfinite(values).all() or values.min() < 0 or (values > 0).mean() > 0.5:
        message = f"{path} is no lesion mask: it has negative or infinite values, or most of it is above 0."
        raise ScanError(f"{message} Give masks that are 0 outside the lesion, or name them with 'pattern'.")
    sizes = np.array(image.header.get_zooms()[:3], float)
    inside = values > 0
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
