"""Stroke lesions: their volumes, places, shapes and stages, real masks, and the pasting."""

from __future__ import annotations

import os
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from scipy import ndimage

from synthseg_slicer.errors import OptionError, ScanError
from synthseg_training.lesions import (
    CHANNELS,
    LesionField,
    LesionMasks,
    LesionShapes,
    MaskFolder,
    MaskWarp,
    Paste,
    PasteParameters,
)
from synthseg_training.lesions.field import SmoothNoise
from synthseg_training.lesions.paste import _extreme
from synthseg_training.lesions.sheet import write_sheet
from synthseg_training.lesions.territories import KIND_OF, SIDE_OF, TERRITORIES, Brain
from synthseg_training.phantom import draw_phantom

VOXEL = 2.0
SHAPES = LesionShapes()
UNIFOCAL = LesionShapes(multifocal=0, stages={"chronic": 1.0}, rim=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def head() -> torch.Tensor:
    return torch.from_numpy(draw_phantom(0, VOXEL)[0]).int()


def whole(fields: list[LesionField]) -> torch.Tensor:
    return sum(field.whole for field in fields)


def of(shapes: LesionShapes, territory: str, seed: int, volume: float, **changes):
    """Return one focus in this territory."""
    focus = replace(shapes, shares={territory: 1.0}).draw(generator(seed))[0]
    return replace(focus, volume=volume, **changes)


def test_volumes_are_skewed_to_the_right_within_their_bounds():
    rng = generator()
    volumes = np.array([sum(focus.volume for focus in SHAPES.draw(rng)) for _ in range(1500)])
    assert 0.1 <= volumes.min() and volumes.max() <= 301
    assert volumes.max() > 150
    assert 7 < np.median(volumes) < 14
    assert volumes.mean() > 2 * np.median(volumes)
    assert 0.03 < (volumes < 0.5).mean() < 0.15


def test_territories_stages_and_foci_come_as_often_as_set():
    rng = generator()
    patients = [SHAPES.draw(rng) for _ in range(1500)]
    found = [foci[0].territory for foci in patients]
    for territory in TERRITORIES:
        assert found.count(territory) / len(found) == pytest.approx(SHAPES.shares[territory], abs=0.04)
    mixed = np.mean([len({focus.stage for focus in foci}) == 2 for foci in patients])
    assert mixed == pytest.approx(0.15, abs=0.03)
    assert max(len(foci) for foci in patients) == 6
    assert np.mean([len(foci) == 1 for foci in patients]) == pytest.approx(0.65 * 0.85, abs=0.04)


@pytest.mark.parametrize("territory", TERRITORIES)
@pytest.mark.parametrize("wedge", [False, True])
def test_the_volume_is_met_where_there_is_room(head, territory, wedge):
    for seed, volume in enumerate((1.0, 4.0, 12.0)):
        if territory in ("brain-stem", "cerebellum") and (wedge or volume > 10):
            continue
        focus = of(UNIFOCAL, territory, seed, volume, wedge=wedge)
        lesion = whole(UNIFOCAL.apply(head, [focus], VOXEL))
        assert (lesion >= 0.5).sum() * VOXEL**3 / 1000 == pytest.approx(volume, rel=0.05, abs=0.02)


def test_the_voxel_size_does_not_change_the_volume():
    focus = of(UNIFOCAL, "mca", 3, 6.0)
    for voxel in (1.5, 3.0):
        labels = torch.from_numpy(draw_phantom(0, voxel)[0])
        lesion = whole(UNIFOCAL.apply(labels, [focus], voxel))
        assert (lesion >= 0.5).sum() * voxel**3 / 1000 == pytest.approx(6.0, rel=0.05)


def test_lesions_stay_in_tissue_and_on_their_side(head):
    rng, tissue = generator(1), torch.tensor(sorted(set(KIND_OF) - {0}))
    side = torch.zeros(1000, dtype=torch.int)
    for label, value in SIDE_OF.items():
        if label not in (7, 8, 46, 47):  # the vermis joins the cerebellar hemispheres
            side[label] = value
    for _ in range(25):
        foci = SHAPES.draw(rng)
        for focus in foci:
            lesion = whole(SHAPES.apply(head, [focus], VOXEL))
            labels = head[lesion > 0]
            assert len(labels) and torch.isin(labels, tissue).all()
            assert len(side[labels.long()].abs().unique()) == 1, "the hindbrain and the hemispheres are apart"
            assert len(side[labels.long()].unique()) == 1


def test_the_side_is_the_one_that_was_drawn(head):
    for side in (-1, 1):
        lesion = whole(UNIFOCAL.apply(head, [of(UNIFOCAL, "mca", 0, 5.0, side=side)], VOXEL))
        assert {SIDE_OF[int(label)] for label in head[lesion > 0]} == {side}


def test_territories_lie_where_anatomy_has_them(head):
    brain = Brain(head, VOXEL)
    lateral, anterior, superior = brain.position
    cortex = brain.kind == 1

    def centre(territory):
        weight = brain.weight(territory) * cortex
        return [float((weight * values).sum() / weight.sum()) for values in (lateral, anterior, superior)]

    mca, aca, pca = map(centre, ("mca", "aca", "pca"))
    assert mca[0] > aca[0] + 0.3
    assert aca[1] > pca[1] + 0.2 and aca[2] > pca[2] + 0.2
    total = sum(brain.weight(territory)[cortex] for territory in ("mca", "aca", "pca"))
    torch.testing.assert_close(total, torch.ones_like(total))
    assert (brain.weight("pca")[brain.kind == 4] == 1).all()
    assert (brain.weight("mca")[brain.kind == 3] == 1).all()


def test_a_turned_head_keeps_its_midline(head):
    turn = torch.tensor(0.2)
    x, y = torch.meshgrid(*(torch.arange(n) - n / 2 for n in head.shape[:2]), indexing="ij")
    source = torch.stack((turn.cos() * x - turn.sin() * y + head.shape[0] / 2, turn.sin() * x + turn.cos() * y))
    source[1] += head.shape[1] / 2
    i, j = source.round().long()
    inside = (i >= 0) & (i < head.shape[0]) & (j >= 0) & (j < head.shape[1])
    turned = torch.where(inside[..., None], head[i.clamp(0, head.shape[0] - 1), j.clamp(0, head.shape[1] - 1)], 0)
    brain = Brain(turned.contiguous(), VOXEL)
    medial = brain.cerebral & (brain.position[0] < 0.1)
    x_of, y_of = brain.points[0][medial], brain.points[1][medial]
    slope = torch.corrcoef(torch.stack([x_of, y_of]))[0, 1] * x_of.std() / y_of.std()
    assert slope.abs() == pytest.approx(float(turn.tan()), abs=0.06)


def test_the_same_parameters_replay_the_same_field(head):
    first, second = (SHAPES.draw(generator(seed)) for seed in (5, 5))
    assert first == second != SHAPES.draw(generator(6))
    for a, b in zip(SHAPES.apply(head, first, VOXEL), SHAPES.apply(head, second, VOXEL)):
        assert torch.equal(a.core, b.core) and torch.equal(a.rim, b.rim) and a.stage == b.stage


def test_indices_with_their_ids_count_as_the_ids(head):
    ids = tuple(head.unique().tolist())
    indices = torch.searchsorted(torch.tensor(ids), head).to(torch.uint8)
    foci = SHAPES.draw(generator(2))
    expected, found = SHAPES.apply(head, foci, VOXEL), SHAPES.apply(indices, foci, VOXEL, ids)
    assert whole(expected).any()
    assert all(torch.equal(a.core, b.core) for a, b in zip(expected, found))


@pytest.mark.parametrize("label", [0, 24, 4, 514])
def test_without_tissue_there_is_no_lesion(label):
    labels = torch.full((20, 20, 20), label)
    fields = SHAPES.apply(labels, SHAPES.draw(generator()), VOXEL)
    assert [field.stage for field in fields] == ["chronic", "acute"]
    assert not whole(fields).any()


@pytest.mark.parametrize("label", [2, 10, 16, 47])
def test_a_crop_with_one_tissue_only_takes_the_lesion_there(label):
    labels = torch.zeros(24, 24, 24, dtype=torch.int)
    labels[6:18, 6:18, 6:18] = label
    for seed in range(8):
        lesion = whole(SHAPES.apply(labels, SHAPES.draw(generator(seed)), VOXEL))
        assert lesion.any() and not lesion[labels == 0].any()


def test_the_rim_parts_the_cavity_from_healthy_tissue(head):
    shapes = LesionShapes(multifocal=0, stages={"chronic": 1.0}, rim=1, rim_width=(5.0, 6.0), softness=(0.5, 0.6))
    chronic = shapes.apply(head, [of(shapes, "mca", 1, 40.0, white=1.0)], VOXEL)[0]
    cavity = chronic.core > 0.5
    beside = _extreme(cavity.float(), torch.maximum).bool() & ~cavity
    tissue = torch.isin(head, torch.tensor([2, 3, 41, 42]))
    assert cavity.sum() * VOXEL**3 > 5000
    assert (chronic.whole[beside & tissue] > 0.5).float().mean() > 0.95
    assert chronic.rim[beside & tissue].mean() > 0.5


def test_stages_look_as_they_should(head):
    acute = replace(of(SHAPES, "mca", 0, 20.0), stage="acute", rim=0.0)
    even, mottled = (SHAPES.apply(head, [replace(acute, mottle=depth)], VOXEL)[1] for depth in (0.0, 0.4))
    assert not even.rim.any() and not mottled.rim.any()
    assert even.core.max() == 1
    inside = even.core == 1
    assert mottled.core[inside].std() > 0.05 and mottled.core[inside].min() >= 0.6
    assert torch.equal(even.core >= 0.5, mottled.core >= 0.5)


def test_foci_of_one_patient_do_not_overlap(head):
    rng = generator(3)
    shapes = LesionShapes(multifocal=1, stages={"mixed": 1.0})
    for _ in range(6):
        fields = shapes.apply(head, shapes.draw(rng), VOXEL)
        assert whole(fields).max() <= 1 + 1e-6
        assert all(field.whole.max() > 0.3 and field.core.min() >= 0 and field.rim.min() >= 0 for field in fields)


def test_a_satellite_finds_its_place_beside_a_large_lesion(head):
    foci = [of(UNIFOCAL, "mca", 0, 120.0), of(UNIFOCAL, "mca", 1, 8.0, side=1)]
    foci[0] = replace(foci[0], side=1)
    for place in (0.1, 0.3, 0.5, 0.7, 0.9):
        lesion = whole(UNIFOCAL.apply(head, [foci[0], replace(foci[1], place=place)], VOXEL))
        assert (lesion >= 0.5).sum() * VOXEL**3 / 1000 == pytest.approx(128, rel=0.02)


def test_softer_edges_have_more_partial_voxels(head):
    focus = of(UNIFOCAL, "mca", 0, 15.0)
    partial = []
    for softness in (0.5, 2.0, 6.0):
        lesion = whole(UNIFOCAL.apply(head, [replace(focus, softness=softness)], VOXEL))
        partial.append(int(((lesion > 0.02) & (lesion < 0.98)).sum()))
    assert partial[0] < 0.6 * partial[1] < 0.6 * partial[2]


def test_noise_has_zero_mean_and_unit_variance_and_is_smooth():
    axis = torch.arange(0, 200.0, 4)
    fields = torch.stack([SmoothNoise(seed, 40.0, [200.0] * 3, octaves=3)([axis] * 3) for seed in range(12)])
    assert fields.mean().abs() < 0.1
    assert fields.std() == pytest.approx(1, abs=0.1)
    neighbours = (fields[..., 1:] - fields[..., :-1]).square().mean() / 2
    assert neighbours < 0.15
    coarse = SmoothNoise(0, 40.0, [200.0] * 3, octaves=3)([axis[::2]] * 3)
    torch.testing.assert_close(coarse, fields[0, ::2, ::2, ::2])


# Pasting


def ball(size: int = 32, radius: float = 8.0) -> torch.Tensor:
    axis = torch.arange(size) - (size - 1) / 2
    return ((axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) < radius**2).float()


def test_pasted_probabilities_sum_to_one_and_leave_the_rest_alone():
    tissues = torch.rand(4, 32, 32, 32, generator=generator())
    tissues /= tissues.sum(0)
    core = ball(radius=5)
    lesions = [LesionField(core, ball() - core, "chronic"), LesionField(torch.zeros_like(core), 0 * core, "acute")]
    paste = Paste(probability=1)
    result, target = paste.apply(tissues, lesions, paste.draw(generator()), 1.0)
    assert result.shape[0] == 4 + len(CHANNELS) and result.min() >= 0
    torch.testing.assert_close(result.sum(0), torch.ones(32, 32, 32))
    torch.testing.assert_close(result[:4, 0], tissues[:, 0])
    assert torch.equal(target, result[4:].sum(0) > paste.threshold)
    assert result[4 + CHANNELS.index("cavity"), 16, 16, 16] > result[4 + CHANNELS.index("gliosis"), 16, 16, 16]
    assert not result[4 + CHANNELS.index("acute")].any()


def test_a_lesion_that_does_not_fade_has_the_papers_opacity_and_edge():
    core = ball()
    core[2, 2, 2] = 1  # a speck, which the opening drops
    lesions = [LesionField(core, torch.zeros_like(core), "acute")]
    result, target = Paste().apply(torch.ones(1, 32, 32, 32), lesions, PasteParameters(0.0, 40.0, 0), 1.0)
    assert result[-1].max() == pytest.approx(0.9)
    assert not target[:4, :4, :4].any()
    assert target.sum() >= ball().sum()
    assert not target[ball(radius=11) == 0].any()
    edge = Paste(threshold=0.4).apply(torch.ones(1, 32, 32, 32), lesions, PasteParameters(0.0, 40.0, 0), 1.0)[1]
    assert int(edge.sum()) == pytest.approx(int(ball().sum()), rel=0.1)  # the edge is where it was
    opened = ndimage.grey_opening(core.numpy(), footprint=ndimage.generate_binary_structure(3, 1))
    expected = ndimage.uniform_filter(0.9 * opened, 3, mode="nearest")
    np.testing.assert_allclose(result[-1], expected, atol=1e-5)


def test_fading_dims_a_lesion_by_no_more_than_its_depth():
    lesions = [LesionField(ball(), torch.zeros(32, 32, 32), "acute")]
    tissue = torch.ones(1, 32, 32, 32)
    plain = Paste().apply(tissue, lesions, PasteParameters(0.0, 20.0, 0), 1.0)[0][-1]
    faded = Paste().apply(tissue, lesions, PasteParameters(0.5, 20.0, 0), 1.0)[0][-1]
    ratio = (faded / plain)[plain > 0.1]
    assert 0.5 <= ratio.min() < 0.65 and 0.8 < ratio.max() <= 1


def test_mild_mottling_and_fading_tear_no_hole_into_a_target(head):
    shapes = LesionShapes(multifocal=0, stages={"acute": 1.0}, mottled=1, mottle=(0.25, 0.25))
    paste = Paste(probability=1, fading=(0.3, 0.3), threshold=0.4)
    tissue = torch.ones(1, *head.shape)
    for seed in range(4):
        focus = of(shapes, "mca", seed, 40.0)
        assert focus.mottle == shapes.mottle[1]
        even, mottled = (shapes.apply(head, [replace(focus, mottle=depth)], VOXEL) for depth in (0.0, focus.mottle))
        inside = even[1].core == 1
        inside = _extreme(_extreme(inside.float(), torch.minimum), torch.minimum) == 1
        result, target = paste.apply(tissue, mottled, paste.draw(generator(seed)), VOXEL)
        assert inside.sum() > 1000 and target[inside].all()
        assert (1 - result[0])[inside].min() > 0.45


# Real masks


def write_mask(path, values: np.ndarray, voxel_size: float = 1.0) -> None:
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([voxel_size] * 3 + [1])), path)


def test_masks_are_resampled_and_pasted_into_tissue(tmp_path, head):
    write_mask(tmp_path / "a.nii.gz", ball(40, 9).numpy(), 1.0)
    masks = LesionMasks(tmp_path, VOXEL, MaskWarp(scaling=0.0, elastic=0.0))
    volume = masks.masks[0].float().sum() * VOXEL**3
    assert volume == pytest.approx(float(ball(40, 9).sum()), rel=0.05)
    tissue = torch.full((30, 30, 30), 41)
    drawn = (replace(masks.draw(generator())[0], place=0.5, stage="acute"),)
    chronic, acute = masks.apply(tissue, drawn, VOXEL)
    assert not chronic.core.any()
    assert acute.core.sum() * VOXEL**3 == pytest.approx(float(volume), rel=0.05)
    assert drawn[0].volume * 1000 == pytest.approx(float(volume), rel=1e-3)
    found = [masks.apply(head, masks.draw(generator(seed)), VOXEL) for seed in range(6)]
    for fields in found:
        labels = head[whole(fields) > 0]
        assert len(labels) and all(int(label) in KIND_OF and label > 0 for label in labels.unique())
    assert not torch.equal(whole(found[0]), whole(found[1]))
    again = masks.apply(head, masks.draw(generator(0)), VOXEL)
    assert torch.equal(whole(found[0]), whole(again))
    assert not whole(masks.apply(0 * head, drawn, VOXEL)).any()
    assert not whole(masks.apply(head, (), VOXEL)).any()
    chronic, acute = masks.apply(
        tissue, (*drawn, replace(drawn[0], stage="chronic")), VOXEL
    )  # one in the other's place
    assert (chronic.core + acute.core).max() <= 1 and chronic.core.sum() < 0.2 * acute.core.sum()


def test_flips_and_warps_change_a_mask_but_not_its_size_much(tmp_path):
    values = ball(40, 9).numpy()
    values[20:] = 0
    write_mask(tmp_path / "half.nii", values)
    labels = torch.full((40, 40, 40), 2)
    plain = LesionMasks(tmp_path, 1.0, MaskWarp(flip=0, rotation=0, scaling=0, elastic=0))
    mirrored = LesionMasks(tmp_path, 1.0, MaskWarp(flip=1, rotation=0, scaling=0, elastic=0))
    elastic = LesionMasks(tmp_path, 1.0, MaskWarp(flip=0, rotation=0, scaling=0, elastic=3))
    a, b, c = (
        whole(masks.apply(labels, [replace(masks.draw(generator())[0], place=0.555)], 1.0))
        for masks in (plain, mirrored, elastic)
    )
    assert a.sum() == pytest.approx(float(values.sum()), rel=0.02)

    def leaning(mask):
        mass, x = mask.sum((1, 2)), torch.arange(40.0)
        centre = (mass * x).sum() / mass.sum()
        return float((mass * (x - centre) ** 3).sum())

    assert leaning(a) * leaning(b) < 0
    assert c.sum() == pytest.approx(float(a.sum()), rel=0.4) and (a - c).abs().sum() > 0.1 * a.sum()


def test_a_folder_without_masks_names_itself_and_the_cure(tmp_path):
    with pytest.raises(ScanError, match=r"nowhere: there is no such folder.*Give the folder"):
        LesionMasks(tmp_path / "nowhere")
    (tmp_path / "._a.nii.gz").write_bytes(b"what macOS leaves behind")
    with pytest.raises(ScanError, match=r"No lesion masks .* in .*Give the folder"):
        LesionMasks(tmp_path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((8, 8, 8)), "is empty"),
        (np.ones((8, 8, 8)), "is no lesion mask"),
        (-np.eye(8)[None].repeat(8, 0), "is no lesion mask"),
        (np.zeros((8, 8, 8, 3)), "one 3D mask"),
    ],
)
def test_what_is_no_mask_is_refused_by_name(tmp_path, values, words):
    write_mask(tmp_path / "odd.nii.gz", values)
    with pytest.raises(ScanError, match=rf"odd\.nii\.gz.*{words}"):
        LesionMasks(tmp_path)


def test_a_damaged_mask_and_wrong_options_are_refused(tmp_path):
    (tmp_path / "broken.nii.gz").write_bytes(b"no scan")
    with pytest.raises(ScanError, match=r"broken\.nii\.gz"):
        LesionMasks(tmp_path)
    with pytest.raises(OptionError, match="voxel size"):
        LesionMasks(tmp_path, 0)
    with pytest.raises(OptionError, match="scaling"):
        MaskWarp(scaling=1.5)
    with pytest.raises(OptionError, match="share"):
        MaskFolder(share=1.5)
    assert MaskFolder().read(1.0) is None


def test_masks_are_read_once_until_a_file_changes(tmp_path):
    write_mask(tmp_path / "a.nii.gz", ball(24, 6).numpy())
    first, second = (LesionMasks(tmp_path) for _ in range(2))
    assert first.masks is second.masks
    write_mask(tmp_path / "a.nii.gz", ball(24, 9).numpy())
    os.utime(tmp_path / "a.nii.gz", (1, 1))  # clocks of file systems are coarse
    assert LesionMasks(tmp_path).masks[0].sum() > 2 * first.masks[0].sum()


def test_the_sheet_shows_the_lesions_in_colour(tmp_path, head):
    write_sheet(tmp_path / "sheet.png", head, SHAPES, VOXEL, count=2)
    picture = imread(tmp_path / "sheet.png")[..., :3]
    assert (np.ptp(picture, axis=2) > 0.2).mean() > 0.0005
