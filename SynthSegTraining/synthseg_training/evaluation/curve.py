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

LEAST = 5
"""Snapshots for a prediction: a power law with a floor has three parameters."""
DRAWS = 300
FLOOR = 1e-3
"""Least floor, in Dice, that counts as one."""


@dataclass(frozen=True)
class PowerLaw:
    """1 - Dice = floor + amount * (steps / first)^-rate.

    Attributes
    ----------
    floor, amount, rate : float
        The floor is 0 where the data do not tell it from none.
    first : float
        The smallest of the steps, to which ``amount`` belongs.
    draws : array [DRAWS, 3]
        Floor, amount and rate fitted to resampled residuals, with the floor free in all of them: the uncertainty of a
        prediction is honest only if it counts that the curve may flatten out.
    """

    floor: float
    amount: float
    rate: float
    first: float
    draws: np.ndarray

    @classmethod
    def fit(cls, steps: Sequence[float], dice: Sequence[float], seed: int = 0) -> PowerLaw:
        """Fit by least squares in the logarithm of the error, with a bootstrap of the residuals.

        The scatter of the snapshots is taken to be independent; that of neighbours on one training is not quite, so
        that the uncertainty is a lower bound.

        Raises
        ------
        ValueError
            There are fewer than five snapshots, or one without an error.
        """
        steps, error = np.asarray(steps, float), 1 - np.asarray(dice, float)
        if len(np.unique(steps)) < LEAST:
            raise ValueError(f"a power law with its uncertainty needs at least {LEAST} snapshots, not {len(steps)}")
        if not np.all((error > 0) & (error <= 1)):
            raise ValueError("a power law needs Dice scores of at least 0 and below 1")
        first = steps.min()
        time = np.log(steps / first)
        best = _least_squares(time, error)
        expected = _error(best, time)
        # Fitted residuals are too small by the parameters that they were spent on.
        residuals = np.log(error / expected) * np.sqrt(len(steps) / (len(steps) - len(best)))
        rng = np.random.default_rng(seed)
        draws = np.array(
            [_least_squares(time, expected * np.exp(rng.choice(residuals, len(steps)))) for _ in range(DRAWS)]
        )
        if np.quantile(draws[:, 0], 0.025) < FLOOR:
            slope, intercept = np.polyfit(time, np.log(error), 1)
            best = np.array([0.0, np.exp(intercept), -slope])
        return cls(*map(float, best), float(first), draws)

    def predict(self, steps: float) -> tuple[float, float, float]:
        """Return Dice at a number of steps, and the bounds of its 95 % interval."""
        time = np.log(steps / self.first)
        middle = 1 - _error((self.floor, self.amount, self.rate), time)
        low, high = np.quantile([1 - _error(draw, time) for draw in self.draws], [0.025, 0.975])
        # A law without a floor is the hopeful end of what fits; its own value belongs to the interval.
        return float(middle), float(min(low, middle)), float(max(high, middle))

    def __str__(self) -> str:
        """Return the formula."""
        floor = f"{self.floor:.3f} + " if self.floor else ""
        return f"1 - Dice = {floor}{self.amount:.3f} (steps / {self.first:,.0f})^-{self.rate:.3f}"


def _error(law: Sequence[float], time: np.ndarray | float) -> np.ndarray:
    floor, amount, rate = law
    return floor + amount * np.exp(-rate * np.asarray(time))


def _least_squares(time: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return floor, amount and rate of the least squares in log error.

    For each floor of a grid the rest is a weighted line in log(error - floor), which is quicker and surer than a search
    along the flat valley of the three.
    """
    floors = error.min() * np.linspace(0, 0.998, 500)[:, None]
    y = np.log(error - floors)
    weight = ((error - floors) / error) ** 2  # scatter is even in log error, not in log(error - floor)
    weight /= weight.sum(1, keepdims=True)
    mean_time, mean_y = (weight * time).sum(1, keepdims=True), (weight * y).sum(1, keepdims=True)
    away = time - mean_time
    slope = (weight * away * (y - mean_y)).sum(1, keepdims=True) / (weight * away**2).sum(1, keepdims=True)
    rate = np.maximum(-slope, 0)
    amount = np.exp(mean_y + rate * mean_time)
    best = np.square(np.log(_error((floors, amount, rate), time) / error)).sum(1).argmin()
    return np.array([floors[best, 0], amount[best, 0], rate[best, 0]])


def learning_curve(
    folder: str | Path,
    snapshots: Sequence[str | Path],
    *,
    recipe: Recipe | None = None,
    names: Sequence[str] = (),
    fast: bool = False,
    device: str = "auto",
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Score snapshots of one training on real scans.

    Parameters
    ----------
    folder : path
        The scans, as for :func:`synthseg_training.evaluation.scans.evaluate`.
    snapshots : sequence of path
        Files of :func:`synthseg_training.training.loop.fit`, whose steps count from the same beginning.
    recipe : Recipe, optional
        Of the training, see :func:`synthseg_training.export.load_snapshot`.
    names : sequence of str
        Restrict to these scans.
    fast, device
        As for :func:`synthseg_slicer.segment`.
    report : callable
        Receives a line per snapshot.

    Returns
    -------
    DataFrame
        Columns ``steps, scan, dice``, by steps.

    Raises
    ------
    ValueError
        A file is no such snapshot, or two are of the same step, or no scan has a reference.
    """
    rows, seen = [], {}
    for path in snapshots:
        model, steps = load_snapshot(path, recipe)
        if steps in seen:
            raise ValueError(f"{seen[steps]} and {path} are both of step {steps}; name one of them")
        seen[steps] = path
        scores = evaluate(
            folder, model, names=names, fast=fast, device=device, sd95=False, report=lambda line: None
        ).scores
        if scores.empty:
            raise ValueError(f"{folder} holds no reference for the scans to score")
        by_scan = scores.groupby("scan")["dice"].mean()
        rows += [{"steps": steps, "scan": scan, "dice": value} for scan, value in by_scan.items()]
        report(f"step {steps:,}: Dice {by_scan.mean():.3f} ({', '.join(f'{n} {v:.3f}' for n, v in by_scan.items())})")
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
    text = f"Fewer than {LEAST} snapshots: no prediction."
    if len(mean) >= LEAST:
        law, far = PowerLaw.fit(mean.index, mean), 10 * int(mean.index[-1])
        steps = np.geomspace(mean.index[0], far, 50)
        middle, low, high = zip(*(law.predict(step) for step in steps))
        axes.plot(steps, middle, "--", color="black", lw=1, label="power law")
        axes.fill_between(steps, low, high, color="black", alpha=0.1)
        text = f"{law}: Dice {middle[-1]:.3f} (95 %: {low[-1]:.3f} to {high[-1]:.3f}) after {far:,} steps."
    axes.set(xscale="log", xlabel="steps", ylabel="mean Dice")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return text
