"""Gaussian mixture, bias field and gamma: their draws follow the priors, their results the parameters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from synthseg_training.generation import Anatomy, BiasField, ClassPrior, Gamma, GaussianMixture
from synthseg_training.generation.anatomy import brain_label_names
from synthseg_training.generation.gmm import GaussianParameters

LABELS = tuple(brain_label_names())
BRAIN = Anatomy()


def draws(mixture: GaussianMixture, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return means and standard deviations ``[draws, labels]``, and the contrasts."""
    rng = torch.Generator().manual_seed(0)
    drawn = [mixture.draw(rng, LABELS, BRAIN) for _ in range(count)]
    means, stds = (np.stack([getattr(d, name).numpy() for d in drawn]) for name in ("means", "stds"))
    return means, stds, [d.contrast for d in drawn]


def column(values: np.ndarray, label: int) -> np.ndarray:
    return values[:, LABELS.index(label)]


def test_means_and_spreads_are_uniform_within_the_papers_bounds():
    means, stds, contrasts = draws(GaussianMixture(), 600)
    foreground, spread = means[:, 1:], stds[:, 1:]
    assert set(contrasts) == {"random"}
    assert 0 <= foreground.min() and foreground.max() <= 255
    assert abs(foreground.mean() - 127.5) < 3 and abs(foreground.std() - 255 / math.sqrt(12)) < 2
    assert 0 <= spread.min() and 34 < spread.max() <= 35
    assert abs(spread.mean() - 17.5) < 0.5


def test_there_are_48_classes_left_and_right_apart():
    means, _, _ = draws(GaussianMixture(), 3)
    assert len(np.unique(means[0])) == 48
    for group in BRAIN.shared:
        assert len({float(column(means, label)[0]) for label in group}) == 1
    assert column(means, 2)[0] != column(means, 41)[0]


def test_background_is_zero_dark_or_anything_in_the_right_shares():
    means, stds, _ = draws(GaussianMixture(), 4000)
    mean, std = column(means, 0), column(stds, 0)
    zero = (mean == 0) & (std == 0)
    bright = mean > 15
    assert abs(zero.mean() - 0.05) < 0.012
    assert abs(bright.mean() - 0.70 * (1 - 15 / 255)) < 0.025
    dark = ~zero & ~bright
    assert abs(dark.mean() - (0.25 + 0.70 * 15 / 255)) < 0.025


def test_a_class_prior_overrides_the_rule_uniform_or_normal():
    prior = {2: ClassPrior((100, 110), (2, 3)), 0: ClassPrior((40, 41), (0, 0))}
    means, stds, _ = draws(GaussianMixture(priors=prior), 200)
    assert 100 <= column(means, 2).min() and column(means, 2).max() <= 110
    assert 2 <= column(stds, 2).min() and column(stds, 2).max() <= 3
    assert 40 <= column(means, 0).min() and column(means, 0).max() <= 41
    assert column(means, 41).max() > 200
    means, _, _ = draws(GaussianMixture(priors={2: ClassPrior((100, 10), (5, 1))}, normal=True), 500)
    assert abs(column(means, 2).mean() - 100) < 2 and abs(column(means, 2).std() - 10) < 1


@pytest.mark.parametrize(
    ("contrast", "darkest_to_brightest"),
    [("t1", (4, 3, 2)), ("t2", (2, 3, 4)), ("pd", (2, 3, 4)), ("flair", (4, 2, 3)), ("ct", (4, 3, 515))],
)
def test_realistic_contrasts_order_the_tissues_and_treat_both_sides_alike(contrast, darkest_to_brightest):
    means, stds, names = draws(GaussianMixture(realistic_share=1.0, contrasts=(contrast,)), 200)
    assert set(names) == {contrast}
    ordered = [column(means, label).mean() for label in darkest_to_brightest]
    assert ordered == sorted(ordered)
    for left, right in BRAIN.pairs.items():
        np.testing.assert_array_equal(column(means, left), column(means, right))
        np.testing.assert_array_equal(column(stds, left), column(stds, right))
    assert column(means, 2).std() > 8
    assert stds.max() <= 12


def test_the_share_of_realistic_samples_is_as_asked():
    _, _, names = draws(GaussianMixture(realistic_share=0.3), 800)
    assert abs(np.mean([name != "random" for name in names]) - 0.3) < 0.05


def image_of(voxel_size: float = 1.0, seed: int = 1, mean: float = 100.0, std: float = 8.0) -> torch.Tensor:
    parameters = GaussianParameters(torch.tensor([0.0, mean]), torch.tensor([0.0, std]), "random")
    labels = torch.zeros(32, 32, 32, dtype=torch.int32)
    labels[16:] = 1
    return GaussianMixture().apply(labels, parameters, torch.tensor([0, 1], dtype=torch.int32), seed, voxel_size)


def test_voxels_follow_the_gaussian_of_their_label():
    image = image_of()
    assert image[:16].abs().max() == 0
    assert image[16:].mean() == pytest.approx(100, abs=0.3)
    assert image[16:].std() == pytest.approx(8, abs=0.2)


def test_larger_voxels_carry_the_noise_of_the_average_of_small_ones():
    averaged = torch.nn.functional.avg_pool3d(image_of()[None], 2)[0, 8:]
    assert image_of(voxel_size=2.0)[16:].std().item() == pytest.approx(averaged.std().item(), rel=0.05)


def test_no_intensity_is_negative():
    assert image_of(mean=5.0, std=30.0).min() == 0


def test_noise_depends_on_the_seed_alone():
    assert torch.equal(image_of(seed=1), image_of(seed=1))
    assert not torch.equal(image_of(seed=1), image_of(seed=2))


def test_bias_field_multiplies_smoothly_by_the_exponential_of_its_nodes():
    nodes = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.7
    field = BiasField().apply(torch.ones(48, 48, 48), nodes)
    assert field.log().max() <= nodes.max() and field.log().min() >= nodes.min()
    assert field.log()[0, 0, 0] == pytest.approx(nodes[0, 0, 0].item(), abs=0.1)
    assert field.log()[-1, 0, -1] == pytest.approx(nodes[-1, 0, -1].item(), abs=0.1)
    assert field.log().diff(dim=1).abs().max() < 0.3
    torch.testing.assert_close(BiasField().apply(torch.ones(8, 8, 8) * 3, None), torch.full((8, 8, 8), 3.0))


def test_bias_draws_follow_their_priors():
    bias, rng = BiasField(), torch.Generator().manual_seed(0)
    fields = [bias.draw(rng, 160.0) for _ in range(1000)]
    some = [field for field in fields if field is not None]
    assert abs(len(some) / len(fields) - 0.95) < 0.025
    assert {field.shape for field in some} == {(4, 4, 4)}
    spreads = np.array([field.square().mean().sqrt().item() for field in some])
    assert abs(spreads.mean() - 0.35) < 0.03 and spreads.max() < 0.95


def test_gamma_clips_rescales_and_bends():
    image = torch.tensor([-5.0, 0, 75, 150, 300, 900]).reshape(1, 1, 6)
    bent = Gamma().apply(image.clone(), math.log(2.0))
    torch.testing.assert_close(bent.flatten(), torch.tensor([0, 0, 0.0625, 0.25, 1, 1]))
    assert torch.equal(Gamma().apply(torch.full((2, 2, 2), 7.0), 0.4), torch.zeros(2, 2, 2))


def test_gamma_draws_are_normal():
    rng = torch.Generator().manual_seed(0)
    gammas = np.array([Gamma(sigma=0.5).draw(rng) for _ in range(2000)])
    assert abs(gammas.mean()) < 0.04 and abs(gammas.std() - 0.5) < 0.03
    assert Gamma(probability=0.0).draw(rng) == 0


def test_smooth_variation_within_labels_has_its_amplitude_and_none_by_default():
    labels = (0, 2, 3)
    assert GaussianMixture().draw(torch.Generator().manual_seed(0), labels, Anatomy()).variation is None
    mixture = GaussianMixture(variation=10.0)
    parameters = mixture.draw(torch.Generator().manual_seed(0), labels, Anatomy())
    flat = GaussianParameters(torch.full((3,), 100.0), torch.zeros(3), "random", torch.tensor([0.0, 5.0, 20.0]))
    volume = (torch.arange(64) // 22).to(torch.int32)[:, None, None].expand(64, 64, 64).contiguous()
    image = mixture.apply(volume, flat, torch.arange(3, dtype=torch.int32), 7)
    spread = [image[volume == label].std().item() for label in range(3)]
    assert spread[0] == 0 and 3 < spread[1] < 8 and 3 < spread[2] / spread[1] < 5.5
    steps = (image[1:] - image[:-1])[volume[1:] == volume[:-1]].abs()
    assert steps.mean() < 0.2 * spread[2]  # smooth
    assert parameters.variation.shape == (3,)
