"""Noise of volumes from scan to scan: simulated visits, and what is made of the differences."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from synthseg_slicer import registration
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.rescan import RescanNoise
from synthseg_slicer.scan import Scan
from synthseg_slicer.weights import Model, load_model
from synthseg_training import rescan
from synthseg_training.cli import main
from synthseg_training.rescan import COLUMNS, REAL, SIMULATED, TOTAL, Visit, fit, measure, retake

RADII = np.array([42.0, 52, 39])
STILL = Visit(0, 0, 0, 0, 0, 0)


@pytest.fixture(scope="module")
def head() -> Scan:
    """An egg of two grey values in exact black, 2.5 mm, axes not in RAS+ order."""
    affine = np.array([[0, 0, -2.5, 60], [2.5, 0, 0, -70], [0, 2.5, 0, 12.0], [0, 0, 0, 1]])
    index = np.stack(np.meshgrid(*map(np.arange, (56, 44, 48)), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3] - (1, -1, 66)
    inside = np.linalg.norm(world / RADII, axis=-1) < 1
    data = inside * (100 + 40 * (world[..., 0] > 10))
    return Scan(data.astype(np.float32), affine, name="egg")


def volume(scan: Scan) -> float:
    return np.count_nonzero(scan.data > 50) * scan.voxel_volume


def centre(scan: Scan) -> np.ndarray:
    return (scan.affine @ [*np.argwhere(scan.data > 50).mean(0), 1])[:3]


def test_a_visit_without_any_difference_shows_the_same_scan(head):
    again = retake(head, np.random.default_rng(0), STILL)
    assert volume(again) == pytest.approx(volume(head), rel=1e-3)
    assert centre(again) == pytest.approx(centre(head), abs=0.05)
    np.testing.assert_allclose(again.affine[:3, :3], head.affine[:3, :3])
    shift = np.linalg.inv(head.affine) @ again.affine
    assert shift[:3, 3] == pytest.approx(np.rint(shift[:3, 3]), abs=1e-9)
    first = np.rint(shift[:3, 3]).astype(int)
    low, high = np.maximum(first, 0), np.minimum(first + again.shape, head.shape)
    here = head.data[tuple(slice(a, b) for a, b in zip(low, high))]
    there = again.data[tuple(slice(a, b) for a, b in zip(low - first, high - first))]
    np.testing.assert_allclose(there, here, atol=0.5)


def test_visits_differ_in_all_that_they_may_but_not_in_the_head(head):
    rng = np.random.default_rng(3)
    one, other = retake(head, rng), retake(head, rng)
    for again in (one, other):
        assert volume(again) == pytest.approx(volume(head), rel=0.02)
        assert 0 < np.linalg.norm(centre(again) - centre(head)) <= np.sqrt(3) * 5 + 0.5
        axes = again.affine[:3, :3] / again.voxel_size
        np.testing.assert_allclose(axes, head.affine[:3, :3] / head.voxel_size, atol=1e-12)  # the header knows no pose
        assert 0.92 <= again.voxel_size[0] / head.voxel_size[0] <= 1.08
        assert again.data[0].max() < 1  # a stripped scan's surroundings stay without noise
    assert one.voxel_size != other.voxel_size and np.linalg.norm(centre(one) - centre(other)) > 0.5
    again = retake(head, np.random.default_rng(3))
    assert np.array_equal(again.data, one.data) and np.array_equal(again.affine, one.affine)


def test_noise_is_added_as_strong_as_the_scans_own():
    rng = np.random.default_rng(0)
    data = np.zeros((60, 64, 58))
    data[8:-8, 8:-8, 8:-8] = rng.normal(100, 4, (44, 48, 42))
    noisy = Scan(data.astype(np.float32), np.eye(4))
    quiet, loud = (retake(noisy, np.random.default_rng(1), Visit(0, 0, 0, 0, 0, noise)) for noise in (0.0, 1.0))
    added = (loud.data - quiet.data)[25:-25, 25:-25, 25:-25]
    assert np.std(added) == pytest.approx(4, rel=0.1)


@pytest.fixture
def model() -> Model:
    return Model(None, BRAIN, "abc", {})


def pairs_table(model, heads=40, deviation=1.0, real=0, added=0.0, family="t1") -> pd.DataFrame:
    """Return a table of normal differences; white matter is as noisy as ``deviation`` says, all else twice."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(heads + real):
        kind = SIMULATED if number < heads else REAL
        for label in [*model.ids[1:], TOTAL]:
            own = deviation * (1 if label in (2, 41) else 2)
            spread = np.sqrt(2) * np.hypot(own, added if kind == REAL else 0)
            rows.append((f"head {number}", kind, family, label, "x", 1.0, 1.0, rng.normal(0, spread)))
    return pd.DataFrame(rows, columns=COLUMNS)


def errors(noise: RescanNoise) -> dict:
    return dict(zip(noise.ids, noise.deviations))


def test_errors_of_measurement_are_recovered_and_both_sides_share_them(model):
    noise = fit(pairs_table(model, 150), model, 1.0, {"seed": 0})
    found = errors(noise)
    assert found[2] == found[41] == pytest.approx(1, rel=0.12)
    assert found[17] == found[53] == pytest.approx(2, rel=0.12) and found[None] == pytest.approx(2, rel=0.15)
    assert (noise.weights, noise.families, noise.coarsest, noise.facts["seed"]) == (["abc"], ["t1"], 1.0, 0)
    assert noise.facts["pairs"] == {"simulated": 150, "real": 0} and noise.facts["added_by_real_visits_percent"] == 0
    assert noise.facts["simulated_beyond_thresholds_of_other_heads"] == pytest.approx(0.05, abs=0.01)
    assert noise.facts["real_beyond_thresholds"] is None


def test_what_real_visits_add_is_added_to_all_structures(model):
    alone = errors(fit(pairs_table(model), model, 1.0, {}))
    noise = fit(pairs_table(model, real=6, added=3.0), model, 1.0, {})
    added = noise.facts["added_by_real_visits_percent"]
    assert added == pytest.approx(3, rel=0.15)
    for label, found in errors(noise).items():
        assert found == pytest.approx(np.hypot(alone[label], added))
    assert noise.facts["pairs"] == {"simulated": 40, "real": 6}
    assert noise.facts["real_beyond_thresholds_of_simulated"] > 0.2
    assert noise.facts["real_beyond_thresholds"] == pytest.approx(0.05, abs=0.03)
    calm = fit(pairs_table(model, real=6, added=0.0), model, 1.0, {})
    assert calm.facts["added_by_real_visits_percent"] < 0.8
    assert calm.facts["real_beyond_thresholds_of_simulated"] < 0.1


def test_contrasts_are_taken_together_and_a_missing_structure_is_as_noisy_as_any(model):
    other = pairs_table(model, 40, deviation=3.0, family="any")
    table = pd.concat([pairs_table(model, 40), other])
    noise = fit(table[~table["label"].isin([17, 53])], model, 1.0, {})
    found = errors(noise)
    assert noise.families == ["any", "t1"]
    assert found[2] == pytest.approx(np.sqrt((1 + 9) / 2), rel=0.15)
    assert found[17] == found[53] == max(found.values())


def test_only_real_pairs_do_not_suffice(model):
    with pytest.raises(ValueError, match="no simulated pair"):
        fit(pairs_table(model, 0, real=2), model, 1.0, {})


def test_pairs_are_segmented_and_compared(head, threshold_model, monkeypatch):
    monkeypatch.setattr(registration, "register", lambda moving, fixed: np.eye(4))  # volumes bear to lie askew
    model = Model(threshold_model.network, BRAIN, "", {"voxel_size": 2.5})
    lines = []
    table = measure(model, [head], [(head, head)], report=lines.append)
    assert list(table["kind"].unique()) == [SIMULATED, REAL] and list(table.columns) == COLUMNS
    stem = table[table["label"] == 16].set_index("kind")
    assert 0 < abs(stem.loc[SIMULATED, "difference_percent"]) < 3
    assert stem.loc[REAL, "difference_percent"] == 0  # twice the same scan
    assert stem["first_mm3"].to_numpy() == pytest.approx(4 / 3 * np.pi * RADII.prod(), rel=0.07)
    assert len(lines) == 2 and lines[0].startswith("simulated egg (any): root mean square difference")
    assert errors(fit(table, model, 2.5, {}))[16] > 0


def test_command_writes_the_noise_beside_the_weights(tiny_weights, tmp_path, monkeypatch, capsys):
    for name in ("a", "b", "c"):
        data = np.random.default_rng(0).random((20, 20, 20), np.float32)
        nib.Nifti1Image(data, np.diag([1, 1, 1.2, 1])).to_filename(tmp_path / f"{name}_image.nii.gz")
    asked = {}

    def measured(model, scans, pairs, **_):
        asked.update(scans=[scan.name for scan in scans], pairs=[tuple(scan.name for scan in pair) for pair in pairs])
        return pairs_table(model, 4, real=1)

    monkeypatch.setattr(rescan, "measure", measured)
    command = ["rescan", str(tmp_path), "--rescan", "a", "b", "--model", str(tiny_weights)]
    assert main([*command, "--table", str(tmp_path / "t.csv")]) == 0
    assert asked == {"scans": ["c"], "pairs": [("a", "b")]}
    noise = load_model(path=tiny_weights).rescan
    assert isinstance(noise, RescanNoise) and noise.coarsest == pytest.approx(1.2)
    assert noise.facts["scans"] == ["c"] and noise.facts["real"] == [["a", "b"]] and "rescan" in noise.facts["command"]
    assert len(pd.read_csv(tmp_path / "t.csv")) == 5 * 33
    assert main([*command, "--names", "c", "c", "-o", str(tmp_path / "x.json")]) == 0
    assert asked["scans"] == ["c", "c"] and (tmp_path / "x.json").exists()
    assert main(["rescan", str(tmp_path), "--names", "missing", "--model", str(tiny_weights)]) == 2
    assert "missing_image.nii.gz" in capsys.readouterr().err
