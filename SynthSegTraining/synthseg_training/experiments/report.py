"""One self-contained page an experiment: text, tables and figures in one HTML file, and the same as files."""

from __future__ import annotations

import base64
import importlib.metadata
import math
import platform
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from synthseg_slicer import __version__
from synthseg_slicer.files import atomic
from synthseg_slicer.pages import tables
from synthseg_slicer.pages.document import document
from synthseg_slicer.pages.markup import Markup, tag

PAGE = "report.html"
PACKAGES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "nibabel")
STYLE = "figure { margin: 1rem 0; } figure img { max-width: 100%; max-height: 40rem; background: #fff; }"


class Page:
    """A report that is put together in order and written at the end.

    Parameters
    ----------
    folder : Path
        The experiment's; ``report.html``, ``tables/`` and ``figures/`` are written into it.
    title : str
        Its heading.
    facts : dict, optional
        Name to value, for the section on how it was made: weights' SHA-256, files, settings.
    """

    def __init__(self, folder: Path, title: str, facts: dict[str, Any] | None = None):
        self.folder, self.title, self.facts = Path(folder), title, dict(facts or {})
        self._parts: list[Markup] = []

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(tag("h2", text))

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(tag("p", text))

    def table(self, table: pd.DataFrame, name: str, caption: str, *, best: Iterable[tuple[int, str]] = ()) -> Path:
        """Add a table and write it as ``tables/NAME.csv`` in full precision.

        Parameters
        ----------
        table : DataFrame
            Without an index to show.
        name : str
            Of the file.
        caption : str
            Above the table.
        best : iterable of (int, str)
            Row number and column of cells to show in bold.

        Returns
        -------
        Path
            The CSV file.
        """
        path = self._write(table, name)
        bold = set(best)
        numeric = {column: pd.api.types.is_numeric_dtype(table[column]) for column in table}
        head = [tag("th", str(name), scope="col", class_="number" if numeric[name] else None) for name in table]
        rows = []
        for number, values in enumerate(table.itertuples(index=False, name=None)):
            cells = []
            for column, value in zip(table, values):
                text = tag("b", cell(value)) if (number, column) in bold else cell(value)
                cells.append(tag("td", text, class_="number" if numeric[column] else None))
            rows.append(tag("tr", cells))
        self._parts += [
            tables.table(caption, tag("tr", head), rows),
            tag("p", self._link(path)),
        ]
        return path

    def attach(self, table: pd.DataFrame, name: str, text: str) -> None:
        """Write a table too long to show as ``tables/NAME.csv`` and add a sentence with a link to it."""
        self._parts.append(tag("p", text, " ", self._link(self._write(table, name))))

    def _write(self, table: pd.DataFrame, name: str) -> Path:
        path = self.folder / "tables" / f"{slug(name)}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            table.to_csv(temporary, index=False)
        return path

    def figure(self, paths: Sequence[str | Path], caption: str) -> None:
        """Add a figure from its files, of which the PNG is embedded and all are linked; they lie below the folder."""
        paths = [Path(path) for path in paths]
        png = next(path for path in paths if path.suffix == ".png")
        data = base64.b64encode(png.read_bytes()).decode()
        links = [(" ", self._link(path)) for path in paths]
        image = tag("img", alt=caption, src=f"data:image/png;base64,{data}")
        self._parts.append(tag("figure", image, tag("figcaption", caption, links)))

    def _link(self, path: Path) -> Markup:
        return tag("a", path.suffix[1:].upper(), href=quote(path.relative_to(self.folder).as_posix()))

    def save(self, command: str) -> Path:
        """Write the page, ending in how it was made, by which command to begin with, and return its path."""
        versions = {"python": platform.python_version(), "synthseg-slicer": __version__}
        versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
        made = {
            "command": command,
            **self.facts,
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
            "machine": platform.platform(),
            "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        end = (
            tag("h2", "How it was made"),
            tables.facts((name, tag("code", str(value))) for name, value in made.items()),
        )
        path = self.folder / PAGE
        with atomic(path) as temporary:
            page = document(self.title, tag("h1", self.title), self._parts, end, style=STYLE)
            temporary.write_text(page, encoding="utf-8")
        return path


def slug(name: str) -> str:
    """Return a name as it can stand in the name of a file."""
    return re.sub(r"[^\w.+-]+", "-", name)


def cell(value: Any) -> str:
    """Return a table cell's text: numbers with about three digits that matter, a dash for what does not exist."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        size = abs(value)
        return f"{value:.0f}" if size >= 1000 else f"{value:.2f}" if size >= 10 else f"{value:.3f}"
    return str(value)
