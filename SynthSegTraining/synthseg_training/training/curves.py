"""Learning curves: a CSV row every few steps and a picture of them."""

from __future__ import annotations

import csv
from pathlib import Path

COLUMNS = ("step", "minutes", "stage", "rate", "loss")


class Curves:
    """Append rows to ``curves.csv``; a resumed training first drops the rows beyond the step it resumes from.

    Parameters
    ----------
    folder : Path
        Where ``curves.csv`` and ``curves.png`` lie.
    step : int
        Step from which training goes on; 0 starts a new table.
    score : str
        Column of the validation, a number between 0 and 1.
    """

    def __init__(self, folder: Path, step: int = 0, score: str = "validation_dice"):
        self.columns = (*COLUMNS, score)
        self.path = folder / "curves.csv"
        self.rows: list[dict[str, str]] = []
        if step and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= step]
        folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)

    @property
    def minutes(self) -> float:
        """Minutes of training that the earlier rows stand for."""
        return float(self.rows[-1]["minutes"]) if self.rows else 0.0

    def add(self, step: int, minutes: float, stage: str, rate: float, loss: float, score: float | None = None) -> None:
        """Append one row; losses are means since the row before."""
        shown = "" if score is None else f"{score:.5f}"
        values = (str(step), f"{minutes:.3f}", stage, f"{rate:.3g}", f"{loss:.5f}", shown)
        self.rows.append(dict(zip(self.columns, values)))
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, self.columns).writerow(self.rows[-1])

    def draw(self) -> Path | None:
        """Write ``curves.png``; None where matplotlib is absent or nothing was logged yet."""
        try:
            import matplotlib
        except ImportError:
            return None
        if not self.rows:
            return None
        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        score = self.columns[-1]
        validated = [r for r in self.rows if r[score]]
        rows = 2 if validated else 1
        figure, axes = plt.subplots(rows, squeeze=False, sharex=True, figsize=(8, 3 * rows), layout="constrained")
        upper, lower = axes[0, 0], axes[-1, 0]
        upper.plot([int(r["step"]) for r in self.rows], [float(r["loss"]) for r in self.rows], color="tab:blue", lw=1)
        upper.set(ylabel="training loss", yscale="log")
        if validated:
            scores = [float(r[score]) for r in validated]
            lower.plot([int(r["step"]) for r in validated], scores, "o-", color="tab:orange")
            lower.set(ylabel=f"{score.replace('_', ' ')}, held-out maps", ylim=(0, 1))
        lower.set(xlabel="step")
        stages = [self.rows[0], *(b for a, b in zip(self.rows, self.rows[1:]) if a["stage"] != b["stage"])]
        for row in stages:
            upper.axvline(int(row["step"]), color="0.8", lw=0.8, zorder=0)
            upper.text(
                int(row["step"]), 1, " " + row["stage"], transform=upper.get_xaxis_transform(), fontsize=7, va="top"
            )
        path = self.path.with_suffix(".png")
        figure.savefig(path, dpi=100)
        plt.close(figure)
        return path
