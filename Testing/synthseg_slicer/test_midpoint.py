"""The space halfway between scans, and sampling on turned grids."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import rigid

from synthseg_slicer.errors import ScanError
from synthseg_slicer.midpoint import (
    HEAD_RADIUS_MM,
    Frame,
    both_ways,
    displacement,
    halfway,
    midpoint,
    rigid_exp,
    rigid_log,
    rigid_mean,
)
from synthseg_slicer.postprocess import GridMap, label_map, resample_labels
from synthseg_slicer.predict import TopPosteriors
from synthseg_slicer.resampling import labels_on_grid, sample

POSES = [rigid((4, -3, 8), (9, -4, 2)), rigid((-6, 2, 1), (-3, 12, 5)), rigid((1, 7, -5), (4, 4, -11))]
numbers = st.floats(-50, 50, allow_nan=False)


@given(st.tuples(numbers, numbers, numbers), st.tuples(numbers, numbers, numbers))
@settings(max_examples=50, deadline=None)
def test_logarithm_and_exponential_are_inverse_and_halves_make_a_whole(rotation, shift):
    transform = rigid(rotation, shift)
    np.testing.assert_allclose(rigid_exp(rigid_log(transform)), transform, atol=1e-9)
    np.testing.assert_allclose(transform[:3, :3] @ transform[:3, :3].T, np.eye(3), atol=1e-12)
    half = rigid_exp(rigid_log(transform) / 2)
    np.testing.assert_allclose(half @ half, transform, atol=1e-9)


def test_a_turn_about_a_far_axis_is_halved_about_the_same_axis():
    turn = rigid((0, 0, 40), (0, 0, 0))
    there = np.eye(4)
    there[:3, 3] = (100, -30, 0)
    half = rigid_exp(rigid_log(there @ turn @ np.linalg.inv(there)) / 2)
    np.testing.assert_allclose(half, there @ rigid((0, 0, 20), (0, 0, 0)) @ np.linalg.inv(there), atol=1e-9)


def test_half_a_turn_has_no_midpoint():
    with pytest.raises(ScanError, match="half a turn apart"):
        rigid_log(np.diag([-1.0, -1, 1, 1]))


def test_registrations_of_both_directions_are_averaged_without_preference():
    there, back = rigid((5, 2, 1), (3, 2, 8)), np.linalg.inv(rigid((6, 1, 1), (4, 2, 7)))
    one, other = both_ways(there, back), both_ways(back, there)
    np.testing.assert_allclose(one @ other, np.eye(4), atol=1e-12)
    assert displacement(one @ np.linalg.inv(there), np.zeros(3)) < displacement(back @ there, np.zeros(3))


def pairs_of(poses) -> np.ndarray:
    return np.array([[np.linalg.inv(other) @ one for other in poses] for one in poses])


def test_of_two_each_goes_half_of_the_way():
    here, there = halfway(pairs_of(POSES[:2]))
    way = np.linalg.inv(POSES[1]) @ POSES[0]
    np.testing.assert_allclose(here @ here, way, atol=1e-9)
    np.testing.assert_allclose(here @ there, np.eye(4), atol=1e-9)


def test_of_three_none_is_preferred_and_all_meet():
    pairs = pairs_of(POSES)
    shares = halfway(pairs)
    for i, j in permutations(range(3), 2):
        np.testing.assert_allclose(shares[j] @ pairs[i, j], shares[i], atol=1e-8)
    np.testing.assert_allclose(sum(map(rigid_log, shares)), 0, atol=1e-9)
    for order in permutations(range(3)):
        for place, share in zip(order, halfway(pairs[np.ix_(order, order)])):
            np.testing.assert_allclose(share, shares[place], atol=1e-8)


def test_contradicting_registrations_are_spread_over_all_scans():
    pairs = pairs_of(POSES)
    pairs[0, 1] = rigid((0, 0, 0), (0.9, 0, 0)) @ pairs[0, 1]
    pairs[1, 0] = np.linalg.inv(pairs[0, 1])
    shares = halfway(pairs)
    gaps = [
        displacement(np.linalg.inv(shares[i]) @ shares[j] @ pairs[i, j], np.zeros(3))
        for i, j in permutations(range(3), 2)
    ]
    assert max(gaps) < 0.35 and min(gaps) > 0.25  # a third each


def test_the_mean_of_poses_lies_between_them():
    mean = rigid_mean(POSES)
    np.testing.assert_allclose(sum(rigid_log(pose @ np.linalg.inv(mean)) for pose in POSES), 0, atol=1e-9)
    np.testing.assert_allclose(rigid_mean([POSES[0]] * 2), POSES[0], atol=1e-12)


def affine_at(corner=(0.0, 0, 0), voxel=1.0) -> np.ndarray:
    affine = np.diag([voxel, voxel, voxel, 1.0])
    affine[:3, 3] = corner
    return affine


def space_between(affines, shapes, worlds, voxel_size=1.0):
    """Return the midpoint of scans of one head; ``worlds`` bring each world to that of the head."""
    frames = [Frame.of(shape, affine) for shape, affine in zip(shapes, affines)]
    ways = {(i, j): np.linalg.inv(worlds[j]) @ worlds[i] for i, j in permutations(range(len(frames)), 2)}
    return midpoint(frames, ways, voxel_size)


def test_scans_that_lie_the_same_keep_their_voxels():
    affine, shape = affine_at((-20.0, 5, 100)), (40, 50, 33)
    space = space_between([affine] * 2, [shape] * 2, [np.eye(4)] * 2)
    np.testing.assert_allclose(space.affine, affine, atol=1e-12)
    assert space.shape == shape
    np.testing.assert_allclose(space.transforms, [np.eye(4)] * 2, atol=1e-12)


def test_both_are_turned_against_the_grid_by_half_of_what_they_are_against_each_other():
    turn = rigid((0, 0, 12), (0, 0, 0))
    affines = [affine_at((-30.0, -30, -30)), turn @ affine_at((-27.0, -30, -32))]  # an oblique scan in the same world
    space = space_between(affines, [(60, 60, 60)] * 2, [np.eye(4)] * 2)
    np.testing.assert_allclose(space.transforms, [np.eye(4)] * 2, atol=1e-12)
    for affine in affines:
        between = np.linalg.inv(space.affine) @ affine
        angle = np.degrees(np.arccos((np.trace(between[:3, :3]) - 1) / 2))
        assert angle == pytest.approx(6, abs=1e-9)


def test_the_grid_holds_what_all_scans_show_in_voxels_of_the_asked_size():
    affines, shapes = [affine_at((0.0, 0, 0)), affine_at((10.0, -20, 5), 2.0)], [(60, 60, 60), (40, 40, 40)]
    space = space_between(affines, shapes, [np.eye(4)] * 2, voxel_size=1.5)
    low, high = (space.affine @ [*corner, 1] for corner in ([-0.5] * 3, np.array(space.shape) - 0.5))
    assert np.linalg.norm(space.affine[:3, :3], axis=0) == pytest.approx(1.5)
    assert (low[:3] <= np.array([9, -0.5, 4]) + 1e-9).all() and (low[:3] >= np.array([9, -0.5, 4]) - 0.75).all()
    assert (high[:3] >= np.array([59.5, 59, 59.5]) - 1e-9).all() and (
        high[:3] <= np.array([59.5, 59, 59.5]) + 0.75
    ).all()


def test_fields_of_view_apart_are_refused():
    with pytest.raises(ScanError, match="no common part"):
        space_between([affine_at(), affine_at((55.0, 0, 0))], [(60, 60, 60)] * 2, [np.eye(4)] * 2)


def test_displacement_is_the_root_mean_square_over_a_ball():
    points = np.random.default_rng(0).uniform(-1, 1, (200_000, 3))
    centre = np.array([10.0, -40, 25])
    points = points[np.linalg.norm(points, axis=1) < 1] * HEAD_RADIUS_MM + centre
    transform = POSES[0]
    moved = points @ transform[:3, :3].T + transform[:3, 3] - points
    assert displacement(transform, centre) == pytest.approx(np.sqrt((moved**2).sum(1).mean()), rel=5e-3)


def test_sampling_a_ramp_is_exact_and_repeats_the_border_half_a_voxel():
    index = np.stack(np.meshgrid(*map(np.arange, (9, 8, 7)), indexing="ij"), -1).astype(float)
    slope, turned = np.array([1.0, -2, 3]), rigid((8, -5, 10), (2.3, 1.1, 0.4))
    values, inside = sample((index @ slope)[None].astype(np.float32), turned, (6, 5, 8))
    where = np.stack(np.meshgrid(*map(np.arange, (6, 5, 8)), indexing="ij"), -1) @ turned[:3, :3].T + turned[:3, 3]
    deep = ((where >= 0) & (where <= np.array([8, 7, 6]))).all(-1)
    np.testing.assert_allclose(values[0][deep], (where @ slope)[deep], atol=1e-4)
    assert 0.2 < inside.mean() < 1 and inside[deep].all() and not values[0][~inside].any()
    shifted = affine_at((-0.4, 0, 0))
    values, inside = sample(np.ones((1, 4, 4, 4), np.float32), shifted, (6, 4, 4))
    assert inside[:4].all() and not inside[4:].any() and (values[0][:4] == 1).all()


@pytest.fixture
def top() -> TopPosteriors:
    """Soft blobs of three structures inside a box."""
    rng = np.random.default_rng(0)
    probabilities = np.sort(rng.dirichlet((0.4,) * 4, (10, 9, 8)).astype(np.float32), -1)[..., ::-1]
    channels = np.argsort(rng.random((10, 9, 8, 4)), -1).astype(np.uint8)
    box = (slice(3, 13), slice(2, 11), slice(4, 12))
    return TopPosteriors(
        np.moveaxis(channels, -1, 0).copy(), np.moveaxis(probabilities, -1, 0).astype(np.float16), box, (16, 14, 15),
        (0, 3, 16, 53),
    )  # fmt: skip


def test_labels_on_a_turned_grid_are_those_of_the_straight_path_where_nothing_is_turned(top):
    assert np.array_equal(labels_on_grid(top, np.eye(4), top.shape), label_map(top))
    to_index = np.diag([0.7, 1.3, 0.9, 1.0])
    to_index[:3, 3] = (0.4, 0.2, 1.1)
    shape = (22, 11, 16)
    straight = resample_labels(top, GridMap(shape, to_index, np.eye(4)))
    assert np.mean(labels_on_grid(top, to_index, shape) == straight) > 0.999  # ties may fall either way


def test_labels_follow_a_turn(top):
    flat = TopPosteriors(
        np.full((4, 10, 9, 8), 2, np.uint8), np.zeros((4, 10, 9, 8), np.float16), top.box, top.shape, top.ids
    )
    flat.probabilities[0] = 1
    turned = rigid((0, 0, 30), (0, 0, 0))
    centre = affine_at((7.5, 6, 7.5))
    to_index = centre @ turned @ np.linalg.inv(centre)
    found = labels_on_grid(flat, to_index, top.shape)
    where = np.stack(np.meshgrid(*map(np.arange, top.shape), indexing="ij"), -1) @ to_index[:3, :3].T + to_index[:3, 3]
    low, high = ([getattr(b, side) for b in top.box] for side in ("start", "stop"))
    truth = ((where > np.array(low) - 0.5) & (where < np.array(high) - 0.5)).all(-1)
    assert set(np.unique(found)) == {0, 16}
    assert np.mean((found == 16) == truth) > 0.97
