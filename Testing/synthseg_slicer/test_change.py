"""Change of volumes, and when it counts as more than noise."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthseg_slicer.change import (
    DECREASE,
    INCREASE,
    NOISE,
    changes,
    check_years,
    symmetrised_percent,
    write_changes_csv,
    years_of,
)
from synthseg_slicer.errors import OptionError, WeightsError
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.rescan import RescanNoise
from synthseg_slicer.weights import load_model

LABELS = [label for label in BRAIN if label.id in (0, 4, 16, 17)]
FIRST, LATER = {4: 1000.0, 16: 20000.0, 17: 0.0}, {4: 1100.0, 16: 19900.0, 17: 0.0}


def noise(weights=("a",), ids=(4, 16, 17, None), deviations=(1.0, 0.5, 2.0, 0.1)) -> RescanNoise:
    return RescanNoise(list(weights), list(ids), list(deviations), ["any"], 1.2, {"pairs": 9})


def test_change_is_told_in_mm3_percent_and_per_year_with_the_total_last():
    ventricle, stem, hippocampus, total = changes([FIRST, LATER], LABELS, years=[1.5, 3.5])
    assert (ventricle.structure, ventricle.label, ventricle.first, ventricle.later) == (
        "Left-Lateral-Ventricle",
        4,
        1,
        2,
    )
    assert ventricle.change_mm3 == 100 and ventricle.change_percent == pytest.approx(100 * 100 / 1050)
    assert ventricle.percent_per_year == pytest.approx(100 * 100 / 1050 / 2)
    assert stem.change_percent == pytest.approx(-100 * 100 / 19950)
    assert hippocampus.change_mm3 == 0 and hippocampus.change_percent is hippocampus.percent_per_year is None
    assert (total.structure, total.label, total.first_mm3, total.later_mm3) == (
        "Total-Intracranial",
        None,
        21000,
        21000,
    )
    assert not any(row.verdict or row.threshold_percent for row in (ventricle, stem, total))


def test_only_what_exceeds_its_own_threshold_is_called_a_change():
    thresholds = {4: 9.0, 16: 0.5, 17: 3.0, None: 0.2}
    rows = changes([FIRST, LATER], LABELS, thresholds)
    assert [row.verdict for row in rows] == [INCREASE, DECREASE, "", NOISE]
    assert [row.threshold_percent for row in rows] == [9.0, 0.5, None, 0.2]
    edge = symmetrised_percent(1000.0, 1100.0)
    assert changes([FIRST, LATER], LABELS, {4: edge})[0].verdict == NOISE


def test_later_timepoints_are_each_compared_with_the_first():
    rows = changes([FIRST, LATER, {4: 900.0, 16: 20000.0, 17: 0.0}], LABELS, years=[0, 1, 4])
    ventricles = [row for row in rows if row.label == 4]
    assert [(row.first, row.later, row.later_mm3) for row in ventricles] == [(1, 2, 1100.0), (1, 3, 900.0)]
    assert ventricles[1].percent_per_year == pytest.approx(-100 * 100 / 950 / 4)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_exchanging_the_timepoints_turns_the_sign_exactly(first, later):
    percent = symmetrised_percent(first, later)
    assert (percent is None) == (first == later == 0)
    if percent is not None:
        assert -200 <= percent <= 200 and symmetrised_percent(later, first) == -percent


def test_the_threshold_holds_95_percent_of_differences_of_an_unchanged_head():
    rng = np.random.default_rng(0)
    visits = 1000 * (1 + rng.normal(0, 0.01, (20_000, 2)))  # a standard error of measurement of 1 %
    differences = np.abs([symmetrised_percent(*pair) for pair in visits])
    threshold = noise().thresholds()[4]
    assert threshold == pytest.approx(1.96 * np.sqrt(2)) and set(noise().thresholds()) == {4, 16, 17, None}
    assert np.mean(differences <= threshold) == pytest.approx(0.95, abs=0.006)


@pytest.mark.parametrize(
    ("years", "message"),
    [
        ([0.0], "2 timepoints but 1 times"),
        ([1.0, 1.0], "2 .at 1 years. is not later than timepoint 1"),
        ([2.0, 1.0], "from the first to the last"),
        ([0.0, float("nan")], "not later"),
    ],
)
def test_times_must_rise_and_belong_to_the_timepoints(years, message):
    with pytest.raises(OptionError, match=message):
        check_years(years, 2)


def test_dates_become_years():
    assert years_of(["2020-01-01", "2022-01-01"]) == pytest.approx([0, 2], abs=2e-3)
    check_years(None, 5)
    with pytest.raises(OptionError, match=r"is no date\. Write it as"):
        years_of(["2020-01-01", "31.5.2024"])


def test_the_table_holds_full_numbers_and_leaves_empty_what_there_is_not(tmp_path):
    rows = changes([FIRST, LATER], LABELS, {4: 1 / 3})
    write_changes_csv(tmp_path / "c.csv", rows)
    with (tmp_path / "c.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["structure"] for row in table] == [row.structure for row in rows]
    assert float(table[0]["threshold_percent"]) == 1 / 3 and float(table[0]["change_percent"]) == rows[0].change_percent
    assert table[1]["threshold_percent"] == table[2]["change_percent"] == table[3]["label"] == ""
    assert [row["verdict"] for row in table] == [INCREASE, "", "", ""]


def test_rescan_noise_is_taken_only_by_the_weights_that_it_was_measured_with(tiny_weights):
    file = tiny_weights.with_name("tiny-rescan.json")
    assert load_model(path=tiny_weights).rescan is None
    noise(weights=["f" * 64]).save(file)
    assert load_model(path=tiny_weights).rescan is None
    model = load_model(path=tiny_weights)
    noise(weights=model.all_sha256).save(file)
    assert load_model(path=tiny_weights).rescan == noise(weights=model.all_sha256)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("deviations"),
        lambda content: content["deviations"].pop(),
        lambda content: content["deviations"].__setitem__(1, -1.0),
        lambda content: content.update(coarsest=float("nan")),
        lambda content: content.update(deviations="four"),
    ],
)
def test_damaged_rescan_noise_is_refused(tmp_path, damage):
    file = tmp_path / "x-rescan.json"
    noise().save(file)
    assert RescanNoise.load(file) == noise()
    content = json.loads(file.read_text())
    damage(content)
    file.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"rescan noise .* is damaged"):
        RescanNoise.load(file)
