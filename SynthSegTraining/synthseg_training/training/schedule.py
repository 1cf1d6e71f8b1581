"""Learning rate and curriculum as functions of the step within a stage."""

from __future__ import annotations

import math

from synthseg_training.training.recipe import Stage


def learning_rate(stage: Stage, step: int) -> float:
    """Return the learning rate: linear warm-up, then constant, a half cosine, or a power of what is left."""
    if step < stage.warmup:
        return stage.rate * (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    if stage.power is not None:
        return stage.rate * (1 - done) ** stage.power
    if stage.final_rate is None:
        return stage.rate
    return stage.final_rate + 0.5 * (stage.rate - stage.final_rate) * (1 + math.cos(math.pi * done))


def ramp(ends: tuple[float, float], stage: Stage, step: int) -> float:
    """Return the value of a curriculum setting that moves linearly between its two ends, then stays."""
    start, end = ends
    return start + (end - start) * min(1.0, step / (stage.difficulty_steps or stage.steps))
