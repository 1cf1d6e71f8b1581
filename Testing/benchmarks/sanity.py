"""How often the input checks flag real scans, as they are and spoiled, and things that are no head.

    python Testing/benchmarks/sanity.py SCANS -o DIR [--segment NAME ...] [--model X/brain.pt]

SCANS holds NAME_image.nii.gz. Every scan is looked at as it is and in every spoiled version, before it would be
segmented; those named after --segment are segmented too (one pass), in the versions of which nothing was said before.
``DIR/sanity.md`` says for each kind how many were refused or flagged, and for turned heads how often the suggested
orientation is right. ``DIR/sanity.csv`` has every message.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from synthseg_slicer import sanity, segment
from synthseg_slicer.conform import conform
from synthseg_slicer.errors import ScanError, ScanWarning
from synthseg_slicer.scan import Scan, read_scan
from synthseg_slicer.weights import Model, load_model
from synthseg_training.calibration import blobs

Make = Callable[[], Scan]
TURNS = ("upside down", "back to front", "axes exchanged")
"""Beginnings of the kinds whose orientation should be suggested."""
TOLD = (
    "probably wrong",
    "Nothing was segmented",
    "does not lie as the header says",
    "intracranial volume",
    "reaches the border",
    "expected Dice is low",
)
"""What warnings of a result say that is worth looking at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--segment", nargs="*", default=[], metavar="NAME", help="scans to segment")
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    model = load_model(path=options.model) if options.segment else None
    rows = [_row("", kind, lambda scan=scan: scan, model, None) for kind, scan in no_heads()]
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(options.folder.glob("*_image.nii.gz")):
            name = path.name.removesuffix("_image.nii.gz")
            for kind, make, codes in spoiled(read_scan(path), Path(scratch) / "scan.nii"):
                rows.append(_row(name, kind, make, model if name in options.segment else None, codes))
                pd.DataFrame(rows).to_csv(options.output / "sanity.csv", index=False)
    _report(pd.DataFrame(rows), options.output)


def spoiled(scan: Scan, scratch: Path) -> Iterator[tuple[str, Make, str | None]]:
    """Yield kinds, how to make the scan of each, and the true directions of its voxel axes where they are not said.

    The header of a turned scan is left as it was: it is the voxels that move.
    """
    data, affine = scan.data, scan.affine
    x, y, z = (int(axis) for axis in np.argsort(np.abs(affine[:3, :3] / scan.voxel_size).argmax(0)))
    codes = "".join(nib.aff2axcodes(affine))
    opposite = str.maketrans("RLAPSI", "LRPAIS")

    def flipped(axis: int) -> tuple[Make, str]:
        true = codes[:axis] + codes[axis].translate(opposite) + codes[axis + 1 :]
        return lambda: Scan(np.flip(data, axis), affine), true

    def moved(*order: int) -> tuple[Make, str]:
        return lambda: Scan(data.transpose(order), affine), "".join(codes[axis] for axis in order)

    def exchanged(one: int, other: int) -> tuple[Make, str]:
        order = [0, 1, 2]
        order[one], order[other] = other, one
        return moved(*order)

    def sized(factor: float) -> Make:
        return lambda: Scan(data, np.diag([factor, factor, factor, 1]) @ affine)

    def cut(start: float, stop: float) -> Make:
        n = data.shape[z]
        bounds = sorted(n * (part if affine[2, z] > 0 else 1 - part) for part in (start, stop))
        part = tuple(slice(*map(round, bounds)) if axis == z else slice(None) for axis in range(3))
        placed = affine.copy()
        placed[:3, 3] += affine[:3, z] * part[z].start
        return lambda: Scan(data[part], placed)

    def stored(matrix: np.ndarray, qform: np.ndarray | None = None) -> Make:
        def make() -> Scan:
            image = nib.Nifti1Image(data, matrix)
            image.set_sform(matrix, 1)
            if qform is not None:
                image.set_qform(qform, 1)
            nib.save(image, scratch)
            return read_scan(scratch)

        return make

    yield "as it is", lambda: scan, None
    yield "upside down", *flipped(z)
    yield "back to front", *flipped(y)
    yield "axes exchanged: y z", *exchanged(y, z)
    yield "axes exchanged: x y", *exchanged(x, y)
    yield "axes exchanged: x z", *exchanged(x, z)
    yield "axes exchanged: all", *moved(1, 2, 0)
    for factor in (1000, 10, 2, 1.5, 0.7, 0.5, 1e-3):
        yield f"voxel size x {factor:g}", sized(factor), None
    half = 20 / (scan.voxel_size[z] * data.shape[z])
    yield "slab of 40 mm", cut(0.5 - half, 0.5 + half), None
    yield "lower half missing", cut(0.5, 1), None
    yield "upper third missing", cut(0, 2 / 3), None
    random = np.random.default_rng(0)
    low, high = np.percentile(data, [1, 99])
    noise = random.normal(size=data.shape).astype(np.float32)
    yield "noise alone", lambda: Scan(noise, affine), None
    yield "heavy noise", lambda: Scan(data + np.float32(0.6 * (high - low)) * noise, affine), None
    mirror = affine @ np.diag([-1.0, 1, 1, 1])
    yield "sform and qform mirrored", stored(affine, mirror), None
    yield "identity for an affine", stored(np.diag([*scan.voxel_size, 1.0])), None


def no_heads() -> Iterator[tuple[str, Scan]]:
    """Yield things that are no head."""
    random = np.random.default_rng(0)

    def grid(shape: tuple[int, int, int], size: float) -> list[np.ndarray]:
        return np.meshgrid(*((np.arange(n) - (n - 1) / 2) * size for n in shape), indexing="ij")

    def scan(data: np.ndarray, size: float = 1.0) -> Scan:
        affine = np.diag([size, size, size, 1.0])
        affine[:3, 3] = -size * (np.array(data.shape) - 1) / 2
        return Scan(data + random.normal(0, 4, data.shape).astype(np.float32), affine)

    x, y, z = grid((200, 200, 200), 1)
    for radius in (50, 70, 85, 95):
        yield "ball phantom", scan(100 * (x**2 + y**2 + z**2 < radius**2) + 10)
    for radius, height in ((60, 120), (80, 180), (90, 200)):
        yield "cylinder phantom", scan(100 * ((x**2 + y**2 < radius**2) & (abs(z) < height / 2)) + 10)
    for widest in (150, 170, 190):
        yield "abdomen", scan(_abdomen(*grid((150, 120, 110), 2.7), widest), 2.7)
    for _ in range(3):
        yield "blobs", scan(100 * blobs((160, 160, 160), random))
    for voxels in (1, 3):
        data = random.normal(0, 1, (180, 200, 180)).astype(np.float32)
        data[90, 90 : 90 + voxels, 90] = 1000
        yield "blank but for hot voxels", scan(data)


def _abdomen(x: np.ndarray, y: np.ndarray, z: np.ndarray, widest: float) -> np.ndarray:
    """Return an elliptical trunk with fat, muscle, liver, spleen, kidneys and spine."""
    data = np.where((x / widest) ** 2 + (y / (0.7 * widest)) ** 2 < 1, 200.0, 0.0)
    data[(x / (widest - 20)) ** 2 + (y / (0.7 * widest - 20)) ** 2 < 1] = 90
    organs = (
        ((60, 20, 40), (70, 60, 80), 140),
        ((-80, 0, 50), (40, 40, 50), 170),
        ((60, -40, -60), (25, 25, 50), 120),
        ((-60, -40, -60), (25, 25, 50), 120),
        ((0, -60, 0), (20, 20, 400), 220),
    )
    for centre, radii, value in organs:
        data[sum(((axis - c) / r) ** 2 for axis, c, r in zip((x, y, z), centre, radii)) < 1] = value
    return data


def _row(name: str, kind: str, make: Make, model: Model | None, codes: str | None) -> dict:
    row = {
        "scan": name,
        "kind": kind,
        "refused": False,
        "before": "",
        "after": None,
        "suggested": None,
        "seconds": None,
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            scan = make()
            image = conform(scan).image
            begin = time.perf_counter()
            sanity.check(scan, image)
            row["seconds"] = time.perf_counter() - begin
        except ScanError as error:
            return row | {"refused": True, "before": str(error)}
    row["before"] = " ".join(str(one.message) for one in caught if issubclass(one.category, ScanWarning))
    if model is not None and not row["before"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = segment(scan, model=model, fast=True)
        told, row["quality"] = " ".join(result.provenance["warnings"]), result.verdict.scan
        row["after"] = told if any(words in told for words in TOLD) else ""
        if codes:
            row["suggested"] = f" {codes} " in told.partition("seem to run")[2].replace("(", " ")
    return row


def _report(rows: pd.DataFrame, folder: Path) -> None:
    lines = ["| kind | scans | refused | flagged before | segmented | flagged after | right orientation suggested |"]
    lines.append("|---|---|---|---|---|---|---|")
    for kind, group in rows.groupby("kind", sort=False):
        before = (group["before"] != "") & ~group["refused"]
        after = group["after"].dropna()
        suggested = group["suggested"].dropna()
        counts = [
            len(group),
            group["refused"].sum(),
            before.sum(),
            len(after),
            (after != "").sum() if len(after) else "",
        ]
        counts.append(f"{suggested.sum()} of {len(suggested)}" if len(suggested) else "")
        lines.append(f"| {kind} | {' | '.join(map(str, counts))} |")
    lines += ["", f"The look takes {rows['seconds'].median():.2f} s (median), {rows['seconds'].max():.2f} s at most."]
    text = "\n".join(lines) + "\n"
    (folder / "sanity.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
