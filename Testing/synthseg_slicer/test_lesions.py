"""Components, sides and loads of lesions."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from synthseg_slicer.labels import BRAIN
from synthseg_slicer.lesions import (
    CERTAIN,
    certain,
    components,
    describe,
    in_tissue,
    loads,
    nearest_labels,
    write_lesions_csv,
    write_loads_csv,
)


@pytest.fixture
def brain():
    """White matter of both sides with a ventricle in the left one; 1 mm."""
    labels = np.zeros((40, 20, 20), np.uint8)
    labels[2:20, 2:18, 2:18] = 2
    labels[20:38, 2:18, 2:18] = 41
    labels[10:14, 8:12, 8:12] = 4
    return labels


def block(shape, *slices):
    mask = np.zeros(shape, bool)
    mask[slices] = True
    return mask


def test_components_are_numbered_by_size_and_small_ones_dropped():
    mask = np.zeros((20, 20, 20), bool)
    mask[1:3, 1:3, 1:3] = True
    mask[5:9, 5:9, 5:9] = True
    mask[15, 15, 15] = True
    numbered = components(mask, 1.0, fewest=2.0)
    assert numbered[6, 6, 6] == 1 and numbered[1, 1, 1] == 2 and numbered[15, 15, 15] == 0
    assert components(mask, 8.0, fewest=2.0)[15, 15, 15] == 3


def test_a_lesion_that_touches_by_corners_is_one():
    mask = np.zeros((6, 6, 6), bool)
    mask[2, 2, 2] = mask[3, 3, 3] = True
    assert components(mask, 1.0, fewest=0.5).max() == 1


def test_lesions_stay_where_they_touch_tissue(brain):
    deep = block(brain.shape, slice(26, 34), slice(6, 14), slice(6, 14))  # as large as a big infarct: no tissue within
    at_skull = block(brain.shape, slice(2, 8), slice(2, 8), slice(2, 8))
    tissue = np.isin(brain, (2, 41)) & ~deep & ~at_skull
    outside = block(brain.shape, slice(39, 40), slice(0, 20), slice(0, 4))
    kept = in_tissue(deep | at_skull | outside, tissue)
    np.testing.assert_array_equal(kept, deep | at_skull)
    np.testing.assert_array_equal(in_tissue(outside, np.zeros_like(outside)), outside)
    assert not in_tissue(np.zeros_like(outside), tissue).any()


def test_lesions_stay_where_a_tenth_of_them_is_sure():
    lesion = block((20, 20, 20), slice(1, 6), slice(1, 5), slice(1, 2)) | block((20, 20, 20), slice(10, 15), 3, 3)
    probability = np.where(lesion, 0.6, 0.1)
    assert not certain(lesion, probability).any()
    probability[1, 1:3, 1] = CERTAIN  # two of twenty
    np.testing.assert_array_equal(certain(lesion, probability), lesion & (np.arange(20) < 8)[:, None, None])
    probability[1, 1, 1] = CERTAIN - 0.01
    assert not certain(lesion, probability).any()
    assert not certain(np.zeros_like(lesion), probability).any()


def test_a_cavity_counts_for_the_tissue_around_it(brain):
    hole = block(brain.shape, slice(26, 30), slice(8, 12), slice(8, 12))
    opened = np.where(hole, np.uint8(0), brain)
    nearest = nearest_labels(opened, hole)
    assert (nearest[hole] == 41).all() and not nearest[~hole].any()
    in_ventricle = block(brain.shape, slice(10, 14), slice(8, 12), slice(8, 12))
    assert (nearest_labels(brain, in_ventricle)[in_ventricle] == 2).all()


def test_without_anatomy_in_reach_nothing_is_nearest(brain):
    mask = block(brain.shape, slice(3, 5), slice(3, 5), slice(3, 5))
    assert not nearest_labels(np.zeros_like(brain), mask).any()
    assert not nearest_labels(brain, np.zeros_like(mask)).any()


def test_loads_are_shares_of_structures_hemispheres_and_brain(brain):
    mask = block(brain.shape, slice(30, 34), slice(4, 8), slice(4, 8))
    rows = {row.name: row for row in loads(brain, nearest_labels(brain, mask), BRAIN, 2.0)}
    white = rows["Right-Cerebral-White-Matter"]
    assert white.lesion == 2 * 64 and white.volume == 2 * np.count_nonzero(brain == 41)
    assert white.percent == pytest.approx(100 * 64 / np.count_nonzero(brain == 41))
    assert rows["Right-Hemisphere"].lesion == white.lesion and rows["Left-Hemisphere"].lesion == 0
    assert rows["Brain"].volume == 2 * np.count_nonzero(np.isin(brain, (2, 41)))
    assert "Left-Lateral-Ventricle" not in rows


def test_a_lesion_has_a_centre_a_side_and_a_structure(brain):
    mask = block(brain.shape, slice(30, 34), slice(4, 8), slice(4, 8)) | block(
        brain.shape, slice(16, 24), slice(12, 16), slice(12, 16)
    )
    affine = np.diag([2.0, 1, 1, 1])
    affine[:3, 3] = (-40, 5, 0)
    numbered = components(mask, 2.0)
    soft = np.where(mask, np.float32(0.75), np.float32(0))
    first, second = describe(numbered, soft, affine, nearest_labels(brain, mask), BRAIN)
    assert (first.volume, second.volume) == (2 * 128, 2 * 64)
    assert first.side == "both" and second.side == "right"
    assert second.structure == "Right-Cerebral-White-Matter"
    assert second.centre == pytest.approx((2 * 31.5 - 40, 5.5 + 5, 5.5)) and first.probability == 0.75
    assert describe(numbered, soft, affine, None, ())[0].structure == ""
    assert describe(np.zeros_like(numbered), soft, affine, None, ()) == []


def test_tables_can_be_read_back(brain, tmp_path):
    mask = block(brain.shape, slice(30, 34), slice(4, 8), slice(4, 8))
    nearest, soft = nearest_labels(brain, mask), mask.astype(np.float32)
    write_lesions_csv(tmp_path / "a.csv", describe(components(mask, 1.0), soft, np.eye(4), nearest, BRAIN))
    write_loads_csv(tmp_path / "b.csv", loads(brain, nearest, BRAIN, 1.0))
    with open(tmp_path / "a.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert float(row["volume_mm3"]) == 64 and float(row["volume_ml"]) == 0.064 and row["side"] == "right"
    with open(tmp_path / "b.csv", encoding="utf-8") as file:
        rows = {row["structure"]: row for row in csv.DictReader(file)}
    assert float(rows["Brain"]["lesion_mm3"]) == 64 and rows["Brain"]["label"] == ""
    assert float(rows["Right-Cerebral-White-Matter"]["lesion_percent"]) > 0
