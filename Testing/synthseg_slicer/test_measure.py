"""Volumes from posteriors and their tables."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from synthseg_slicer.errors import OutputError
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.measure import (
    INTRACRANIAL,
    rows,
    total_intracranial,
    volumes,
    write_volumes_csv,
    write_volumes_table,
)
from synthseg_slicer.predict import TopPosteriors

NAMES = {label.id: label.name for label in BRAIN}
HIPPOCAMPI = [label for label in BRAIN if label.id in (17, 53)]


def halves() -> TopPosteriors:
    """Two voxels: half hippocampus (17), half background; three quarters 17, one quarter amygdala (18)."""
    channels = np.zeros((4, 2, 1, 1), np.uint8)
    channels[:2, :, 0, 0] = [[1, 1], [0, 2]]
    probabilities = np.zeros((4, 2, 1, 1), np.float16)
    probabilities[:2, :, 0, 0] = [[0.5, 0.75], [0.5, 0.25]]
    return TopPosteriors(channels, probabilities, (slice(3, 5), slice(0, 1), slice(2, 3)), (9, 9, 9), (0, 17, 18))


def test_volumes_are_sums_of_posteriors_in_cubic_millimetres():
    assert volumes(halves(), 2.0) == {17: 2.5, 18: 0.5}


def test_a_label_that_is_absent_has_volume_zero():
    top = halves()
    assert volumes(TopPosteriors(top.channels, top.probabilities, top.box, top.shape, (0, 17, 18, 24)), 1.0)[24] == 0.0


def test_intracranial_volume_is_the_sum_of_all_structures():
    assert total_intracranial({17: 2.5, 18: 0.5}) == 3.0


def test_there_is_a_row_for_each_structure_in_label_order_and_one_for_the_total():
    found = rows({53: 30.0, 17: 50.0, 16: 20.0}, {17: 0.9}, BRAIN)
    assert [row.label for row in found] == [*(label.id for label in BRAIN if label.id), None]
    by_label = {row.label: row for row in found}
    assert by_label[17].name == "Left-Hippocampus" and by_label[17].volume == 50.0 and by_label[17].share == 0.5
    assert by_label[17].quality == 0.9 and by_label[53].quality is None
    total = found[-1]
    assert (total.name, total.volume, total.share, total.asymmetry, total.quality) == (
        INTRACRANIAL, 100.0, 1.0, None, None,
    )  # fmt: skip


@pytest.mark.parametrize("left, right, index", [(50.0, 30.0, 50.0), (30.0, 50.0, -50.0), (7.0, 0.0, 200.0), (4, 4, 0)])
def test_asymmetry_is_the_difference_in_percent_of_the_mean_on_both_rows_of_a_pair(left, right, index):
    by_label = {row.label: row for row in rows({17: left, 53: right, 16: 20.0}, {}, BRAIN)}
    assert by_label[17].asymmetry == by_label[53].asymmetry == pytest.approx(index)
    assert by_label[16].asymmetry is None  # midline
    assert by_label[18].asymmetry is None  # neither side has a volume


def test_intervals_are_factors_around_the_volume():
    found = {
        row.label: row for row in rows({17: 50.0, 53: 0.0}, {None: 0.8}, HIPPOCAMPI, {17: 1.25, 53: 2.0, None: 1.1})
    }
    assert (found[17].low, found[17].high) == (40.0, 62.5)
    assert (found[53].low, found[53].high) == (None, None)  # there is no factor of nothing
    assert (found[None].low, found[None].high) == (50 / 1.1, 50 * 1.1) and found[None].quality == 0.8


def test_rows_of_an_empty_segmentation_hold_zeros():
    found = rows({}, {}, BRAIN)
    assert all((row.volume, row.share, row.asymmetry, row.quality) == (0.0, 0.0, None, None) for row in found)


def test_volume_table_reads_back_with_full_precision(tmp_path):
    values = {17: 1 / 3, 53: 12345.678901234567}
    write_volumes_csv(tmp_path / "v.csv", rows(values, {17: 2 / 3}, HIPPOCAMPI))
    with (tmp_path / "v.csv").open() as file:
        left, right, total = csv.DictReader(file)
    assert (left["structure"], right["structure"], total["structure"]) == (
        "Left-Hippocampus", "Right-Hippocampus", INTRACRANIAL,
    )  # fmt: skip
    assert {int(row["label"]): float(row["volume_mm3"]) for row in (left, right)} == values
    assert float(left["share"]) == values[17] / sum(values.values()) and float(left["quality"]) == 2 / 3
    asymmetry = 200 * (values[17] - values[53]) / sum(values.values())
    assert float(left["asymmetry_percent"]) == float(right["asymmetry_percent"]) == asymmetry
    assert float(total["volume_mm3"]) == sum(values.values())
    assert total["label"] == total["asymmetry_percent"] == total["quality"] == right["quality"] == ""


def test_table_of_several_scans_has_a_row_a_scan(tmp_path):
    write_volumes_table(tmp_path / "v.csv", {"a": {17: 1.0, 18: 2.0}, "b": {17: 3.0, 18: 4.5}}, NAMES)
    header, *rows = csv.reader((tmp_path / "v.csv").open())
    assert header == ["scan", "Left-Hippocampus", "Left-Amygdala", INTRACRANIAL]
    assert rows == [["a", "1.0", "2.0", "3.0"], ["b", "3.0", "4.5", "7.5"]]


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(OutputError):
        write_volumes_csv(tmp_path / "absent" / "v.csv", rows({17: 1.0}, {}, HIPPOCAMPI))
    assert list(tmp_path.iterdir()) == []
