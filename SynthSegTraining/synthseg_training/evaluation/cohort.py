"""People of a group study: a table of volumes joined with a BIDS participants.tsv."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from synthseg_slicer.measure import INTRACRANIAL

SCAN, ID, GROUP = "scan", "participant_id", "group"
COVARIATES = ("age", "sex")


@dataclass(frozen=True)
class Cohort:
    """Two groups of people, those with all values only; the tables have a row a person in the same order.

    Attributes
    ----------
    groups : tuple of str
        Controls and patients.
    people : DataFrame
        Columns ``participant_id, group``.
    volumes : DataFrame
        mm³, a column a structure.
    design : DataFrame
        Covariates as numbers; of a text every value but the first has a column of zeros and ones.
    left_out : tuple of str
        People of the two groups who lack a volume or a covariate.
    """

    groups: tuple[str, str]
    people: pd.DataFrame
    volumes: pd.DataFrame
    design: pd.DataFrame
    left_out: tuple[str, ...]

    @property
    def in_a(self) -> np.ndarray:
        """Whether each person belongs to the first group."""
        return self.people[GROUP].eq(self.groups[0]).to_numpy()

    @property
    def covariates(self) -> tuple[np.ndarray, np.ndarray]:
        """Covariates of the first and of the second group, ``[n, k]`` each."""
        return self.design[self.in_a].to_numpy(), self.design[~self.in_a].to_numpy()

    def split(self, structure: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a structure's volumes in mm³ in the first and in the second group."""
        volumes = self.volumes[structure].to_numpy()
        return volumes[self.in_a], volumes[~self.in_a]


def read_volumes(path: str | Path) -> pd.DataFrame:
    """Read a table of volumes: column ``scan`` and one a structure, as ``synthseg-slicer --volumes`` writes it.

    Raises
    ------
    ValueError
        The file cannot be read as such a table.
    """
    table = _read(path, ",", text=(SCAN,))
    if SCAN not in table:
        raise ValueError(f"{path}: has no column {SCAN}. Give the table that synthseg-slicer --volumes writes.")
    if text := [name for name in table if name != SCAN and not pd.api.types.is_numeric_dtype(table[name])]:
        raise ValueError(f"{path}: {', '.join(text)} should hold volumes in mm³ and holds text. Take it out.")
    return table


def read_participants(path: str | Path) -> pd.DataFrame:
    """Read a BIDS participants.tsv, where ``n/a`` is a missing value.

    Raises
    ------
    ValueError
        The file cannot be read, has no column ``participant_id``, or a participant twice.
    """
    table = _read(path, "\t", text=(ID, GROUP))
    if ID not in table:
        raise ValueError(f"{path}: has no column {ID}. Give a BIDS participants.tsv, separated by tabulators.")
    if (twice := table[ID].duplicated()).any():
        raise ValueError(f"{path}: {table.loc[twice, ID].iloc[0]} is there twice. Keep one row a participant.")
    return table


def join(
    volumes: pd.DataFrame,
    participants: pd.DataFrame,
    *,
    groups: tuple[str, str],
    covariates: Sequence[str] = COVARIATES,
    intracranial: str | None = INTRACRANIAL,
    sum_sides: bool = False,
) -> Cohort:
    """Find each scan's participant.

    It is the one whose identifier is the scan's name, a folder on its path, or what its file's name begins with up to
    ``_`` or ``.``.

    Parameters
    ----------
    volumes : DataFrame
        From :func:`read_volumes`, a row a participant.
    participants : DataFrame
        From :func:`read_participants`, with a column ``group``.
    groups : tuple of str
        Controls and patients, as that column names them; participants of other groups are not used.
    covariates : sequence of str
        Columns of ``participants``: numbers, or text such as F and M.
    intracranial : str or None
        Column of either table with the intracranial volume, which is a covariate too; None to do without.
    sum_sides : bool
        Whether ``Left-`` and ``Right-`` structures are added up.

    Raises
    ------
    ValueError
        A column or a group is missing, a covariate is half numbers and half text, or scans do not belong to one
        participant each.
    """
    groups = tuple(map(str, groups))
    if len(set(groups)) != 2:
        raise ValueError(f"two different groups are compared, not {' and '.join(groups)}")
    for column in (GROUP, *covariates):
        if column not in participants:
            raise ValueError(f"participants.tsv has no column {column}; it has {', '.join(participants)}")
    structures = [name for name in volumes if name != SCAN]
    if both := [name for name in structures if name in participants]:
        raise ValueError(f"both tables have a column {both[0]}; take it out of one of them")
    owners = volumes[SCAN].map(_owner_of(participants[ID]))
    if (stray := owners.isna()).any():
        raise ValueError(
            f"participants.tsv has nobody for the scan {volumes.loc[stray, SCAN].iloc[0]} ({stray.sum()} of "
            f"{len(volumes)} scans). Add the participants, or take the scans out of the table of volumes."
        )
    if (twice := owners.duplicated()).any():
        raise ValueError(f"{owners[twice].iloc[0]} has several scans in the table of volumes; keep one a participant")
    table = participants.assign(**{ID: participants[ID].astype(str), GROUP: participants[GROUP].astype("string")})
    table = table[table[GROUP].isin(groups)].merge(volumes.drop(columns=SCAN).assign(**{ID: owners}), on=ID)
    design = table[list(covariates)]
    if intracranial is not None:
        if intracranial not in table:
            raise ValueError(f"neither table has a column {intracranial} to correct for; name another one, or none")
        design = design.assign(**{intracranial: table[intracranial]})
        structures = [name for name in structures if name != intracranial]
    complete = design.notna().all(axis=1) & table[structures].notna().all(axis=1)
    left_out = tuple(table.loc[~complete, ID])
    table, design = table[complete].reset_index(drop=True), design[complete].reset_index(drop=True)
    for name in groups:
        if not table[GROUP].eq(name).any():
            known = ", ".join(sorted(participants[GROUP].dropna().astype(str).unique()))
            raise ValueError(f"nobody of group {name} has a scan and all covariates; participants.tsv has {known}")
    values = table[structures].astype(float)
    if sum_sides:
        without = [name.removeprefix("Left-").removeprefix("Right-") for name in structures]
        values = values.T.groupby(without, sort=False).sum().T
    people = pd.DataFrame({ID: table[ID], GROUP: table[GROUP].astype(str)})
    return Cohort(groups, people, values, _numbers(design), left_out)


def _read(path: str | Path, separator: str, text: Iterable[str]) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep=separator, dtype=dict.fromkeys(text, str), na_values=["n/a"])
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a table ({error})") from error


def _owner_of(ids: Iterable[str]):
    known = set(map(str, ids))

    def owner(scan: str) -> str | None:
        path = PurePath(str(scan))
        ends = [match.start() for match in re.finditer(r"[_.]", path.name)]
        names = [str(scan), path.name, *(path.name[:end] for end in reversed(ends)), *reversed(path.parts[:-1])]
        return next((name for name in names if name in known), None)

    return owner


def _numbers(design: pd.DataFrame) -> pd.DataFrame:
    columns = {}
    for name, values in design.items():
        numbers = pd.to_numeric(values, errors="coerce")
        if numbers.notna().all():
            columns[name] = numbers.astype(float)
        elif numbers.notna().any():
            raise ValueError(
                f"the covariate {name} is a number for some and {values[numbers.isna()].iloc[0]} for others"
            )
        else:
            for value in sorted(values.unique())[1:]:
                columns[f"{name} {value}"] = values.eq(value).astype(float)
    return pd.DataFrame(columns, index=design.index)
