"""The estimator of quantitative maps: network, simulator, losses, training, use; and training samples of map sets."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from synthseg_slicer.errors import OptionError, ScanError, WeightsError
from synthseg_slicer.scan import Scan, write_volume
from synthseg_training.cli import main
from synthseg_training.estimation import (
    EstimatorRecipe,
    EstimatorUNet,
    GibbsRinging,
    MprageConfig,
    MprageSimulator,
    fit_estimator,
    load_estimator_recipe,
)
from synthseg_training.estimation.losses import (
    FeatureDistance,
    brain_features,
    first_phase_loss,
    random_features,
    scaled,
    second_phase_loss,
)
from synthseg_training.estimation.measure import compare, measure
from synthseg_training.estimation.network import MAPS, TYPICAL, quantities
from synthseg_training.estimation.predict import Estimator, estimate, load_estimator, map_name, window_maps
from synthseg_training.generation import Resolution, Spatial
from synthseg_training.generation.edits import Flip
from synthseg_training.labelmaps import prepare
from synthseg_training.losses import UNKNOWN_HEALTHY
from synthseg_training.phantom import write_phantoms
from synthseg_training.physics import MPRAGE, QuantitativeMaps, RicianNoise, at_field, load_maps, save_maps
from synthseg_training.stroke import MapsGenerator, StrokeConfig
from synthseg_training.stroke.tissue import Texture
from synthseg_training.training.loop import real_data
from synthseg_training.training.recipe import DataFolder, Recipe, Stage

RECIPES = Path(__file__).parents[2] / "SynthSegTraining" / "recipes"
NETWORK = {"widths": [4, 8, 8], "units": 1, "dropout": 0.0}
CONFIG = MprageConfig(crop=32, voxel_size=4.0)
CLEAN = {
    "gain": replace(CONFIG.gain, probability=0),
    "noise": RicianNoise(probability=0),
    "resolution": Resolution(probability=0),
    "spatial": Spatial(probability=0),
    "flip": Flip(probability=0),
}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 2, voxel_size=4.0)
    return prepare(folder, folder / "maps.npz")


@pytest.fixture
def recipe():
    return EstimatorRecipe("tiny", steps=(3, 3), network=NETWORK, generator=CONFIG, perceptual="random", rate=3e-3)


@pytest.fixture
def estimator():
    torch.manual_seed(0)
    return Estimator(EstimatorUNet(**NETWORK).eval(), 16, 2.0)


@pytest.fixture
def map_folder(tmp_path):
    """Maps of a ball, R1 rising along x, with a lesion on a finer grid."""
    axes = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in (24, 28, 20)), indexing="ij")
    ball = (sum(axis**2 for axis in axes) < 9**2).float()
    values = (80, 0.8, 12, 18, 1.0)
    maps = QuantitativeMaps(*(ball * value for value in values))
    maps = replace(maps, r1=maps.r1 + ball * axes[0] * 0.02)
    folder = tmp_path / "sets"
    folder.mkdir()
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    save_maps(maps, folder, "sub-1", affine)
    mask = np.zeros((48, 56, 40), np.uint8)
    mask[30:36, 24:32, 16:24] = 3
    fine = np.diag([2.0, 2.0, 2.0, 1.0])
    fine[:3, 3] = -1.0  # so that the outer faces of both grids agree
    write_volume(folder / "sub-1_dseg.nii.gz", mask, fine)
    return folder


# -- network -----------------------------------------------------------------------------------------------------------


def test_outputs_are_exponentials_and_eq_1():
    f = torch.tensor([math.log(70), math.log(0.9), math.log(20), -4.0]).reshape(1, 4, 1, 1, 1)
    pd, r1, r2s, mt = quantities(f).flatten().tolist()
    assert (pd, r1, r2s) == pytest.approx((70, 0.9, 20), rel=1e-6)
    assert mt == pytest.approx(100 / (1 + math.exp(4)), rel=1e-6)


def test_maps_are_positive_finite_and_begin_at_typical_values():
    torch.manual_seed(0)
    maps = EstimatorUNet(**NETWORK)(torch.randn(2, 1, 16, 16, 16) * 5)
    assert maps.shape == (2, 4, 16, 16, 16) and maps.min() > 0 and maps[:, 3].max() < 100
    assert maps.mean((0, 2, 3, 4)).tolist() == pytest.approx(TYPICAL, rel=0.1)
    assert quantities(torch.full((1, 4, 1, 1, 1), 1e4)).isfinite().all()


def test_the_paper_recipe_is_the_paper():
    recipe = load_estimator_recipe(RECIPES / "qatlas-estimator.yaml")
    assert recipe.steps == (20_000, 180_000) and recipe.generator.crop == 192 and recipe.batch == 1
    assert (recipe.rate, recipe.betas, recipe.weight_decay) == (1e-4, (0.9, 0.999), 0.01)
    assert recipe.final_rate is None and recipe.clip is None
    network = EstimatorUNet(**recipe.network)
    assert network.options == {"widths": [24, 48, 96, 192, 384], "units": 2, "dropout": 0.1}
    assert [len(level) for level in network.encoder] == [2] * 5
    field = recipe.generator.field_strength
    assert (field.low, field.high) == (0.3, 7.0)
    assert load_estimator_recipe(RECIPES / "qatlas-estimator-small.yaml").generator.crop == 64


def test_the_scale_of_the_scan_does_not_matter(estimator):
    image = torch.rand(1, 1, 16, 16, 16)
    torch.testing.assert_close(estimator.network(image), estimator.network(3 * image), rtol=1e-3, atol=1e-3)


# -- simulation --------------------------------------------------------------------------------------------------------


def test_truncating_k_space_rings_but_keeps_the_mean_and_what_is_smooth():
    signal = torch.zeros(24, 20, 22)
    signal[8:16, 6:13, 7:16] = 100
    rung = GibbsRinging().apply(signal, (0.6, 0.7, 0.8))
    assert rung.mean().item() == pytest.approx(signal.mean().item(), rel=1e-5)
    assert rung.max() > 104 and rung.min() < -4
    flat = torch.full((8, 8, 8), 3.0)
    torch.testing.assert_close(GibbsRinging().apply(flat, (0.5, 0.5, 0.5)), flat)
    assert torch.equal(GibbsRinging().apply(signal, (1.0, 1.0, 1.0)), signal)


def test_opposite_faces_do_not_ring_into_each_other():
    ramp = torch.linspace(0, 1, 32).expand(4, 4, 32).contiguous()
    rung = GibbsRinging().apply(ramp, (1.0, 1.0, 0.6))
    assert (rung - ramp).abs().max() < 0.02


def test_scans_are_mprage_of_the_target_at_the_field_strength_drawn(phantoms):
    simulator = MprageSimulator(phantoms, replace(CONFIG, gibbs=GibbsRinging(probability=0), **CLEAN))
    rng = torch.Generator().manual_seed(1)
    fields = []
    for _ in range(5):
        parameters = simulator.draw(rng)
        image, target = simulator.apply(parameters)
        assert isinstance(parameters.head.sequence, MPRAGE)
        at_3t = simulator.generator.quantitative(parameters.head)
        here = at_field(at_3t, parameters.head.field_strength)
        torch.testing.assert_close(target, torch.stack([here.pd, here.r1, here.r2s, here.mt]))
        signal, head = parameters.head.sequence.signal(here), target[0] > 5
        assert torch.corrcoef(torch.stack([signal[head], image[0][head]]))[0, 1] > 0.95  # but for clipped fat
        fields.append(parameters.head.field_strength)
    assert 0.3 <= min(fields) < 2 and 5 < max(fields) <= 7


def test_samples_replay_from_their_parameters(phantoms):
    simulator = MprageSimulator(phantoms, CONFIG)
    parameters = simulator.draw(torch.Generator().manual_seed(3))
    for a, b in zip(simulator.apply(parameters), simulator.apply(parameters)):
        assert torch.equal(a, b)


def test_measured_maps_are_a_source_too(map_folder):
    image, target = MprageSimulator(map_folder, CONFIG).sample(torch.Generator().manual_seed(0))
    assert image.shape == (1, 32, 32, 32) and target.shape == (4, 32, 32, 32)
    assert 75 < target[0].max() < 81


def test_impossible_settings_of_the_simulator_are_refused():
    with pytest.raises(OptionError, match="physics"):
        MprageConfig(appearance="random")
    with pytest.raises(OptionError, match="k-space"):
        GibbsRinging(kept=(0.0, 1.0))


# -- losses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [first_phase_loss, lambda a, b: second_phase_loss(a, b, random_features())])
def test_the_loss_is_zero_at_the_truth_and_grows_with_the_error(loss):
    truth = torch.rand(1, 4, 16, 16, 16) * torch.tensor(TYPICAL).view(4, 1, 1, 1)
    near, far = truth * 1.05, truth * 1.3
    assert loss(truth, truth).item() == 0 < loss(near, truth).item() < loss(far, truth).item()


def test_no_unit_dominates():
    truth = torch.tensor(TYPICAL).view(1, 4, 1, 1, 1).expand(1, 4, 8, 8, 8)
    losses = []
    for channel in range(4):
        wrong = truth.clone()
        wrong[:, channel] *= 1.1
        losses.append(first_phase_loss(wrong, truth).item())
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-4)


def test_the_second_phase_minds_edges():
    truth = torch.zeros(1, 4, 16, 16, 16)
    truth[..., 8:] = torch.tensor(TYPICAL).view(4, 1, 1, 1)
    shifted, noisy = truth + 0.1 * torch.tensor(TYPICAL).view(4, 1, 1, 1), truth.clone()
    checkers = torch.arange(16).view(-1, 1, 1) + torch.arange(16).view(-1, 1) + torch.arange(16)
    noisy = truth + 0.1 * (1 - 2 * (checkers % 2)) * torch.tensor(TYPICAL).view(4, 1, 1, 1)
    assert first_phase_loss(noisy, truth).item() == pytest.approx(first_phase_loss(shifted, truth).item(), rel=1e-4)
    assert second_phase_loss(noisy, truth) > 2 * second_phase_loss(shifted, truth)


def test_the_perceptual_network_is_pluggable_frozen_and_passes_gradients():
    layer = torch.nn.Conv3d(1, 3, 3)
    distance = FeatureDistance([layer])
    truth = torch.rand(1, 4, 8, 8, 8)
    guess = torch.rand_like(truth).requires_grad_()
    second_phase_loss(guess, truth, distance).backward()
    assert guess.grad.abs().sum() > 0 and layer.weight.grad is None
    plain = second_phase_loss(guess, truth)
    assert second_phase_loss(guess, truth, lambda a, b: torch.tensor(5.0)).item() == pytest.approx(plain.item() + 0.5)


def test_features_of_the_bundled_brain_network_tell_maps_apart():
    distance, truth = brain_features(2), torch.rand(1, 4, 16, 16, 16)
    assert distance(truth, truth) == 0 < distance(truth.roll(3, 2), truth)


# -- training ----------------------------------------------------------------------------------------------------------


def test_phases_follow_the_steps(recipe):
    assert [recipe.phase(step) for step in (0, 2, 3, 5)] == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="phases"):
        replace(recipe, steps=(0, 0))
    with pytest.raises(ValueError, match="brain, random"):
        replace(recipe, perceptual="med3d")


def test_training_lowers_the_loss_of_both_phases(phantoms, recipe, tmp_path):
    # the same tissue in all samples, so that the losses of single steps can be compared
    one = replace(CONFIG, **CLEAN, stroke_probability=0.0, texture=Texture(spread=0.0, fwhm=(0.0, 0.0)))
    recipe = replace(recipe, generator=one, steps=(40, 50), rate=1e-2, validate_every=10)
    recipe = replace(recipe, held_out=["phantom_02"], validation_samples=2)
    path = fit_estimator(recipe, phantoms, tmp_path, device="cpu")
    with (tmp_path / "curves.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for phase in ("L2", "L1 + L2 + gradients"):
        losses = [float(row["loss"]) for row in rows if row["stage"] == phase]
        assert losses[-1] < 0.95 * losses[0]
    errors = [float(row["validation_error"]) for row in rows if row["validation_error"]]
    assert len(errors) == 9 and errors[-1] < 0.8 * errors[0]
    simulator = MprageSimulator(phantoms.subset(["phantom_02"]), one)
    table = measure(load_estimator(path), simulator, 1, picture=lambda number: tmp_path / f"{number}.png")
    assert (tmp_path / "0.png").stat().st_size > 5000
    assert [row["map"] for row in table] == list(MAPS) and all(row["error"] < 1 for row in table)  # as of zeros


def test_interrupted_training_goes_on_where_it_stopped(phantoms, recipe, tmp_path):
    whole = fit_estimator(recipe, phantoms, tmp_path / "whole", device="cpu")
    for _ in range(8):  # the time box ends after every step
        fit_estimator(recipe, phantoms, tmp_path / "parts", device="cpu", max_minutes=0)
    states = [torch.load(path.with_name("last.pt"), weights_only=True) for path in (whole, tmp_path / "parts" / "_")]
    assert [state["step"] for state in states] == [6, 6]
    for name, value in states[0]["network"].items():
        torch.testing.assert_close(states[1]["network"][name], value, rtol=1e-3, atol=1e-4)


def test_training_needs_torch_and_numpy_alone():
    code = """
import sys
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("scipy", "SimpleITK", "nibabel", "matplotlib", "yaml", "pandas", "tqdm"):
            raise ImportError(name)
sys.meta_path.insert(0, Bare())
import synthseg_training.estimation
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_of_another_network_are_refused(phantoms, recipe, tmp_path):
    fit_estimator(replace(recipe, steps=(1, 0)), phantoms, tmp_path, device="cpu")
    with pytest.raises(OptionError, match=r"last\.pt: holds a network of another size"):
        fit_estimator(replace(recipe, network={"widths": [4, 8]}), phantoms, tmp_path, device="cpu")
    with pytest.raises(OptionError, match="crop 32 is no multiple of 64"):
        fit_estimator(replace(recipe, network={"widths": [1] * 7}), phantoms, tmp_path / "new", device="cpu")


# -- estimation --------------------------------------------------------------------------------------------------------


def test_windows_cover_every_voxel_and_agree_with_one_pass(estimator):
    image = torch.rand(16, 16, 16)
    torch.testing.assert_close(window_maps(estimator, image), estimator.network(image[None, None])[0].detach())
    assert window_maps(estimator, torch.rand(21, 9, 33)).shape == (4, 21, 9, 33)
    done = []
    assert (
        window_maps(estimator, torch.rand(40, 16, 16), window=16, overlap=0.25, progress=done.append).isfinite().all()
    )
    assert done == [0, 1 / 3, 2 / 3]
    with pytest.raises(OptionError, match="multiple of 4"):
        window_maps(estimator, image, window=18)
    with pytest.raises(OptionError, match="overlap"):
        window_maps(estimator, image, overlap=1.0)


def test_estimated_maps_lie_where_the_scan_lies(estimator):
    data = np.zeros((30, 26, 28), np.float32)
    data[8:20, 8:20, 8:20] = np.random.default_rng(0).uniform(50, 100, (12, 12, 12))
    affine = np.diag([-2.0, 2.0, 4.0, 1.0])
    maps, at = estimate(Scan(data, affine), estimator)
    assert maps.shape == (30, 26, 56)
    np.testing.assert_allclose(at[:3, :3], np.diag([2.0, 2.0, 2.0]))
    torch.testing.assert_close(maps.r2, (maps.r2s * 2 / 3).clamp(max=25))


def test_comparison_knows_the_perfect_and_the_constant_guess():
    truth = torch.rand(4, 500) + 1
    for row in compare(truth, truth):
        assert row["error"] == 0 and row["correlation"] == pytest.approx(1)
    noise = 1e-3 * torch.randn_like(truth)
    for row in compare(truth.mean(1, keepdim=True) + noise, truth):
        assert row["error"] == pytest.approx(row["constant_error"], rel=0.02)
    assert all(row["constant_error"] > 0.6 for row in compare(truth, truth, torch.full((4,), 2.5)))


@pytest.mark.parametrize(
    ("file", "name"),
    [("sub-1_T1w.nii.gz", "sub-1"), ("ms07-t1_image.nii.gz", "ms07-t1"), ("a.b.mgz", "a.b"), ("dicom", "dicom")],
)
def test_maps_are_named_after_their_scan(file, name):
    assert map_name(f"/somewhere/{file}") == name


def test_the_command_line_trains_and_writes_map_sets_that_training_reads(phantoms, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "{name: t, steps: [1, 1], network: {widths: [4, 8], units: 1}, perceptual: null, "
        "generator: {crop: 32, voxel_size: 4.0}}"
    )
    phantoms.save(tmp_path / "maps.npz")
    arguments = ["fit-estimator", str(recipe), "--maps", str(tmp_path / "maps.npz"), "-o", str(tmp_path / "run")]
    assert main([*arguments, "--device", "cpu"]) == 0
    image, _ = MprageSimulator(phantoms, CONFIG).sample(torch.Generator().manual_seed(0))
    scan = tmp_path / "sub-9_T1w.nii.gz"
    write_volume(scan, image[0].numpy(), np.diag([4.0, 4.0, 4.0, 1.0]))
    model = str(tmp_path / "run" / "estimator.pt")
    command = ["estimate-maps", "--model", model, "-o", str(tmp_path / "sets"), "--device", "cpu"]
    assert main([*command, str(scan)]) == 0
    maps, affine = load_maps(tmp_path / "sets", "sub-9")
    assert maps.shape == (32, 32, 32) and affine[0, 0] == 4 and maps.pd.max() > 40
    config = StrokeConfig(crop=16, voxel_size=4.0, healthy_classes=False)
    image, target = MapsGenerator(tmp_path / "sets", config).sample(torch.Generator().manual_seed(0))
    assert image.isfinite().all() and not target.any()
    assert main([*arguments[:3], str(tmp_path / "sets"), "-o", str(tmp_path / "again"), "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main([*command, str(scan), str(scan)]) == 2 and "sub-9" in capsys.readouterr().err
    assert main([*command[:2], str(recipe), *command[3:], str(scan)]) == 2
    assert "fit-estimator" in capsys.readouterr().err


def test_a_file_that_is_no_estimator_is_named(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"state": {}}, path)
    with pytest.raises(WeightsError, match=r"model\.pt.*fit-estimator"):
        load_estimator(path)
    with pytest.raises(WeightsError, match="missing"):
        load_estimator(tmp_path / "missing.pt")


# -- training samples of the stroke task -------------------------------------------------------------------------------


def test_undeformed_samples_show_maps_and_lesion_in_place(map_folder):
    generator = MapsGenerator(map_folder, StrokeConfig(crop=32, voxel_size=4.0, healthy_classes=False, **CLEAN))
    assert generator.config.output_ids == (0, 99)
    parameters = generator.draw(torch.Generator().manual_seed(0))
    shift = [centre - 15.5 for centre in parameters.spatial.centre]
    maps, target = generator.tissue(parameters)
    assert target.sum() == pytest.approx(3 * 4 * 4, abs=30) and target.dtype == torch.uint8
    found = target.nonzero().double().mean(0) + torch.tensor(shift)
    assert found.tolist() == pytest.approx([16, 13.5, 9.5], abs=1)
    assert maps[0].max() == pytest.approx(80, rel=1e-3)
    image, again = generator.apply(parameters)
    assert image.shape == (1, 32, 32, 32) and torch.equal(again, target)
    signal = parameters.sequence.signal(QuantitativeMaps.unstack(maps))
    assert torch.corrcoef(torch.stack([signal.flatten(), image.flatten()]))[0, 1] > 0.95


def test_deformed_samples_replay_and_vary(map_folder):
    generator = MapsGenerator(map_folder, StrokeConfig(crop=16, voxel_size=4.0, healthy_classes=False))
    rng = torch.Generator().manual_seed(0)
    first, second = generator.draw(rng), generator.draw(rng)
    (image, target), (other, _) = generator.apply(first), generator.apply(second)
    assert torch.equal(image, generator.apply(first)[0]) and not torch.equal(image, other)
    assert image.isfinite().all() and set(target.unique().tolist()) <= {0, 1}


def test_with_six_classes_healthy_tissue_is_unknown(map_folder):
    generator = MapsGenerator(map_folder, StrokeConfig(crop=32, voxel_size=4.0))
    _, target = generator.sample(torch.Generator().manual_seed(0))
    lesion = generator.config.output_ids.index(99)
    assert set(target.unique().tolist()) == {lesion, UNKNOWN_HEALTHY}


def test_maps_of_another_field_strength_are_brought_to_3_tesla(map_folder):
    config = StrokeConfig(crop=32, voxel_size=4.0, healthy_classes=False, **CLEAN)
    plain, converted = (MapsGenerator(map_folder, config, tesla=tesla) for tesla in (3.0, 1.5))
    parameters = plain.draw(torch.Generator().manual_seed(0))
    at_3t, was_at_15t = (generator.quantitative(parameters) for generator in (plain, converted))
    head = at_3t.pd > 79.9  # the ball without its interpolated surface
    assert (was_at_15t.r1 < at_3t.r1)[head].all() and (was_at_15t.r2s > at_3t.r2s)[head].all()
    again = at_field(was_at_15t, 1.5)  # maps have half precision
    torch.testing.assert_close(again.stack()[:, head], at_3t.stack()[:, head], rtol=3e-3, atol=1e-3)
    recipe = Recipe("r", [Stage(1, crop=32)], task="stroke", data=DataFolder(str(map_folder), 1.0, "maps", tesla=1.5))
    assert real_data(recipe).sets.tesla == 1.5
    with pytest.raises(OptionError, match="field strength is 30"):
        MapsGenerator(map_folder, config, tesla=30)


def test_what_is_wrong_with_a_folder_of_maps_is_told(map_folder, tmp_path):
    with pytest.raises(ScanError, match="estimate-maps"):
        MapsGenerator(tmp_path)
    far = np.eye(4)
    far[:3, 3] = 500
    write_volume(map_folder / "sub-1_dseg.nii.gz", np.pad(np.ones((4, 4, 4), np.uint8), 2), far)
    with pytest.raises(OptionError, match=r"sub-1_dseg.*outside the maps"):
        MapsGenerator(map_folder).sample(torch.Generator())
    (map_folder / "sub-1_dseg.nii.gz").write_bytes(b"no image")
    with pytest.raises(ScanError, match=r"sub-1_dseg.*cannot be read"):
        MapsGenerator(map_folder).sample(torch.Generator())


def test_scaled_maps_are_about_one():
    assert torch.equal(scaled(torch.tensor(TYPICAL).view(1, 4, 1, 1, 1)), torch.ones(1, 4, 1, 1, 1))
