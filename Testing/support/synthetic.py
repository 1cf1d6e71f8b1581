"""Networks and images that tests make up."""

from __future__ import annotations

import numpy as np
import torch

from synthseg_slicer.labels import BRAIN
from synthseg_slicer.network import build

TINY = {"widths": (4, 8), "fine_width": 4}


def random_network(architecture: str = "fast", **options) -> torch.nn.Module:
    """Return a tiny network whose weights and normalisation statistics are random and whose logits vary a lot."""
    torch.manual_seed(0)
    network = build(architecture, **(options or TINY))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            for tensor, low, high in ((module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 2.0)):
                tensor.uniform_(low, high)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    for name, module in network.named_modules():
        if name.endswith("head"):
            torch.nn.init.normal_(module.weight, std=0.5)
            torch.nn.init.normal_(module.bias, std=0.5)
    return network.eval()


class Threshold(torch.nn.Module):
    """A network that one can foresee: bright voxels are brain stem, dark ones background."""

    multiple = 4

    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, image):
        ids = [label.id for label in BRAIN]
        logits = torch.full((1, len(ids), *image.shape[2:]), -20.0)
        logits[:, ids.index(16)] = 40 * (image[:, 0] - self.level)
        logits[:, 0] = 0
        return logits


def ball(shape=(32, 36, 40), radius=9.0, centre=None) -> np.ndarray:
    """Return a noisy bright ball on a dark background, float32."""
    centre = np.array(centre if centre is not None else [(n - 1) / 2 for n in shape])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    inside = np.linalg.norm(grid - centre, axis=-1) < radius
    noise = np.random.default_rng(0).normal(0, 2, shape)
    return (100 * inside + 10 + noise).astype(np.float32)


def rigid(angles, shift) -> np.ndarray:
    """Return the rigid transform [4, 4] that turns by angles in degrees about z, y and x in turn, then shifts by mm."""
    a, b, c = np.radians(angles)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = x @ y @ z, shift
    return matrix
