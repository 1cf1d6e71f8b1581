"""Time and peak memory of the stroke task: flips, several scans, anatomy, against one pass over one scan, in one run.

usage: python Testing/benchmarks/stroke.py [SCAN ...] [--model stroke.pt] [--threads N]

Each row runs in a process of its own, from the files to the results in memory. Without scans a rendered head phantom of
192 x 224 x 192 voxels stands in, three times for three sequences.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from inference import head_image
from measure import in_child, measure

from synthseg_slicer.allocation import keep_freed_memory
from synthseg_slicer.scan import write_volume
from synthseg_slicer.stroke import segment_lesions

ROWS = {
    "one scan, one pass": (1, {"flips": 1, "anatomy": False}),
    "one scan, two passes": (1, {"flips": 2, "anatomy": False}),
    "one scan, eight passes": (1, {"flips": 8, "anatomy": False}),
    "all scans, two passes": (None, {"flips": 2, "anatomy": False}),
    "all scans, two passes, anatomy and loads": (None, {"flips": 2, "anatomy": True}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", nargs="*", type=Path)
    parser.add_argument("--model", help="weights; the bundled ones by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--child", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        keep_freed_memory()
        warnings.simplefilter("ignore")
        count, settings = ROWS[options.child]
        scans = options.scans[:count]
        print(json.dumps(measure(lambda: segment_lesions(scans, model=options.model, device="cpu", **settings), 1)))
        return
    with tempfile.TemporaryDirectory() as folder:
        scans = options.scans
        if not scans:
            image = head_image((192, 224, 192)) * 1000
            scans = [Path(folder) / f"phantom-{number}.nii.gz" for number in (1, 2, 3)]
            for scan in scans:
                write_volume(scan, image, np.eye(4))
        print(f"torch {torch.__version__}, {options.threads} threads, {len(scans)} scans\n")
        print("| what | seconds | MB above start | times one pass | share of its memory |")
        print("|---|---|---|---|---|")
        reference = None
        model = ("--model", options.model) if options.model else ()
        for row in ROWS:
            result = in_child(__file__, *map(str, scans), "--threads", str(options.threads), *model, "--child", row)
            reference = reference or result
            print(
                f"| {row} | {result['seconds']:.1f} | {result['megabytes']:.0f} "
                f"| {result['seconds'] / reference['seconds']:.1f} "
                f"| {result['megabytes'] / reference['megabytes']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
