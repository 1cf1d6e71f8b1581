"""Random numbers as plain Python values, all from one ``torch.Generator`` on the CPU."""

from __future__ import annotations

import torch


def uniform(rng: torch.Generator, low: float, high: float) -> float:
    """Draw one number from U(low, high)."""
    return low + (high - low) * torch.rand((), generator=rng).item()


def uniforms(rng: torch.Generator, count: int, low: float, high: float) -> list[float]:
    """Draw ``count`` numbers from U(low, high)."""
    return torch.rand(count, generator=rng).mul_(high - low).add_(low).tolist()


def integer(rng: torch.Generator, high: int) -> int:
    """Draw one of 0 .. high - 1."""
    return torch.randint(high, (), generator=rng).item()


def happens(rng: torch.Generator, probability: float) -> bool:
    """Return True with this probability; exactly never for 0 and always for 1."""
    return torch.rand((), generator=rng).item() < probability
