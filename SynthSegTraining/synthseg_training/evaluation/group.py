"""Volumetric study of two groups of people (section 5.3 of Billot et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from synthseg_slicer.measure import INTRACRANIAL

from .cohort import COVARIATES, GROUP, Cohort, join
from .figures import box_plot, effect_plot
from .statistics import bonferroni, cohens_d, corrected, mann_whitney, stars


def group_study(
    volumes: pd.DataFrame,
    participants: pd.DataFrame,
    *,
    groups: tuple[str, str],
    covariates: Sequence[str] = COVARIATES,
    intracranial: str | None = INTRACRANIAL,
    sum_sides: bool = False,
    level: float = 0.95,
) -> pd.DataFrame:
    """Compare the volumes of two groups, structure by structure: :func:`cohort.join`, then :func:`compare`."""
    options = {"groups": groups, "covariates": covariates, "intracranial": intracranial, "sum_sides": sum_sides}
    return compare(join(volumes, participants, **options), level)


def compare(cohort: Cohort, level: float = 0.95) -> pd.DataFrame:
    """Compare the volumes of a cohort's groups a and b.

    Parameters
    ----------
    cohort : Cohort
    level : float
        Of confidence.

    Returns
    -------
    DataFrame
        A row a structure. ``n_a, n_b``: people; ``mean_a_mm3, sd_a_mm3, mean_b_mm3, sd_b_mm3``: of the volumes as
        measured; ``difference_percent``: by how much the corrected mean is larger in b; ``d, d_low, d_high``: Cohen's d
        of the corrected volumes, positive where they are smaller in b (eq. 28); ``statistic, p``: two-sided
        Mann-Whitney test of the volumes corrected by a model without the groups; ``p_corrected, stars``: after
        Bonferroni for all structures.

    Raises
    ------
    ValueError
        The cohort is too small for its covariates, or they tell the groups apart by themselves.
    """
    rows = []
    for structure in cohort.volumes:
        a, b = cohort.split(structure)
        mean_a, mean_b = (part.mean() for part in corrected(a, b, cohort.covariates))
        effect = cohens_d(a, b, covariates=cohort.covariates, level=level)
        statistic, p = mann_whitney(*corrected(a, b, cohort.covariates, with_group=False))
        rows.append(
            {"structure": structure, "n_a": len(a), "n_b": len(b)}
            | {"mean_a_mm3": a.mean(), "sd_a_mm3": _sd(a), "mean_b_mm3": b.mean(), "sd_b_mm3": _sd(b)}
            | {"difference_percent": 100 * (mean_b - mean_a) / mean_a if mean_a else np.nan}
            | {"d": effect.d, "d_low": effect.low, "d_high": effect.high, "statistic": statistic, "p": p}
        )
    table = pd.DataFrame(rows)
    table["p_corrected"] = bonferroni(table["p"])
    table["stars"] = table["p_corrected"].map(stars)
    return table


def corrected_volumes(cohort: Cohort) -> pd.DataFrame:
    """Return what Cohen's d is computed from, volumes corrected to the mean of the covariates.

    Returns
    -------
    DataFrame
        Columns ``participant_id, group, structure, volume_mm3, corrected_mm3`` and ``percent``, the latter of the first
        group's mean corrected volume; a row a person and structure.
    """
    parts = []
    for structure in cohort.volumes:
        result = np.empty(len(cohort.people))
        result[cohort.in_a], result[~cohort.in_a] = corrected(*cohort.split(structure), cohort.covariates)
        mean = result[cohort.in_a].mean()
        part = cohort.people.assign(structure=structure, volume_mm3=cohort.volumes[structure], corrected_mm3=result)
        parts.append(part.assign(percent=100 * result / mean if mean else np.nan))
    return pd.concat(parts, ignore_index=True)


def draw(cohort: Cohort, table: pd.DataFrame, folder: str | Path) -> dict[str, list[Path]]:
    """Draw effect sizes and corrected volumes.

    Parameters
    ----------
    cohort : Cohort
    table : DataFrame
        From :func:`compare`.
    folder : path
        Where ``effects`` and ``volumes`` are written as PDF, PNG and CSV.

    Returns
    -------
    dict
        Those names to the three files.
    """
    volumes = corrected_volumes(cohort)
    # Controls first, whoever is first in participants.tsv.
    volumes = volumes.sort_values(GROUP, key=lambda names: names != cohort.groups[0], kind="stable")
    volumes = volumes.sort_values("structure", key=lambda names: names.map(list(cohort.volumes).index), kind="stable")
    label = f"Cohen's d, > 0: smaller in {cohort.groups[1]}"
    return {
        "effects": effect_plot(table, Path(folder) / "effects", category="structure", label=label),
        "volumes": box_plot(
            volumes,
            Path(folder) / "volumes",
            value="percent",
            category="structure",
            hue=GROUP,
            label=f"corrected volume in % of the mean of {cohort.groups[0]}",
        ),
    }


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
