"""Running means: of the weights over steps, of batch normalisation's statistics over samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a network's weights and buffers.

    Parameters
    ----------
    network : nn.Module
        Its present state begins the mean.
    decay : float
        Weight of the past at each step; smaller during the first steps, (1 + n) / (20 + n), so that the random initial
        weights are forgotten at once.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network's present weights."""
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (20 + self.updates))
        mean, new = [], []
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                mean.append(self.state[name])
                new.append(value.detach())
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(mean, new, 1 - keep)


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """Return the batch normalisation layers of a network."""
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


@torch.no_grad()
def estimate_norm_statistics(network: nn.Module, forward: Callable[[Tensor], Tensor], images: Iterable[Tensor]) -> None:
    """Replace batch normalisation's running statistics by their plain mean over the given images.

    The running statistics lag behind weights that still move, and an averaged network never had any of its own.
    """
    layers = [layer for layer in batch_norms(network)]
    momenta = [layer.momentum for layer in layers]
    training = network.training
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative mean
    network.train()
    for image in images:
        forward(image)
    for layer, momentum in zip(layers, momenta):
        layer.momentum = momentum
    network.train(training)
