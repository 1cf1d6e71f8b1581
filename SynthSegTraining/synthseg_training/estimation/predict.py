"""Estimation: from a scan to its quantitative maps, by overlapping windows at 1 mm."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from synthseg_slicer.conform import conform, crop_to_head, standardise
from synthseg_slicer.errors import OptionError, WeightsError
from synthseg_slicer.files import reason
from synthseg_slicer.scan import READ_SUFFIXES, Scan, read_scan
from synthseg_slicer.windows import OVERLAP, gaussian_weight, window_starts

from ..physics import QuantitativeMaps, save_maps
from ..physics.maps import HIGHEST_ASSUMED_R2, R2_OVER_R2S
from .network import MAPS, EstimatorUNet

LEAST_WINDOW = 128
"""Edge of a window in voxels, also for networks trained on smaller crops: instance norm wants the view of a head. The
small recipe's network, trained on 64, errs less with 128 than with 64 in all maps (PD 17 instead of 20 %, MT 25 instead
of 28 %, six simulated scans)."""


@dataclass(frozen=True, eq=False)
class Estimator:
    """A trained estimator.

    Attributes
    ----------
    network : EstimatorUNet
        In evaluation mode.
    window : int
        Edge in voxels of the crops it was trained on.
    voxel_size : float
        In mm.
    """

    network: EstimatorUNet
    window: int
    voxel_size: float = 1.0


def load_estimator(path: str | os.PathLike, device: torch.device | str = "cpu") -> Estimator:
    """Read ``estimator.pt``, see :func:`~.training.fit_estimator`.

    Raises
    ------
    WeightsError
        The file is missing, damaged or no estimator.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        options = content["estimator"]
        network = EstimatorUNet(**options["network"])
        network.load_state_dict({name: value.float() for name, value in content["state"].items()})
    except Exception as error:  # whatever torch and pickle make of a damaged or foreign file
        raise WeightsError(
            f"{path}: is no estimator of maps ({reason(error)}). Give the estimator.pt that 'synthseg-train "
            "fit-estimator' wrote."
        ) from error
    return Estimator(network.eval().to(device), int(options["crop"]), float(options["voxel_size"]))


def estimate(
    scan: Scan,
    estimator: Estimator,
    *,
    window: int | None = None,
    overlap: float = OVERLAP,
    progress: Callable[[float], None] | None = None,
) -> tuple[QuantitativeMaps, np.ndarray]:
    """Estimate the quantitative maps of an MPRAGE scan.

    R2 follows from R2* as :func:`synthseg_training.physics.load_maps` has it. Air around the head is 0 in all maps.

    Parameters
    ----------
    scan : Scan
        T1-weighted; other contrasts give maps without meaning.
    estimator : Estimator
        See :func:`load_estimator`; it runs where its network is.
    window, overlap, progress
        See :func:`window_maps`.

    Returns
    -------
    maps : QuantitativeMaps
        float32, in RAS+ order at the estimator's voxel size, on the CPU; at the field strength of the scan.
    affine : ndarray
        4x4, voxel index to RAS+ world in mm.
    """
    conformed = conform(scan, ct=False, voxel_size=estimator.voxel_size)
    head = crop_to_head(conformed.image)
    image = standardise(torch.from_numpy(conformed.image[head].copy()))
    whole = torch.zeros(len(MAPS), *conformed.image.shape)
    whole[(slice(None), *head)] = window_maps(estimator, image, window=window, overlap=overlap, progress=progress)
    maps = dict(zip(MAPS, whole))
    r2 = (maps["r2s"] * R2_OVER_R2S).clamp_(max=HIGHEST_ASSUMED_R2)
    return QuantitativeMaps(r2=r2, **maps), conformed.affine


@torch.no_grad()
def window_maps(
    estimator: Estimator,
    image: Tensor,
    *,
    window: int | None = None,
    overlap: float = OVERLAP,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Return the maps of a standardised image, those of overlapping windows averaged with Gaussian weights.

    Parameters
    ----------
    estimator : Estimator
    image : Tensor
        float32 ``[x, y, z]``.
    window : int, optional
        Edge of the windows in voxels, a multiple of ``estimator.network.multiple``; by default that of training, at
        least :data:`LEAST_WINDOW`. Windows never exceed the image by more than rounding.
    overlap : float
        Share of a window that its neighbour covers too.
    progress : callable, optional
        Called with the fraction done.

    Returns
    -------
    Tensor
        float32 ``[4, x, y, z]`` on the CPU, see :data:`~.network.MAPS`.
    """
    network, window = estimator.network, window or max(estimator.window, LEAST_WINDOW)
    if window % network.multiple or window < 2 * network.multiple:
        raise OptionError(f"The window is {window} voxels; it must be a multiple of {network.multiple}, two or more.")
    if not 0 <= overlap < 1:
        raise OptionError(f"The overlap of windows is {overlap}; it must lie in [0, 1).")
    shape, multiple = image.shape, network.multiple
    edges = [min(window, max(2 * multiple, math.ceil(extent / multiple) * multiple)) for extent in shape]
    # what is smaller than its window is continued by air
    missing = [n for extent, edge in zip(shape[::-1], edges[::-1]) for n in (0, max(0, edge - extent))]
    image = F.pad(image, missing, value=float(image.min()))
    device = next(network.parameters()).device
    total, weights = torch.zeros(len(MAPS), *image.shape), torch.zeros(image.shape)
    weight = gaussian_weight(tuple(edges))
    corners = list(product(*(window_starts(n, edge, overlap) for n, edge in zip(image.shape, edges))))
    for done, corner in enumerate(corners):
        if progress:
            progress(done / len(corners))
        box = tuple(slice(start, start + edge) for start, edge in zip(corner, edges))
        total[(slice(None), *box)] += network(image[box][None, None].to(device))[0].cpu() * weight
        weights[box] += weight
    return (total / weights)[(slice(None), *(slice(0, extent) for extent in shape))]


def estimate_file(path: str | os.PathLike, estimator: Estimator, folder: str | os.PathLike, **options) -> list[Path]:
    """Estimate the maps of one scan file and write them, named after BIDS (:func:`map_name`).

    ``options`` are those of :func:`estimate`.

    Returns
    -------
    list of Path
        The five files, see :func:`synthseg_training.physics.save_maps`.
    """
    maps, affine = estimate(read_scan(path), estimator, **options)
    return save_maps(maps, folder, map_name(path), affine)


def map_name(path: str | os.PathLike) -> str:
    """Return how the names of a scan's maps begin: its file name without suffix and without ``_T1w`` or ``_image``.

    >>> map_name("sub-01_ses-1_T1w.nii.gz")
    'sub-01_ses-1'
    """
    name = Path(path).name
    suffix = next((one for one in READ_SUFFIXES if name.lower().endswith(one)), "")
    return re.sub(r"_(T1w|image)$", "", name[: len(name) - len(suffix)])
