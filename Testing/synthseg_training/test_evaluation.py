"""Metrics against brute force, and the evaluation of scans through the path that users call."""

import numpy as np
import pandas as pd
import pytest
import torch

from synthseg_slicer.errors import ScanError
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.network import FastUNet, fold_batch_norm
from synthseg_slicer.scan import write_volume
from synthseg_slicer.weights import Model
from synthseg_training.evaluation.metrics import dice, surface_distance_95, to_grid
from synthseg_training.evaluation.scans import evaluate


def brute_force_sd95(a, b, voxel_size):
    def surface(mask):
        points = []
        for index in np.argwhere(mask):
            neighbours = [index + step * np.eye(3, dtype=int)[axis] for axis in range(3) for step in (-1, 1)]
            inside = [np.all(n >= 0) and np.all(n < mask.shape) and mask[tuple(n)] for n in neighbours]
            if not all(inside):
                points.append(index * voxel_size)
        return np.array(points)

    p, q = surface(a), surface(b)
    distances = np.linalg.norm(p[:, None] - q[None], axis=-1)
    return np.percentile(np.concatenate([distances.min(1), distances.min(0)]), 95)


@pytest.fixture
def two_blobs():
    rng = np.random.default_rng(0)
    blobs = rng.random((2, 9, 8, 7)) > 0.6
    blobs[0, 0] = True  # touches the border
    return blobs


def test_surface_distance_equals_brute_force_on_anisotropic_voxels(two_blobs):
    voxel_size = np.array([1.0, 0.5, 3.0])
    expected = brute_force_sd95(*two_blobs, voxel_size)
    assert surface_distance_95(*two_blobs, tuple(voxel_size)) == pytest.approx(expected)


def test_dice_and_distance_of_empty_structures_are_no_numbers(two_blobs):
    empty = np.zeros_like(two_blobs[0])
    assert dice(two_blobs[0], two_blobs[0]) == 1
    assert dice(two_blobs[0], empty) == 0
    assert np.isnan(dice(empty, empty))
    assert np.isnan(surface_distance_95(two_blobs[0], empty, (1, 1, 1)))


def test_labels_reach_another_grid_by_nearest_neighbour():
    labels = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[0, 3] = 1
    np.testing.assert_array_equal(to_grid(labels, np.eye(4), labels.shape, flipped), labels[::-1])
    shifted = np.eye(4)
    shifted[2, 3] = 2.2
    expected = np.zeros_like(labels)
    expected[:, :, :2] = labels[:, :, 2:]
    np.testing.assert_array_equal(to_grid(labels, np.eye(4), labels.shape, shifted), expected)


@pytest.fixture
def model():
    """A network that nobody trained, but that labels something."""
    torch.manual_seed(3)
    network = FastUNet(widths=(4, 8), fine_width=4)
    torch.nn.init.normal_(network.coarse_head.weight, std=5.0)
    return Model(fold_batch_norm(network), BRAIN, "0" * 64, {"architecture": "fast"})


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.default_rng(1)
    image = rng.random((40, 44, 48)).astype(np.float32)
    for name in ("a", "b-t2", "b-t1w"):
        write_volume(folder / f"{name}_image.nii.gz", image, np.eye(4))
    return folder


def test_own_segmentation_as_reference_scores_one_and_same_images_agree(scans, model, tmp_path):
    lines = []
    first = evaluate(scans, model, device="cpu", keep=tmp_path / "kept", report=lines.append)
    assert first.scores.empty
    (scans / "a_dseg.nii.gz").write_bytes((tmp_path / "kept" / "a_dseg.nii.gz").read_bytes())
    second = evaluate(scans, model, device="cpu", report=lines.append)
    assert (second.scores["dice"] == 1).all() and (second.scores["sd95_mm"] == 0).all()
    assert set(second.scores["label"]).isdisjoint({0, 24})
    assert set(second.agreement["scan"]) == {"b-t2"} and set(second.agreement["reference"]) == {"b-t1w"}
    assert (second.agreement["dice"] == 1).all()
    assert any(line.startswith("a: Dice 1.000") for line in lines)
    second.save(tmp_path / "tables")
    assert "| a | 1.000 |" in (tmp_path / "tables" / "summary.md").read_text()
    assert len(pd.read_csv(tmp_path / "tables" / "scores.csv")) == len(second.scores)


def test_a_folder_without_scans_is_refused(tmp_path, model):
    with pytest.raises(ScanError, match=r"NAME_image\.nii\.gz"):
        evaluate(tmp_path, model)
