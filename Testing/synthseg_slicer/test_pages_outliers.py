"""Scans that stand out in a cohort."""

from __future__ import annotations

import numpy as np
import pytest

from synthseg_slicer.pages import outliers
from synthseg_slicer.pages.outliers import FAR, FEWEST, QUALITY, SHARE, VOLUME, deviations, modified_z


def cohort(count: int = 30, seed: int = 0) -> tuple[list[dict], list[float], list[float]]:
    """Return volumes, intracranial volumes and qualities of an even cohort."""
    random = np.random.default_rng(seed)
    size = np.exp(random.uniform(-0.1, 0.1, count))
    volumes = [{"A": float(4000 * s * np.exp(random.uniform(-0.05, 0.05))), "B": float(9e5 * s)} for s in size]
    return volumes, [float(1.4e6 * s) for s in size], random.uniform(0.75, 0.85, count).tolist()


def test_the_modified_z_score_is_that_of_the_textbook():
    values = np.array([2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3])
    z = modified_z(values)
    median, mad = 2.45, 0.15
    np.testing.assert_allclose(z, 0.6745 * (values - median) / mad)
    assert np.flatnonzero(np.abs(z) > FAR).tolist() == [8, 9]


def test_scores_are_those_of_standard_deviations_for_normal_values():
    values = np.random.default_rng(0).normal(7, 3, 20000)
    np.testing.assert_allclose(modified_z(values), (values - 7) / 3, atol=0.08)


def test_equal_values_do_not_divide_by_zero():
    assert not modified_z(np.full(9, 4.0)).any()
    z = modified_z(np.array([4.0] * 9 + [5.0]))
    assert not z[:9].any() and z[9] == pytest.approx(1 / (0.1 * 1.2533), rel=1e-3)


def test_an_even_cohort_has_no_outlier():
    assert not any(deviations(*cohort()))


def test_a_swollen_structure_stands_out_by_volume_and_by_share():
    volumes, total, quality = cohort()
    volumes[4]["A"] *= 3
    found = deviations(volumes, total, quality)
    assert [index for index, one in enumerate(found) if one] == [4]
    assert {(one.structure, one.kind) for one in found[4]} == {("A", VOLUME), ("A", SHARE)}
    assert all(one.z > FAR for one in found[4])
    share = next(one for one in found[4] if one.kind == SHARE)
    assert share.value == pytest.approx(volumes[4]["A"] / total[4])
    assert found[4][0].kind == SHARE  # the head's size explains a part of the volumes: shares are closer together


def test_a_small_head_is_small_throughout_but_in_proportion():
    volumes, total, quality = cohort()
    volumes[7] = {name: volume / 2 for name, volume in volumes[7].items()}
    total[7] /= 2
    (found,) = (one for one in deviations(volumes, total, quality) if one)
    assert {one.kind for one in found} == {VOLUME} and all(one.z < -FAR for one in found)
    assert {one.structure for one in found} == {"A", "B", "Total-Intracranial"}


def test_what_is_missing_and_what_is_doubtful_comes_first():
    volumes, total, quality = cohort()
    volumes[2]["A"] = 0.0
    volumes[2]["B"] *= 9
    quality[3] = 0.3
    found = deviations(volumes, total, quality)
    assert (found[2][0].structure, found[2][0].value, found[2][0].z) == ("A", 0.0, None)
    assert found[2][1].structure == "B"
    assert [(one.kind, one.value) for one in found[3]] == [(QUALITY, 0.3)] and found[3][0].z < -FAR
    assert outliers.distance(found[3][0]) == outliers.distance(found[2][0]) == np.inf


def test_a_high_quality_is_no_outlier_and_a_low_one_is_before_it_is_doubtful():
    volumes, total, quality = cohort()
    quality = [0.8 + 0.001 * (index % 5) for index in range(30)]
    quality[1], quality[2] = 0.95, 0.65
    found = deviations(volumes, total, quality)
    assert not found[1] and [one.kind for one in found[2]] == [QUALITY]


def test_few_scans_are_not_compared_but_judged_by_themselves():
    volumes, total, quality = (one[: FEWEST - 1] for one in cohort())
    volumes[0]["A"] *= 100
    quality[1] = 0.5
    found = deviations(volumes, total, quality)
    assert not found[0]
    assert [(one.kind, one.z) for one in found[1]] == [(QUALITY, None)]


def test_gaps_do_no_harm():
    volumes, total, quality = cohort()
    del volumes[0]["A"]
    total[1] = quality[2] = None
    total[3] = 0.0
    volumes[5]["A"] = float("nan")
    assert not any(deviations(volumes, total, quality))
    assert not any(deviations([{"A": float("nan")}] * 9, [None] * 9, [None] * 9))
    assert deviations([], [], []) == []
