"""Samples of the stroke task take the scale and level that they have in a whole scan."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from synthseg_slicer.conform import standardise
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.stroke import StrokeConfig, StrokeGenerator
from synthseg_training.stroke.statistics import HeadStatistics


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_scale_and_level_lie_within_their_bounds_and_sometimes_there_are_none():
    drawn = [HeadStatistics(0.75).draw(generator) for generator in [rng()] for _ in range(2000)]
    given = torch.tensor([values for values in drawn if values])
    assert len(given) / len(drawn) == pytest.approx(0.75, abs=0.03)
    assert 1 <= given[:, 0].min() < 1.02 and 1.96 < given[:, 0].max() <= 2
    assert given[:, 0].log().mean().item() == pytest.approx(0.5 * torch.tensor(2.0).log().item(), abs=0.02)
    assert 0.42 <= given[:, 1].min() < 0.43 and 0.64 < given[:, 1].max() <= 0.65


def test_a_crop_becomes_what_it_is_in_the_scan():
    scan = torch.rand(40, 40, 40, generator=rng(1)) * 0.4 + 0.2
    scan[:, :20] += 0.35  # brighter than all of the crop, such as fat
    crop = slice(5, 15), slice(22, 38), slice(5, 35)
    whole, alone = standardise(scan)[crop], standardise(scan[crop])
    scale = float(alone.std() / whole.std())
    assert scale > 1.3  # alone it has more contrast
    torch.testing.assert_close(HeadStatistics().apply(alone, (scale, float(whole.mean()))), whole)


def test_off_it_takes_no_random_number_and_changes_nothing():
    generator, image = rng(), torch.rand(4, 4, 4)
    before = generator.get_state()
    assert HeadStatistics().draw(generator) is None
    assert torch.equal(generator.get_state(), before) and HeadStatistics().apply(image, None) is image


def test_the_generator_changes_contrast_and_level_only():
    label_map = torch.zeros(30, 30, 30, dtype=torch.uint8)
    label_map[5:25, 5:25, 5:25], label_map[12:20, 12:20, 12:20] = 1, 2
    maps = LabelMapSet([label_map], (0, 3, 2), ["cubes"])
    plain = StrokeGenerator(maps, StrokeConfig(crop=32))
    parameters = plain.draw(rng(4))
    assert parameters.statistics is None
    image, target = plain.apply(parameters)
    other, same = plain.apply(replace(parameters, statistics=(1.6, 0.6)))
    assert torch.equal(target, same)
    assert other.std().item() == pytest.approx(image.std().item() / 1.6, rel=1e-4)
    assert torch.corrcoef(torch.stack([image.flatten(), other.flatten()]))[0, 1] > 0.9999
    always = StrokeGenerator(maps, StrokeConfig(crop=32, statistics=HeadStatistics(probability=1.0)))
    assert always.draw(rng(4)).statistics is not None
