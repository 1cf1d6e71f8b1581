"""Optimisers by the name that a recipe gives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

OPTIMIZERS = ("adam", "adamw", "muon")


def optimizer(name: str, network: nn.Module, rate: float, betas: tuple[float, float], weight_decay: float):
    """Return an optimiser of a network's parameters.

    Parameters
    ----------
    name : str
        One of :data:`OPTIMIZERS`.
    network : nn.Module
        On its device and in its memory format already.
    rate : float
        Learning rate to begin with.
    betas : tuple of float
        Moment decays of Adam.
    weight_decay : float
        Decoupled weight decay; ``adam`` has none.
    """
    parameters = list(network.parameters())
    fused = parameters[0].device.type != "mps"
    if name == "adam":
        return torch.optim.Adam(parameters, lr=rate, betas=betas, fused=fused)
    if name == "muon":
        return Muon(network.named_parameters(), rate, betas, weight_decay, fused)
    return torch.optim.AdamW(parameters, lr=rate, betas=betas, weight_decay=weight_decay, fused=fused)


class Muon:
    """Muon for the convolution kernels, AdamW for everything else, behind the interface of one optimiser.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix of moving-average gradients
    by the nearest orthogonal one, so that rare directions move as far as common ones. Kernels are taken as matrices
    ``[out, in x 3 x 3 x 3]``; the network's first and last layers, biases and normalisations are left to AdamW, as its
    author advises. Its step is scaled to the length that AdamW's would have, hence one learning rate for both.

    Parameters
    ----------
    parameters : iterable of (str, Parameter)
        Of the network, with their names; layers with ``head`` in their name are last ones.
    rate, betas, weight_decay, fused
        As for AdamW.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        rate: float,
        betas: tuple[float, float],
        weight_decay: float,
        fused: bool,
    ):
        if not hasattr(torch.optim, "Muon"):
            raise ValueError("the optimizer muon needs PyTorch 2.9 or later")
        self.kernels, others = [], []
        for name, parameter in parameters:
            matrix = _matrix(parameter)
            if "head" in name or matrix is None or min(matrix.shape) < 16:
                others.append(parameter)
            else:
                self.kernels.append((parameter, nn.Parameter(matrix)))
        matrices = [matrix for _, matrix in self.kernels]
        muon = torch.optim.Muon(matrices, lr=rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        adamw = torch.optim.AdamW(others, lr=rate, betas=betas, weight_decay=weight_decay, fused=fused)
        self.parts = {"muon": muon, "adamw": adamw}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of both parts; setting their ``lr`` sets the learning rate."""
        return [group for part in self.parts.values() for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for parameter, matrix in self.kernels:
            parameter.grad = matrix.grad = None
        self.parts["adamw"].zero_grad(set_to_none)

    def step(self) -> None:
        """Move all parameters."""
        for parameter, matrix in self.kernels:
            if parameter.grad is not None:  # a stage may leave out part of the network (trunk_only)
                matrix.grad = parameter.grad.movedim(1, -1).reshape(matrix.shape)
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the moments of both parts."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take moments from :meth:`state_dict`."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def _matrix(kernel: Tensor) -> Tensor | None:
    """Return a kernel ``[out, in, x, y, z]`` as ``[out, x y z in]`` in the same memory; None where that cannot be."""
    if kernel.ndim != 5:
        return None
    matrix = kernel.detach().movedim(1, -1).reshape(len(kernel), -1)
    return matrix if matrix.data_ptr() == kernel.data_ptr() else None
