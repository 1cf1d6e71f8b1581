"""Heads with a lesion, and a network that finds it."""

from __future__ import annotations

import numpy as np
import torch
from synthetic import ball

from synthseg_slicer.labels import LESION_ID, STROKE
from synthseg_slicer.scan import Scan


class Bright(torch.nn.Module):
    """A network that one can foresee: the brighter a voxel, the more it is lesion; head is grey matter."""

    multiple, n_labels = 4, len(STROKE)

    def __init__(self, level: float = 1.0):
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(level))

    def forward(self, image):
        logits = torch.full((1, self.n_labels, *image.shape[2:]), -20.0)
        ids = [label.id for label in STROKE]
        logits[:, ids.index(LESION_ID)] = 40 * (image[:, 0] - self.level)
        logits[:, 0] = 0
        return logits


def head(centre=(20, 14, 20), radius=6.0, affine=None, shape=(40, 36, 40)) -> Scan:
    """A grey ball with a bright one in it."""
    data = ball(shape, 15.0)
    data[truth(centre, radius, shape)] += 300
    return Scan(data, np.eye(4) if affine is None else affine)


def truth(centre=(20, 14, 20), radius=6.0, shape=(40, 36, 40)) -> np.ndarray:
    """Where the bright ball is."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return np.linalg.norm(grid - np.array(centre), axis=-1) < radius


def overlap(a, b) -> float:
    """Dice."""
    return 2 * np.sum(a & b) / (np.sum(a) + np.sum(b))


def egg(affine, shape, moved=None, lesion=True) -> tuple[Scan, np.ndarray]:
    """Return an egg with spots and, if asked for, a bright ball, sampled on a grid, and where the ball is.

    ``moved`` [4, 4] is where the head lies: from the egg's own mm to world mm.
    """
    index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)], -1)
    own = (index @ (np.linalg.inv(np.eye(4) if moved is None else moved) @ affine).T)[..., :3]
    image = 60.0 * (((own / (26, 32, 24)) ** 2).sum(-1) < 1)
    for centre, radius, value in (((9, 6, 4), 7, 25), ((-11, 12, -6), 6, -25), ((2, 20, 6), 6, -30)):
        image += value * (np.linalg.norm(own - centre, axis=-1) < radius)
    inside = np.linalg.norm(own - (-12, -14, 6), axis=-1) < 8
    image += 200 * (inside & lesion)
    noise = np.random.default_rng(0).normal(0, 2, shape)
    return Scan((10 + image + noise).astype(np.float32), affine), inside


def centred(spacing, shape) -> np.ndarray:
    """Return the affine of a grid with its middle at the origin of the world."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
    return affine
