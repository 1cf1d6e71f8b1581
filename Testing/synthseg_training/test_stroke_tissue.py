"""Healthy tissue of the stroke task: structures differ from their classes, myelination differs between regions."""

from dataclasses import replace

import pytest
import torch

from synthseg_training.lesions import CHANNELS
from synthseg_training.physics import CHANGES, LABEL_TISSUES, LEAST_CHANGE
from synthseg_training.stroke.tissue import Texture

LABELS = (0, 2, 41, 3, 42, 10, 49, 16, 24, 509)
COLUMN = {label: column for column, label in enumerate(LABELS)}


def draw(seed: int = 0, **settings):
    return Texture(fwhm=(0.0, 0.0), mixing=0.0, share=0.0, **settings).draw_physics(
        torch.Generator().manual_seed(seed), LABELS
    )


def maps(parameters, label: int, **settings):
    """Return the maps of a block of one label, without lesions."""
    texture = Texture(fwhm=(0.0, 0.0), mixing=0.0, share=0.0, **settings)
    labels = torch.full((24, 24, 24), COLUMN[label], dtype=torch.int32)
    lesions = torch.zeros(4, 24, 24, 24)
    lesions[0] = 1
    return texture.apply(labels, lesions, parameters, torch.arange(len(LABELS), dtype=torch.int32), 1, 4.0)


def test_structures_differ_from_their_class_but_not_between_sides():
    common, own = draw().means, draw(own=1.0).means
    moved = {label: bool((own != common)[:, column].any()) for label, column in COLUMN.items()}
    assert moved == {label: LABEL_TISSUES[label] not in ("air", "csf", "soft") for label in LABELS}
    for left, right in ((2, 41), (3, 42), (10, 49)):
        torch.testing.assert_close(own[:, COLUMN[left]], own[:, COLUMN[right]])
    difference = own - common
    assert not torch.allclose(difference[:, COLUMN[16]], difference[:, COLUMN[10]])
    torch.testing.assert_close(own[:, len(LABELS) :], common[:, len(LABELS) :])  # lesions are drawn for themselves


@pytest.mark.parametrize("label", [2, 3, 16])
def test_myelination_moves_brain_along_the_line_from_grey_to_white(label):
    parameters = draw(myelin=0.5, wavelength=(20.0, 20.0))
    there = maps(parameters, label, myelin=0.5)
    change = (there - parameters.means[:, COLUMN[label]].view(-1, 1, 1, 1)).flatten(1)
    line = parameters.means[:, COLUMN[2]] - parameters.means[:, COLUMN[3]]
    line = line / line.norm()
    along = line @ change
    kept = (there > 0).flatten(1).all(0)  # MT of the least myelinated grey matter may be cut at 0
    assert kept.float().mean() > 0.999
    torch.testing.assert_close(change[:, kept], (line[:, None] * along)[:, kept], atol=1e-3, rtol=1e-3)
    assert along.std() > 0.05 * parameters.myelin[:, COLUMN[2]].norm()
    assert torch.equal(there, maps(parameters, label, myelin=0.5))


@pytest.mark.parametrize("label", [0, 24, 509])
def test_myelination_leaves_fluid_and_the_rest_of_the_head_alone(label):
    parameters = draw(myelin=0.5)
    assert maps(parameters, label).flatten(1).std(1).max() < 1e-4
    assert torch.equal(maps(parameters, label), maps(replace(parameters, myelin=None), label))


def lesion_maps(parameters, channel: str, share: float):
    """Return a voxel of grey and of white matter, ``[5, 2]``, of which this share is a lesion."""
    labels = torch.tensor([COLUMN[3], COLUMN[2]], dtype=torch.int32).repeat(2, 2, 1)
    lesions = torch.zeros(4, 2, 2, 2)
    lesions[0], lesions[1 + CHANNELS.index(channel)] = 1 - share, share
    texture, table = Texture(fwhm=(0.0, 0.0), mixing=0.0, share=0.0), torch.arange(len(LABELS), dtype=torch.int32)
    return texture.apply(labels, lesions, parameters, table, 1, 1.0)[:, 0, 0]


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_gliosis_and_acute_lesions_change_tissue_and_a_cavity_replaces_it(share):
    parameters = draw()
    healthy = torch.stack([parameters.means[:, COLUMN[3]], parameters.means[:, COLUMN[2]]], 1)
    values = {name: parameters.means[:, [len(LABELS) + index]] for index, name in enumerate(CHANNELS)}
    for name, value in values.items():
        lesion = value * healthy if name in CHANGES else value
        torch.testing.assert_close(lesion_maps(parameters, name, share), (1 - share) * healthy + share * lesion)


def test_random_intensities_replace_all_tissue():
    from synthseg_training.generation.anatomy import Anatomy
    from synthseg_training.generation.gmm import GaussianMixture

    parameters = Texture().draw_random(torch.Generator().manual_seed(3), LABELS, Anatomy(), GaussianMixture())
    parameters = replace(parameters, stds=torch.zeros_like(parameters.stds))
    for index, name in enumerate(CHANNELS):
        there = lesion_maps(parameters, name, 1.0)
        torch.testing.assert_close(there, parameters.means[:, [len(LABELS) + index]].expand(-1, 2))


def test_changed_tissue_is_never_as_it_was():
    for seed in range(300):
        means = draw(seed, spread=1.5).means
        for name in CHANGES:
            water, *relaxation = means[:, len(LABELS) + CHANNELS.index(name)].tolist()
            assert water >= 1 and max(relaxation) <= 1 - LEAST_CHANGE + 1e-6
