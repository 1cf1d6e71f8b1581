"""Rigid registration of one scan to another of the same head, by SimpleITK."""

from __future__ import annotations

import os
import warnings

import numpy as np
import SimpleITK as sitk

from .errors import ScanError
from .files import atomic
from .scan import Scan, ScanWarning

BINS = 48
"""Histogram bins of the mutual information; the value of Mattes et al. 2003 to one digit."""
SAMPLES = 60_000
"""Voxels at which it is taken a level; more is slower and no steadier."""
FARTHEST_MM = 60.0
"""Shift of the head's centre beyond which a registration is reported as doubtful."""
WIDEST_DEGREES = 45.0
"""Rotation beyond which it is."""

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def same_grid(one: Scan, other: Scan, tolerance: float = 1e-3) -> bool:
    """Tell whether two scans have one grid: shape, and affines to within ``tolerance`` mm."""
    return one.shape == other.shape and bool(np.abs(one.affine - other.affine).max() < tolerance)


def register(moving: Scan, fixed: Scan) -> np.ndarray:
    """Return the rigid transform that brings ``moving`` onto ``fixed``.

    Mattes mutual information, a regular-step gradient descent over the six parameters on three resolutions, from the
    place that the headers say; deterministic. It aligns scans of any contrasts of one head, not different heads.

    Parameters
    ----------
    moving, fixed : Scan
        Two scans of one head.

    Returns
    -------
    float64 array [4, 4]
        World RAS+ mm of ``moving`` to world RAS+ mm of ``fixed``.

    Raises
    ------
    ScanError
        The two do not overlap, or the search failed.
    """
    fixed_image, moving_image = _image(fixed), _image(moving)
    start = sitk.CenteredTransformInitializer(
        fixed_image, moving_image, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    if _overlaps(fixed, moving):  # the headers know better than the middles of the fields of view
        centre = start.GetCenter()
        start = sitk.Euler3DTransform()
        start.SetCenter(centre)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([_share(fixed_image, shrink) for shrink in (4, 2, 1)], 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        1.0, 1e-4, 300, relaxationFactor=0.5, gradientMagnitudeTolerance=1e-8
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4, 2, 1])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=True)
    method.SetNumberOfThreads(1)  # the same sum in the same order every time
    try:
        method.Execute(fixed_image, moving_image)
    except RuntimeError as error:
        raise ScanError(
            f"{moving.name}: cannot be registered to {fixed.name} ({str(error).strip().splitlines()[-1].strip()}). "
            "Register the two beforehand, or leave this scan out."
        ) from error
    inverse = start.GetInverse()  # from fixed to moving is what resampling wants; we want the way of the points
    matrix = np.eye(4)
    origin = np.array(inverse.TransformPoint((0.0, 0.0, 0.0)))
    for axis in range(3):
        matrix[:3, axis] = np.array(inverse.TransformPoint(tuple(np.eye(3)[axis]))) - origin
    matrix[:3, 3] = origin
    matrix = _LPS_RAS @ matrix @ _LPS_RAS
    _check(matrix, moving, fixed)
    return matrix


def write_transform(path: str | os.PathLike, matrix: np.ndarray) -> None:
    """Write a linear transform as ITK does (.tfm, LPS+ mm).

    In 3D Slicer, applied to the scan that was registered, it brings it onto the other; in ITK it is the transform to
    resample the scan on the other's grid with.

    Parameters
    ----------
    path : path
        Target ending in .tfm, replaced if it exists.
    matrix : array [4, 4]
        From :func:`register`: world RAS+ mm of the scan to world RAS+ mm of the other.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    points = _LPS_RAS @ np.linalg.inv(matrix) @ _LPS_RAS  # ITK's way: from where a voxel is wanted to where it is
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(points[:3, :3].ravel().tolist())
    transform.SetTranslation(points[:3, 3].tolist())
    with atomic(path) as temporary:
        sitk.WriteTransform(transform, str(temporary))


def _check(matrix: np.ndarray, moving: Scan, fixed: Scan) -> None:
    middle = moving.affine @ [*((np.array(moving.shape) - 1) / 2), 1]
    shift = float(np.linalg.norm((matrix @ middle - middle)[:3]))
    angle = float(np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1))))
    if shift > FARTHEST_MM or angle > WIDEST_DEGREES:
        warnings.warn(
            f"{moving.name}: registered to {fixed.name} over {shift:.0f} mm and {angle:.0f} degrees. Look whether they "
            "lie on each other, or register them beforehand.",
            ScanWarning,
            stacklevel=3,
        )


def _image(scan: Scan) -> sitk.Image:
    """Return the scan as an ITK image, its brightest percent cut off, which is noise to the histogram."""
    low, high = np.percentile(scan.data, (1, 99))
    data = np.clip(scan.data.astype(np.float32), low, max(high, low + 1e-6))
    image = sitk.GetImageFromArray(data.transpose(2, 1, 0))
    affine = _LPS_RAS @ scan.affine
    size = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(size.tolist())
    image.SetDirection((affine[:3, :3] / size).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def _share(image: sitk.Image, shrink: int) -> float:
    voxels = np.prod([max(1, n // shrink) for n in image.GetSize()])
    return float(min(1.0, SAMPLES / voxels))


def _overlaps(fixed: Scan, moving: Scan) -> bool:
    """Tell whether the middle of each scan lies inside the other's field of view."""

    def inside(one: Scan, other: Scan) -> bool:
        middle = other.affine @ [*((np.array(other.shape) - 1) / 2), 1]
        index = np.linalg.inv(one.affine) @ middle
        return bool((index[:3] >= 0).all() and (index[:3] <= np.array(one.shape) - 1).all())

    return inside(fixed, moving) and inside(moving, fixed)
