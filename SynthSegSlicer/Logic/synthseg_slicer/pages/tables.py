"""Tables of a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..table import Column
from .markup import Child, Markup, tag

NOTHING = "–"
"""Stands in a cell whose value does not exist."""


def column_table(caption: str, columns: Sequence[Column], *, total: bool = False, tint: Iterable[str] = ()) -> Markup:
    """Return the table of columns from :mod:`synthseg_slicer.table`; the first one names the rows.

    Parameters
    ----------
    caption : str
    columns : sequence of Column
    total : bool
        The last row is a sum of those above it.
    tint : iterable of str
        Class of each row's sample of colour; none by default.
    """
    numeric = [all(_is_number(value) for value in column.values) for column in columns]
    columns = [replace(column, values=_aligned(column.values)) for column in columns]
    head = [tag("th", column.title, scope="col", class_="number" if n else None) for column, n in zip(columns, numeric)]
    tints = list(tint)
    rows = []
    for index, values in enumerate(zip(*(column.values for column in columns))):
        sample = tag("span", class_=f"sample {tints[index]}") if index < len(tints) and tints[index] else None
        cells = [tag("th", sample, cell(values[0]), scope="row", class_="number" if numeric[0] else None)]
        cells += [tag("td", cell(value), class_="number" if n else None) for value, n in zip(values[1:], numeric[1:])]
        rows.append(tag("tr", cells, class_="total" if total and index == len(columns[0].values) - 1 else None))
    return table(caption, [tag("tr", head)], rows)


def table(caption: str, head: Child, rows: Child, **attributes: str) -> Markup:
    """Return a table in a frame that scrolls sideways where the page is narrow, by the keyboard too."""
    inside = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", rows), **attributes)
    return tag("div", inside, class_="scroll", tabindex=0, role="region", aria_label=caption)


def facts(pairs: Iterable[tuple[str, Child]]) -> Markup:
    """Return a table of two columns, what and its value."""
    rows = (tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in pairs)
    return tag("table", tag("tbody", rows), class_="facts")


def explained(columns: Sequence[Column]) -> Markup:
    """Return what the columns hold, in one paragraph."""
    texts = (f"{column.title}: {column.description[0].lower()}{column.description[1:]}" for column in columns)
    return tag("p", "; ".join(texts) + ".", class_="note")


def cell(value: str | int | float) -> str:
    """Return what is written in a cell: groups of three digits apart, a proper minus, a dash for nothing."""
    if value == "":
        return NOTHING
    if not _is_number(value):
        return str(value)
    text = str(value)
    whole, dot, rest = text.removeprefix("-").partition(".")
    grouped = f"{int(whole):,}".replace(",", "\u202f") if whole.isdigit() and len(whole) > 4 else whole
    return ("\u2212" if text.startswith("-") else "") + grouped + dot + rest


def _aligned(values: Sequence) -> list:
    """Return real numbers as text with as many digits as the longest has."""
    digits = max((len(str(value).partition(".")[2]) for value in values if isinstance(value, float)), default=0)
    return [f"{value:.{digits}f}" if isinstance(value, float) else value for value in values]


def _is_number(value: object) -> bool:
    """Return whether a value is a number, a number as text, or nothing."""
    if isinstance(value, (int, float)) or value == "":
        return True
    try:
        float(value)
    except ValueError:
        return False
    return True
