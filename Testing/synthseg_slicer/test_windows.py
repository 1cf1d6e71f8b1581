"""Sliding windows and flips."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from synthetic import random_network

from synthseg_slicer.windows import FLIPS, gaussian_weight, window_logits, window_starts


@pytest.fixture
def image():
    return np.random.default_rng(1).random((24, 20, 28), dtype=np.float32)


@pytest.mark.parametrize(("extent", "window"), [(100, 192), (192, 192), (193, 192), (400, 192), (97, 32)])
def test_windows_cover_the_axis_and_overlap_by_half(extent, window):
    starts = window_starts(extent, window)
    assert starts[0] == 0 and starts[-1] == max(0, extent - window)
    assert all(b - a <= window / 2 for a, b in pairwise(starts))


def test_the_weight_is_a_gaussian_of_an_eighth_of_the_window():
    weight = gaussian_weight((41, 9, 9))
    assert weight.max() == weight[20, 4, 4] == 1
    sigma = 0.125 * 41
    assert weight[25, 4, 4].item() == pytest.approx(np.exp(-0.5 * (5 / sigma) ** 2), rel=1e-4)
    assert weight.min() > 0


@pytest.mark.parametrize("architecture", ["fast", "paper"])
def test_one_window_without_flips_is_the_network_itself(architecture, image):
    options = {"features": 2, "levels": 3, "n_labels": 5} if architecture == "paper" else {}
    network = random_network(architecture, **options)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)[None, None])[0].numpy()
    np.testing.assert_allclose(window_logits(network, image, flips=1), expected, rtol=1e-3, atol=1e-3)


def test_mirroring_the_image_mirrors_the_result(image):
    network = random_network()
    for flips, axes in ((2, (0,)), (8, (1,)), (8, (0, 2))):
        plain = window_logits(network, image, flips=flips)
        mirrored = window_logits(network, np.flip(image, axes), flips=flips)
        np.testing.assert_allclose(np.flip(mirrored, [a + 1 for a in axes]), plain, rtol=1e-3, atol=1e-3)


def test_eight_flips_are_all_combinations():
    assert len(set(FLIPS[8])) == 8 and FLIPS[8][0] == () and (0, 1, 2) in FLIPS[8]


def test_overlapping_windows_of_a_voxelwise_network_give_its_result(image):
    class Voxelwise(torch.nn.Module):
        multiple, n_labels = 4, 2

        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor([1.0, -2.0]))

        def forward(self, x):
            return x * self.scale[:, None, None, None]

    expected = np.stack([image, -2 * image])
    done = []
    result = window_logits(Voxelwise(), image, flips=8, window=16, progress=done.append)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert done == sorted(done) and done[0] == 0 and len(done) == 8 * 2 * 2 * 3
