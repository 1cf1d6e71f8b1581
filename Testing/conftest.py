"""Fixtures that more than one test file uses: tiny untrained networks, a trivial trained-like model, and scans."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from synthetic import TINY, Threshold, ball, random_network

from synthseg_slicer.labels import BRAIN
from synthseg_slicer.network import fold_batch_norm
from synthseg_slicer.weights import Model, save_model


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
def scan_file(tmp_path: Path) -> Path:
    """A small NIfTI scan, 1 mm, LAS order, in a folder of its own."""
    folder = tmp_path / "scans"
    folder.mkdir()
    affine = np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] = (15, -20, 7)
    path = folder / "ball.nii.gz"
    nib.Nifti1Image(ball(), affine).to_filename(path)
    return path
