"""Several processes under torchrun: each draws its own samples, gradients are averaged.

DistributedDataParallel is not used because the curriculum trains parts of the network in turn; averaging whatever
gradients a step has made does the same work in a few lines.
"""

from __future__ import annotations

import os

import torch
from torch import distributed, nn

from synthseg_slicer.errors import DeviceError


def start(device: torch.device) -> tuple[int, int]:
    """Join the processes that torchrun started.

    Returns
    -------
    tuple of int
        Rank and number of processes; (0, 1) without torchrun.
    """
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) < 2:
        return 0, 1
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return distributed.get_rank(), distributed.get_world_size()


def stop(processes: int) -> None:
    """Leave the group once all are there; a process that just ended could abort while the group's threads still ran."""
    if processes > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def local_device(name: str) -> torch.device:
    """Return the device of this process: ``auto`` is its own GPU where there is one, else the CPU.

    Raises
    ------
    DeviceError
        The device is unknown or absent.
    """
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DeviceError(
                f"Cannot train on the device {name!r} ({reason}). Choose auto, cpu, cuda or mps."
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def resume_random(rng: torch.Generator, state: torch.Tensor, rank: int) -> None:
    """Go on where a checkpoint's random numbers end, in each process with numbers of its own.

    Parameters
    ----------
    rng : torch.Generator
        Of this process.
    state : tensor
        Of the first process's generator, which alone is in the checkpoint. The others are seeded from it; with the same
        state all would draw the same samples.
    rank : int
    """
    rng.set_state(state)
    if rank:
        rng.manual_seed(int(torch.randint(2**62, (rank,), generator=rng)[-1]))


@torch.no_grad()
def share_weights(network: nn.Module, processes: int) -> None:
    """Give every process the weights of the first."""
    if processes > 1:
        for value in network.state_dict().values():
            distributed.broadcast(value, 0)


@torch.no_grad()
def average_gradients(network: nn.Module, processes: int) -> None:
    """Replace each gradient by its mean over all processes, in one message."""
    if processes < 2:
        return
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= processes
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(mean.view_as(gradient))


def any_process(flag: bool, processes: int, device: torch.device) -> bool:
    """Return whether the flag is set in any process, so that all stop at the same step."""
    if processes < 2:
        return flag
    value = torch.tensor(float(flag), device=device)
    distributed.all_reduce(value, distributed.ReduceOp.MAX)
    return bool(value)
