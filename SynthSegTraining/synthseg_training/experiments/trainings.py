"""Trainings of one budget, each resumed where it was stopped, and how they score on test scans."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from synthseg_slicer.errors import Cancelled
from synthseg_slicer.weights import load_model
from synthseg_training.export import export
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.training import checkpoint
from synthseg_training.training.loop import NORM_SAMPLES, fit, training_names
from synthseg_training.training.recipe import Recipe

from .dataset import Case
from .ledger import Ledger, file_digest
from .methods import Network
from .scoring import read_reference, scores, structures_of

CHECKPOINT_MINUTES = 1.0
"""A killed training loses at most this much."""


@dataclass(frozen=True)
class Training:
    """One network to train.

    Attributes
    ----------
    arm : str
        Name of what is varied.
    seed : int
        Number of the repetition.
    recipe : Recipe
        With the arm's settings and the repetition's seed.
    maps : LabelMapSet
        Label maps to train on; those that the recipe holds out are left out.
    """

    arm: str
    seed: int
    recipe: Recipe
    maps: LabelMapSet

    @property
    def key(self) -> str:
        """Unique name."""
        return f"{self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class Bench:
    """Trains and scores, each unit once.

    Attributes
    ----------
    ledger : Ledger
        What is done.
    max_minutes : float
        Of one training.
    device : str
        ``auto``, ``cpu``, ``cuda``, ...
    fast : bool
        Score single passes instead of the mean with the mirror image.
    distances : bool
        Compute SD95 too.
    report : callable
        Receives a line per unit.
    """

    ledger: Ledger
    max_minutes: float = math.inf
    device: str = "auto"
    fast: bool = False
    distances: bool = True
    report: Callable[[str], None] = print

    def train(self, training: Training) -> dict:
        """Train once and return ``weights`` (path within the folder), ``sha256``, ``steps``, ``minutes``.

        Raises
        ------
        Cancelled
            It was interrupted; the same command goes on with it.
        """
        folder = self.ledger.folder / "trainings" / self.ledger.path(training.key).stem
        inputs = {"recipe": asdict(training.recipe), "maps": training.maps.names}
        trained = self.ledger.once(f"train/{training.key}", inputs, lambda: self._train(training, folder))
        (folder / "last.pt").unlink(missing_ok=True)  # optimiser's moments: three times the weights, of no further use
        return trained

    def _train(self, training: Training, folder: Path) -> dict:
        recipe, maps = training.recipe, training.maps
        maps = maps.subset(training_names(recipe, maps))  # test scans are what these networks are validated on
        before, began = _minutes(folder), time.monotonic()
        last = fit(
            replace(recipe, held_out=[]),
            maps,
            folder,
            max_minutes=self.max_minutes - before,
            device=self.device,
            checkpoint_minutes=CHECKPOINT_MINUTES,
        )
        steps = checkpoint.load(last)["step"]
        minutes = before + (time.monotonic() - began) / 60
        if steps < recipe.steps and minutes < self.max_minutes:
            raise Cancelled(
                f"{training.key}: interrupted after {steps} of {recipe.steps} steps. The same command goes on."
            )
        facts = {"experiment_arm": training.arm, "held_out_maps": recipe.held_out}
        frozen = recipe.stages[-1].frozen_norm
        path = export(
            recipe, last, folder / "network.pt", maps=maps, norm_samples=0 if frozen else NORM_SAMPLES, facts=facts
        )
        self.report(f"{training.key}: {steps} steps in {minutes:.1f} min")
        return {
            "weights": path.relative_to(self.ledger.folder).as_posix(),
            "sha256": file_digest(path),
            "steps": steps,
            "minutes": minutes,
        }

    def score(self, training: Training, trained: dict, cases: Sequence[Case]) -> pd.DataFrame:
        """Score a trained network: columns ``arm, seed, scan, group, label, structure, dice, sd95_mm``."""
        network, tables = cache(lambda: self._network(trained)), []  # loaded only if something is left to do
        for case in cases:
            inputs = {"weights": trained["sha256"], "image": file_digest(case.image)}
            inputs |= {"reference": file_digest(case.reference), "convention": case.convention}

            def work(case: Case = case) -> list[dict]:
                structures = structures_of(network().names)
                return scores(*network().labels(case), read_reference(case, structures), structures, self.distances)

            rows = self.ledger.once(f"score/{training.key}/{case.name}", inputs, work)
            facts = {"arm": training.arm, "seed": training.seed, "scan": case.name, "group": case.group}
            tables.append(pd.DataFrame(rows).assign(**facts))
            self.report(f"{training.key}: {case.name} Dice {tables[-1]['dice'].mean():.3f}")
        return pd.concat(tables, ignore_index=True)

    def _network(self, trained: dict) -> Network:
        model = load_model(path=self.ledger.folder / trained["weights"])
        return Network("", model, fast=self.fast, refined=False, contrast="any", device=self.device)


def budget_note(trainings: pd.DataFrame) -> str:
    """Return a sentence on the steps and time that the trainings of a table (``steps, minutes``) took."""
    fewest, most = int(trainings["steps"].min()), int(trainings["steps"].max())
    minutes = f"{trainings['minutes'].sum():.0f} minutes in all, {trainings['minutes'].mean():.1f} on average"
    if fewest == most:
        return f"Every network was trained for {most:,} steps; {minutes}."
    return (
        f"The time limit ended trainings after {fewest:,} to {most:,} steps ({minutes}): arms that take longer a step "
        "had fewer of them. For an equal number of steps raise --max-minutes."
    )


def matrix(table: pd.DataFrame, value: str = "dice") -> np.ndarray:
    """Return the mean over structures of each training and scan, array [trainings, scans]."""
    return table.groupby(["seed", "scan"])[value].mean().unstack().to_numpy()


def _minutes(folder: Path) -> float:
    """Return how long an interrupted training had run at its last checkpoint; 0 before the first."""
    curves, last = folder / "curves.csv", folder / "last.pt"
    if not (curves.exists() and last.exists()):
        return 0.0
    step = checkpoint.load(last)["step"]
    with curves.open(newline="", encoding="utf-8") as stream:
        return max((float(row["minutes"]) for row in csv.DictReader(stream) if int(row["step"]) <= step), default=0.0)
