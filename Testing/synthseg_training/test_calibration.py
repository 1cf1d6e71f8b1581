"""Calibration of the quality scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from synthseg_slicer.calibration import FEATURES
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.network import FastUNet, fold_batch_norm
from synthseg_slicer.weights import Model
from synthseg_training import calibration as room
from synthseg_training.calibration import SPOILED, calibrate, spoil
from synthseg_training.labelmaps import prepare
from synthseg_training.phantom import write_phantoms
from synthseg_training.training.recipe import Recipe, Stage

IDS = [2, 3, 16]


@pytest.fixture
def head():
    rng = np.random.default_rng(0)
    labels = np.zeros((20, 22, 24), int)
    labels[5:15, 5:15, 5:18] = 2
    return rng.random(labels.shape).astype(np.float32), labels


@pytest.mark.parametrize("kind", ["whole", *SPOILED])
def test_a_spoiled_scan_keeps_image_and_labels_together(head, kind):
    image, labels = head
    for seed in range(5):
        data, truth = spoil(image, labels, kind, np.random.default_rng(seed))
        assert data.shape == truth.shape and data.dtype == np.float32 and np.isfinite(data).all()
        if kind in ("cropped", "upside down", "turned"):  # each voxel keeps its label
            pairs = set(zip(image.ravel().tolist(), labels.ravel().tolist()))
            assert set(zip(data.ravel().tolist(), truth.ravel().tolist())) <= pairs
    assert (data.size < image.size) == (kind == "cropped")
    assert (truth.max() == 0) == (kind == "wrong organ")
    assert (kind == "whole") == (data.shape == image.shape and np.array_equal(data, image))


def test_the_fit_recovers_dice_that_depends_on_the_features_and_intervals_that_cover():
    rng = np.random.default_rng(1)
    n = 600
    values = rng.random((n, len(FEATURES)))
    labels = np.tile(IDS, n // 3)
    dice = 0.3 + 0.5 * values[:, 0] - 0.2 * values[:, 3] + 0.1 * (labels == 16)
    true = rng.uniform(500, 2000, n)
    volume = true * np.exp(rng.normal(0, 0.2, n) * (1.05 - dice))
    table = pd.DataFrame({"sample": np.arange(n) // 3, "kind": "whole", "label": labels, "dice": dice})
    table = table.assign(volume=volume, true=true)
    shapes = [_shape(rng) for _ in range(4)]
    model = Model(torch.nn.Identity(), BRAIN, "a", {})
    fitted = room._fit(room._blank(model, IDS, shapes, 1.0), table, values)
    by_name = dict(zip(FEATURES, fitted.coefficients))
    assert by_name["expected Dice"] == pytest.approx(0.5, abs=0.05) and by_name["place"] == pytest.approx(
        -0.2, abs=0.05
    )
    assert np.abs(room._expected(fitted, table, values) - dice).mean() < 0.01
    assert fitted.usual == pytest.approx([dice[labels == label].mean() for label in IDS])
    factor = np.exp(np.array(fitted.spread)[:3] * (1.05 - dice.reshape(-1, 3))).ravel()
    inside = (true > volume / factor) & (true < volume * factor)
    assert 0.87 < inside.mean() < 0.93


def _shape(rng):
    one = rng.random(len(IDS))
    return room.judging.Shape(one * 100, one, one, one / 10, rng.random((len(IDS), 3)), 1000, 0.0)


def test_a_model_is_calibrated_on_scans_drawn_from_label_maps(tmp_path):
    write_phantoms(tmp_path, 2, voxel_size=4.0)
    maps = prepare(tmp_path, tmp_path / "maps.npz", source="phantoms", licence="none")
    torch.manual_seed(0)
    network = FastUNet(widths=(4, 8), fine_width=4)
    torch.nn.init.normal_(network.coarse_head.weight, std=5.0)
    model = Model(fold_batch_norm(network), BRAIN, "b" * 64, {})
    recipe = Recipe("tiny", [Stage(steps=1, crop=32, voxel_size=4.0)], held_out=["phantom_02"])
    lines = []
    calibration, table = calibrate(model, recipe, maps, samples=8, crop=48, report=lines.append)
    again, _ = calibrate(model, recipe, maps, samples=8, crop=48, report=lines.append)
    assert calibration == again and lines[0] == "8 of 8 scans"
    assert calibration.weights == ["b" * 64] and calibration.ids == [
        label.id for label in BRAIN if label.id not in (0, 24)
    ]
    assert len(table) == 8 * 31 and table["expected"].between(0, 1).all()
    assert set(table["map"]) == {"phantom_01", "phantom_02"} and 0 <= calibration.facts["coverage"] <= 1
    assert calibration.facts["spoiled"] > 0 and set(table["kind"]) <= {"whole", *SPOILED}
    calibration.save(tmp_path / "q.json")
    assert type(calibration).load(tmp_path / "q.json") == calibration
    assert replace(calibration, facts={}) != calibration
