"""Deformation of the label maps: no foldings, right geometry at any voxel size, background outside."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from synthseg_training.generation.spatial import Spatial, SpatialParameters, affine_matrix, integrate

IDENTITY = torch.eye(3).tolist()
CPU = torch.device("cpu")


def jacobian_determinant(position: torch.Tensor) -> torch.Tensor:
    """Return the determinant of the forward differences of positions ``[3, N, N, N]``."""
    corner = position[:, :-1, :-1, :-1]
    columns = [position[:, 1:, :-1, :-1], position[:, :-1, 1:, :-1], position[:, :-1, :-1, 1:]]
    return torch.linalg.det(torch.stack([column - corner for column in columns], -1).movedim(0, -2))


@pytest.mark.parametrize("step", [2.0, 4.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_strongest_deformation_has_no_foldings(seed, step):
    spatial = Spatial(step=step)
    rng = torch.Generator().manual_seed(seed)
    drawn = spatial.draw(rng, 48, [[0.0, 100.0]] * 3, 1.0)
    velocity = torch.randn(drawn.velocity.shape, generator=rng) * spatial.velocity
    position = spatial.coordinates(SpatialParameters(drawn.centre, drawn.matrix, velocity), 48, 1.0, 1.0, CPU)
    assert jacobian_determinant(position).min() > 0


def test_integration_removes_the_foldings_that_the_velocity_alone_would_have():
    rng = torch.Generator().manual_seed(0)
    nodes = torch.randn(1, 3, 5, 5, 5, generator=rng) * 0.2
    velocity = torch.nn.functional.interpolate(nodes, size=(49,) * 3, mode="trilinear", align_corners=True)
    axis = torch.linspace(-1, 1, 49)
    identity = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    assert jacobian_determinant(identity + velocity[0]).min() < 0
    assert jacobian_determinant(identity + integrate(velocity)[0]).min() > 0


def test_the_opposite_velocity_undoes_the_deformation():
    rng = torch.Generator().manual_seed(0)
    nodes = torch.randn(1, 3, 4, 4, 4, generator=rng) * 0.05
    velocity = torch.nn.functional.interpolate(nodes, size=(41,) * 3, mode="trilinear", align_corners=True)
    there, back = integrate(velocity), integrate(-velocity)
    axis = torch.linspace(-1, 1, 41)
    identity = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))[None]
    grid = (identity + there).flip(1).movedim(1, -1)
    residual = there + torch.nn.functional.grid_sample(back, grid, padding_mode="border", align_corners=True)
    inside = residual[..., 8:-8, 8:-8, 8:-8]
    assert there.abs().max() > 0.08
    assert inside.abs().max() < 0.01


def test_a_constant_velocity_is_a_translation():
    velocity = torch.zeros(1, 3, 9, 9, 9)
    velocity[:, 0] = 0.2
    torch.testing.assert_close(integrate(velocity), velocity)


def test_velocity_components_move_along_their_own_axis():
    velocity = torch.zeros(3, 2, 2, 2)
    for axis in range(3):
        velocity.zero_()[axis] = 3.0
        parameters = SpatialParameters([10.0] * 3, IDENTITY, velocity)
        still = Spatial().coordinates(SpatialParameters([10.0] * 3, IDENTITY, None), 8, 1.0, 1.0, CPU)
        moved = Spatial().coordinates(parameters, 8, 1.0, 1.0, CPU) - still
        expected = torch.zeros(3, 1, 1, 1)
        expected[axis] = 3.0
        torch.testing.assert_close(moved, expected.expand_as(moved), atol=1e-4, rtol=0)


def test_without_deformation_a_crop_is_a_piece_of_the_map():
    label_map = torch.randint(0, 9, (12, 14, 16), dtype=torch.uint8)
    crop = Spatial().apply(label_map, SpatialParameters([5.5, 6.5, 7.5], IDENTITY, None), 6, 1.0, 1.0)
    assert torch.equal(crop, label_map[3:9, 4:10, 5:11])


def test_outside_the_map_is_background():
    label_map = torch.zeros(6, 6, 6, dtype=torch.uint8)
    label_map[1:5, 1:5, 1:5] = 3
    crop = Spatial().apply(label_map, SpatialParameters([2.5, 2.5, 2.5], IDENTITY, None), 20, 1.0, 1.0)
    assert crop.sum() == label_map.sum()
    assert torch.equal(crop[7:13, 7:13, 7:13], label_map)


def test_half_the_resolution_shows_the_same_anatomy():
    spatial = Spatial()
    parameters = spatial.draw(torch.Generator().manual_seed(1), 32.0, [[0.0, 60.0]] * 3, 1.0)
    fine = spatial.coordinates(parameters, 32, 1.0, 1.0, CPU)
    coarse = spatial.coordinates(parameters, 16, 2.0, 1.0, CPU)
    of_blocks = torch.nn.functional.avg_pool3d(fine, 2)
    torch.testing.assert_close(coarse, of_blocks, atol=0.02, rtol=0)


def test_maps_of_larger_voxels_are_sampled_at_the_same_millimetres():
    spatial = Spatial()
    parameters = spatial.draw(torch.Generator().manual_seed(1), 16.0, [[0.0, 60.0]] * 3, 2.5)
    centre = torch.tensor(parameters.centre)[:, None, None, None]
    large = spatial.coordinates(parameters, 16, 1.0, 2.5, CPU) - centre
    small = spatial.coordinates(parameters, 16, 1.0, 1.0, CPU) - centre
    torch.testing.assert_close(large * 2.5, small, atol=1e-4, rtol=0)


def test_a_coarser_integration_grid_changes_little():
    parameters = Spatial().draw(torch.Generator().manual_seed(2), 48.0, [[0.0, 60.0]] * 3, 1.0)
    fine, coarse = (Spatial(step=step).coordinates(parameters, 48, 1.0, 1.0, CPU) for step in (2.0, 4.0))
    assert (fine - coarse).abs().max() < 0.35


def test_affine_draws_stay_within_their_bounds_and_fill_them():
    spatial = Spatial(velocity=0.0)
    rng = torch.Generator().manual_seed(0)
    matrices = np.array([spatial.draw(rng, 64.0, [[0.0, 200.0]] * 3, 1.0).matrix for _ in range(800)])
    # the columns of R Sh are nearly of unit length, so the columns of the whole are as long as the scalings
    scalings = np.linalg.norm(matrices, axis=1)
    assert 0.79 < scalings.min() < 0.82 and 1.18 < scalings.max() < 1.21
    assert abs(scalings.mean() - 1) < 0.01
    assert abs(scalings.std() - 0.4 / math.sqrt(12)) < 0.01
    assert abs(np.degrees(np.arctan2(-matrices[:, 1, 2], matrices[:, 2, 2]))).max() < 25


def test_affine_matrix_rotates_and_scales():
    quarter = affine_matrix([0, 0, math.pi / 2], [2.0, 1.0, 1.0], [0.0] * 6)
    torch.testing.assert_close(quarter @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 2, 0]), atol=1e-6, rtol=0)
    assert torch.linalg.det(affine_matrix([0.2, -0.1, 0.3], [1.0, 1.0, 1.0], [0.0] * 6)) == pytest.approx(1)


def test_the_velocity_has_ten_nodes_over_a_whole_map_and_the_drawn_spread():
    spatial = Spatial()
    rng = torch.Generator().manual_seed(0)
    assert spatial.draw(rng, 256 - 2 * spatial.margin, [[0.0, 9.0]] * 3, 1.0).velocity.shape == (3, 10, 10, 10)
    spreads = np.array([spatial.draw(rng, 64.0, [[0.0, 9.0]] * 3, 1.0).velocity.std().item() for _ in range(400)])
    assert abs(spreads.mean() - 2.0) < 0.2  # U(0, 4)
    assert spreads.max() < 4.6


def test_crops_lie_in_the_widened_box_when_they_fit_and_hold_it_otherwise():
    spatial = Spatial(surroundings=5.0)
    rng = torch.Generator().manual_seed(0)
    small = np.array([spatial.draw(rng, 40.0, [[50.0, 150.0]] * 3, 1.0).centre for _ in range(300)])
    assert 65 <= small.min() < 68 and 132 < small.max() <= 135
    large = np.array([spatial.draw(rng, 160.0, [[50.0, 150.0]] * 3, 1.0).centre for _ in range(300)])
    assert 75 <= large.min() and large.max() <= 125
