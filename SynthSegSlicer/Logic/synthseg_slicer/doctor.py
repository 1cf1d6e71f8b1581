"""What is installed and how fast this machine is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch

from . import __version__
from .cards import MODEL_FOLDERS, bundled_models
from .errors import WeightsError
from .labels import BRAIN
from .network import build, fold_batch_norm, parameter_count
from .predict import predict
from .weights import Model, load_model

REQUIRED = ("torch", "numpy", "SimpleITK", "nibabel")
OPTIONAL = ("nilearn", "dask", "slicer-core")
PROBE = (96, 112, 96)
"""Voxels of the image that is timed."""
TYPICAL = (160, 208, 176)
"""Voxels of a head at 1 mm once empty margins are cropped."""


def examine() -> Iterator[str]:
    """Yield the report line by line; the last lines take a few seconds."""
    yield f"synthseg-slicer {__version__}, Python {platform.python_version()}, {platform.platform()}"
    for name in REQUIRED + OPTIONAL:
        try:
            yield f"  {name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"  {name}: not installed" + (" (optional)" if name in OPTIONAL else " — required")
    vectors = torch.backends.cpu.get_cpu_capability()
    yield f"CPU: {os.cpu_count()} cores, {torch.get_num_threads()} threads used, vector units {vectors}"
    yield f"Memory: {_memory()}"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield f"GPU cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.1f} GiB"
    if torch.backends.mps.is_available():
        yield "GPU mps: available; used only when asked for with --device mps"
    yield f"Models in {' or '.join(str(folder) for folder in MODEL_FOLDERS)}:"
    models = bundled_models()
    if not models:
        yield "  none — this installation is incomplete; only --model FILE.pt will work"
    model = None
    for task in models:
        try:
            model = load_model(task)
            version, millions = model.card.get("version", "unknown"), parameter_count(model.network) / 1e6
            yield f"  {task}: version {version}, {millions:.1f} M parameters, {len(model.ids)} labels, undamaged"
            yield f"    SHA-256 {model.sha256}"
        except WeightsError as error:
            yield f"  {task}: {error}"
    if model is None:
        model = Model(fold_batch_norm(build("fast")), BRAIN, "", {})
    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    for device in devices:
        seconds = probe(model, device)
        predicted = seconds * np.prod(TYPICAL) / np.prod(PROBE)
        yield (
            f"Speed on {device}: {' x '.join(map(str, PROBE))} voxels in {seconds:.2f} s with both passes; "
            f"a typical head should take about {max(predicted, 0.1):.1f} s plus reading and writing"
        )


def probe(model: Model, device: str) -> float:
    """Return the seconds that :func:`predict` takes for a small image of noise, the better of two."""
    image = np.random.default_rng(0).random(PROBE, dtype=np.float32)
    times = []
    for _ in range(2):
        begin = time.perf_counter()
        predict(model, image, device=device)
        times.append(time.perf_counter() - begin)
    return min(times)


def _memory() -> str:
    try:
        pages = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
        total, free = (count * os.sysconf("SC_PAGE_SIZE") / 2**30 for count in pages)
        return f"{total:.1f} GiB, {free:.1f} GiB free"
    except (ValueError, AttributeError, OSError):
        return f"unknown on {sys.platform}"
