"""The procedural head: complete, reproducible, varied, and plausible enough to train on."""

from __future__ import annotations

import numpy as np
import pytest

from synthseg_training.generation.anatomy import BRAIN_PAIRS, brain_label_names
from synthseg_training.labelmaps import prepare
from synthseg_training.phantom import draw_phantom, write_phantoms


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("voxel_size", [2.5, 4.0])
def test_every_label_of_the_training_maps_is_there_and_no_other(seed, voxel_size):
    labels, _ = draw_phantom(seed, voxel_size)
    assert set(np.unique(labels)) == set(brain_label_names())


def test_one_seed_gives_one_head_and_two_seeds_give_two():
    first, again, other = (draw_phantom(seed, 4.0)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.02


def test_left_structures_lie_on_the_left():
    labels, affine = draw_phantom(0, 2.5)
    for left, right in BRAIN_PAIRS.items():
        x_left, x_right = (affine[0, 0] * np.nonzero(labels == side)[0].mean() + affine[0, 3] for side in (left, right))
        assert x_left < 0 < x_right, (left, right)


def test_volumes_of_the_brain_are_of_human_size():
    labels, _ = draw_phantom(3, 2.5)
    litres = {name: np.isin(labels, ids).sum() * 2.5**3 / 1e6 for name, ids in
              {"white": (2, 41), "cortex": (3, 42), "cerebellum": (7, 8, 46, 47)}.items()}  # fmt: skip
    assert 0.3 < litres["white"] < 0.9
    assert 0.15 < litres["cortex"] < 0.7
    assert 0.08 < litres["cerebellum"] < 0.25


def test_cortex_separates_white_matter_from_the_skull():
    labels, _ = draw_phantom(0, 2.5)
    white, bone = np.isin(labels, (2, 41)), labels == 515
    for axis in range(3):
        assert not (np.roll(white, 1, axis) & bone).any()


def test_written_phantoms_can_be_prepared(tmp_path):
    paths = write_phantoms(tmp_path / "maps", 2, seed=5, voxel_size=4.0)
    maps = prepare(tmp_path / "maps", tmp_path / "maps.npz")
    assert [path.name for path in paths] == ["phantom_01.nii.gz", "phantom_02.nii.gz"]
    assert maps.labels == tuple(brain_label_names())
    assert maps.voxel_size == 4.0
