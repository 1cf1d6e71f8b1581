"""How many training label maps it takes (Billot et al. 2023, section 5.2, figure 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from synthseg_slicer.errors import OptionError
from synthseg_training.evaluation.figures import line_plot
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.training.loop import training_names
from synthseg_training.training.recipe import Recipe

from .comparison import against, note
from .dataset import Case
from .intervals import DICE, crossed_interval
from .report import Page
from .trainings import Bench, Training, budget_note, matrix

NUMBERS = (1, 5, 10, 15, 20)
"""Those of the paper."""
ALL = "all scans"


def capped(numbers: Sequence[int], available: int) -> list[int]:
    """Return the numbers in ascending order, those above what is available replaced by it, each once.

    Raises
    ------
    OptionError
        A number below 1.
    """
    if min(numbers) < 1 or available < 1:
        raise OptionError(f"The numbers of label maps {list(numbers)} must be at least 1; there are {available} maps.")
    return sorted({min(number, available) for number in numbers})


def subset(names: Sequence[str], number: int, seed: int) -> list[str]:
    """Return a random choice of so many names; with one seed a smaller choice is part of a larger one."""
    order = np.random.default_rng(seed).permutation(len(names))
    return [names[index] for index in sorted(order[:number])]


def run(
    bench: Bench,
    recipe: Recipe,
    maps: LabelMapSet,
    cases: Sequence[Case],
    *,
    numbers: Sequence[int] = NUMBERS,
    seeds: int,
) -> Page:
    """Train on so many label maps, with every seed another random choice, and score all networks on the same scans.

    Parameters
    ----------
    bench : Bench
        Trains and scores.
    recipe : Recipe
        With the budget's steps.
    maps : LabelMapSet
        Label maps; those that the recipe holds out are left out.
    cases : sequence of Case
        Test scans.
    numbers : sequence of int
        Of training maps, see :func:`capped`.
    seeds : int
        Trainings for each number.

    Returns
    -------
    Page
        To be saved.

    Raises
    ------
    OptionError
        A number below 1, or no training map.
    Cancelled
        Interrupted; the same command goes on.
    """
    names = training_names(recipe, maps)
    numbers = capped(numbers, len(names))
    tables, trainings = [], []
    for seed in range(seeds):
        for number in numbers:
            chosen = subset(names, number, seed)
            own = replace(recipe, seed=recipe.seed + seed, n_maps=None)
            training = Training(f"{number} maps", seed, own, maps.subset(chosen))
            trained = bench.train(training)
            tables.append(bench.score(training, trained, cases).assign(maps=number))
            trainings.append({"maps": number, "seed": seed, **trained, "names": ", ".join(chosen)})
    return _page(bench, pd.concat(tables, ignore_index=True), pd.DataFrame(trainings), numbers, seeds)


def _page(bench: Bench, table: pd.DataFrame, trainings: pd.DataFrame, numbers: Sequence[int], seeds: int) -> Page:
    page = Page(bench.ledger.folder, "Number of training label maps")
    page.text(
        f"Networks ({len(trainings)} in all), trained on {seeds} random choices of label maps of each number, were "
        f"scored on {table['scan'].nunique()} scans ({', '.join(dict.fromkeys(table['group']))}) that none was trained "
        "on, by single networks without refinement or experts. Choices of one seed are nested: the maps of a smaller "
        "number are among those of a larger one."
    )
    page.text(budget_note(trainings))
    rows = []
    groups = list(dict.fromkeys(table["group"]))
    for group in [ALL, *(groups if len(groups) > 1 else [])]:
        for number in numbers:
            part = table[table["maps"] == number]
            here = part if group == ALL else part[part["group"] == group]
            interval = crossed_interval(matrix(here), bounds=DICE)
            rows.append([group, number, interval.mean, interval.low, interval.high])
    curve = pd.DataFrame(rows, columns=["group", "maps", "dice", "low", "high"])
    page.heading("Dice by number of maps")
    pooled = curve["group"] == ALL  # bars of single groups would hide the lines; the table has them
    figure = line_plot(
        curve.assign(low=curve["low"].where(pooled), high=curve["high"].where(pooled)),
        page.folder / "figures" / "dice_by_maps",
        x="maps",
        value="dice",
        hue="group",
        label="mean Dice",
        x_label="training label maps",
    )
    page.figure(figure, "Mean Dice; bars, for all scans: 95 % intervals over trainings (choices of maps) and scans.")
    page.table(curve, "dice_by_maps", "The numbers of the figure, with the intervals of the groups.")
    tests = against(table, of="maps", baseline=numbers[-1], value="dice", pair="scan")
    differences = {
        number: str(
            crossed_interval(matrix(table[table["maps"] == number]) - matrix(table[table["maps"] == numbers[-1]]))
        )
        for number in numbers[:-1]
    }
    tests.insert(1, "difference (95 %)", tests["maps"].map(differences))
    page.table(tests, "tests", f"Difference from {numbers[-1]} maps.")
    page.text(note(tests, "scans (mean of the trainings)"))
    page.heading("Trainings")
    page.table(trainings.drop(columns="names"), "trainings", "Every network.")
    page.attach(trainings[["maps", "seed", "names"]], "label_maps", "What each was trained on:")
    page.attach(table, "scores", "Every score:")
    return page
