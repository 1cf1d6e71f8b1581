"""Noise is measured and, where there is much of it, smoothed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from synthetic import ball

from synthseg_slicer import segment
from synthseg_slicer.robust import NOISY, denoised, noise_level
from synthseg_slicer.scan import Scan


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.15])
def test_the_noise_of_a_smooth_head_is_found(sigma):
    clean = gaussian_filter(0.6 * (ball((41, 48, 45), 18.0) > 50), 2.0)
    noisy = clean + np.random.default_rng(1).normal(0, sigma, clean.shape)
    assert noise_level(noisy.astype(np.float32)) == pytest.approx(sigma, rel=0.06)
    assert noise_level(clean.astype(np.float32)) < 0.01


def test_an_image_without_head_has_no_noise():
    assert noise_level(np.zeros((8, 9, 10), np.float32)) == 0


def test_smoothing_is_a_gaussian_of_one_millimetre():
    image = np.random.default_rng(0).random((20, 24, 22), dtype=np.float32)
    np.testing.assert_allclose(denoised(image), gaussian_filter(image, 1.0, mode="nearest"), atol=1e-5)


def test_only_noisy_scans_are_smoothed_unasked(threshold_model):
    clean = Scan(ball(), np.eye(4))
    noisy = Scan(ball() + np.random.default_rng(2).normal(0, 25, (32, 36, 40)).astype(np.float32), np.eye(4))
    assert NOISY < 0.1
    for scan, asked, applied in ((clean, None, False), (noisy, None, True), (noisy, False, False), (clean, True, True)):
        options = segment(scan, model=threshold_model, robust=asked).provenance["options"]
        assert (options["robust"], options["robust_requested"]) == (applied, asked)
