"""What weights ought to reach, and whether they do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Bar:
    """One demand on a measure of :meth:`synthseg_training.evaluation.scans.Evaluation.measures`.

    Attributes
    ----------
    measure : str
        Its name.
    at_least, at_most : float or None
        The bound; one of them is given.
    """

    measure: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"the bar {self.measure!r} needs either at_least or at_most")

    def reached(self, value: float) -> bool:
        """Return whether a value keeps to the bound."""
        return value >= self.at_least if self.at_most is None else value <= self.at_most


def load_bars(path: str | Path) -> list[Bar]:
    """Read a YAML file: a list of mappings with the fields of :class:`Bar`.

    Raises
    ------
    ValueError
        The file is no such list.
    """
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    try:
        return [Bar(**entry) for entry in content]
    except TypeError as error:
        raise ValueError(f"{path} is no list of bars with measure and at_least or at_most: {error}") from error


def table(bars: list[Bar], measures: dict[str, float]) -> str:
    """Return the bars as a Markdown table; a measure that was not taken has no verdict."""
    lines = ["| measure | bar | measured | reached |", "| --- | --- | --- | --- |"]
    for bar in bars:
        bound = f"≥ {bar.at_least:g}" if bar.at_most is None else f"≤ {bar.at_most:g}"
        value = measures.get(bar.measure)
        verdict = ("–", "not measured") if value is None else (f"{value:.3f}", "yes" if bar.reached(value) else "no")
        lines.append(f"| {bar.measure} | {bound} | {' | '.join(verdict)} |")
    return "\n".join(lines) + "\n"
