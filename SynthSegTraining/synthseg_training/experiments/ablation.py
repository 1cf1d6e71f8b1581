"""Ablations of domain randomisation (Billot et al. 2023, section 5.2, figure 9): one training an arm and seed."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from synthseg_training.evaluation.figures import box_plot
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.training.recipe import Recipe

from .arms import BOTH, FULL, RESOLUTION, TITLES, arms_for
from .comparison import against, note
from .dataset import Case
from .domains import domain_of
from .intervals import DICE, crossed_interval
from .report import Page
from .trainings import Bench, Training, budget_note, matrix


def run(
    bench: Bench,
    recipe: Recipe,
    maps: LabelMapSet,
    cases: Sequence[Case],
    *,
    kinds: Sequence[str],
    seeds: int,
    contrast: str = "",
) -> Page:
    """Train every arm with every seed and the same budget, score all networks on the same scans, and compare.

    Parameters
    ----------
    bench : Bench
        Trains and scores.
    recipe : Recipe
        Of the full model, with the budget's steps.
    maps : LabelMapSet
        Label maps; those that the recipe holds out are left out.
    cases : sequence of Case
        Test scans.
    kinds : sequence of str
        Among :data:`~.arms.ARMS`.
    seeds : int
        Trainings of each arm.
    contrast : str
        Of scans whose own is unknown; asked for by SynthSeg-RC.

    Returns
    -------
    Page
        To be saved.

    Raises
    ------
    OptionError
        Unknown arms, or scans of unknown contrast.
    Cancelled
        Interrupted; the same command goes on.
    """
    specific = RESOLUTION in kinds or BOTH in kinds
    domains = {case.name: domain_of(case, contrast, needed=BOTH in kinds) for case in cases} if specific else {}
    arms = arms_for(kinds, domains.values())
    tables, trainings = [], []
    for seed in range(seeds):  # all arms once, then all again: an interrupted experiment has something to show
        for arm in arms:
            training = Training(arm.name, seed, arm.recipe(recipe, seed), maps)
            trained = bench.train(training)
            own = [case for case in cases if arm.serves(domains.get(case.name))]
            tables.append(bench.score(training, trained, own).assign(kind=arm.kind))
            trainings.append({"arm": arm.name, "kind": arm.kind, "seed": seed, **trained})
    return _page(bench, pd.concat(tables, ignore_index=True), pd.DataFrame(trainings), seeds)


def _page(bench: Bench, table: pd.DataFrame, trainings: pd.DataFrame, seeds: int) -> Page:
    page = Page(bench.ledger.folder, "Ablations of domain randomisation")
    kinds = list(dict.fromkeys(table["kind"]))
    page.text(
        f"Networks of {len(kinds)} arms, trained {seeds} times each ({len(trainings)} in all), were scored on "
        f"{table['scan'].nunique()} scans ({', '.join(dict.fromkeys(table['group']))}) that none was trained on, by "
        "single networks without refinement or experts. SynthSeg-R is trained for the resolution of the scans that it "
        "is tested on, SynthSeg-RC for their contrast and resolution."
    )
    page.text(budget_note(trainings))
    tests = against(table, of="kind", baseline=FULL, value="dice", pair="scan").set_index("kind")
    full = matrix(table[table["kind"] == FULL])
    rows = []
    for kind in kinds:
        own, part = matrix(table[table["kind"] == kind]), trainings[trainings["kind"] == kind]
        row = {"arm": TITLES[kind], "Dice (95 %)": str(crossed_interval(own, bounds=DICE))}
        if kind != FULL:
            row |= {"difference (95 %)": str(crossed_interval(own - full)), "p": tests.at[kind, "p_corrected"]}
            row |= {"": tests.at[kind, "stars"]}
        row |= {"SD95 (mm)": table.loc[table["kind"] == kind, "sd95_mm"].mean()}
        row |= {"steps": int(part["steps"].mean()), "minutes": float(part["minutes"].mean())}
        rows.append(row)
    columns = ["arm", "Dice (95 %)", "difference (95 %)", "p", "", "SD95 (mm)", "steps", "minutes"]
    page.heading("Arms")
    page.table(pd.DataFrame(rows, columns=columns), "arms", "Mean Dice of each arm, and its difference from SynthSeg.")
    page.text(
        "Intervals count the spread over trainings and over scans (two-way random effects); with one training an arm "
        "they count scans only and tell nothing of what another seed would give. "
        + note(tests, "scans (mean of the trainings)")
    )
    marked = {kind: TITLES[kind] + (f" {tests.at[kind, 'stars']}" if kind in tests.index else "") for kind in kinds}
    means = table.groupby(["kind", "group", "seed", "scan"], sort=False)["dice"].mean().reset_index()
    figure = box_plot(
        means.assign(arm=means["kind"].map(marked)),
        page.folder / "figures" / "dice_boxes",
        value="dice",
        category="arm",
        hue="group",
        label="Dice",
    )
    page.figure(figure, "Mean Dice of every scan and training; stars mark arms that differ from SynthSeg.")
    if table["group"].nunique() > 1:
        wide = table.assign(arm=table["kind"].map(TITLES)).pivot_table(
            index="arm", columns="group", values="dice", sort=False
        )
        page.table(wide.reset_index(), "groups", "Mean Dice by dataset and contrast.")
    page.heading("Trainings")
    page.table(trainings.drop(columns="kind"), "trainings", "Every network.")
    page.attach(table, "scores", "Every score:")
    return page
