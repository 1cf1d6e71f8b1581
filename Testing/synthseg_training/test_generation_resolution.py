"""Simulated acquisition: slice profile of eq. 23, slice spacing, and the priors of both."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from synthseg_training.generation import Resolution
from synthseg_training.generation.resolution import ResolutionParameters, gaussian_matrix
from synthseg_training.lesions.field import SmoothNoise

CPU = torch.device("cpu")


def test_slice_profile_has_the_width_of_equation_23():
    parameters = ResolutionParameters([0], spacing=6.0, thickness=4.0, alpha=1.02)
    expected = 2 * 1.02 * math.log(10) / (2 * math.pi) * 4.0
    assert Resolution().sigma(parameters, 1.0) == pytest.approx(expected)
    assert Resolution().sigma(parameters, 2.0) == pytest.approx(expected / 2)
    assert Resolution(profile=0.75).sigma(parameters, 1.0) == pytest.approx(0.75 * 1.02 * 4)


def test_blur_is_a_gaussian_of_the_given_width():
    kernel = gaussian_matrix(2.5, 61)[30].numpy()
    offsets = np.arange(61) - 30
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert math.sqrt((kernel * offsets**2).sum()) == pytest.approx(2.5, rel=1e-3)


def test_no_weight_is_a_subnormal_number_which_would_slow_down_the_products():
    smallest = torch.finfo(torch.float32).tiny
    node = SmoothNoise(0, 8.0, [64.0] * 3)._weights(torch.linspace(0, 19, 64), 20)
    for weights in (gaussian_matrix(0.6, 96), gaussian_matrix(2.5, 96), node):
        assert (weights == 0).any() and weights[weights > 0].min() > smallest


@pytest.mark.parametrize("phase", [0.0, 0.4, 1.0])
def test_the_matrix_equals_blurring_sampling_and_interpolating(phase):
    parameters = ResolutionParameters([0], spacing=5.0, thickness=3.0, phase=phase)
    profile = np.random.default_rng(0).random(64)
    sigma = Resolution().sigma(parameters, 1.0)
    blurred = gaussian_filter1d(profile, sigma, truncate=8)
    slices = (phase - 1) * 5.0 + 5.0 * np.arange(20)
    expected = np.interp(np.arange(64), slices, np.interp(slices, np.arange(64), blurred))
    result = Resolution().matrix(parameters, 64, 1.0, CPU).numpy() @ profile
    np.testing.assert_allclose(result[16:-16], expected[16:-16], atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_only_the_chosen_axis_loses_resolution(axis):
    image = torch.rand(24, 24, 24)
    parameters = ResolutionParameters([axis], spacing=6.0, thickness=6.0, phase=0.3)
    result = Resolution().apply(image, parameters, 1.0)
    rough, low = ([t.diff(dim=d).abs().mean().item() for d in range(3)] for t in (image, result))
    assert low[axis] < 0.15 * rough[axis]
    expected = torch.tensordot(Resolution().matrix(parameters, 24, 1.0, CPU), image, ([1], [axis])).movedim(0, axis)
    torch.testing.assert_close(result, expected)


def test_a_constant_image_stays_constant_even_at_the_borders():
    for spacing in (1.0, 2.7, 8.0, 30.0):
        parameters = ResolutionParameters([0, 1, 2], spacing, spacing, phase=0.6)
        result = Resolution().apply(torch.full((20, 20, 20), 0.5), parameters, 1.0)
        torch.testing.assert_close(result, torch.full((20, 20, 20), 0.5))


def test_native_resolution_leaves_the_image_alone_unless_a_blur_is_asked_for():
    image = torch.rand(12, 12, 12)
    assert torch.equal(Resolution().apply(image, ResolutionParameters([]), 1.0), image)
    blurred = Resolution(in_plane_sigma=0.5).apply(image, ResolutionParameters([]), 1.0)
    assert blurred.std() < 0.8 * image.std()


def test_spacing_is_in_millimetres_at_any_voxel_size():
    parameters = ResolutionParameters([0], spacing=6.0, thickness=6.0, phase=1.0)
    smooth = torch.sin(torch.arange(64) / 9.0)
    fine = Resolution().matrix(parameters, 64, 1.0, CPU) @ smooth
    coarse = Resolution().matrix(parameters, 32, 2.0, CPU) @ smooth[::2]
    torch.testing.assert_close(coarse[6:-6], fine[::2][6:-6], atol=0.02, rtol=0)


def test_draws_follow_their_priors():
    resolution, rng = Resolution(), torch.Generator().manual_seed(0)
    drawn = [resolution.draw(rng) for _ in range(4000)]
    low = [d for d in drawn if d.axes]
    isotropic = [d for d in low if len(d.axes) == 3]
    sliced = [d for d in low if len(d.axes) == 1]
    assert abs(len(low) / len(drawn) - 0.95) < 0.012
    assert abs(len(isotropic) / len(low) - 0.10) < 0.016
    assert all(abs(sum(d.axes == [axis] for d in sliced) / len(sliced) - 1 / 3) < 0.03 for axis in range(3))
    for group, bound in ((isotropic, 4.0), (sliced, 8.0)):
        spacing, thickness = (np.array([getattr(d, name) for d in group]) for name in ("spacing", "thickness"))
        assert 1 <= spacing.min() and 0.97 * bound < spacing.max() <= bound
        assert abs(spacing.mean() - (1 + bound) / 2) < 0.2
        assert (thickness >= 1).all() and (thickness <= spacing).all()
        assert abs(((thickness - 1) / (spacing - 1)).mean() - 0.5) < 0.05
    alphas = np.array([d.alpha for d in low])
    assert 1 / 1.03 <= alphas.min() < 0.975 and 1.025 < alphas.max() <= 1.03
