"""What the experiment of the heart trains and tests on: scans with a few drawn structures, or phantoms of the chest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from synthseg_slicer.errors import OptionError, ScanError
from synthseg_slicer.files import atomic
from synthseg_training.evaluation.scans import IMAGE_SUFFIX, REFERENCE_SUFFIX
from synthseg_training.heart.phantom import write_thoraxes
from synthseg_training.heart.subdivide import Subdivision, output_of, subdivide
from synthseg_training.heart.tissues import CONTRASTS
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.training.loop import stage_config, training_names
from synthseg_training.training.recipe import Recipe

from .dataset import Case
from .ledger import Ledger, file_digest
from .synthetic import TABLE

SOURCE = "procedural thorax phantoms"
"""Of label maps made of phantoms, for the card of the weights."""
UNSEEN = 2000
"""Seeds between the first phantom to train on and the first to test on: so many can be trained on at most."""


@dataclass(frozen=True)
class Phantoms:
    """Thoraxes to train on and to test on, of different seeds.

    Attributes
    ----------
    train, test : int
        Thoraxes. Training sees one MR image of each, as the paper's.
    contrasts : tuple of str
        Images of each test thorax, of :data:`synthseg_training.heart.tissues.CONTRASTS`.
    voxel_size : float
        In mm.
    seed : int
        Of the first thorax.
    """

    train: int
    test: int
    contrasts: tuple[str, ...] = CONTRASTS
    voxel_size: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.train <= UNSEEN or self.test < 1:
            raise OptionError(
                f"{self.train} phantoms to train on and {self.test} to test on: give 0 to {UNSEEN}, and at least 1."
            )
        if self.voxel_size <= 0:
            raise OptionError(f"Phantoms with voxels of {self.voxel_size:g} mm: give a size above 0.")
        if unknown := [name for name in self.contrasts if name not in CONTRASTS]:
            raise OptionError(f"Unknown contrast {', '.join(unknown)}; known are {', '.join(CONTRASTS)}.")

    def write(self, ledger: Ledger) -> tuple[Path, Path]:
        """Write the phantoms below the experiment's folder, once; return training scans and the table of test scans."""
        train, test = (ledger.folder / "phantoms" / name for name in ("train", "test"))

        def work() -> int:
            write_thoraxes(train, self.train, seed=self.seed, voxel_size=self.voxel_size)
            options = {"contrasts": self.contrasts, "seed": self.seed + UNSEEN, "voxel_size": self.voxel_size}
            rows = []
            for path in write_thoraxes(test, self.test, **options):
                name = path.name.removesuffix(IMAGE_SUFFIX)
                contrast, _, number = name.rpartition("_")
                rows.append([name, path.name, name + REFERENCE_SUFFIX, contrast, f"thorax {number}"])
            with atomic(test / TABLE) as temporary:
                columns = ["name", "image", "reference", "contrast", "subject"]
                pd.DataFrame(rows, columns=columns).to_csv(temporary, index=False)
            return len(rows)

        ledger.once("phantoms", {}, work)  # what they are is among the ledger's settings
        return train, test / TABLE


def make_maps(
    ledger: Ledger, data: Path, settings: Subdivision, *, report: Callable[[str], None] = print, **origin: str
) -> LabelMapSet:
    """Subdivide the training scans, once, into ``maps.npz`` of the experiment's folder.

    Parameters
    ----------
    ledger : Ledger
        Its settings hold those of the subdivision and the scans' hashes.
    data : Path
        See :func:`synthseg_training.heart.subdivide.subdivide`.
    settings : Subdivision
    report : callable
        Receives a line per scan.
    **origin : str
        ``source`` and ``licence`` of the scans.

    Raises
    ------
    ScanError
        Scans or labels cannot be used, or the maps that were made are gone or changed.
    """
    path = ledger.folder / "maps.npz"

    def work() -> dict:
        subdivide(data, path, settings, report=report, **origin)
        return {"sha256": file_digest(path)}

    made = ledger.once("subdivide", {}, work)
    if not path.exists() or file_digest(path) != made["sha256"]:
        what = "was changed" if path.exists() else "is gone"
        raise ScanError(f"{path}: {what} since it was made. Delete {ledger.path('subdivide')} to make it anew.")
    return LabelMapSet.load(path)


def check_structures(recipe: Recipe, maps: LabelMapSet, name: Path) -> None:
    """Refuse a recipe that segments other structures than those drawn on the training scans, or holds all of these out.

    Raises
    ------
    OptionError
        No map is left, a region's structure is not the one it was made from, or one was drawn nowhere; names the file.
    """
    if not training_names(recipe, maps):
        raise OptionError(f"{name}: holds out all {len(maps)} label maps. Shorten 'held_out', or add training scans.")
    known, drawn = stage_config(recipe, recipe.stages[-1]).anatomy.output, output_of(maps.labels)
    if wrong := [label for label, structure in drawn.items() if known.get(label) != structure]:
        entry = ", ".join(f"{label}: {structure}" for label, structure in drawn.items())
        raise OptionError(
            f"{name}: does not say what the regions {', '.join(map(str, wrong))} of the training scans belong to. Set "
            f"generator.anatomy.output: {{{entry}}}, and n_labels and names to fit."
        )
    if absent := sorted({0, *known.values()} - {0, *drawn.values()}):
        raise OptionError(
            f"{name}: segments {', '.join(map(str, absent))}, which no training scan shows. Take it out of "
            "generator.anatomy.output and names, and lower n_labels; or add scans that show it."
        )


def check_apart(recipe: Recipe, train: Sequence[Case], test: Sequence[Case], versions: int) -> None:
    """Refuse to test on what is trained on; scans of which the recipe holds out all versions are not.

    Raises
    ------
    OptionError
        Names the first such scan.
    """
    seen = {
        file_digest(case.image): case
        for case in train
        if any(f"{case.name}-{version}" not in recipe.held_out for version in range(1, versions + 1))
    }
    for case in test:
        if same := seen.get(file_digest(case.image)):
            raise OptionError(
                f"{case.image}: is also trained on, as {same.image}. Take it away from --train or --scans, or name all "
                f"versions ({same.name}-1 to {same.name}-{versions}) in the recipe's 'held_out'."
            )
