"""Error bars of a mean over several trainings and several scans."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

DICE = (0.0, 1.0)
"""Bounds of a Dice score."""


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval; bounds are NaN where one value tells nothing of the spread."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return ``mean (low to high)`` with three decimals."""
        if math.isnan(self.low):
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


def crossed_interval(values: np.ndarray, level: float = 0.95, bounds: tuple[float, float] | None = None) -> Interval:
    """Return the mean of a table of trainings by scans and its interval, for new trainings and new scans.

    Every training is scored on every scan. The two-way model value = mean + training + scan + rest with random effects
    gives the variance of the mean as (M_trainings + M_scans - M_rest) / (trainings * scans), M being the mean squares
    of the analysis of variance (Searle, Casella and McCulloch, Variance Components, 1992, section 4.4); it is not
    taken smaller than that of trainings alone or of scans alone. Degrees of freedom after Satterthwaite (1946).

    Parameters
    ----------
    values : array [trainings, scans]
        With one training the interval is for new scans only, with one scan for new trainings only.
    level : float
        Of confidence.
    bounds : tuple of float, optional
        Least and greatest value that there can be, 0 and 1 of a Dice; the interval ends there.

    Raises
    ------
    ValueError
        The array is empty, not two-dimensional, or holds NaN.
    """
    values = np.asarray(values, float)
    if values.ndim != 2 or not values.size or np.isnan(values).any():
        raise ValueError(f"scores of trainings by scans are needed without gaps, not an array of shape {values.shape}")
    mean, count = float(values.mean()), values.size
    rows, columns = values.shape
    effects = []  # mean squares and degrees of freedom
    if rows > 1:
        effects.append((columns * values.mean(1).var(ddof=1), rows - 1))
    if columns > 1:
        effects.append((rows * values.mean(0).var(ddof=1), columns - 1))
    if not effects:
        return Interval(mean, math.nan, math.nan)
    terms = list(effects)
    if len(effects) == 2:
        rest = values - values.mean(0) - values.mean(1, keepdims=True) + mean
        terms.append((-(rest**2).sum() / ((rows - 1) * (columns - 1)), (rows - 1) * (columns - 1)))
    total = sum(square for square, _ in terms)
    largest, freedom = max(effects)
    if total <= largest:
        total = largest
    else:
        freedom = total**2 / sum(square**2 / own for square, own in terms)
    half = float(stats.t.ppf((1 + level) / 2, freedom) * math.sqrt(total / count))
    low, high = bounds or (-math.inf, math.inf)
    return Interval(mean, max(low, mean - half), min(high, mean + half))
