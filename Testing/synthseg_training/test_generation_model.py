"""The whole generative model on phantom heads: replay, label edits, targets, curriculum, other anatomies."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch

from synthseg_slicer.errors import OptionError
from synthseg_slicer.labels import BRAIN_IDS, BRAIN_PARTNERS
from synthseg_training.generation import (
    Anatomy,
    BiasField,
    Flip,
    Gamma,
    GaussianMixture,
    Generator,
    GeneratorConfig,
    Lesions,
    Resolution,
    SkullStripping,
    Spatial,
)
from synthseg_training.generation.anatomy import EXTRACEREBRAL
from synthseg_training.generation.edits import SkullStrippingParameters
from synthseg_training.labelmaps import LabelMapSet, prepare
from synthseg_training.phantom import write_phantoms

CONFIG = GeneratorConfig(crop=40, voxel_size=4.0)


@pytest.fixture(scope="module")
def maps(tmp_path_factory) -> LabelMapSet:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 2, voxel_size=4.0)
    return prepare(folder, folder / "maps.npz")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def edited(generator: Generator, parameters) -> np.ndarray:
    """Return the label of each voxel after deformation and all edits."""
    labels, table = generator.deformed_labels(parameters)
    return np.array(generator.labels)[table[labels].numpy()]


def test_samples_have_the_promised_shape_type_and_range(maps):
    generator = Generator(maps, CONFIG)
    for seed in range(6):
        image, target = generator.sample(rng(seed))
        assert image.shape == (1, 40, 40, 40) and image.dtype == torch.float32
        assert target.shape == (40, 40, 40) and target.dtype == torch.uint8
        assert torch.isfinite(image).all() and image.min() >= 0 and image.max() <= 1
        assert image.max() > image.min()


def test_one_seed_gives_one_sample_and_two_seeds_give_two(maps):
    generator = Generator(maps, CONFIG)
    first, again, other = (generator.sample(rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_a_sample_replays_from_its_parameters_and_leaves_them_as_they_are(maps):
    generator = Generator(maps, CONFIG)
    parameters = generator.draw(rng(5))
    first, second = generator.apply(parameters), generator.apply(parameters)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert torch.equal(generator.sample(rng(5))[0], first[0])


def test_parameters_can_be_saved_without_pickled_code(maps):
    parameters = dataclasses.asdict(Generator(maps, CONFIG).draw(rng()))
    file = io.BytesIO()
    torch.save(parameters, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded["seed"] == parameters["seed"]
    assert torch.equal(loaded["spatial"]["velocity"], parameters["spatial"]["velocity"])


def test_the_global_random_state_plays_no_part(maps):
    generator = Generator(maps, CONFIG)
    torch.manual_seed(1)
    first = generator.sample(rng(2))[0]
    torch.manual_seed(2)
    assert torch.equal(generator.sample(rng(2))[0], first)


def test_targets_hold_the_33_segmentation_labels_and_no_other(maps):
    config = GeneratorConfig(crop=64, voxel_size=3.5, spatial=Spatial(probability=0), skull_stripping=SkullStripping(0))
    generator = Generator(maps, config)
    assert generator.config.output_ids == BRAIN_IDS
    _, target = generator.sample(rng())
    assert set(target.unique().tolist()) == set(range(33))
    parameters = generator.draw(rng())
    labels = edited(generator, parameters)
    target = np.array(BRAIN_IDS)[generator.apply(parameters)[1].numpy()]
    merged = {25: 2, 57: 41, 136: 4, 137: 5, 163: 43, 164: 44}
    for label in np.unique(labels):
        expected = merged.get(label, label if label in BRAIN_IDS else 0)
        assert set(np.unique(target[labels == label])) == {expected}


def test_a_mirrored_sample_has_left_and_right_swapped(maps):
    generator = Generator(maps, CONFIG)
    parameters = generator.draw(rng(1))
    plain, mirrored = (edited(generator, dataclasses.replace(parameters, flipped=axes)) for axes in ((), (0,)))
    partner = {**generator.config.anatomy.pairs, **{r: left for left, r in generator.config.anatomy.pairs.items()}}
    swapped = np.vectorize(lambda label: partner.get(label, label))(plain)
    assert (plain != mirrored).any()
    np.testing.assert_array_equal(mirrored, swapped[::-1])


def test_other_axes_are_mirrored_without_swapping_sides(maps):
    generator = Generator(maps, CONFIG)
    parameters = generator.draw(rng(1))
    plain, turned, whole = (
        edited(generator, dataclasses.replace(parameters, flipped=axes)) for axes in ((), (1, 2), (0, 1, 2))
    )
    np.testing.assert_array_equal(turned, plain[:, ::-1, ::-1])
    partner = {**generator.config.anatomy.pairs, **{r: left for left, r in generator.config.anatomy.pairs.items()}}
    swapped = np.vectorize(lambda label: partner.get(label, label))(plain)
    np.testing.assert_array_equal(whole, swapped[::-1, ::-1, ::-1])


def test_each_axis_is_mirrored_with_its_probability():
    source, flip = rng(), Flip(0.8, anterior_posterior=0.5, inferior_superior=0.2)
    drawn = [flip.draw(source) for _ in range(1500)]
    assert [np.mean([axis in axes for axes in drawn]) for axis in range(3)] == pytest.approx([0.8, 0.5, 0.2], abs=0.045)
    assert {axes for axes in drawn} == {(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)}


def test_mirroring_left_to_right_alone_takes_one_random_number():
    """The weights' recipes were trained so: they draw the same samples again."""
    source, reference = rng(3), rng(3)
    drawn = [Flip().draw(source) for _ in range(50)]
    assert drawn == [(0,) if torch.rand((), generator=reference).item() < 0.5 else () for _ in range(50)]
    assert torch.equal(source.get_state(), reference.get_state())


def test_skull_stripping_leaves_no_extracerebral_label_and_all_else(maps):
    generator = Generator(maps, CONFIG)
    parameters = dataclasses.replace(generator.draw(rng(1)), skull_stripping=SkullStrippingParameters(False, False))
    whole = edited(generator, parameters)
    stripped = edited(generator, dataclasses.replace(parameters, skull_stripping=SkullStrippingParameters(True, False)))
    outside = np.isin(whole, EXTRACEREBRAL)
    assert outside.any()
    assert not stripped[outside].any()
    np.testing.assert_array_equal(stripped[~outside], whole[~outside])
    bare = edited(generator, dataclasses.replace(parameters, skull_stripping=SkullStrippingParameters(True, True)))
    assert (stripped == 24).any() and not (bare == 24).any()
    np.testing.assert_array_equal(bare[stripped != 24], stripped[stripped != 24])


def test_dropped_fluid_is_background_in_the_target_too(maps):
    generator = Generator(maps, CONFIG)
    parameters = dataclasses.replace(generator.draw(rng(1)), skull_stripping=SkullStrippingParameters(True, True))
    assert BRAIN_IDS.index(24) not in generator.apply(parameters)[1].unique()


def test_lesions_replace_white_matter_only(maps):
    generator = Generator(maps, dataclasses.replace(CONFIG, spatial=Spatial(probability=0)))
    parameters = dataclasses.replace(generator.draw(rng(1)), flipped=())
    pasted, plain = (edited(generator, dataclasses.replace(parameters, lesions=flag)) for flag in (True, False))
    changed = pasted != plain
    assert changed.any()
    assert set(zip(plain[changed].tolist(), pasted[changed].tolist())) <= {(2, 25), (41, 57)}
    assert not np.isin(plain, (25, 57)).any()


def test_edits_happen_with_their_probabilities(maps):
    generator = Generator(maps, CONFIG)
    source = rng()
    drawn = [generator.draw(source) for _ in range(1500)]
    share = {
        "flipped": np.mean([0 in p.flipped for p in drawn]),
        "lesions": np.mean([p.lesions for p in drawn]),
        "stripped": np.mean([p.skull_stripping.stripped for p in drawn]),
        "first map": np.mean([p.map_index == 0 for p in drawn]),
    }
    assert share == pytest.approx(dict.fromkeys(share, 0.5), abs=0.045)
    bare = np.mean([p.skull_stripping.fluid_dropped for p in drawn if p.skull_stripping.stripped])
    assert bare == pytest.approx(0.3, abs=0.055)
    assert not any(p.skull_stripping.fluid_dropped and not p.skull_stripping.stripped for p in drawn)


def test_with_everything_off_the_image_is_one_value_a_class(maps):
    config = GeneratorConfig(
        crop=30,
        voxel_size=4.0,
        spatial=Spatial(probability=0),
        flip=Flip(0),
        skull_stripping=SkullStripping(0),
        lesions=Lesions(0),
        gmm=GaussianMixture(std=(0.0, 0.0), background_zero=1.0, background_dark=0.0),
        bias=BiasField(probability=0),
        gamma=Gamma(probability=0),
        resolution=Resolution(probability=0),
    )
    generator = Generator(maps, config)
    parameters = generator.draw(rng())
    image, labels = generator.apply(parameters)[0][0].numpy(), edited(generator, parameters)
    means = dict(zip(generator.labels, parameters.gmm.means.tolist()))
    expected = np.vectorize(means.get)(labels)
    low, high = expected.min(), expected.max()
    np.testing.assert_allclose(image, (expected - low) / (high - low), atol=1e-5)


def test_nearly_every_crop_contains_brain(maps):
    generator = Generator(maps, GeneratorConfig(crop=16, voxel_size=4.0))
    source = rng()
    foreground = [(generator.sample(source)[1] > 0).float().mean().item() for _ in range(40)]
    assert np.mean(np.array(foreground) > 0.02) > 0.9


def test_a_crop_larger_than_the_map_holds_the_whole_brain(maps):
    generator = Generator(maps, GeneratorConfig(crop=72, voxel_size=4.0, spatial=Spatial(probability=0)))
    _, target = generator.sample(rng())
    assert set(BRAIN_IDS.index(label) for label in (2, 41, 16, 8, 47)) <= set(target.unique().tolist())


def test_half_resolution_shows_the_same_labels(maps):
    fine, coarse = (Generator(maps, GeneratorConfig(crop=n, voxel_size=v)) for n, v in ((48, 2.0), (24, 4.0)))
    parameters = dataclasses.replace(fine.draw(rng(3)), skull_stripping=SkullStrippingParameters(False, False))
    a, b = (generator.apply(parameters)[1] for generator in (fine, coarse))
    blocks = torch.stack([a[i::2, j::2, k::2] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    assert (blocks == b).any(0).float().mean() > 0.98


def test_difficulty_scales_from_nothing_to_the_whole(maps):
    assert CONFIG.scaled(1.0) == CONFIG
    easy = CONFIG.scaled(0.0)
    parameters = Generator(maps, easy).draw(rng())
    assert parameters.spatial.matrix == torch.eye(3).tolist() and parameters.spatial.velocity is None
    assert parameters.bias is None or parameters.bias.abs().max() == 0
    assert parameters.gamma == 0 and parameters.resolution.axes == []
    assert parameters.gmm.stds[1:].max() == 0
    half = CONFIG.scaled(0.5)
    assert (half.spatial.rotation, half.spatial.velocity, half.bias.sigma, half.gamma.sigma) == (7.5, 2.0, 0.35, 0.25)
    assert half.gmm.std == (0.0, 17.5) and half.resolution.anisotropic == (1.0, 4.5)
    with pytest.raises(OptionError, match="between 0 and 1"):
        CONFIG.scaled(1.5)


def test_another_anatomy_is_a_matter_of_settings():
    heart = torch.zeros(12, 12, 12, dtype=torch.uint8)
    heart[2:10, 2:10, 2:10] = 1
    heart[4:8, 4:8, 4:8] = 2
    anatomy = Anatomy(output={500: 1}, pairs={}, shared=((500, 600),), removable=(600,), fluid=(), lesions={})
    config = GeneratorConfig(crop=12, anatomy=anatomy, flip=Flip(0), spatial=Spatial(probability=0, surroundings=0))
    generator = Generator(LabelMapSet([heart], (0, 500, 600), ["heart"]), config)
    assert Generator(LabelMapSet([heart], (0, 500, 600), ["heart"])).draw(rng())  # labels that the brain lacks
    assert config.output_ids == (0, 1) and anatomy.output_partners == {0: 0, 1: 1}
    parameters = generator.draw(rng())
    assert parameters.gmm.means[1] == parameters.gmm.means[2]
    _, target = generator.apply(parameters)
    assert set(target.unique().tolist()) == {0, 1}


def test_partners_of_the_brain_are_those_of_the_segmentation():
    assert Anatomy().output_partners == BRAIN_PARTNERS


def test_no_maps_is_an_error():
    with pytest.raises(OptionError, match="no label maps"):
        Generator(LabelMapSet([], (0,), []), CONFIG)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_samples_are_made_on_the_device_without_waiting_for_it(maps):
    generator = Generator(maps.to("cuda"), CONFIG)
    reference = Generator(maps, CONFIG)
    parameters = [generator.draw(rng(seed)) for seed in range(8)]
    generator.apply(parameters[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        samples = [generator.apply(p) for p in parameters]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for p, (image, target) in zip(parameters, samples):
        assert image.is_cuda and target.is_cuda
        assert (target.cpu() == reference.apply(p)[1]).float().mean() > 0.999
