"""A procedural thorax: label maps of the heart with images in several contrasts, to try and test without data.

Chambers, myocardium and great vessels have roughly the shapes, sizes and places of an adult's, and lie among lungs,
ribs, spine, liver, fat and muscle that no label names, as in the maps of the MMWHS challenge. It is no anatomical
atlas: networks trained on it are for demonstration only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from synthseg_slicer.scan import write_volume

from .tissues import CONTRASTS, INDEX, SUBSTANCES, TISSUES

FIELD = ((-172.0, 172.0), (-118.0, 118.0), (-96.0, 96.0))
"""First and last millimetre along x, y, z; the origin lies in the middle of the chest."""

WARP = 5.0
"""Standard deviation in mm, along each axis, of the smooth deformation of everything."""
WARP_SPACING = 48.0
TEXTURE_SPACING = 14.0
BIAS_SPACING = 120.0
"""Distances in mm of the nodes of the smooth fields."""
BIAS = (0.12, 0.0, 0.12)
"""Standard deviation of the logarithm of the bias field, in each of the contrasts."""
NOISE = (7.0, 22.0, 7.0)
"""Standard deviation of the noise at 2 mm, in each of the contrasts."""
PARTIAL_VOLUME = 0.5
"""Standard deviation in voxels of the Gaussian that mixes neighbouring voxels."""

_CHEST = (160.0, 106.0)
_AXIS = np.array((-0.66, 0.58, -0.48)) / math.hypot(0.66, 0.58, 0.48)
"""From the base of the heart to its apex: to the left, forward and down."""
_LEFT_VENTRICLE = np.array((-32.0, 10.0, -10.0))
_BASE = -24.0
"""Where the ventricles end towards the atria, in mm along the axis from the middle of the left one."""

# Vessels in mm from the middle of the heart: tissue, points, radius. Painted in this order.
_VESSELS = (
    ("veins", ((24, -2, 100), (26, 2, 55), (32, 6, 22)), 9.0),
    ("veins", ((24, -12, -100), (28, -6, -45), (32, 2, -15)), 11.0),
    *(("arteries", ((s * 20, -32, 14 + h), (s * 44, -38, 16 + 2 * h), (s * 78, -40, 14 + 4 * h)), 6.0)
      for s in (-1, 1) for h in (-7, 9)),
    ("arteries", ((10, 16, 50), (10, 6, 74), (-6, -18, 84), (-20, -38, 74), (-24, -48, 48), (-22, -52, -100)), 11.0),
    *(("arteries", ((x, y, 80), (1.6 * x, y, 110)), 4.5) for x, y in ((8, 2), (-8, -14), (-17, -30))),
    *(("veins", ((s * 40, -18, 52), (s * 62, -24, 34), (s * 84, -30, 4)), 6.0) for s in (-1, 1)),
    ("ascending aorta", ((-10, 2, 12), (2, 12, 32), (10, 16, 52), (9, 12, 66)), 14.0),
    ("right ventricle", ((2, 34, 0), (-14, 34, 24)), 13.0),
    ("pulmonary artery", ((-14, 34, 24), (-20, 20, 44), (-22, 4, 54)), 12.5),
    ("pulmonary artery", ((-22, 4, 54), (6, -9, 53), (36, -15, 50)), 9.0),
    ("pulmonary artery", ((-22, 4, 54), (-40, -18, 56)), 9.0),
)  # fmt: skip


def draw_thorax(seed: int, voxel_size: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw one thorax of random size, shape and position of the heart.

    Parameters
    ----------
    seed : int
        The same seed gives the same thorax.
    voxel_size : float
        In mm, up to 5.

    Returns
    -------
    tissues : numpy.ndarray
        uint8 ``[x, y, z]``, RAS+, indices into :data:`~.tissues.TISSUES`.
    affine : numpy.ndarray
        Voxel to mm.
    """
    return _Thorax(np.random.default_rng(seed), voxel_size).draw()


def label_map(tissues: np.ndarray) -> np.ndarray:
    """Return the labels of MMWHS (int16) of a thorax: seven structures of the heart, all else 0."""
    return np.array([tissue.label for tissue in TISSUES], np.int16)[tissues]


def draw_image(tissues: np.ndarray, contrast: str, seed: int, voxel_size: float = 2.0) -> np.ndarray:
    """Draw an image of a thorax.

    Every substance has a mean of its own, which differs from image to image, and varies smoothly within the image;
    then come partial volume, a bias field (MR) and noise.

    Parameters
    ----------
    tissues : numpy.ndarray
        From :func:`draw_thorax`.
    contrast : str
        One of :data:`~.tissues.CONTRASTS`.
    seed : int
        Of the intensities.
    voxel_size : float
        In mm.

    Returns
    -------
    numpy.ndarray
        int16 ``[x, y, z]``; Hounsfield units for ``ct``.

    Raises
    ------
    ValueError
        The contrast is unknown.
    """
    if contrast not in CONTRASTS:
        raise ValueError(f"contrast {contrast!r} is none of {', '.join(CONTRASTS)}")
    column = CONTRASTS.index(contrast)
    rng = np.random.default_rng((seed, column))
    mean = {name: s.means[column] + rng.normal(0, s.jitter[column]) for name, s in SUBSTANCES.items()}
    means = np.array([mean[tissue.substance] for tissue in TISSUES], np.float32)
    texture = np.array([SUBSTANCES[tissue.substance].texture[column] for tissue in TISSUES], np.float32)
    shape = tissues.shape
    image = means[tissues] + texture[tissues] * smooth_field(rng, shape, voxel_size, TEXTURE_SPACING)
    image = _blurred(image)
    if BIAS[column]:
        image *= np.exp(BIAS[column] * smooth_field(rng, shape, voxel_size, BIAS_SPACING))
    noise = NOISE[column] * (2.0 / voxel_size) ** 1.5
    image += rng.normal(0, noise, shape).astype(np.float32)
    low = -1024 if contrast == "ct" else 0
    return np.rint(np.clip(image, low, 3071)).astype(np.int16)


def write_thoraxes(
    folder: str | Path, count: int, *, contrasts: Sequence[str] = ("mr",), seed: int = 0, voxel_size: float = 2.0
) -> list[Path]:
    """Write phantoms as ``CONTRAST_01_image.nii.gz`` with ``CONTRAST_01_dseg.nii.gz``; one anatomy for all contrasts.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    count : int
        Thoraxes.
    contrasts : sequence of str
        Of :data:`~.tissues.CONTRASTS`: images of each thorax.
    seed : int
        Of the first thorax; the others follow.
    voxel_size : float
        In mm.

    Returns
    -------
    list of Path
        The images.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        tissues, affine = draw_thorax(seed + number, voxel_size)
        for contrast in contrasts:
            name = f"{contrast}_{number + 1:02d}"
            paths.append(folder / f"{name}_image.nii.gz")
            write_volume(paths[-1], draw_image(tissues, contrast, seed + number, voxel_size), affine)
            write_volume(folder / f"{name}_dseg.nii.gz", label_map(tissues), affine)
    return paths


def smooth_field(rng: np.random.Generator, shape: Sequence[int], voxel_size: float, spacing: float) -> np.ndarray:
    """Return a smooth random field of unit variance, float32 of this shape: normal at nodes so far apart (mm)."""
    nodes = [max(2, math.ceil(n * voxel_size / spacing) + 3) for n in shape]
    coarse = torch.from_numpy(rng.normal(size=nodes).astype(np.float32))[None, None]
    # Averaging neighbours and a finer grid round off the edges that linear interpolation would leave at the nodes.
    fine = F.interpolate(coarse, scale_factor=2, mode="trilinear", align_corners=False)
    fine = F.avg_pool3d(fine, 3, stride=1)
    field = F.interpolate(fine, size=list(shape), mode="trilinear", align_corners=True)[0, 0].numpy()
    return (field - field.mean()) / field.std()


def _blurred(image: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, PARTIAL_VOLUME)


class _Thorax:
    """The voxel grid of one thorax and the brushes that paint on it; later strokes cover earlier ones.

    Shapes are simple in *model* coordinates, which are those of the grid after a smooth random deformation; the heart
    has a frame of its own in them, turned, scaled and moved at random.
    """

    def __init__(self, rng: np.random.Generator, voxel_size: float):
        self.rng = rng
        self.voxel_size = voxel_size
        counts = [math.ceil((high - low) / voxel_size) for low, high in FIELD]
        axes = [low + voxel_size * (np.arange(n, dtype=np.float32) + 0.5) for (low, _), n in zip(FIELD, counts)]
        grid = np.meshgrid(*axes, indexing="ij")
        self.affine = np.diag([voxel_size] * 3 + [1.0])
        self.affine[:3, 3] = [axis[0] for axis in axes]
        self.body = [axis + WARP * smooth_field(rng, counts, voxel_size, WARP_SPACING) for axis in grid]
        turn = _rotation(rng.uniform(-12, 12, 3))
        size = rng.uniform(0.88, 1.12) * rng.uniform(0.94, 1.06, 3)
        moved = [axis - shift for axis, shift in zip(self.body, rng.normal((-8, 8, -5), 4))]
        self.heart = [sum(turn[i, j] * moved[j] for j in range(3)) / size[i] for i in range(3)]
        self.tissues = np.zeros(counts, np.uint8)

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        self._chest_wall()
        self._lungs()
        self._below_the_diaphragm()
        self._spine()
        self._mediastinum()
        self._heart()
        return self.tissues, self.affine

    # -- brushes -------------------------------------------------------------------------------------------------------

    def _paint(self, tissue: str, where: np.ndarray) -> None:
        self.tissues[where] = INDEX[tissue]

    def _ellipsoid(self, frame, centre, radii, thicker: float = 0.0) -> np.ndarray:
        """Return where an ellipsoid is, ``thicker`` mm larger on all sides."""
        return sum(((axis - c) / (r + thicker)) ** 2 for axis, c, r in zip(frame, centre, radii)) < 1

    def _tube(self, tissue: str, frame, points, radius: float) -> None:
        reach = radius + 1
        for start, end in itertools.pairwise(np.asarray(points, float)):
            low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach
            near = np.ones(self.tissues.shape, bool)
            for axis, a, b in zip(frame, low, high):
                near &= (axis > a) & (axis < b)
            position = np.stack([axis[near] for axis in frame], 1)
            along = np.clip((position - start) @ (end - start) / np.sum((end - start) ** 2), 0, 1)
            distance = np.linalg.norm(position - start - along[:, None] * (end - start), axis=1)
            index = np.flatnonzero(near.ravel())[distance < radius]
            self.tissues.reshape(-1)[index] = INDEX[tissue]

    # -- around the heart ----------------------------------------------------------------------------------------------

    def _chest_wall(self) -> None:
        x, y, z = self.body
        a, b = np.array(_CHEST) * self.rng.uniform(0.93, 1.02, 2)
        self.depth = (1 - np.hypot(x / a, y / b)) * b  # mm below the skin, about
        fat = self.rng.uniform(4, 16)
        self._paint("fat", self.depth > 0)
        self._paint("muscle", self.depth > fat)
        self.wall = fat + self.rng.uniform(16, 22)
        shell = (self.depth > self.wall - 10) & (self.depth < self.wall - 2)
        level = (z + 0.4 * y + self.rng.uniform(0, 24)) % 24.0  # ribs descend towards the front
        rib = shell & (level < 9)
        self._paint("rib", rib)
        self._paint("marrow", rib & (np.abs(level - 4.5) < 2.2) & (np.abs(self.depth - self.wall + 6) < 2))
        self._paint("cartilage", rib & (y > 0.62 * b))
        sternum = shell & (np.abs(x) < 16) & (y > 0)
        self._paint("rib", sternum)
        self._paint("marrow", sternum & (np.abs(x) < 12) & (np.abs(self.depth - self.wall + 6) < 2.5))

    def _lungs(self) -> None:
        x, y, _ = self.body
        inside = self.depth > self.wall
        self._paint("fat", inside)
        lungs = inside & (np.abs(x + 4) > 14 + 0.15 * np.abs(y)) & (y > -92)
        self._paint("lung", lungs)
        for side in (-1, 1):
            for _ in range(24):
                outwards = np.array((side, 1, 1))
                start = outwards * (self.rng.uniform(35, 60), self.rng.uniform(-40, 20), self.rng.uniform(-20, 50))
                middle = start + outwards * (self.rng.uniform(10, 25), *self.rng.normal(0, 15, 2))
                end = middle + outwards * (self.rng.uniform(5, 25), *self.rng.normal(0, 22, 2))
                tissue = ("arteries", "veins")[self.rng.integers(2)]
                self._tube(tissue, self.body, (start, middle, end), self.rng.uniform(1.4, 3.2))

    def _below_the_diaphragm(self) -> None:
        x, y, z = self.body
        inside = self.depth > self.wall - 1
        for tissue, centre, height in (("stomach", -70, -62), ("liver", 55, -50)):
            top = height + self.rng.normal(0, 4) - ((x - centre) ** 2 + y**2) / 260.0
            self._paint(tissue, inside & (z < top))
        self._paint("liver", inside & (z < -84))

    def _spine(self) -> None:
        x, y, z = self.body
        behind = -62 + self.rng.normal(0, 2)
        across = np.hypot(x, y - behind)
        level = (z + self.rng.uniform(0, 26)) % 26.0
        self._paint("muscle", (np.hypot(x / 1.8, y - behind + 16) < 24) & (self.depth > 6))
        self._paint("rib", (np.abs(x) < 22) & (np.abs(y - behind + 22) < 7) & (level > 8) & (self.depth > 5))
        self._paint("rib", across < 17)
        self._paint("marrow", (across < 14.5) & (np.abs(level - 13) < 9.5))
        self._paint("cartilage", (across < 17) & (np.abs(level - 13) > 11.5))
        self._paint("cord", np.hypot(x, y - behind + 20) < 6)

    def _mediastinum(self) -> None:
        self._paint("fat", self._ellipsoid(self.body, (-4, 6, 40), (34, 62, 70)) & (self.depth > self.wall))
        self._tube("oesophagus", self.body, ((0, -42, 100), (-4, -40, 0), (-10, -36, -100)), 6.0)
        for points, radius in (
            (((2, -30, 110), (2, -34, 56)), 8.5),
            (((2, -34, 56), (34, -38, 34), (60, -40, 10)), 5.5),
            (((2, -34, 56), (-36, -38, 32), (-62, -40, 8)), 5.5),
        ):
            self._tube("cartilage", self.body, points, radius + 1.8)
            self._tube("airway", self.body, points, radius)

    # -- the heart -----------------------------------------------------------------------------------------------------

    def _heart(self) -> None:
        rng = self.rng
        right = np.array((0.8, 0.6, 0.0)) - _AXIS * (_AXIS @ (0.8, 0.6, 0.0))
        right /= np.linalg.norm(right)
        axes = np.stack([_AXIS, right, np.cross(_AXIS, right)])
        offset = [axis - c for axis, c in zip(self.heart, _LEFT_VENTRICLE)]
        long, across, high = frame = [sum(row[j] * offset[j] for j in range(3)) for row in axes]
        ventricles = long > _BASE
        radius = rng.uniform(19, 24)
        cavity = (0, 0, 0), (rng.uniform(40, 48), radius, radius)
        thickness = rng.uniform(7.5, 11.5)
        right_cavity = (-3, rng.uniform(22, 27), 0), (rng.uniform(40, 46), rng.uniform(26, 31), rng.uniform(31, 37))
        atria = {
            "right atrium": ((30, 6, 4), np.array((21, 25, 27)) * rng.uniform(0.88, 1.12, 3)),
            "left atrium": ((-6, -30, 14), np.array((32, 19, 22)) * rng.uniform(0.88, 1.12, 3)),
        }
        # Fat within the pericardium, then everything from the outside in.
        pericardium = self._ellipsoid(frame, *right_cavity, 9) | self._ellipsoid(frame, *cavity, thickness + 5)
        for centre, radii in atria.values():
            pericardium |= self._ellipsoid(self.heart, centre, radii, 5)
        self._paint("fat", pericardium)
        self._paint("wall", self._ellipsoid(frame, *right_cavity, 3.5) & ventricles)
        for centre, radii in atria.values():
            self._paint("wall", self._ellipsoid(self.heart, centre, radii, 2.5))
        vessels = [v for v in _VESSELS if v[0] in ("veins", "arteries")]
        for tissue, points, width in vessels:
            self._tube(tissue, self.heart, points, width * rng.uniform(0.9, 1.1))
        for name, (centre, radii) in atria.items():
            self._paint(name, self._ellipsoid(self.heart, centre, radii))
        for tissue, points, width in _VESSELS[len(vessels) :]:
            self._tube(tissue, self.heart, points, width * rng.uniform(0.92, 1.1))
        chamber = self._ellipsoid(frame, *right_cavity) & ventricles
        self._paint("right ventricle", chamber)
        for centre in ((8, 34), (20, 26)):
            trabecula = np.hypot(across - centre[1], high - rng.normal(0, 8)) < rng.uniform(2.5, 4)
            self._paint("papillary right", chamber & trabecula & (long > centre[0]))
        self._paint("myocardium", self._ellipsoid(frame, *cavity, thickness) & ventricles)
        chamber = self._ellipsoid(frame, *cavity) & ventricles
        self._paint("left ventricle", chamber)
        for side in (-1, 1):
            muscle = np.hypot(across + 5, high - side * rng.uniform(9, 13)) < rng.uniform(3.5, 5)
            self._paint("papillary left", chamber & muscle & (long > rng.uniform(-6, 4)))


def _rotation(degrees: Sequence[float]) -> np.ndarray:
    """Return the 3 x 3 matrix of rotations about x, y and z."""
    (sx, cx), (sy, cy), (sz, cz) = ((math.sin(a), math.cos(a)) for a in np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z
