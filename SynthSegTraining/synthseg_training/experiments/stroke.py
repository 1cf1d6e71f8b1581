"""Stroke lesions (Chalcroft et al. 2025, tables 1 to 4): medians of lesion scores by modality and model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from synthseg_slicer.conform import conform, reorient, resample
from synthseg_slicer.errors import ScanError
from synthseg_slicer.labels import LESION_ID
from synthseg_slicer.lesions import FEWEST_MM3
from synthseg_slicer.scan import read_scan
from synthseg_slicer.stroke import known_flips, segment_lesions
from synthseg_slicer.weights import Model
from synthseg_training.evaluation.figures import box_plot
from synthseg_training.evaluation.lesions import SCORES, lesion_scores, summary, trial
from synthseg_training.evaluation.metrics import to_grid
from synthseg_training.evaluation.statistics import compare_methods
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.lesions.reading import lesion_voxels
from synthseg_training.stroke import StrokeConfig

from .comparison import note
from .dataset import Case
from .ledger import Ledger, file_digest
from .methods import MapFolder
from .projections import MOST, draw, packed
from .report import Page, slug
from .scoring import read_labels

ENSEMBLE = "ensemble"
HEAD = 0.2
"""Conformed intensity above which a voxel belongs to the outline of the head."""
VIEWS = "views"
"""Column of the projections."""
VOXEL_MM = 1.0
"""Lesions are scored on this grid, as in the paper."""
MEASURES = {
    "dice": "Dice",
    "hd95_mm": "HD95 (mm)",
    "volume_difference_ml": "AVD (ml)",
    "count_difference": "ALD",
    "f1": "LF1",
}
"""Score to the paper's name of it."""


@dataclass(frozen=True)
class LesionNetwork:
    """Weights of the stroke task and how they are used.

    Attributes
    ----------
    name : str
        In tables and figures.
    model : Model
    flips : int, optional
        Passes a scan: 1, 2 or 8; by default as many as the weights know.
    cleaned : bool
        Drop what the extension drops: lesions off the brain's tissue, and very small ones.
    device : str
        As for :func:`synthseg_slicer.stroke.segment_lesions`.
    """

    name: str
    model: Model
    flips: int | None = None
    cleaned: bool = False
    device: str = "auto"

    def inputs(self, cases: Sequence[Case]) -> dict:
        """Return hashes of what the result is made from."""
        images = [file_digest(case.image) for case in cases]
        flips = self.flips or known_flips(self.model)
        return {"weights": self.model.sha256, "flips": flips, "cleaned": self.cleaned, "images": images}

    def lesions(self, cases: Sequence[Case]) -> tuple[np.ndarray, np.ndarray]:
        """Return the lesion mask from all scans of one head, on the first one's grid, and its affine.

        Warnings about a scan are not repeated.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            result = segment_lesions(
                [case.image for case in cases],
                model=self.model,
                flips=self.flips,
                anatomy=self.cleaned,
                fewest=FEWEST_MM3 if self.cleaned else 0.0,
                device=self.device,
            )
        return result.labels == LESION_ID, result.affine


@dataclass(frozen=True)
class LesionFolder:
    """Lesion masks of another tool, found as by :class:`.methods.MapFolder`.

    What is lesion tells :func:`synthseg_training.lesions.reading.lesion_voxels`.
    """

    folder: MapFolder

    @property
    def name(self) -> str:
        """In tables and figures."""
        return self.folder.name

    def inputs(self, cases: Sequence[Case]) -> dict:
        """Return hashes of what the result is made from."""
        return self.folder.inputs(cases[0])

    def lesions(self, cases: Sequence[Case]) -> tuple[np.ndarray, np.ndarray]:
        """Return the mask of the first scan and its affine."""
        data, affine = self.folder.labels(cases[0])
        return lesion_voxels(data, self.folder.find(cases[0])), affine


def on_scans(
    ledger: Ledger,
    cases: Sequence[Case],
    methods: Sequence[LesionNetwork | LesionFolder],
    *,
    ensemble: bool = False,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Score methods on scans with lesion masks.

    Parameters
    ----------
    ledger : Ledger
        What is done.
    cases : sequence of Case
        Scans; their contrast is the modality.
    methods : sequence of LesionNetwork or LesionFolder
    ensemble : bool
        Also let networks see all scans of a subject together (mean of the logits), where it has several.
    report : callable
        Receives a line per scan and method.

    Returns
    -------
    DataFrame
        Columns ``modality, model, scan``, the scores of :func:`synthseg_training.evaluation.lesions.lesion_scores` and
        ``views``, projections for :func:`.projections.draw` (None in records of versions that made none).

    Raises
    ------
    ScanError
        A file cannot be read, or a mask does not tell what is lesion.
    """
    units = [(case.contrast or "scan", case.name, [case]) for case in cases]
    if ensemble:
        subjects: dict[str, list[Case]] = {}
        for case in cases:
            subjects.setdefault(case.subject, []).append(case)
        units += [(ENSEMBLE, subject, own) for subject, own in subjects.items() if len(own) > 1]
    rows = []
    for modality, name, own in units:
        for method in methods:
            if modality == ENSEMBLE and isinstance(method, LesionFolder):
                continue

            def work(method=method, own=own) -> dict:
                return _scores(*method.lesions(own), own[0])

            inputs = method.inputs(own) | {"reference": file_digest(own[0].reference)}
            scores = ledger.once(f"{method.name}/{modality}/{name}", inputs, work)
            rows.append(
                {"modality": modality, "model": method.name, "scan": name, VIEWS: scores.pop(VIEWS, None), **scores}
            )
            report(f"{method.name}, {name} ({modality}): Dice {scores['dice']:.3f}")
    return pd.DataFrame(rows)


def _scores(lesion: np.ndarray, affine: np.ndarray, case: Case) -> dict:
    """Score a lesion mask on a grid of 1 mm about the reference's field of view, and project both."""
    reference = read_labels(case.reference)
    mask = lesion_voxels(reference.data, case.reference).astype(np.float32)
    mask, grid = resample(*reorient(mask, reference.affine), VOXEL_MM)
    truth = mask > 0.5
    found = to_grid(lesion, affine, truth.shape, grid)
    views = {"outline": _head(case, truth.shape, grid), "true": truth, "found": found > 0}
    return {
        **lesion_scores(found, truth, (VOXEL_MM,) * 3),
        VIEWS: {name: packed(mask) for name, mask in views.items()},
    }


def _head(case: Case, shape: tuple[int, ...], grid: np.ndarray) -> np.ndarray:
    """Return the mask of what is bright in a scan, on a grid; nothing where the scan has no contrast."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            scan = conform(read_scan(case.image))
    except ScanError:
        return np.zeros(shape, bool)
    return to_grid(scan.image > HEAD, scan.affine, shape, grid)


def on_patients(
    ledger: Ledger,
    models: dict[str, Model],
    maps: LabelMapSet,
    config: StrokeConfig,
    *,
    patients: int,
    seed: int = 1,
    flips: int = 2,
    smallest_ml: float = 5.0,
    cleaned: bool = False,
    device: str = "cpu",
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Score models on synthetic patients, each scanned with every clinical sequence.

    Parameters
    ----------
    ledger : Ledger
        What is done; a patient and model is a unit.
    models : dict
        Name to weights of the stroke task.
    maps : LabelMapSet
        Label maps that no model was trained on.
    config, patients, seed, flips, smallest_ml, cleaned, device
        As for :func:`synthseg_training.evaluation.lesions.trial`; patient n is drawn by ``seed + n``.
    report : callable
        Receives a line per patient and model.

    Returns
    -------
    DataFrame
        As of :func:`on_scans`; the modality is the sequence.
    """
    tables = []
    for patient in range(patients):
        for name, model in models.items():

            def work(model: Model = model, patient: int = patient) -> list[dict]:
                table = trial(
                    model,
                    maps,
                    config,
                    patients=1,
                    seed=seed + patient,
                    flips=flips,
                    smallest_ml=smallest_ml,
                    cleaned=cleaned,
                    device=device,
                )
                return table.to_dict("records")

            rows = ledger.once(f"{name}/patient-{patient}", {"weights": model.sha256}, work)
            table = pd.DataFrame(rows).rename(columns={"sequence": "modality"})
            tables.append(table.assign(model=name, scan=f"patient {patient}").drop(columns="patient"))
            report(f"{name}, patient {patient}: Dice {table['dice'].mean():.3f}")
    return pd.concat(tables, ignore_index=True)


def page(folder: Path, table: pd.DataFrame, what: str) -> Page:
    """Return the report: the paper's table for every modality, tests and box plots.

    Parameters
    ----------
    folder : Path
        The experiment's.
    table : DataFrame
        From :func:`on_scans` or :func:`on_patients`.
    what : str
        What was segmented, in a sentence.
    """
    result = Page(folder, "Stroke lesions")
    result.text(
        f"{what} Scored at {VOXEL_MM:g} mm: Dice, 95th percentile of the Hausdorff distance (256 mm where one of the "
        "two masks is empty), absolute differences of volume (AVD) and of the number of lesions (ALD), and lesion-wise "
        "F1 (LF1). Medians with Student-t intervals of 95 %."
    )
    for modality, part in table.groupby("modality", sort=False):
        short = summary(part, ["model"]).rename(columns=MEASURES)
        medians = part.groupby("model", sort=False)[list(SCORES)].median()
        bold = []
        for score, name in MEASURES.items():
            best = medians[score].max() if score in ("dice", "f1") else medians[score].min()
            bold += [(row, name) for row, model in enumerate(short["model"]) if medians.at[model, score] == best]
        result.heading(str(modality))
        several = len(medians) > 1
        caption = f"{modality}: {part['scan'].nunique()} scans; the best in bold."
        result.table(short, f"table_{modality}", caption, best=bold if several else ())
    result.heading("Comparisons")
    for score, larger in (("dice", True), ("hd95_mm", False)):
        figure = box_plot(
            table,
            folder / "figures" / f"{score}_boxes",
            value=score,
            category="modality",
            hue="model",
            unit="scan",
            larger_is_better=larger,
            label=MEASURES[score],
        )
        result.figure(figure, f"{MEASURES[score]}; stars mark a model that is significantly better than all others.")
        if table["model"].nunique() > 1:
            tests = compare_methods(table, value=score, method="model", unit="scan", category="modality")
            result.table(tests.drop(columns="statistic"), f"tests_{score}", f"Every two models, {MEASURES[score]}.")
            result.text(note(tests, "scans"))
    _show(result, table)
    result.attach(table.drop(columns=VIEWS, errors="ignore"), "scores", "Every score:")
    return result


def _show(result: Page, table: pd.DataFrame) -> None:
    """Add the projections of each model's lesions, of the scans that have them."""
    if VIEWS not in table or not table[VIEWS].notna().any():
        return
    result.heading("Where they lie")
    for model, part in table[table[VIEWS].notna()].groupby("model", sort=False):
        rows = [
            (f"{row.scan}{'' if row.modality in row.scan else f' ({row.modality})'}: Dice {row.dice:.2f}", row.views)
            for row in part.itertuples()
        ]
        more = f" The first {MOST} of {len(rows)}." if len(rows) > MOST else ""
        files = draw(rows, result.folder / "figures" / f"lesions_{slug(str(model))}")
        result.figure(files, f"{model}: all lesions of a head in three projections, and its outline.{more}")
