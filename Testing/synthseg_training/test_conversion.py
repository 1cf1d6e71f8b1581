"""Label maps of other tools as the 33 labels."""

import csv
from importlib.resources import files

import numpy as np
import pytest

from synthseg_slicer.labels import BRAIN, BRAIN_IDS, BRAIN_PARTNERS
from synthseg_training.evaluation.conversion import CONVENTIONS, conversion_table, convert

SIDES = {label.id: label.side for label in BRAIN}


def rows_of(name):
    for part in CONVENTIONS[name]:
        text = (files("synthseg_training.evaluation") / "labels" / f"{part}.tsv").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        yield from csv.DictReader(lines, delimiter="\t")


def side_of(name):
    """Return the side that a structure's name tells, or None."""
    for side, marks in {"left": ("Left", "ctx-lh", "ctx_lh"), "right": ("Right", "ctx-rh", "ctx_rh")}.items():
        if name.startswith(marks):
            return side
    return None


@pytest.mark.parametrize("name", CONVENTIONS)
def test_tables_reach_all_labels_and_never_change_sides(name):
    rows = list(rows_of(name))
    assert len({row["index"] for row in rows}) == len(rows)
    assert {label for targets in conversion_table(name).values() for label in targets} == set(BRAIN_IDS)
    for row in rows:
        targets = [int(label) for label in row["mapping"].split("|")]
        sides = {SIDES[label] for label in targets} - {"none"}
        if side_of(row["name"]):
            assert sides <= {side_of(row["name"])}, row
        else:
            assert {BRAIN_PARTNERS[label] for label in targets} == set(targets), row


@pytest.mark.parametrize("name", CONVENTIONS)
def test_both_sides_of_a_structure_become_partners(name):
    halves = {}
    for row in rows_of(name):
        if side := side_of(row["name"]):
            plain = row["name"].replace("Left", "").replace("Right", "").replace("lh", "").replace("rh", "")
            halves.setdefault(plain, {})[side] = [int(label) for label in row["mapping"].split("|")]
    assert len(halves) > 15
    for plain, pair in halves.items():
        assert {BRAIN_PARTNERS[label] for label in pair["left"]} == set(pair["right"]), plain


def test_freesurfers_own_labels_remain_what_they_are():
    labels = np.array(BRAIN_IDS, np.int16).reshape(3, 11, 1)
    for name in ("aseg", "aparc+aseg", "a2009s"):
        converted = convert(labels, name)
        np.testing.assert_array_equal(converted, labels)
        assert converted.dtype == np.int32


@pytest.mark.parametrize(
    ("name", "ids", "expected"),
    [
        ("aseg", [9, 31, 63, 72, 78, 85, 258], [10, 4, 43, 0, 2, 0, 0]),
        ("aparc+aseg", [1000, 1035, 2001, 17], [3, 3, 42, 17]),
        ("a2009s", [11101, 11175, 12148, 53], [3, 3, 42, 53]),
        ("neuromorphometrics", [4, 23, 45, 46, 47, 62, 100, 207], [14, 58, 2, 24, 53, 28, 42, 3]),
        ("gif", [1, 4, 5, 24, 35, 49, 94, 101, 208], [0, 24, 14, 58, 16, 17, 2, 42, 3]),
    ],
)
def test_ids_become_what_the_source_calls_them(name, ids, expected):
    np.testing.assert_array_equal(convert(np.array(ids, float)[:, None, None], name).ravel(), expected)


def test_gif_and_neuromorphometrics_differ_by_one():
    """The numbering of GIF's structures follows Neuromorphometrics; so do their conversions."""
    gif, manual = conversion_table("gif"), conversion_table("neuromorphometrics")
    names = {int(row["index"]): row["name"] for row in rows_of("gif")}
    for row in rows_of("neuromorphometrics"):
        index = int(row["index"])
        if names.get(index + 1) == row["name"] and "Exterior" not in row["name"]:
            assert gif[index + 1] == manual[index], row
    assert sum(names.get(int(row["index"]) + 1) == row["name"] for row in rows_of("neuromorphometrics")) > 120


def test_what_has_no_side_joins_the_nearer_one_in_mm():
    labels = np.full((9, 3, 3), 253)
    labels[0], labels[8] = 2, 41
    converted = convert(labels, "aseg")
    assert (converted[:4] == 2).all() and (converted[5:] == 41).all()
    plane = np.array([[2, 0], [253, 41], [0, 0]])[:, :, None]  # neighbours along two axes
    assert convert(plane, "aseg", voxel_size=(1, 5, 1))[1, 0, 0] == 2
    assert convert(plane, "aseg", voxel_size=(5, 1, 1))[1, 0, 0] == 41


def test_structures_without_a_side_do_not_decide_for_each_other():
    labels = np.array([2, 77, 251, 252, 0, 0, 41])[:, None, None]
    np.testing.assert_array_equal(convert(labels, "aseg").ravel(), [2, 2, 2, 2, 0, 0, 41])
    labels = np.array([2, 0, 0, 77, 251, 41])[:, None, None]
    np.testing.assert_array_equal(convert(labels, "aseg").ravel(), [2, 0, 0, 41, 41, 41])


def test_unknown_ids_are_named_or_dropped():
    labels = np.array([17, 1234, 4321])[:, None, None]
    with pytest.raises(ValueError, match=r"aseg has no 1234, 4321.*unknown='background'"):
        convert(labels, "aseg")
    np.testing.assert_array_equal(convert(labels, "aseg", "background").ravel(), [17, 0, 0])


@pytest.mark.parametrize(
    ("labels", "name", "unknown", "message"),
    [
        ([17], "talairach", "error", "use one of aseg, aparc"),
        ([17], "aseg", "drop", "neither 'error' nor 'background'"),
        ([17.5], "aseg", "error", "interpolated"),
        ([np.nan], "aseg", "error", "whole numbers"),
        ([-1], "aseg", "error", "between 0 and"),
        ([10**9], "aseg", "error", "between 0 and"),
        ([77, 17], "aseg", "error", "nearest of 2, 41, of which this map has none"),
    ],
)
def test_what_is_no_label_map_of_the_convention_is_refused(labels, name, unknown, message):
    with pytest.raises(ValueError, match=message):
        convert(np.array(labels)[:, None, None], name, unknown)
