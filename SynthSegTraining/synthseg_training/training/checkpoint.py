"""Checkpoints: everything to go on with, or half-precision weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synthseg_slicer.files import atomic


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; the folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        torch.save(content, temporary)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint, or a bundled ``.pt`` of weights, onto the CPU.

    Raises
    ------
    ValueError
        If the file is no checkpoint of this package.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not ("network" in content or "state" in content):
        raise ValueError(f"{path} is no checkpoint: it holds neither 'network' nor 'state'")
    return content


def halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dictionary in half precision; integer buffers as they are."""
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


def weights(content: dict[str, Any], *, averaged: bool = True) -> dict[str, Tensor]:
    """Return single-precision weights of a checkpoint or weights file; the averaged ones where there are any."""
    state = content.get("state") or (averaged and content.get("ema")) or content["network"]
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
