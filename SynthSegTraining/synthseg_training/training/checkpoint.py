"""Checkpoints: everything to go on with, or half-precision weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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


def load_into(network: nn.Module, state: dict[str, Tensor]) -> bool:
    """Load weights; layers whose shape differs, as the heads of another task's do, keep their initial values.

    Returns
    -------
    bool
        Whether all weights were taken over.

    Raises
    ------
    ValueError
        If names differ, or nothing but heads would be left out: the weights belong to another network.
    """
    own = network.state_dict()
    differing = sorted(name for name in own.keys() | state.keys() if _shape(own, name) != _shape(state, name))
    strange = [name for name in differing if name not in own or name not in state or "head" not in name]
    if strange:
        raise ValueError(f"the weights are of another network: they differ in {', '.join(strange[:4])}")
    network.load_state_dict({name: value for name, value in state.items() if name not in differing}, strict=False)
    if differing:
        print(f"another task's weights: {', '.join(differing)} begin anew", flush=True)
    return not differing


def _shape(state: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None
