"""Metrics against brute force and MONAI."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from synthseg_slicer.labels import BRAIN
from synthseg_training.evaluation.metrics import (
    DISTANCES,
    asymmetry_errors,
    dice,
    distance_scores,
    hausdorff,
    hausdorff_95,
    mean_surface_distance,
    surface_distance_95,
    to_grid,
    volume_error,
)
from synthseg_training.evaluation.scans import compare


def brute_force(a, b, voxel_size):
    """Return the distances of each surface voxel to the other surface, by looking at every pair."""

    def surface(mask):
        points = []
        for index in np.argwhere(mask):
            neighbours = [index + step * np.eye(3, dtype=int)[axis] for axis in range(3) for step in (-1, 1)]
            inside = [np.all(n >= 0) and np.all(n < mask.shape) and mask[tuple(n)] for n in neighbours]
            if not all(inside):
                points.append(index * voxel_size)
        return np.array(points)

    distances = np.linalg.norm(surface(a)[:, None] - surface(b)[None], axis=-1)
    return distances.min(1), distances.min(0)


@pytest.fixture
def two_blobs():
    rng = np.random.default_rng(0)
    blobs = rng.random((2, 9, 8, 7)) > 0.6
    blobs[0, 0] = True  # touches the border
    blobs[1, -3:] = False  # not as far from each other in both directions
    return blobs


def test_surface_distances_equal_brute_force_on_anisotropic_voxels(two_blobs):
    voxel_size = np.array([1.0, 0.5, 3.0])
    there, back = brute_force(*two_blobs, voxel_size)
    pooled = np.concatenate([there, back])
    expected = (
        np.percentile(pooled, 95),
        pooled.mean(),
        pooled.max(),
        max(np.percentile(there, 95), np.percentile(back, 95)),
    )
    assert len(set(expected)) == 4  # the case tells the four apart
    scores = distance_scores(*two_blobs, tuple(voxel_size))
    assert list(scores) == list(DISTANCES) and tuple(scores.values()) == pytest.approx(expected)
    single = (surface_distance_95, mean_surface_distance, hausdorff, hausdorff_95)
    assert [f(*two_blobs, tuple(voxel_size)) for f in single] == pytest.approx(expected)


def test_surface_distances_equal_those_of_monai(two_blobs):
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    voxel_size = (1.0, 0.5, 3.0)
    a, b = (torch.from_numpy(blob)[None, None].float() for blob in two_blobs)
    scores = distance_scores(*two_blobs, voxel_size)
    hd95, hd = (metrics.compute_hausdorff_distance(a, b, percentile=p, spacing=voxel_size).item() for p in (95, None))
    mean = metrics.compute_average_surface_distance(a, b, symmetric=True, spacing=voxel_size).item()
    assert scores["hd95_mm"] == pytest.approx(hd95) and scores["hausdorff_mm"] == pytest.approx(hd)
    assert scores["mean_distance_mm"] == pytest.approx(mean)


@settings(max_examples=40, deadline=None)
@given(arrays(bool, (2, 5, 4, 3)), st.sampled_from([0.5, 1.0, 2.5]))
def test_surface_distances_do_not_depend_on_the_order_and_scale_with_the_voxels(blobs, scale):
    a, b = blobs
    scores, swapped = distance_scores(a, b, (1, 2, 3)), distance_scores(b, a, (1, 2, 3))
    scaled = distance_scores(a, b, (scale, 2 * scale, 3 * scale))
    for name in DISTANCES:
        assert scores[name] == pytest.approx(swapped[name], nan_ok=True)
        assert scaled[name] == pytest.approx(scale * scores[name], nan_ok=True)
    if a.any() and b.any():
        largest = scores["hausdorff_mm"] * (1 + 1e-12)  # a mean of equal numbers may round up
        assert scores["mean_distance_mm"] <= largest
        assert scores["sd95_mm"] <= largest and scores["hd95_mm"] <= largest
    else:
        assert all(np.isnan(value) for value in scores.values())


def test_dice_and_distances_of_empty_structures_are_no_numbers(two_blobs):
    empty = np.zeros_like(two_blobs[0])
    assert dice(two_blobs[0], two_blobs[0]) == 1
    assert dice(two_blobs[0], empty) == 0
    assert np.isnan(dice(empty, empty))
    assert all(np.isnan(value) for value in distance_scores(two_blobs[0], empty, (1, 1, 1)).values())


def test_label_maps_are_scored_structure_by_structure():
    truth = np.zeros((8, 8, 8), int)
    truth[1:5, 1:5, 1:5], truth[6:, 6:, 6:] = 10, 11
    found = np.roll(truth, 1, axis=0)
    found[0] = 0
    rows = compare(found, truth, {10: "a", 11: "b", 12: "absent"}, (1.0, 1.0, 2.0))
    assert [row["structure"] for row in rows] == ["a", "b"]
    assert rows[0]["dice"] == 0.75 and rows[0]["hausdorff_mm"] == 1
    assert rows[0]["mean_distance_mm"] == mean_surface_distance(found == 10, truth == 10, (1, 1, 2))
    assert rows[0]["volume_error_percent"] == 0 and rows[1]["volume_error_percent"] == -50  # half of it has left
    # The right thalamus is missed: one-sided where 64 voxels stood against 40.
    both = np.where(truth == 11, 49, truth)
    both[6:, :4, :4] = 49
    row = compare(np.where(both == 49, 0, both), both, {10: "left", 49: "right"}, None)[0]
    assert row["asymmetry_error_points"] == pytest.approx(200 - 200 * (64 - 40) / (64 + 40))
    stem = compare(truth + 5, truth + 5, {16: "stem"}, None)[0]
    assert stem["dice"] == 1 and np.isnan(stem["asymmetry_error_points"])  # has no other side
    without = compare(found, truth, {10: "a"}, None)[0]
    assert without["dice"] == 0.75 and all(np.isnan(without[name]) for name in DISTANCES)


def test_volume_errors_are_signed_percents_of_the_reference():
    assert volume_error(1100, 1000) == pytest.approx(10) and volume_error(0, 1000) == -100
    assert np.isnan(volume_error(5, 0))


def test_asymmetry_errors_are_differences_of_indices():
    errors = asymmetry_errors({17: 4000, 53: 3000, 10: 1, 49: 1}, {17: 3000, 53: 3000, 10: 2, 18: 3}, BRAIN)
    assert errors[17] == errors[53] == pytest.approx(200 * 1000 / 7000)  # left too large
    assert errors[10] == pytest.approx(-200)  # the reference has the left side only
    assert np.isnan(errors[18]) and np.isnan(errors[4])  # found nothing, nothing there
    assert set(errors) == {label.id for label in BRAIN if label.side != "none"}


def test_labels_reach_another_grid_by_nearest_neighbour():
    labels = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[0, 3] = 1
    np.testing.assert_array_equal(to_grid(labels, np.eye(4), labels.shape, flipped), labels[::-1])
    shifted = np.eye(4)
    shifted[2, 3] = 2.2
    expected = np.zeros_like(labels)
    expected[:, :, :2] = labels[:, :, 2:]
    np.testing.assert_array_equal(to_grid(labels, np.eye(4), labels.shape, shifted), expected)
