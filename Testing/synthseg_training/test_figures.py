"""Figures and the numbers written beside them."""

import numpy as np
import pandas as pd
import pytest

from synthseg_training.evaluation.figures import box_plot, effect_plot


@pytest.fixture
def scores():
    """Dice of two methods on ten scans of two data sets; B is better on T1 only, and one scan fails."""
    rng = np.random.default_rng(0)
    rows = []
    for dataset, gain in (("T1", 0.05), ("CT", 0.0)):
        for scan in range(10):
            base = 0.8 + rng.normal(0, 0.02)
            rows.append({"dataset": dataset, "method": "A", "scan": scan, "dice": base})
            rows.append({"dataset": dataset, "method": "B", "scan": scan, "dice": base + gain + rng.normal(0, 0.005)})
    table = pd.DataFrame(rows)
    table.loc[table["dataset"].eq("CT") & table["method"].eq("A") & table["scan"].eq(0), "dice"] = 0.2
    return table


def test_box_plots_are_written_as_pictures_and_numbers(scores, tmp_path):
    options = {"value": "dice", "category": "dataset", "hue": "method"}
    pdf, png, csv = box_plot(scores, tmp_path / "new" / "fig4", **options, unit="scan", label="Dice")
    assert [path.name for path in (pdf, png, csv)] == ["fig4.pdf", "fig4.png", "fig4.csv"]
    assert pdf.read_bytes().startswith(b"%PDF") and png.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["fig4.csv", "fig4.pdf", "fig4.png"]
    numbers = pd.read_csv(csv, keep_default_na=False).set_index(["dataset", "method"])
    assert list(numbers.index) == [("T1", "A"), ("T1", "B"), ("CT", "A"), ("CT", "B")]
    values = scores.loc[scores["dataset"].eq("CT") & scores["method"].eq("A"), "dice"]
    row = numbers.loc[("CT", "A")]
    assert row["number"] == 10 and row["outliers"] >= 1
    assert row["mean"] == pytest.approx(values.mean()) and row["sd"] == pytest.approx(values.std())
    assert [row["q1"], row["median"], row["q3"]] == pytest.approx(list(values.quantile([0.25, 0.5, 0.75])))
    assert row["whisker_low"] >= row["q1"] - 1.5 * (row["q3"] - row["q1"]) > 0.2
    assert numbers["stars"].to_dict() == {("T1", "A"): "", ("T1", "B"): "**", ("CT", "A"): "", ("CT", "B"): ""}
    # two comparisons of ten scans of which all are better: 2 * 2 / 2^10
    assert float(numbers.loc[("T1", "B"), "p_corrected"]) == pytest.approx(2 * 2 / 2**10)


def test_without_pairs_no_test_is_made_and_missing_scores_are_left_out(scores, tmp_path):
    scores.loc[0, "dice"] = np.nan
    *_, csv = box_plot(scores, tmp_path / "plain", value="dice", category="dataset", hue="method")
    numbers = pd.read_csv(csv)
    assert numbers["stars"].isna().all() and list(numbers["number"]) == [9, 10, 10, 10]
    with pytest.raises(ValueError, match="no value of dice"):
        box_plot(scores.assign(dice=np.nan), tmp_path / "none", value="dice", category="dataset", hue="method")


def test_stars_go_to_the_smaller_distance(scores, tmp_path):
    options = {"value": "dice", "category": "dataset", "hue": "method", "unit": "scan", "larger_is_better": False}
    *_, csv = box_plot(scores, tmp_path / "distance", **options)
    numbers = pd.read_csv(csv, keep_default_na=False).set_index(["dataset", "method"])
    assert numbers.loc[("T1", "A"), "stars"] == "**" and numbers.loc[("T1", "B"), "stars"] == ""


def test_effects_are_drawn_for_several_methods(tmp_path):
    table = pd.DataFrame(
        {"structure": ["Left-Hippocampus", "Brain-Stem"] * 2, "method": list("AABB"), "d": [1.4, 0.1, 1.2, np.nan]}
    )
    table = table.assign(d_low=table["d"] - 0.4, d_high=table["d"] + 0.4, stars=["***", "", "**", ""])
    pdf, png, csv = effect_plot(table, tmp_path / "effects", category="structure", hue="method")
    assert pdf.read_bytes().startswith(b"%PDF") and png.read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(csv)) == 4
    with pytest.raises(ValueError, match="no effect size"):
        effect_plot(table[table["d"].isna()], tmp_path / "none", category="structure")
