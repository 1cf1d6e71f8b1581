"""What can be told before segmenting: does the header fit what it describes, and is that a head at all?

Nothing here refuses a scan. Each finding is one plain sentence about what looks wrong and one about what to do, and
becomes a warning of the result. The thresholds lie between what real head scans measure and what spoiled ones do
(``Testing/benchmarks/sanity.py``, docs/explanation/quality.md). A mirrored header cannot be told from the image: brains
are too symmetrical. Only contradictions inside a header can (:func:`.stored.contradicting_forms`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
import torch
from torch.nn import functional as F

from .errors import ScanWarning
from .labels import BRAIN, BRAIN_IDS, Label
from .measure import total_intracranial

if TYPE_CHECKING:
    from .scan import Scan

AXES = ("left-right", "back-front", "down-up")
"""What the axes of a conformed image are called."""

SLAB_MM = 80.0
"""Field of view along any axis below which part of an adult's brain must be missing: it is at least 100 mm high."""
LONGEST_VOXEL = 25.0
"""Ratio of the longest to the shortest side of a voxel above which the header is doubted; 0.4 x 0.4 x 7 mm has 18."""
BLOCK_MM = 8
"""Content is looked at in blocks of so many mm: skull and scalp, fluid and tissue then count as one."""
UNSTRUCTURED = 0.2
"""Share of the variance that is left in the blocks, below which an image without symmetry is noise: that has at most
0.05, the validation scans at least 0.72, with noise of 60 % of their range 0.09 but their symmetry."""
NO_BACKGROUND = 0.95
"""Share of the image that is foreground above which there is no background to tell a head's size from."""
SHORTEST_HEAD_MM = 110.0
"""A foreground shorter than this along all axes is too small. Validation scans have 160 to 232 mm, stripped or not."""
WIDEST_HEAD_MM, DEEPEST_HEAD_MM = 220.0, 280.0
"""A foreground wider (left-right) or deeper (front-back) than this is too large; validation scans: 176 and 232 mm."""
CROWN_MM = 150.0
"""Width and depth are taken over so much below the highest point: further down there may be shoulders."""
SYMMETRICAL = 0.93
"""Likeness to its mirror image above which a phantom is suspected if it holds along all axes; validation scans have at
most 0.85 along the least symmetrical axis."""
EXCHANGED = 0.08
"""So much more like its mirror image must a head be along another axis than left-right. In validation scans it is at
least 0.11 less so; in 160 synthetic heads, turned by up to 30 degrees about each axis, at most 0.06 more."""
LEAST_SYMMETRY = 0.6
"""Of an axis that may be called the left-right one; validation scans have at least 0.91, turned heads 0.71."""
SHOWN_NAMES = 4
"""Structures that are named of what weights know, where a scan shows none of it."""
_SMALL, _LARGE = np.radians([-6.0, 6.0]), np.radians([-24.0, -12.0, 12.0, 24.0])
MIRROR_SEARCH = (
    (0, np.arange(-4.0, 4.5, 0.5)),
    *((1, _LARGE), (2, _LARGE), (0, np.array([-1.0, -0.5, 0.5, 1.0]))),
    *((1, _SMALL), (2, _SMALL), (0, np.array([-0.25, 0.25]))),
)
"""Steps in which the mirror plane is sought: its shift from the centre of mass in blocks (0), its tilts in radians."""

SMALLEST_BRAIN_MM3, LARGEST_BRAIN_MM3 = 7e5, 2.3e6
"""Intracranial volumes that no grown person has; those of healthy adults lie between 1.0 and 2.0 litres."""
USUAL_BRAIN_MM3 = 1.45e6


@dataclass(frozen=True)
class Content:
    """What a conformed image shows, measured in blocks of :data:`BLOCK_MM`.

    Attributes
    ----------
    structure : float
        Variance of the blocks over variance of the voxels: 1 for large smooth things, 1/512 for noise.
    fill : float
        Share of the blocks that belong to the foreground, which is the largest connected bright object.
    extent : tuple of float
        Of the foreground along the three axes in mm; width and depth over the :data:`CROWN_MM` below its top.
    symmetry : tuple of float
        Correlation of the foreground with its mirror image along each axis, about the plane that makes it highest.
    """

    structure: float
    fill: float
    extent: tuple[float, float, float]
    symmetry: tuple[float, float, float]

    @property
    def sideways(self) -> int | None:
        """The axis along which the content is most like its mirror image; None if it is not along any."""
        axis = int(np.argmax(self.symmetry))
        return axis if self.symmetry[axis] >= LEAST_SYMMETRY else None


def look(image: np.ndarray, voxel_size: float = 1.0) -> Content:
    """Measure what a conformed image shows, in about 0.1 s for any size.

    Parameters
    ----------
    image : float32 array [x, y, z]
        In [0, 1], axes in RAS+ order.
    voxel_size : float
        Of the image in mm.
    """
    voxels = max(1, round(BLOCK_MM / voxel_size))
    edge = voxels * voxel_size  # of a block in mm
    block = [min(voxels, n) for n in image.shape]
    volume = torch.from_numpy(np.ascontiguousarray(image))[None]
    blocks = F.avg_pool3d(volume, block, ceil_mode=True, count_include_pad=False)[0].numpy()
    variance = float(image[::3, ::3, ::3].var())
    inside = _largest(blocks > 0.6 * _otsu(blocks))  # 0.6: dark tissue is nearer to air than to bright tissue
    boxes = _box(inside)
    crown = max(boxes[2].start, boxes[2].stop - round(CROWN_MM / edge))
    wide, deep, _ = _box(inside[:, :, crown : boxes[2].stop])
    extent = tuple(float(edge * (box.stop - box.start)) for box in (wide, deep, boxes[2]))
    shown = (blocks * inside)[boxes]
    symmetry = tuple(_symmetry(shown, axis) for axis in range(3))
    return Content(float(blocks.var()) / max(variance, 1e-12), float(inside.mean()), extent, symmetry)


def check(scan: Scan, image: np.ndarray, voxel_size: float = 1.0) -> Content:
    """Give a :class:`.ScanWarning` for each thing that looks wrong with a scan before it is segmented.

    Parameters
    ----------
    scan : Scan
    image : float32 array [x, y, z]
        The scan conformed.
    voxel_size : float
        Of the image in mm.
    """
    content = look(image, voxel_size)
    for message in header_findings(scan) + content_findings(content):
        warnings.warn(f"{scan.name}: {message}", ScanWarning, stacklevel=3)
    return content


def header_findings(scan: Scan) -> list[str]:
    """Return what looks wrong with the header alone."""
    found = []
    size = np.array(scan.voxel_size)
    world = np.abs(scan.affine[:3, :3] / size).argmax(axis=0)
    extent = size * scan.shape
    shortest = int(extent.argmin())
    if extent[shortest] < SLAB_MM:
        found.append(
            f"The field of view is only {extent[shortest]:.0f} mm along the {AXES[world[shortest]]} axis: a slab, in "
            "which part of the brain is missing. Give a scan of the whole head; if this is one, correct the slice "
            "thickness or voxel size in its header."
        )
    if size.max() > LONGEST_VOXEL * size.min():
        found.append(
            f"Voxels are {size.max() / size.min():.0f} times as long as wide ({' x '.join(f'{s:.3g}' for s in size)} "
            "mm). Check the slice thickness in the header."
        )
    linear = scan.affine[:3, :3]
    if not scan.affine[:3, 3].any() and np.array_equal(linear, np.diag(np.diag(linear))):
        found.append(
            "The header holds no position (origin 0, straight axes), as after a conversion that lost it. Left and "
            "right then cannot be relied on: convert the scan again from the original, or check a side that you know."
        )
    return found


def content_findings(content: Content) -> list[str]:
    """Return what looks wrong with what the image shows."""
    if reason := no_head(content):
        return [reason]
    if exchanged(content):
        return [
            f"The head is symmetrical along the axis that the header calls {AXES[content.sideways]}, not along "
            "left-right: the axes are probably exchanged. Correct the header's orientation, or convert the scan again "
            "from the original."
        ]
    return []


def exchanged(content: Content) -> bool:
    """Tell whether the head is symmetrical along another axis than the one that the header calls left-right."""
    sideways = content.sideways
    return bool(sideways) and content.symmetry[sideways] > content.symmetry[0] + EXCHANGED


def no_head(content: Content) -> str | None:
    """Return why the content can hardly be a head, however its axes lie; None if it might be one."""
    extent = content.extent
    shown = f"What the image shows measures {extent[0]:.0f} x {extent[1]:.0f} x {extent[2]:.0f} mm ({', '.join(AXES)})"
    if content.structure < UNSTRUCTURED and content.sideways is None:
        return "The image is noise, or empty but for a few voxels. Export the scan again."
    if max(extent) < SHORTEST_HEAD_MM:
        return f"{shown}, too little for a head. If it is one, the voxel size in the header is too small: correct it."
    if min(content.symmetry) > SYMMETRICAL:
        return (
            "What the image shows is symmetrical along all axes, as a phantom is and a head is not. Give a scan of a "
            "head."
        )
    if exchanged(content) or content.fill > NO_BACKGROUND:
        return None  # which extent is the width, or how large it all is, cannot be told
    if extent[0] > WIDEST_HEAD_MM or extent[1] > DEEPEST_HEAD_MM:
        return (
            f"{shown}, too much for a head. If it shows more of the body, crop it to the head; if not, the voxel size "
            "in the header is too large: correct it."
        )
    return None


def nothing_segmented(labels: Sequence[Label]) -> str:
    """Return the warning of an empty result, worded by what the weights segment.

    Parameters
    ----------
    labels : sequence of Label
        Of the weights' card.
    """
    question = "Is this a head scan"
    names = [label.name for label in labels if label.id]
    if not {label.name for label in BRAIN}.intersection(names):
        shown = ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
        question = f"Does the scan show what these weights know ({shown})"
    return f"Nothing was segmented. {question}, and is its header right?"


def size_findings(volumes: dict[int, float]) -> list[str]:
    """Return what the segmented intracranial volume says about the voxel size.

    Parameters
    ----------
    volumes : dict
        Label id to mm³; nothing is said about other label sets than the 33 brain structures.
    """
    if set(volumes) != set(BRAIN_IDS) - {0}:
        return []
    intracranial = total_intracranial(volumes)
    if intracranial > LARGEST_BRAIN_MM3 or 0 < intracranial < SMALLEST_BRAIN_MM3:
        factor = (USUAL_BRAIN_MM3 / intracranial) ** (1 / 3)
        return [
            f"The intracranial volume is {intracranial / 1000:.0f} ml; adults have 1000 to 2000 ml. If the scan shows "
            "a grown person's whole head, the voxel size in its header is wrong: multiplied by about "
            f"{factor:.1f} it would be usual."
        ]
    return []


def _otsu(values: np.ndarray) -> float:
    """Return the threshold that splits the values into the two most distinct classes (Otsu 1979)."""
    counts, edges = np.histogram(values, 64)
    centres = (edges[1:] + edges[:-1]) / 2
    below, sums = np.cumsum(counts)[:-1].astype(float), np.cumsum(counts * centres)[:-1]
    n, total = counts.sum(), (counts * centres).sum()
    between = (total * below / n - sums) ** 2 / np.maximum(below * (n - below), 1e-9)
    return float(edges[1 + int(np.argmax(between))])


def _largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a mask that is not empty."""
    parts = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)))
    return sitk.GetArrayFromImage(sitk.RelabelComponent(parts)) == 1


def _box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    found = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    return tuple(slice(int(where[0]), int(where[-1]) + 1) for where in found)


def _symmetry(blocks: np.ndarray, axis: int) -> float:
    """Return the highest correlation of ``[x, y, z]`` with its mirror image along an axis.

    Shift and tilts of the mirror plane are sought one after the other (:data:`MIRROR_SEARCH`), because heads lie turned
    in their scans. Blocks whose partner lies outside lower the correlation by their share of the intensity.
    """
    volume = torch.from_numpy(np.ascontiguousarray(blocks, dtype=np.float32))
    size = torch.tensor(volume.shape, dtype=torch.float32)
    points = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float32) for n in volume.shape))
    energy = volume.reshape(-1) ** 2
    centre = (points * energy[:, None]).sum(0) / energy.sum()
    some = points.sum(1) % 3 == 0  # a third of the blocks, spread evenly, says the same
    points, values, energy = points[some] - centre, volume.reshape(-1)[some], energy[some]

    def likeness(plane: list[float]) -> float:
        normal = torch.tensor(np.insert(np.tan(plane[1:]), axis, 1.0), dtype=torch.float32)
        normal /= normal.norm()
        mirrored = points - 2 * (points @ normal - plane[0])[:, None] * normal + centre
        inside = ((mirrored >= -0.5) & (mirrored <= size - 0.5)).all(1)
        where = ((2 * mirrored + 1) / size - 1).flip(-1)[None, None, None]  # grid_sample wants the last axis first
        partners = F.grid_sample(volume[None, None], where, align_corners=False).reshape(-1)
        pair = torch.stack([values[inside], partners[inside]])
        if pair.shape[1] < 2:
            return 0.0
        correlation = torch.corrcoef(pair)[0, 1].nan_to_num()  # where nothing varies
        return float(correlation * energy[inside].sum() / energy.sum().clamp_min(1e-12))

    best, plane = likeness([0.0, 0.0, 0.0]), [0.0, 0.0, 0.0]
    for parameter, steps in MIRROR_SEARCH:
        start = plane
        for step in steps:
            moved = [value + step * (number == parameter) for number, value in enumerate(start)]
            if (now := likeness(moved)) > best:
                best, plane = now, moved
    return max(best, 0.0)
