"""Scores of lesion maps, as in tables 1 to 4 of Chalcroft et al. 2025, and a trial on synthetic patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from synthseg_slicer.labels import LESION_ID
from synthseg_slicer.lesions import components
from synthseg_slicer.stroke import classify
from synthseg_slicer.weights import Model
from synthseg_slicer.windows import window_logits
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.physics import CLINICAL
from synthseg_training.physics import Sequence as Acquisition
from synthseg_training.stroke import StrokeConfig, StrokeGenerator
from synthseg_training.stroke.statistics import HeadStatistics

from .metrics import dice, hausdorff_95
from .statistics import median_interval

EMPTY_HD95 = 256.0
"""HD95 in mm where one of the two maps is empty (the edge of the padded volumes in the paper)."""
ANY_DIRECTION = np.ones((3, 3, 3), bool)
"""Connectivity of lesions: faces, edges and corners."""
SCORES = {
    "dice": (0, 1),
    "hd95_mm": (0, EMPTY_HD95),
    "volume_difference_ml": (0, float("inf")),
    "count_difference": (0, float("inf")),
    "f1": (0, 1),
}
"""Scores and what they lie between."""


@dataclass(frozen=True)
class PatientSlice:
    """The axial slice of a synthetic patient with the most lesion.

    Attributes
    ----------
    patient : int
    lesion_ml : float
    target : bool array [x, y]
    scans : dict
        Sequence to standardised image ``[x, y]``, lesion found in it ``[x, y]``, and Dice of the whole scan.
    """

    patient: int
    lesion_ml: float
    target: np.ndarray
    scans: dict[str, tuple[np.ndarray, np.ndarray, float]]

    @property
    def dice(self) -> float:
        """Mean over the sequences."""
        return float(np.mean([dice for _, _, dice in self.scans.values()]))


def lesion_scores(found: np.ndarray, true: np.ndarray, voxel_size: tuple[float, float, float]) -> dict[str, float]:
    """Compare a lesion map with a reference.

    Parameters
    ----------
    found, true : bool array [x, y, z]
    voxel_size : tuple of float
        In mm.

    Returns
    -------
    dict
        ``dice`` (1 where both are empty), ``hd95_mm`` (95th percentile of the surface distances, the larger of the two
        directions; 0 where both are empty, 256 where one is), absolute ``volume_difference_ml`` and
        ``count_difference`` of connected lesions, and lesion-wise ``f1``: a lesion counts as found where it overlaps by
        a voxel.
    """
    ml = float(np.prod(voxel_size)) / 1000
    found_parts, found_count = ndimage.label(found, ANY_DIRECTION)
    true_parts, true_count = ndimage.label(true, ANY_DIRECTION)
    hits = len(np.setdiff1d(np.unique(true_parts[found]), 0))
    right = len(np.setdiff1d(np.unique(found_parts[true]), 0))
    precision = right / found_count if found_count else 0.0
    recall = hits / true_count if true_count else 0.0
    if not found_count and not true_count:
        overlap, distance, f1 = 1.0, 0.0, 1.0
    else:
        overlap = dice(found, true)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        both = found_count and true_count
        distance = hausdorff_95(found, true, voxel_size) if both else EMPTY_HD95
    return {
        "dice": float(overlap),
        "hd95_mm": float(distance),
        "volume_difference_ml": abs(int(found.sum()) - int(true.sum())) * ml,
        "count_difference": float(abs(found_count - true_count)),
        "f1": f1,
    }


def summary(table: pd.DataFrame, by: str | Sequence[str]) -> pd.DataFrame:
    """Return the table of the paper: a row a group, ``median (low-high)`` of each score, and the number of scans."""
    rows = []
    for group, part in table.groupby(by, sort=False):
        keys = dict(zip([by] if isinstance(by, str) else by, [group] if isinstance(by, str) else group))
        intervals = {score: median_interval(part[score], bounds=bounds) for score, bounds in SCORES.items()}
        cells = {score: "{:.3f} ({:.3f} to {:.3f})".format(*interval) for score, interval in intervals.items()}
        rows.append({**keys, "scans": len(part), **cells})
    return pd.DataFrame(rows)


def trial(
    model: Model,
    maps: LabelMapSet,
    config: StrokeConfig,
    *,
    patients: int = 20,
    sequences: dict[str, Acquisition] | None = None,
    seed: int = 1,
    flips: int = 2,
    smallest_ml: float = 0.0,
    cleaned: bool = False,
    device: str = "cpu",
    report: Callable[[str], None] = lambda line: None,
    show: Callable[[PatientSlice], None] = lambda patient: None,
) -> pd.DataFrame:
    """Segment synthetic patients, each scanned with every sequence.

    Parameters
    ----------
    model : Model
        Of the stroke task.
    maps : LabelMapSet
        Label maps that the model was not trained on.
    config : StrokeConfig
        The generative model; its crop is what is segmented.
    patients : int
        Their number; anatomy, lesions and tissue are the same in all sequences.
    sequences : dict, optional
        Name to acquisition; the clinical ones by default.
    seed : int
        Of the first patient.
    flips : {1, 2, 8}
        Passes a scan.
    smallest_ml : float
        Patients with less lesion in the crop are drawn anew.
    cleaned : bool
        Drop what :func:`synthseg_slicer.stroke.segment_lesions` drops (without anatomy): lesions outside of brain
        tissue, uncertain ones, specks.
    device : str
        Where the network runs.
    report : callable
        Called with a line a patient.
    show : callable
        Called with a slice of each patient, for :func:`synthseg_training.sheet.write_trial_sheet`.

    Returns
    -------
    DataFrame
        One row a patient and sequence: ``patient, stage`` (acute, chronic or mixed), ``sequence, lesion_ml`` and
        :data:`SCORES`.
    """
    sequences = CLINICAL if sequences is None else sequences
    # what is segmented is the scan itself: it is standardised as it is
    generator = StrokeGenerator(maps, replace(config, stroke_probability=1.0, statistics=HeadStatistics()))
    rng = torch.Generator().manual_seed(seed)
    channel = model.ids.index(LESION_ID)
    rows = []
    for patient in range(patients):
        while True:
            parameters = generator.draw(rng)
            target = generator.apply(parameters)[1].cpu().numpy() == generator.config.output_ids.index(LESION_ID)
            volume = target.sum() * config.voxel_size**3 / 1000
            if volume >= smallest_ml and volume > 0:
                break
        stages = {focus.stage for focus in parameters.foci}
        stage = "mixed" if len(stages) > 1 else stages.pop()
        where, scans = int(target.sum((0, 1)).argmax()), {}
        for name, sequence in sequences.items():
            image = generator.apply(replace(parameters, sequence=sequence))[0][0].cpu().numpy()
            logits = window_logits(model.network, image, flips=flips, device=device)
            found = logits.argmax(0) == channel
            if cleaned:
                found = components(classify(logits, model.ids)[0], config.voxel_size**3) > 0
            row = lesion_scores(found, target, (config.voxel_size,) * 3)
            rows.append({"patient": patient, "stage": stage, "sequence": name, "lesion_ml": volume, **row})
            scans[name] = image[:, :, where].copy(), found[:, :, where].copy(), row["dice"]
        shown = PatientSlice(patient, volume, target[:, :, where].copy(), scans)
        report(f"patient {patient + 1} of {patients}: {volume:.1f} ml, mean Dice {shown.dice:.3f}")
        show(shown)
    return pd.DataFrame(rows)
