"""Outlines of labels: their paths enclose just the voxels of the label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from svg_paths import area, filled, loops

from synthseg_slicer.pages.outlines import outlines


@settings(max_examples=150, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_each_path_encloses_the_voxels_of_its_label_and_no_other(ids):
    found = outlines(ids)
    assert list(found) == [label for label in range(1, 4) if (ids == label).any()]
    for label, path in found.items():
        np.testing.assert_array_equal(filled(path, ids.shape), ids == label)


def test_a_block_is_a_rectangle_with_its_corners_cut():
    ids = np.zeros((6, 7), np.uint8)
    ids[1:4, 2:6] = 17
    path = outlines(ids)[17]
    (loop,) = loops(path)
    assert len(loop) == 8
    assert loop.min(0).tolist() == [4, 2] and loop.max(0).tolist() == [12, 8]
    assert area(path) == pytest.approx(3 * 4 - 4 / 8)  # each corner loses an eighth of a voxel


def test_a_hole_is_a_loop_of_its_own():
    ids = np.ones((5, 5), np.uint8)
    ids[2, 2] = 0
    path = outlines(ids)[1]
    assert len(loops(path)) == 2
    assert area(path) == pytest.approx(25 - 4 / 8 - (1 - 4 / 8))


def test_voxels_that_touch_at_a_corner_are_apart_and_neighbours_share_their_border():
    assert len(loops(outlines(np.eye(2, dtype=np.uint8))[1])) == 2
    left, right = (loops(path)[0] for path in outlines(np.array([[1, 2]] * 6)).values())
    assert {(2.0, 1.0), (2.0, 11.0)} <= set(map(tuple, left)) & set(map(tuple, right))


def test_an_empty_slice_has_no_outlines():
    assert outlines(np.zeros((4, 4), np.uint8)) == {}
    assert outlines(np.zeros((0, 4), np.uint8)) == {}
