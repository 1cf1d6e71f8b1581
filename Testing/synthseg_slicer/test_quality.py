"""The confidence in each structure."""

from __future__ import annotations

import time

import numpy as np
import pytest

from synthseg_slicer.postprocess import label_map
from synthseg_slicer.predict import TopPosteriors
from synthseg_slicer.quality import confidence


def posteriors(channels: list, probabilities: list, ids=(0, 17, 18)) -> TopPosteriors:
    """Posteriors of a row of voxels, one list of up to four labels each."""
    arrays = np.zeros((4, len(channels), 1, 1), np.uint8), np.zeros((4, len(channels), 1, 1), np.float16)
    for array, rows in zip(arrays, (channels, probabilities)):
        for voxel, row in enumerate(rows):
            array[: len(row), voxel, 0, 0] = row
    shape = arrays[0].shape[1:]
    return TopPosteriors(*arrays, tuple(slice(0, n) for n in shape), shape, ids)


def test_confidence_is_the_mean_posterior_over_the_voxels_that_a_label_won():
    top = posteriors([[1, 0], [1, 2], [0, 1], [2, 1]], [[0.75, 0.25], [0.5, 0.25], [0.875, 0.125], [1.0, 0.0]])
    assert confidence(top) == {17: 0.625, 18: 1.0}


def test_the_winner_need_not_come_first():
    top = posteriors([[1, 2], [0, 1]], [[0.25, 0.75], [0.25, 0.75]])  # clean-up may leave such an order
    assert confidence(top) == {17: 0.75, 18: 0.75}


def test_labels_that_won_nothing_and_background_have_no_confidence():
    top = posteriors([[0, 1], [0], [1]], [[0.75, 0.25], [1.0], [0.0]])  # the last voxel is not background, but empty
    assert confidence(top) == {}


def test_an_empty_box_has_no_confidence():
    top = TopPosteriors(np.zeros((4, 0, 0, 0), np.uint8), np.zeros((4, 0, 0, 0), np.float16), (), (9, 9, 9), (0, 17))
    assert confidence(top) == {}


def test_confidence_agrees_with_the_label_map():
    rng = np.random.default_rng(0)
    channels = rng.permuted(np.tile(np.arange(6, dtype=np.uint8), (500, 1)), axis=1)[:, :4]
    top = posteriors(channels.tolist(), rng.dirichlet(np.ones(4), 500).tolist(), (0, 2, 3, 17, 18, 41))
    labels, found = label_map(top), confidence(top)
    assert set(found) == {2, 3, 17, 18, 41}
    for label, value in found.items():
        assert value == pytest.approx(top.posterior(top.ids.index(label))[labels == label].mean(), rel=1e-6)


def test_a_large_image_takes_little_time():
    rng = np.random.default_rng(0)
    shape = (4, 128, 128, 128)
    channels = rng.integers(0, 33, shape, dtype=np.uint8)
    probabilities = rng.integers(0, 15361, shape, dtype=np.uint16).view(np.float16)  # 15360 are the bits of 1.0
    top = TopPosteriors(channels, probabilities, tuple(slice(0, n) for n in shape[1:]), shape[1:], tuple(range(33)))
    times = []
    for _ in range(3):
        start = time.process_time()
        confidence(top)
        times.append(time.process_time() - start)
    assert min(times) < 0.5  # 0.1 s on a free machine; float16 arithmetic takes a second
