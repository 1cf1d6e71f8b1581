"""Random stroke lesions: where, how large, which shape and which stage.

A lesion is a sublevel set of a function in mm: the distance from a seed in a random anisotropic metric, plus smooth
noise, plus what it costs to leave the arterial territory or to enter a tissue. The level is the one that yields the
wanted volume within the tissue that may be affected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..generation.draws import happens, integer, uniform, uniforms
from ..generation.interpolation import linear_weights
from ..generation.spatial import affine_matrix
from .field import STAGES, LesionField, SmoothNoise, empty_fields, interpolate
from .territories import (
    BRAINSTEM,
    CEREBELLUM,
    CORTEX,
    KIND_OF,
    NONE,
    SIDE_OF,
    STRIATUM,
    THALAMUS,
    WHITE,
    Brain,
)

FORBIDDEN = 1e4
"""Level in mm of tissue that a lesion may not enter."""

TAKEN = 0.2
"""Share of a voxel above which it belongs to an earlier focus."""


def _shares() -> dict[str, float]:
    return {
        "mca": 0.62, "deep": 0.13, "pca": 0.08, "aca": 0.05, "cerebellum": 0.05, "brain-stem": 0.04, "watershed": 0.03,
    }  # fmt: skip


def _volumes() -> dict[str, tuple[float, float, float]]:
    return {
        "mca": (20.0, 0.3, 300.0),
        "aca": (9.0, 0.3, 70.0),
        "pca": (11.0, 0.3, 110.0),
        "deep": (1.0, 0.1, 15.0),
        "watershed": (4.0, 0.3, 40.0),
        "brain-stem": (0.6, 0.1, 6.0),
        "cerebellum": (6.0, 0.2, 60.0),
    }


@dataclass(frozen=True)
class Focus:
    """Parameters of one connected (or nearly connected) lesion; lengths in mm, levels in mm of distance.

    Attributes
    ----------
    territory : str
        One of :data:`.territories.TERRITORIES`.
    side : int
        -1 left, 1 right; without tissue of the territory on this side the other one is taken.
    volume : float
        Of core and rim together, in ml.
    place : float
        In [0, 1): which of the territory's voxels is the seed.
    wedge : bool
        A wedge whose base is the cortex and whose tip points to the depth, rather than a blob.
    depth : float
        Length of the wedge as a share of the distance to the middle of the hemisphere.
    stretch, rotation : list of float
        Logarithms of the axes of the metric, and its rotation about x, y, z in radians.
    roughness : float
        Standard deviation of the noise relative to the radius of a ball of this volume.
    seed : int
        Of the noise.
    hold : float
        Cost of leaving the territory.
    white, nuclei : float
        Cost of white matter and of the deep nuclei, relative to cortex.
    softness : float
        Width of the edge.
    stage : str
        "chronic" or "acute".
    rim : float
        Width of the gliosis around a chronic cavity; 0 for none.
    mottle : float
        Depth of the mottling of an acute lesion.
    """

    territory: str
    side: int
    volume: float
    place: float
    wedge: bool
    depth: float
    stretch: list[float]
    rotation: list[float]
    roughness: float
    seed: int
    hold: float
    white: float
    nuclei: float
    softness: float
    stage: str
    rim: float
    mottle: float

    @property
    def radius(self) -> float:
        """Radius in mm of the ball of this volume."""
        return (self.volume * 750 / math.pi) ** (1 / 3)


@dataclass(frozen=True)
class LesionShapes:
    """Random strokes.

    Published cohorts are heavily skewed to the right: ATLAS 2.0 (655 masks) spans 0.01 to about 500 ml with a median of
    5 ml. The defaults span 0.1-300 ml and have their median near 10 ml, since lacunes below 0.1 ml teach little.

    Attributes
    ----------
    shares : dict
        Territory to its share of the patients. About two thirds of ischaemic strokes are the MCA's.
    volumes : dict
        Territory to median, least and largest volume in ml of the log-normal law (before it is cut to the bounds).
    volume_spread : float
        Standard deviation of the logarithm of the volume.
    multifocal : float
        Probability of satellites: one to ``satellites`` of them, each 2-30 % of the main focus.
    satellites : int
        Their largest number.
    embolic : float
        Probability that a satellite lies in any territory of any side rather than in the main one's.
    stages : dict
        Share of each stage: all foci chronic, all acute, or "mixed", an old lesion beside a new one.
    wedge : float
        Probability that a cortical infarct of less than 80 ml is a wedge.
    rim : float
        Probability that chronic foci have a gliotic rim.
    rim_width : tuple of float
        Bounds of its width in mm; it takes no more than 35 % of the radius.
    softness : tuple of float
        Bounds of the width of the edge in mm.
    mottled : float
        Probability that an acute focus is mottled.
    mottle : tuple of float
        Bounds of the depth of the mottling. Together with fading (:class:`.Paste`) it may leave more of healthy tissue
        than of lesion; (0.1, 0.25), fading (0.1, 0.3) and a threshold of .4 make targets without a hole.
    """

    shares: dict[str, float] = field(default_factory=_shares)
    volumes: dict[str, tuple[float, float, float]] = field(default_factory=_volumes)
    volume_spread: float = 1.4
    multifocal: float = 0.35
    satellites: int = 5
    embolic: float = 0.25
    stages: dict[str, float] = field(default_factory=lambda: {"chronic": 0.6, "acute": 0.25, "mixed": 0.15})
    wedge: float = 0.4
    rim: float = 0.8
    rim_width: tuple[float, float] = (1.0, 6.0)
    softness: tuple[float, float] = (0.5, 2.0)
    mottled: float = 0.5
    mottle: tuple[float, float] = (0.1, 0.4)

    def draw(self, rng: torch.Generator) -> tuple[Focus, ...]:
        """Draw the foci of one patient, the main one first."""
        territory, side = _pick(rng, self.shares), 2 * integer(rng, 2) - 1
        volume = self._draw_volume(rng, territory)
        stage = _pick(rng, self.stages)
        count = 1 + integer(rng, self.satellites) if happens(rng, self.multifocal) or stage == "mixed" else 0
        sizes = [1.0, *(math.exp(value) for value in uniforms(rng, count, math.log(0.02), math.log(0.3)))]
        foci = []
        for number, size in enumerate(sizes):
            if number and happens(rng, self.embolic):
                territory, side = _pick(rng, self.shares), 2 * integer(rng, 2) - 1
            own = stage if stage != "mixed" else STAGES[integer(rng, 2)]
            if stage == "mixed" and number == 1:
                own = STAGES[1 - STAGES.index(foci[0].stage)]
            own_volume = min(max(volume * size / sum(sizes), 0.05), self.volumes[territory][2])
            foci.append(self._draw_focus(rng, territory, side, own_volume, own))
        return tuple(foci)

    def _draw_volume(self, rng: torch.Generator, territory: str) -> float:
        """Draw from the log-normal law of the territory, cut to its bounds."""
        median, low, high = self.volumes[territory]
        normal = torch.distributions.Normal(math.log(median), self.volume_spread)
        first, last = normal.cdf(torch.tensor([low, high], dtype=torch.float64).log()).tolist()
        return math.exp(normal.icdf(torch.tensor(uniform(rng, first, last), dtype=torch.float64)).item())

    def _draw_focus(self, rng: torch.Generator, territory: str, side: int, volume: float, stage: str) -> Focus:
        cortical = territory in ("mca", "aca", "pca", "watershed")
        compact = territory in ("deep", "brain-stem")  # small and round, by one perforator
        own_nuclei = uniform(rng, -4, 16)  # with the trunk or only with branches beyond the perforators
        chronic = stage == "chronic"
        return Focus(
            territory=territory,
            side=side,
            volume=volume,
            place=uniform(rng, 0, 1),
            wedge=happens(rng, self.wedge) and cortical and volume < 80,
            depth=uniform(rng, 0.5, 1),
            stretch=(torch.randn(3, generator=rng) * (0.15 if compact else 0.3)).tolist(),
            rotation=uniforms(rng, 3, -math.pi, math.pi),
            roughness=uniform(rng, 0.05, 0.15) if compact else uniform(rng, 0.15, 0.4),
            seed=integer(rng, 2**62),
            hold=uniform(rng, 2, 6) if compact else uniform(rng, 20, 50),
            white=0.0 if compact else uniform(rng, 0, 4),  # grey matter dies first
            nuclei=own_nuclei if cortical else 0.0,
            softness=uniform(rng, *self.softness),
            stage=stage,
            rim=uniform(rng, *self.rim_width) if happens(rng, self.rim) and chronic else 0.0,
            mottle=uniform(rng, *self.mottle) if happens(rng, self.mottled) and not chronic else 0.0,
        )

    @torch.no_grad()
    def apply(
        self, labels: Tensor, foci: Sequence[Focus], voxel_size: float, ids: Sequence[int] | None = None
    ) -> list[LesionField]:
        """Make the lesions that the parameters describe.

        Parameters
        ----------
        labels : Tensor
            Integers ``[x, y, z]`` in RAS order: FreeSurfer ids, or indices into ``ids``.
        foci : sequence of Focus
            What :meth:`draw` returned.
        voxel_size : float
            In mm.
        ids : sequence of int, optional
            FreeSurfer id of each value of ``labels``.

        Returns
        -------
        list of LesionField
            One for each stage, on the device of ``labels``. A focus takes less than its volume where its side of the
            crop has less tissue; without any tissue all fields are empty.
        """
        fields = empty_fields(labels)
        brain = Brain(labels, voxel_size, ids)
        taken = torch.zeros(labels.shape, device=labels.device)
        for focus in foci:
            free = (brain.kind != NONE) & (brain.coarse(taken) < TAKEN)
            if free.any():
                _Growth(brain, focus, free).add_to(fields[focus.stage], taken)
        return list(fields.values())


class _Growth:
    """One focus grown in one brain, where it is free on the coarse grid."""

    MARGIN = 6.0
    """By how many mm the level on the fine grid may exceed the upper estimate of the coarse grid."""

    def __init__(self, brain: Brain, focus: Focus, free: Tensor):
        self.brain, self.focus, self.free = brain, focus, free
        index = self._seed_index()
        self.seed = [axis[i].item() for axis, i in zip(brain.axes, index)]
        self.kind, self.side = int(brain.kind[index]), int(brain.side[index])
        self.offsets = self._tissue_offsets()
        self.noise = SmoothNoise(focus.seed, max(3 * focus.radius, 12.0), brain.extent, octaves=4)
        texture = focus.seed ^ 1
        self.texture = SmoothNoise(texture, 16.0, brain.extent, octaves=2) if focus.rim or focus.mottle else None
        # Territories are smooth: they are interpolated from the coarse grid.
        self.cost = focus.hold * (1 - brain.extent_of(self._territory()))
        axes = torch.tensor([math.exp(-value + sum(focus.stretch) / 3) for value in focus.stretch])
        root = torch.diag(axes) @ affine_matrix(focus.rotation, [1.0] * 3, [0.0] * 6)
        self.metric = root.T @ root

    def _territory(self) -> str:
        own = {BRAINSTEM: "brain-stem", CEREBELLUM: "cerebellum"}.get(self.kind)
        return own or self.focus.territory

    def _seed_index(self) -> tuple[int, ...]:
        """Pick the seed in the territory on the wanted side, else on the other side, else in any tissue."""
        brain, focus = self.brain, self.focus
        territory = brain.weight(focus.territory) * self.free
        weights = on_side = territory * (brain.side * focus.side >= 0)
        if focus.wedge:
            weights = on_side * (brain.kind == CORTEX)
        for fallback in (on_side, territory, self.free.float()):
            if weights.sum() > 0.5:
                break
            weights = fallback
        # The soft tails of the weights reach far: only what clearly belongs to the territory is a seed.
        weights = (weights - 0.3 * weights.max()).clamp(min=0)
        sums = weights.flatten().double().cumsum(0)
        flat = int(torch.searchsorted(sums, focus.place * sums[-1:], right=True).clamp(max=len(sums) - 1))
        return tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), weights.shape))

    def _tissue_offsets(self) -> Tensor:
        """Return for each value of the labels the cost of that tissue; what is out of reach is forbidden."""
        focus, brain = self.focus, self.brain
        if self.kind in (BRAINSTEM, CEREBELLUM):
            costs = {self.kind: 0.0}
        else:
            striatum, thalamus = {"mca": (focus.nuclei, 30.0), "pca": (30.0, focus.nuclei), "deep": (0.0, 0.0)}.get(
                focus.territory, (30.0, 30.0)
            )
            cortex = 10.0 if focus.territory == "deep" else 0.0
            costs = {CORTEX: cortex, WHITE: focus.white, STRIATUM: striatum, THALAMUS: thalamus}
        values = {}
        for label, kind in KIND_OF.items():
            if kind in costs:
                crossed = SIDE_OF.get(label, 0) * self.side < 0
                # Only within the cerebellum, through the vermis, may a lesion reach the other side.
                if not crossed or kind == CEREBELLUM:
                    values[label] = costs[kind] + focus.hold * crossed
        return brain.table(values, FORBIDDEN).float()

    def level(self, axes: Sequence[Tensor]) -> Tensor:
        """Return distance plus noise in mm on the grid spanned by the axes."""
        focus, device = self.focus, axes[0].device
        x = [axis - origin for axis, origin in zip(axes, self.seed)]
        if focus.wedge and self.kind == CORTEX:
            inward = self._inward()
            length = inward.norm().clamp(min=12.0)
            outward = -inward / inward.norm().clamp(min=1e-3)
            apex = [value + length.item() * direction for value, direction in zip(x, outward.tolist())]
            across = torch.eye(3) - outward[:, None] * outward
            distance = _quadratic(across @ self.metric @ across, apex)
            along = _plane(outward.tolist(), apex)
            length = length.item()
            # Level sets are cones around one tip; near and behind it they close.
            distance = distance.clamp_(min=0).sqrt_().mul_(length).div_(along.clamp(min=0.2 * length))
            distance.add_(along.sub_(0.3 * length).neg_().clamp_(min=0), alpha=2)
        else:
            distance = _quadratic(self.metric, x).clamp_(min=0).sqrt_()
        amplitude = focus.roughness * focus.radius
        return distance.add_(self.noise([axis.to(device) for axis in axes]), alpha=amplitude)

    def _inward(self) -> Tensor:
        """Return the way from the seed to the wedge's tip in mm."""
        brain = self.brain
        same = brain.cerebral & (brain.side == self.side)
        centre = brain.points[:, same].mean(1)
        seed = torch.tensor(self.seed)
        # The feeders run from the middle of the hemisphere's length, but not all from one point.
        centre[1] = 0.5 * (centre[1] + seed[1])
        return (centre - seed) * self.focus.depth

    def add_to(self, target: LesionField, taken: Tensor) -> None:
        """Add the focus to a field, in place; ``taken`` is the share of each voxel that earlier foci have."""
        focus, brain = self.focus, self.brain
        coarse = self.level(brain.axes) + self.cost
        coarse += self.offsets[brain.indices]
        coarse[~self.free] = FORBIDDEN
        allowed = coarse < FORBIDDEN / 2
        spacing = brain.step * brain.voxel_size
        # Coarse voxels estimate the level only roughly: leave room for a third more of them.
        count = int(min(1.3 * focus.volume * 1000 / spacing**3 + 2, max(0.9 * allowed.sum().item(), 1)))
        limit = coarse.flatten().kthvalue(count).values.item() + self.MARGIN
        window = self._window(coarse < limit + focus.softness)
        device = target.core.device
        axes = [
            torch.arange(part.start, part.stop, device=device, dtype=torch.float32) * brain.voxel_size
            for part in window
        ]
        weights = [
            linear_weights((torch.arange(part.start, part.stop, device=device) - start) / brain.step, len(coarse_axis))
            for part, start, coarse_axis in zip(window, brain.starts, brain.axes)
        ]
        level = self.level(axes).add_(interpolate(self.cost.to(device), weights))
        slope = _slope(level, brain.voxel_size)
        level += self.offsets.to(device)[brain.labels[window].long().clamp_(max=len(brain.ids) - 1)]
        level[taken[window] > TAKEN] = FORBIDDEN
        count = min(max(round(focus.volume * 1000 / brain.voxel_size**3), 1), level.numel())
        threshold = level.flatten().kthvalue(count).values.clamp(max=limit)
        free = (level < FORBIDDEN / 2) * (1 - taken[window])
        inside = (threshold - level).div_(slope)  # about the depth in mm
        whole = inside.div(focus.softness).add_(0.5).clamp_(0, 1).mul_(free)
        core = whole
        texture = self.texture(axes) if self.texture else None
        if focus.rim:
            width = min(focus.rim, 0.35 * focus.radius) * (1 + 0.4 * texture).clamp_(min=0.3)
            core = inside.sub_(width).div_(focus.softness).add_(0.5).clamp_(0, 1).mul_(free)
        elif focus.mottle:
            # Not at the edge, where it would move the contour.
            whole = core = whole * (1 - focus.mottle * texture.clamp_(0, 1) * (2 * whole - 1).clamp_(min=0))
        taken[window] += whole
        target.core[window] += core
        target.rim[window] += whole - core

    def _window(self, wanted: Tensor) -> tuple[slice, ...]:
        """Return the part of the fine grid around all coarse voxels that are wanted, and around the seed."""
        brain, reach = self.brain, 1.5 * self.focus.radius + 4
        window = []
        for axis in range(3):
            found = wanted.movedim(axis, 0).flatten(1).any(1).nonzero().flatten()
            start = brain.starts[axis]
            seed = self.seed[axis] / brain.voxel_size
            first = min(start + brain.step * (int(found[0]) - 1), int(seed - reach / brain.voxel_size))
            last = max(start + brain.step * (int(found[-1]) + 1), int(seed + reach / brain.voxel_size))
            window.append(slice(max(first, 0), min(last + 1, brain.labels.shape[axis])))
        return tuple(window)


def _quadratic(matrix: Tensor, x: Sequence[Tensor]) -> Tensor:
    """Return x' A x on the grid spanned by three axes, with two passes over it."""
    a, (x, y, z) = matrix.tolist(), (x[0][:, None, None], x[1][:, None], x[2])
    plane = a[0][0] * x * x + a[1][1] * y * y + 2 * a[0][1] * x * y
    return torch.addcmul(plane + a[2][2] * z * z, 2 * (a[0][2] * x + a[1][2] * y), z)


def _plane(normal: Sequence[float], x: Sequence[Tensor]) -> Tensor:
    """Return n . x on the grid spanned by three axes."""
    return (normal[0] * x[0][:, None, None] + normal[1] * x[1][:, None]) + normal[2] * x[2]


def _slope(level: Tensor, voxel_size: float) -> Tensor:
    """Return the length of the gradient, kept from extremes; outermost voxels repeat their neighbours' differences."""
    squares = torch.zeros_like(level)
    for axis, count in enumerate(level.shape):
        if count > 2:
            first = squares.narrow(axis, 1, count - 2)
            first.add_((level.narrow(axis, 2, count - 2) - level.narrow(axis, 0, count - 2)).square_())
            squares.select(axis, 0).copy_(squares.select(axis, 1))
            squares.select(axis, count - 1).copy_(squares.select(axis, count - 2))
    return squares.sqrt_().div_(2 * voxel_size).clamp_(0.5, 8.0)


def _pick(rng: torch.Generator, shares: dict[str, float]) -> str:
    """Return one of the keys, drawn by their shares."""
    weights = torch.tensor(list(shares.values()))
    return list(shares)[int(torch.multinomial(weights, 1, generator=rng))]
