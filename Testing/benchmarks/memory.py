"""Peak memory of segmenting one scan with the bundled weights, and the formula of :mod:`synthseg_slicer.memory`.

usage: python Testing/benchmarks/memory.py

Each row runs in a process of its own, set up as the worker sets itself up: freed memory kept, four threads. The phantom
fills its grid, so that nothing is cropped. The peak is that of the whole process, the libraries included.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from inference import head_image
from measure import in_child, peak_megabytes

from synthseg_slicer import memory, segment
from synthseg_slicer.allocation import keep_freed_memory
from synthseg_slicer.scan import Scan

ROWS = (
    # shape, voxel size in mm, options
    ("128,128,128", 1.0, ()),
    ("160,160,160", 1.0, ()),
    ("192,224,192", 1.0, ()),
    ("192,224,192", 1.0, ("--fast",)),
    ("192,224,192", 1.0, ("--native",)),
    ("320,320,320", 0.5, ()),
    ("320,320,320", 0.5, ("--native",)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", metavar="SHAPE", help=argparse.SUPPRESS)
    parser.add_argument("--voxel-size", type=float, default=1.0, help=argparse.SUPPRESS)
    parser.add_argument("--fast", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--native", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        keep_freed_memory()
        torch.set_num_threads(4)
        shape = tuple(int(n) for n in options.child.split(","))
        affine = np.diag([*[options.voxel_size] * 3, 1])
        segment(Scan(head_image(shape), affine), fast=options.fast, native=options.native, device="cpu")
        print(json.dumps(peak_megabytes()))
        return
    print("| shape | voxel size in mm | options | peak in MB | estimate in MB |\n|---|---|---|---|---|")
    for shape, voxel_size, extra in ROWS:
        peak = in_child(__file__, "--child", shape, "--voxel-size", str(voxel_size), *extra)
        estimate = memory.estimate([int(n) for n in shape.split(",")], [voxel_size] * 3, "--native" in extra, cores=4)
        print(f"| {shape} | {voxel_size:g} | {' '.join(extra)} | {peak:.0f} | {estimate / 2**20:.0f} |", flush=True)


if __name__ == "__main__":
    main()
