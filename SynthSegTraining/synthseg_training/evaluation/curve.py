"""Learning curve on real scans: Dice of several snapshots against their steps, and where it leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from synthseg_training.evaluation.scans import evaluate
from synthseg_training.export import load_snapshot
from synthseg_training.training.recipe import Recipe


@dataclass(frozen=True)
class PowerLaw:
    """1 - Dice = exp(intercept) * steps^slope, a line in logarithms.

    Attributes
    ----------
    slope, intercept : float
    covariance : array [2, 2]
        Of the two, from the scatter around the line.
    """

    slope: float
    intercept: float
    covariance: np.ndarray

    @classmethod
    def fit(cls, steps: Sequence[float], dice: Sequence[float]) -> PowerLaw:
        """Fit at least four points by least squares."""
        if len(steps) < 4:
            raise ValueError(f"a power law with its uncertainty needs at least 4 snapshots, not {len(steps)}")
        (slope, intercept), covariance = np.polyfit(np.log(steps), np.log(1 - np.asarray(dice)), 1, cov=True)
        return cls(float(slope), float(intercept), covariance)

    def predict(self, steps: float) -> tuple[float, float, float]:
        """Return Dice at a number of steps, and the bounds of two standard errors of the line."""
        point = np.array([np.log(steps), 1.0])
        middle, error = point @ (self.slope, self.intercept), np.sqrt(point @ self.covariance @ point)
        return tuple(float(1 - np.exp(middle + k * error)) for k in (0, 2, -2))


def learning_curve(
    folder: str | Path,
    recipe: Recipe,
    snapshots: Sequence[str | Path],
    *,
    names: Sequence[str] = (),
    fast: bool = True,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Score snapshots of one training on real scans.

    Parameters
    ----------
    folder : path
        The scans, as for :func:`synthseg_training.evaluation.scans.evaluate`.
    recipe : Recipe
        Of the training.
    snapshots : sequence of path
        Files of :func:`synthseg_training.training.loop.fit`.
    names : sequence of str
        Restrict to these scans.
    fast : bool
        One pass.
    report : callable
        Receives a line per snapshot.

    Returns
    -------
    DataFrame
        Columns ``steps, scan, dice``, by steps.
    """
    rows = []
    for path in snapshots:
        model, steps = load_snapshot(recipe, path)
        scores = evaluate(folder, model, names=names, fast=fast, sd95=False, report=lambda line: None).scores
        by_scan = scores.groupby("scan")["dice"].mean()
        rows += [{"steps": steps, "scan": scan, "dice": value} for scan, value in by_scan.items()]
        report(f"step {steps}: Dice {by_scan.mean():.3f}")
    return pd.DataFrame(rows, columns=["steps", "scan", "dice"]).sort_values(["steps", "scan"], ignore_index=True)


def draw(curve: pd.DataFrame, path: Path) -> str:
    """Draw Dice against steps with the power law to ten times the steps, and return what it predicts in a sentence."""
    from matplotlib.figure import Figure

    mean = curve.groupby("steps")["dice"].mean()
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for scan, rows in curve.groupby("scan"):
        axes.plot(rows["steps"], rows["dice"], ".-", lw=0.8, alpha=0.6, label=scan)
    axes.plot(mean.index, mean, "o-", color="black", label="mean")
    text = "Fewer than four snapshots: no prediction."
    if len(mean) >= 4:
        law, last = PowerLaw.fit(mean.index, mean), int(mean.index[-1])
        steps = np.geomspace(mean.index[0], 10 * last, 50)
        middle, low, high = zip(*(law.predict(step) for step in steps))
        axes.plot(steps, middle, "--", color="black", lw=1)
        axes.fill_between(steps, low, high, color="black", alpha=0.1)
        middle, low, high = law.predict(10 * last)
        text = (
            f"Power law: Dice {middle:.3f} ({low:.3f} to {high:.3f}) after {10 * last:,} steps, slope {law.slope:.3f}."
        )
    axes.set(xscale="log", xlabel="steps", ylabel="mean Dice")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return text
