"""Robustness against contrast (Billot et al. 2023, section 5.1, figure 4, table 2): every contrast, several methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from synthseg_slicer.errors import OptionError
from synthseg_slicer.scan import read_scan
from synthseg_training.evaluation.figures import box_plot
from synthseg_training.evaluation.statistics import best_methods, compare_methods

from .comparison import note
from .dataset import Case
from .ledger import Ledger
from .methods import MapFolder, Network
from .pictures import side_by_side
from .report import Page, slug
from .scoring import read_labels
from .segmented import kept, scored


def run(
    folder: Path,
    cases: Sequence[Case],
    methods: Sequence[Network | MapFolder],
    structures: dict[int, str],
    *,
    pair: str = "scan",
    report: Callable[[str], None] = print,
) -> Page:
    """Score every method on every scan, by dataset and contrast.

    Parameters
    ----------
    folder : Path
        For records, tables, figures and the page.
    cases : sequence of Case
        Scans with references.
    methods : sequence of Network or MapFolder
        In the order of tables and figures.
    structures : dict
        Label id to name of what is compared: choose what every method segments.
    pair : {"scan", "structure"}
        What the tests pair.
    report : callable
        Receives a line per scan and method.

    Returns
    -------
    Page
        To be saved.

    Raises
    ------
    ScanError
        A file is missing or cannot be read.
    OptionError
        No reference has any of the structures.
    ValueError
        The folder holds results of other weights, scans or settings.
    """
    ledger = Ledger(folder, {"experiment": "contrast"})
    tables = [scored(ledger, method, case, report=report) for case in cases for method in methods]
    table = pd.concat(tables, ignore_index=True)
    table = table[table["label"].isin(structures)]
    if table.empty:
        raise OptionError(
            f"No reference has any of the structures that all methods know: {', '.join(structures.values())}."
        )
    weights = {method.name: method.weights for method in methods if isinstance(method, Network)}
    folders = {
        method.name: f"{method.folder} ({method.convention or 'FreeSurfer ids'})"
        for method in methods
        if isinstance(method, MapFolder)
    }
    page = Page(folder, "Robustness against contrast", {"weights": weights, "other tools": folders})
    _fill(page, table, pair)
    _pictures(page, cases, methods)
    return page


def _fill(page: Page, table: pd.DataFrame, pair: str) -> None:
    page.text(
        f"{table['scan'].nunique()} scans of {table['group'].nunique()} groups (dataset and contrast), scored on the "
        f"grids of their references over {table['structure'].nunique()} structures. Means are over structures first, "
        "then over scans."
    )
    several = table["method"].nunique() > 1
    for value, title, larger in (("dice", "Dice", True), ("sd95_mm", "SD95 (mm)", False)):
        means = table.groupby(["group", "method", pair], sort=False)[value].mean().reset_index()
        best = best_methods(
            means, value=value, method="method", unit=pair, category="group", larger_is_better=larger
        ).set_index("group")
        by_scan = table.groupby(["group", "method", "scan"], sort=False)[value].mean().reset_index()
        wide = by_scan.pivot_table(index="group", columns="method", values=value, sort=False).reset_index()
        bold = [(row, best.at[group, "best"]) for row, group in enumerate(wide["group"])] if several else []
        page.heading(title)
        page.table(wide, f"mean_{value}", f"Mean {title} by dataset and contrast; the best in bold.", best=bold)
        figure = box_plot(
            means,
            page.folder / "figures" / f"{value}_boxes",
            value=value,
            category="group",
            hue="method",
            unit=pair,
            larger_is_better=larger,
            label=title,
        )
        page.figure(
            figure, f"{title} of every {pair}; stars mark a method that is significantly better than all others."
        )
        if several:
            tests = compare_methods(means, value=value, method="method", unit=pair, category="group")
            page.table(tests.drop(columns="statistic"), f"tests_{value}", f"Every two methods, {title}.")
            page.text(note(tests, f"{pair}s"))
    missed = table[table["dice"].eq(0)].groupby("method", sort=False).size()
    if len(missed):
        found = ", ".join(f"{name} {count}" for name, count in missed.items())
        page.text(f"Structures that were missed altogether (Dice 0; SD95 leaves them out): {found}.")
    page.heading("By structure")
    wide = table.pivot_table(index="structure", columns="method", values="dice").reset_index()
    page.table(wide, "structures", "Mean Dice over all scans by structure.")
    page.attach(table, "scores", "Every score:")


def _pictures(page: Page, cases: Sequence[Case], methods: Sequence[Network | MapFolder]) -> None:
    """Show the first scan of each group with its reference and the label maps of all methods."""
    page.heading("Side by side")
    firsts: dict[str, Case] = {}
    for case in cases:
        firsts.setdefault(case.group, case)
    for case in firsts.values():
        reference = read_labels(case.reference, case.convention)
        maps = [("reference", reference.data, reference.affine)]
        maps += [(method.name, *kept(method, case, page.folder)) for method in methods]
        path = side_by_side(page.folder / "figures" / f"{slug(case.group)}.png", read_scan(case.image), maps)
        page.figure([path], f"{case.group}: {case.name}, the first scan of its group.")
