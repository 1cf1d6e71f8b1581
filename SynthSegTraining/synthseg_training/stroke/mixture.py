"""Samples of two sources."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..generation import GeneratorConfig
from ..generation.draws import happens
from .model import StrokeConfig


class Samples(Protocol):
    """What draws training samples: :class:`~.model.StrokeGenerator`, :class:`~.real.RealScans` and their like."""

    config: GeneratorConfig | StrokeConfig

    def sample(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return an image ``[1, N, N, N]`` and its target ``[N, N, N]``."""


class Mixture:
    """Samples of one source with a probability, else of the other.

    Parameters
    ----------
    first, second : Samples
        The sources.
    share : float
        Probability of the second.
    """

    def __init__(self, first: Samples, second: Samples, share: float):
        self.first, self.second, self.share = first, second, share

    @property
    def config(self) -> GeneratorConfig | StrokeConfig:
        """Settings of the first source; setting them sets both."""
        return self.first.config

    @config.setter
    def config(self, config: GeneratorConfig | StrokeConfig) -> None:
        self.first.config = self.second.config = config

    def sample(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw one sample."""
        return (self.second if happens(rng, self.share) else self.first).sample(rng)
