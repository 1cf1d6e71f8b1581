"""Options of ``synthseg-train experiment``. Imports nothing heavy: every command line passes here."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

SCANS = (
    "BIDS folder, table (.csv, .tsv: name, image, reference[, dataset, contrast, subject, convention]) or folder with \
NAME_image.nii.gz and NAME_dseg.nii.gz"
)
CONVENTION = "labelling of references that say none: aseg, aparc+aseg, a2009s, neuromorphometrics, gif"


class Several(argparse.Action):
    """Like ``extend``, so that no value is lost where an option is repeated, but values replace the default."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        """Note the values."""
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, values if before is self.default else [*before, *values])


def add_experiments(parser: argparse.ArgumentParser, add_recipe: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add a subcommand for each experiment.

    Parameters
    ----------
    parser : ArgumentParser
        Of ``experiment``.
    add_recipe : callable
        Adds the arguments that name recipe and label maps.
    """
    names = parser.add_subparsers(required=True, metavar="NAME", dest="experiment")

    resolution = names.add_parser("resolution", help="thick slices in three directions made from scans of 1 mm")
    _dataset(resolution)
    _output(resolution)
    _segmentation(resolution, several=False)
    resolution.add_argument("--spacings", nargs="+", action=Several, type=float, default=[3.0, 5.0, 7.0], metavar="MM")
    _pairs(resolution)

    contrast = names.add_parser("contrast", help="every dataset and contrast, beside the label maps of other tools")
    _dataset(contrast)
    _output(contrast)
    _segmentation(contrast, several=True)
    contrast.add_argument(
        "--method",
        action="append",
        default=[],
        metavar="NAME=FOLDER[:CONVENTION]",
        help="label maps of another tool, named after the scans; may be given several times",
    )
    contrast.add_argument("--only-methods", action="store_true", help="no network of this package")
    _pairs(contrast)

    ablation = names.add_parser(
        "ablation", help="SynthSeg-R, SynthSeg-RC, narrower priors, no lesions, bias, deformation"
    )
    add_recipe(ablation)
    _trainings(ablation)
    ablation.add_argument(
        "--arms",
        nargs="+",
        action=Several,
        default=["full", "R", "RC", "tight", "tighter", "no-lesions", "no-bias", "no-deformation"],
        metavar="ARM",
        help="full R RC tight tighter no-lesions no-bias no-deformation; all by default",
    )
    ablation.add_argument("--contrast", default="", help="of scans whose own is unknown: t1, t2, pd, flair, ct")

    maps = names.add_parser("maps", help="number of training label maps")
    add_recipe(maps)
    _trainings(maps)
    maps.add_argument("--numbers", nargs="+", action=Several, type=int, default=[1, 5, 10, 15, 20], metavar="N")

    heart = names.add_parser("heart", help="a few drawn structures: subdivide, train, and test in every contrast")
    _heart(heart)

    stroke = names.add_parser("stroke", help="the stroke paper's tables, on scans or on synthetic patients")
    stroke.add_argument("--scans", type=Path, help=f"with lesion masks: {SCANS} (or NAME_lesion.nii.gz)")
    _dataset_options(stroke)
    _output(stroke)
    stroke.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[NAME=]FILE.pt",
        help="weights of the stroke task; may be given several times; the bundled ones by default",
    )
    stroke.add_argument(
        "--method", action="append", default=[], metavar="NAME=FOLDER", help="lesion masks of another tool"
    )
    stroke.add_argument("--ensemble", action="store_true", help="also all scans of a subject together")
    stroke.add_argument("--cleaned", action="store_true", help="drop lesions off brain tissue and below 10 mm³")
    stroke.add_argument(
        "--flips", type=int, choices=(1, 2, 8), help="passes a scan; by default what the weights know, 2 on patients"
    )
    synthetic = stroke.add_argument_group("synthetic patients, instead of --scans")
    synthetic.add_argument("--recipe", type=Path, help="of the task stroke; patients come from its held-out label maps")
    synthetic.add_argument("--maps", type=Path, help="label maps packed by 'prepare'")
    synthetic.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change settings of the recipe"
    )
    synthetic.add_argument("--patients", type=int, default=20)
    synthetic.add_argument("--crop", type=int, default=160, help="edge of their scans in voxels")
    synthetic.add_argument("--smallest", type=float, default=5.0, metavar="ML", help="least lesion volume of a patient")
    synthetic.add_argument("--seed", type=int, default=1)

    group = names.add_parser("group", help="effect sizes between two groups from tables of volumes")
    group.add_argument(
        "volumes",
        nargs="+",
        metavar="[NAME=]VOLUMES.csv",
        help="of synthseg-slicer --volumes: a row a scan, mm³; several are methods to compare",
    )
    group.add_argument("--participants", type=Path, required=True, help="BIDS participants.tsv with a column 'group'")
    group.add_argument("--groups", nargs=2, required=True, metavar="GROUP", help="controls and patients")
    group.add_argument(
        "--covariates", nargs="*", action=Several, default=["age", "sex"], metavar="COLUMN", help="age sex by default"
    )
    group.add_argument("--intracranial", default="Total-Intracranial", metavar="COLUMN", help="'' to do without")
    group.add_argument(
        "--structures", nargs="+", action="extend", default=[], metavar="NAME", help="only these; all by default"
    )
    group.add_argument("--sum-sides", action="store_true", help="add up left and right structures")
    group.add_argument("-o", "--output", type=Path, required=True, help="folder")
    group.set_defaults(threads=None)


def _dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scans", type=Path, help=SCANS)
    _dataset_options(parser)


def _dataset_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--names", nargs="+", action="extend", default=[], metavar="NAME", help="only these scans")
    parser.add_argument("--desc", default="", help="BIDS: only references with this desc entity")
    parser.add_argument("--convention", default="", help=CONVENTION)


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder; the same command goes on with what is in it"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--threads", type=int, help="CPU threads")


def _segmentation(parser: argparse.ArgumentParser, *, several: bool) -> None:
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[NAME=]FILE.pt",
        help="weights" + ("; may be given several times" if several else "") + "; the bundled ones by default",
    )
    _passes(parser)
    parser.add_argument("--contrast", choices=("auto", "any"), default="auto", help="any: no contrast experts")


def _passes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fast", action="store_true", help="one pass instead of the mean with the mirror image")
    parser.add_argument(
        "--no-refine", dest="refine", action="store_false", help="leave borders as the network drew them"
    )


def _heart(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, nargs="?", help="such as SynthSegTraining/recipes/heart.yaml")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change settings of the recipe"
    )
    parser.add_argument(
        "--train", type=Path, metavar="SCANS", help=f"training scans with a few structures drawn: {SCANS}"
    )
    parser.add_argument("--scans", type=Path, help=f"test scans: {SCANS}")
    _dataset_options(parser)
    _output(parser)
    _budget(parser)
    parser.add_argument("--model", type=Path, metavar="FILE.pt", help="weights to test, instead of recipe and --train")
    _passes(parser)
    parser.add_argument("--no-sd95", action="store_true", help="leave out surface distances")
    split = parser.add_argument_group("label maps made of the training scans, as by 'subdivide'")
    split.add_argument("--voxel-size", type=float, help="mm; that of the recipe's last stage by default")
    split.add_argument("--versions", type=int, default=4, help="maps a scan, with different backgrounds")
    split.add_argument("--regions", type=int, default=2, help="of each structure")
    split.add_argument(
        "--background", type=int, nargs=2, default=(3, 10), metavar=("LEAST", "MOST"), help="regions of the background"
    )
    split.add_argument("--seed", type=int, default=0, help="of the regions, and of the first phantom")
    split.add_argument("--source", default="", help="where the scans come from, for the model card")
    split.add_argument("--licence", default="", help="their licence, for the model card")
    phantoms = parser.add_argument_group("without data: phantoms of the chest, instead of --train and --scans")
    phantoms.add_argument(
        "--phantoms", type=int, nargs=2, metavar=("N", "M"), help="N to train on (MR), M unseen ones to test on"
    )
    phantoms.add_argument(
        "--phantom-contrasts",
        nargs="+",
        action=Several,
        default=["mr", "ct", "darkblood"],
        metavar="NAME",
        help="images of each to test on: mr, ct, darkblood",
    )


def _pairs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pairs", choices=("scan", "structure"), default="scan", help="what the tests pair (structures of few scans)"
    )


def _budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, help="of each training; the recipe's by default")
    parser.add_argument("--max-minutes", type=float, default=math.inf, help="of each training")


def _trainings(parser: argparse.ArgumentParser) -> None:
    _output(parser)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each arm")
    _budget(parser)
    parser.add_argument("--scans", type=Path, help=f"test scans: {SCANS}; synthetic ones by default")
    _dataset_options(parser)
    parser.add_argument(
        "--fast", action="store_true", help="score single passes instead of the mean with the mirror image"
    )
    parser.add_argument("--no-sd95", action="store_true", help="leave out surface distances")
    synthetic = parser.add_argument_group(
        "synthetic test scans from the recipe's held-out label maps, instead of --scans"
    )
    synthetic.add_argument("--synthetic-scans", type=int, default=6, metavar="N", help="of each contrast")
    synthetic.add_argument(
        "--synthetic-contrasts",
        nargs="+",
        action=Several,
        default=["t1", "t2", "flair"],
        metavar="NAME",
        help="t1, t2, pd, flair, ct",
    )
    synthetic.add_argument("--synthetic-crop", type=int, default=160, metavar="N", help="edge of the scans in voxels")
