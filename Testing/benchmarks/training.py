"""Samples and training steps a second: the paper's network and settings against the bundled recipe.

usage: python Testing/benchmarks/training.py [--threads N] [--device cpu|cuda]
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import tempfile
import time

import torch
from torch.nn import functional as F

from synthseg_slicer.allocation import keep_freed_memory
from synthseg_slicer.network import build
from synthseg_training.generation import Generator, GeneratorConfig
from synthseg_training.generation.resolution import gaussian_matrix
from synthseg_training.labelmaps import prepare
from synthseg_training.losses import dice_cross_entropy_loss
from synthseg_training.phantom import write_phantoms
from synthseg_training.stroke import StrokeConfig, StrokeGenerator
from synthseg_training.training.loop import has_bfloat16


def rate(function, device: str, seconds: float = 4.0) -> float:
    """Return calls a second after one warm-up call."""

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    function()
    wait()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        function()
        wait()
        calls += 1
    return calls / (time.perf_counter() - start)


def plain_loss(logits, target):
    """Dice + cross-entropy as usually written, with a one-hot target."""
    posteriors = logits.softmax(1)
    truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1).float()
    axes = (0, 2, 3, 4)
    dice = (2 * (posteriors * truth).sum(axes) + 1) / (posteriors.square().sum(axes) + truth.sum(axes) + 1)
    return F.cross_entropy(logits, target) + 1 - dice[truth.sum(axes) > 0].mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    keep_freed_memory()  # as 'synthseg-train' does
    if options.threads:
        torch.set_num_threads(options.threads)
    device = options.device
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(folder, 1)
        maps = prepare(folder, f"{folder}/maps.npz").to(device)
    processor = platform.processor() or platform.machine()
    print(f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}")

    rng = torch.Generator().manual_seed(0)
    print("\n| samples | a second | against the paper's 160³ |\n|---|---|---|")
    reference = None
    for name, crop, voxel_size, step in (
        ("160³, field at 1/2 (paper)", 160, 1.0, 2.0),
        ("160³, field at 1/4", 160, 1.0, 4.0),
        ("96³, field at 1/4", 96, 1.0, 4.0),
        ("64³ at 2 mm, field at 1/4", 64, 2.0, 4.0),
        ("96³, the same, stroke", 96, 1.0, 4.0),
    ):
        kind, model = (StrokeConfig, StrokeGenerator) if "stroke" in name else (GeneratorConfig, Generator)
        config = kind(crop=crop, voxel_size=voxel_size)
        config = dataclasses.replace(config, spatial=dataclasses.replace(config.spatial, step=step))
        generator = model(maps, config)
        value = rate(lambda generator=generator: generator.sample(rng), device)
        reference = reference or value
        print(f"| {name} | {value:.1f} | {value / reference:.1f} × |")

    print("\n| training step | a second | against the paper's network |\n|---|---|---|")
    reference = None
    native = has_bfloat16(torch.device(device))
    for name, options_, crop, method, bfloat16 in (
        ("paper's U-Net, 96³, float32", {"architecture": "paper"}, 96, "forward", False),
        ("bundled network, 96³, float32", {"architecture": "fast"}, 96, "forward", False),
        ("the same as trained", {"architecture": "fast"}, 96, "forward", native),
        ("its trunk, 64³ at 2 mm, as trained", {"architecture": "fast"}, 64, "forward_coarse", native),
    ):
        network = build(**options_).to(device, memory_format=torch.channels_last_3d)
        optimizer = torch.optim.AdamW(network.parameters())
        image = torch.rand(1, 1, crop, crop, crop, device=device).to(memory_format=torch.channels_last_3d)
        target = torch.randint(0, 33, (1, crop, crop, crop), device=device)

        def step(network=network, optimizer=optimizer, image=image, target=target, method=method, bfloat16=bfloat16):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                logits = getattr(network, method)(image)
            dice_cross_entropy_loss(logits, target).backward()
            optimizer.step()

        value = rate(step, device, 8.0)
        reference = reference or value
        print(f"| {name} | {value:.2f} | {value / reference:.1f} × |")

    for labels in (33, 6):  # brain, stroke
        print(f"\n| loss and gradient, {labels} labels, 64³ | a second | against one-hot |\n|---|---|---|")
        logits = torch.randn(1, labels, 64, 64, 64, device=device)
        logits = logits.to(memory_format=torch.channels_last_3d).requires_grad_()
        target = torch.randint(0, labels, (1, 64, 64, 64), device=device)
        reference = None
        for name, loss in (("one-hot", plain_loss), ("fused", dice_cross_entropy_loss)):
            value = rate(lambda f=loss, z=logits, t=target: torch.autograd.grad(f(z, t), z), device)
            reference = reference or value
            print(f"| {name} | {value:.1f} | {value / reference:.1f} × |")

    print("\n| Gaussian blur, 96³ | a second | against all weights |\n|---|---|---|")
    volume = torch.rand(96, 96, 96, device=device)
    voxels = torch.arange(96, device=device)
    every = (voxels[:, None] - voxels).div(0.6).square().mul(-0.5).exp()  # the far ones are subnormal numbers
    reference = None
    for name, matrix in (("all weights", every / every.sum(1)), ("as trained", gaussian_matrix(0.6, 96, device))):
        value = rate(lambda matrix=matrix: matrix @ volume @ matrix.T, device)
        reference = reference or value
        print(f"| {name} | {value:.1f} | {value / reference:.1f} × |")


if __name__ == "__main__":
    main()
