"""The command line: ``synthseg-slicer segment | batch | bids | demo | doctor``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

from . import __version__
from .allocation import keep_freed_memory
from .arguments import add_method_options, check_threads, refuse
from .batch.arguments import add_commands as add_batch_commands
from .errors import OptionError, OutputError, SynthSegError

EPILOG = "exit codes: 0 done; 1 some of several scans failed; 2 nothing done, wrong input or options; 130 interrupted"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    keep_freed_memory()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a segmentation's warnings are printed from its provenance
            return options.run(options)
    except SynthSegError as error:
        print(f"synthseg-slicer: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("synthseg-slicer: interrupted; no unfinished output was left behind", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="synthseg-slicer", description="Segment head scans of any contrast and resolution.", epilog=EPILOG
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="segment | batch | bids | demo | doctor")

    run = commands.add_parser("segment", help="segment one or more scans", epilog=EPILOG)
    run.set_defaults(run=_segment)
    run.add_argument("input", nargs="+", metavar="IN", help="scans, DICOM folders, folders of scans, .txt lists")
    run.add_argument(
        "--task",
        choices=("brain", "stroke"),
        default="brain",
        help="brain: anatomy (default); stroke: stroke lesions, all scans being of one head",
    )
    run.add_argument("-o", "--output", required=True, metavar="OUT", help="file for one scan, folder for several")
    run.add_argument("--volumes", metavar="CSV", help="volumes in mm³; for several scans one table, a row a scan")
    run.add_argument("--posteriors", metavar="FILE", help="soft posteriors, 4D NIfTI (one scan only)")
    run.add_argument("--picture", metavar="PNG", help="picture of slices with contours (one scan only)")
    run.add_argument("--report", metavar="HTML", help="page with slices, volumes and warnings (one scan, or one head)")
    add_method_options(run)
    run.add_argument("--skip-existing", action="store_true", help="leave out scans whose output exists already")
    stroke = run.add_argument_group("task stroke", "--volumes has a row a lesion, --posteriors their probability")
    stroke.add_argument("--loads", metavar="CSV", help="how much of each structure and hemisphere is lesion")
    stroke.add_argument(
        "--no-anatomy", dest="anatomy", action="store_false", help="lesions only, no structures, sides and loads"
    )
    stroke.add_argument("--flips", type=int, metavar="1|2|8", help="passes a scan; what the weights know by default")
    stroke.add_argument(
        "--no-register", dest="register", action="store_false", help="trust the headers of scans on other grids"
    )
    longitudinal = run.add_argument_group(
        "timepoints", "IN are scans of one head, from the first to the last; OUT is a folder; --volumes holds changes"
    )
    longitudinal.add_argument(
        "--timepoints", action="store_true", help="segment alike, in a space halfway between all, and compare"
    )
    when = longitudinal.add_mutually_exclusive_group()
    when.add_argument(
        "--years", nargs="+", action="extend", type=float, metavar="Y", help="when each was taken, for changes per year"
    )
    when.add_argument("--dates", nargs="+", action="extend", metavar="DATE", help="the same, as 2024-05-31")

    add_batch_commands(commands, EPILOG)

    demo = commands.add_parser("demo", help="segment the MNI152 template that nilearn carries")
    demo.set_defaults(run=_demo)
    demo.add_argument("folder", nargs="?", default="synthseg-demo", help="default: synthseg-demo")
    demo.add_argument("--device", default="auto")
    demo.add_argument("-q", "--quiet", action="store_true", help="no progress bar")

    doctor = commands.add_parser("doctor", help="what is installed, and how fast this machine is")
    doctor.set_defaults(run=_doctor)
    return parser


def _segment(options: argparse.Namespace) -> int:
    import torch

    from .inputs import find_scans, output_names

    check_threads(options.threads)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    scans = find_scans(options.input)
    if options.timepoints:
        return _timepoints(scans, options)
    if options.years or options.dates:
        raise OptionError("--years and --dates belong to several scans of one head. Add --timepoints.")
    if options.task == "stroke":
        return _stroke(scans, options)
    refuse(_of_stroke(options), "belongs to the task stroke. Add --task stroke, or leave it out.")
    several = len(scans) > 1 or len(options.input) > 1 or not _is_scan(options.input[0])
    if not several:
        outputs = {kind: getattr(options, kind) for kind in ("volumes", "posteriors", "picture", "report")}
        if options.skip_existing and Path(options.output).exists():
            return 0
        _one(scans[0], Path(options.output), options, **outputs)
        return 0
    if options.posteriors or options.picture or options.report:
        raise OptionError("--posteriors, --picture and --report take one scan. Segment several one at a time.")
    return _many(output_names(scans, Path(options.output)), options)


def _of_stroke(options: argparse.Namespace) -> dict[str, bool]:
    """Return which options of the task stroke alone were given."""
    return {
        "--loads": options.loads is not None,
        "--flips": options.flips is not None,
        "--no-anatomy": not options.anatomy,
        "--no-register": not options.register,
    }


def _of_brain(options: argparse.Namespace) -> dict[str, bool]:
    """Return which options of the task brain alone were given."""
    return {
        "--contrast": options.contrast != "auto",
        "--no-refine": not options.refine,
        "--robust": options.robust is True,
        "--no-robust": options.robust is False,
    }


def _stroke(scans: list[Path], options: argparse.Namespace) -> int:
    """Segment the lesions of one head from all its scans."""
    from .stroke import segment_lesions

    refuse(_of_brain(options), "belongs to the task brain. Leave it out, or run --task brain by itself with it.")
    if options.skip_existing and Path(options.output).exists():
        return 0
    with _progress_bar(options.quiet) as progress:
        result = segment_lesions(
            scans,
            options.output,
            anatomy=options.anatomy,
            fast=options.fast,
            flips=options.flips,
            ct=options.ct,
            device=options.device,
            native=options.native,
            register=options.register,
            probability=options.posteriors,
            volumes=options.volumes,
            loads=options.loads,
            picture=options.picture,
            report=options.report,
            model=options.model,
            progress=progress,
        )
    _print_warnings(result)
    count = len(result.lesions)
    print(f"{count} lesion{'' if count == 1 else 's'}, {result.volume / 1000:.1f} ml")
    return 0


def _timepoints(scans: list[Path], options: argparse.Namespace) -> int:
    """Segment scans of one head over time, and say what changed."""
    from .change import NOISE, years_of
    from .longitudinal import segment_timepoints

    unfit = {"--posteriors": options.posteriors, "--report": options.report, "--skip-existing": options.skip_existing}
    unfit |= {**_of_stroke(options), "--task stroke": options.task == "stroke"}
    refuse(unfit, "does not go with --timepoints. Leave one of them out.")
    with _progress_bar(options.quiet) as progress:
        result = segment_timepoints(
            scans,
            options.output,
            years=years_of(options.dates) if options.dates else options.years,
            fast=options.fast,
            ct=options.ct,
            device=options.device,
            native=options.native,
            contrast=options.contrast,
            refined=options.refine,
            robust=options.robust,
            volumes=options.volumes,
            picture=options.picture,
            model=options.model,
            progress=progress,
        )
    _print_warnings(result)
    judged = [row for row in result.changes if row.verdict]
    for row in judged:
        if row.verdict != NOISE:
            noise = f"rescans differ by up to {row.threshold_percent:.1f} %"
            print(f"{row.first} to {row.later}: {row.structure} {row.change_percent:+.1f} % ({noise})")
    if judged:
        print(f"{sum(row.verdict == NOISE for row in judged)} of {len(judged)} changes are within the noise of rescans")
    return 0


def _is_scan(path: str) -> bool:
    from .inputs import is_scan

    return is_scan(Path(path))


def _many(targets: dict[Path, Path], options: argparse.Namespace) -> int:
    """Segment several scans; a bad one does not stop the others."""
    from . import measure
    from .files import check_output
    from .pipeline import resolve_device
    from .weights import load_model

    resolve_device(options.device)
    model = load_model(path=options.model)
    if options.volumes:
        check_output(options.volumes, (".csv",))
    folder = Path(options.output)
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: the folder cannot be made ({error.strerror}). Choose another one.") from error
    table, failed, skipped = {}, [], 0
    try:
        for number, (scan, target) in enumerate(targets.items(), 1):
            if options.skip_existing and target.exists():
                skipped += 1
                continue
            try:
                result = _one(scan, target, options, prefix=f"{number}/{len(targets)} {scan.name}: ", model=model)
            except SynthSegError as error:
                print(f"synthseg-slicer: {error}", file=sys.stderr)
                failed.append(scan)
            else:
                table[str(scan)] = result.volumes
        if options.volumes and table:
            measure.write_volumes_table(options.volumes, table, model.names)
    finally:
        if made and not any(folder.iterdir()):
            folder.rmdir()
    summary = f"{len(table)} of {len(targets)} scans segmented"
    summary += f", {skipped} skipped" if skipped else ""
    summary += f", {len(failed)} failed: {', '.join(map(str, failed))}" if failed else ""
    print(f"synthseg-slicer: {summary}", file=sys.stderr)
    return (1 if table or skipped else 2) if failed else 0


def _one(scan: Path, output: Path, options: argparse.Namespace, prefix: str = "", model=None, **outputs):
    from .pipeline import segment

    with _progress_bar(options.quiet, prefix) as progress:
        result = segment(
            scan,
            output,
            fast=options.fast,
            ct=options.ct,
            device=options.device,
            native=options.native,
            contrast=options.contrast,
            refined=options.refine,
            robust=options.robust,
            model=model or options.model,
            progress=progress,
            **outputs,
        )
    _print_warnings(result)
    return result


def _demo(options: argparse.Namespace) -> int:
    from .demo import run_demo

    with _progress_bar(options.quiet) as progress:
        result = run_demo(options.folder, device=options.device, progress=progress)
    _print_warnings(result)
    print(f"Wrote scan, labels, volumes and picture into {Path(options.folder).absolute()}:")
    for path in sorted(Path(options.folder).glob("mni152*")):
        print(f"  {path.name}")
    print(f"Total intracranial volume {result.intracranial / 1000:.0f} ml")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import examine

    for line in examine():
        print(line, flush=True)
    return 0


def _print_warnings(result) -> None:
    for message in result.provenance["warnings"]:
        print(f"synthseg-slicer: warning: {message}", file=sys.stderr)


@contextmanager
def _progress_bar(quiet: bool, prefix: str = "", width: int = 30):
    """Give a progress callback that draws one line on stderr; on no terminal, one line a stage."""
    if quiet:
        yield None
        return
    terminal = sys.stderr.isatty()
    shown = ""

    def progress(stage: str, fraction: float) -> None:
        nonlocal shown
        if terminal:
            done = round(fraction * width)
            bar = "#" * done + "." * (width - done)
            print(f"\r\033[K{prefix}[{bar}] {fraction:4.0%} {stage}", end="", file=sys.stderr)
        elif stage != shown:
            print(f"{prefix}{fraction:4.0%} {stage}", file=sys.stderr)
        shown = stage

    try:
        yield progress
    finally:
        if terminal and shown:
            print(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
