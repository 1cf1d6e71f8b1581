"""Time and peak memory of the bundled network and of the whole ``segment`` call against the paper's U-Net, in one run.

usage: python Testing/benchmarks/inference.py [--shapes 160,160,160 192,224,192] [--threads N] [--repeats N]

Each row runs in a process of its own. All rows compute the mean of two passes (left/right flips) from the same image to
an arg-max label map:

- *paper, plain*: the paper's U-Net in torch as usually written: softmax volumes of both passes, their mean, arg-max;
- *paper, streamed*: the same network through this package's :func:`synthseg_slicer.predict.predict`;
- *bundled*: the bundled network through the same function;
- *segment*: the whole call with the bundled weights: read, conform, two passes, clean-up, volumes, write.

The image is a rendered head phantom that fills its grid. Time does not depend on the weights, but for one thing: where
the bundled ones are certain of background, full resolution is skipped. The row *bundled, everywhere* keeps that from
happening. *Freed memory kept* is what the command line asks of the C library (:mod:`synthseg_slicer.allocation`); the
paper's network gains from it too, so it is measured both ways.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import in_child, measure

from synthseg_slicer import predict as prediction
from synthseg_slicer import segment
from synthseg_slicer.allocation import keep_freed_memory
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.network import build, fold_batch_norm
from synthseg_slicer.scan import write_volume
from synthseg_slicer.weights import Model, load_model
from synthseg_training.phantom import draw_phantom

KEPT = ", freed memory kept"
ROWS = (
    "paper, plain",
    "paper, plain" + KEPT,
    "paper, streamed" + KEPT,
    "bundled, everywhere",
    "bundled",
    "bundled" + KEPT,
    "segment" + KEPT,
)


def head_image(shape: tuple[int, int, int]) -> np.ndarray:
    """Return a T1-like head phantom in [0, 1], float32, resampled to fill a grid of the given shape."""
    labels, _ = draw_phantom(0, 2.0)
    tissues = np.random.default_rng(0).uniform(0.2, 1.0, labels.max() + 1).astype(np.float32)
    tissues[0] = 0.0
    image = torch.from_numpy(tissues[labels])[None, None]
    return torch.nn.functional.interpolate(image, size=shape, mode="trilinear")[0, 0].numpy()


@torch.inference_mode()
def plain(network: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    """Return the arg-max of the mean posteriors of both passes, computed on whole volumes."""
    x = torch.from_numpy(image)[None, None]
    posteriors = network(x).softmax(1)
    posteriors += network(x.flip(2)).softmax(1).flip(2)
    return posteriors.argmax(1).byte().numpy()


def child(row: str, shape: tuple[int, int, int], repeats: int) -> dict:
    """Measure one row in this process."""
    if row.endswith(KEPT):
        keep_freed_memory()
        row = row.removesuffix(KEPT)
    image = head_image(shape)
    if row.startswith("paper"):
        torch.manual_seed(0)
        network = build("paper").eval()
        model = Model(fold_batch_norm(network), BRAIN, "", {})
    else:
        model = load_model("brain")
    if row == "paper, plain":
        return measure(lambda: plain(network, image), repeats)
    if row == "bundled, everywhere":
        prediction.CERTAIN_BACKGROUND = 2.0
    if row != "segment":
        return measure(lambda: prediction.predict(model, image, device="cpu"), repeats)
    with tempfile.TemporaryDirectory() as folder:
        scan, output = Path(folder) / "scan.nii.gz", Path(folder) / "labels.nii.gz"
        write_volume(scan, image * 1000, np.eye(4))
        result = {}

        def call() -> None:
            result["stages"] = segment(scan, output, model=model, device="cpu").provenance["seconds"]

        return measure(call, repeats) | result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["160,160,160", "192,224,192"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--child", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        shape = tuple(int(n) for n in options.shapes[0].split(","))
        print(json.dumps(child(options.child, shape, options.repeats)))
        return
    print(f"torch {torch.__version__}, {options.threads} threads")
    for shape in options.shapes:
        print(f"\n{shape.replace(',', ' × ')} voxels\n")
        print("| what | seconds | MB above start | times faster than paper, plain | share of its memory |")
        print("|---|---|---|---|---|")
        reference = None
        for row in ROWS:
            arguments = ("--shapes", shape, "--threads", str(options.threads), "--repeats", str(options.repeats))
            result = in_child(__file__, "--child", row, *arguments)
            reference = reference or result
            print(
                f"| {row} | {result['seconds']:.1f} | {result['megabytes']:.0f} "
                f"| {reference['seconds'] / result['seconds']:.1f} × "
                f"| {result['megabytes'] / reference['megabytes']:.2f} |",
                flush=True,
            )
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result["stages"].items())
        print(f"\nstages of the last segment call in s: {stages}")


if __name__ == "__main__":
    main()
