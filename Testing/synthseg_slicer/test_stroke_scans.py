"""Several scans of one head in the stroke task: registration, grids, mirrored passes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from lesioned import Bright, centred, egg, overlap
from synthetic import rigid

from synthseg_slicer.conform import conform, standardise
from synthseg_slicer.labels import LESION_ID, STROKE
from synthseg_slicer.stroke import segment_lesions
from synthseg_slicer.weights import Model, load_model

MOVED = rigid((5, -4, 5), (6, -5, 4))
"""Where the head lies in the second scan: turned by 8 degrees, shifted by 9 mm."""
LESION = np.array([-12, -14, 6, 1])
"""The middle of the egg's lesion."""
FINE = (60, 70, 56)


@pytest.fixture
def model():
    return Model(Bright(), STROKE, "", {})


@pytest.fixture
def moved():
    """The second scan: of thicker slices, and of a head that lies otherwise."""
    return egg(centred((1.5, 1.5, 2.2), (40, 48, 28)), (40, 48, 28), MOVED)[0]


@pytest.fixture
def doubt_is_enough(monkeypatch):
    """Keep lesions of which no voxel is sure: scans that contradict each other are not."""
    monkeypatch.setattr("synthseg_slicer.lesions.CERTAIN", 0.0)


def off(result) -> float:
    """Return by how many mm the registration misses the lesion's middle."""
    return float(np.linalg.norm(result.transforms[1] @ MOVED @ LESION - LESION))


def test_registration_brings_the_lesions_of_a_turned_head_together(model, moved):
    first, where = egg(centred((1, 1, 1), FINE), FINE)
    together = segment_lesions([first, moved], model=model, anatomy=False)
    apart = segment_lesions([first, moved], model=model, anatomy=False, register=False)
    assert off(together) < 0.5 < 9 < off(apart)
    assert overlap(together.labels == LESION_ID, where) > 0.95
    assert overlap(apart.labels == LESION_ID, where) < 0.8  # there are two, or one that is too large
    assert len(together.lesions) == 1 and together.volume == pytest.approx(np.sum(where), rel=0.05)


def test_a_lesion_that_only_the_turned_scan_shows_lands_where_it_is(model, moved, doubt_is_enough):
    blind, where = egg(centred((1, 1, 1), FINE), FINE, lesion=False)
    together = segment_lesions([blind, moved], model=model, anatomy=False)
    apart = segment_lesions([blind, moved], model=model, anatomy=False, register=False)
    assert overlap(together.labels == LESION_ID, where) > 0.85
    assert overlap(apart.labels == LESION_ID, where) < 0.4


def test_several_scans_vote_on_the_first_ones_own_voxels(model, moved, doubt_is_enough):
    affine = np.array([[0, 0, -1.3, 38], [1.1, 0, 0, -36], [0, -2.5, 0, 28], [0, 0, 0, 1.0]])  # axes A, I, L
    shape = (66, 23, 60)
    blind, where = egg(affine, shape, lesion=False)
    result = segment_lesions([blind, moved], model=model, anatomy=False, native=True)
    assert result.labels.shape == result.probability.shape == shape
    np.testing.assert_array_equal(result.affine, affine)
    assert off(result) < 0.6
    assert overlap(result.labels == LESION_ID, where) > 0.85
    assert result.volume == pytest.approx(np.sum(where) * blind.voxel_volume, rel=0.2)
    (lesion,) = result.lesions
    assert lesion.centre == pytest.approx(LESION[:3], abs=1)
    assert not segment_lesions(blind, model=model, anatomy=False, native=True).lesions


def test_eight_flips_are_the_mean_of_eight_mirrored_passes(monkeypatch, stroke_weights):
    monkeypatch.setattr("synthseg_slicer.lesions.in_tissue", lambda lesion, tissue: lesion)  # drop none
    model = load_model("stroke", stroke_weights)
    scan, _ = egg(centred((1, 1, 1), (40, 36, 32)), (40, 36, 32))
    image = standardise(torch.from_numpy(conform(scan).image))
    total = torch.zeros(len(STROKE), *image.shape)
    with torch.no_grad():
        for mirrored in product((False, True), repeat=3):
            axes = [axis for axis in range(3) if mirrored[axis]]
            total += model.network(image.flip(axes)[None, None])[0].flip([axis + 1 for axis in axes])
    expected = torch.softmax(total / 8, 0)[[label.id for label in STROKE].index(LESION_ID)].numpy()
    result = segment_lesions(scan, model=model, anatomy=False, flips=8)
    np.testing.assert_allclose(result.probability, expected, atol=1e-3)
    assert np.ptp(expected) > 0.3  # something to compare
    fewer = segment_lesions(scan, model=model, anatomy=False)
    assert np.abs(fewer.probability - expected).max() > 0.05
