"""Comparisons of settings, methods or trainings with one of them, over the same scans."""

from __future__ import annotations

import pandas as pd

from synthseg_training.evaluation.statistics import SIGNIFICANCE, bonferroni, compare_methods, stars


def against(
    table: pd.DataFrame, *, of: str, baseline: str, value: str, pair: str, category: str | None = None
) -> pd.DataFrame:
    """Compare every level of a column with one of them by the Wilcoxon signed-rank test.

    Parameters
    ----------
    table : DataFrame
        Scores in long form; those of one pair and level are averaged first.
    of : str
        Column whose levels are compared.
    baseline : str
        The level to compare with.
    value : str
        Column of the scores.
    pair : str
        Column that pairs them: the scan, structure or patient.
    category : str, optional
        Column within whose values the comparisons are made.

    Returns
    -------
    DataFrame
        ``category`` (under its own name), ``of``, ``pairs``, ``median_difference`` (level minus baseline), ``p``,
        ``p_corrected`` (Bonferroni, for all rows), ``stars``.
    """
    keys = [of, pair] if category is None else [category, of, pair]
    means = table.groupby(keys, sort=False)[value].mean().reset_index()
    means = means.sort_values(of, key=lambda level: level != baseline, kind="stable")  # the baseline comes first
    pairs = compare_methods(means, value=value, method=of, unit=pair, category=category)
    pairs = pairs[pairs["first"] == baseline].rename(columns={"second": of}).reset_index(drop=True)
    pairs["median_difference"] = 0.0 - pairs["median_difference"]  # of no difference 0, not -0
    pairs["p_corrected"] = bonferroni(pairs["p"])
    pairs["stars"] = pairs["p_corrected"].map(stars).astype(object)
    return pairs[[*keys[:-1], "pairs", "median_difference", "p", "p_corrected", "stars"]]


def fewest_pairs(comparisons: int) -> int:
    """Return how many pairs a corrected test takes at least to be significant: the smallest p of n pairs is 2 / 2^n."""
    count = 1
    while 2 / 2**count * max(1, comparisons) >= SIGNIFICANCE[0]:
        count += 1
    return count


def note(comparisons: pd.DataFrame, what: str) -> str:
    """Return a sentence on how the comparisons were made and whether there were pairs enough for any star."""
    if comparisons.empty:
        return "There was nothing to compare."
    needed, there = fewest_pairs(len(comparisons)), int(comparisons["pairs"].max())
    text = f"Two-sided Wilcoxon signed-rank tests over {what}, Bonferroni-corrected for {len(comparisons)} comparisons"
    if there < needed:
        return f"{text}. With {there} pairs none can be significant: it takes {needed}. No star means no evidence here."
    return f"{text}: * p < .05, ** p < .01, *** p < .001."
