"""The command line of batches: ``synthseg-slicer batch`` and, for BIDS Apps, ``synthseg-slicer bids``."""

from __future__ import annotations

import argparse

from ..arguments import add_method_options
from . import bids


def add_commands(commands, epilog: str) -> None:
    """Add ``batch`` and ``bids`` to the commands of a parser.

    Parameters
    ----------
    commands : argparse's subparsers
    epilog : str
        Shown after their help.
    """
    batch = commands.add_parser("batch", help="segment a tree, list or BIDS dataset; a rerun goes on", epilog=epilog)
    batch.set_defaults(run=_run_batch, level="both")
    batch.add_argument("source", metavar="IN", help="BIDS dataset, folder (with sub-folders), or .txt list")
    batch.add_argument("output", metavar="OUT", help="output folder, made if necessary")
    _add_options(batch)

    app = commands.add_parser("bids", help="the same as a BIDS App", epilog=epilog)
    app.set_defaults(run=_run_bids)
    app.add_argument("source", metavar="bids_dir", help="BIDS dataset")
    app.add_argument("output", metavar="output_dir", help="derived dataset, made if necessary")
    app.add_argument(
        "level", choices=("participant", "group"), help="participant: segment; group: tables (and report) over all"
    )
    _add_options(app)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--probseg", action="store_true", help="soft posteriors too, 4D NIfTI (large: 100 MB a scan and more)"
    )
    parser.add_argument("--report", action="store_true", help="an HTML page a scan, and one over all")
    add_method_options(parser)
    which = parser.add_argument_group("scans of a BIDS dataset")
    which.add_argument(
        "--suffix", nargs="+", action="extend", metavar="S", help=f"kinds of scan (default: {' '.join(bids.SUFFIXES)})"
    )
    for entity in ("participant", "session"):
        names = (f"--{entity}-label", f"--{entity}_label")
        which.add_argument(
            *names, nargs="+", action="extend", metavar="L", default=[], help=f"{entity}s, with or without prefix"
        )
    which.add_argument(
        "--filter", nargs="+", action="extend", metavar="ENTITY=LABEL", default=[], help="such as acq=mprage run=1"
    )
    how = parser.add_argument_group("processes")
    how.add_argument("--workers", type=int, metavar="N", help="processes on this machine (default 1)")
    how.add_argument(
        "--scheduler", metavar="S", help="workers under Dask: local:N, tcp://HOST:PORT, or slurm:N, pbs:N, sge:N (jobs)"
    )
    again = parser.add_argument_group("earlier runs", "what they have done is not done again, unless scans changed")
    again.add_argument("--retry-failed", action="store_true", help="try bad scans again")
    again.add_argument("--redo", action="store_true", help="do all again; needed where options or weights are others")


def _run_batch(options: argparse.Namespace) -> int:
    from .command import run_batch

    return run_batch(options)


def _run_bids(options: argparse.Namespace) -> int:
    from .command import run_bids

    return run_bids(options)
