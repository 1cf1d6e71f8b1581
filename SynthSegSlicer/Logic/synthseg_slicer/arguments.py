"""Options that several commands of the command line share."""

from __future__ import annotations

import argparse

from .errors import OptionError


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Add how scans are segmented, and by what."""
    parser.add_argument("--ct", action=argparse.BooleanOptionalAction, help="the scan is (not) CT; judged by default")
    parser.add_argument("--fast", action="store_true", help="one pass instead of two: half the time, less accurate")
    parser.add_argument("--native", action="store_true", help="labels in the scan's own grid instead of 1 mm")
    parser.add_argument(
        "--contrast",
        choices=("auto", "any"),
        default="auto",
        help="auto: a network for the scan's contrast where there is one; any: the general network",
    )
    parser.add_argument(
        "--no-refine", dest="refine", action="store_false", help="leave borders where the network drew them"
    )
    parser.add_argument(
        "--robust", action=argparse.BooleanOptionalAction, help="smooth a noisy scan first; judged by default"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N, mps")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of a process (default: all cores)")
    parser.add_argument("--model", metavar="FILE.pt", help="other weights, with their card FILE.json beside them")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")


def refuse(given: dict[str, bool], why: str) -> None:
    """Refuse the first of some options that was given.

    Parameters
    ----------
    given : dict
        Whether each option was.
    why : str
        The rest of the sentence that begins with the option, and the cure.

    Raises
    ------
    OptionError
    """
    for option, was_given in given.items():
        if was_given:
            raise OptionError(f"{option} {why}")


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that cannot be."""
    if threads is not None and threads < 1:
        raise OptionError("--threads must be at least 1.")
