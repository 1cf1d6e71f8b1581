"""Tests, effect sizes and intervals of the papers: Billot et al. 2023 (table 2, eq. 28) and Chalcroft et al. 2025."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

SIGNIFICANCE = (0.05, 0.01, 0.001)
"""Levels of one, two and three stars. Billot et al. mark the 5 % level only, which is the first star."""


def wilcoxon(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return statistic and p of the two-sided Wilcoxon signed-rank test of paired values.

    Pairs with a NaN are left out, those without a difference do not count (Wilcoxon 1945). The distribution is exact
    for few pairs without ties, as :func:`scipy.stats.wilcoxon` decides; p is 1 where no pair differs.

    Parameters
    ----------
    a, b : sequence of float
        Values of the same scans in the same order.

    Raises
    ------
    ValueError
        The lengths differ, or no pair is left.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a signed-rank test needs pairs, not {a.shape} and {b.shape} values")
    differences = (a - b)[~np.isnan(a - b)]
    if not len(differences):
        raise ValueError("a signed-rank test needs at least one pair without NaN")
    if not differences.any():
        return 0.0, 1.0
    result = stats.wilcoxon(differences)
    return float(result.statistic), float(result.pvalue)


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return statistic and p of the two-sided Mann-Whitney U test (rank sum) of two groups of different people.

    Raises
    ------
    ValueError
        A group is empty, or holds NaN.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if not a.size or not b.size or np.isnan(a).any() or np.isnan(b).any():
        raise ValueError("a rank-sum test needs two groups with values and without NaN")
    result = stats.mannwhitneyu(a, b)
    return float(result.statistic), float(result.pvalue)


def bonferroni(p_values: Iterable[float]) -> np.ndarray:
    """Return p-values times their number, at most 1; NaN is no test that was made and remains NaN."""
    p_values = np.asarray(list(p_values), float)
    return np.minimum(p_values * np.count_nonzero(~np.isnan(p_values)), 1.0)


def stars(p: float) -> str:
    """Return a star for each level of :data:`SIGNIFICANCE` that p stays below; none for NaN."""
    return "*" * sum(p < level for level in SIGNIFICANCE)


def compare_methods(
    table: pd.DataFrame, *, value: str, method: str, unit: str, category: str | None = None
) -> pd.DataFrame:
    """Compare every two methods on the same scans by the Wilcoxon signed-rank test.

    Parameters
    ----------
    table : DataFrame
        One row a score.
    value, method, unit : str
        Columns: the score, who made it, and the scan that pairs it.
    category : str, optional
        Column within whose values, such as data sets, the comparisons are made.

    Returns
    -------
    DataFrame
        Columns ``category`` (under its own name), ``first, second, pairs, median_difference, statistic, p, p_corrected,
        stars``; the Bonferroni correction counts every test of the table. Without common scans p is NaN.

    Raises
    ------
    ValueError
        A method has several scores of one scan, which have to be averaged before.
    """
    rows = []
    for name, part in [(None, table)] if category is None else table.groupby(category, sort=False, observed=True):
        repeated = part.duplicated([unit, method])
        if repeated.any():
            first = part[repeated].iloc[0]
            raise ValueError(f"{first[method]} has several scores of {first[unit]}: average them before the comparison")
        wide = part.pivot(index=unit, columns=method, values=value)
        for first, second in combinations(dict.fromkeys(part[method]), 2):
            both = wide[[first, second]].dropna()
            statistic, p = wilcoxon(both[first], both[second]) if len(both) else (np.nan, np.nan)
            difference = (both[first] - both[second]).median()
            row = {"first": first, "second": second, "pairs": len(both), "median_difference": difference}
            row |= {"statistic": statistic, "p": p}
            rows.append(row if category is None else {category: name, **row})
    columns = ["first", "second", "pairs", "median_difference", "statistic", "p"]
    result = pd.DataFrame(rows, columns=columns if category is None else [category, *columns])
    result["p_corrected"] = bonferroni(result["p"])
    result["stars"] = result["p_corrected"].map(stars).astype(object)
    return result


def best_methods(
    table: pd.DataFrame,
    *,
    value: str,
    method: str,
    unit: str,
    category: str | None = None,
    larger_is_better: bool = True,
) -> pd.DataFrame:
    """Return the best method, and whether it is better than all others, as table 2 of Billot et al. marks it.

    Parameters
    ----------
    table, value, method, unit, category
        As for :func:`compare_methods`.
    larger_is_better : bool
        True for Dice, False for distances.

    Returns
    -------
    DataFrame
        A row a category: its name, ``best`` (by the mean), ``mean``, ``p_corrected`` (the largest against the others;
        NaN where one of them shares no scan, or there is no other) and ``stars``.
    """
    comparisons = compare_methods(table, value=value, method=method, unit=unit, category=category)
    rows = []
    for name, part in [(None, table)] if category is None else table.groupby(category, sort=False, observed=True):
        means = part.groupby(method, sort=False, observed=True)[value].mean().dropna()
        if means.empty:
            continue
        best = means.idxmax() if larger_is_better else means.idxmin()
        own = comparisons if category is None else comparisons[comparisons[category] == name]
        own = own.loc[own["first"].eq(best) | own["second"].eq(best), "p_corrected"]
        p = own.max(skipna=False) if len(own) else np.nan
        row = {"best": best, "mean": means[best], "p_corrected": p, "stars": stars(p)}
        rows.append(row if category is None else {category: name, **row})
    columns = ["best", "mean", "p_corrected", "stars"]
    return pd.DataFrame(rows, columns=columns if category is None else [category, *columns])


def median_interval(
    values: Iterable[float], level: float = 0.95, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float, float]:
    """Return the median and the interval that tables 1 to 4 of Chalcroft et al. put around it.

    Half its width is Student's t times the standard error of the mean; as in those tables it ends where the score does.

    Parameters
    ----------
    values : iterable of float
        Scores without NaN.
    level : float
        Of confidence.
    bounds : tuple of float
        Least and largest value that the score can have, such as (0, 1) for Dice.

    Returns
    -------
    tuple of float
        Median, low, high; the latter NaN for a single value.

    Raises
    ------
    ValueError
        There is no value, or a NaN.
    """
    values = np.asarray(list(values), float)
    if not values.size or np.isnan(values).any():
        raise ValueError("a median with its interval needs values without NaN")
    middle = float(np.median(values))
    if len(values) < 2:
        return middle, float("nan"), float("nan")
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return middle, float(max(middle - half, bounds[0])), float(min(middle + half, bounds[1]))


class EffectSize(NamedTuple):
    """Cohen's d and the bounds of its confidence interval."""

    d: float
    low: float
    high: float


class _Model(NamedTuple):
    """Least squares value = mean + group + covariates.

    ``slopes`` belong to the columns of ``covariates`` [n, k], which are centred; ``variance`` is the factor between the
    residual variance and that of the group's coefficient; ``freedom`` the residual degrees of freedom.
    """

    covariates: np.ndarray
    slopes: np.ndarray
    variance: float
    freedom: int


def _fit(values: np.ndarray, in_a: np.ndarray, covariates: np.ndarray, with_group: bool = True) -> _Model:
    spread = covariates.std(0)
    covariates = ((covariates - covariates.mean(0)) / np.where(spread > 0, spread, 1))[:, spread > 0]
    without = np.column_stack([np.ones(len(values)), covariates])
    design = np.column_stack([in_a, without]) if with_group else without
    rank = np.linalg.matrix_rank(design)
    if with_group and rank == np.linalg.matrix_rank(without):
        raise ValueError("the covariates tell the groups apart by themselves: their effects cannot be separated")
    if len(values) <= rank:
        raise ValueError(f"{len(values)} people are too few for a linear model of {rank} parameters")
    inverse = np.linalg.pinv(design)
    slopes = (inverse @ values)[1 + with_group :]
    return _Model(covariates, slopes, float(inverse[0] @ inverse[0]), len(values) - rank)


def _checked(a, b, covariates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a, b = np.asarray(a, float), np.asarray(b, float)
    sizes = (len(a), len(b))
    if covariates is None:
        covariates = tuple(np.zeros((size, 0)) for size in sizes)
    covariates = [np.asarray(part, float).reshape(size, -1) for part, size in zip(covariates, sizes)]
    covariates = np.concatenate(covariates)
    values = np.concatenate([a, b])
    if min(sizes) < 1 or np.isnan(values).any() or np.isnan(covariates).any():
        raise ValueError("groups need values and covariates without NaN; leave incomplete people out")
    return values, np.arange(len(values)) < len(a), covariates


def corrected(
    a: Sequence[float], b: Sequence[float], covariates: tuple[np.ndarray, np.ndarray], *, with_group: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return two groups' values corrected for covariates by a linear model: what they would be at the mean covariates.

    Parameters
    ----------
    a, b : sequence of float
        Values such as volumes in mm³.
    covariates : tuple of array [n, k]
        Of both groups, such as age in years, sex as 0 or 1 and intracranial volume in mm³.
    with_group : bool
        Whether the model has a term for the group. With it (analysis of covariance) a difference between the groups is
        not taken for an effect of age where the groups differ in age. Without it the values are those to test the
        hypothesis that there is no such difference.

    Returns
    -------
    tuple of array
        Corrected values of both groups, with the mean of all left as it was.

    Raises
    ------
    ValueError
        NaN, too few people, or a covariate that is the group.
    """
    values, in_a, covariates = _checked(a, b, covariates)
    model = _fit(values, in_a, covariates, with_group)
    result = values - model.covariates @ model.slopes
    return result[in_a], result[~in_a]


def cohens_d(
    a: Sequence[float],
    b: Sequence[float],
    *,
    covariates: tuple[np.ndarray, np.ndarray] | None = None,
    level: float = 0.95,
) -> EffectSize:
    """Return Cohen's d of two groups (eq. 28 of Billot et al. 2023), positive where the values of ``a`` are larger.

    Parameters
    ----------
    a, b : sequence of float
        Values of controls and patients.
    covariates : tuple of array [n, k], optional
        What values are corrected for, see :func:`corrected`.
    level : float
        Of confidence.

    Returns
    -------
    EffectSize
        d of the corrected values. The interval is that of the difference in residual standard deviations of the linear
        model, by inversion of the noncentral t distribution (Steiger and Fouladi 1997), so that it counts what the
        correction has cost. NaN where the values of neither group differ.

    Raises
    ------
    ValueError
        As for :func:`corrected`, or fewer than three people.
    """
    values, in_a, covariates = _checked(a, b, covariates)
    if len(values) < 3:
        raise ValueError("Cohen's d needs at least three people")
    model = _fit(values, in_a, covariates)
    values = values - model.covariates @ model.slopes
    a, b = values[in_a], values[~in_a]
    difference = a.mean() - b.mean()
    squares = np.square(a - a.mean()).sum() + np.square(b - b.mean()).sum()
    # Rounding leaves a residue of values that are all equal.
    if squares <= (len(values) * np.finfo(float).eps * np.abs(values).max()) ** 2:
        return EffectSize(float("nan"), float("nan"), float("nan"))
    unit = np.sqrt(model.variance)
    t = difference / (np.sqrt(squares / model.freedom) * unit)
    bounds = special.nctdtrinc(model.freedom, [(1 + level) / 2, (1 - level) / 2], t) * unit
    return EffectSize(float(difference / np.sqrt(squares / (len(values) - 2))), *map(float, bounds))
