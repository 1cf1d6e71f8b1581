"""The heart (Billot et al. 2023, section 5.4, table 4): trained on a few drawn structures, tested in every contrast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from synthseg_slicer.scan import Scan, read_scan
from synthseg_slicer.weights import Model
from synthseg_training.evaluation.figures import box_plot
from synthseg_training.heart.subdivide import on_one_grid, structure_of
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.training.loop import training_names
from synthseg_training.training.recipe import Recipe

from .dataset import Case
from .intervals import DICE, crossed_interval
from .ledger import Ledger
from .methods import Network
from .pictures import side_by_side
from .report import Page, slug
from .scoring import read_labels
from .segmented import kept, scored

ALL, MEAN = "all", "mean"
SHOWN = 2
"""Versions of a map in the picture of the training maps."""
DARKEST = 0.45
"""Brightness of a structure's darkest region in pictures, of its brightest being 1."""


def run(
    ledger: Ledger,
    model: Model,
    cases: Sequence[Case],
    *,
    fast: bool = False,
    refined: bool = True,
    device: str = "auto",
    distances: bool = True,
    report: Callable[[str], None] = print,
) -> Page:
    """Segment and score the test scans by structure and contrast.

    Parameters
    ----------
    ledger : Ledger
        What is done.
    model : Model
        Trained weights with their card.
    cases : sequence of Case
        Test scans; groups are their datasets and contrasts.
    fast, refined, device
        As for :func:`synthseg_slicer.segment`.
    distances : bool
        Compute SD95 too.
    report : callable
        Receives a line per scan.

    Returns
    -------
    Page
        To be saved.

    Raises
    ------
    ScanError
        A scan or its reference cannot be read, or has none of the network's structures.
    """
    name = str(model.card.get("name", "heart"))
    network = Network(slug(name), model, fast=fast, refined=refined, contrast="any", device=device)
    subjects = {case.name: case.subject or case.name for case in cases}
    tables = [scored(ledger, network, case, distances=distances, report=report) for case in cases]
    table = pd.concat(tables, ignore_index=True)
    table = table.assign(subject=table["scan"].map(subjects))
    page = Page(ledger.folder, f"{name.capitalize()}: labels that do not cover the image", {"weights": model.sha256})
    groups = ", ".join(dict.fromkeys(table["group"]))
    page.text(
        f"The network segmented {len(cases)} scans of {table['subject'].nunique()} subjects ({groups}), "
        + ("with borders refined" if refined else "without refinement")
        + (", in single passes." if fast or not model.mirrored else ", as the mean with the mirror image.")
        + f" {table['structure'].nunique()} structures are scored on the grids of the references."
    )
    _scores(page, table)
    _pictures(page, network, cases, table)
    return page


def intervals(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the mean of a score by structure and group, with its 95 % interval (Student's t) for new subjects.

    Scans of one subject are averaged first. The structure :data:`MEAN` is the mean over structures, the group
    :data:`ALL` has the scans of all groups.

    Parameters
    ----------
    table : DataFrame
        Columns ``structure, group, scan, subject`` and the score; what is NaN is left out.
    value : str
        The score's column.

    Returns
    -------
    DataFrame
        ``structure, group, subjects, mean, low, high``; bounds are NaN for a single subject.
    """
    table = table.dropna(subset=[value])
    structures, groups = ([*dict.fromkeys(table[column])] for column in ("structure", "group"))
    rows = []
    for group in [*groups, *([ALL] if len(groups) > 1 else [])]:
        of_group = table if group == ALL else table[table["group"] == group]
        for structure in [*structures, MEAN]:
            own = of_group if structure == MEAN else of_group[of_group["structure"] == structure]
            if own.empty:
                continue
            by_subject = own.groupby(["subject", "scan"])[value].mean().groupby("subject").mean()
            interval = crossed_interval(by_subject.to_numpy()[None], bounds=DICE if value == "dice" else None)
            rows.append([structure, group, len(by_subject), interval.mean, interval.low, interval.high, str(interval)])
    return pd.DataFrame(rows, columns=["structure", "group", "subjects", "mean", "low", "high", "text"])


def _scores(page: Page, table: pd.DataFrame) -> None:
    for value, title in (("dice", "Dice"), ("sd95_mm", "SD95 (mm)")):
        if table[value].isna().all():
            continue
        page.heading(title)
        stem = page.folder / "figures" / f"{value}_boxes"
        figure = box_plot(table, stem, value=value, category="structure", hue="group", label=title)
        page.figure(figure, f"{title} of every scan by structure and contrast.")
        means = intervals(table, value)
        wide = means.pivot(index="structure", columns="group", values="text")
        wide = wide.loc[[*dict.fromkeys(means["structure"])], [*dict.fromkeys(means["group"])]].reset_index()
        page.table(wide, f"mean_{value}", f"Mean {title} (95 %).")
        page.attach(means.drop(columns="text"), f"intervals_{value}", "The same as numbers:")
    page.text(
        "Intervals (Student's t) count the spread over subjects, whose scans are averaged first. They tell nothing of "
        "what another training would give."
    )
    if missed := int(table["dice"].eq(0).sum()):
        page.text(f"Structures that were missed altogether (Dice 0; SD95 leaves them out): {missed} of {len(table)}.")
    page.heading("Scans")
    by_scan = table.groupby(["group", "scan"], sort=False).agg(
        dice=("dice", "mean"), lowest=("dice", "min"), sd95=("sd95_mm", "mean")
    )
    by_scan.columns = ["Dice", "lowest of a structure", "SD95 (mm)"]
    page.table(by_scan.reset_index(), "scans", "Mean over structures of every scan.")
    page.attach(table, "scores", "Every score:")


def _pictures(page: Page, network: Network, cases: Sequence[Case], table: pd.DataFrame) -> None:
    """Show the first scan of each group and the worst of all, with reference and segmentation."""
    page.heading("Segmentations")
    colors = {label.id: label.color for label in network.model.labels}
    dice, firsts = table.groupby("scan")["dice"].mean(), {}
    for case in cases:
        firsts.setdefault(case.group, case)
    worst = dice.idxmin()
    shown = {case.name: (slug(group), case, "the first scan of its group") for group, case in firsts.items()}
    if worst not in shown:
        shown[worst] = "worst", next(case for case in cases if case.name == worst), "the scan with the lowest Dice"
    for stem, case, why in shown.values():
        reference = read_labels(case.reference, case.convention)
        maps = [("reference", reference.data, reference.affine), ("network", *kept(network, case, page.folder))]
        path = side_by_side(page.folder / "figures" / f"scan_{stem}.png", read_scan(case.image), maps, colors)
        page.figure([path], f"{case.group}: {case.name}, {why}; Dice {dice[case.name]:.3f}.")


def describe(page: Page, model: Model, weights: Path) -> None:
    """Add what the weights' card says of their training.

    Parameters
    ----------
    page : Page
    model : Model
    weights : Path
        Their file.
    """
    card = model.card
    maps = card.get("label_maps", {})
    names = maps.get("names", [])
    facts = {
        "weights": weights.relative_to(page.folder).as_posix() if weights.is_relative_to(page.folder) else weights,
        "structures": ", ".join(name for label, name in model.names.items() if label),
        "parameters": card.get("parameters"),
        "label maps": len(names) or None,
        "of scans": len({name.rpartition("-")[0] for name in names}) or None,
        "source": maps.get("source") or None,
        "held out": ", ".join(card.get("held_out_maps", [])) or None,
        "steps": card.get("steps"),
        "voxel size (mm)": model.voxel_size,
        "mirror image segmented too": "yes" if model.mirrored else "no",
        "CT window (HU)": " to ".join(f"{bound:g}" for bound in model.ct_window),
    }
    page.heading("Training")
    known = [(name, value) for name, value in facts.items() if value is not None]
    page.table(pd.DataFrame(known, columns=["fact", "value"]), "training", "What the card of the weights says.")


def show_training(
    page: Page, recipe: Recipe, maps: LabelMapSet, cases: Sequence[Case], model: Model, trained: dict
) -> None:
    """Add what is known of a training that was made here: its budget and loss, a training scan and maps made of it.

    Parameters
    ----------
    page : Page
    recipe : Recipe
        With the budget's steps.
    maps : LabelMapSet
        Made of the training scans.
    cases : sequence of Case
        The training scans.
    model : Model
        What was trained.
    trained : dict
        Of :meth:`.trainings.Bench.train`.
    """
    steps, minutes = trained["steps"], trained["minutes"]
    ended = " The time limit ended it." if steps < recipe.steps else ""
    page.text(f"The training took {steps:,} of {recipe.steps:,} steps in {minutes:.1f} minutes.{ended}")
    curves = (page.folder / trained["weights"]).with_name("curves.png")
    if curves.exists():  # very short trainings log nothing
        page.figure([curves], "Loss by step.")
    used = training_names(recipe, maps)
    case = next(case for case in cases if case.name == used[0].rpartition("-")[0])
    image, _ = on_one_grid(read_scan(case.image), read_scan(case.reference), maps.voxel_size)
    affine, labels = np.diag([maps.voxel_size] * 3 + [1.0]), np.array(maps.labels)
    own = [name for name in used if name.rpartition("-")[0] == case.name][:SHOWN]
    inner = (slice(1, -1),) * 3  # maps have a border
    regions = {name: labels[maps.maps[maps.names.index(name)].numpy()[inner]] for name in own}
    shown = [("structures", structure_of(regions[own[0]]), affine)]
    shown += [(f"map {name}", regions[name], affine) for name in own]
    path = side_by_side(page.folder / "figures" / "maps.png", Scan(image, affine), shown, _shades(maps, model))
    page.figure([path], f"{case.name}, a training scan, and maps made of it: regions from dark to bright.")


def _shades(maps: LabelMapSet, model: Model) -> dict[int, tuple[int, ...]]:
    """Return colours of structures and of their regions, the background's in grey: the brighter, the lighter."""
    colors = {label.id: label.color for label in model.labels if label.id}
    for structure, color in [(0, (255, 255, 255)), *colors.items()]:
        regions = [label for label in maps.labels if label and structure_of(label) == structure]
        for label, share in zip(regions, np.linspace(DARKEST, 1, len(regions)) if len(regions) > 1 else [1.0]):
            colors[label] = tuple(round(share * value) for value in color)
    return colors
