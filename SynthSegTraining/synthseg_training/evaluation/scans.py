"""Evaluate weights on real scans: against references, between contrasts and repeated scans, and on thick slices."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from synthseg_slicer import segment
from synthseg_slicer.errors import ScanError
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.measure import INTRACRANIAL, total_name
from synthseg_slicer.scan import Scan, read_scan, write_volume
from synthseg_slicer.weights import Model
from synthseg_training.evaluation.metrics import (
    DISTANCES,
    asymmetry_errors,
    dice,
    distance_scores,
    to_grid,
    volume_error,
)
from synthseg_training.evaluation.slices import DIRECTIONS, thick_slices

IMAGE_SUFFIX = "_image.nii.gz"
REFERENCE_SUFFIX = "_dseg.nii.gz"
THIN = 1.2
"""Largest voxel edge in mm of scans from which thick slices are made."""
CSF = 24
LEAST_CSF = 0.05
"""Share of CSF in a reference that draws all of it; FreeSurfer labels a millilitre or none."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model.

    Attributes
    ----------
    scores : DataFrame
        Columns ``scan, label, structure, dice, sd95_mm, volume_mm3, reference_mm3``.
    agreement : DataFrame
        Columns ``scan, reference, label, structure, dice``: each contrast against the first of its subject.
    slices : DataFrame
        Columns ``scan, direction, spacing_mm, label, structure, dice, dice_thin``.
    rescans : DataFrame
        Columns ``first, second, label, structure, first_mm3, second_mm3, difference_percent``: 200 |a - b| / (a + b) of
        the volumes.
    intracranial : DataFrame
        Columns ``scan, csf, volume_mm3, reference_mm3, error_percent``: of all structures together; ``csf`` is
        "without" where the reference does not draw CSF around the brain, and it is left out on both sides. Empty for
        weights of another anatomy.
    facts : dict
        Weights' hashes, settings, seconds.
    """

    scores: pd.DataFrame
    agreement: pd.DataFrame
    slices: pd.DataFrame
    rescans: pd.DataFrame
    intracranial: pd.DataFrame
    facts: dict

    def measures(self) -> dict[str, float]:
        """Return what a :class:`~synthseg_training.evaluation.bars.Bar` may ask for, by name.

        ``dice``, ``sd95`` and ``dice fs``, ``sd95 fs`` (mean over scans, and over those named fs*); ``slices axial 5``
        and ``slices 5`` (Dice points lost, the mean over directions); ``agreement b a`` of a contrast with its T1 and
        ``agreement SUBJECT``, their mean; ``rescan a b`` and ``rescan a b weighted`` (volume differences in percent,
        mean over structures and weighted by their volumes); ``intracranial`` and ``intracranial largest`` (mean and
        largest absolute error in percent).
        """
        found: dict[str, float] = {}
        if len(self.scores):
            by_scan = self.scores.groupby("scan")[["dice", "sd95_mm"]].mean()
            by_group = by_scan.groupby(group_of).mean()
            for name, column in (("dice", "dice"), ("sd95", "sd95_mm")):
                found |= {f"{name} {group}": value for group, value in by_group[column].items()}
                found[name] = by_scan[column].mean()
        by_slice = self._losses().groupby(["direction", "spacing_mm"])["points"].mean()
        found |= {f"slices {direction} {spacing:g}": loss for (direction, spacing), loss in by_slice.items()}
        found |= {f"slices {spacing:g}": loss for spacing, loss in by_slice.groupby("spacing_mm").mean().items()}
        by_pair = self.agreement.groupby(["reference", "scan"])["dice"].mean()
        found |= {f"agreement {scan} {reference}": value for (reference, scan), value in by_pair.items()}
        by_subject = by_pair.groupby(lambda pair: subject_of(pair[0])).mean()
        found |= {f"agreement {subject}": value for subject, value in by_subject.items()}
        for (first, second), rows in self.rescans.groupby(["first", "second"]):
            difference, total = rows["difference_percent"], rows["first_mm3"] + rows["second_mm3"]
            found[f"rescan {first} {second}"] = difference.mean()
            found[f"rescan {first} {second} weighted"] = (difference * total).sum() / total.sum()
        if len(self.intracranial):
            error = self.intracranial["error_percent"].abs()
            found |= {"intracranial": error.mean(), "intracranial largest": error.max()}
        return {name: float(value) for name, value in found.items() if not np.isnan(value)}

    def _losses(self) -> pd.DataFrame:
        """Return the Dice points lost on thick slices: columns ``scan, direction, spacing_mm, points``."""
        points = 100 * (self.slices["dice_thin"] - self.slices["dice"])
        return (
            self.slices.assign(points=points)
            .groupby(["scan", "direction", "spacing_mm"], as_index=False)["points"]
            .mean()
        )

    def summary(self) -> str:
        """Return the tables as Markdown."""
        weights = ", ".join(f"{name} `{sha[:12]}`" for name, sha in self.facts["weights"].items())
        parts = [f"Weights {weights}, {self.facts['settings']}."]
        if len(self.scores):
            scores = self.scores.assign(missed=self.scores["dice"].eq(0))
            by_scan = scores.groupby("scan").agg({"dice": "mean", "sd95_mm": "mean", "missed": "sum"}).astype(float)
            by_group = by_scan.groupby(group_of).mean().rename(index=lambda name: f"**{name}\\***")
            by_scan = pd.concat([by_scan, by_group, by_scan.mean().to_frame("**mean**").T])
            columns = self.scores.assign(bias_percent=100 * (self.scores.volume_mm3 / self.scores.reference_mm3 - 1))
            by_label = columns.groupby(["label", "structure"]).agg(
                {"dice": "mean", "sd95_mm": "mean", "bias_percent": "median"}
            )
            parts += [_markdown(by_scan, "scan"), _markdown(by_label.reset_index("label", drop=True), "structure")]
        if len(self.intracranial):
            parts.append(_markdown(self.intracranial.set_index("scan"), "intracranial volume"))
        if len(self.agreement):
            pairs = self.agreement.groupby(["reference", "scan"], as_index=False)["dice"].mean()
            for subject, value in pairs.groupby(pairs["reference"].map(subject_of))["dice"].mean().items():
                pairs.loc[len(pairs)] = ["", f"**{subject}**", value]
            pairs = pairs.rename(columns={"reference": "agreement with", "dice": "Dice"})
            parts.append(_markdown(pairs.set_index("scan"), "scan"))
        for spacing, losses in self._losses().groupby("spacing_mm"):
            table = losses.pivot(index="scan", columns="direction", values="points")
            table["mean"] = table.mean(axis=1)
            table.loc["**mean**"] = table.mean()
            parts.append(f"Dice points lost on slices of {spacing:g} mm:\n\n{_markdown(table, 'scan')}")
        for (first, second), rows in self.rescans.groupby(["first", "second"]):
            rows = rows.set_index("structure")[["first_mm3", "second_mm3", "difference_percent"]]
            rows.loc["**mean**"] = [*rows.iloc[:, :2].sum(), rows["difference_percent"].mean()]
            parts.append(f"Volumes of {first} and {second}, one subject:\n\n{_markdown(rows, 'structure')}")
        return "\n\n".join(parts) + "\n"

    def save(self, folder: Path) -> None:
        """Write the tables as CSV, ``summary.md`` and ``facts.json`` with :meth:`measures`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("scores", "agreement", "slices", "rescans", "intracranial"):
            getattr(self, name).to_csv(folder / f"{name}.csv", index=False)
        (folder / "summary.md").write_text(self.summary(), encoding="utf-8")
        facts = self.facts | {"measures": self.measures()}
        (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def group_of(scan: str) -> str:
    """Return the letters that a scan's name begins with: scans of one source have the same kind of reference."""
    return re.match(r"[A-Za-z]*", scan)[0] or scan


def subject_of(scan: str) -> str:
    """Return what a name ``SUBJECT-CONTRAST`` begins with."""
    return scan.rpartition("-")[0]


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
    slices: Sequence[float] = (),
    slices_names: Sequence[str] = (),
    rescans: Sequence[tuple[str, str]] = (),
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
    slices : sequence of float
        Slice spacings in mm to simulate in every direction.
    slices_names : sequence of str
        From these scans, which need references; by default from all that have one and voxels of at most 1.2 mm.
    rescans : sequence of pairs of str
        Names of scans of one subject whose volumes ought to be equal.
    report : callable
        Receives a line per scan.

    Raises
    ------
    ScanError
        When the folder holds no scan of that name pattern, or lacks one that was asked for.
    """
    folder = Path(folder)
    found = {path.name[: -len(IMAGE_SUFFIX)]: path for path in sorted(folder.glob("*" + IMAGE_SUFFIX))}
    found = {name: path for name, path in found.items() if not names or name in names}
    if not found:
        raise ScanError(
            f"{folder} holds no scan named NAME{IMAGE_SUFFIX}" + (f" for {', '.join(names)}" if names else "")
        )
    structures = {label: name for label, name in model.names.items() if label not in exclude}
    unknown = ({name for pair in rescans for name in pair} | set(slices_names) | set(names)) - set(found)
    if unknown:
        raise ScanError(
            f"{folder} holds no scan named {', '.join(sorted(unknown))}, or it is not among those to evaluate"
        )
    if bare := [name for name in slices_names if not (folder / f"{name}{REFERENCE_SUFFIX}").exists()]:
        raise ScanError(f"{folder} holds no reference ({', '.join(bare)}): what thick slices lose cannot be measured")
    of_brain = total_name(model.ids) == INTRACRANIAL
    scores, agreement, thick, intracranial, seconds, contrasts, volumes = [], [], [], [], [], {}, {}

    def run(scan: Scan | Path):
        segmentation = segment(scan, model=model, fast=fast, device=device)
        seconds.append(sum(segmentation.provenance["seconds"].values()))
        return segmentation

    for name, path in found.items():
        scan = read_scan(path)
        segmentation = run(scan)
        volumes[name] = segmentation.volumes
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            write_volume(keep / f"{name}{REFERENCE_SUFFIX}", segmentation.labels, segmentation.affine)
        reference_path = folder / f"{name}{REFERENCE_SUFFIX}"
        if reference_path.exists():
            reference = read_scan(reference_path)
            rows = _against(segmentation, reference, structures, sd95)
            scores += [{"scan": name, **row} for row in rows]
            if of_brain:
                intracranial.append({"scan": name, **_intracranial(segmentation.volumes, reference)})
            line = f"{name}: Dice {np.mean([row['dice'] for row in rows]):.3f}"
            if sd95:
                line += f", SD95 {np.nanmean([row['sd95_mm'] for row in rows]):.2f} mm"
            report(f"{line}, {seconds[-1]:.1f} s")
            if name not in slices_names if slices_names else max(scan.voxel_size) > THIN:
                continue
            thin = {row["label"]: row["dice"] for row in rows}
            for spacing in slices:
                for direction in DIRECTIONS:
                    made = _against(run(thick_slices(scan, direction, spacing)), reference, structures, False)
                    thick += [
                        {"scan": name, "direction": direction, "spacing_mm": spacing, "dice_thin": thin[row["label"]]}
                        | {key: row[key] for key in ("label", "structure", "dice")}
                        for row in made
                    ]
                    loss = np.mean([100 * (thin[row["label"]] - row["dice"]) for row in made])
                    report(f"{name}: {spacing:g} mm {direction} slices lose {loss:.1f} Dice points")
        elif "-" in name:
            contrasts.setdefault(subject_of(name), {})[name] = segmentation
    for group in contrasts.values():
        first = min(group, key=lambda name: (not name.rpartition("-")[2].startswith("t1"), name))
        base = group[first]
        for name, other in group.items():
            if name == first:
                continue
            prediction = to_grid(other.labels, other.affine, base.labels.shape, base.affine)
            rows = compare(prediction, base.labels, structures, None)
            agreement += [{"scan": name, "reference": first, **row} for row in rows]
            report(f"{name}: agreement with {first} {np.mean([row['dice'] for row in rows]):.3f}")
    repeated = [
        {"first": first, "second": second, "label": label, "structure": structure}
        | {"first_mm3": volumes[first][label], "second_mm3": volumes[second][label]}
        | {"difference_percent": _difference(volumes[first][label], volumes[second][label])}
        for first, second in rescans
        for label, structure in structures.items()
    ]
    facts = {
        "weights": {"general": model.sha256} | {family: expert.sha256 for family, expert in model.experts.items()},
        "settings": "fast (one pass)" if fast or not model.mirrored else "best (mean of both flips)",
        "scans": sorted(found),
        "mean_seconds": float(np.mean(seconds)),
    }
    compared = ["label", "structure", "dice"]
    return Evaluation(
        pd.DataFrame(scores, columns=["scan", *compared, "sd95_mm", "volume_mm3", "reference_mm3"]),
        pd.DataFrame(agreement, columns=["scan", "reference", *compared]),
        pd.DataFrame(thick, columns=["scan", "direction", "spacing_mm", *compared, "dice_thin"]),
        pd.DataFrame(
            repeated, columns=["first", "second", *compared[:2], "first_mm3", "second_mm3", "difference_percent"]
        ),
        pd.DataFrame(intracranial, columns=["scan", "csf", "volume_mm3", "reference_mm3", "error_percent"]),
        facts,
    )


def _against(segmentation, reference: Scan, structures: dict[int, str], sd95: bool) -> list[dict]:
    """Return one row a structure of the reference."""
    truth = np.asarray(reference.data).astype(np.int32)
    prediction = to_grid(segmentation.labels, segmentation.affine, truth.shape, reference.affine)
    voxel_volume = float(np.prod(reference.voxel_size))
    return [
        row
        | {
            "volume_mm3": segmentation.volumes[row["label"]],
            "reference_mm3": np.count_nonzero(truth == row["label"]) * voxel_volume,
        }
        for row in compare(prediction, truth, structures, reference.voxel_size if sd95 else None)
    ]


def _intracranial(volumes: dict[int, float], reference: Scan) -> dict[str, float | str]:
    counts = [np.count_nonzero(reference.data), np.count_nonzero(reference.data == CSF)]
    with_csf = counts[1] > LEAST_CSF * counts[0]
    measured = sum(volume for label, volume in volumes.items() if with_csf or label != CSF)
    true = (counts[0] - (0 if with_csf else counts[1])) * float(np.prod(reference.voxel_size))
    return {
        "csf": "with" if with_csf else "without",
        "volume_mm3": measured,
        "reference_mm3": true,
        "error_percent": 100 * (measured / true - 1),
    }


def _difference(first: float, second: float) -> float:
    return 200 * abs(first - second) / (first + second) if first + second else float("nan")


def compare(
    prediction: np.ndarray,
    truth: np.ndarray,
    structures: Mapping[int, str],
    voxel_size: tuple[float, float, float] | None,
) -> list[dict]:
    """Return the scores of each structure that is in ``truth``.

    Parameters
    ----------
    prediction, truth : int array [x, y, z]
        Label maps on one grid.
    structures : mapping
        Label id to name.
    voxel_size : tuple of float or None
        In mm; None leaves :data:`~synthseg_training.evaluation.metrics.DISTANCES` out (NaN).

    Returns
    -------
    list of dict
        ``label, structure, dice``, the distances, ``volume_error_percent`` and ``asymmetry_error_points``, both by
        voxels; the latter is NaN for what has no partner among the labels of the brain.
    """
    found, true = (dict(enumerate(np.bincount(labels.ravel()).tolist())) for labels in (prediction, truth))
    asymmetry = asymmetry_errors(found, true, BRAIN)
    rows = []
    for label, structure in structures.items():
        b = truth == label
        if not b.any():
            continue
        a = prediction == label
        distances = dict.fromkeys(DISTANCES, np.nan) if voxel_size is None else distance_scores(a, b, voxel_size)
        rows.append(
            {"label": label, "structure": structure, "dice": dice(a, b), **distances}
            | {"volume_error_percent": volume_error(found.get(label, 0), true[label])}
            | {"asymmetry_error_points": asymmetry.get(label, np.nan)}
        )
    return rows


def _markdown(table: pd.DataFrame, index: str) -> str:
    rows = [[index, *table.columns], ["---"] * (1 + len(table.columns))]
    for name, row in table.iterrows():
        rows.append([str(name), *(_text(value) for value in row)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _text(value) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
