"""Spatial augmentation: affine and diffeomorphic deformation of the label map, sampled directly on the crop."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from .draws import happens, uniform, uniforms
from .interpolation import linear_weights, resample, voxel_centres

SQUARINGS = 7


@dataclass(frozen=True)
class SpatialParameters:
    """One deformation.

    Attributes
    ----------
    centre : list of float
        Where the crop's centre lies in the label map, in voxels of the map.
    matrix : list of list of float
        3 x 3 linear part of the affine transform, from crop mm to map mm.
    velocity : Tensor or None
        ``[3, k, k, k]`` stationary velocity field at its nodes, in mm; None for an affine deformation.
    """

    centre: list[float]
    matrix: list[list[float]]
    velocity: Tensor | None


@dataclass(frozen=True)
class Spatial:
    """L = S o (aff o nonlin), eqs. 1-10 of the paper.

    A voxel at x (mm from the crop's centre) takes the label that the map has, nearest neighbour, at
    ``centre + A (x + u(x))``; u integrates the stationary velocity field by scaling and squaring. All of it is computed
    on the crop, never on the whole map: the velocity field's nodes and the grid on which it is integrated cover the
    crop and a margin around it.

    Attributes
    ----------
    probability : float
        Probability of a deformation; otherwise the map is only cropped.
    scaling : float
        Scalings are U(1 - scaling, 1 + scaling) per axis.
    rotation : float
        Rotations are U(-rotation, rotation) degrees about each axis.
    shearing : float
        The six shears are U(-shearing, shearing).
    velocity : float
        Upper bound in mm of the velocity field's standard deviation, sigma_SVF ~ U(0, velocity).
    node_spacing : float
        Distance in mm of the velocity field's nodes; 10 nodes over a map of 256 mm as in the paper.
    step : float
        Spacing in mm of the grid on which the field is integrated: 2 (half of 1 mm) in the reference implementation;
        4 is faster and, with nodes 28 mm apart, as good.
    surroundings : float
        Crops lie inside the bounding box of the segmented structures widened by this many mm, at random.
    """

    probability: float = 1.0
    scaling: float = 0.2
    rotation: float = 15.0
    shearing: float = 0.012
    velocity: float = 4.0
    node_spacing: float = 256 / 9
    step: float = 2.0
    surroundings: float = 20.0

    def scaled(self, difficulty: float) -> Spatial:
        """Return the transform with its bounds shrunk by a factor in [0, 1]."""
        return replace(
            self,
            scaling=self.scaling * difficulty,
            rotation=self.rotation * difficulty,
            shearing=self.shearing * difficulty,
            velocity=self.velocity * difficulty,
        )

    @property
    def margin(self) -> float:
        """Width in mm around the crop where the velocity field is known too: three of its standard deviations."""
        return 3 * self.velocity

    def draw(self, rng: torch.Generator, extent: float, box: list[list[float]], map_voxel: float) -> SpatialParameters:
        """Draw a deformation.

        Parameters
        ----------
        rng : torch.Generator
            On the CPU.
        extent : float
            Edge of the crop in mm.
        box : list
            First and last voxel, per axis, of what is worth a crop in the label map.
        map_voxel : float
            Voxel size of the map in mm.
        """
        centre = []
        for (first, last), position in zip(box, uniforms(rng, 3, 0, 1)):
            # The crop lies within the widened box where it fits, else the box within the crop.
            inset = (extent / 2 - self.surroundings) / map_voxel
            ends = sorted((first + inset, last - inset))
            centre.append(ends[0] + position * (ends[1] - ends[0]))
        if not happens(rng, self.probability):
            return SpatialParameters(centre, torch.eye(3).tolist(), None)
        rotation = [math.radians(angle) for angle in uniforms(rng, 3, -self.rotation, self.rotation)]
        scaling = uniforms(rng, 3, 1 - self.scaling, 1 + self.scaling)
        shearing = uniforms(rng, 6, -self.shearing, self.shearing)
        velocity = None
        if self.velocity > 0:
            nodes = max(2, round((extent + 2 * self.margin) / self.node_spacing) + 1)
            velocity = torch.randn(3, nodes, nodes, nodes, generator=rng) * uniform(rng, 0, self.velocity)
        return SpatialParameters(centre, affine_matrix(rotation, scaling, shearing).tolist(), velocity)

    def coordinates(
        self, parameters: SpatialParameters, size: int, voxel_size: float, map_voxel: float, device: torch.device
    ) -> Tensor:
        """Return for each voxel of the crop its position ``[3, N, N, N]`` in the label map, in voxels of the map."""
        matrix = torch.tensor(parameters.matrix) / map_voxel
        x = voxel_centres(size, voxel_size, device)
        columns = matrix.to(device, non_blocking=True)[:, :, None] * x  # [map axis, crop axis, N]
        centre = torch.tensor(parameters.centre).to(device, non_blocking=True)
        plane = columns[:, 0, :, None, None] + columns[:, 1, None, :, None] + centre[:, None, None, None]
        if parameters.velocity is None:
            return plane + columns[:, 2, None, None, :]
        displacement, weights = self._displacement(parameters.velocity, size, voxel_size, device)
        # The affine part goes over the coarse displacement first: an eighth of the work or less. Only displacements
        # pass through matrix products, so that reduced precision there (TF32) costs hundredths of a voxel at most.
        displacement = torch.einsum("ij,jxyz->ixyz", matrix.to(device, non_blocking=True), displacement)
        return resample(displacement, weights).add_(plane).add_(columns[:, 2, None, None, :])

    def _displacement(
        self, velocity: Tensor, size: int, voxel_size: float, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Return the field integrated on the coarse grid and the weights that interpolate it on the crop."""
        reach = size * voxel_size + 2 * self.margin
        count = max(2, math.ceil(reach / self.step) + 1)
        spacing = reach / (count - 1)
        field = F.interpolate(
            velocity.to(device, non_blocking=True)[None], size=(count,) * 3, mode="trilinear", align_corners=True
        )
        field = integrate(field * (2 / reach)) * (reach / 2)
        positions = (voxel_centres(size, voxel_size, device) + reach / 2) / spacing
        return field[0], linear_weights(positions, count)

    def apply(
        self, label_map: Tensor, parameters: SpatialParameters, size: int, voxel_size: float, map_voxel: float
    ) -> Tensor:
        """Return the deformed crop ``[N, N, N]`` of a map ``[x, y, z]`` whose outermost layer is background."""
        position = self.coordinates(parameters, size, voxel_size, map_voxel, label_map.device)
        # Outside the map the nearest voxel belongs to the map's outermost layer, hence is background.
        index = None
        for axis, length in enumerate(label_map.shape):
            nearest = position[axis].add_(0.5).clamp_(0, length - 0.5).to(torch.int32)  # truncation of values >= 0
            index = nearest if index is None else index.mul_(length).add_(nearest)
        return label_map.reshape(-1).index_select(0, index.reshape(-1)).reshape(index.shape)


def affine_matrix(rotation: list[float], scaling: list[float], shearing: list[float]) -> Tensor:
    """Compose rotations about x, y, z (radians), six shears and three scalings (eq. 5); scaling acts first."""
    (sx, cx), (sy, cy), (sz, cz) = ((math.sin(angle), math.cos(angle)) for angle in rotation)
    about_x = torch.tensor([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = torch.tensor([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    a, b, c, d, e, f = shearing
    shear = torch.tensor([[1, a, b], [c, 1, d], [e, f, 1]])
    return about_x @ about_y @ about_z @ shear @ torch.diag(torch.tensor(scaling))


def integrate(velocity: Tensor) -> Tensor:
    """Integrate a stationary velocity field by scaling and squaring (Arsigny et al. 2006; eq. 9).

    Parameters
    ----------
    velocity : Tensor
        ``[1, 3, n, n, n]``, channels x, y, z, in units in which the grid spans [-1, 1]. Beyond the grid the field is
        continued by its border values, which keeps it Lipschitz and thus the result free of foldings.

    Returns
    -------
    Tensor
        The displacement, same shape and units.
    """
    count = velocity.shape[-1]
    axis = torch.linspace(-1, 1, count, device=velocity.device)
    # grid_sample wants the last array axis first
    identity = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1])[None]
    displacement = velocity.flip(1) / 2**SQUARINGS
    for _ in range(SQUARINGS):
        there = (identity + displacement).permute(0, 2, 3, 4, 1)
        displacement = displacement + F.grid_sample(displacement, there, padding_mode="border", align_corners=True)
    return displacement.flip(1)
