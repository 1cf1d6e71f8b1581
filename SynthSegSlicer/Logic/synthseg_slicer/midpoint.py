"""A space halfway between several scans of one head, in which none of them is privileged.

Registering a follow-up to its baseline interpolates one of the two and not the other, and that alone looks like change.
Reuter, Schmansky, Rosas & Fischl 2012 (https://doi.org/10.1016/j.neuroimage.2012.02.084) therefore treat all timepoints
alike, in a space that each reaches by its share of the way. Here every pair is registered both ways; for two scans
half of the way is exp(log(T) / 2), T the rigid transform between them, for more the mean of all ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import ScanError
from .geometry import orthogonal_part
from .scan import MIN_EXTENT_MM

HEAD_RADIUS_MM = 80.0
"""Of the sphere over which :func:`displacement` is taken (Jenkinson 1999)."""
_SWEEPS, _SETTLED = 100, 1e-12
_FARTHEST = np.radians(179.0)


@dataclass(frozen=True, eq=False)
class Frame:
    """How the field of view of a scan lies in its world.

    Attributes
    ----------
    pose : float64 array [4, 4]
        Rigid: mm along the scan's own axes, in RAS+ order, from the middle of the field of view, to world mm.
    extent : float64 array [3]
        Of the field of view in mm.
    """

    pose: np.ndarray
    extent: np.ndarray

    @classmethod
    def of(cls, shape: Sequence[int], affine: np.ndarray) -> Frame:
        """Return the frame of a grid whose axes are in RAS+ order (:func:`.conform.reorient`)."""
        pose = orthogonal_part(affine)
        pose[:3, 3] = (affine @ [*((np.array(shape) - 1) / 2), 1])[:3]
        return cls(pose, np.linalg.norm(affine[:3, :3], axis=0) * shape)


@dataclass(frozen=True, eq=False)
class Midpoint:
    """The space halfway between scans, and the grid on which all of them are sampled.

    Attributes
    ----------
    transforms : list of float64 array [4, 4]
        Rigid: world mm of each scan to world mm of the midpoint.
    affine : float64 array [4, 4]
        Voxel index of the grid to world mm of the midpoint.
    shape : tuple of int
        Of the grid.
    """

    transforms: list[np.ndarray]
    affine: np.ndarray
    shape: tuple[int, int, int]


def midpoint(frames: Sequence[Frame], ways: dict[tuple[int, int], np.ndarray], voxel_size: float) -> Midpoint:
    """Return the space halfway between scans, with a grid that holds what all of them show.

    The way is halved between the scans' own axes, not between their worlds: two scans are turned against the grid by
    the same angle, so that both are interpolated alike. The grid has no voxel between those of scans that lie the same.

    Parameters
    ----------
    frames : sequence of Frame
        One a scan.
    ways : dict
        ``i, j`` to the rigid transform from world mm of scan ``i`` to world mm of scan ``j``, for every pair both ways;
        the two are averaged (:func:`both_ways`).
    voxel_size : float
        Of the grid, in mm.

    Raises
    ------
    ScanError
        Scans half a turn apart, or without a common field of view.
    """
    number = len(frames)
    pairs = np.tile(np.eye(4), (number, number, 1, 1))
    for i in range(number):
        for j in range(i + 1, number):
            way = both_ways(ways[i, j], ways[j, i])
            pairs[i, j] = np.linalg.inv(frames[j].pose) @ way @ frames[i].pose
            pairs[j, i] = np.linalg.inv(pairs[i, j])
    shares = halfway(pairs)
    world = rigid_mean([frame.pose @ np.linalg.inv(share) for frame, share in zip(frames, shares)])
    reaches = [_reach(frame, share) for frame, share in zip(frames, shares)]
    low = np.max([first for first, _ in reaches], axis=0)
    high = np.min([last for _, last in reaches], axis=0)
    size = high - low
    if size.min() < MIN_EXTENT_MM:
        raise ScanError("The scans show no common part of the head. Register them beforehand, or leave one out.")
    shape = np.ceil(size / voxel_size - 1e-3).astype(int)
    grid = np.diag([voxel_size] * 3 + [1.0])
    grid[:3, 3] = (low + high) / 2 - (shape - 1) / 2 * voxel_size
    transforms = [world @ share @ np.linalg.inv(frame.pose) for frame, share in zip(frames, shares)]
    return Midpoint(transforms, world @ grid, tuple(map(int, shape)))


def both_ways(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Return the transform between two registrations of a pair: exp((log there - log back) / 2).

    With the two exchanged it is the inverse, whatever the registrations found.
    """
    return rigid_exp((rigid_log(there) - rigid_log(back)) / 2)


def halfway(pairs: np.ndarray) -> list[np.ndarray]:
    """Return the rigid transform of each frame to the mean of all.

    Each frame's transform becomes the mean of where the others, brought to it, would lie (motion averaging, Govindu
    2004), until nothing moves; then the space is turned so that the logarithms of all transforms add up to zero.
    For two frames these are exp(log(T) / 2) and its inverse.

    Parameters
    ----------
    pairs : float64 array [n, n, 4, 4]
        ``pairs[i, j]`` from frame ``i`` to frame ``j``, the inverse of ``pairs[j, i]``.
    """
    shares = [rigid_exp(np.mean([rigid_log(way) for way in row], axis=0)) for row in pairs]
    for _ in range(_SWEEPS if len(pairs) > 2 else 0):
        steps = [
            np.mean([rigid_log(there @ way @ np.linalg.inv(here)) for there, way in zip(shares, row)], axis=0)
            for here, row in zip(shares, pairs)
        ]
        shares = [rigid_exp(step) @ share for step, share in zip(steps, shares)]
        if np.abs(steps).max() < _SETTLED:
            break
    for _ in range(_SWEEPS):
        turn = np.mean([rigid_log(share) for share in shares], axis=0)
        shares = [rigid_exp(-turn) @ share for share in shares]
        if np.abs(turn).max() < _SETTLED:
            break
    return shares


def rigid_mean(transforms: Sequence[np.ndarray]) -> np.ndarray:
    """Return the Karcher mean M of rigid transforms: the logarithms of T M^-1 add up to zero."""
    mean = np.eye(4)
    mean[:3, 3] = np.mean([transform[:3, 3] for transform in transforms], axis=0)
    for _ in range(_SWEEPS):
        step = np.mean([rigid_log(transform @ np.linalg.inv(mean)) for transform in transforms], axis=0)
        mean = rigid_exp(step) @ mean
        if np.abs(step).max() < _SETTLED:
            break
    return mean


def rigid_log(transform: np.ndarray) -> np.ndarray:
    """Return the matrix logarithm of a rigid transform in closed form, float64 [4, 4]: rotation vector and velocity.

    Raises
    ------
    ScanError
        The rotation is half a turn, whose logarithm is not unique.
    """
    rotation = transform[:3, :3]
    skew = (rotation - rotation.T) / 2
    sine = np.sqrt((skew**2).sum() / 2)
    angle = np.arctan2(sine, (np.trace(rotation) - 1) / 2)
    if angle > _FARTHEST:
        raise ScanError("Two scans lie half a turn apart. Correct the orientation in the header of one of them.")
    result = np.zeros((4, 4))
    if angle < 1e-6:
        turn, factor = skew, 1 / 12
    else:
        turn = skew * (angle / sine)
        factor = 1 / angle**2 - (1 + np.cos(angle)) / (2 * angle * sine)
    result[:3, :3] = turn
    result[:3, 3] = (np.eye(3) - turn / 2 + factor * turn @ turn) @ transform[:3, 3]
    return result


def rigid_exp(logarithm: np.ndarray) -> np.ndarray:
    """Return the rigid transform of a logarithm (Rodrigues' formula), float64 [4, 4]; inverse of :func:`rigid_log`."""
    turn = logarithm[:3, :3]
    angle = np.sqrt((turn**2).sum() / 2)
    if angle < 1e-6:
        one, two, three = 1.0, 1 / 2, 1 / 6
    else:
        one = np.sin(angle) / angle
        two = (1 - np.cos(angle)) / angle**2
        three = (angle - np.sin(angle)) / angle**3
    result = np.eye(4)
    result[:3, :3] += one * turn + two * turn @ turn
    result[:3, 3] = (np.eye(3) + two * turn + three * turn @ turn) @ logarithm[:3, 3]
    return result


def displacement(transform: np.ndarray, centre: np.ndarray) -> float:
    """Return the root mean square displacement in mm over a head (Jenkinson 1999, FMRIB TR99MJ1, equation 7).

    Parameters
    ----------
    transform : float64 array [4, 4]
        World mm to world mm.
    centre : array [3]
        Of the head, in world mm.
    """
    linear = transform[:3, :3] - np.eye(3)
    shift = linear @ centre + transform[:3, 3]
    return float(np.sqrt(HEAD_RADIUS_MM**2 / 5 * np.trace(linear.T @ linear) + shift @ shift))


def _reach(frame: Frame, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return from where to where, along each of the midpoint's axes, a field of view reaches."""
    corners = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1) * frame.extent[:, None] / 2
    placed = share[:3, :3] @ corners + share[:3, 3:]
    return placed.min(1), placed.max(1)
