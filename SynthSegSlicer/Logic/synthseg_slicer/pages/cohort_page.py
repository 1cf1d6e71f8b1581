"""The page of a cohort: what failed and why, which scans stand out, how volumes are distributed, and all scans."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import numpy as np

from ..files import atomic, check_output
from ..measure import INTRACRANIAL
from ..quality import DOUBTFUL_SCAN
from . import outliers, tables
from .charts import distribution
from .document import SUFFIXES, document, section
from .markup import Markup, tag
from .outliers import Deviation

DONE, FAILED = "done", "failed"
MOST_DEVIATIONS = 5
"""Of a scan that are written out."""


@dataclass(frozen=True)
class CohortEntry:
    """What the page of a cohort tells of one scan.

    Attributes
    ----------
    name : str
        As the user knows it; better no path with a patient's name in it.
    status : {"done", "failed"}
    reason : str
        Why it failed.
    volumes : mapping
        Name of a structure to mm³, without the intracranial total.
    quality : float or None
        Expected Dice of the whole.
    warnings : sequence of str
    page : str or None
        The scan's own page, with ``/`` and relative to that of the cohort.
    intracranial : float or None
        mm³.

    Raises
    ------
    ValueError
        Another status, or a page that is not relative.
    """

    name: str
    status: str
    reason: str = ""
    volumes: Mapping[str, float] = field(default_factory=dict)
    quality: float | None = None
    warnings: Sequence[str] = ()
    page: str | None = None
    intracranial: float | None = None

    def __post_init__(self) -> None:
        if self.status not in (DONE, FAILED):
            raise ValueError(f"{self.name}: the status is '{self.status}'; it is {DONE} or {FAILED}.")
        if self.page is not None and (not self.page or self.page.startswith("/") or "\\" in self.page):
            raise ValueError(f"{self.name}: the page is '{self.page}'. Give it relative to the cohort's, with /.")


def write_cohort_page(path: str | os.PathLike, entries: Sequence[CohortEntry], *, title: str = "Cohort") -> None:
    """Write the report on a cohort: one HTML file that needs nothing else but the scans' pages it links to.

    Parameters
    ----------
    path : path
        Target, ending in .html.
    entries : sequence of CohortEntry
        All scans, failed ones too.
    title : str

    Raises
    ------
    OutputError
        The page cannot be written.
    """
    check_output(path, SUFFIXES)
    done = [entry for entry in entries if entry.status == DONE]
    failed = [entry for entry in entries if entry.status == FAILED]
    found = outliers.deviations(
        [entry.volumes for entry in done], [entry.intracranial for entry in done], [entry.quality for entry in done]
    )
    text = document(
        title,
        tag("header", tag("h1", title), _summary(entries, done, failed, found)),
        _failures(failed),
        _outliers(done, found),
        _distributions(done, found),
        _all(entries, dict(zip(map(id, done), found))),
        scripts=("cohort.js",),
    )
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _summary(
    entries: Sequence[CohortEntry], done: list[CohortEntry], failed: list[CohortEntry], found: list[list[Deviation]]
) -> Markup:
    return tables.facts(
        [
            ("Scans", len(entries)),
            ("Segmented", len(done)),
            ("Failed", len(failed)),
            ("With warnings", sum(bool(entry.warnings) for entry in done)),
            ("Outliers", sum(map(bool, found))),
        ]
    )


def _failures(failed: Sequence[CohortEntry]) -> Markup:
    if not failed:
        return section("Failures", tag("p", "No scan failed."))
    head = tag("tr", tag("th", "Scan", scope="col"), tag("th", "Reason", scope="col"))
    rows = (
        tag("tr", tag("th", _name(entry), scope="row"), tag("td", entry.reason or "not known", class_="long"))
        for entry in failed
    )
    return section("Failures", tables.table("Scans that were not segmented", head, rows))


def _outliers(done: Sequence[CohortEntry], found: Sequence[list[Deviation]]) -> Markup:
    rule = (
        f"Listed is a scan whose quality is below {DOUBTFUL_SCAN:g}, that lacks a structure, or one of whose measures "
        f"has a modified z-score beyond ±{outliers.FAR:g}: 0.6745 (x − median) / median absolute deviation, of the "
        "logarithm of each volume and of each volume’s share of the intracranial volume, and of the quality (low ones "
        "only). An outlier is no error, and an error need not be one: look at its outlines."
    )
    few = (
        f" With fewer than {outliers.FEWEST} segmented scans no z-scores are computed."
        if len(done) < outliers.FEWEST
        else None
    )
    note = tag("p", rule, few, class_="note")
    listed = [(entry, one) for entry, one in zip(done, found) if one]
    if not listed:
        return section("Outliers", note, tag("p", "No scan is listed."))
    listed.sort(key=lambda pair: outliers.distance(pair[1][0]), reverse=True)
    head = tag("tr", (tag("th", text, scope="col") for text in ("Scan", "Farthest z", "What stands out")))
    rows = (
        tag(
            "tr",
            tag("th", _name(entry), scope="row"),
            tag("td", tables.cell(_farthest(one)), class_="number"),
            tag("td", _sentence(one), class_="long"),
        )
        for entry, one in listed
    )
    return section("Outliers", note, tables.table("Scans that stand out, the farthest first", head, rows))


def _farthest(found: Sequence[Deviation]) -> str:
    z = max((one.z for one in found if one.z is not None), key=abs, default=None)
    return "" if z is None else f"{z:.1f}"


def _sentence(found: Sequence[Deviation]) -> str:
    more = f"; {len(found) - MOST_DEVIATIONS} more" if len(found) > MOST_DEVIATIONS else ""
    return "; ".join(map(_deviation, found[:MOST_DEVIATIONS])) + more


def _deviation(one: Deviation) -> str:
    if one.value == 0:
        return f"{one.structure} is missing"
    name = "quality" if one.kind == outliers.QUALITY else one.structure
    of = " of intracranial" if one.kind == outliers.SHARE else ""
    text = f"{name} {_written(one.kind, one.value)}{of}, median {_written(one.kind, one.median)}"
    return text if one.z is None else f"{text} (z {tables.cell(f'{one.z:.1f}')})"


def _distributions(done: Sequence[CohortEntry], found: Sequence[list[Deviation]]) -> Markup:
    if not done:
        return section("Distributions", tag("p", "No scan was segmented."))
    far = {(index, one.structure, one.kind): one.z for index, several in enumerate(found) for one in several}
    total = [entry.intracranial for entry in done]
    measures = [
        (INTRACRANIAL, outliers.QUALITY, [entry.quality for entry in done], None),
        (INTRACRANIAL, outliers.VOLUME, total, None),
    ]
    for name in outliers.names(entry.volumes for entry in done):
        volumes = [entry.volumes.get(name) for entry in done]
        shares = [volume / whole if volume is not None and whole else None for volume, whole in zip(volumes, total)]
        measures.append((name, outliers.VOLUME, volumes, shares))
    rows = []
    for name, kind, values, shares in measures:
        drawing, numbers = _drawing(name, kind, values, done, far)
        title = "Quality" if kind == outliers.QUALITY else name
        share = [] if shares is None else _drawing(name, outliers.SHARE, shares, done, far)[0]
        cells = [tag("td", drawing, class_="drawing"), (tag("td", text, class_="number") for text in numbers)]
        rows.append(tag("tr", tag("th", title, scope="row"), cells, tag("td", share, class_="drawing")))
    titles = ("Measure", "Distribution", "Lowest", "Median", "Highest", "Share of intracranial volume")
    numeric = titles[2:5]
    head = (tag("th", text, scope="col", class_="number" if text in numeric else None) for text in titles)
    note = (
        "Each drawing has its own scale, from the lowest to the highest value. Box: middle half and median; line: "
        "values within 1.5 box widths of it; circles: scans, or bars where there are many; diamonds: outliers. Rest "
        "the pointer on one to see which scan it is."
    )
    caption = "Distribution of quality and volumes"
    return section("Distributions", tag("p", note, class_="note"), tables.table(caption, tag("tr", head), rows))


def _drawing(
    name: str,
    kind: str,
    values: Sequence[float | None],
    done: Sequence[CohortEntry],
    far: Mapping[tuple[int, str, str], float | None],
) -> tuple[Markup | str, tuple[str, ...]]:
    """Return the distribution of a measure, and its lowest, median and highest value; dashes if no scan has it."""
    known = [index for index, value in enumerate(values) if value is not None and np.isfinite(value)]
    if not known:
        return tables.NOTHING, (tables.NOTHING,) * 3
    numbers = np.array([values[index] for index in known], dtype=np.float64)
    titles = []
    for index, value in zip(known, numbers.tolist()):
        z = far.get((index, name, kind))
        titles.append(f"{done[index].name}: {_written(kind, value)}" + (f", z {tables.cell(f'{z:.1f}')}" if z else ""))
    low, median, high = (_written(kind, float(value)) for value in (numbers.min(), np.median(numbers), numbers.max()))
    text = f"{name}, {kind}: {len(known)} values from {low} to {high}, median {median}"
    outlying = np.array([(index, name, kind) in far for index in known])
    return distribution(numbers, titles, outlying, text), (low, median, high)


def _all(entries: Sequence[CohortEntry], found: Mapping[int, list[Deviation]]) -> Markup:
    columns = (
        ("Scan", "text"),
        ("Status", "text"),
        ("Quality", "number"),
        ("Intracranial (ml)", "number"),
        ("Farthest z", "number"),
        ("Warnings", "text"),
    )
    head = (
        tag("th", text, scope="col", data_sort=kind, class_="number" if kind == "number" else None)
        for text, kind in columns
    )
    rows = []
    for entry in entries:
        numbers = (
            _rounded(entry.quality, 2),
            _rounded(entry.intracranial and entry.intracranial / 1000, 0),
            _farthest(found.get(id(entry), ())),
        )
        said = " ".join(entry.warnings) if entry.status == DONE else entry.reason
        rows.append(
            tag(
                "tr",
                tag("th", _name(entry), scope="row"),
                tag("td", entry.status),
                (tag("td", tables.cell(number), class_="number") for number in numbers),
                tag("td", said or tables.NOTHING, class_="long"),
            )
        )
    box = tag("input", type="search", id="filter", autocomplete="off")
    shown = tag("output", for_="filter", id="shown")
    sift = tag("p", tag("label", "Show rows that contain ", for_="filter"), box, " ", shown, class_="scripted")
    return section(
        "All scans", sift, tables.table("Every scan and what was said of it", tag("tr", head), rows, id="all")
    )


def _name(entry: CohortEntry) -> Markup:
    name = tag("bdi", entry.name)
    # quoted, a colon cannot make the first part of the path an address
    return name if entry.page is None else tag("a", name, href=quote(entry.page))


def _rounded(value: float | None, digits: int) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _written(kind: str, value: float) -> str:
    """Return a measure with three or more digits: mm³ as ml, a share in percent."""
    if kind == outliers.QUALITY:
        return f"{value:.2f}"
    if kind == outliers.SHARE:
        return f"{100 * value:.3g} %"
    ml = value / 1000
    return f"{ml:.{0 if ml >= 100 else 1 if ml >= 10 else 2}f} ml"
