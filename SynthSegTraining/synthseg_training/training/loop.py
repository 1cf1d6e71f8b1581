"""The training loop: draw, predict, compare, step; validate, checkpoint, stop in time, go on where it stopped."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synthseg_slicer.labels import LESION_ID
from synthseg_slicer.network import build
from synthseg_training.generation import Generator, GeneratorConfig
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.losses import LOSSES, UNKNOWN_HEALTHY, merge_healthy
from synthseg_training.stroke import Mixture, StrokeConfig, StrokeGenerator
from synthseg_training.stroke.mixture import Samples
from synthseg_training.training import checkpoint
from synthseg_training.training.averaging import WeightAverage, batch_norms, estimate_norm_statistics
from synthseg_training.training.curves import Curves
from synthseg_training.training.distributed import (
    any_process,
    average_gradients,
    local_device,
    resume_random,
    share_weights,
    start,
    stop,
)
from synthseg_training.training.optimizers import optimizer
from synthseg_training.training.recipe import Recipe, Stage, from_dict, merged
from synthseg_training.training.schedule import learning_rate, ramp

LOG_EVERY = 50
"""Steps between rows of the learning curve; the loss is fetched from the device only then."""
NORM_SAMPLES = 32
"""Samples over which batch normalisation's statistics are estimated (they vary by contrast, hence not just a few)."""


def fit(
    recipe: Recipe,
    maps: LabelMapSet,
    folder: str | Path,
    *,
    resume: str | Path | None = None,
    start_step: int | None = None,
    max_minutes: float = math.inf,
    device: str = "auto",
    compile: bool = False,
    checkpoint_minutes: float = 5.0,
    keep_every: int | None = None,
) -> Path:
    """Train a network by a recipe.

    Parameters
    ----------
    recipe : Recipe
        All settings.
    maps : LabelMapSet
        Label maps; those that the recipe holds out are used for validation only. May be empty where all samples come
        from the recipe's folder of data.
    folder : path
        Receives ``last.pt`` (to go on from), ``weights.pt`` (half-precision, averaged), ``curves.csv``, ``curves.png``.
        A ``last.pt`` already there is resumed.
    resume : path, optional
        Checkpoint or weights file to begin from when the folder has no ``last.pt``. From a file of weights alone, the
        optimiser's moments start anew and so does the recipe, unless ``start_step`` says otherwise.
    start_step : int, optional
        Step of the recipe at which to begin, instead of the checkpoint's.
    max_minutes : float
        Time box of this call; whatever is reached is saved.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    compile : bool
        Compile the network (pays on GPUs and long trainings).
    checkpoint_minutes : float
        Minutes between checkpoints.
    keep_every : int, optional
        Steps between snapshots ``weights-STEP.pt``, which stay: the points of a learning curve on real scans
        (``synthseg-train curve``).

    Returns
    -------
    Path
        The checkpoint ``last.pt``.
    """
    folder = Path(folder)
    began = time.monotonic()
    run = _Run(recipe, maps, folder, local_device(device), compile)
    run.begin(folder / "last.pt" if (folder / "last.pt").exists() else resume, start_step)
    saved = began
    try:
        for _ in run.steps():
            now = time.monotonic()
            late = any_process((now - began) / 60 > max_minutes, run.processes, run.device)
            if late:
                break
            if (now - saved) / 60 > checkpoint_minutes:
                run.save()
                saved = now
            if keep_every and run.step % keep_every == 0:
                run.save_weights(f"weights-{run.step:06d}.pt")
    except KeyboardInterrupt:
        print("interrupted: saving what was reached", flush=True)
    path = run.save(draw=True)
    stop(run.processes)
    return path


def make_generator(maps: LabelMapSet, config: GeneratorConfig | StrokeConfig) -> Generator | StrokeGenerator:
    """Return the generative model that the settings belong to."""
    return (StrokeGenerator if isinstance(config, StrokeConfig) else Generator)(maps, config)


def real_data(recipe: Recipe, device: torch.device | str = "cpu") -> Samples | None:
    """Return what draws samples from the recipe's folder of data, read and checked; None if it has no such folder.

    Samples of maps are made on ``device``, those of scans on the CPU.
    """
    data = recipe.data
    if not data:
        return None
    config = stage_config(recipe, recipe.stages[0])
    if recipe.task == "anatomy":
        from synthseg_training.generation.supervised import LabelledScans

        source = LabelledScans(data.folder, config)
    elif data.kind == "maps":
        from synthseg_training.stroke.from_maps import MapsGenerator

        source = MapsGenerator(data.folder, config, device, data.tesla)
    else:
        from synthseg_training.stroke.real import RealScans

        source = RealScans(data.folder, config)
    for stage in recipe.stages:
        source.config = stage_config(recipe, stage)  # refused where real scans cannot follow it
    return source


def training_samples(
    recipe: Recipe, maps: LabelMapSet, config: GeneratorConfig | StrokeConfig, data: Samples | None
) -> Generator | StrokeGenerator | Mixture:
    """Return what draws training samples: the generative model, mixed with what :func:`real_data` returned.

    Label maps are not needed where all samples are of those data.
    """
    if data is None:
        return make_generator(maps, config)
    data.config = config
    return Mixture(make_generator(maps, config) if recipe.draws_from_label_maps else data, data, recipe.data.share)


def stage_config(recipe: Recipe, stage: Stage, step: int = 0) -> GeneratorConfig | StrokeConfig:
    """Return the generative model's settings at a step of a stage."""
    settings = merged(recipe.generator, stage.generator)
    kind = {"anatomy": GeneratorConfig, "stroke": StrokeConfig}[recipe.task]
    config = from_dict(kind, settings, f"generator of stage {stage.name!r}")
    config = dataclasses.replace(config, crop=stage.crop, voxel_size=stage.voxel_size)
    difficulty = ramp(stage.difficulty, stage, step)
    if difficulty != 1:
        config = config.scaled(difficulty)
    if stage.realistic_share is not None:
        gmm = dataclasses.replace(config.gmm, realistic_share=ramp(stage.realistic_share, stage, step))
        config = dataclasses.replace(config, gmm=gmm)
    return config


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 natively; elsewhere it would be slower than float32.

    A training step at 96^3 takes half the time on two cores with AVX512-BF16 (``Testing/benchmarks/training.py``).
    """
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return device.type == "cuda"


def precision(device: torch.device, deepest: int) -> AbstractContextManager:
    """Return the context of forward passes: bfloat16 where the device multiplies it natively, else float32.

    Parameters
    ----------
    device : torch.device
    deepest : int
        Edge in voxels of the network's smallest feature maps. On CPUs bfloat16 is avoided where they are 2 x 2 x 2:
        there oneDNN (PyTorch 2.13) leaves the gradient of a convolution's kernel unwritten, so that memory's old
        content takes its place, clipping takes away what is right, and training does nothing without a word.
    """
    if has_bfloat16(device) and not (device.type == "cpu" and deepest == 2):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def deepest_edge(network: nn.Module, stage: Stage) -> float:
    """Return the edge in voxels of the smallest feature maps that a stage's samples have in the network."""
    return stage.crop / (network.multiple // 2 if stage.trunk_only else network.multiple)


def training_names(recipe: Recipe, maps: LabelMapSet) -> list[str]:
    """Return the names of the label maps that the recipe trains on."""
    return [name for name in maps.names if name not in recipe.held_out][: recipe.n_maps]


def _check_stage(recipe: Recipe, stage: Stage, network: nn.Module) -> None:
    config = stage_config(recipe, stage)
    if isinstance(config, StrokeConfig) and recipe.draws_from_label_maps:
        config.masks.read(stage.voxel_size)  # what is wrong with a file shows now; they are kept for the generators
    channels, labels = network.n_labels, len(config.output_ids)
    if channels != labels:
        raise ValueError(
            f"the network has {channels} channels (n_labels) but the generator's anatomy outputs {labels} labels"
        )
    if stage.trunk_only and not hasattr(network, "forward_coarse"):
        raise ValueError(f"stage {stage.name!r}: only the fast network has a trunk to train alone (trunk_only)")
    edge = deepest_edge(network, stage)
    if edge % 1:
        multiple = round(stage.crop / edge)
        raise ValueError(f"stage {stage.name!r}: crop {stage.crop} is no multiple of {multiple}, as the network needs")


class _Run:
    """State of one training in one process."""

    def __init__(self, recipe: Recipe, maps: LabelMapSet, folder: Path, device: torch.device, compile: bool):
        self.recipe, self.folder, self.device = recipe, folder, device
        self.rank, self.processes = start(device)
        torch.manual_seed(recipe.seed)
        self.network = build(**recipe.network).to(device, memory_format=torch.channels_last_3d)
        if recipe.norm_momentum is not None:
            for layer in batch_norms(self.network):
                layer.momentum = recipe.norm_momentum
        self.compile = compile
        self.optimizer = optimizer(
            recipe.optimizer, self.network, recipe.stages[0].rate, recipe.betas, recipe.weight_decay
        )
        self.average: WeightAverage | None = None
        self.rng = torch.Generator().manual_seed(recipe.seed + 1 + self.rank)
        held_out = [name for name in recipe.held_out if name in maps.names]
        if recipe.held_out and not held_out:
            print(
                f"none of the held-out maps {', '.join(recipe.held_out)} is in the label maps: no validation",
                flush=True,
            )
        self.training_maps = maps.subset(training_names(recipe, maps)).to(device)
        self.validation_maps = maps.subset(held_out).to(device) if held_out else None
        for stage in recipe.stages:
            _check_stage(recipe, stage, self.network)  # a wrong setting shows before hours of training, not after
        self.data = real_data(recipe, device)  # so does a wrong file
        self.step = 0

    # -- beginning and saving ------------------------------------------------------------------------------------------

    def begin(self, path: str | Path | None, start_step: int | None) -> None:
        if path is not None:
            content = checkpoint.load(path)
            same = checkpoint.load_into(self.network, checkpoint.weights(content, averaged=False))
            self.step = content.get("step", 0) if same else 0
            if same and set(content.get("optimizer", ())) == set(self.optimizer.state_dict()):  # else of another kind
                self.optimizer.load_state_dict(content["optimizer"])
            if "rng" in content:
                resume_random(self.rng, content["rng"], self.rank)
            if same and self.recipe.ema is not None and "ema" in content:
                self.average = WeightAverage(self.network, self.recipe.ema)
                self.average.state = {k: v.to(self.device) for k, v in checkpoint.weights(content).items()}
                self.average.updates = content.get("ema_updates", self.step)
        if start_step is not None:
            self.step = start_step
        share_weights(self.network, self.processes)
        if self.average is None and self.recipe.ema is not None:
            self.average = WeightAverage(self.network, self.recipe.ema)
        self.curves = Curves(self.folder, self.step) if self.rank == 0 else None
        self.minutes_before = self.curves.minutes if self.curves else 0.0
        self.began = time.monotonic()

    def save(self, draw: bool = False) -> Path:
        path = self.folder / "last.pt"
        if self.rank:
            return path
        content: dict[str, Any] = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.get_state(),
            "step": self.step,
        }
        if self.average is not None:
            content |= {"ema": self.average.state, "ema_updates": self.average.updates}
        checkpoint.save(path, content)
        self.save_weights("weights.pt")
        if draw and self.curves:
            self.curves.draw()
        return path

    def save_weights(self, name: str) -> None:
        """Write the averaged weights in half precision, without what it takes to go on."""
        if not self.rank:
            state = checkpoint.halved(self.average.state if self.average else self.network.state_dict())
            checkpoint.save(self.folder / name, {"state": state, "step": self.step})

    # -- training ------------------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[None]:
        """Make step after step until the recipe ends, yielding after each."""
        progress = _progress(self.recipe.steps, self.step, self.rank)
        loss_sum, count, current = torch.zeros((), device=self.device), 0, -1
        while self.step < self.recipe.steps:
            index, stage, within = self.recipe.stage_at(self.step)
            if index != current:
                current = index
                config = stage_config(self.recipe, stage)
                generator = training_samples(self.recipe, self.training_maps, config, self.data)
                forward = self._forward(stage)
                before = self.recipe.stages[index - 1] if index else None
                self._set_norm(stage, generator, fresh=within == 0 and not (before and before.frozen_norm))
            generator.config = stage_config(self.recipe, stage, within)
            rate = learning_rate(stage, within)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self._train_step(generator, forward, stage)
            self.step += 1
            progress.update()
            loss_sum += loss
            count += 1
            validate = self.step % self.recipe.validate_every == 0 or self.step == self.recipe.steps
            if self.step % LOG_EVERY == 0 or validate:
                mean = float(loss_sum) / count
                if not math.isfinite(mean):
                    raise FloatingPointError(
                        f"the loss is {mean} at step {self.step}: lower the learning rate of stage {stage.name!r}"
                    )
                loss_sum.zero_()
                count = 0
                dice = self.validate(stage) if validate and self.validation_maps and self.rank == 0 else None
                if self.curves:
                    minutes = self.minutes_before + (time.monotonic() - self.began) / 60
                    self.curves.add(self.step, minutes, stage.name, rate, mean, dice)
                progress.note(stage.name, mean, dice)
            yield
        progress.close()

    def _train_step(self, generator: Generator | StrokeGenerator, forward: Callable, stage: Stage) -> Tensor:
        image, target = _batch(generator, stage.batch, self.rng, self.device)
        with self._precision(stage):
            outputs = forward(image)
        criterion = LOSSES[stage.loss]
        if not stage.dice_background:
            criterion = partial(criterion, background=False)
        if self.data is not None and (target == UNKNOWN_HEALTHY).any():
            lesion = generator.config.output_ids.index(LESION_ID)
            outputs = [merge_healthy(logits, target, lesion)[0] for logits in outputs]
            target = (target == lesion).long()
        loss = criterion(outputs[0], target)
        if len(outputs) > 1:
            loss = loss + stage.coarse_weight * criterion(outputs[1], target[:, ::2, ::2, ::2].contiguous())
        if stage.lesion_weight and outputs[0].shape[1] > 2:
            lesion = generator.config.output_ids.index(LESION_ID)
            loss = loss + stage.lesion_weight * criterion(*merge_healthy(outputs[0], target, lesion))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.network, self.processes)
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network)
        return loss.detach()

    def _forward(self, stage: Stage) -> Callable[[Tensor], tuple[Tensor, ...]]:
        if stage.trunk_only:
            forward, several = self.network.forward_coarse, False
        elif stage.coarse_weight:
            forward, several = self.network.forward_both, True
        else:
            forward, several = self.network.forward, False
        if self.compile:
            forward = torch.compile(forward)
        return forward if several else lambda image: (forward(image),)

    def _set_norm(self, stage: Stage, generator: Generator | StrokeGenerator | Mixture, fresh: bool) -> None:
        """Freeze batch normalisation where the stage says so, ``fresh`` with statistics of the present weights."""
        self.network.train()
        if stage.frozen_norm and fresh:
            # The running averages lag behind weights that moved. Weights that were already trained with frozen
            # statistics, before an interruption or in the stage before, keep theirs.
            generator.config = stage_config(self.recipe, stage, stage.steps)
            with self._precision(stage):
                images = (_batch(generator, 1, self.rng, self.device)[0] for _ in range(NORM_SAMPLES))
                estimate_norm_statistics(self.network, self._forward(stage), images)
        if stage.frozen_norm:
            for layer in batch_norms(self.network):
                layer.eval()

    def _precision(self, stage: Stage) -> AbstractContextManager:
        return precision(self.device, round(deepest_edge(self.network, stage)))

    # -- validation ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self, stage: Stage) -> float:
        """Return mean hard Dice over present labels (background aside) on fixed samples of the held-out maps.

        The averaged weights are validated, with the settings that the stage ends with.
        """
        generator = make_generator(self.validation_maps, stage_config(self.recipe, stage, stage.steps))
        rng = torch.Generator().manual_seed(self.recipe.seed)
        own = None
        if self.average is not None:
            own = {name: value.clone() for name, value in self.network.state_dict().items()}
            self.network.load_state_dict(self.average.state)
        self.network.eval()
        forward = self._forward(dataclasses.replace(stage, coarse_weight=0.0))
        scores = []
        for _ in range(self.recipe.validation_samples):
            image, target = _batch(generator, 1, rng, self.device)
            with self._precision(stage):
                prediction = forward(image)[0].argmax(1)
            scores += _dice(prediction, target, len(generator.config.output_ids))
        if own is not None:
            self.network.load_state_dict(own)
        self.network.train()
        if stage.frozen_norm:
            for layer in batch_norms(self.network):
                layer.eval()
        return sum(scores) / max(1, len(scores))


def _batch(generator: Samples, size: int, rng: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw samples, which a mixture may make on several devices, and return them on the one given."""
    images, targets = zip(*(generator.sample(rng) for _ in range(size)))
    images = torch.stack([image.to(device) for image in images]).to(memory_format=torch.channels_last_3d)
    return images, torch.stack([target.to(device) for target in targets]).long()


def _dice(prediction: Tensor, target: Tensor, n_labels: int) -> list[float]:
    predicted = torch.bincount(prediction.flatten(), minlength=n_labels)
    true = torch.bincount(target.flatten(), minlength=n_labels)
    both = torch.bincount(target[prediction == target], minlength=n_labels)
    present = true[1:] > 0
    return (2 * both[1:] / (predicted[1:] + true[1:]).clamp_min(1))[present].tolist()


class _progress:
    """A progress bar with rate and remaining time; a printed line now and then where tqdm is absent."""

    def __init__(self, total: int, initial: int, rank: int):
        self.bar = None
        self.rank = rank
        try:
            from tqdm import tqdm
        except ImportError:
            self.done, self.total = initial, total
            return
        self.bar = tqdm(total=total, initial=initial, disable=rank > 0, unit="step", mininterval=5, dynamic_ncols=True)

    def update(self) -> None:
        if self.bar is not None:
            self.bar.update()
        else:
            self.done += 1

    def note(self, stage: str, loss: float, dice: float | None) -> None:
        text = f"{stage}: loss {loss:.3f}" + ("" if dice is None else f", validation Dice {dice:.3f}")
        if self.bar is not None:
            self.bar.set_description(stage, refresh=False)
            self.bar.set_postfix_str(text.split(": ", 1)[1])
        elif self.rank == 0:
            print(f"step {self.done} of {self.total}, {text}", flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
