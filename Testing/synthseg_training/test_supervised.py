"""Real scans with label maps as training samples: the supervised baseline."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from synthseg_slicer.errors import OptionError, ScanError
from synthseg_slicer.scan import write_volume
from synthseg_training.cli import main
from synthseg_training.generation import BiasField, Flip, Gamma, Generator, GeneratorConfig, Resolution, Spatial
from synthseg_training.generation.supervised import LabelledScans
from synthseg_training.labelmaps import prepare
from synthseg_training.phantom import write_phantoms
from synthseg_training.training import checkpoint
from synthseg_training.training.loop import _batch, _Run, fit
from synthseg_training.training.recipe import DataFolder, Recipe, Stage

RECIPE = Path(__file__).parents[2] / "SynthSegTraining" / "recipes" / "t1-baseline.yaml"
LEFT, RIGHT, MIDLINE = 17, 53, 16
PLAIN = GeneratorConfig(
    crop=24,
    flip=Flip(probability=0),
    bias=BiasField(probability=0),
    gamma=Gamma(probability=0),
    resolution=Resolution(probability=0),
)
TINY = {"architecture": "fast", "widths": [4, 8], "fine_width": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two scans in which left is bright, right is dark and the brain stem in between; one of them in LAS order."""
    folder = tmp_path_factory.mktemp("pairs")
    for name, affine in (("a", np.diag([1.0, 1, 1, 1])), ("b", np.diag([-1.0, 1, 1, 1]))):
        labels = np.zeros((40, 40, 40), np.int16)
        labels[8:16, 12:28, 12:28], labels[16:24, 12:28, 12:28], labels[24:32, 12:28, 12:28] = LEFT, MIDLINE, RIGHT
        image = np.select([labels == LEFT, labels == MIDLINE, labels == RIGHT], [100.0, 60.0, 30.0])
        if affine[0, 0] < 0:
            labels, image = labels[::-1], image[::-1]
        write_volume(folder / f"{name}_image.nii.gz", image.astype(np.float32), affine)
        write_volume(folder / f"{name}_dseg.nii.gz", labels, affine)
    return folder


def of(config: GeneratorConfig, target: torch.Tensor, label: int) -> torch.Tensor:
    return target == config.output_ids.index(label)


def test_image_and_labels_are_deformed_together(folder):
    config = replace(PLAIN, crop=48, spatial=Spatial(velocity=3.0, step=4.0))  # all of it is in every sample
    source, rng = LabelledScans(folder, config), torch.Generator().manual_seed(0)
    for _ in range(6):
        image, target = source.sample(rng)
        assert image.shape == (1, 48, 48, 48) and image.dtype == torch.float32 and target.dtype == torch.uint8
        medians = [float(image[0][of(config, target, label)].median()) for label in (RIGHT, MIDLINE, LEFT)]
        assert medians == pytest.approx([0.3, 0.6, 1.0], abs=0.02)
        expected = torch.zeros_like(image[0])
        for label, value in ((RIGHT, 0.3), (MIDLINE, 0.6), (LEFT, 1.0)):
            expected[of(config, target, label)] = value
        inside = target > 0
        assert ((image[0] - expected).abs() < 0.05)[inside].float().mean() > 0.7  # the rest are borders, interpolated


def test_both_orders_of_axes_give_the_same_sample_and_mirroring_swaps_sides(folder):
    config = replace(PLAIN, spatial=Spatial(probability=0), crop=32)
    source = LabelledScans(folder, config)
    for one, other in zip((source.images[0], source.maps[0]), (source.images[1], source.maps[1])):
        torch.testing.assert_close(one, other)
    source.config = replace(config, flip=Flip(probability=1))
    image, target = source.sample(torch.Generator().manual_seed(0))
    left, right = (of(config, target, label).nonzero()[:, 0].float().mean() for label in (LEFT, RIGHT))
    assert left < right  # anatomy stays on its side ...
    assert (
        image[0][of(config, target, LEFT)].mean() < image[0][of(config, target, RIGHT)].mean()
    )  # ... its look does not


@pytest.mark.parametrize(
    "change",
    [{"bias": BiasField(1.0)}, {"gamma": Gamma(1.0)}, {"resolution": Resolution(1.0, anisotropic=(4.0, 6.0))}],
)
def test_bias_gamma_and_resolution_change_the_image_only(folder, change):
    config = replace(PLAIN, spatial=Spatial(probability=0), crop=32)
    source, differences = LabelledScans(folder, config), []
    for seed in range(4):
        source.config = config
        plain, target = source.sample(torch.Generator().manual_seed(seed))
        source.config = replace(config, **change)
        image, same = source.sample(torch.Generator().manual_seed(seed))
        assert torch.equal(target, same) and image.min() >= 0 and image.max() <= 1
        differences.append(float((image - plain).abs().max()))
    assert max(differences) > 0.1


def test_a_network_trains_on_real_scans_alone(folder, tmp_path, monkeypatch):
    write_phantoms(tmp_path / "maps", 1, voxel_size=4.0)
    maps = prepare(tmp_path / "maps", tmp_path / "maps.npz")
    easy = {"spatial": {"rotation": 5.0, "velocity": 0.0}, "resolution": {"probability": 0.0}, "gamma": {"sigma": 0.1}}
    stages = [
        Stage(steps=30, crop=32, loss="dice_ce", rate=1e-2, generator=easy),
        Stage(steps=2, crop=32, loss="dice_ce", rate=1e-4, generator=easy, frozen_norm=True),
    ]
    recipe = Recipe("t1", stages, network=TINY, optimizer="adamw", data=DataFolder(str(folder), share=1.0))
    seen = []
    whole = _Run._train_step
    monkeypatch.setattr(_Run, "_train_step", lambda *a: seen.append(float(whole(*a))) or torch.tensor(seen[-1]))
    monkeypatch.setattr(Generator, "sample", lambda *a: pytest.fail("a synthetic scan was drawn"))  # not even for norms
    content = checkpoint.load(fit(recipe, maps, tmp_path / "run", device="cpu"))
    assert content["step"] == 32 and np.mean(seen[-5:]) < 0.7 * np.mean(seen[:5])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "a_dseg.nii.gz").unlink(), "a_image.nii.gz: its label map a_dseg.nii.gz is missing"),
        (lambda path: [file.unlink() for file in path.glob("*_image.nii.gz")], "no NAME_image.nii.gz"),
        (
            lambda path: write_volume(path / "a_dseg.nii.gz", np.eye(40)[..., None].repeat(40, 2) * 9999, np.eye(4)),
            "a_dseg.nii.gz: holds no structure",
        ),
    ],
)
def test_scans_that_teach_nothing_are_refused(folder, tmp_path, spoil, message):
    for path in folder.glob("*.nii.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoil(tmp_path)
    with pytest.raises(ScanError, match=message):
        LabelledScans(tmp_path, PLAIN)


def test_other_voxel_sizes_are_refused(folder):
    with pytest.raises(OptionError, match=r"trained on at 1 mm.*2\.0 mm"):
        LabelledScans(folder, replace(PLAIN, voxel_size=2.0))


def test_another_anatomy_in_a_later_stage_is_refused_before_training(folder, tmp_path):
    write_phantoms(tmp_path / "maps", 1, voxel_size=4.0)
    maps = prepare(tmp_path / "maps", tmp_path / "maps.npz")
    other = {"anatomy": {"pairs": {LEFT: RIGHT}}}
    stages = [Stage(steps=1, crop=16, loss="dice_ce", generator=generator) for generator in ({}, other)]
    with pytest.raises(OptionError, match="read for one anatomy"):
        fit(Recipe("t1", stages, network=TINY, data=DataFolder(str(folder))), maps, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_samples_end_on_the_device_of_the_training(folder):
    device = torch.device("meta")
    image, target = _batch(LabelledScans(folder, PLAIN), 2, torch.Generator().manual_seed(0), device)
    assert image.device == target.device == device


def test_the_shipped_recipe_trains_from_the_command_line(folder, tmp_path):
    write_phantoms(tmp_path / "maps", 1, voxel_size=4.0)
    prepare(tmp_path / "maps", tmp_path / "maps.npz")
    changes = ["network={architecture: fast, widths: [4, 8], fine_width: 4}", f"data.folder={folder}"]
    changes += [f"stages.{stage}.{key}" for stage in (0, 1) for key in ("steps=1", "crop=16")]
    maps, out = str(tmp_path / "maps.npz"), str(tmp_path / "run")
    assert main(["fit", str(RECIPE), "--maps", maps, "-o", out, "--device", "cpu", "--set", *changes]) == 0
    weights = tmp_path / "t1-baseline.pt"
    arguments = ["export", str(RECIPE), f"{out}/last.pt", "--maps", maps, "-o", str(weights), "--norm-samples", "2"]
    assert main([*arguments, "--set", *changes]) == 0 and weights.exists()
