"""Change of volumes between timepoints, and which of it is more than the noise from scan to scan. Needs no torch."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path

from .errors import OptionError
from .files import atomic
from .labels import Label
from .measure import total_intracranial, total_name

INCREASE, DECREASE, NOISE = "increase", "decrease", "within noise"
DAYS_A_YEAR = 365.25


@dataclass(frozen=True)
class Change:
    """The change of one structure, or of the intracranial total, between two timepoints.

    Attributes
    ----------
    structure : str
    label : int or None
        None for the total.
    first, later : int
        The timepoints, from 1.
    first_mm3, later_mm3 : float
        Volumes.
    change_mm3 : float
    change_percent : float or None
        100 (later - first) / ((later + first) / 2): the same number with the other sign where the two are exchanged
        (symmetrised percent change, Reuter et al. 2012). None where neither has a volume.
    percent_per_year : float or None
        The same by the years between; None where they are not known.
    threshold_percent : float or None
        Smallest detectable change (:meth:`.rescan.RescanNoise.thresholds`); None where it is not known.
    verdict : str
        :data:`INCREASE`, :data:`DECREASE` or :data:`NOISE`; empty without threshold.
    """

    structure: str
    label: int | None
    first: int
    later: int
    first_mm3: float
    later_mm3: float
    change_mm3: float
    change_percent: float | None
    percent_per_year: float | None
    threshold_percent: float | None
    verdict: str


def changes(
    volumes: Sequence[dict[int, float]],
    labels: Iterable[Label],
    thresholds: dict[int | None, float] | None = None,
    years: Sequence[float] | None = None,
) -> list[Change]:
    """Return the change of each structure from the first timepoint to every later one, the total last.

    Parameters
    ----------
    volumes : sequence of dict
        One a timepoint: label id to mm³.
    labels : iterable of Label
        Background is left out.
    thresholds : dict, optional
        Label id, None for the total, to the smallest detectable change in percent.
    years : sequence of float, optional
        When each timepoint was taken.
    """
    labels = [label for label in labels if label.id != 0]
    rows = []
    for later, measured in enumerate(volumes[1:], 2):
        between = None if years is None else years[later - 1] - years[0]
        for label in [*labels, None]:
            key = None if label is None else label.id
            name = total_name(one.id for one in labels) if label is None else label.name
            pair = [total_intracranial(v) if key is None else v.get(key, 0.0) for v in (volumes[0], measured)]
            rows.append(_change(name, key, later, pair, (thresholds or {}).get(key), between))
    return rows


def symmetrised_percent(first: float, later: float) -> float | None:
    """Return 200 (later - first) / (later + first); None where both are 0."""
    return 200 * ((later - first) / (later + first)) if first + later else None


def check_years(years: Sequence[float] | None, number: int) -> None:
    """Refuse times that do not belong to the timepoints, or that do not rise.

    Raises
    ------
    OptionError
    """
    if years is None:
        return
    if len(years) != number:
        raise OptionError(f"There are {number} timepoints but {len(years)} times. Give one a timepoint.")
    for later in range(1, number):
        if not years[later] > years[later - 1]:
            raise OptionError(
                f"Timepoint {later + 1} (at {years[later]:g} years) is not later than timepoint {later} (at "
                f"{years[later - 1]:g}). Give the scans, and their times, from the first to the last."
            )


def years_of(dates: Sequence[str]) -> list[float]:
    """Return the years since the first of some dates, each as 2024-05-31.

    Raises
    ------
    OptionError
        Something is no such date.
    """
    days = []
    for text in dates:
        try:
            days.append(date.fromisoformat(text))
        except ValueError as error:
            raise OptionError(f"'{text}' is no date. Write it as 2024-05-31.") from error
    return [(day - days[0]).days / DAYS_A_YEAR for day in days]


def write_changes_csv(path: str | Path, rows: Iterable[Change]) -> None:
    """Write one row a structure and later timepoint, columns named as in :class:`Change`; what is None is left empty.

    Numbers are written in full precision.
    """
    header = [field.name for field in fields(Change)]
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([getattr(row, name) for name in header] for row in rows)


def _change(
    name: str, label: int | None, later: int, pair: list[float], threshold: float | None, years: float | None
) -> Change:
    percent = symmetrised_percent(*pair)
    verdict = ""
    if percent is None:
        threshold = None
    elif threshold is not None:
        verdict = NOISE if abs(percent) <= threshold else INCREASE if percent > 0 else DECREASE
    rate = None if percent is None or years is None else percent / years
    return Change(name, label, 1, later, *pair, pair[1] - pair[0], percent, rate, threshold, verdict)
