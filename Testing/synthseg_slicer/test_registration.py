"""Rigid registration."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from synthetic import rigid

from synthseg_slicer.errors import ScanError
from synthseg_slicer.registration import register, same_grid, write_transform
from synthseg_slicer.scan import Scan, ScanWarning


def head(affine, shape=(40, 48, 36), contrast=1.0) -> Scan:
    """Return an egg with three spots, at its place in the world, sampled on a grid."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    image = 60.0 * (((world / (34, 42, 30)) ** 2).sum(-1) < 1)
    for centre, radius, value in (((12, 5, 4), 9, 70), ((-14, 12, -6), 7, 40), ((2, -20, 8), 8, -50)):
        image += value * (np.linalg.norm(world - centre, axis=-1) < radius)
    image = image if contrast > 0 else np.where(image > 0, 160 - image, 0)
    noise = np.random.default_rng(0).normal(0, 2, shape)
    return Scan((image + noise).astype(np.float32), affine)


def grid(spacing, shape=(40, 48, 36)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
    return affine


@pytest.mark.parametrize("contrast", [1.0, -1.0])
def test_a_moved_head_is_brought_back_whatever_its_contrast(contrast):
    fixed, moved = head(grid((2.2, 2.2, 2.2))), rigid((6, -4, 8), (7, -5, 4))
    there = head(grid((2.0, 2.0, 2.6)), contrast=contrast)
    moving = Scan(there.data, moved @ there.affine)  # the same head, lying elsewhere in the world
    found = register(moving, fixed)
    spots = np.array([(12, 5, 4, 1), (-14, 12, -6, 1), (0, 40, 0, 1), (0, 0, 28, 1)]).T
    error = np.linalg.norm((found @ moved @ spots - spots)[:3], axis=0)
    assert error.max() < 1.5
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(found, register(moving, fixed), atol=1e-6)


def test_heads_far_apart_are_brought_together_by_their_fields_of_view():
    fixed = head(grid((2.2, 2.2, 2.2)))
    shift = rigid((0, 0, 0), (300, 0, -150))
    with pytest.warns(ScanWarning, match="registered to"):
        found = register(Scan(fixed.data, shift @ fixed.affine), fixed)
    assert np.abs(found @ shift - np.eye(4)).max() < 1.5


def test_a_failed_search_names_both_scans(monkeypatch):
    def fail(*_):
        raise RuntimeError("ITK\nAll samples map outside moving image buffer.")

    monkeypatch.setattr("SimpleITK.ImageRegistrationMethod.Execute", fail)
    one = head(grid((4, 4, 4)))
    with pytest.raises(ScanError, match=r"cannot be registered to scan .*outside moving image.*leave this scan out"):
        register(one, one)


def test_only_one_grid_is_the_same_grid():
    one = head(grid((2, 2, 2)))
    other = one.affine.copy()
    other[0, 3] += 0.01
    assert same_grid(one, Scan(one.data, one.affine.copy()))
    assert not same_grid(one, Scan(one.data, other)) and not same_grid(one, Scan(one.data[1:], one.affine))


def test_a_written_transform_takes_points_of_the_grid_to_the_scan(tmp_path):
    moved = rigid((6, -4, 8), (7, -5, 4))  # from the scan's world to the other's, RAS
    write_transform(tmp_path / "t.tfm", moved)
    transform = sitk.ReadTransform(str(tmp_path / "t.tfm"))
    for point in ([0.0, 0, 0], [10, -20, 30]):
        there = (moved @ [*point, 1])[:3]
        back = np.array(transform.TransformPoint([-there[0], -there[1], there[2]]))  # ITK's world is LPS
        np.testing.assert_allclose(back * [-1, -1, 1], point, atol=1e-9)
