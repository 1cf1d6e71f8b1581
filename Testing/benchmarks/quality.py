"""How well the quality score tells good results from bad ones on real scans, whole and spoiled.

    python Testing/benchmarks/quality.py SCANS -o DIR [--model X/brain.pt]

SCANS holds NAME_image.nii.gz and NAME_dseg.nii.gz. Every scan is segmented as it is, and the chosen ones spoiled: a
part cut off, noise, turned headers; then things that are no head. ``DIR/quality.md`` compares expected with true Dice,
says how often the 90 % intervals hold the reference's volume, and lists the verdict on every scan.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from synthseg_slicer import segment
from synthseg_slicer.scan import Scan, read_scan
from synthseg_slicer.weights import load_model
from synthseg_training.calibration import blobs
from synthseg_training.evaluation.metrics import dice, to_grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--spoil", nargs="+", default=["fs01", "nm1036"], help="scans to spoil")
    options = parser.parse_args()
    model = load_model(path=options.model)
    if model.calibration is None:
        parser.error("these weights have no calibration: run synthseg-train calibrate first")
    warnings.simplefilter("ignore")
    rows, verdicts = [], []
    for path in sorted(options.folder.glob("*_image.nii.gz")):
        name, scan = path.name.removesuffix("_image.nii.gz"), read_scan(path)
        result = segment(scan, model=model)
        verdicts.append(_verdict(name, "whole", result))
        reference = options.folder / f"{name}_dseg.nii.gz"
        if reference.exists():
            rows += _compare(name, result, read_scan(reference))
        if name in options.spoil:
            verdicts += [_verdict(name, kind, segment(bad, model=model)) for kind, bad in spoiled(scan)]
    rng = np.random.default_rng(0)
    for number in range(3):
        data = blobs((160, 160, 160), rng)
        verdicts.append(_verdict(f"blobs {number + 1}", "wrong organ", segment(Scan(data, np.eye(4)), model=model)))
    _report(pd.DataFrame(rows), pd.DataFrame(verdicts), options.output)


def spoiled(scan: Scan):
    """Yield kinds of spoiling and the spoiled scans, most of whose axes need not follow the patient's."""
    affine, data = scan.affine, scan.data
    codes = np.abs(affine[:3, :3] / scan.voxel_size).argmax(0)
    upwards, sideways = (int(np.flatnonzero(codes == world)[0]) for world in (2, 0))
    half, third = data.shape[upwards] // 2, data.shape[upwards] // 3
    rising = affine[2, upwards] > 0
    yield "lower half missing", _part(scan, upwards, slice(half, None) if rising else slice(0, half))
    yield "upper third missing", _part(scan, upwards, slice(0, 2 * third) if rising else slice(third, None))
    yield "one side missing", _part(scan, sideways, slice(0, data.shape[sideways] // 2))
    low, high = np.percentile(data, [1, 99])
    rng = np.random.default_rng(0)
    yield "noise only", Scan(rng.normal(size=data.shape).astype(np.float32), affine)
    noisy = data + rng.normal(0, 0.6 * (high - low), data.shape)
    yield "heavy noise", Scan(noisy.astype(np.float32), affine)
    yield "header upside down", Scan(np.ascontiguousarray(np.flip(data, upwards)), affine)
    yield "axes exchanged", Scan(np.ascontiguousarray(data.transpose(1, 2, 0)), affine)


def _part(scan: Scan, axis: int, part: slice) -> Scan:
    cut = tuple(part if a == axis else slice(None) for a in range(3))
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (part.start or 0)
    return Scan(np.ascontiguousarray(scan.data[cut]), affine)


SAYS = {
    "probably wrong": "probably wrong",
    "Nothing was segmented": "probably wrong",
    "reaches the border": "brain cut off",
    "expected Dice is low": "doubtful structures",
}
"""What a warning says, to the verdict; the first one counts."""


def _verdict(name: str, kind: str, result) -> dict:
    told = " ".join(result.provenance["warnings"])
    verdict = next((verdict for text, verdict in SAYS.items() if text in told), "good")
    return {"scan": name, "kind": kind, "quality": result.verdict.scan, "verdict": verdict}


def _compare(name: str, result, reference: Scan) -> list[dict]:
    truth = np.asarray(reference.data).astype(np.int32)
    labels = to_grid(result.labels, result.affine, truth.shape, reference.affine)
    voxel_volume = float(np.prod(reference.voxel_size))
    rows = []
    for row in result.rows[:-1]:
        true = np.count_nonzero(truth == row.label) * voxel_volume
        if row.quality is not None and true:
            overlap = dice(labels == row.label, truth == row.label)
            inside = row.low <= true <= row.high
            rows.append(
                {"scan": name, "structure": row.name, "dice": overlap, "expected": row.quality, "inside": inside}
            )
    return rows


def _report(rows: pd.DataFrame, verdicts: pd.DataFrame, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / "structures.csv", index=False)
    verdicts.to_csv(folder / "verdicts.csv", index=False)
    by_scan = rows.groupby("scan")[["dice", "expected"]].mean()
    error = (rows["dice"] - rows["expected"]).abs().mean()
    rank = rows["dice"].corr(rows["expected"], method="spearman")
    lines = [
        f"{len(rows)} structures of {len(by_scan)} real scans: expected Dice off by {error:.3f} on average, rank "
        f"correlation {rank:.2f}; 90 % intervals hold the reference's volume in {100 * rows['inside'].mean():.0f} %.",
        "",
        "| scan | what | quality | verdict |",
        "| --- | --- | --- | --- |",
    ]
    for row in verdicts.itertuples():
        lines.append(f"| {row.scan} | {row.kind} | {row.quality:.2f} | {row.verdict} |")
    lines += ["", "| scan | true Dice | expected |", "| --- | --- | --- |"]
    lines += [f"| {name} | {row.dice:.3f} | {row.expected:.3f} |" for name, row in by_scan.iterrows()]
    text = "\n".join(lines) + "\n"
    (folder / "quality.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
