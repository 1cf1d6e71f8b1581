"""A procedural head: label maps of ellipsoids, tubes and folded surfaces, to try and test everything without data.

It has the labels and roughly the shapes and sizes of the whole-head maps that the networks are trained on, but is no
anatomical atlas: networks trained on it are for demonstration only.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np

from synthseg_slicer.scan import write_volume

FIELD = ((-84.0, 84.0), (-102.0, 108.0), (-118.0, 88.0))
"""First and last millimetre along x, y, z; the origin lies near the middle of the brain."""

_CEREBRUM = ((0, 0, 10), (65, 82, 58))
_CEREBELLUM = ((0, -50, -44), (46, 28, 24))

# Structures of one side: label on the left and on the right, centre (x counted away from the midline), radii; in mm.
# Painted in this order.
_SIDED = (
    (28, 60, (8, -12, -8), (6, 9, 6)),
    (10, 49, (11, -15, 8), (9, 14, 9)),
    (11, 50, (13, 12, 13), (5, 15, 8)),
    (12, 51, (26, 4, 3), (6, 15, 9)),
    (13, 52, (19, 0, 1), (4.5, 9, 6)),
    (26, 58, (9, 15, -5), (4, 5, 4)),
    (17, 53, (27, -18, -17), (6, 17, 5)),
    (18, 54, (23, 3, -18), (7, 6, 6)),
    (4, 43, (10, -8, 24), (5.5, 28, 6)),
    (4, 43, (21, -36, 11), (6, 11, 9)),
    (5, 44, (33, -18, -13), (3, 15, 4)),
    (136, 163, (20, -35, 12), (3, 6, 4)),
    (137, 164, (33, -20, -13), (2.2, 6, 2.2)),
    (30, 62, (25, 12, -9), (2.2, 2.2, 2.2)),
)
_MIDLINE = (
    (14, (0, -8, 3), (2.6, 12, 9)),
    (72, (0, 6, 22), (2.4, 6, 3)),
    (85, (0, 16, -22), (7, 3, 2.5)),
)
_FACE = (
    (509, (0, 70, -60), (11, 18, 15)),
    (506, (-31, 68, -34), (12, 12, 12)),
    (506, (31, 68, -34), (12, 12, 12)),
)
# Tubes: label, points, radius in mm
_TUBES = (
    (512, ((0, -34, -74), (0, -38, -118)), 5.0),
    (514, ((0, 84, 8), (0, 68, 46), (0, 30, 69), (0, -20, 71), (0, -66, 49), (0, -84, 14)), 3.2),
    *((514, ((s * 42, -14, -62), (s * 30, -8, -118)), 4.0) for s in (-1, 1)),
    *((502, ((s * 26, 8, -118), (s * 24, 8, -60), (s * 12, 12, -40)), 3.0) for s in (-1, 1)),
    *((530, ((s * 31, 58, -33), (s * 24, 42, -30), (s * 9, 20, -23)), 2.5) for s in (-1, 1)),
    *((508, ((s * 31, 64, -34 + d), (s * 25, 42, -30 + d / 2)), 2.5) for s in (-1, 1) for d in (-11, 11)),
)


def draw_phantom(seed: int, voxel_size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw one head of random size, shape, asymmetry and folding.

    Parameters
    ----------
    seed : int
        The same seed gives the same head.
    voxel_size : float
        In mm, up to 4. With 2.5 the map has about 67 x 84 x 82 voxels, enough for tests. Small structures are kept at
        least a voxel wide, so that each label is there at any voxel size.

    Returns
    -------
    labels : numpy.ndarray
        int16 ``[x, y, z]``, RAS+, FreeSurfer label ids.
    affine : numpy.ndarray
        Voxel to mm.
    """
    return _Canvas(np.random.default_rng(seed), voxel_size).head()


def write_phantoms(folder: str | Path, count: int, *, seed: int = 0, voxel_size: float = 1.0) -> list[Path]:
    """Write ``count`` phantoms as ``phantom_01.nii.gz`` and so on, ready for :func:`~.labelmaps.prepare`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"phantom_{number:02d}.nii.gz" for number in range(1, count + 1)]
    for number, path in enumerate(paths):
        write_volume(path, *draw_phantom(seed + number, voxel_size))
    return paths


class _Canvas:
    """The voxel grid of one head and the brushes that paint on it; later strokes cover earlier ones."""

    def __init__(self, rng: np.random.Generator, voxel_size: float):
        self.rng = rng
        self.voxel_size = voxel_size
        counts = [math.ceil((high - low) / voxel_size) for low, high in FIELD]
        self.labels = np.zeros(counts, np.int16)
        self.axes = [low + voxel_size * (np.arange(n, dtype=np.float32) + 0.5) for (low, _), n in zip(FIELD, counts)]
        self.x, self.y, self.z = np.ix_(*self.axes)
        self.size = rng.uniform(0.94, 1.04, 3)

    def head(self) -> tuple[np.ndarray, np.ndarray]:
        self._skin_to_skull()
        self._cerebrum()
        self._hindbrain()
        for label, centre, radii in _FACE:
            self._ellipsoid(label, centre, radii)
        for label, points, radius in _TUBES:
            self._tube(label, points, radius)
        self._lesions()
        for left, right, centre, radii in _SIDED:
            for label, side in ((left, -1), (right, 1)):
                jitter = self.rng.normal(0, 0.7, 3)
                self._ellipsoid(
                    label, (side * centre[0], centre[1], centre[2]), radii, jitter, self.rng.uniform(0.9, 1.12, 3)
                )
        for label, centre, radii in _MIDLINE:
            self._ellipsoid(label, centre, radii)
        affine = np.diag([self.voxel_size] * 3 + [1.0])
        affine[:3, 3] = [axis[0] for axis in self.axes]
        return self.labels, affine

    def _radius(self, centre, radii, thicker: float = 0.0) -> np.ndarray:
        """Return the normalised radius: 1 on the surface of an ellipsoid ``thicker`` mm outside the given one."""
        squares = (
            ((axis - c * s) / (r * s + thicker)) ** 2
            for axis, c, r, s in zip((self.x, self.y, self.z), centre, radii, self.size)
        )
        return np.sqrt(sum(squares))

    def _skin_to_skull(self) -> None:
        neck_centre = self.y + 20 + 0.1 * self.z
        for label, thickness in ((511, 16), (507, 12.5), (515, 10), (516, 8), (515, 5.5), (24, 3)):
            inside = (self._radius(*_CEREBRUM, thickness) < 1) | (self._radius(*_CEREBELLUM, thickness) < 1)
            if label in (511, 507):
                around = thickness - 12.5
                neck = np.hypot(self.x, neck_centre) < 50 + around
                inside |= self._radius((0, 44, -50), (54, 56, 56), around) < 1
                inside |= neck & (self.z < -40)
            self.labels[inside] = label
        # The jaw, and the spinal canal with its vertebrae.
        jaw = self._radius((0, 48, -80), (42, 40, 26))
        self.labels[(jaw < 1) & (jaw > 0.85) & (self.z < -72) & (self.y > 20)] = 515
        canal = np.hypot(self.x, self.y - (-30 + (self.z + 60) * 0.12))
        below = self.z < -62
        self.labels[(canal < 18) & below] = 516
        self.labels[(canal < 12) & below] = 515
        self.labels[(canal < 9.5) & (self.z < -50)] = 24

    def _folds(self, wavelength: float) -> np.ndarray:
        """Return a random field of unit variance with this wavelength in mm."""
        field = np.zeros(self.labels.shape, np.float32)
        waves = 10
        for _ in range(waves):
            direction = self.rng.normal(size=3)
            direction *= 2 * math.pi / wavelength / np.linalg.norm(direction) * self.rng.uniform(0.75, 1.3)
            phase = direction[0] * self.x + direction[1] * self.y + (direction[2] * self.z + self.rng.uniform(0, 6.3))
            field += np.sin(phase.astype(np.float32))
        return field * math.sqrt(2 / waves)

    def _cerebrum(self) -> None:
        centre, radii = _CEREBRUM
        depth = (1 - self._radius(centre, radii)) * min(radii)
        depth -= 9 * np.clip(self._folds(18.0), 0, None)  # sulci
        callosum = (self.y / 44) ** 2 + ((self.z - 4) / 28) ** 2 < 1
        depth = np.minimum(depth, np.where(callosum, np.inf, np.abs(self.x) - 1.3))
        left = np.broadcast_to(self.x < 0, depth.shape)
        thickness = self.rng.uniform(3.5, 5.0)
        deep = self._radius((0, -5, 5), (42, 52, 30)) < 1  # sulci end above the deep nuclei
        cerebrum = (depth > 0) | (deep & (self._radius(centre, radii) < 1))
        white = cerebrum & ((depth > thickness) | deep)
        self.labels[cerebrum & left], self.labels[cerebrum & ~left] = 3, 42
        self.labels[white & left], self.labels[white & ~left] = 2, 41

    def _hindbrain(self) -> None:
        radius = self._radius(*_CEREBELLUM)
        self.labels[self._radius(*_CEREBELLUM, 2.0) < 1] = 24
        left = np.broadcast_to(self.x < 0, radius.shape)
        cortex = radius < 1
        white = radius + 0.1 * self._folds(11.0) < 0.62
        self.labels[cortex & left], self.labels[cortex & ~left] = 8, 47
        self.labels[white & left], self.labels[white & ~left] = 7, 46
        self._ellipsoid(16, (0, -22, -24), (13, 11, 18))
        self._ellipsoid(16, (0, -26, -44), (15, 13, 16))
        self._ellipsoid(16, (0, -32, -62), (9, 8, 18))
        self._ellipsoid(15, (0, -40, -45), (6, 4, 9))

    def _ellipsoid(self, label: int, centre, radii, shift=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0), only=()) -> None:
        """Paint an ellipsoid, at least so large that it holds a voxel, over everything or only over some labels."""
        least = 0.9 * self.voxel_size  # any ball of this radius (> sqrt(3)/2 voxels) holds a voxel centre
        centre = np.asarray(centre) * self.size + shift
        radii = np.maximum(np.asarray(radii) * self.size * scale, least)
        window, square = [], 0.0
        for axis, (values, c, r) in enumerate(zip(self.axes, centre, radii)):
            first, last = np.searchsorted(values, (c - r, c + r))
            window.append(slice(first, last))
            shape = [1, 1, 1]
            shape[axis] = -1
            square = square + (((values[first:last] - c) / r) ** 2).reshape(shape)
        view = self.labels[tuple(window)]
        view[(square <= 1) & (np.isin(view, only) if only else True)] = label

    def _tube(self, label: int, points, radius: float) -> None:
        for start, end in itertools.pairwise(points):
            start, end = np.array(start, float), np.array(end, float)
            steps = math.ceil(np.linalg.norm(end - start) / max(radius, self.voxel_size) * 2)
            for t in np.linspace(0, 1, steps + 1):
                self._ellipsoid(label, start + t * (end - start), (radius,) * 3)

    def _lesions(self) -> None:
        for lesion, tissue, side in ((25, 2, -1), (57, 41, 1)):
            for _ in range(self.rng.integers(3, 9)):
                centre = (side * self.rng.uniform(24, 30), self.rng.uniform(-30, 25), self.rng.uniform(20, 30))
                self._ellipsoid(lesion, centre, self.rng.uniform(2.2, 5, 3), only=(tissue,))
