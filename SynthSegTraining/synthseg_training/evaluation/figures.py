"""Figures of the papers' kind, each written as PDF, PNG and a CSV of the numbers in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from synthseg_slicer.files import atomic

from .statistics import best_methods

COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
"""Okabe and Ito's, which colour-blind readers can tell apart; repeated where there are more."""
OUTLIER = "d"
FILLED = 0.8
"""Share of a category's width that its boxes take."""
LETTER = 0.08
"""Width in inches that a letter of a category's name takes; names that have no room side by side are turned."""
SHIFT = 0.012
"""Sideways shift of a line against the next, as a share of the axis, so that error bars do not cover each other."""


def box_plot(
    table: pd.DataFrame,
    path_stem: str | Path,
    *,
    value: str,
    category: str,
    hue: str,
    unit: str | None = None,
    larger_is_better: bool = True,
    label: str | None = None,
    colors: Mapping[str, str] | None = None,
) -> list[Path]:
    """Draw a box for each method, grouped by data set or structure, as fig. 4 of Billot et al. 2023.

    Boxes reach from the first to the third quartile with a line at the median, whiskers to the last value within 1.5
    times that range, and diamonds are what lies beyond. Stars above the best method of a category mark that it is
    better than all others (:func:`synthseg_training.evaluation.statistics.best_methods`).

    Parameters
    ----------
    table : DataFrame
        One row a score; scores that are NaN are left out.
    path_stem : path
        Of the files, without suffix; the folder is made.
    value, category, hue : str
        Columns: the score, what the boxes are grouped by and what tells them apart within a group. Both keep the order
        in which they occur.
    unit : str, optional
        Column that pairs the scores, such as the scan; no test is made without it.
    larger_is_better : bool
        True for Dice, False for distances.
    label : str, optional
        Of the vertical axis, with its unit; the column's name by default.
    colors : mapping, optional
        Method to colour, to keep it the same in several figures.

    Returns
    -------
    list of Path
        PDF, PNG and CSV, the latter with a row a box: number, mean, standard deviation, median, quartiles, ends of the
        whiskers, number of outliers, and of the best method the corrected p and the stars.

    Raises
    ------
    ValueError
        There is no score to draw.
    """
    from matplotlib.cbook import boxplot_stats

    everything, table = table, table.dropna(subset=[value])
    if table.empty:
        raise ValueError(f"no value of {value} to draw")
    categories, hues = (_order(everything, table, column) for column in (category, hue))
    colors = colors or {name: COLORS[i % len(COLORS)] for i, name in enumerate(hues)}
    marks = {}
    if unit is not None:
        best = best_methods(
            table, value=value, method=hue, unit=unit, category=category, larger_is_better=larger_is_better
        )
        marks = {(row[category], row["best"]): row for _, row in best.iterrows()}
    width = FILLED / len(hues)
    longest = max(len(str(name)) for name in categories)
    across = max(4.5, 1.2 + 0.28 * len(categories) * (len(hues) + 1))
    crowded = LETTER * longest > (across - 1) / len(categories)
    figure, axes = _axes(across, 3.6 + (0.06 * longest if crowded else 0))
    rows = []
    for i, group in enumerate(categories):
        for j, name in enumerate(hues):
            values = table.loc[table[category].eq(group) & table[hue].eq(name), value].to_numpy(float)
            if not len(values):
                continue
            box = boxplot_stats(values)[0]
            position = i + (j - (len(hues) - 1) / 2) * width
            axes.bxp(
                [box],
                positions=[position],
                widths=0.85 * width,
                patch_artist=True,
                manage_ticks=False,
                boxprops={"facecolor": colors[name], "linewidth": 0.6},
                medianprops={"color": "black", "linewidth": 1.2},
                whiskerprops={"linewidth": 0.6},
                capprops={"linewidth": 0.6},
                flierprops={
                    "marker": OUTLIER,
                    "markersize": 3,
                    "markerfacecolor": colors[name],
                    "markeredgewidth": 0.3,
                },
            )
            mark = marks.get((group, name))
            if mark is not None and mark["stars"]:
                axes.annotate(
                    mark["stars"],
                    (position, values.max()),
                    xytext=(0, 1),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                )
            rows.append(
                {category: group, hue: name, "number": len(values), "mean": values.mean()}
                | {"sd": values.std(ddof=1) if len(values) > 1 else np.nan, "median": box["med"]}
                | {"q1": box["q1"], "q3": box["q3"], "whisker_low": box["whislo"], "whisker_high": box["whishi"]}
                | {"outliers": len(box["fliers"])}
                | {key: "" if mark is None else mark[key] for key in ("p_corrected", "stars")}
            )
    for edge in np.arange(len(categories) - 1) + 0.5:
        axes.axvline(edge, color="0.85", linewidth=0.6, zorder=0)
    axes.set_xticks(range(len(categories)), [str(name) for name in categories], rotation=45 if crowded else 0)
    if crowded:
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    axes.set(xlim=(-0.5, len(categories) - 0.5), ylabel=label or value)
    axes.margins(y=0.08)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    if len(hues) > 1:
        _legend(axes, {name: colors[name] for name in hues})
    return _write(figure, pd.DataFrame(rows), path_stem)


def effect_plot(
    table: pd.DataFrame, path_stem: str | Path, *, category: str, hue: str | None = None, label: str = "Cohen's d"
) -> list[Path]:
    """Draw effect sizes with their confidence intervals, a row a structure.

    Parameters
    ----------
    table : DataFrame
        Columns ``d, d_low, d_high``, and ``stars`` if any, which are written beside the interval; NaN is left out.
    path_stem : path
        Of the files, without suffix; the folder is made.
    category : str
        Column of the rows of the figure, in the order in which they occur, from above.
    hue : str, optional
        Column that tells methods apart.
    label : str
        Of the horizontal axis.

    Returns
    -------
    list of Path
        PDF, PNG and CSV, the latter the table as it is.

    Raises
    ------
    ValueError
        There is no effect size to draw.
    """
    drawn = table.dropna(subset=["d"])
    if drawn.empty:
        raise ValueError("no effect size to draw")
    categories = _order(table, drawn, category)
    hues = [None] if hue is None else _order(table, drawn, hue)
    figure, axes = _axes(5.5, 1.0 + 0.22 * len(categories) * max(1, 0.6 * len(hues)))
    for j, name in enumerate(hues):
        part = drawn if hue is None else drawn[drawn[hue].eq(name)]
        color = COLORS[j % len(COLORS)]
        y = part[category].map(categories.index) + (j - (len(hues) - 1) / 2) * FILLED / len(hues)
        bars = np.vstack([part["d"] - part["d_low"], part["d_high"] - part["d"]])
        axes.errorbar(part["d"], y, xerr=bars, fmt="o", markersize=4, linewidth=1, capsize=2, color=color)
        for x, at, text in zip(part["d_high"], y, part.get("stars", pd.Series("", part.index))):
            axes.annotate(text, (x, at), xytext=(3, 0), textcoords="offset points", va="center")
    axes.axvline(0, color="0.5", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(categories)), [str(name) for name in categories])
    axes.set(ylim=(len(categories) - 0.5, -0.5), xlabel=label)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    if len(hues) > 1:
        _legend(axes, {name: COLORS[j % len(COLORS)] for j, name in enumerate(hues)})
    return _write(figure, table, path_stem)


def line_plot(
    table: pd.DataFrame,
    path_stem: str | Path,
    *,
    x: str,
    value: str,
    hue: str,
    label: str | None = None,
    x_label: str | None = None,
) -> list[Path]:
    """Draw means with error bars against a number such as the slice spacing, a line each category (figs. 7 and 10).

    Parameters
    ----------
    table : DataFrame
        One row a point: the columns below, and the bounds ``low`` and ``high`` of its interval, which may be NaN.
    path_stem : path
        Of the files, without suffix; the folder is made.
    x, value, hue : str
        Columns: the number, the mean, and what tells lines apart.
    label, x_label : str, optional
        Of the vertical and the horizontal axis, with their units; the columns' names by default.

    Returns
    -------
    list of Path
        PDF, PNG and CSV, the latter the table as it is.

    Raises
    ------
    ValueError
        There is no point to draw.
    """
    drawn = table.dropna(subset=[value])
    if drawn.empty:
        raise ValueError(f"no value of {value} to draw")
    names, numbers = list(dict.fromkeys(drawn[hue])), sorted(set(drawn[x]))
    colors = {name: COLORS[j % len(COLORS)] for j, name in enumerate(names)}
    aside = SHIFT * (numbers[-1] - numbers[0])
    figure, axes = _axes(5.5, 3.6)
    for j, name in enumerate(names):
        part = drawn[drawn[hue].eq(name)].sort_values(x)
        bars = np.vstack([part[value] - part["low"], part["high"] - part[value]])
        axes.errorbar(
            part[x] + (j - (len(names) - 1) / 2) * aside,
            part[value],
            yerr=np.nan_to_num(bars),
            fmt="o-",
            markersize=4,
            linewidth=1.2,
            capsize=2,
            color=colors[name],
        )
    axes.set_xticks(numbers)
    axes.set(xlabel=x_label or x, ylabel=label or value)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    if len(names) > 1:
        _legend(axes, colors)
    return _write(figure, table, path_stem)


def _order(table: pd.DataFrame, drawn: pd.DataFrame, column: str) -> list:
    """Return what is drawn of a column, in the order of the whole table: a missing value must not change it."""
    return [name for name in dict.fromkeys(table[column]) if name in set(drawn[column])]


def _axes(width: float, height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _legend(axes, colors: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=color, edgecolor="black", linewidth=0.6, label=str(name)) for name, color in colors.items()
    ]
    axes.figure.legend(
        handles=handles, loc="outside upper center", ncols=min(len(handles), 6), frameon=False, fontsize=9
    )


def _write(figure, numbers: pd.DataFrame, path_stem: str | Path) -> list[Path]:
    stem = Path(path_stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    pdf, png, csv = (stem.with_name(stem.name + suffix) for suffix in (".pdf", ".png", ".csv"))
    for path in (pdf, png):
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=200)
    with atomic(csv) as temporary:
        numbers.to_csv(temporary, index=False)
    return [pdf, png, csv]
