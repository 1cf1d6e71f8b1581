"""Group study (Billot et al. 2023, section 5.3, table 3): effect sizes between controls and patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from synthseg_training.evaluation.cohort import COVARIATES, Cohort, join, read_participants, read_volumes
from synthseg_training.evaluation.figures import effect_plot
from synthseg_training.evaluation.group import compare, draw

from .report import Page, slug

METHOD = "method"


def run(
    folder: Path,
    volumes: Mapping[str, Path],
    participants: Path,
    *,
    groups: tuple[str, str],
    covariates: Sequence[str] = COVARIATES,
    intracranial: str | None,
    structures: Sequence[str] = (),
    sum_sides: bool = False,
) -> Page:
    """Compare the volumes of two groups, as measured by one or several methods or from several kinds of scan.

    Parameters
    ----------
    folder : Path
        For tables, figures and the page.
    volumes : mapping
        Name of the method to its table, see :func:`synthseg_training.evaluation.cohort.read_volumes`.
    participants : Path
        BIDS participants.tsv.
    groups, covariates, intracranial, sum_sides
        As for :func:`synthseg_training.evaluation.cohort.join`.
    structures : sequence of str
        Compare only these (after adding up sides); all by default.

    Returns
    -------
    Page
        To be saved.

    Raises
    ------
    ValueError
        A table cannot be read or joined, or a structure is not in it.
    """
    people, cohorts, tables = read_participants(participants), {}, []
    options = {"groups": groups, "covariates": covariates, "intracranial": intracranial, "sum_sides": sum_sides}
    for name, path in volumes.items():
        try:
            cohort = join(read_volumes(path), people, **options)
        except ValueError as error:
            raise ValueError(f"{path} with {participants}: {error}") from error
        cohorts[name] = _chosen(cohort, structures, path)
        tables.append(compare(cohorts[name]).assign(method=name))
    table = pd.concat(tables, ignore_index=True)
    page = Page(folder, "Group study")
    first = next(iter(cohorts.values()))
    counts = [int(first.in_a.sum()), int((~first.in_a).sum())]
    page.text(
        f"{groups[0]} (n = {counts[0]}) and {groups[1]} (n = {counts[1]}), volumes corrected by a linear model for "
        f"{', '.join(first.design) or 'nothing'}. Cohen's d (eq. 28) is positive where volumes are smaller in "
        f"{groups[1]}; its interval is by inversion of the noncentral t distribution. Stars: Mann-Whitney test of the "
        f"corrected volumes, Bonferroni-corrected for {len(first.volumes.columns)} structures of one method: "
        "* p < .05, ** p < .01, *** p < .001."
    )
    for name, cohort in cohorts.items():
        if cohort.left_out:
            page.text(f"{name}: left out for want of a volume or covariate: {', '.join(cohort.left_out)}.")
    page.heading("Effect sizes")
    if len(cohorts) > 1:
        wide = table.pivot_table(index="structure", columns=METHOD, values="d", sort=False)
        page.table(wide.reset_index(), "effect_sizes", "Cohen's d by structure and method.")
        label = f"Cohen's d, > 0: smaller in {groups[1]}"
        figure = effect_plot(table, folder / "figures" / "methods", category="structure", hue=METHOD, label=label)
        page.figure(figure, "Cohen's d with 95 % intervals.")
    for name, cohort in cohorts.items():
        own = table[table[METHOD] == name].drop(columns=METHOD).reset_index(drop=True)
        page.heading(name)
        page.table(own, f"effects_{name}", f"{name}: volumes and effect sizes by structure.")
        figures = draw(cohort, own, folder / "figures" / slug(name))
        page.figure(figures["effects"], f"{name}: Cohen's d with 95 % intervals.")
        page.figure(figures["volumes"], f"{name}: corrected volumes of both groups.")
    return page


def _chosen(cohort: Cohort, structures: Sequence[str], path: Path) -> Cohort:
    if missing := [name for name in structures if name not in cohort.volumes]:
        raise ValueError(f"{path}: has no structure {', '.join(missing)}; it has {', '.join(cohort.volumes)}.")
    if not structures:
        return cohort
    return Cohort(cohort.groups, cohort.people, cohort.volumes[list(structures)], cohort.design, cohort.left_out)
