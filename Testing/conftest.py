"""Fixtures that more than one test file uses: tiny untrained networks, a trivial trained-like model, and scans."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from synthetic import TINY, Threshold, ball, random_network

from synthseg_slicer.labels import BRAIN, LESION_ID, STROKE
from synthseg_slicer.network import fold_batch_norm
from synthseg_slicer.weights import Model, save_model


def _register(name: str) -> None:
    """Make a package beside this file importable; Testing itself must stay off sys.path (see pyproject.toml)."""
    folder = Path(__file__).parent / name
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


_register("slicer_host")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def random_model() -> Model:
    """A tiny FastUNet with random weights."""
    return Model(fold_batch_norm(random_network()), BRAIN, "", {})


@pytest.fixture
def threshold_model() -> Model:
    """A model that labels everything brighter than 0.5 as brain stem (id 16)."""
    return Model(Threshold(), BRAIN, "", {})


@pytest.fixture
def tiny_weights(tmp_path: Path) -> Path:
    """Weights of a tiny random FastUNet, in a folder of their own."""
    folder = tmp_path / "weights"
    folder.mkdir()
    network = random_network()
    return save_model(folder / "tiny.pt", network, {"architecture": "fast", "options": TINY, "version": "0.0.1"})


@pytest.fixture
def stroke_weights(tmp_path: Path) -> Path:
    """Weights of a tiny random network of the stroke task, inclined to see lesions and sure of them, in a folder."""
    folder = tmp_path / "stroke-weights"
    folder.mkdir()
    options = {"n_labels": len(STROKE), **TINY}
    network = random_network("fast", **options)
    with torch.no_grad():
        network.fine_head.bias[[label.id for label in STROKE].index(LESION_ID)] += 2
        network.fine_head.weight *= 8
        network.fine_head.bias *= 8
    card = {"architecture": "fast", "options": options, "labels": STROKE, "version": "0.0.1"}
    return save_model(folder / "stroke.pt", network, card)


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    """A small NIfTI scan, 1 mm, LAS order, in a folder of its own."""
    folder = tmp_path / "scans"
    folder.mkdir()
    affine = np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] = (15, -20, 7)
    path = folder / "ball.nii.gz"
    nib.Nifti1Image(ball(), affine).to_filename(path)
    return path


@pytest.fixture(scope="session")
def slicer_application(tmp_path_factory: pytest.TempPathFactory):
    """The one Slicer host of the test run."""
    import slicer_host

    if slicer_host.missing_packages():
        pytest.skip(f"the Slicer host needs {' and '.join(slicer_host.missing_packages())}")
    try:
        return slicer_host.start(folder=tmp_path_factory.mktemp("slicer"))
    except ImportError as error:  # Qt's own libraries come from the system
        pytest.skip(f"Qt does not start here ({error}); on Debian: apt install {slicer_host.SYSTEM_PACKAGES}")


@pytest.fixture
def host(slicer_application) -> Iterator:
    """The Slicer host with an empty scene; fails the test if a slot or observer raised and the test did not take it."""
    slicer_application.reset()
    yield slicer_application
    errors = slicer_application.take_slot_errors()
    slicer_application.reset()
    assert not errors, f"exceptions in slots or observers: {errors}"
