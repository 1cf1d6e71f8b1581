"""Geometry and intensities of conformed scans."""

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthseg_slicer import conform as module
from synthseg_slicer.conform import (
    PERCENTILES,
    conform,
    crop_affine,
    crop_to_head,
    looks_like_ct,
    pad_to_multiple,
    reorient,
    resample,
    uncrop,
)
from synthseg_slicer.errors import ScanError
from synthseg_slicer.scan import Scan, ScanWarning


def rotation(angles):
    """Rotation matrix of three Euler angles in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [a for a in range(3) if a != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


@st.composite
def geometries(draw):
    """Shape and affine of an oblique, permuted, left- or right-handed, anisotropic grid of 16 to 30 mm a side."""
    size = np.array(draw(st.tuples(*[st.one_of(st.floats(0.4, 6), st.floats(0.95, 1.05))] * 3)))
    shape = tuple(int(np.ceil(draw(st.floats(16, 30)) / s)) for s in size)
    handed = np.diag([draw(st.sampled_from([-1, 1])), 1, 1])
    affine = np.eye(4)
    affine[:3, :3] = rotation(draw(st.tuples(*[st.floats(-np.pi, np.pi)] * 3))) @ handed @ np.diag(size)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-150, 150)] * 3))
    return shape, affine


def world(shape, affine):
    """World coordinates ``[3, x, y, z]`` of voxel centres."""
    return np.einsum("ij,jxyz->ixyz", affine[:3, :3], np.indices(shape)) + affine[:3, 3, None, None, None]


@settings(max_examples=40, deadline=None)
@given(geometries(), st.integers(0, 2))
def test_conformed_voxels_show_what_lies_at_their_world_position(geometry, axis):
    """An image of one world coordinate in mm is read back at the conformed voxels' own world positions."""
    shape, affine = geometry
    coordinate = world(shape, affine)[axis].astype(np.float32)
    conformed = conform(Scan(coordinate, affine), ct=False)

    low, high = np.percentile(resample(*reorient(coordinate, affine), 1.0)[0], PERCENTILES)
    read = conformed.image * (high - low) + low
    expected = world(conformed.image.shape, conformed.affine)
    index = np.einsum("ij,jxyz->ixyz", np.linalg.inv(affine[:3, :3]), expected - affine[:3, 3, None, None, None])
    # away from the ends, where filter and interpolation lean on repeated outer voxels, and from clipped intensities
    size = np.linalg.norm(affine[:3, :3], axis=0)
    reach = np.where(size < 0.95 + 1e-6, np.ceil(1 / size) + 1, 0)[:, None, None, None]
    last = np.array(shape)[:, None, None, None] - 1
    inside = ((index >= reach - 1e-6) & (index <= last - reach + 1e-6)).all(axis=0)
    inside &= (conformed.image > 0) & (conformed.image < 1)
    assert inside.any()
    assert np.abs(read - expected[axis])[inside].max() < 1e-3


@settings(max_examples=60, deadline=None)
@given(geometries())
def test_the_conformed_grid_is_1_mm_and_covers_the_same_field_of_view(geometry):
    shape, affine = geometry
    data, oriented = reorient(np.zeros(shape, np.float32), affine)
    image, conformed = resample(data, oriented, 1.0)
    old = np.linalg.norm(oriented[:3, :3], axis=0)
    new = np.linalg.norm(conformed[:3, :3], axis=0)
    kept = np.abs(old - 1) <= 0.05 + 1e-6
    np.testing.assert_allclose(new, np.where(kept, old, 1), rtol=1e-12)
    assert (np.array(image.shape) * new >= np.array(data.shape) * old - 2e-3).all()
    assert (np.array(image.shape) * new < np.array(data.shape) * old + 1).all()
    centre = oriented @ [*(np.array(data.shape) - 1) / 2, 1]
    np.testing.assert_allclose(conformed @ [*(np.array(image.shape) - 1) / 2, 1], centre, atol=1e-9)
    # direction of each axis unchanged: oblique stays oblique
    np.testing.assert_allclose(conformed[:3, :3] / new, oriented[:3, :3] / old, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(geometries())
def test_reorienting_moves_no_voxel_and_points_axes_to_ras(geometry):
    shape, affine = geometry
    marks = np.arange(np.prod(shape)).reshape(shape)
    oriented, new = reorient(marks, affine)
    places = world(shape, affine).reshape(3, -1)
    np.testing.assert_allclose(world(oriented.shape, new).reshape(3, -1), places[:, oriented.ravel()], atol=1e-9)
    assert (np.diag(new)[:3] >= 0).all()
    cosines = new[:3, :3] / np.linalg.norm(new[:3, :3], axis=0)
    assert np.trace(cosines) >= max(np.abs(np.roll(cosines, k, axis=1)).trace() for k in (1, 2))


def test_a_scan_on_the_ras_1_mm_grid_keeps_its_grid():
    data = np.random.default_rng(0).random((20, 21, 22), dtype=np.float32)
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = (-10, 5, 7)
    conformed = conform(Scan(data, affine))
    np.testing.assert_array_equal(conformed.affine, affine)
    low, high = np.percentile(data, PERCENTILES)
    np.testing.assert_allclose(conformed.image, np.clip((data - low) / (high - low), 0, 1), atol=1e-6)
    assert conformed.image.dtype == np.float32 and conformed.image.flags.c_contiguous


def test_conforming_leaves_the_scan_untouched():
    data = np.random.default_rng(0).random((20, 20, 20), dtype=np.float32)
    scan = Scan(data.copy(), np.eye(4))
    assert conform(scan, ct=False).source is scan
    np.testing.assert_array_equal(scan.data, data)


@pytest.mark.parametrize("size", [(1, 1, 1), (0.7, 1.3, 4)])
def test_mirrored_input_gives_mirrored_output(size):
    data = np.random.default_rng(0).random((31, 20, 16), dtype=np.float32)
    affine = np.diag([*size, 1.0])
    there = conform(Scan(data, affine)).image
    back = conform(Scan(data[::-1], affine)).image[::-1]
    np.testing.assert_allclose(there, back, atol=1e-5)


def test_downsampling_does_not_alias():
    """A wave of 0.6 mm cannot be shown at 1 mm and must fade instead of turning into a coarser wave."""
    wave = np.tile(np.float32([1, 1, -1, -1]), 40)[:, None, None] * np.ones((1, 8, 8), np.float32)
    affine = np.diag([0.15, 2, 2, 1])
    shrunk, _ = resample(wave, affine, 1.0)
    assert np.abs(shrunk[2:-2]).max() < 0.05
    np.testing.assert_allclose(resample(np.ones_like(wave), affine, 1.0)[0], 1, rtol=1e-6)


def test_thick_slices_are_interpolated_linearly():
    data = np.zeros((16, 16, 5), np.float32)
    data[:, :, 2] = 1
    image, affine = resample(data, np.diag([1.0, 1, 4, 1]), 1.0)
    profile = image[3, 3]
    height = affine[2, 3] + np.arange(len(profile))
    np.testing.assert_allclose(profile, np.clip(1 - np.abs(height - 8) / 4, 0, 1), atol=1e-6)


# ---- intensities ----


def head_ct(shape=(40, 44, 38)):
    """A crude head in Hounsfield units: air, skin, skull, brain with ventricles."""
    rng = np.random.default_rng(3)
    radius = np.sqrt(sum(((g - (n - 1) / 2) / (0.42 * n)) ** 2 for g, n in zip(np.indices(shape), shape)))
    means = np.select([radius < 0.2, radius < 0.8, radius < 0.92, radius < 1], [8, 35, 900, 20], -1000)
    return (means + rng.normal(0, 8, shape)).round().astype(np.int16)


CT_AFFINE = np.diag([4.0, 4, 4, 1])


def test_ct_is_recognised_and_clipped_to_the_brain_window():
    data = head_ct()
    conformed = conform(Scan(data, CT_AFFINE), voxel_size=4.0)
    assert conformed.is_ct
    np.testing.assert_allclose(conformed.image, np.clip(data / 80, 0, 1), atol=1e-6)
    assert not conform(Scan(data, CT_AFFINE), ct=False).is_ct


def test_ct_is_clipped_before_resampling():
    """Bone must not bleed into the brain: next to it nothing may be brighter than window and neighbours allow."""
    data = np.full((20, 20, 20), 40, np.float32)
    data[10:] = 2000
    data[0] = 0
    with pytest.warns(ScanWarning, match="above 80 HU"):
        image = conform(Scan(data, np.diag([2.0, 1, 1, 1])), ct=True).image
    np.testing.assert_allclose(image[18:22, 5, 5], [0.5, 0.625, 0.875, 1], atol=1e-5)


def test_mr_is_not_taken_for_ct():
    rng = np.random.default_rng(0)
    head = head_ct()
    for contrast in [(0, 400, 50, 900), (0, 1500, 300, 1200), (-1024, -200, -900, 500), (-1.0, 0.3, -0.8, 2.5)]:
        air, brain, bone, skin = contrast
        mean = np.select([head < -500, head > 300, head > 27], [air, bone, brain], skin)
        image = np.abs(mean - air) * rng.uniform(0.6, 1.4, head.shape) + air
        assert not looks_like_ct(image.astype(np.float32)), contrast
    assert not looks_like_ct(rng.integers(-1024, 3000, (40, 40, 40)))


def test_ct_values_that_are_no_hounsfield_units_are_refused_or_warned_of():
    shifted = Scan(head_ct() + np.int16(1024), CT_AFFINE)
    assert not conform(shifted).is_ct
    with pytest.raises(ScanError, match="plus 1024"):
        conform(shifted, ct=True)
    rng = np.random.default_rng(0)
    with pytest.raises(ScanError, match="no contrast between 0 and 80 HU"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ScanWarning)
        conform(Scan(rng.integers(100, 900, (20, 20, 20)), np.eye(4)), ct=True)
    with pytest.warns(ScanWarning, match="above 80 HU"):
        conform(Scan(rng.integers(0, 900, (20, 20, 20)), np.eye(4)), ct=True)


def test_a_tiny_brain_in_a_large_empty_field_keeps_its_contrast():
    data = np.zeros((60, 60, 60), np.int16)
    data[28:32, 28:32, 28:32] = np.arange(64).reshape(4, 4, 4) + 100  # 0.03 % of the voxels
    image = conform(Scan(data, np.eye(4))).image
    assert image.max() == 1 and 0.6 < image[28, 28, 28] < 0.62


def test_conforming_takes_at_most_two_float_copies():
    data = np.random.default_rng(0).integers(0, 255, (96, 96, 96)).astype(np.uint8)
    scan = Scan(data, np.array([[-1.0, 0, 0, 48], [0, 0, 1, -48], [0, -1, 0, 48], [0, 0, 0, 1]]))
    tracemalloc.start()
    conform(scan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * 4 * data.size


# ---- padding and cropping ----


@given(st.tuples(*[st.integers(1, 40)] * 3), st.sampled_from([1, 8, 16]))
def test_padding_reaches_the_multiple_and_is_undone_by_its_slices(shape, multiple):
    array = np.random.default_rng(0).random(shape) + 1
    padded, slices = pad_to_multiple(array, multiple)
    assert all(n % multiple == 0 and n - m < multiple for n, m in zip(padded.shape, shape))
    np.testing.assert_array_equal(padded[slices], array)
    assert np.count_nonzero(padded) == array.size
    if shape[0] % 2 == 0 or multiple == 1:
        np.testing.assert_array_equal(pad_to_multiple(array[::-1], multiple)[0], padded[::-1])


def synthetic_head(shape, centre, radii, noise, seed=0):
    rng = np.random.default_rng(seed)
    grid = np.indices(shape)
    head = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii)) < 1
    dimming = np.linspace(1, 0.3, shape[2])  # coil sensitivity falls along z
    image = head * dimming * rng.uniform(0.3, 1, shape)
    rician = np.hypot(image + rng.normal(0, noise, shape), rng.normal(0, noise, shape))
    return head, rician.clip(0, 1).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.integers(60, 81)] * 3),
    st.tuples(*[st.floats(0, 1)] * 3),
    st.tuples(*[st.floats(8, 40)] * 3),
    st.floats(0, 0.08),
)
def test_cropping_never_cuts_the_head_and_keeps_the_margin(shape, place, radii, noise):
    centre = [p * (n - 1) for p, n in zip(place, shape)]
    head, image = synthetic_head(shape, centre, radii, noise)
    slices = crop_to_head(image)
    found = np.argwhere(head)
    for axis, part in enumerate(slices):
        assert part.start <= max(0, found[:, axis].min() - 12)
        assert part.stop >= min(shape[axis], found[:, axis].max() + 1 + 12)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_cropping_drops_most_of_the_air(noise):
    _, image = synthetic_head((120, 100, 90), (60, 50, 45), (20, 20, 20), noise)
    assert image[crop_to_head(image)].size < 0.5 * image.size


@pytest.mark.parametrize("shape", [(90, 91, 92), (93, 90, 89), (8, 9, 10), (7, 30, 30)])
def test_the_box_of_a_mirrored_image_is_the_mirrored_box(shape):
    image = np.zeros(shape, np.float32)
    image[shape[0] // 3 : shape[0] // 3 + 6, -4:-2, 2:9] = 1
    for slices, n, mirrored in zip(crop_to_head(image), shape, crop_to_head(image[::-1, ::-1, ::-1])):
        assert (slices.start, slices.stop) == (n - mirrored.stop, n - mirrored.start)


def test_a_background_that_is_not_dark_is_not_cropped():
    rng = np.random.default_rng(0)
    whole = (slice(0, 100), slice(0, 98), slice(0, 96))
    shape = tuple(s.stop for s in whole)
    _, image = synthetic_head(shape, (50, 49, 48), (15, 15, 15), 0)
    assert crop_to_head(np.maximum(image, 0.4)) == whole  # constant, bright
    assert crop_to_head(1 - image) == whole
    assert crop_to_head(rng.random(shape, dtype=np.float32)) == whole  # nothing but noise
    assert crop_to_head(np.zeros(shape, np.float32)) == whole
    assert crop_to_head(image) != whole


def test_cropped_results_return_to_their_place():
    slices = (slice(2, 7), slice(0, 5), slice(3, 9))
    labels = np.random.default_rng(0).integers(1, 9, (2, 5, 5, 6))
    full = uncrop(labels, slices, (10, 5, 12))
    np.testing.assert_array_equal(full[(..., *slices)], labels)
    assert np.count_nonzero(full) == labels.size
    affine = np.array([[0, -2.0, 0, 11], [3.0, 0, 0, -7], [0, 0, 4.0, 5], [0, 0, 0, 1]])
    np.testing.assert_allclose(crop_affine(affine, slices) @ [1, 1, 1, 1], affine @ [3, 1, 4, 1])


def test_percentiles_are_those_of_the_reference_code():
    assert module.PERCENTILES == (0.5, 99.5) and module.CT_WINDOW_HU == (0.0, 80.0)
