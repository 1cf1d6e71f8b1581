"""Segment all scans of a folder in 3D Slicer, without its window.

    Slicer --no-splash --no-main-window --python-script Scripts/segment_folder.py IN OUT [--fast] [--native] [--ct]
        [--device NAME] [--surfaces] [--skip-existing]

Each scan NAME of IN (NIfTI, NRRD, MetaImage) becomes OUT/NAME.seg.nrrd and OUT/NAME_volumes.csv. A scan that fails is
named with its reason and does not stop the others. Exit code: 0 all done, 1 some failed, 2 nothing to do.
"""

import argparse
import csv
import sys
from pathlib import Path

import slicer

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
"""What Slicer reads without further extensions."""


def main(arguments):
    """Segment the folder and return the exit code."""
    parser = argparse.ArgumentParser(prog="segment_folder.py", description=__doc__.splitlines()[0])
    parser.add_argument("input", type=Path, metavar="IN", help="folder of scans")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder for the results, made if missing")
    parser.add_argument("--fast", action="store_true", help="one pass instead of two")
    parser.add_argument("--native", action="store_true", help="segmentation on the scan's own grid instead of 1 mm")
    parser.add_argument("--ct", action=argparse.BooleanOptionalAction, help="the scans are (not) CT; judged by default")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps")
    parser.add_argument("--surfaces", action="store_true", help="store closed surfaces too")
    parser.add_argument("--skip-existing", action="store_true", help="leave out scans that have a result")
    options = parser.parse_args(arguments)

    found = sorted(options.input.iterdir()) if options.input.is_dir() else []
    scans = {path: name for path in found if (name := scan_name(path))}
    if not scans:
        print(f"{options.input}: no scan here. Give a folder with files of {', '.join(SUFFIXES)}.", file=sys.stderr)
        return 2
    from SynthSegSlicer import SynthSegSlicerLogic

    logic = SynthSegSlicerLogic()
    options.output.mkdir(parents=True, exist_ok=True)
    failed = 0
    for number, (path, name) in enumerate(scans.items(), 1):
        print(f"{number}/{len(scans)} {path.name}", flush=True)
        target = options.output / f"{name}.seg.nrrd"
        if options.skip_existing and target.exists():
            continue
        try:
            segment(logic, path, target, options)
        except Exception as error:  # whatever is wrong with one scan, the others go on
            failed += 1
            print(f"{path}: {error}", file=sys.stderr, flush=True)
        slicer.mrmlScene.Clear()
    print(f"{len(scans) - failed} of {len(scans)} scans done")
    return 1 if failed else 0


def scan_name(path):
    """Return the name of a scan file without its suffix, None for another file."""
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)
    return path.name[: -len(suffix)] if suffix and not path.name.startswith(".") else None


def segment(logic, path, target, options):
    """Segment one file and save segmentation and table."""
    from synthseg_slicer.files import atomic

    volume = slicer.util.loadVolume(str(path))
    segmentation, table = logic.process(
        volume,
        fast=options.fast,
        native=options.native,
        ct=options.ct,
        device=options.device,
        surfaces=options.surfaces,
    )
    with atomic(target.with_name(target.name.replace(".seg.nrrd", "_volumes.csv"))) as csv_path, atomic(target) as path:
        write_table(table, csv_path)
        if not slicer.util.saveNode(segmentation, str(path)):
            raise OSError("Slicer could not write it")  # which atomic turns into an error with the file and the cure


def write_table(table, path):
    """Write a table node as CSV, cell by cell as Slicer shows it."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = range(table.GetNumberOfColumns())
        writer.writerow([table.GetColumnName(column) for column in columns])
        for row in range(table.GetNumberOfRows()):
            writer.writerow([table.GetCellText(row, column) for column in columns])


if __name__ == "__main__":
    slicer.util.exit(main(sys.argv[1:]))
