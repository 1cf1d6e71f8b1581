"""Logits by sliding windows and flips, for networks whose logits are averaged (the stroke-lesion task)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from .predict import SLAB, Pass, on_device

WINDOW = 192
"""Edge of a window in voxels (Chalcroft et al. 2024); a head fits into one or two."""
OVERLAP = 0.5
"""Share of a window that its neighbour covers too."""
WEIGHT_SIGMA = 0.125
"""Standard deviation of a window's Gaussian weight, in windows."""
FLIPS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((),),
    2: ((), (0,)),
    8: tuple(tuple(axis for axis, flipped in enumerate(which) if flipped) for which in product((0, 1), repeat=3)),
}
"""Number of passes to the axes that each of them mirrors."""


def window_starts(extent: int, window: int, overlap: float = OVERLAP) -> list[int]:
    """Return where windows begin along an axis, evenly spread, overlapping by at least the given share."""
    if extent <= window:
        return [0]
    count = 1 + int(np.ceil((extent - window) / (window * (1 - overlap))))
    return np.linspace(0, extent - window, count).round().astype(int).tolist()


def gaussian_weight(shape: tuple[int, ...], sigma: float = WEIGHT_SIGMA) -> Tensor:
    """Return a window's weight ``[x, y, z]``: a Gaussian about its centre, 1 there and nowhere 0."""
    weight = torch.ones(())
    for n in shape:
        position = (torch.arange(n) - (n - 1) / 2) / (sigma * n)
        weight = weight[..., None] * torch.exp(-0.5 * position.square())
    return weight.clamp_(min=1e-4)


@torch.no_grad()
def window_logits(
    network: nn.Module,
    image: np.ndarray,
    *,
    flips: int = 2,
    window: int = WINDOW,
    overlap: float = OVERLAP,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Return the mean logits over flips and overlapping windows.

    Parameters
    ----------
    network : nn.Module
        Maps ``[1, 1, X, Y, Z]`` to logits ``[1, classes, X, Y, Z]``; its classes have no side.
    image : float32 array [x, y, z]
        As the network wants it.
    flips : {1, 2, 8}
        Passes: as it is; mirrored along x too; all combinations of the three axes.
    window : int
        Edge of a window, a multiple of ``network.multiple``.
    overlap : float
        Share of a window that the next one covers too.
    device : torch.device or str
        Where the network runs; in half precision on CUDA.
    progress : callable, optional
        Called with the fraction done; an exception that it raises stops the work.

    Returns
    -------
    float32 array [classes, x, y, z]
    """
    network = on_device(network, torch.device(device))
    total, weights = np.zeros((network.n_labels, *image.shape), np.float32), np.zeros(image.shape, np.float32)
    boxes = list(_boxes(image.shape, window, overlap))
    for done, (box, axes) in enumerate(product(boxes, FLIPS[flips])):
        if progress:
            progress(done / (len(boxes) * len(FLIPS[flips])))
        logits = _logits(network, np.flip(image[box], axes)).flip([axis + 1 for axis in axes])
        weight = gaussian_weight(logits.shape[1:])
        total[(slice(None), *box)] += logits.mul_(weight).numpy()
        weights[box] += weight.numpy()
    total /= weights
    return total


def _boxes(shape: tuple[int, ...], window: int, overlap: float) -> Iterator[tuple[slice, ...]]:
    starts = (window_starts(n, window, overlap) for n in shape)
    for corner in product(*starts):
        yield tuple(slice(start, min(start + window, n)) for start, n in zip(corner, shape))


def _logits(network: nn.Module, image: np.ndarray) -> Tensor:
    """Return the logits ``[classes, x, y, z]`` of one window, on the CPU, made plane by plane."""
    one = Pass(image, False, network, list(range(network.n_labels)), lambda fraction: None)
    region = tuple(slice(0, n) for n in one.shape[1:])
    inside = tuple(slice(start, start + n) for start, n in zip(one.before[1:], image.shape[1:]))
    logits = torch.empty((network.n_labels, *image.shape))
    for start in range(0, len(image), SLAB):
        stop = min(start + SLAB, len(image))
        plane = one.open(start, stop, region)
        for x in range(start, stop):
            logits[:, x] = plane(x)[inside].permute(2, 0, 1)
    return logits
