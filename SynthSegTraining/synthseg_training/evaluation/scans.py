"""Evaluate weights on real scans with reference labels, and on contrasts of one subject without."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from synthseg_slicer import segment
from synthseg_slicer.errors import ScanError
from synthseg_slicer.scan import read_scan, write_volume
from synthseg_slicer.weights import Model
from synthseg_training.evaluation.metrics import dice, surface_distance_95, to_grid

IMAGE_SUFFIX = "_image.nii.gz"
REFERENCE_SUFFIX = "_dseg.nii.gz"


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model.

    Attributes
    ----------
    scores : DataFrame
        Columns ``scan, label, structure, dice, sd95_mm``.
    agreement : DataFrame
        Columns ``scan, reference, label, structure, dice``: each contrast against the first of its subject.
    facts : dict
        Weights' hash, settings, seconds.
    """

    scores: pd.DataFrame
    agreement: pd.DataFrame
    facts: dict

    def summary(self) -> str:
        """Return the tables per scan and per structure as Markdown."""
        parts = [f"Weights `{self.facts['weights_sha256'][:12]}`, {self.facts['settings']}."]
        if len(self.scores):
            by_scan = self.scores.groupby("scan")[["dice", "sd95_mm"]].mean()
            by_scan.loc["**mean**"] = by_scan.mean()
            by_label = (
                self.scores.groupby(["label", "structure"])[["dice", "sd95_mm"]].mean().reset_index("label", drop=True)
            )
            parts += [_markdown(by_scan, "scan"), _markdown(by_label, "structure")]
        if len(self.agreement):
            pairs = self.agreement.groupby(["reference", "scan"])["dice"].mean().reset_index("reference")
            pairs = pairs.rename(columns={"reference": "agreement with", "dice": "Dice"})
            parts.append(_markdown(pairs, "scan"))
        return "\n\n".join(parts) + "\n"

    def save(self, folder: Path) -> None:
        """Write ``scores.csv``, ``agreement.csv``, ``summary.md`` and ``facts.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.scores.to_csv(folder / "scores.csv", index=False)
        self.agreement.to_csv(folder / "agreement.csv", index=False)
        (folder / "summary.md").write_text(self.summary(), encoding="utf-8")
        (folder / "facts.json").write_text(json.dumps(self.facts, indent=2) + "\n", encoding="utf-8")


def evaluate(
    folder: str | Path,
    model: Model,
    *,
    names: Sequence[str] = (),
    fast: bool = False,
    device: str = "auto",
    exclude: Sequence[int] = (0, 24),
    sd95: bool = True,
    keep: Path | None = None,
    report: Callable[[str], None] = print,
) -> Evaluation:
    """Segment the scans of a folder and compare.

    Scans are named ``NAME_image.nii.gz`` and references ``NAME_dseg.nii.gz``. Scans without a reference whose names
    agree up to the last hyphen (``ms07-t1``, ``ms07-t2``) are contrasts of one subject: each is compared with the first
    in alphabetical order whose contrast begins with ``t1``.

    Parameters
    ----------
    folder : path
        The scans.
    model : Model
        Weights to evaluate.
    names : sequence of str
        Restrict to these scans; all where empty.
    fast, device
        As for :func:`synthseg_slicer.segment`.
    exclude : sequence of int
        Labels to leave out; by default background and CSF, on whose extent references disagree.
    sd95 : bool
        Also compute surface distances (seconds a scan).
    keep : Path, optional
        Folder to write the segmentations to.
    report : callable
        Receives a line per scan.

    Raises
    ------
    ScanError
        When the folder holds no scan of that name pattern.
    """
    folder = Path(folder)
    found = {path.name[: -len(IMAGE_SUFFIX)]: path for path in sorted(folder.glob("*" + IMAGE_SUFFIX))}
    found = {name: path for name, path in found.items() if not names or name in names}
    if not found:
        raise ScanError(
            f"{folder} holds no scan named NAME{IMAGE_SUFFIX}" + (f" for {', '.join(names)}" if names else "")
        )
    structures = {label: name for label, name in model.names.items() if label not in exclude}
    scores, agreement, seconds, contrasts = [], [], [], {}
    for name, path in found.items():
        segmentation = segment(path, model=model, fast=fast, device=device)
        seconds.append(sum(segmentation.provenance["seconds"].values()))
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            write_volume(keep / f"{name}{REFERENCE_SUFFIX}", segmentation.labels, segmentation.affine)
        reference_path = folder / f"{name}{REFERENCE_SUFFIX}"
        if reference_path.exists():
            reference = read_scan(reference_path)
            truth = np.asarray(reference.data).astype(np.int32)
            prediction = to_grid(segmentation.labels, segmentation.affine, truth.shape, reference.affine)
            rows = _compare(prediction, truth, structures, reference.voxel_size if sd95 else None)
            scores += [{"scan": name, **row} for row in rows]
            line = f"{name}: Dice {np.mean([row['dice'] for row in rows]):.3f}"
            if sd95:
                line += f", SD95 {np.nanmean([row['sd95_mm'] for row in rows]):.2f} mm"
            report(f"{line}, {seconds[-1]:.1f} s")
        elif "-" in name:
            contrasts.setdefault(name.rpartition("-")[0], {})[name] = segmentation
    for group in contrasts.values():
        first = min(group, key=lambda name: (not name.rpartition("-")[2].startswith("t1"), name))
        base = group[first]
        for name, other in group.items():
            if name == first:
                continue
            prediction = to_grid(other.labels, other.affine, base.labels.shape, base.affine)
            rows = _compare(prediction, base.labels, structures, None)
            agreement += [{"scan": name, "reference": first, **row} for row in rows]
            report(f"{name}: agreement with {first} {np.mean([row['dice'] for row in rows]):.3f}")
    facts = {
        "weights_sha256": model.sha256,
        "settings": "fast (one pass)" if fast else "best (mean of both flips)",
        "scans": sorted(found),
        "mean_seconds": float(np.mean(seconds)),
    }
    columns = ["scan", "label", "structure", "dice", "sd95_mm"]
    return Evaluation(
        pd.DataFrame(scores, columns=columns),
        pd.DataFrame(agreement, columns=["scan", "reference", "label", "structure", "dice"]),
        facts,
    )


def _compare(prediction, truth, structures, voxel_size) -> list[dict]:
    rows = []
    for label, structure in structures.items():
        b = truth == label
        if not b.any():
            continue
        a = prediction == label
        distance = float("nan") if voxel_size is None else surface_distance_95(a, b, voxel_size)
        rows.append({"label": label, "structure": structure, "dice": dice(a, b), "sd95_mm": distance})
    return rows


def _markdown(table: pd.DataFrame, index: str) -> str:
    rows = [[index, *table.columns], ["---"] * (1 + len(table.columns))]
    for name, row in table.iterrows():
        rows.append([str(name), *(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
