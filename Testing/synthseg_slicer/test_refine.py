"""Refinement of posteriors by the scan's own intensities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import ball

from synthseg_slicer.labels import BRAIN, BRAIN_IDS
from synthseg_slicer.pipeline import segment
from synthseg_slicer.postprocess import label_map
from synthseg_slicer.predict import TopPosteriors
from synthseg_slicer.refine import refine, tissue_of

PARTNERS = {label.id: label.partner for label in BRAIN}
WHITE, CORTEX = BRAIN_IDS.index(2), BRAIN_IDS.index(3)
SIZE = (40, 120, 12)
EDGE = 20


def prior(edge: float, width: float = 2.0) -> TopPosteriors:
    """White matter left of ``edge``, cortex right of it, a smooth transition of ``width`` voxels; no background."""
    x = np.arange(SIZE[0])[:, None, None]
    white = np.broadcast_to(1 / (1 + np.exp((x + 0.5 - edge) / width)), SIZE)
    channels, probabilities = np.zeros((4, *SIZE), np.uint8), np.zeros((4, *SIZE), np.float16)
    channels[0], channels[1] = np.where(white > 0.5, WHITE, CORTEX), np.where(white > 0.5, CORTEX, WHITE)
    probabilities[0], probabilities[1] = np.maximum(white, 1 - white), np.minimum(white, 1 - white)
    return TopPosteriors(channels, probabilities, tuple(slice(0, n) for n in SIZE), SIZE, BRAIN_IDS)


def scan(white: float, cortex: float, noise: float, field: float = 0.0, seed: int = 0) -> np.ndarray:
    """Two tissues that meet at EDGE, noise, and a bias field that rises along y."""
    image = np.where(np.arange(SIZE[0])[:, None, None] < EDGE, white, cortex) + np.zeros(SIZE)
    image = image + field * np.linspace(-1, 1, SIZE[1])[None, :, None]
    image += np.random.default_rng(seed).normal(0, noise, SIZE)
    return np.clip(image, 0, 1).astype(np.float32)


def wrong(top: TopPosteriors) -> int:
    """Voxels labelled other than the tissues lie."""
    return np.count_nonzero(label_map(top) != np.where(np.arange(SIZE[0]) < EDGE, 2, 3)[:, None, None])


@pytest.mark.parametrize(("white", "cortex"), [(0.7, 0.4), (0.3, 0.6)])
def test_a_misplaced_border_moves_to_the_edge_whatever_the_contrast(white, cortex):
    top = prior(EDGE + 2)
    refined = refine(top, scan(white, cortex, 0.03), PARTNERS)
    assert wrong(top) == 2 * SIZE[1] * SIZE[2]
    assert wrong(refined) < 0.1 * wrong(top)


def test_a_bias_field_is_taken_out(monkeypatch):
    top, image = prior(EDGE + 2), scan(0.7, 0.4, 0.03, field=0.15)
    assert wrong(refine(top, image, PARTNERS)) < 0.1 * wrong(top)
    monkeypatch.setattr("synthseg_slicer.refine.ITERATIONS", 1)  # before the field is first estimated
    assert wrong(refine(top, image, PARTNERS)) > 0.3 * wrong(top)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_without_contrast_the_labels_stay(noise):
    top = prior(EDGE + 2)
    refined = refine(top, scan(0.5, 0.5, noise), PARTNERS)
    assert np.mean(label_map(refined) != label_map(top)) < 0.01


def test_an_odd_intensity_inside_a_structure_keeps_its_label():
    image = scan(0.7, 0.4, 0.03)
    image[5:8, 10:14, 10:14] = 0.05  # as dark as nothing else
    assert wrong(refine(prior(EDGE), image, PARTNERS)) == 0


def test_the_sum_of_a_voxels_probabilities_stays_and_the_largest_comes_first():
    top = prior(EDGE + 2)
    top.probabilities[:] = top.probabilities * np.float16(0.75)
    refined = refine(top, scan(0.7, 0.4, 0.05), PARTNERS)
    np.testing.assert_allclose(refined.probabilities.sum(0, dtype=np.float32), 0.75, atol=2e-3)
    assert (np.diff(refined.probabilities.astype(np.float32), axis=0) <= 0).all()
    assert (np.sort(refined.channels[:2], axis=0) == np.array([WHITE, CORTEX])[:, None, None, None]).all()


def test_a_mirrored_scan_is_refined_to_the_mirror_image():
    top, image = prior(EDGE + 2), scan(0.6, 0.45, 0.05, field=0.1)
    mirrored = replace(top, channels=top.channels[:, ::-1].copy(), probabilities=top.probabilities[:, ::-1].copy())
    refined, other = refine(top, image, PARTNERS), refine(mirrored, image[::-1], PARTNERS)
    np.testing.assert_allclose(other.posterior(WHITE)[::-1], refined.posterior(WHITE), atol=2e-3)


def test_no_weight_and_nothing_found_change_nothing():
    top = prior(EDGE)
    assert refine(top, scan(0.7, 0.4, 0.03), PARTNERS, weight=0) is top
    nothing = replace(top, channels=np.zeros_like(top.channels))
    assert refine(nothing, scan(0.7, 0.4, 0.03), PARTNERS) is nothing
    empty = replace(top, channels=top.channels[:, :0], probabilities=top.probabilities[:, :0])
    assert refine(empty, scan(0.7, 0.4, 0.03), PARTNERS) is empty


def test_both_sides_and_all_fluid_are_one_tissue_and_background_is_the_first():
    tissue = dict(zip(BRAIN_IDS, tissue_of(BRAIN_IDS, PARTNERS)))
    assert tissue[0] == 0 and min(v for k, v in tissue.items() if k) == 1
    assert tissue[2] == tissue[41] != tissue[3]
    assert tissue[4] == tissue[44] == tissue[24] == tissue[14]
    assert tissue[17] == tissue[54]
    assert len(set(tissue.values())) == max(tissue.values()) + 1


def test_segment_refines_unless_told_not_to(threshold_model, scan_file):
    assert ball().max() > 0
    on, off = (segment(scan_file, model=threshold_model, refined=flag) for flag in (True, False))
    assert on.provenance["options"]["refined"] and not off.provenance["options"]["refined"]
    assert "refine" in on.provenance["seconds"]
    assert np.count_nonzero(on.labels) > 0
