"""Training of the estimator: simulate, estimate, compare, step; two phases of losses, saved and resumed at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synthseg_slicer.errors import OptionError

from ..labelmaps import LabelMapSet
from ..training import checkpoint
from ..training.curves import Curves
from ..training.distributed import local_device
from ..training.loop import LOG_EVERY, precision
from ..training.optimizers import optimizer
from ..training.recipe import Stage, load_recipe
from ..training.schedule import learning_rate
from .losses import PERCEPTUAL, Perceptual, first_phase_loss, scaled, second_phase_loss
from .network import EstimatorUNet
from .simulation import MprageConfig, MprageSimulator

PHASES = ("L2", "L1 + L2 + gradients")


@dataclass
class EstimatorRecipe:
    """Everything that determines a training of the estimator but the maps; the paper's settings by default.

    Attributes
    ----------
    name : str
        For people.
    steps : tuple of int
        Optimiser steps of the first phase (L2) and of the second (L1 + L2 on maps and gradients, perceptual).
    network : dict
        Options of :class:`~.network.EstimatorUNet`.
    generator : MprageConfig
        Settings of the simulator.
    perceptual : str or None
        Name in :data:`~.losses.PERCEPTUAL`; None for none.
    batch : int
        Samples a step.
    rate, final_rate, warmup
        As in :class:`~synthseg_training.training.recipe.Stage`, over both phases.
    betas, weight_decay, clip
        Of AdamW; bound on the gradient's norm.
    held_out : list of str
        Names of the label maps kept for validation.
    seed : int
        Of weights and samples.
    validate_every, validation_samples : int
        Steps between validations and samples of the held-out label maps in each.
    """

    name: str
    steps: tuple[int, int] = (20_000, 180_000)
    network: dict[str, Any] = field(default_factory=dict)
    generator: MprageConfig = field(default_factory=MprageConfig)
    perceptual: str | None = "brain"
    batch: int = 1
    rate: float = 1e-4
    final_rate: float | None = None
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    clip: float | None = None
    held_out: list[str] = field(default_factory=list)
    seed: int = 0
    validate_every: int = 2000
    validation_samples: int = 4

    def __post_init__(self) -> None:
        if min(self.steps) < 0 or sum(self.steps) < 1:
            raise ValueError(f"steps: {self.steps} for the two phases; neither may be negative, nor both 0")
        if self.perceptual is not None and self.perceptual not in PERCEPTUAL:
            raise ValueError(f"perceptual: {self.perceptual!r} is none of {', '.join(PERCEPTUAL)}, null")

    @property
    def schedule(self) -> Stage:
        """Both phases as one stretch for :func:`~synthseg_training.training.schedule.learning_rate`."""
        return Stage(steps=sum(self.steps), rate=self.rate, final_rate=self.final_rate, warmup=self.warmup)

    def phase(self, step: int) -> int:
        """Return the phase, 0 or 1, that the given step (counted from 0) belongs to."""
        return int(step >= self.steps[0])


def load_estimator_recipe(path: str | Path, overrides: Sequence[str] = ()) -> EstimatorRecipe:
    """Read a recipe file, see :func:`~synthseg_training.training.recipe.load_recipe`."""
    return load_recipe(path, overrides, EstimatorRecipe)


def fit_estimator(
    recipe: EstimatorRecipe,
    maps: LabelMapSet | str | Path,
    folder: str | Path,
    *,
    max_minutes: float = math.inf,
    device: str = "auto",
    resume: str | Path | None = None,
    perceptual: Perceptual | None = None,
    checkpoint_minutes: float = 5.0,
) -> Path:
    """Train the estimator.

    Parameters
    ----------
    recipe : EstimatorRecipe
        All settings.
    maps : LabelMapSet or path
        Label maps, those that the recipe holds out for validation only; or a folder of measured map sets.
    folder : path
        Receives ``estimator.pt`` (weights in half precision and what it takes to use them), ``last.pt`` (to go on
        from) and ``curves.csv``, whose validation is the mean absolute error of the scaled maps. A ``last.pt`` already
        there is resumed.
    max_minutes : float
        Time box of this call; whatever is reached is saved, as it is on Ctrl+C.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    resume : path, optional
        A ``last.pt`` or ``estimator.pt`` to begin from when the folder has no ``last.pt``. Of the latter the weights
        are taken, and the recipe begins anew.
    perceptual : callable, optional
        A perceptual distance of your own in place of the recipe's, see :data:`~.losses.Perceptual`.
    checkpoint_minutes : float
        Minutes between checkpoints.

    Returns
    -------
    Path
        ``estimator.pt``.
    """
    folder, began = Path(folder), time.monotonic()
    run = _Run(recipe, maps, folder, local_device(device), perceptual)
    run.begin(folder / "last.pt" if (folder / "last.pt").exists() else resume)
    saved = began
    try:
        for _ in run.steps():
            now = time.monotonic()
            if now - began > 60 * max_minutes:
                break
            if now - saved > 60 * checkpoint_minutes:
                run.save()
                saved = now
    except KeyboardInterrupt:
        print("interrupted: saving what was reached", flush=True)
    return run.save()


class _Run:
    """State of one training."""

    def __init__(self, recipe, maps, folder: Path, device: torch.device, perceptual: Perceptual | None):
        self.recipe, self.folder, self.device = recipe, folder, device
        torch.manual_seed(recipe.seed)
        self.network = EstimatorUNet(**recipe.network).to(device)
        crop, multiple = recipe.generator.crop, self.network.multiple
        if crop % multiple:
            raise OptionError(f"generator: crop {crop} is no multiple of {multiple}, as the network needs.")
        self.optimizer = optimizer("adamw", self.network, recipe.rate, recipe.betas, recipe.weight_decay)
        self.perceptual = perceptual
        if perceptual is None and recipe.perceptual is not None and recipe.steps[1]:
            self.perceptual = PERCEPTUAL[recipe.perceptual]()
        if isinstance(self.perceptual, nn.Module):
            self.perceptual.to(device)
        self.simulator, self.validation = _simulators(recipe, maps, device)
        self.rng = torch.Generator().manual_seed(recipe.seed + 1)
        self.step = 0

    def begin(self, path: str | Path | None) -> None:
        if path is not None:
            content = checkpoint.load(path)
            try:
                self.network.load_state_dict(checkpoint.weights(content))
            except RuntimeError as error:
                raise OptionError(
                    f"{path}: holds a network of another size. Give the recipe it was trained by, or another folder."
                ) from error
            if "optimizer" in content:
                self.optimizer.load_state_dict(content["optimizer"])
                self.rng.set_state(content["rng"])
                self.step = content["step"]
        torch.manual_seed(self.recipe.seed + self.step)  # of dropout
        self.curves = Curves(self.folder, self.step, "validation_error")
        self.minutes_before, self.began = self.curves.minutes, time.monotonic()

    def save(self) -> Path:
        state = self.network.state_dict()
        moments = self.optimizer.state_dict()
        content = {"network": state, "optimizer": moments, "rng": self.rng.get_state(), "step": self.step}
        checkpoint.save(self.folder / "last.pt", content)
        path, config = self.folder / "estimator.pt", self.recipe.generator
        options = {"network": self.network.options, "crop": config.crop, "voxel_size": config.voxel_size}
        checkpoint.save(path, {"state": checkpoint.halved(state), "step": self.step, "estimator": options})
        return path

    def steps(self) -> Iterator[None]:
        """Make step after step until the recipe ends, yielding after each."""
        recipe, schedule, losses = self.recipe, self.recipe.schedule, []
        self.network.train()
        while self.step < schedule.steps:
            phase, rate = recipe.phase(self.step), learning_rate(schedule, self.step)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            losses.append(self._train_step(phase))
            self.step += 1
            validate = self.step % recipe.validate_every == 0 or self.step == schedule.steps
            if self.step % LOG_EVERY == 0 or validate or self.step == recipe.steps[0]:
                loss, losses = float(torch.stack(losses).mean()), []
                if not math.isfinite(loss):
                    raise FloatingPointError(f"the loss is {loss} at step {self.step}: lower the learning rate")
                error = self.validate() if validate and self.validation else None
                minutes = self.minutes_before + (time.monotonic() - self.began) / 60
                self.curves.add(self.step, minutes, PHASES[phase], rate, loss, error)
                shown = "" if error is None else f", validation error {error:.3f}"
                print(f"step {self.step} of {schedule.steps}, {PHASES[phase]}: loss {loss:.4f}{shown}", flush=True)
            yield

    def _train_step(self, phase: int) -> Tensor:
        images, targets = _batch(self.simulator, self.recipe.batch, self.rng)
        prediction = self._estimate(images)
        if phase == 0:
            loss = first_phase_loss(prediction, targets)
        else:
            loss = second_phase_loss(prediction, targets, self.perceptual)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimizer.step()
        return loss.detach()

    def _estimate(self, images: Tensor) -> Tensor:
        with precision(self.device, min(images.shape[2:]) // self.network.multiple):
            return self.network(images)

    @torch.no_grad()
    def validate(self) -> float:
        """Return the mean absolute error of the scaled maps on fixed samples of the held-out label maps."""
        rng = torch.Generator().manual_seed(self.recipe.seed)
        self.network.eval()
        errors = []
        for _ in range(self.recipe.validation_samples):
            images, targets = _batch(self.validation, 1, rng)
            errors.append((scaled(self._estimate(images)) - scaled(targets)).abs().mean())
        self.network.train()
        return float(torch.stack(errors).mean())


def _simulators(recipe: EstimatorRecipe, maps: LabelMapSet | str | Path, device: torch.device):
    """Return the simulator to train on and, with label maps, that of the held-out ones."""
    if not isinstance(maps, LabelMapSet):
        return MprageSimulator(maps, recipe.generator, device), None
    held_out = [name for name in recipe.held_out if name in maps.names]
    training = maps.subset([name for name in maps.names if name not in held_out]).to(device)
    validation = MprageSimulator(maps.subset(held_out).to(device), recipe.generator) if held_out else None
    return MprageSimulator(training, recipe.generator), validation


def _batch(simulator: MprageSimulator, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    images, targets = zip(*(simulator.sample(rng) for _ in range(size)))
    return torch.stack(images), torch.stack(targets)
