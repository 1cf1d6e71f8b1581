"""Volumes from posteriors and their tables."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from synthseg_slicer.errors import OutputError
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.measure import INTRACRANIAL, total_intracranial, volumes, write_volumes_csv, write_volumes_table
from synthseg_slicer.predict import TopPosteriors

NAMES = {label.id: label.name for label in BRAIN}


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


def test_volume_table_reads_back_with_full_precision(tmp_path):
    values = {17: 1 / 3, 18: 12345.678901234567}
    write_volumes_csv(tmp_path / "v.csv", values, NAMES)
    rows = list(csv.DictReader((tmp_path / "v.csv").open()))
    assert [row["structure"] for row in rows] == ["Left-Hippocampus", "Left-Amygdala", INTRACRANIAL]
    assert {int(row["label"]): float(row["volume_mm3"]) for row in rows[:2]} == values
    assert float(rows[2]["volume_mm3"]) == sum(values.values()) and rows[2]["label"] == ""


def test_table_of_several_scans_has_a_row_a_scan(tmp_path):
    write_volumes_table(tmp_path / "v.csv", {"a": {17: 1.0, 18: 2.0}, "b": {17: 3.0, 18: 4.5}}, NAMES)
    header, *rows = csv.reader((tmp_path / "v.csv").open())
    assert header == ["scan", "Left-Hippocampus", "Left-Amygdala", INTRACRANIAL]
    assert rows == [["a", "1.0", "2.0", "3.0"], ["b", "3.0", "4.5", "7.5"]]


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(OutputError):
        write_volumes_csv(tmp_path / "absent" / "v.csv", {17: 1.0}, NAMES)
    assert list(tmp_path.iterdir()) == []
