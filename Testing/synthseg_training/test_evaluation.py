"""The evaluation of scans through the path that users call."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from synthseg_slicer.errors import ScanError
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.network import FastUNet, fold_batch_norm
from synthseg_slicer.scan import Scan, write_volume
from synthseg_slicer.weights import Model
from synthseg_training.evaluation.bars import Bar, load_bars, table
from synthseg_training.evaluation.curve import PowerLaw, draw, learning_curve
from synthseg_training.evaluation.scans import Evaluation, _difference, _intracranial, evaluate
from synthseg_training.evaluation.slices import DIRECTIONS, thick_slices
from synthseg_training.training import checkpoint
from synthseg_training.training.recipe import Recipe, Stage


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


def test_weights_of_another_anatomy_have_no_intracranial_volume(scans, model, tmp_path):
    names = {label.id: label.id + 500 if label.id else 0 for label in BRAIN}
    other = [
        replace(label, id=names[label.id], name=f"Part-{label.id}", partner=names[label.partner]) for label in BRAIN
    ]
    model = replace(model, labels=tuple(other))
    evaluate(scans, model, names=["a"], device="cpu", keep=tmp_path / "kept", report=lambda line: None)
    (scans / "a_dseg.nii.gz").write_bytes((tmp_path / "kept" / "a_dseg.nii.gz").read_bytes())
    result = evaluate(scans, model, names=["a"], device="cpu", report=lambda line: None)
    assert (result.scores["dice"] == 1).all() and len(result.scores) > 1
    assert result.intracranial.empty and "intracranial" not in result.summary()
    assert "intracranial" not in result.measures()


def test_a_folder_without_scans_is_refused(tmp_path, model):
    with pytest.raises(ScanError, match=r"NAME_image\.nii\.gz"):
        evaluate(tmp_path, model)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_thick_slices_keep_the_anatomy_in_its_place(direction):
    data = np.zeros((40, 44, 48), np.float32)
    data[12:25, 14:31, 20:33] = 1
    affine = np.array([[0, 0, -1.0, 30], [-1, 0, 0, 20], [0, 1, 0, -7], [0, 0, 0, 1]])  # axes in another order
    scan = Scan(data, affine)
    thick = thick_slices(scan, direction, 5.0)

    def centre(scan):
        middle = np.average(np.indices(scan.shape).reshape(3, -1), axis=1, weights=scan.data.ravel())
        return scan.affine[:3, :3] @ middle + scan.affine[:3, 3]

    np.testing.assert_allclose(centre(thick), centre(scan), atol=0.1)
    assert sorted(thick.voxel_size) == [1, 1, 5]
    along = int(np.argmax(thick.voxel_size))
    assert abs(thick.affine[DIRECTIONS[direction], along]) == 5
    assert 0.9 < thick.data.sum() * 5 / data.sum() < 1.1


@pytest.mark.parametrize("spacing", [0.5, 100.0])
def test_slices_thinner_than_voxels_or_thicker_than_the_scan_are_refused(spacing):
    with pytest.raises(ValueError, match="cannot be cut from 12 voxels of 2 mm"):
        thick_slices(
            Scan(np.eye(12, dtype=np.float32).repeat(12).reshape(12, 12, 12), np.diag([2.0, 2, 2, 1])), "axial", spacing
        )


def test_everything_that_a_bar_asks_for_is_measured(scans, model, tmp_path):
    evaluate(scans, model, device="cpu", keep=tmp_path / "kept", report=lambda line: None)
    (scans / "a_dseg.nii.gz").write_bytes((tmp_path / "kept" / "a_dseg.nii.gz").read_bytes())
    result = evaluate(scans, model, slices=[4], rescans=[("b-t2", "b-t1w")], report=lambda line: None)
    measures = result.measures()
    assert measures["dice a"] == measures["dice"] == measures["agreement b-t2 b-t1w"] == 1
    assert measures["agreement b"] == measures["agreement b-t2 b-t1w"]
    assert measures["sd95"] == measures["sd95 a"] == 0
    assert measures["rescan b-t2 b-t1w"] == measures["rescan b-t2 b-t1w weighted"] == 0
    losses = [measures[f"slices {direction} 4"] for direction in DIRECTIONS]
    assert min(losses) > 0 and measures["slices 4"] == pytest.approx(np.mean(losses))
    assert 0 < measures["intracranial"] == measures["intracranial largest"] < 60  # untrained, against its own labels
    assert (result.scores["reference_mm3"] > 0).all()
    summary = result.summary()
    for part in ("| **a\\*** |", "slices of 4 mm", "Volumes of b-t2 and b-t1w", "intracranial volume", "| **b** |"):
        assert part in summary
    result.save(tmp_path / "tables")
    assert len(pd.read_csv(tmp_path / "tables" / "slices.csv")) == 3 * len(result.scores)


def test_scans_that_were_asked_for_and_are_not_there_are_named_before_any_work(scans, model):
    for wrong in ({"rescans": [("a", "c")]}, {"names": ["a", "c"]}, {"slices_names": ["c"]}):
        with pytest.raises(ScanError, match="no scan named c"):
            evaluate(scans, model, **wrong)
    with pytest.raises(ScanError, match=r"no reference \(b-t2\)"):
        evaluate(scans, model, slices_names=["b-t2"])


def test_means_are_over_scans_of_a_group_and_rescans_are_weighted_by_volume():
    compared = {"label": [2, 3] * 3, "structure": ["x", "y"] * 3}
    scores = pd.DataFrame({"scan": [n for n in ("fs01", "fs02", "nm1") for _ in "xy"], **compared})
    scores = scores.assign(
        dice=[0.8, 0.6, 1, 1, 0.5, 0], sd95_mm=[1, 2, 0, 0, 3, np.nan], volume_mm3=1, reference_mm3=1
    )
    rescans = pd.DataFrame({"first": "a", "second": "b", "label": [2, 3], "structure": ["x", "y"]})
    rescans = rescans.assign(first_mm3=[90.0, 900], second_mm3=[110.0, 900], difference_percent=[20.0, 0])
    empty = pd.DataFrame(columns=["scan", "reference", "dice", "dice_thin", "direction", "spacing_mm", "label"])
    result = Evaluation(scores, empty, empty, rescans, empty, {"weights": {"general": "0" * 64}, "settings": "fast"})
    measures = result.measures()
    assert measures["dice fs"] == pytest.approx(0.85) and measures["dice nm"] == pytest.approx(0.25)
    assert measures["dice"] == pytest.approx((0.7 + 1 + 0.25) / 3)
    assert measures["sd95 fs"] == pytest.approx(0.75) and measures["sd95 nm"] == 3
    assert measures["rescan a b"] == 10 and measures["rescan a b weighted"] == pytest.approx(2)
    assert "intracranial" not in measures
    assert "| nm1 | 0.250 | 3.000 | 1.000 |" in result.summary()  # one structure missed, of which SD95 knows nothing


def test_intracranial_volume_leaves_csf_out_where_the_reference_hardly_has_any():
    data = np.zeros((20, 20, 20), np.uint8)
    data[:10] = 2
    data[10, 0] = 24
    rows = _intracranial({2: 7000.0, 24: 900.0}, Scan(data, np.diag([2.0, 1, 1, 1])))
    assert rows == {
        "csf": "without",
        "volume_mm3": 7000.0,
        "reference_mm3": 8000.0,
        "error_percent": pytest.approx(-12.5),
    }
    data[10:15] = 24
    rows = _intracranial({2: 7000.0, 24: 2000.0}, Scan(data, np.diag([2.0, 1, 1, 1])))
    assert rows["csf"] == "with" and rows["volume_mm3"] == 9000 and rows["reference_mm3"] == 12000
    assert rows["error_percent"] == pytest.approx(-25)


def test_volume_differences_are_relative_to_the_mean():
    assert _difference(90.0, 110.0) == pytest.approx(20)
    assert np.isnan(_difference(0.0, 0.0))


def test_bars_are_read_and_judged(tmp_path):
    path = tmp_path / "bars.yaml"
    path.write_text("- {measure: dice fs, at_least: 0.85}\n- {measure: sd95, at_most: 2}\n- {measure: x, at_most: 1}\n")
    text = table(load_bars(path), {"dice fs": 0.86, "sd95": 2.5})
    assert "| dice fs | ≥ 0.85 | 0.860 | yes |" in text
    assert "| sd95 | ≤ 2 | 2.500 | no |" in text
    assert "| x | ≤ 1 | – | not measured |" in text
    with pytest.raises(ValueError, match="either at_least or at_most"):
        Bar("dice")
    path.write_text("- {measure: dice, atleast: 1}\n")
    with pytest.raises(ValueError, match="is no list of bars"):
        load_bars(path)


def test_a_power_law_is_recovered_and_extrapolated():
    steps = np.array([1000, 2000, 4000, 8000, 16000, 32000])
    for floor in (0.0, 0.1):
        true = lambda x, floor=floor: 1 - floor - 3 * x**-0.3  # noqa: E731
        law = PowerLaw.fit(steps, true(steps))
        assert law.floor == pytest.approx(floor, abs=1e-3) and law.rate == pytest.approx(0.3, abs=1e-3)
        middle, low, high = law.predict(320_000)
        assert middle == pytest.approx(true(320_000), abs=1e-3) and high - low < 1e-2


def test_a_floor_that_few_noisy_snapshots_cannot_tell_widens_the_prediction_downwards_only():
    steps = np.array([1000, 2000, 4000, 8000, 16000])
    law = PowerLaw.fit(steps, 1 - 3 * steps**-0.3 * np.array([1.02, 0.99, 1.01, 0.97, 1.01]))
    middle, low, high = law.predict(160_000)
    assert law.floor == 0 and "0.000 +" not in str(law)
    assert low < 1 - 3 * 160_000**-0.3 < high and middle - low > high - middle
    with pytest.raises(ValueError, match="at least 5"):
        PowerLaw.fit(steps[:4], [0.1, 0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match="below 1"):
        PowerLaw.fit(steps, [0.1, 0.2, 0.3, 0.4, 1.0])


def test_snapshots_become_a_curve(scans, model, tmp_path):
    recipe = Recipe(
        "tiny", [Stage(steps=1, crop=16)], network={"architecture": "fast", "widths": [4, 8], "fine_width": 4}
    )
    evaluate(scans, model, names=["a"], keep=tmp_path / "kept", report=lambda line: None)
    (scans / "a_dseg.nii.gz").write_bytes((tmp_path / "kept" / "a_dseg.nii.gz").read_bytes())
    paths = []
    for step in (20, 10):
        torch.manual_seed(step)
        paths.append(tmp_path / f"weights-{step}.pt")
        checkpoint.save(paths[-1], {"state": FastUNet(widths=(4, 8), fine_width=4).state_dict(), "step": step})
    with pytest.warns(UserWarning, match="Nothing was segmented"):  # the networks are random
        curve = learning_curve(scans, paths, recipe=recipe, names=["a"], fast=True, report=lambda line: None)
    assert list(curve["steps"]) == [10, 20] and set(curve["scan"]) == {"a"}
    assert draw(curve, tmp_path / "few.png").startswith("Fewer than 5")
    with pytest.raises(ValueError, match="both of step 10"), pytest.warns(UserWarning, match="Nothing"):
        learning_curve(scans, [paths[1], paths[1]], recipe=recipe, names=["a"], report=lambda line: None)
    with pytest.raises(ValueError, match="does not fit the network"):
        learning_curve(scans, paths, names=["a"])


def test_a_curve_of_enough_snapshots_is_drawn_with_its_prediction(tmp_path):
    steps = np.array([100, 200, 400, 800, 1600])
    curve = pd.DataFrame({"steps": [*steps, *steps], "scan": ["a"] * 5 + ["b"] * 5})
    curve["dice"] = np.tile(1 - steps**-0.25, 2)
    text = draw(curve, tmp_path / "curve.png")
    assert f"Dice {1 - 16000**-0.25:.3f} (95 %" in text and "after 16,000 steps" in text
    assert (tmp_path / "curve.png").stat().st_size > 5000
