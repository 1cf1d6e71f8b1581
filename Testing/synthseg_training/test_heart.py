"""The heart: clustering against scikit-learn, sub-labels and their parents, and a network that learns from them."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from synthseg_slicer import segment
from synthseg_slicer.cli import main as slicer
from synthseg_slicer.conform import conform
from synthseg_slicer.errors import OptionError, ScanError
from synthseg_slicer.measure import TOTAL
from synthseg_slicer.network import build
from synthseg_slicer.postprocess import largest_component
from synthseg_slicer.robust import denoised
from synthseg_slicer.scan import Scan, ScanWarning, read_scan, write_volume
from synthseg_slicer.weights import load_model
from synthseg_training.cli import main
from synthseg_training.evaluation.metrics import dice
from synthseg_training.export import export
from synthseg_training.generation import Generator
from synthseg_training.heart import clustering
from synthseg_training.heart.clustering import expectation_maximisation, fit_mixture, histogram, k_means
from synthseg_training.heart.phantom import draw_image, draw_thorax, label_map, write_thoraxes
from synthseg_training.heart.subdivide import (
    HIGHEST,
    Subdivision,
    encode,
    on_one_grid,
    output_of,
    structure_of,
    subdivide,
)
from synthseg_training.heart.tissues import CONTRASTS, INDEX, STRUCTURES
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.training import checkpoint
from synthseg_training.training.loop import fit, stage_config
from synthseg_training.training.recipe import load_recipe

RECIPE = Path(__file__).parents[2] / "SynthSegTraining" / "recipes" / "heart.yaml"
COARSE = 6.0
"""Voxel size in mm of phantoms that take no time."""


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def thorax():
    return draw_thorax(3, 4.0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Six coarse thoraxes with MR images, in two versions each."""
    folder = tmp_path_factory.mktemp("thoraxes")
    write_thoraxes(folder, 6, voxel_size=COARSE)
    maps = subdivide(folder, folder / "maps.npz", Subdivision(versions=2, voxel_size=COARSE), source="phantoms")
    return folder, maps


# -- clustering --------------------------------------------------------------------------------------------------------


def sample(rng, sizes, means, stds, whole=True):
    values = np.concatenate([rng.normal(m, s, n) for n, m, s in zip(sizes, means, stds)])
    return np.rint(values).astype(np.int16) if whole else values


@pytest.mark.parametrize(
    ("sizes", "means", "stds"),
    [
        ((4000, 2000), (60, 90), (8, 14)),
        ((9000, 1500, 3000), (10, 80, 200), (5, 15, 25)),
        ((5000, 3000, 3000, 500), (-800, -90, 60, 350), (60, 25, 20, 60)),
    ],
)
def test_mixture_equals_that_of_scikit_learn_from_the_same_start(rng, sizes, means, stds):
    data, k = sample(rng, sizes, means, stds), len(sizes)
    values, counts, width = histogram(data)
    assert width == 0 and counts.sum() == len(data)
    clusters = k_means(values, counts, k, rng)
    own = expectation_maximisation(values, counts, np.equal.outer(np.arange(k), clusters) * 1.0, least_variance=1e-6)
    column = data[:, None].astype(np.float64)  # of integers, scikit-learn overflows
    groups = [data[np.isin(data, values[clusters == j])] for j in range(k)]
    theirs = GaussianMixture(
        k,
        tol=1e-8,
        max_iter=5000,
        reg_covar=1e-6,
        weights_init=[len(group) / len(data) for group in groups],
        means_init=[[group.mean()] for group in groups],
        precisions_init=[[[1 / group.var()]] for group in groups],
    ).fit(column)
    order = np.argsort(theirs.means_[:, 0])
    assert own.log_likelihood == pytest.approx(theirs.score(column), abs=1e-6)
    np.testing.assert_allclose(own.means, theirs.means_[order, 0], atol=1e-3 * np.ptp(data))
    np.testing.assert_allclose(own.weights, theirs.weights_[order], atol=2e-3)
    np.testing.assert_allclose(np.sqrt(own.variances), np.sqrt(theirs.covariances_[order, 0, 0]), rtol=0.01)
    ranks = np.argsort(order)[theirs.predict(column)]
    assert (own.assign(data) == ranks).mean() > 0.995


@pytest.mark.parametrize("components", [2, 4, 8])
def test_a_chest_is_clustered_as_well_as_by_scikit_learn(thorax, components):
    image = draw_image(thorax[0], "mr", 0, 4.0).ravel()[::16].astype(np.float64)
    image += np.random.default_rng(0).uniform(-0.5, 0.5, len(image))  # no two alike: the histogram has bins
    own = fit_mixture(image, components, np.random.default_rng(0))
    theirs = GaussianMixture(components, tol=1e-6, max_iter=1000, random_state=0).fit(image[:, None])
    assert histogram(image)[2] > 0
    density = GaussianMixture(components)
    density.weights_, density.means_ = own.weights, own.means[:, None]
    density.covariances_ = own.variances[:, None, None]
    density.precisions_cholesky_ = 1 / np.sqrt(density.covariances_)
    assert density.score(image[:, None]) > theirs.score(image[:, None]) - 0.01
    assert own.log_likelihood == pytest.approx(density.score(image[:, None]), abs=0.01)


def test_the_likelihood_never_falls(rng, monkeypatch):
    values, counts, _ = histogram(sample(rng, (3000, 800, 1500), (20, 60, 90), (10, 12, 20)))
    start = rng.dirichlet(np.ones(3), len(values)).T
    found = []
    for iterations in (1, 2, 4, 8, 16, 64):
        monkeypatch.setattr(clustering, "ITERATIONS", iterations)
        found.append(expectation_maximisation(values, counts, start, least_variance=1e-6).log_likelihood)
    assert np.all(np.diff(found) > 0)


@settings(max_examples=40, deadline=None)
@given(
    data=st.lists(st.integers(-1000, 3000), min_size=1, max_size=60),
    components=st.integers(1, 10),
    seed=st.integers(0, 99),
)
def test_any_intensities_are_clustered(data, components, seed):
    data = np.array(data)
    mixture = fit_mixture(data, components, np.random.default_rng(seed))
    assert len(mixture.means) <= min(components, len(np.unique(data)))
    assert mixture.weights.sum() == pytest.approx(1) and (mixture.variances > 0).all()
    assert (np.diff(mixture.means) >= 0).all() and np.isfinite(mixture.log_likelihood)
    assert data.min() - 1 <= mixture.means[0] and mixture.means[-1] <= data.max() + 1
    assert mixture.assign(data).max() < len(mixture.means)


def test_zeros_around_a_masked_image_become_a_region_of_their_own(rng):
    data = np.concatenate([np.zeros(5000), rng.normal(100, 10, 3000), rng.normal(200, 10, 3000)])
    regions = fit_mixture(data, 3, rng).assign(data)
    assert (regions[:5000] == 0).all()
    assert (regions[5000:8000] == 1).mean() > 0.99 and (regions[8000:] == 2).mean() > 0.99


@pytest.mark.parametrize("data", [[], [1.0, np.nan], [np.inf, 2.0]])
def test_what_cannot_be_clustered_is_refused(data, rng):
    with pytest.raises(ValueError, match="finite intensities"):
        fit_mixture(np.array(data), 2, rng)
    with pytest.raises(ValueError, match="at least one component"):
        fit_mixture(np.arange(4), 0, rng)


# -- the phantom -------------------------------------------------------------------------------------------------------


def test_one_seed_gives_one_thorax_and_two_seeds_give_two(thorax):
    np.testing.assert_array_equal(thorax[0], draw_thorax(3, 4.0)[0])
    assert (thorax[0] != draw_thorax(4, 4.0)[0]).mean() > 0.1


@pytest.mark.parametrize("seed", range(4))
def test_hearts_are_of_human_size_and_in_one_piece(seed):
    labels = label_map(draw_thorax(seed, 4.0)[0])
    millilitres = {STRUCTURES[label]: (labels == label).sum() * 4.0**3 / 1000 for label in STRUCTURES}
    bounds = {"Myocardium": (50, 180), "Left-Atrium": (25, 110), "Left-Ventricle": (45, 180), "Right-Atrium": (25, 110),
              "Right-Ventricle": (40, 200), "Ascending-Aorta": (20, 110), "Pulmonary-Artery": (15, 90)}  # fmt: skip
    assert all(low < millilitres[name] < high for name, (low, high) in bounds.items()), millilitres
    for label in STRUCTURES:
        structure = labels == label
        assert largest_component(structure).sum() > 0.95 * structure.sum(), STRUCTURES[label]


@pytest.mark.parametrize("seed", range(4))
def test_structures_of_the_heart_lie_where_they_belong(seed):
    tissues, affine = draw_thorax(seed, 4.0)
    labels = label_map(tissues)
    place = {STRUCTURES[label]: affine[:3, :3] @ np.argwhere(labels == label).mean(0) for label in STRUCTURES}
    x, y, z = 0, 1, 2
    assert place["Left-Ventricle"][x] < place["Right-Atrium"][x]  # RAS: left is negative
    assert place["Left-Atrium"][y] < place["Right-Ventricle"][y]
    assert place["Ascending-Aorta"][z] > place["Left-Ventricle"][z]
    assert place["Pulmonary-Artery"][z] > place["Right-Ventricle"][z]
    cavity, wall = tissues == INDEX["left ventricle"], tissues == INDEX["lung"]
    for axis in range(3):  # myocardium lies between
        assert not (np.roll(cavity, 1, axis) & wall).any() and not (np.roll(cavity, -1, axis) & wall).any()


def test_contrasts_order_tissues_as_they_should(thorax):
    image = {contrast: draw_image(thorax[0], contrast, 1, 4.0) for contrast in CONTRASTS}

    def median(contrast, tissue):
        return np.median(image[contrast][thorax[0] == INDEX[tissue]])

    assert median("mr", "left ventricle") > 1.5 * median("mr", "myocardium")
    assert median("darkblood", "left ventricle") < 0.6 * median("darkblood", "myocardium")
    assert median("ct", "lung") < -500 < -150 < median("ct", "fat") < 0 < median("ct", "myocardium")
    assert median("ct", "left ventricle") > median("ct", "myocardium")
    with pytest.raises(ValueError, match="'pet'"):
        draw_image(thorax[0], "pet", 0)


# -- subdivided maps ---------------------------------------------------------------------------------------------------


@given(structure=st.integers(0, HIGHEST), region=st.integers(1, 99))
def test_a_region_knows_its_structure(structure, region):
    assert structure_of(encode(structure, region)) == structure
    assert encode(structure, region) < np.iinfo(np.int32).max


@given(seed=st.integers(0, 1000), low=st.integers(1, 10), more=st.integers(0, 9), versions=st.integers(1, 25))
def test_numbers_of_background_regions_differ_as_long_as_they_can(seed, low, more, versions):
    numbers = Subdivision(background=(low, low + more), versions=versions).draw(np.random.default_rng(seed))
    assert len(numbers) == versions and low <= min(numbers) and max(numbers) <= low + more
    assert len(set(numbers)) == min(versions, more + 1)


def test_regions_merge_back_to_what_was_drawn(prepared):
    folder, maps = prepared
    assert maps.names[:3] == ["mr_01-1", "mr_01-2", "mr_02-1"] and len(maps) == 12
    assert maps.voxel_size == COARSE and maps.source == "phantoms"
    labels = np.array(maps.labels)
    structures = {label for label in map(structure_of, maps.labels) if label}
    assert structures == set(STRUCTURES)
    assert all({encode(s, 1), encode(s, 2)} <= set(maps.labels) for s in structures)
    inner = (slice(1, -1),) * 3
    drawn = np.asarray(read_scan(folder / "mr_01_dseg.nii.gz").data)
    first, second = (labels[maps.maps[i].numpy()] for i in (0, 1))
    for version in (first, second):
        np.testing.assert_array_equal(structure_of(version[inner]), drawn)
        assert (version[inner] > 0).all()  # everything in the image is labelled
        assert not version[0].any() and not version[..., -1].any()
    np.testing.assert_array_equal(first[drawn_border(drawn)], second[drawn_border(drawn)])
    counts = [len(np.unique(version[version < 100])) - 1 for version in (first, second)]
    assert counts[0] != counts[1] and all(2 <= count <= 10 for count in counts)


def drawn_border(drawn: np.ndarray) -> np.ndarray:
    """Return where structures are on the grid of a map, which has a border."""
    return np.pad(drawn > 0, 1)


def test_regions_follow_the_intensities(tmp_path):
    image, labels = np.full((20, 20, 20), 10.0), np.zeros((20, 20, 20), np.int16)
    labels[5:15, 5:15, 5:15] = 500
    image[5:15, 5:15, 5:10], image[5:15, 5:15, 10:15] = 200, 100
    image[:, :3], image[:, 17:] = 50, 90
    image += np.random.default_rng(0).normal(0, 1, image.shape)
    write_volume(tmp_path / "a_image.nii.gz", image.astype(np.float32), np.eye(4))
    write_volume(tmp_path / "a_dseg.nii.gz", labels, np.eye(4))
    maps = subdivide(tmp_path, tmp_path / "maps.npz", Subdivision(versions=1, background=(3, 3)))
    read = LabelMapSet.load(tmp_path / "maps.npz")
    assert read.labels == maps.labels == (0, 1, 2, 3, 50001, 50002)
    found = np.array(read.labels)[read.maps[0].numpy()][1:-1, 1:-1, 1:-1]
    assert (found[5:15, 5:15, 5:10] == 50002).all() and (found[5:15, 5:15, 10:15] == 50001).all()
    assert (found[:, :3] == 2).all() and (found[:, 17:] == 3).all() and (found[0, 5] == 1).all()
    assert output_of(maps.labels) == {50001: 500, 50002: 500}


def test_scan_and_labels_on_different_grids_meet_on_one(thorax):
    tissues, affine = thorax
    thick = affine @ np.diag([1, 1, 2, 1.0])
    thick[2, 3] += 2  # the middle of two slices
    scan = Scan(draw_image(tissues, "mr", 0, 4.0)[..., ::2].astype(np.float32), thick)
    flipped = affine @ np.array([[-1, 0, 0, tissues.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    image, labels = on_one_grid(scan, Scan(label_map(tissues)[::-1], flipped), 4.0)
    assert image.shape == labels.shape == tissues.shape
    assert (labels == label_map(tissues)).mean() > 0.999


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.linspace(0, 5, 8000, dtype=np.float32).reshape(20, 20, 20), "is no label map"),
        (np.where(np.arange(8000) < 9, HIGHEST + 1, 0).reshape(20, 20, 20).astype(np.int32), "is no label map"),
    ],
)
def test_what_is_no_label_map_is_named(tmp_path, labels, message, rng):
    write_volume(tmp_path / "a_image.nii.gz", rng.normal(50, 9, (20, 20, 20)).astype(np.float32), np.eye(4))
    write_volume(tmp_path / "a_dseg.nii.gz", labels, np.eye(4))
    with pytest.raises(ScanError, match=rf"a_dseg\.nii\.gz: {message}"):
        subdivide(tmp_path, tmp_path / "maps.npz")
    assert not (tmp_path / "maps.npz").exists()


def test_labels_beside_the_scan_are_refused(rng):
    far = np.eye(4)
    far[:3, 3] = 500
    labels = np.zeros((20, 20, 20), np.int16)
    labels[5:9] = 500
    with pytest.raises(ScanError, match="belong together"):
        on_one_grid(Scan(rng.normal(50, 9, (20, 20, 20)), np.eye(4)), Scan(labels, far), 1.0)


@pytest.mark.parametrize(
    "wrong", [{"regions": 0}, {"background": (5, 3)}, {"background": (0, 3)}, {"versions": 0}, {"background": (3, 100)}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(OptionError):
        Subdivision(**wrong)


# -- the generative model and the network ------------------------------------------------------------------------------


def test_regions_differ_in_the_image_and_are_one_in_the_target(prepared):
    _, maps = prepared
    recipe = load_recipe(RECIPE)
    config = stage_config(recipe, recipe.stages[-1], recipe.stages[-1].steps)
    generator = Generator(maps, dataclasses.replace(config, crop=32, voxel_size=4.0))
    assert generator.config.output_ids == (0, *sorted(STRUCTURES))
    rng = torch.Generator().manual_seed(0)
    merged = dict.fromkeys(STRUCTURES, 0)
    for _ in range(6):
        parameters = generator.draw(rng)
        assert not parameters.flipped
        deformed, table = generator.deformed_labels(parameters)
        assert torch.equal(table, torch.arange(len(maps.labels), dtype=torch.int32))  # no edit of labels
        _, target = generator.apply(parameters)
        for structure in STRUCTURES:
            parts = [maps.labels.index(encode(structure, region)) for region in (1, 2)]
            assert len(set(parameters.gmm.means[parts].tolist())) == 2  # a Gaussian each
            region = torch.isin(deformed, torch.tensor(parts, dtype=torch.int32))
            assert torch.equal(region, target == config.output_ids.index(structure))
            merged[structure] += len(deformed[region].unique()) == 2
    assert all(count > 0 for count in merged.values())


MUON = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs PyTorch 2.9")
SMALL = (
    "network.widths=[16, 32]", "network.fine_width=8", "ema=0.95", "generator.spatial.surroundings=40",
    f"stages=[{{steps: 250, crop: 20, voxel_size: {COARSE}, loss: dice_ce, rate: 1e-2, final_rate: 3e-4, warmup: 10,"
    " difficulty: [0.2, 0.4], coarse_weight: 0.3}]",
)  # fmt: skip
"""The recipe cut down to ten seconds."""


def mr_priors(folder: Path, maps: LabelMapSet) -> dict[int, dict]:
    """Return priors of one contrast, from the images: in seconds, a network learns no more than that."""
    means: dict[int, list[float]] = {}
    for name, regions in zip(maps.names, maps.maps):
        image = read_scan(folder / f"{name.removesuffix('-1')}_image.nii.gz").data
        inner = regions.numpy()[1:-1, 1:-1, 1:-1]
        for index in np.unique(inner):
            means.setdefault(maps.labels[index], []).append(float(image[inner == index].mean()))
    return {label: {"mean": [min(found), max(found)], "std": [2.0, 20.0]} for label, found in means.items()}


def mean_dice(labels: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([dice(labels == label, truth == label) for label in STRUCTURES]))


def most_frequent(maps: list[np.ndarray]) -> np.ndarray:
    """Return each voxel's most frequent label: the best segmentation that takes no notice of the image."""
    ids = np.array([0, *STRUCTURES])
    return ids[np.argmax([sum(labels == i for labels in maps) for i in ids], 0)]


@MUON
def test_a_small_network_learns_the_heart_and_segments_through_the_extension(prepared, tmp_path):
    folder, _ = prepared
    maps = subdivide(folder, tmp_path / "maps.npz", Subdivision(versions=1, background=(5, 5), voxel_size=COARSE))
    recipe = load_recipe(RECIPE, SMALL)
    recipe.generator["gmm"]["priors"] = mr_priors(folder, maps)
    last = fit(recipe, maps, tmp_path, device="cpu")
    weights = export(recipe, last, tmp_path / "heart.pt", maps=maps, norm_samples=16)
    model = load_model(path=weights)
    assert model.ids == (0, *sorted(STRUCTURES)) and model.names == {0: "Background", **STRUCTURES}
    assert (model.voxel_size, model.mirrored, model.ct_window) == (COARSE, False, (-200, 600))
    unseen = write_thoraxes(tmp_path / "unseen", 3, seed=500, voxel_size=COARSE)
    constant = most_frequent([np.asarray(read_scan(path).data) for path in folder.glob("*_dseg.nii.gz")])
    scores, floor = [], []
    for path in unseen:
        result = segment(path, model=model)
        truth = read_scan(str(path).replace("_image", "_dseg"))
        assert result.labels.shape == truth.shape and result.provenance["options"]["voxel_size_mm"] == COARSE
        scores.append(mean_dice(result.labels, truth.data))
        floor.append(mean_dice(constant, truth.data))
    assert np.mean(floor) > 0.4  # phantoms lie in the middle: not a low one
    assert np.mean(scores) > np.mean(floor) + 0.1, (scores, floor)
    labels, volumes = tmp_path / "labels.nii.gz", tmp_path / "volumes.csv"
    once = ["segment", str(unseen[0]), "--model", str(weights), "-o", str(labels), "--fast", "--volumes", str(volumes)]
    assert slicer(once) == 0
    twice = segment(unseen[0], model=model)
    np.testing.assert_array_equal(read_scan(labels).data, twice.labels)  # never mirrored
    assert volumes.read_text().splitlines()[-1].startswith(f"{TOTAL},")


@MUON
def test_every_stage_of_the_recipe_trains(prepared, tmp_path):
    """Its optimizer must also do without the full-resolution branch, which the first stage leaves out."""
    # Crops half as large would leave 2 x 2 x 2 voxels to the lowest level, for which oneDNN (in PyTorch 2.13, AVX-512)
    # returns uninitialised memory as the gradient of bfloat16 kernels.
    crops = (24, 48, 48)
    short = [
        f"stages.{i}.{key}={value}" for i, crop in enumerate(crops) for key, value in (("steps", 1), ("crop", crop))
    ]
    recipe = load_recipe(RECIPE, short)
    assert recipe.optimizer == "muon" and recipe.stages[0].trunk_only and recipe.stages[2].frozen_norm
    torch.manual_seed(recipe.seed)
    states = [build(**recipe.network).state_dict()]
    for _ in recipe.stages:  # a step each
        content = checkpoint.load(fit(recipe, prepared[1], tmp_path, max_minutes=0, device="cpu"))
        assert content["step"] == len(states)
        states.append(content["network"])
    kernels = [name for name, value in states[0].items() if value.ndim == 5 and not name.startswith("fine")]
    for before, after in itertools.pairwise(states):
        assert all(torch.isfinite(after[name]).all() for name in after)
        assert all(not torch.equal(after[name], before[name]) for name in kernels)
    untrained, trunk, whole, still = (state["fine_head.weight"] for state in states)
    assert torch.equal(trunk, untrained) and not torch.equal(whole, trunk) and not torch.equal(still, whole)


def test_the_command_line_draws_and_subdivides(tmp_path, capsys):
    folder, maps = tmp_path / "thoraxes", tmp_path / "maps.npz"
    draw = ["phantom", str(folder), "--kind", "thorax", "-n", "1", "--voxel-size", "6"]
    assert main([*draw, "--contrasts", "mr", "ct"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{contrast}_01_{kind}.nii.gz" for contrast in ("ct", "mr") for kind in ("dseg", "image")
    ]
    split = [
        "subdivide",
        str(folder),
        "-o",
        str(maps),
        "--voxel-size",
        "6",
        "--versions",
        "3",
        "--background",
        "4",
        "6",
    ]
    assert main([*split, "--licence", "none"]) == 0
    assert "20501: 205" in capsys.readouterr().out
    read = LabelMapSet.load(maps)
    assert len(read) == 6 and read.licence == "none" and max(label for label in read.labels if label < 100) == 6
    assert main(["phantom", str(tmp_path / "heads"), "--contrasts", "ct"]) == 2
    assert "--kind thorax" in capsys.readouterr().err


# -- what Logic knows of other anatomies than the brain ----------------------------------------------------------------


def test_ct_is_clipped_to_the_window_of_the_weights(thorax):
    tissues, affine = thorax
    scan = Scan(draw_image(tissues, "ct", 0, 4.0), affine)
    blood, muscle = (tissues == INDEX[tissue] for tissue in ("left ventricle", "myocardium"))
    heart = conform(scan, ct=True, voxel_size=4.0, ct_window=(-200, 600)).image
    with pytest.warns(ScanWarning, match="above 80 HU"):
        brain = conform(scan, ct=True, voxel_size=4.0).image
    assert np.median(heart[blood]) - np.median(heart[muscle]) > 0.15
    assert np.median(brain[blood]) == np.median(brain[muscle]) == 1  # a brain's window


def test_noise_is_smoothed_over_the_same_millimetres_at_any_voxel_size(rng):
    fine = rng.normal(size=(64, 64, 64)).astype(np.float32)
    fine = denoised(fine)  # something smooth enough to be sampled
    coarse = fine[::2, ::2, ::2]
    inner = (slice(6, -6),) * 3
    close = np.corrcoef(denoised(coarse, 2.0)[inner].ravel(), denoised(fine)[::2, ::2, ::2][inner].ravel())[0, 1]
    same_voxels = np.corrcoef(denoised(coarse)[inner].ravel(), denoised(fine)[::2, ::2, ::2][inner].ravel())[0, 1]
    assert close > 0.98 > same_voxels
