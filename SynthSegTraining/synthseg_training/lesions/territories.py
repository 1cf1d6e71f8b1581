"""Where strokes happen: a coarse model of the arterial territories, from labels and from the position in the head.

The borders follow the maps of Tatu et al. (Neurology 1998;50:1699 and 1996;47:1125) only roughly and are soft: the
anterior cerebral artery (ACA) has the medial surface above the corpus callosum and the medial frontal lobe, the
posterior one (PCA) the occipital lobe, the inferomedial temporal lobe and the thalamus, the middle one (MCA) all the
rest of the hemisphere with the striatum; real territories vary a lot between people.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

TERRITORIES = ("mca", "aca", "pca", "deep", "watershed", "brain-stem", "cerebellum")

KINDS = ("none", "cortex", "white", "striatum", "thalamus", "brain-stem", "cerebellum")
NONE, CORTEX, WHITE, STRIATUM, THALAMUS, BRAINSTEM, CEREBELLUM = range(len(KINDS))

# FreeSurfer labels of the left side and their right partners. The lesions (25) and vessels (30, mostly perivascular
# spaces) of the maps lie in white matter; the ventral diencephalon (28) is fed like the thalamus.
_LEFT = {2: WHITE, 25: WHITE, 30: WHITE, 3: CORTEX, 17: CORTEX, 18: CORTEX, 11: STRIATUM, 12: STRIATUM, 13: STRIATUM,
         26: STRIATUM, 10: THALAMUS, 28: THALAMUS, 7: CEREBELLUM, 8: CEREBELLUM}  # fmt: skip
_RIGHT = {2: 41, 25: 57, 30: 62, 3: 42, 17: 53, 18: 54, 11: 50, 12: 51, 13: 52, 26: 58, 10: 49, 28: 60, 7: 46, 8: 47}

KIND_OF = {0: NONE, **_LEFT, **{_RIGHT[label]: kind for label, kind in _LEFT.items()}, 16: BRAINSTEM}
"""Kind of tissue of each label that a lesion may take; all other labels are left alone."""

SIDE_OF = {**dict.fromkeys(_LEFT, -1), **dict.fromkeys(_RIGHT.values(), 1)}
"""-1 for left, 1 for right labels; labels of the midline are absent."""

STEP = 4.0
"""Spacing in mm of the grid on which territories are computed."""


class Brain:
    """The labels of a crop as a lesion sees them: kinds of tissue, sides and territories on a coarse grid, on the CPU.

    Parameters
    ----------
    labels : Tensor
        Integers ``[x, y, z]`` in RAS order, FreeSurfer ids or indices into ``ids``.
    voxel_size : float
        In mm.
    ids : sequence of int, optional
        FreeSurfer id of each value of ``labels``, for label maps that store indices.
    """

    def __init__(self, labels: Tensor, voxel_size: float, ids: Sequence[int] | None = None):
        self.labels, self.voxel_size = labels, voxel_size
        self.ids = list(range(max(KIND_OF) + 2)) if ids is None else list(ids)
        self.step = max(1, round(STEP / voxel_size))
        self.starts = [min(self.step, length) // 2 for length in labels.shape]
        self.indices = self.coarse(labels).long().clamp_(max=len(self.ids) - 1)
        self.kind = self.table(KIND_OF)[self.indices]
        self.side = self.table(SIDE_OF)[self.indices]
        self.axes = [
            (start + self.step * torch.arange(count)) * voxel_size for start, count in zip(self.starts, self.kind.shape)
        ]
        self.extent = [length * voxel_size for length in labels.shape]

    def coarse(self, volume: Tensor) -> Tensor:
        """Return the values of a volume ``[x, y, z]`` at the coarse grid, on the CPU."""
        return volume[tuple(slice(start, None, self.step) for start in self.starts)].cpu()

    def table(self, values: dict[int, float], default: float = 0) -> Tensor:
        """Return a lookup table with a value for each value of ``labels``; ids beyond it are clamped to its end."""
        return torch.tensor([values.get(label, default) for label in self.ids])

    @cached_property
    def cerebral(self) -> Tensor:
        """Mask of the hemispheres' tissue."""
        return (self.kind >= CORTEX) & (self.kind <= THALAMUS)

    @cached_property
    def points(self) -> Tensor:
        """Positions ``[3, a, b, c]`` in mm of the coarse grid."""
        return torch.stack(torch.meshgrid(*self.axes, indexing="ij"))

    @cached_property
    def position(self) -> tuple[Tensor, Tensor, Tensor]:
        """Position relative to the hemispheres' bounding box, about 0-1: lateral, anterior, superior.

        The midline plane is the linear discriminant of left and right tissue, so that a turned head does not matter.
        """
        inside = self.points[:, self.cerebral]
        sides = self.side[self.cerebral]
        left, right = inside[:, sides < 0], inside[:, sides > 0]
        across = torch.tensor([1.0, 0.0, 0.0])
        if min(left.shape[1], right.shape[1]) > 100:
            between = right.mean(1) - left.mean(1)
            across = torch.linalg.solve(left.cov() + right.cov() + torch.eye(3), between)
            across = across / across.norm()
        forward = torch.tensor([0.0, 1.0, 0.0]) - across[1] * across
        forward = forward / forward.norm()
        upward = torch.linalg.cross(across, forward)
        x = torch.einsum("i,in->n", across, inside)
        # The inner borders of both sides; of the only one in a crop that holds no other.
        inner = [x[sides * sign > 0].mul(sign).quantile(0.02) * sign for sign in (-1, 1) if (sides == sign).any()]
        offset = sum(inner) / len(inner)
        lateral = torch.einsum("i,ixyz->xyz", across, self.points) - offset
        ends = (x - offset).abs().quantile(0.98).clamp(min=1.0)
        result = [lateral.abs() / ends]
        for axis in (forward, upward):
            low, high = torch.einsum("i,in->n", axis, inside).quantile(torch.tensor([0.005, 0.995]))
            result.append((torch.einsum("i,ixyz->xyz", axis, self.points) - low) / (high - low).clamp(min=1.0))
        return tuple(result)

    @cached_property
    def _cortical(self) -> tuple[Tensor, Tensor]:
        """ACA and PCA weight in [0, 1]."""
        lateral, anterior, superior = self.position

        def above(values: Tensor, limit: Tensor | float, width: float = 0.03) -> Tensor:
            return torch.sigmoid((values - limit) / width)

        # The ACA's strip reaches over the margin of the hemisphere; in front it comes down to the orbital surface.
        aca = above(-lateral, -0.34) * above(anterior, 0.27) * above(superior, 0.62 - 0.5 * (anterior - 0.4))
        occipital = above(-anterior, -0.24) * above(-lateral, -0.72) * above(-superior, -0.68)
        temporal = above(-superior, -0.24 - 0.1 * (0.5 - anterior)) * above(-anterior, -0.55) * above(-lateral, -0.6)
        return aca, torch.maximum(occipital, temporal) * (1 - aca)

    def extent_of(self, territory: str) -> Tensor:
        """Return how far each coarse voxel belongs to a territory by its position alone: ``[a, b, c]`` in [0, 1]."""
        if territory in ("brain-stem", "cerebellum") or not self.cerebral.any():
            return torch.ones(self.kind.shape)
        if territory == "deep":
            nuclei = ((self.kind == STRIATUM) | (self.kind == THALAMUS)).float()
            return F.avg_pool3d(nuclei[None], 3, 1, 1)[0].mul_(2).clamp_(max=1)  # with the internal capsule
        aca, pca = self._cortical
        if territory == "watershed":
            return 4 * torch.maximum(aca * (1 - aca), pca * (1 - pca))
        return {"mca": 1 - aca - pca, "aca": aca, "pca": pca}[territory]

    def weight(self, territory: str) -> Tensor:
        """Return how much of each coarse voxel's tissue belongs to a territory: ``[a, b, c]`` in [0, 1], both sides."""
        kind, extent = self.kind, self.extent_of(territory)
        if territory in ("brain-stem", "cerebellum"):
            return extent * (kind == KINDS.index(territory))
        if territory == "deep":
            nuclei = (kind == STRIATUM) | (kind == THALAMUS)
            return torch.where(nuclei, 1.0, extent * (kind == WHITE))
        if territory == "watershed":
            return extent * ((kind == CORTEX) | (kind == WHITE))
        # The nuclei have their own feeders, wherever they lie.
        for nucleus, feeder in ((STRIATUM, "mca"), (THALAMUS, "pca")):
            extent = torch.where(kind == nucleus, float(territory == feeder), extent)
        return extent * self.cerebral
