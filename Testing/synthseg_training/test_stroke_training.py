"""Samples of the stroke task, training from the brain's weights, and lesion scores."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist
from synthetic import ball, random_network

from synthseg_slicer.conform import HEAD_LEAST, HEAD_MEAN
from synthseg_slicer.errors import OptionError, ScanError
from synthseg_slicer.labels import LESION_ID, STROKE
from synthseg_slicer.network import build
from synthseg_slicer.weights import Model, load_model
from synthseg_training.cli import main
from synthseg_training.evaluation.lesions import (
    EMPTY_HD95,
    SCORES,
    lesion_scores,
    summary,
    trial,
)
from synthseg_training.evaluation.metrics import surface_distances
from synthseg_training.export import card_labels, export, inference_settings
from synthseg_training.generation import BiasField, Gamma, Resolution, SkullStripping, Spatial
from synthseg_training.labelmaps import prepare
from synthseg_training.lesions import MaskFolder, MaskParameters, Paste
from synthseg_training.lesions.field import STAGES
from synthseg_training.phantom import write_phantoms
from synthseg_training.physics import CLINICAL, QuantitativeMaps, RicianNoise, save_maps
from synthseg_training.stroke import Mixture, StrokeConfig, StrokeGenerator
from synthseg_training.stroke.model import clinical_draw
from synthseg_training.stroke.real import RealScans
from synthseg_training.stroke.statistics import HeadStatistics
from synthseg_training.training import checkpoint
from synthseg_training.training.loop import fit, make_generator, stage_config
from synthseg_training.training.recipe import DataFolder, Recipe, Stage, load_recipe

CHANNEL = {label.id: channel for channel, label in enumerate(STROKE)}
RECIPES = Path(__file__).parents[2] / "SynthSegTraining" / "recipes"
MAP_VALUES = ((90.0, 75.0), (0.4, 0.9), (4.0, 13.0), (6.0, 20.0), (0.2, 1.2))
"""PD, R1, R2, R2*, MT of a lesion and of healthy tissue."""
TINY = {"architecture": "fast", "widths": [4, 8], "fine_width": 4}
PLAIN = StrokeConfig(
    crop=64,
    voxel_size=3.0,
    spatial=Spatial(probability=0),
    skull_stripping=SkullStripping(probability=0),
    noise=RicianNoise(probability=0),
    resolution=Resolution(probability=0),
    gain=replace(StrokeConfig().gain, probability=0),
    paste=Paste(probability=0),
    stroke_probability=1.0,
)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 2, voxel_size=3.0)
    return prepare(folder, folder / "maps.npz", source="phantoms", licence="none")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(generator: StrokeGenerator, seed: int, **changes):
    return replace(generator.draw(rng(seed)), **changes)


@pytest.mark.parametrize("appearance", ["physics", "random"])
def test_a_sample_is_a_standardised_scan_with_six_classes(phantoms, appearance):
    config = StrokeConfig(crop=48, voxel_size=1.5, appearance=appearance, clinical_share=0.5, stroke_probability=1.0)
    generator = StrokeGenerator(phantoms, config)
    classes = set()
    for seed in range(3):
        image, target = generator.sample(rng(seed))
        assert image.shape == (1, 48, 48, 48) and image.dtype == torch.float32 and torch.isfinite(image).all()
        assert target.shape == (48, 48, 48) and target.dtype == torch.uint8
        classes |= set(target.unique().tolist())
    assert classes >= set(CHANNEL.values()) - {CHANNEL[299]}


def test_the_boundary_lies_between_grey_and_white_matter(phantoms):
    generator = StrokeGenerator(phantoms, replace(PLAIN, crop=64, voxel_size=0.75, stroke_probability=0.0))
    target = generator.sample(rng(1))[1]
    near = {
        label: torch.nn.functional.max_pool3d((target == CHANNEL[label])[None].float(), 5, 1, 2)[0] > 0
        for label in (2, 3)
    }
    boundary = target == CHANNEL[299]
    assert boundary.sum() > 100
    assert (near[2] & near[3])[boundary].float().mean() > 0.9


def test_the_same_parameters_give_the_same_sample(phantoms):
    generator = StrokeGenerator(phantoms, StrokeConfig(crop=48, voxel_size=3.0))
    parameters = generator.draw(rng(1))
    for first, second in zip(generator.apply(parameters), generator.apply(parameters)):
        assert torch.equal(first, second)
    assert not torch.equal(generator.sample(rng(1))[0], generator.sample(rng(2))[0])


def medians(image, target, labels) -> dict[int, float]:
    return {label: image[0][target == CHANNEL[label]].median().item() for label in labels}


@pytest.mark.parametrize(
    ("sequence", "ascending"),
    [
        ("T1 MPRAGE", (24, LESION_ID, 3, 2)),
        ("T2 FSE", (2, 3, LESION_ID, 24)),
        ("FLAIR", (24, 3)),
    ],
)
def test_tissues_have_the_order_of_the_sequence(phantoms, sequence, ascending):
    generator = StrokeGenerator(phantoms, PLAIN)
    values = []
    for seed in range(8):
        parameters = drawn(generator, seed, sequence=CLINICAL[sequence])
        foci = tuple(replace(focus, stage="chronic", rim=0.0, volume=60.0) for focus in parameters.foci[:1])
        values.append(medians(*generator.apply(replace(parameters, foci=foci)), ascending))
    mean = pd.DataFrame(values).mean()  # patients differ: a cavity may be as bright as another one's cortex
    assert sorted(ascending, key=mean.get) == list(ascending)


def test_no_stroke_no_lesion_and_old_white_matter_is_none(phantoms):
    generator = StrokeGenerator(phantoms, replace(PLAIN, stroke_probability=0.0, crop=48))
    for seed in range(4):
        parameters = generator.draw(rng(seed))
        assert parameters.foci == ()
        assert not (generator.apply(parameters)[1] == CHANNEL[LESION_ID]).any()


def test_lesions_lie_in_tissue_and_have_their_volume(phantoms):
    generator = StrokeGenerator(phantoms, PLAIN)
    parameters = drawn(generator, 5)
    foci = tuple(replace(focus, volume=40.0) for focus in parameters.foci[:1])
    healthy = generator.apply(replace(parameters, foci=()))[1]
    target = generator.apply(replace(parameters, foci=foci))[1]
    lesion = target == CHANNEL[LESION_ID]
    assert lesion.sum().item() * 0.027 == pytest.approx(40, rel=0.35)
    assert (healthy[lesion] == 0).float().mean() < 0.05
    elsewhere = ~lesion
    assert torch.equal(target[elsewhere], healthy[elsewhere])


def test_the_quantitative_maps_have_the_units_of_tissue(phantoms):
    generator = StrokeGenerator(phantoms, PLAIN)
    parameters = drawn(generator, 2, foci=())
    maps, (_, target) = generator.quantitative(parameters), generator.apply(parameters)
    white, fluid = target == CHANNEL[2], target == CHANNEL[24]
    assert 0.75 < maps.r1[white].median() < 1.2 and 60 < maps.pd[white].median() < 80
    assert maps.r1[fluid].median() < 0.4 and maps.r2[fluid].median() < 3
    assert (maps.r2s >= maps.r2 - 1e-3)[white].float().mean() > 0.95


def test_an_easier_task_has_no_noise(phantoms):
    easy = StrokeConfig().scaled(0.0)
    assert easy.noise.sigma[1] == 0 and easy.resolution.probability == 0 and easy.spatial.velocity == 0
    with pytest.raises(OptionError, match="difficulty"):
        StrokeConfig().scaled(2)
    with pytest.raises(OptionError, match="appearance"):
        StrokeConfig(appearance="painted")


def test_clinical_acquisitions_are_possible_and_of_all_kinds():
    acquisitions = [clinical_draw().draw(rng(seed)) for seed in range(60)]
    assert len({type(one) for one in acquisitions}) == 4 and all(one.feasible for one in acquisitions)


def tiny(**settings) -> Recipe:
    generator = {"spatial": {"step": 8.0}, "clinical_share": 1.0}
    stage = Stage(steps=3, crop=32, voxel_size=4.0, loss="dice_ce", rate=1e-3, frozen_norm=True)
    network = {**TINY, "n_labels": len(STROKE)}
    return Recipe("stroke", [stage], task="stroke", network=network, generator=generator, ema=0.9, **settings)


def test_training_begins_with_the_brains_trunk_and_new_heads(phantoms, tmp_path, capsys):
    brain = random_network(**TINY)
    torch.save({"state": brain.state_dict()}, tmp_path / "brain.pt")
    fit(tiny(held_out=["phantom_02"]), phantoms, tmp_path / "run", resume=tmp_path / "brain.pt", device="cpu")
    assert "begin anew" in capsys.readouterr().out
    content = checkpoint.load(tmp_path / "run" / "last.pt")
    trained = content["network"]["encoder.0.0.conv.weight"]
    difference = (trained - brain.state_dict()["encoder.0.0.conv.weight"]).abs().max()
    assert 0 < difference < 0.05
    path = export(tiny(), tmp_path / "run" / "last.pt", tmp_path / "stroke.pt", maps=phantoms)
    model = load_model(path=path)
    assert model.labels == STROKE == card_labels(tiny()) and model.card["name"] == "stroke"


def test_a_lesion_weight_adds_the_loss_of_lesion_against_the_rest(phantoms, tmp_path):
    losses = {}
    for weight in (0.0, 2.0):
        recipe = tiny()
        recipe.stages[0].steps, recipe.stages[0].lesion_weight = 1, weight
        fit(recipe, phantoms, tmp_path / str(weight), device="cpu")
        with (tmp_path / str(weight) / "curves.csv").open() as stream:
            losses[weight] = float(next(csv.DictReader(stream))["loss"])
    network = build(**tiny().network)  # heads begin at nearly equal posteriors: a sixth for the lesion, Dice near 0
    assert network.n_labels == 6 and 1.0 < losses[2.0] - losses[0.0] < 3.0
    with pytest.raises(ValueError, match="only the task stroke has lesions"):
        Recipe("brain", [Stage(steps=1, lesion_weight=1.0)])


def test_weights_of_another_network_are_refused(phantoms, tmp_path):
    torch.save({"state": build("fast", widths=[4, 16], fine_width=4).state_dict()}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="another network"):
        fit(tiny(), phantoms, tmp_path / "run", resume=tmp_path / "other.pt", device="cpu")


def test_recipes_of_the_task_make_its_generator(phantoms, tmp_path):
    (tmp_path / "r.json").write_text(
        '{"name": "s", "task": "stroke", "network": {"architecture": "fast", "n_labels": 6}, "stages": [{"steps": 1}],'
        ' "generator": {"appearance": "random", "shapes": {"wedge": 0.1}, "sequences": {"weights": {"fse": 1.0}}}}'
    )
    recipe = load_recipe(tmp_path / "r.json")
    config = stage_config(recipe, recipe.stages[0])
    assert config.appearance == "random" and config.shapes.wedge == 0.1 and config.sequences.weights == {"fse": 1.0}
    assert isinstance(make_generator(phantoms, config), StrokeGenerator)
    with pytest.raises(ValueError, match="none of anatomy, stroke"):
        load_recipe(tmp_path / "r.json", ["task=heart"])


def block(low, high, shape=(24, 24, 24)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high))] = True
    return mask


def test_lesion_scores_agree_with_brute_force():
    generator = np.random.default_rng(0)
    true = block((2, 2, 2), (8, 9, 7)) | block((14, 14, 14), (18, 18, 18)) | block((2, 20, 2), (4, 22, 4))
    found = (
        np.roll(block((2, 2, 2), (8, 9, 7)), 1, 0) | block((15, 14, 14), (20, 18, 18)) | block((20, 2, 2), (22, 4, 4))
    )
    found &= generator.random(found.shape) > 0.02
    voxel = (1.0, 2.0, 1.5)
    scores = lesion_scores(found, true, voxel)
    assert scores["dice"] == pytest.approx(2 * (found & true).sum() / (found.sum() + true.sum()))
    assert scores["f1"] == pytest.approx(2 / 3) and scores["count_difference"] == 0
    assert scores["volume_difference_ml"] == pytest.approx(abs(int(found.sum()) - int(true.sum())) * 3 / 1000)

    def surface(mask):
        padded = np.pad(mask, 1)
        inner = padded.copy()
        for axis in range(3):
            inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
        return np.argwhere(padded & ~inner) * voxel

    distances = cdist(surface(found), surface(true))
    expected = max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))
    assert scores["hd95_mm"] == pytest.approx(expected)
    assert [len(d) for d in surface_distances(found, true, voxel)] == [distances.shape[0], distances.shape[1]]


def test_empty_maps_have_the_papers_scores():
    nothing, something = block((0,) * 3, (0,) * 3), block((2, 2, 2), (6, 6, 6))
    missed = lesion_scores(nothing, something, (1, 1, 1))
    assert (missed["dice"], missed["hd95_mm"], missed["f1"]) == (0, EMPTY_HD95, 0) and missed["count_difference"] == 1
    assert lesion_scores(nothing, nothing, (1, 1, 1)) == dict(zip(SCORES, (1.0, 0.0, 0.0, 0.0, 1.0)))


class Knows(torch.nn.Module):
    """Calls everything brighter than the head's usual range a lesion."""

    multiple, n_labels = 4, len(STROKE)

    def __init__(self, steepness: float = 1.0):
        super().__init__()
        self.level, self.steepness = torch.nn.Parameter(torch.tensor(HEAD_MEAN + HEAD_LEAST)), steepness

    def forward(self, image):
        logits = torch.zeros((1, self.n_labels, *image.shape[2:]))
        logits[:, CHANNEL[LESION_ID]] = self.steepness * (image[:, 0] - self.level)
        return logits


def test_a_trial_scores_every_patient_with_every_sequence(phantoms):
    lines = []
    sequences = {name: CLINICAL[name] for name in ("T2 FSE", "T1 MPRAGE")}
    config = replace(PLAIN, crop=48, voxel_size=4.0)
    model = Model(Knows(), STROKE, "", {})
    table = trial(
        model, phantoms, config, patients=2, sequences=sequences, smallest_ml=5.0, flips=1, report=lines.append
    )
    assert len(table) == 4 == 2 * len(lines) and (table["lesion_ml"] >= 5).all()
    again = trial(model, phantoms, config, patients=2, sequences=sequences, smallest_ml=5.0, flips=1)
    pd.testing.assert_frame_equal(table, again)
    assert list(summary(table, "sequence")["scans"]) == [2, 2]
    for stage in STAGES:
        shapes = replace(config.shapes, stages={stage: 1.0})
        one = trial(model, phantoms, replace(config, shapes=shapes), patients=1, sequences={"FLAIR": CLINICAL["FLAIR"]})
        assert list(one["stage"]) == [stage]


def test_scans_of_a_trial_are_standardised_by_themselves(phantoms):
    images = []

    class Watches(Knows):
        def forward(self, image):
            images.append(image.clone())
            return super().forward(image)

    config = replace(PLAIN, crop=48, voxel_size=4.0)
    config = replace(config, statistics=HeadStatistics(probability=1.0, scale=(3.0, 3.0)))
    model = Model(Watches(), STROKE, "", {})
    trial(model, phantoms, config, patients=1, sequences={"FLAIR": CLINICAL["FLAIR"]}, smallest_ml=5.0, flips=1)
    head = images[0][images[0] > images[0].min() + 0.01]
    assert head.std().item() > 0.15  # a third of it with the statistics of samples


def test_a_cleaned_trial_leaves_out_what_the_extension_drops(phantoms):
    config, sequences = replace(PLAIN, crop=48, voxel_size=4.0), {"T2 FSE": CLINICAL["T2 FSE"]}
    options = {"patients": 1, "sequences": sequences, "smallest_ml": 5.0, "flips": 1}
    sure, unsure = (Model(Knows(steepness), STROKE, "", {}) for steepness in (100.0, 0.1))
    raw, kept = (trial(sure, phantoms, config, cleaned=cleaned, **options) for cleaned in (False, True))
    assert kept["count_difference"].iloc[0] <= raw["count_difference"].iloc[0]
    assert trial(unsure, phantoms, config, **options)["hd95_mm"].iloc[0] < 256
    assert trial(unsure, phantoms, config, cleaned=True, **options)["hd95_mm"].iloc[0] == 256  # nothing is left


def run_trial(phantoms, folder, models: list[str], *options: str) -> None:
    """Try random weights on one patient; tables and pictures go to ``folder / "out"``."""
    phantoms.save(folder / "maps.npz")
    network = random_network("fast", n_labels=len(STROKE), widths=(4, 8), fine_width=4)
    torch.save({"state": network.state_dict()}, folder / "w.pt")
    for name in models:
        (folder / name).parent.mkdir(exist_ok=True)
        export(tiny(), folder / "w.pt", folder / name)
    text = (
        '{"name": "s", "task": "stroke", "network": {"architecture": "fast", "n_labels": 6},'
        ' "stages": [{"steps": 1, "voxel_size": 4.0, "crop": 48, "generator": {"paste": {"threshold": 0.7}}}],'
        ' "held_out": ["phantom_02"]}'
    )
    (folder / "r.json").write_text(text)
    paths = [str(folder / name) for name in models]
    arguments = [str(folder / "r.json"), "--maps", str(folder / "maps.npz"), *paths, "-o", str(folder / "out")]
    assert main(["trial", *arguments, "-n", "1", "--crop", "48", "--smallest", "1", "--flips", "1", *options]) in (
        0,
        None,
    )


def test_the_trial_command_writes_tables_and_pictures(phantoms, tmp_path, capsys):
    run_trial(phantoms, tmp_path, ["stroke.pt"])
    assert "FLAIR" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "trial.csv")
    assert len(table) == len(CLINICAL) and set(table["model"]) == {"stroke"}
    assert (tmp_path / "out" / "patients-1-stroke.png").is_file()


def test_weights_of_one_name_stay_apart_in_a_trial(phantoms, tmp_path):
    names = ["old/stroke.pt", "new/stroke.pt"]
    run_trial(phantoms, tmp_path, names)
    assert set(pd.read_csv(tmp_path / "out" / "summary.csv")["model"]) == {str(tmp_path / name) for name in names}


def test_a_base_trial_leaves_out_what_the_last_stage_adds(phantoms, tmp_path, monkeypatch):
    class Seen(Exception):
        pass

    def stop(model, maps, config, **options):
        raise Seen(config.paste.threshold)

    monkeypatch.setattr("synthseg_training.evaluation.lesions.trial", stop)
    for options, threshold in (((), "0.7"), (("--base",), str(Paste().threshold))):
        with pytest.raises(Seen, match=threshold):
            run_trial(phantoms, tmp_path, ["stroke.pt"], *options)


def test_random_appearance_ignores_sequences(phantoms):
    config = replace(PLAIN, appearance="random", bias=BiasField(probability=0), gamma=Gamma(probability=0), crop=48)
    generator = StrokeGenerator(phantoms, config)
    parameters = generator.draw(rng(4))
    assert parameters.sequence is None and generator.tissue(parameters)[0].shape[0] == 1


def test_two_class_targets_are_lesion_or_not(phantoms):
    config = replace(PLAIN, healthy_classes=False, crop=48)
    _, target = StrokeGenerator(phantoms, config).sample(rng(3))
    assert config.output_ids == (0, LESION_ID) and set(target.unique().tolist()) == {0, 1}


@pytest.fixture
def scans(tmp_path):
    """Two scans with masks; the second one without lesion, thick slices, other axes."""
    folder = tmp_path / "real"
    folder.mkdir()
    data = ball((48, 44, 40), 17.0)
    mask = np.zeros(data.shape, np.uint8)
    mask[20:28, 20:26, 14:22] = 1
    data[mask > 0] += 60
    affine = np.diag([-1.0, 1, 1, 1])
    nib.Nifti1Image(data, affine).to_filename(folder / "a_image.nii.gz")
    nib.Nifti1Image(mask, affine).to_filename(folder / "a_dseg.nii.gz")
    thick = np.diag([1.0, 1, 3, 1])
    nib.Nifti1Image(data[:, :, ::3], thick).to_filename(folder / "b_image.nii.gz")
    nib.Nifti1Image(np.zeros_like(mask[:, :, ::3]), thick).to_filename(folder / "b_dseg.nii.gz")
    return folder


def test_real_scans_give_crops_whose_masks_follow_them(scans):
    config = StrokeConfig(
        crop=32, spatial=Spatial(scaling=0.05, rotation=10.0, velocity=1.0), noise=RicianNoise(probability=0)
    )
    config = replace(config, resolution=Resolution(probability=0), bias=BiasField(probability=0))
    source = RealScans(scans, config)
    assert source.names == ["a", "b"]
    contrast = []
    for seed in range(12):
        image, target = source.sample(rng(seed))
        assert image.shape == (1, 32, 32, 32) and set(target.unique().tolist()) <= {CHANNEL[LESION_ID], 255}
        lesion = target == CHANNEL[LESION_ID]
        if lesion.sum() > 100:
            contrast.append((image[0][lesion].mean() - image[0][~lesion].mean()).item())
    assert len(contrast) >= 3 and min(contrast) > 0.1


def test_real_scans_take_the_scale_of_a_whole_head_too(scans):
    config = StrokeConfig(crop=32)
    whole = replace(config, statistics=HeadStatistics(probability=1, scale=(2.0, 2.0), level=(0.5, 0.5)))
    (own, target), (scaled, same) = (RealScans(scans, one).sample(rng(5)) for one in (config, whole))
    assert torch.equal(target, same)
    torch.testing.assert_close(scaled, (own - HEAD_MEAN) / 2 + 0.5)


def test_real_scans_without_masks_or_on_other_grids_are_named(scans, tmp_path):
    with pytest.raises(ScanError, match="no NAME_image"):
        RealScans(tmp_path, StrokeConfig(crop=32))
    with pytest.raises(OptionError, match="at 1 mm"):
        RealScans(scans, StrokeConfig(crop=32, voxel_size=2.0))
    nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_filename(scans / "b_dseg.nii.gz")
    with pytest.raises(ScanError, match=r"b_dseg.nii.gz: its grid"):
        RealScans(scans, StrokeConfig(crop=32))
    (scans / "b_dseg.nii.gz").unlink()
    with pytest.raises(ScanError, match=r"b_image.nii.gz: its lesion mask b_dseg.nii.gz is missing"):
        RealScans(scans, StrokeConfig(crop=32))


def test_a_mixture_draws_from_both_sources_by_its_share(phantoms):
    class Constant:
        config = PLAIN

        def __init__(self, value):
            self.value = value

        def sample(self, generator):
            return self.value

    mixture = Mixture(Constant("synthetic"), Constant("real"), 0.25)
    drawn_from = [mixture.sample(rng(seed)) for seed in range(200)]
    assert 0.15 < drawn_from.count("real") / 200 < 0.35
    mixture.config = StrokeConfig(crop=64)
    assert mixture.first.config is mixture.second.config is mixture.config


@pytest.mark.parametrize("classes", [2, 6])
def test_the_papers_network_trains_on_real_and_synthetic_scans(phantoms, scans, tmp_path, classes):
    pytest.importorskip("monai")
    settings = {"spatial": {"step": 8.0}, "healthy_classes": classes == 6}
    stage = Stage(steps=4, crop=32, loss="dice_ce", rate=1e-3, power=0.9)
    recipe = Recipe(
        "stroke",
        [stage],
        task="stroke",
        network={"architecture": "residual", "n_labels": classes, "widths": [4, 8, 8]},
        generator=settings,
        data=DataFolder(str(scans), 0.5),
    )
    path = export(recipe, fit(recipe, phantoms, tmp_path / "run", device="cpu"), tmp_path / "stroke.pt")
    model = load_model(path=path)
    assert len(model.labels) == classes and model.network(torch.zeros(1, 1, 16, 16, 16)).shape[1] == classes


def test_without_monai_its_network_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(OptionError, match="pip install monai"):
        build("residual")


@pytest.fixture
def masks(tmp_path):
    """A folder with two lesion masks: 15 ml in a subfolder, and 2 ml."""
    folder = tmp_path / "masks"
    (folder / "sub-1").mkdir(parents=True)
    for path, edge in (("sub-1/a_mask.nii.gz", 25), ("b_mask.nii.gz", 13)):
        values = np.zeros((60, 60, 60), np.uint8)
        values[10 : 10 + edge, 20 : 20 + edge, 30 : 30 + edge] = 1
        nib.Nifti1Image(values, np.eye(4)).to_filename(folder / path)
    return folder


def test_a_share_of_the_lesions_has_the_shape_of_a_mask(phantoms, masks):
    plain = MaskFolder(folder=str(masks), share=0.5, flip=0, rotation=0, scaling=0, elastic=0)
    config = replace(PLAIN, masks=plain, stroke_probability=0.8)
    generator = StrokeGenerator(phantoms, config)
    patients = [generator.draw(rng(seed)) for seed in range(300)]
    kinds = [type(patient.foci[0]) if patient.foci else None for patient in patients]
    assert kinds.count(MaskParameters) == pytest.approx(120, abs=25) and kinds.count(None) == pytest.approx(60, abs=20)
    volumes = {round(p.foci[0].volume, 1) for p, kind in zip(patients, kinds) if kind is MaskParameters}
    assert sorted(volumes) == pytest.approx([13**3 / 1000, 25**3 / 1000], rel=0.02)
    masked = next(p for p in patients if p.foci and isinstance(p.foci[0], MaskParameters) and p.foci[0].volume > 10)
    lesion = generator.apply(masked)[1] == CHANNEL[LESION_ID]
    assert 0 < lesion.sum() * 0.027 < 1.5 * masked.foci[0].volume
    healthy = generator.apply(patients[kinds.index(None)])[1]
    assert not (healthy == CHANNEL[LESION_ID]).any()


def test_training_takes_lesions_from_a_folder_of_masks(phantoms, masks, tmp_path, capsys):
    recipe = tiny()
    recipe.generator = {**recipe.generator, "masks": {"folder": str(masks), "pattern": "*_mask.nii.gz", "share": 1.0}}
    assert fit(recipe, phantoms, tmp_path / "run", device="cpu").is_file()
    phantoms.save(tmp_path / "maps.npz")
    text = {"name": "s", "task": "stroke", "network": {**TINY, "n_labels": 6}, "generator": recipe.generator}
    (tmp_path / "r.json").write_text(json.dumps({**text, "stages": [{"steps": 1, "crop": 32, "voxel_size": 4.0}]}))
    arguments = [str(tmp_path / "r.json"), "--maps", str(tmp_path / "maps.npz"), "-o", str(tmp_path / "samples")]
    assert main(["generate", *arguments, "-n", "2"]) == 0
    assert (tmp_path / "samples" / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"folder": "nowhere"}, "there is no such folder"),
        ({"pattern": "*lesion*"}, r"No lesion masks .* named \*lesion\* in"),
        ({"pattern": "broken*"}, r"broken\.nii\.gz: cannot be read"),
        ({"share": -0.5}, "share of lesion masks is -0.5"),
    ],
)
def test_masks_that_do_not_work_are_told_before_training(phantoms, masks, tmp_path, settings, words):
    (masks / "broken.nii.gz").write_bytes(b"no scan")
    recipe = tiny()
    later = replace(recipe.stages[0], generator={"masks": {"folder": str(masks), **settings}})
    recipe.stages.append(later)
    with pytest.raises((ScanError, OptionError), match=words):
        fit(recipe, phantoms, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_lesions_keep_their_place_in_a_head_that_is_upside_down_or_back_to_front(phantoms):
    generator = StrokeGenerator(phantoms, PLAIN)
    parameters = drawn(generator, 5, flipped=())
    lesion, mirrored = (
        generator.tissue(replace(parameters, flipped=axes))[1] == CHANNEL[LESION_ID] for axes in ((), (1, 2))
    )
    assert lesion.sum() > 50
    assert (mirrored != lesion.flip(1, 2)).sum() < 0.01 * lesion.sum()  # sums in another order: not exact at the edge


@pytest.fixture
def map_sets(tmp_path):
    """One set of quantitative maps with a lesion, as ``estimate-maps`` and a reader would leave it."""
    folder = tmp_path / "sets"
    folder.mkdir()
    head = torch.from_numpy(ball((40, 40, 40), 16.0)) > 30
    lesion = torch.zeros(head.shape, dtype=torch.bool)
    lesion[18:24, 18:24, 18:24] = True
    values = [torch.where(lesion, inside, outside) * head for inside, outside in MAP_VALUES]
    save_maps(QuantitativeMaps(*values), folder, "sub-1", np.eye(4))
    nib.Nifti1Image(lesion.numpy().astype(np.uint8), np.eye(4)).to_filename(folder / "sub-1_dseg.nii.gz")
    return folder


@pytest.mark.parametrize("name", ["baseline", "synth", "synth-real", "qatlas", "qsynth", "qsynth-real"])
def test_each_recipe_of_the_stroke_paper_trains(phantoms, scans, map_sets, tmp_path, name):
    pytest.importorskip("monai")
    small = ["network.widths=[4,8,8]", "stages.0.steps=2", "stages.0.crop=32", "generator.spatial.step=8.0"]
    data = {"baseline": scans, "synth-real": scans, "qsynth-real": scans, "qatlas": map_sets}
    if name in data:
        small.append(f"data.folder={data[name]}")
    recipe = str(RECIPES / f"stroke-{name}.yaml")
    arguments = ["fit", recipe, "-o", str(tmp_path / "run"), "--device", "cpu", "--set", *small]
    if name not in ("baseline", "qatlas"):
        assert main(arguments) == 2  # they draw from label maps
        phantoms.save(tmp_path / "maps.npz")
        arguments += ["--maps", str(tmp_path / "maps.npz")]
    assert main(arguments) == 0
    content = checkpoint.load(tmp_path / "run" / "last.pt")
    settings = load_recipe(recipe, small)
    torch.manual_seed(settings.seed)
    fresh = build(**settings.network).state_dict()
    assert content["step"] == 2 and fresh.keys() == content["network"].keys()
    assert any(not torch.equal(value, fresh[key]) for key, value in content["network"].items())
    with (tmp_path / "run" / "curves.csv").open() as stream:
        assert 0 < float(list(csv.DictReader(stream))[-1]["loss"]) < 5
    path = tmp_path / "stroke.pt"
    assert main(["export", recipe, str(tmp_path / "run" / "last.pt"), "-o", str(path), *arguments[6:]]) == 0
    card = load_model(path=path).card
    assert card["mirrored"] and card["flips"] == 8  # along all axes


@pytest.mark.parametrize(
    ("flip", "passes"),
    [
        ({}, 2),
        ({"probability": 0}, 1),
        ({"anterior_posterior": 0.5}, 2),
        ({"probability": 0, "inferior_superior": 1}, 1),
    ],
)
def test_the_card_says_how_many_mirrored_passes_the_weights_know(flip, passes):
    recipe = Recipe("s", [Stage(steps=1)], task="stroke", generator={"flip": flip})
    assert inference_settings(recipe)["flips"] == passes
    assert inference_settings(replace(recipe, card={"flips": 4}))["flips"] == 4
    assert "flips" not in inference_settings(replace(recipe, task="anatomy", generator={}))


def test_a_sheet_shows_one_patient_in_all_sequences(phantoms, tmp_path, capsys):
    phantoms.save(tmp_path / "maps.npz")
    recipe = tmp_path / "r.json"
    recipe.write_text('{"name": "s", "task": "stroke", "stages": [{"steps": 1, "voxel_size": 4.0, "crop": 48}]}')
    sheet = tmp_path / "sheet.png"
    assert main(["sequences", str(recipe), "--maps", str(tmp_path / "maps.npz"), "-o", str(sheet)]) in (0, None)
    assert sheet.stat().st_size > 50_000
    recipe.write_text('{"name": "s", "stages": [{"steps": 1}]}')
    assert main(["sequences", str(recipe), "--maps", str(tmp_path / "maps.npz"), "-o", str(sheet)])
    assert "only recipes of the task stroke" in capsys.readouterr().err
