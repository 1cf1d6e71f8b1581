"""From a scan as it was taken to the grid and intensities the network knows, and back.

Axes are permuted and flipped to the nearest RAS+ order, never rotated, so an oblique scan stays oblique and no voxel is
interpolated for it. Then each axis is resampled to 1 mm and intensities are scaled to [0, 1]. The affine follows every
step exactly.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from .errors import ScanError, ScanWarning

if TYPE_CHECKING:
    from .scan import Scan

SPACING_TOLERANCE = 0.05
"""An axis whose voxel size is this close to the target keeps its spacing (0.95-1.05 mm, as in SynthSeg's code)."""
ANTIALIAS_SIGMA = 0.25
"""Gaussian before downsampling, in target voxels, as in SynthSeg's code; linear interpolation adds its own blur."""
PERCENTILES = (0.5, 99.5)
"""Mapped to 0 and 1; from SynthSeg's code (the paper says 1 and 99). Taken over all voxels, background included."""
CT_WINDOW_HU = (0.0, 80.0)
"""Hounsfield units that CT is clipped to: cerebrospinal fluid to blood, without air, fat and bone (SynthSeg)."""
HEAD_MARGIN = 16
"""Voxels kept around the head by :func:`crop_to_head`, several times the thickness of dark scalp, skull or CSF."""

HEAD_MEAN, HEAD_SPREAD = 0.45, 0.22
"""Mean and standard deviation of a standardised head: those of an ordinary T1 scan in [0, 1], to two digits."""
HEAD_LEAST = 0.05
"""Darkest intensity, in [0, 1], that counts as head for :func:`standardise`."""

_CT_SAMPLES = 1_000_000


@dataclass(frozen=True, eq=False)
class Conformed:
    """A scan on the network's grid.

    Attributes
    ----------
    image : numpy.ndarray
        float32 ``[x, y, z]`` in [0, 1], axes in RAS+ order.
    affine : numpy.ndarray
        4x4 float64, voxel index of ``image`` to RAS+ world in mm.
    source : Scan
        The scan it came from.
    is_ct : bool
        Whether intensities were clipped as CT.
    """

    image: np.ndarray
    affine: np.ndarray
    source: Scan
    is_ct: bool


def conform(
    scan: Scan, *, ct: bool | None = None, voxel_size: float = 1.0, ct_window: tuple[float, float] = CT_WINDOW_HU
) -> Conformed:
    """Bring a scan to RAS+ axis order, 1 mm voxels and intensities in [0, 1].

    Parameters
    ----------
    scan : Scan
    ct : bool, optional
        Whether intensities are Hounsfield units, to be clipped; by default :func:`looks_like_ct` decides.
    voxel_size : float
        Target voxel size in mm.
    ct_window : tuple of float
        Hounsfield units that CT is clipped to.

    Returns
    -------
    Conformed

    Raises
    ------
    ScanError
        ``ct`` was asked for, but the values are no Hounsfield units; or no contrast is left after clipping.
    """
    name = scan.name
    is_ct = looks_like_ct(scan.data) if ct is None else ct
    if ct and not looks_like_ct(scan.data) and looks_like_ct(scan.data, offset=1024):
        raise ScanError(
            f"{name}: treated as CT, but the values look like Hounsfield units plus 1024. Subtract 1024, or set the "
            "rescale intercept in the header."
        )
    data, affine = reorient(scan.data, scan.affine)
    image = np.array(data, dtype=np.float32, order="C")  # a copy, for what follows works in place
    if is_ct:  # before resampling, so that bone and air do not bleed into the brain
        low, high = ct_window
        if np.count_nonzero(image > high) > np.count_nonzero((image > low) & (image <= high)):
            warnings.warn(
                f"{name}: treated as CT, but most of it lies above {high:g} HU and was cut off. If these "
                "are no Hounsfield units, do not ask for CT.",
                ScanWarning,
                stacklevel=2,
            )
        np.clip(image, low, high, out=image)
    image, affine = resample(image, affine, voxel_size)
    low, high = np.percentile(image, PERCENTILES)
    if not low < high:  # nearly everything is background: a small stripped brain in a large field of view
        low, high = float(image.min()), float(image.max())
    if not low < high:
        if is_ct:
            raise ScanError(
                f"{name}: treated as CT, no contrast between {ct_window[0]:g} and {ct_window[1]:g} HU. If "
                "this is no CT, do not ask for CT; else export it in Hounsfield units."
            )
        raise ScanError(f"{name}: no contrast is left at {voxel_size:g} mm. Export the scan again.")
    image -= np.float32(low)
    image /= np.float32(high - low)
    np.clip(image, 0, 1, out=image)
    return Conformed(image, affine, scan, bool(is_ct))


def standardise(image: torch.Tensor) -> torch.Tensor:
    """Return a conformed image with its head at mean :data:`HEAD_MEAN` and standard deviation :data:`HEAD_SPREAD`.

    The z-score of Chalcroft et al. 2024 after histogram normalisation, taken over the head (values above
    :data:`HEAD_LEAST`) so that the amount of air around it does not matter, and scaled so that values stay near the
    range [0, 1] that the brain networks know. An image without head is returned as it is.

    Parameters
    ----------
    image : Tensor
        float32 ``[x, y, z]``, from :func:`conform`.
    """
    head = image[image > HEAD_LEAST]
    if len(head) < 2:
        return image
    spread, mean = torch.std_mean(head)
    return (image - mean) * (HEAD_SPREAD / spread.clamp_min(1e-3)) + HEAD_MEAN


def looks_like_ct(data: np.ndarray, offset: float = 0.0) -> bool:
    """Tell Hounsfield units from MR intensities by the histogram of a head CT.

    True if at least 1 % of the voxels are air (below -500 HU), at least 0.1 % bone (above 300 HU), at least 1 % brain
    (0 to 80 HU), and brain outweighs both what lies between air and fat (-500 to -200 HU, partial volume only) and what
    lies between brain and bone (100 to 300 HU). MR images with an intensity offset spread over all of these. A
    skull-stripped CT with zeros around it cannot be told from MR: say ``ct=True``.

    Parameters
    ----------
    data : numpy.ndarray
        Any shape; about a million evenly strided voxels are looked at.
    offset : float
        Subtracted first, for values that were shifted to be unsigned.

    Returns
    -------
    bool
    """
    step = max(1, round((data.size / _CT_SAMPLES) ** (1 / data.ndim)))
    values = data[(slice(None, None, step),) * data.ndim].astype(np.float32) - offset

    def share(low: float, high: float) -> float:
        return np.count_nonzero((values >= low) & (values <= high)) / values.size

    brain = share(*CT_WINDOW_HU)
    return (
        share(-np.inf, -500) >= 0.01
        and share(300, np.inf) >= 0.001
        and brain >= 0.01
        and brain > share(-500, -200)
        and brain > share(100, 300)
    )


def reorient(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Permute and flip axes to the order nearest to RAS+.

    Of the six permutations the one whose axes point most along right, anterior and superior in total is taken.

    Parameters
    ----------
    data : numpy.ndarray
        ``[i, j, k]``.
    affine : numpy.ndarray
        4x4, voxel index to RAS+ world in mm.

    Returns
    -------
    data : numpy.ndarray
        ``[x, y, z]``, a view.
    affine : numpy.ndarray
        4x4 affine of the view; every voxel keeps its world position.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    order = max(permutations(range(3)), key=lambda p: sum(abs(axes[world, axis]) for world, axis in enumerate(p)))
    signs = np.array([1 if axes[world, axis] >= 0 else -1 for world, axis in enumerate(order)])
    to_old = np.zeros((4, 4))  # new voxel index to old voxel index
    to_old[3, 3] = 1
    for new, (old, sign) in enumerate(zip(order, signs)):
        to_old[old, new] = sign
        to_old[old, 3] = 0 if sign > 0 else data.shape[old] - 1
    flips = tuple(slice(None, None, int(sign)) for sign in signs)
    return data.transpose(order)[flips], affine @ to_old


def resample(image: np.ndarray, affine: np.ndarray, voxel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Resample each axis linearly to a voxel size; axes within :data:`SPACING_TOLERANCE` of it are left alone.

    An axis of n voxels of v mm becomes ceil(n v / t) voxels of t mm about the same centre, so that the field of view is
    covered, grows by less than half a voxel at each end, and mirroring commutes with resampling. Positions beyond the
    outer voxel centres take the outer value. Before downsampling a Gaussian of :data:`ANTIALIAS_SIGMA` target voxels is
    applied.

    Parameters
    ----------
    image : numpy.ndarray
        ``[x, y, z]``.
    affine : numpy.ndarray
        4x4, voxel index to world in mm.
    voxel_size : float
        Target t in mm.

    Returns
    -------
    image : numpy.ndarray
        float32, C-contiguous.
    affine : numpy.ndarray
        Affine of the new grid.
    """
    image = np.ascontiguousarray(image, dtype=np.float32)
    affine = affine.copy()
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    ratios = voxel_size / sizes
    for axis in np.argsort(-ratios):  # shrink first, it leaves less to do
        ratio, old = ratios[axis], image.shape[axis]
        if abs(sizes[axis] / voxel_size - 1) <= SPACING_TOLERANCE + 1e-6:  # headers round to single precision
            continue
        new = max(1, int(np.ceil(old / ratio - 1e-3)))
        centres = (np.arange(new) - (new - 1) / 2) * ratio + (old - 1) / 2  # in old voxels
        image = _along(image, _weights(centres, old, ANTIALIAS_SIGMA * ratio if ratio > 1 else 0.0), axis)
        affine[:3, 3] += affine[:3, axis] * centres[0]
        affine[:3, axis] *= ratio
    return image, affine


def smooth(image: np.ndarray, sigma: float | Sequence[float]) -> np.ndarray:
    """Return ``[x, y, z]`` smoothed by a Gaussian of ``sigma`` voxels, the border voxels repeated beyond the border.

    ``sigma`` is one number or one an axis; 0 leaves an axis as it is.
    """
    image = np.ascontiguousarray(image, dtype=np.float32)
    for axis, along in enumerate(np.broadcast_to(sigma, 3)):
        if along:
            n = image.shape[axis]
            image = _along(image, _weights(np.arange(n, dtype=float), n, float(along)), axis)
    return image


def pad_to_multiple(array: np.ndarray, multiple: int) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
    """Pad with zeros on both sides of each axis up to a multiple.

    Padding commutes with mirroring wherever an even number of voxels is missing; of an odd number the larger half goes
    to the end.

    Parameters
    ----------
    array : numpy.ndarray
        ``[x, y, z]``.
    multiple : int
        Of which each side of the result is a multiple.

    Returns
    -------
    padded : numpy.ndarray
        The array itself if nothing is missing.
    slices : tuple of slice
        ``padded[slices]`` is the array.
    """
    missing = [-n % multiple for n in array.shape]
    slices = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, array.shape))
    if not any(missing):
        return array, slices
    return np.pad(array, [(m // 2, m - m // 2) for m in missing]), slices


def crop_to_head(image: np.ndarray, margin: int = HEAD_MARGIN) -> tuple[slice, slice, slice]:
    """Return the box around everything that is not dark air, so that the network is not run on empty margins.

    Built to err towards a larger box. The image is averaged in blocks of four voxels, which tames noise; air is judged
    from the darker quarter of the blocks on the six faces of the image; whatever rises above it by more than 0.03 plus
    five times its quartile spread counts as head, ghosts and table included. Where the faces are not dark (above 0.1),
    the whole image is returned.

    Parameters
    ----------
    image : numpy.ndarray
        float32 ``[x, y, z]`` in [0, 1], as from :func:`conform`.
    margin : int
        Voxels added on every side.

    Returns
    -------
    tuple of slice
        ``image[slices]`` is the box; :func:`crop_affine` gives its affine and :func:`uncrop` carries results back.
    """
    whole = tuple(slice(0, n) for n in image.shape)
    if min(image.shape) < 8:
        return whole
    # blocks of 4 voxels, of 5 along odd axes, and pads that leave no remainder: the same box for the mirrored image
    kernel = [4 + n % 2 for n in image.shape]
    pad = [(n - k) % 4 // 2 for n, k in zip(image.shape, kernel)]
    volume = torch.from_numpy(np.ascontiguousarray(image))[None]
    blocks = F.avg_pool3d(volume, kernel, stride=4, padding=pad, count_include_pad=False)[0].numpy()
    inner = np.zeros(blocks.shape, dtype=bool)
    inner[1:-1, 1:-1, 1:-1] = True
    dark, air = np.percentile(blocks[~inner], (5, 25))
    threshold = air + 0.03 + 5 * (air - dark)
    head = blocks > threshold
    if air > 0.1 or not head.any():
        return whole
    slices = []
    for axis, n in enumerate(image.shape):
        found = np.flatnonzero(head.any(axis=tuple(other for other in range(3) if other != axis)))
        start = 4 * found[0] - pad[axis] - margin
        stop = 4 * found[-1] - pad[axis] + kernel[axis] + margin
        slices.append(slice(max(0, int(start)), min(n, int(stop))))
    return tuple(slices)


def crop_affine(affine: np.ndarray, slices: tuple[slice, slice, slice]) -> np.ndarray:
    """Return the affine of ``array[slices]`` given that of ``array``."""
    cropped = affine.copy()
    cropped[:3, 3] += affine[:3, :3] @ [s.start for s in slices]
    return cropped


def uncrop(array: np.ndarray, slices: tuple[slice, slice, slice], shape: tuple[int, ...]) -> np.ndarray:
    """Put a cropped array back into zeros of the full grid.

    Parameters
    ----------
    array : numpy.ndarray
        ``[..., x, y, z]`` on the grid of ``full[slices]``; leading axes (labels) are kept.
    slices : tuple of slice
        From :func:`crop_to_head`.
    shape : tuple of int
        ``x, y, z`` of the full grid.

    Returns
    -------
    numpy.ndarray
        ``[..., *shape]``, the array itself if the crop is the full grid.
    """
    if array.shape[-3:] == tuple(shape):
        return array
    full = np.zeros((*array.shape[:-3], *shape), dtype=array.dtype)
    full[(..., *slices)] = array
    return full


def _weights(centres: np.ndarray, n: int, sigma: float) -> np.ndarray:
    """Return ``[len(centres), n]`` weights: linear interpolation at ``centres`` after a Gaussian of ``sigma`` voxels.

    Rows sum to one; positions outside the voxel centres, and the filter beyond the ends, repeat the outer voxel.
    """
    reach = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2) if reach else np.ones(1)
    kernel /= kernel.sum()
    low = np.floor(centres).astype(int)
    fraction = centres - low
    weights = np.zeros((len(centres), n))
    rows = np.arange(len(centres))
    for offset, weight in zip(range(-reach, reach + 1), kernel):
        np.add.at(weights, (rows, np.clip(low + offset, 0, n - 1)), weight * (1 - fraction))
        np.add.at(weights, (rows, np.clip(low + offset + 1, 0, n - 1)), weight * fraction)
    return weights.astype(np.float32)


def _along(image: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Multiply one axis of ``[x, y, z]`` by ``weights [new, old]``.

    With torch, because numpy's many small products along y crawl when its threads have to share the cores.
    """
    x, y, z = image.shape
    volume, matrix = torch.from_numpy(image), torch.from_numpy(weights)
    if axis == 0:
        return (matrix @ volume.reshape(x, y * z)).reshape(-1, y, z).numpy()
    if axis == 1:
        return torch.matmul(matrix, volume).numpy()
    return (volume.reshape(x * y, z) @ matrix.T).reshape(x, y, -1).numpy()
