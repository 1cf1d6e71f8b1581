"""The tables of measures that people read: one row a structure or a lesion, as text and rounded numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # its module needs torch, which the Slicer application may lack
    from .lesions import Lesion, Load
    from .measure import Row


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes
    ----------
    name : str
        Stable name, with the unit; the header in saved files.
    title : str
        What is shown above it.
    unit : str
        Unit of the numbers; empty without one.
    description : str
        What it holds.
    values : list of str, of int or of float
        One a row.
    """

    name: str
    title: str
    unit: str
    description: str
    values: list


def columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of the table.

    Volumes are whole mm³: Slicer saves six significant digits of each real number in a table, but all digits of an
    integer. Label, asymmetry and quality are text, because only text can be empty there: the intracranial total has no
    label, midline structures have no asymmetry, and a column of numbers would show a 0 or "nan" that nobody measured.

    Parameters
    ----------
    rows : sequence of Row
        From :func:`.measure.rows`.
    """
    names = [row.name for row in rows]
    labels = [_text(row.label, 0) for row in rows]
    volumes = [round(row.volume) for row in rows]
    shares = [round(100.0 * row.share, 3) for row in rows]
    asymmetries = [_text(row.asymmetry, 2) for row in rows]
    quality = [_text(row.quality, 3) for row in rows]
    low, high = ([_text(getattr(row, bound), 0) for row in rows] for bound in ("low", "high"))
    return [
        Column("Structure", "Structure", "", "Name in FreeSurfer", names),
        Column("Label", "Label", "", "Id in FreeSurfer", labels),
        Column("Volume mm3", "Volume (mm³)", "mm3", "Sum of posterior probabilities", volumes),
        Column("Share %", "Share (%)", "%", "Share of the total intracranial volume", shares),
        Column("Asymmetry %", "Asymmetry (%)", "%", "200 (left - right) / (left + right)", asymmetries),
        Column("Quality", "Quality", "", "Expected Dice, 0 to 1; of the last row that of the whole", quality),
        Column("Low mm3", "From (mm³)", "mm3", "Lower bound of the volume, 90 % interval", low),
        Column("High mm3", "To (mm³)", "mm3", "Upper bound of the volume, 90 % interval", high),
    ]


def lesion_columns(lesions: Sequence[Lesion]) -> list[Column]:
    """Return the columns of the table of lesions, largest first.

    Parameters
    ----------
    lesions : sequence of Lesion
        From :func:`.lesions.describe`.
    """
    numbers = [one.number for one in lesions]
    volumes = [round(one.volume) for one in lesions]
    millilitres = [round(one.volume / 1000, 3) for one in lesions]
    probabilities = [round(one.probability, 3) for one in lesions]
    x, y, z = ([round(one.centre[axis], 1) for one in lesions] for axis in range(3))
    return [
        Column("Lesion", "Lesion", "", "Number, from the largest", numbers),
        Column("Volume mm3", "Volume (mm³)", "mm3", "Volume of its voxels", volumes),
        Column("Volume ml", "Volume (ml)", "ml", "Volume of its voxels", millilitres),
        Column("Probability", "Probability", "", "Mean probability of its voxels to be lesion, 0 to 1", probabilities),
        Column("R mm", "R (mm)", "mm", "Centre of mass, to the right", x),
        Column("A mm", "A (mm)", "mm", "Centre of mass, to the front", y),
        Column("S mm", "S (mm)", "mm", "Centre of mass, upwards", z),
        Column("Side", "Side", "", "Where at least a tenth of it lies", [one.side for one in lesions]),
        Column("Structure", "Structure", "", "What holds most of it", [one.structure for one in lesions]),
    ]


def load_columns(loads: Sequence[Load]) -> list[Column]:
    """Return the columns of the table of loads: how much of each structure, hemisphere and the brain is lesion.

    Parameters
    ----------
    loads : sequence of Load
        From :func:`.lesions.loads`.
    """
    return [
        Column("Structure", "Structure", "", "Name in FreeSurfer", [row.name for row in loads]),
        Column("Label", "Label", "", "Id in FreeSurfer", [_text(row.label, 0) for row in loads]),
        Column("Volume mm3", "Volume (mm³)", "mm3", "With its lesions", [round(row.volume) for row in loads]),
        Column("Lesion mm3", "Lesion (mm³)", "mm3", "Of its lesions", [round(row.lesion) for row in loads]),
        Column("Lesion %", "Lesion (%)", "%", "Share that is lesion", [round(row.percent, 2) for row in loads]),
    ]


def _text(number: float | None, digits: int) -> str:
    return "" if number is None else f"{round(number, digits) + 0:.{digits}f}"  # + 0 makes -0.0 zero
