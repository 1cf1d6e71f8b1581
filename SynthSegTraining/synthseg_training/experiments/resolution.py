"""Robustness against resolution (Billot et al. 2023, section 5.1, figure 7): thick slices made from scans of 1 mm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from synthseg_slicer.errors import ScanError
from synthseg_slicer.scan import Scan, read_scan
from synthseg_training.evaluation.figures import box_plot, line_plot
from synthseg_training.evaluation.scans import THIN
from synthseg_training.evaluation.slices import DIRECTIONS, thick_slices

from .comparison import against, note
from .dataset import Case
from .intervals import DICE, crossed_interval
from .ledger import Ledger, file_digest
from .methods import Network
from .report import Page
from .scoring import read_reference, scores, structures_of

NATIVE = "native"
AVERAGE = "average"


def run(
    folder: Path,
    cases: Sequence[Case],
    network: Network,
    *,
    spacings: Sequence[float] = (3.0, 5.0, 7.0),
    pair: str = "scan",
    report: Callable[[str], None] = print,
) -> Page:
    """Segment scans at their own resolution and as slices of each spacing in each direction, and compare.

    Parameters
    ----------
    folder : Path
        For records, tables, figures and the page.
    cases : sequence of Case
        Scans with references; those of voxels above 1.2 mm are left out.
    network : Network
        What segments.
    spacings : sequence of float
        Slice spacings in mm.
    pair : {"scan", "structure"}
        What the tests pair.
    report : callable
        Receives a line per segmentation.

    Returns
    -------
    Page
        To be saved.

    Raises
    ------
    ScanError
        No scan has thin slices, or a file cannot be read.
    ValueError
        The folder holds results of other settings, weights or scans.
    """
    ledger = Ledger(folder, {"experiment": "resolution", **network.settings})
    settings = [(NATIVE, 1.0), *((direction, float(spacing)) for spacing in spacings for direction in DIRECTIONS)]
    tables, thick = [], []
    for case in cases:
        scan = read_scan(case.image)
        if max(scan.voxel_size) > THIN:
            thick.append(case.name)
            report(f"{case.name}: left out, its voxels of {max(scan.voxel_size):g} mm are larger than {THIN:g} mm")
        else:
            tables += _scored(ledger, case, scan, network, settings, report)
    if not tables:
        raise ScanError(f"No scan has voxels of at most {THIN:g} mm ({', '.join(thick)}). Give scans of about 1 mm.")
    table = pd.concat(tables, ignore_index=True)
    page = Page(folder, "Robustness against resolution", {"weights": network.weights, **network.settings})
    _fill(page, table, pair, thick)
    return page


def _scored(
    ledger: Ledger,
    case: Case,
    scan: Scan,
    network: Network,
    settings: Sequence[tuple[str, float]],
    report: Callable[[str], None],
) -> list[pd.DataFrame]:
    """Return a table of scores for each setting of a scan."""
    structures = structures_of(network.model.names)
    reference = cache(lambda: read_reference(case, structures))  # read only if something is left to do
    inputs = network.inputs(case) | {"reference": file_digest(case.reference), "convention": case.convention}
    tables = []
    for direction, spacing in settings:

        def work(direction: str = direction, spacing: float = spacing) -> list[dict]:
            image = scan if direction == NATIVE else thick_slices(scan, direction, spacing)
            return scores(*network.segment(image), reference(), structures)

        rows = ledger.once(f"{case.name}/{direction}-{spacing:g}", inputs, work)
        facts = {"scan": case.name, "group": case.group, "direction": direction, "spacing_mm": spacing}
        tables.append(pd.DataFrame(rows).assign(**facts))
        report(f"{case.name}, {direction} {spacing:g} mm: Dice {tables[-1]['dice'].mean():.3f}")
    return tables


def _fill(page: Page, table: pd.DataFrame, pair: str, thick: list[str]) -> None:
    groups, count = ", ".join(sorted(set(table["group"]))), table["scan"].nunique()
    page.text(
        f"{count} scans of about 1 mm ({groups}) were segmented as they are and as slices made from them (Gaussian "
        "slice profile, thickness equal to spacing) in three directions, and scored on the grid of their references "
        f"over {table['structure'].nunique()} structures. Means are over structures first, then over scans."
    )
    if thick:
        page.text(f"Left out, because their voxels are larger than {THIN:g} mm: {', '.join(thick)}.")
    page.heading("Means")
    for value, title in (("dice", "Dice"), ("sd95_mm", "SD95 in mm")):
        page.table(_means(table, value), f"mean_{value}", f"{title} by slice spacing and direction.")
    missed = table.assign(missed=table["dice"].eq(0)).groupby(["direction", "spacing_mm"], sort=False)["missed"].sum()
    if missed.any():
        found = ", ".join(f"{d} {s:g} mm {n}" for (d, s), n in missed[missed > 0].items())
        page.text(f"Structures that were missed altogether (Dice 0; SD95 leaves them out): {found}.")
    curve = _curve(table)
    page.figure(
        line_plot(
            curve,
            page.folder / "figures" / "dice_by_spacing",
            x="spacing_mm",
            value="dice",
            hue="direction",
            x_label="slice spacing (mm)",
            label="mean Dice",
        ),
        "Mean Dice by slice spacing; bars are 95 % intervals of the mean over scans (Student's t).",
    )
    boxes = table.assign(
        spacing=[NATIVE if d == NATIVE else f"{s:g} mm" for d, s in zip(table["direction"], table["spacing_mm"])]
    )
    page.figure(
        box_plot(
            boxes,
            page.folder / "figures" / "dice_boxes",
            value="dice",
            category="spacing",
            hue="direction",
            label="Dice",
        ),
        "Dice of every scan and structure by slice spacing.",
    )
    page.heading("Against the native resolution")
    named = table.assign(
        setting=[d if d == NATIVE else f"{s:g} mm {d}" for d, s in zip(table["direction"], table["spacing_mm"])]
    )
    averages = _averages(table).assign(setting=lambda t: [f"{s:g} mm {AVERAGE}" for s in t["spacing_mm"]])
    named = pd.concat([named, averages], ignore_index=True)
    for value, title in (("dice", "Dice"), ("sd95_mm", "SD95 in mm")):
        tests = against(named, of="setting", baseline=NATIVE, value=value, pair=pair)
        page.table(tests, f"tests_{value}", f"Change of {title} against the native resolution.")
        page.text(note(tests, f"{pair}s"))
    page.heading("By structure")
    by = pd.concat([table[table["direction"] == NATIVE], _averages(table)])
    wide = by.pivot_table(index="structure", columns="spacing_mm", values="dice", sort=True)
    wide.columns = [f"{spacing:g} mm" for spacing in wide.columns]
    wide["lost"] = wide.iloc[:, 0] - wide.iloc[:, -1]
    page.table(
        wide.sort_values("lost", ascending=False).reset_index(),
        "structures",
        "Mean Dice over scans and directions by structure; what is lost from the first to the last spacing.",
    )
    if table["group"].nunique() > 1:
        by = pd.concat([table[table["direction"] == NATIVE], _averages(table)])
        wide = by.pivot_table(index="group", columns="spacing_mm", values="dice")
        wide.columns = [f"{spacing:g} mm" for spacing in wide.columns]
        page.heading("By dataset and contrast")
        page.table(wide.reset_index(), "groups", "Mean Dice over scans and directions by dataset and contrast.")
    page.attach(table, "scores", "Every score:")


def _averages(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over directions of each scan, structure and thick spacing."""
    thick = table[table["direction"] != NATIVE]
    keys = ["scan", "group", "spacing_mm", "label", "structure"]
    return thick.groupby(keys, as_index=False, sort=False)[["dice", "sd95_mm"]].mean().assign(direction=AVERAGE)


def _means(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return a row a spacing: each direction, their average, and what that differs from the native scans."""
    by_scan = table.groupby(["spacing_mm", "direction", "scan"], sort=False)[value].mean()
    means = by_scan.groupby(["spacing_mm", "direction"], sort=False).mean()
    native = means.xs(NATIVE, level="direction").iloc[0]
    rows = [{"spacing_mm": f"{NATIVE} (1 mm)", AVERAGE: native, "change": 0.0}]
    for spacing, part in means.drop(NATIVE, level="direction").groupby("spacing_mm"):
        own = part.droplevel("spacing_mm")
        rows.append({"spacing_mm": f"{spacing:g}", **own, AVERAGE: own.mean(), "change": own.mean() - native})
    return pd.DataFrame(rows, columns=["spacing_mm", *DIRECTIONS, AVERAGE, "change"])


def _curve(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean Dice and its interval over scans for each direction and the average, all beginning at native."""
    rows = []
    native, thick = table[table["direction"] == NATIVE], pd.concat([table, _averages(table)])
    for direction in (AVERAGE, *DIRECTIONS):  # in the colours of the boxes
        for spacing, part in pd.concat([native, thick[thick["direction"] == direction]]).groupby("spacing_mm"):
            interval = crossed_interval(part.groupby("scan")["dice"].mean().to_numpy()[None], bounds=DICE)
            rows.append([direction, spacing, interval.mean, interval.low, interval.high])
    return pd.DataFrame(rows, columns=["direction", "spacing_mm", "dice", "low", "high"])
