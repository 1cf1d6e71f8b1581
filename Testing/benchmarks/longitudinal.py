"""Whether changes of known size are found in real scans, and whether none are found where there are none.

    python Testing/benchmarks/longitudinal.py SCANS -o DIR [--model X/brain.pt]

SCANS holds NAME_image.nii.gz. A follow-up is deformed smoothly so that the ventricles grow by 15 % and the hippocampi
shrink by 10 %, and compared with the baseline: for --pair, the second of two real scans of a head against the first;
for --names, two simulated visits (synthseg_training.rescan) of one scan. The real pair is compared undeformed as well,
and once more with its scans exchanged; time and memory of that are set against two single segmentations, each in a
process of its own. ``DIR/longitudinal.md`` says what was found; true changes are those of the deformed label map.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from measure import in_child, peak_megabytes
from scipy import fft, ndimage

from synthseg_slicer import segment
from synthseg_slicer.change import NOISE, symmetrised_percent
from synthseg_slicer.longitudinal import Timeline, segment_timepoints
from synthseg_slicer.scan import Scan
from synthseg_slicer.weights import Model, load_model
from synthseg_training.rescan import named_scans, retake

TARGETS = {(4, 43): 1.15, (17, 53): 0.90}
"""Labels, and the factor by which their volume is to change."""
SMOOTHING_MM, REACH_MM = 1.5, 20.0
"""Of the density of change; distance from the structures within which the rest makes room."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--names", nargs="*", default=["nm1000", "fs10"])
    parser.add_argument("--pair", nargs=2, default=["nm1003", "nm1023"])
    parser.add_argument("--child", choices=["singly", "together"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    model = load_model(path=options.model)
    warnings.simplefilter("ignore")
    first, second = named_scans(options.folder, options.pair)
    if options.child:
        print(json.dumps(cost(options.child, first, second, model)))
        return
    if options.output is None:
        parser.error("name a folder for the results: -o DIR")
    if model.rescan is None:
        parser.error("these weights have no rescan noise: run synthseg-train rescan first")
    rng = np.random.default_rng(1)
    still = segment_timepoints([first, second], model=model)
    rows = compared("no change", still, {})
    changed, truth = atrophied(second, model)
    rows += compared("change", segment_timepoints([first, changed], model=model), truth)
    for scan in named_scans(options.folder, options.names):
        changed, truth = atrophied(scan, model)
        visits = [retake(scan, rng), retake(changed, rng)]
        rows += compared("change", segment_timepoints(visits, model=model), truth)
    asked = [str(options.folder), "--pair", *options.pair]
    asked += [] if options.model is None else ["--model", str(options.model)]
    costs = {kind: in_child(__file__, *asked, "--child", kind) for kind in ("singly", "together")}
    exchanged = [{str(label): one[label] for label in one} for one in volumes_of(still)] == costs["together"]["volumes"]
    report(pd.DataFrame(rows), model, costs, exchanged, options.output)


def volumes_of(timeline: Timeline) -> list[dict[int, float]]:
    """Return the volumes of each timepoint."""
    return [one.segmentation.volumes for one in timeline.timepoints]


def cost(kind: str, first: Scan, second: Scan, model: Model) -> dict:
    """Return processor seconds, MB at the peak, and the volumes of both scans, singly or as exchanged timepoints."""
    begin = time.process_time()  # steady on a busy machine, too
    if kind == "singly":
        volumes = [segment(scan, model=model).volumes for scan in (first, second)]
    else:
        volumes = volumes_of(segment_timepoints([second, first], model=model))[::-1]
    return {"seconds": time.process_time() - begin, "megabytes": peak_megabytes(), "volumes": volumes}


def compared(kind: str, timeline: Timeline, truth: dict[int, float]) -> list[dict]:
    """Return a row a structure: what was found and what is true, in percent."""
    names = " ".join(dict.fromkeys(one.scan.name for one in timeline.timepoints))
    target = {label for labels in TARGETS for label in labels} if kind == "change" else set()
    return [
        {
            "kind": kind, "scan": names, "structure": row.structure, "target": row.label in target,
            "true": truth.get(row.label, 0.0), "found": row.change_percent, "threshold": row.threshold_percent,
            "verdict": row.verdict,
        }
        for row in timeline.changes
        if row.label is not None and row.verdict
    ]  # fmt: skip


def atrophied(scan: Scan, model: Model) -> tuple[Scan, dict[int, float]]:
    """Return the scan deformed so that :data:`TARGETS` hold, and the true change of each label in percent.

    The displacement is the gradient of a potential whose Laplacian is the wanted change of volume, taken back within
    REACH_MM around; its strength is adjusted to the structures' measured volume.
    """
    labels = segment(scan, model=model, native=True).labels
    voxel = np.array(scan.voxel_size)
    soft = {labels_of: np.isin(labels, labels_of).astype(np.float32) for labels_of in TARGETS}
    fields = [field(mask, voxel) for mask in soft.values()]
    strength = np.array([np.log(factor) for factor in TARGETS.values()])
    for _ in range(6):
        displacement = np.tensordot(strength, fields, 1)
        found = [warped(mask, displacement).sum() / mask.sum() for mask in soft.values()]
        strength *= np.log(list(TARGETS.values())) / np.log(found)
    displacement = np.tensordot(strength, fields, 1)
    truth = {}
    for label in np.unique(labels[labels > 0]):
        mask = (labels == label).astype(np.float32)
        truth[int(label)] = symmetrised_percent(float(mask.sum()), float(warped(mask, displacement).sum()))
    data = warped(np.asarray(scan.data, np.float32), displacement, order=3)
    return replace(scan, data=np.clip(data, scan.data.min(), scan.data.max())), truth


def field(mask: np.ndarray, voxel: np.ndarray) -> np.ndarray:
    """Return the displacement ``[3, x, y, z]`` in voxels, from the new image to the old, of a unit of log growth."""
    density = ndimage.gaussian_filter(mask, SMOOTHING_MM / voxel)
    around = ndimage.distance_transform_edt(mask == 0, sampling=voxel)
    ring = ndimage.gaussian_filter(((around > 0) & (around < REACH_MM)).astype(np.float32), SMOOTHING_MM / voxel)
    density -= ring * (density.sum() / ring.sum())
    shape = [fft.next_fast_len(n + 32, real=True) for n in mask.shape]
    frequencies = np.meshgrid(
        *(2 * np.pi * fft.fftfreq(n, s) for n, s in zip(shape[:2], voxel)),
        2 * np.pi * fft.rfftfreq(shape[2], voxel[2]), indexing="ij", sparse=True,
    )  # fmt: skip
    square = sum(f**2 for f in frequencies)
    square[0, 0, 0] = 1
    potential = fft.rfftn(-density, shape) / -square  # the way back from the new image contracts what grows
    inside = tuple(slice(0, n) for n in mask.shape)
    return np.stack([fft.irfftn(1j * f * potential, shape)[inside] / s for f, s in zip(frequencies, voxel)])


def warped(volume: np.ndarray, displacement: np.ndarray, order: int = 1) -> np.ndarray:
    """Return the volume at each voxel's place plus its displacement."""
    places = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij")) + displacement
    return ndimage.map_coordinates(volume, places, order=order, mode="nearest")


def report(table: pd.DataFrame, model: Model, costs: dict[str, dict], exchanged: bool, folder: Path) -> None:
    """Write the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "longitudinal.csv", index=False)
    table["beyond"] = table["verdict"] != NOISE
    still = table[table["kind"] == "no change"]
    singly = zip(*(volumes.values() for volumes in costs["singly"]["volumes"]))
    pairs = ", ".join(f"{count} {kind}" for kind, count in model.rescan.facts["pairs"].items())
    added = model.rescan.facts["added_by_real_visits_percent"]
    lines = [
        f"Thresholds rest on {pairs} pairs; real visits add {added:.2f} %.",
        "",
        f"Unchanged ({still['scan'].iloc[0]}): {still['beyond'].sum()} of {len(still)} structures beyond threshold, "
        f"mean difference {still['found'].abs().mean():.2f} %, largest {still['found'].abs().max():.2f} %.",
        f"With the scans exchanged all volumes are {'the same to the last bit' if exchanged else 'NOT the same'}.",
        "Segmented singly, the mean difference is "
        f"{np.mean([abs(symmetrised_percent(*pair)) for pair in singly if sum(pair)]):.2f} %.",
        "",
        "| two scans | processor seconds | MB at the peak |",
        "| --- | --- | --- |",
        *(f"| {kind} | {one['seconds']:.1f} | {one['megabytes']:.0f} |" for kind, one in costs.items()),
        "",
        "| scan | structure | true % | found % | threshold % | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    changed = table[table["kind"] == "change"]
    for row in changed[changed["target"]].itertuples():
        numbers = f"{row.true:+.1f} | {row.found:+.1f} | {row.threshold:.1f}"
        lines.append(f"| {row.scan} | {row.structure} | {numbers} | {row.verdict} |")
    rest = changed[~changed["target"]]
    wrong = rest[rest["beyond"] & (rest["true"].abs() < 0.5)]
    lines += [
        "",
        f"Of the {len(rest)} other structures {rest['beyond'].sum()} lie beyond their threshold, "
        f"{len(wrong)} of them without a true change of 0.5 %: {', '.join(wrong['scan'] + ' ' + wrong['structure'])}",
    ]
    text = "\n".join(lines) + "\n"
    (folder / "longitudinal.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
