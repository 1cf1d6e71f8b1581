"""Learning rate and curriculum as functions of the step within a stage."""

from __future__ import annotations

import math

from synthseg_training.training.recipe import Stage


def learning_rate(stage: Stage, step: int) -> float:
    """Return the learning rate: linear warm-up, then constant or a half cosine from ``rate`` to ``final_rate``."""
    if step < stage.warmup:
        return stage.rate * (step + 1) / stage.warmup
    if stage.final_rate is None:
        return stage.rate
    done = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.final_rate + 0.5 * (stage.rate - stage.final_rate) * (1 + math.cos(math.pi * done))


def ramp(ends: tuple[float, float], stage: Stage, step: int) -> float:
    """Return the value of a curriculum setting that moves linearly between its two ends, then stays."""
    start, end = ends
    return start + (end - start) * min(1.0, step / (stage.difficulty_steps or stage.steps))
