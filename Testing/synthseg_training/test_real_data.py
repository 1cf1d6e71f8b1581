"""Data of the user's own in training: what a mask calls lesion, on which device samples end, what is refused when."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from synthetic import ball

from synthseg_slicer.errors import OptionError, ScanError
from synthseg_slicer.labels import LESION_ID, STROKE
from synthseg_slicer.scan import write_volume
from synthseg_training.cli import main
from synthseg_training.experiments.dataset import Case
from synthseg_training.experiments.ledger import Ledger
from synthseg_training.experiments.methods import MapFolder as LabelFolder
from synthseg_training.experiments.stroke import LesionFolder, on_scans
from synthseg_training.generation import BiasField, Flip, Resolution, Spatial
from synthseg_training.labelmaps import prepare
from synthseg_training.lesions.reading import lesion_voxels, read_lesion
from synthseg_training.phantom import write_phantoms
from synthseg_training.physics import QuantitativeMaps, RicianNoise, save_maps
from synthseg_training.stroke import MapsGenerator, Mixture, StrokeConfig, StrokeGenerator
from synthseg_training.stroke.real import RealScans
from synthseg_training.training.loop import _batch, _Run, fit
from synthseg_training.training.recipe import DataFolder, Recipe, Stage

SHAPE = (40, 36, 32)
LESION = (slice(14, 24), slice(12, 20), slice(10, 18))
META = torch.device("meta")
SIX = StrokeConfig(crop=16, spatial=Spatial(probability=0))
NETWORK = {"architecture": "fast", "widths": [4, 8], "fine_width": 4, "n_labels": len(STROKE)}


def lesion_mask(dtype=np.uint8) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype)
    mask[LESION] = 1
    return mask


def six_classes() -> np.ndarray:
    """Return a label map as ``synthseg-train generate`` writes it: every label of the stroke network."""
    labels = np.zeros(SHAPE, np.int16)
    labels[4:-4, 4:-4, 4:-4] = 2
    labels[8:-8, 8:-8, 8:-8], labels[8:-8, 8:-8, 8], labels[10, 8:-8, 8:-8] = 3, 299, 24
    labels[LESION] = LESION_ID
    return labels


# -- what is lesion ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        lesion_mask(),
        lesion_mask(bool),
        lesion_mask(np.float32) * 1.0001,  # a stored scaling
        lesion_mask() * 7,
        lesion_mask(np.float32) * 0.3,
        lesion_mask(np.float32) * 0.8 + 0.1,  # a soft mask
        six_classes(),
        six_classes().astype(np.float64) * (1 + 1e-7),
    ],
    ids=["0/1", "bool", "scaled", "0/7", "0/.3", "soft", "six classes", "six classes as floats"],
)
def test_the_lesion_is_found_in_every_kind_of_mask(values):
    assert np.array_equal(lesion_voxels(values, "a"), lesion_mask(bool))


@pytest.mark.parametrize("none", [[1, 2, 3, 24, 99, 299], [99], [99, 299]], ids=["empty", "healthy", "no boundary"])
def test_an_empty_mask_and_the_classes_of_a_healthy_head_have_no_lesion(none):
    values = six_classes()
    values[np.isin(values, none)] = 0
    found = lesion_voxels(values, "a")
    assert found.shape == SHAPE and found.dtype == bool and not found.any()


@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=20).filter(lambda v: len({*v} - {0.0}) > 1))
def test_soft_masks_are_cut_at_one_half(values):
    assert lesion_voxels(np.array(values, np.float32), "a").tolist() == [value > 0.5 for value in values]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 2, 3], r"which label is the lesion's\? It holds 2, 3\. Give a mask .* label 99"),
        ([0, *range(1, 40)], r"It holds 1, 2, 3, 4, 5, 6, 7, 8, \.\.\."),
        ([0, 2, 3, 299], "which label"),  # some of the network's healthy classes, not those of a head
        ([0, 2, 3, 24, 25], "which label"),
        ([0.0, 0.5, 7.3], r"up to 7\.3, are neither labels nor shares"),
        ([-1, 0, 1], "negative or non-finite"),
        ([0, 1, np.nan], "negative or non-finite"),
        ([0, 1, np.inf], "negative or non-finite"),
    ],
)
def test_a_mask_that_does_not_tell_the_lesion_is_refused_by_name(values, message):
    with pytest.raises(ScanError, match=rf"^there/a_dseg\.nii\.gz: .*{message}"):
        lesion_voxels(np.array(values), "there/a_dseg.nii.gz")


def test_masks_are_read_as_they_are_stored(tmp_path):
    affine = np.diag([-1.0, 1, 2, 1])
    nib.Nifti1Image(six_classes()[..., None], affine).to_filename(tmp_path / "a.nii.gz")
    mask, found = read_lesion(tmp_path / "a.nii.gz")
    assert np.array_equal(mask, lesion_mask(bool)) and np.array_equal(found, affine)


def spoil_damaged(path) -> None:
    path.write_bytes(b"no image")


def spoil_cut(path) -> None:
    path.write_bytes(path.read_bytes()[:150])


def spoil_four_dimensions(path) -> None:
    nib.Nifti1Image(np.stack([lesion_mask()] * 2, -1), np.eye(4)).to_filename(path)


def spoil_labels(path) -> None:
    nib.Nifti1Image(lesion_mask() + 4, np.eye(4)).to_filename(path)


def spoil_place(path) -> None:
    image = nib.Nifti1Image(lesion_mask(), None)
    image.header["pixdim"][1:4], image.header["sform_code"] = 1, 1
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]
    image.to_filename(path)


SPOILT = {
    spoil_damaged: r"cannot be read \(.*\)\. Copy or export it again\.",
    spoil_cut: r"cannot be read \(.*\)\. Copy or export it again\.",
    spoil_four_dimensions: r"has 4 dimensions \(40 x 36 x 32 x 2\)\. Give one 3D mask\.",
    spoil_labels: r"which label is the lesion's\?",
    spoil_place: "its affine is singular",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_with_a_mask_file_is_told_with_its_name(tmp_path, spoil):
    path = tmp_path / "a_dseg.nii.gz"
    nib.Nifti1Image(lesion_mask(), np.eye(4)).to_filename(path)
    spoil(path)
    with pytest.raises(ScanError, match=rf"a_dseg\.nii\.gz: {SPOILT[spoil]}"):
        read_lesion(path)


# -- its users ---------------------------------------------------------------------------------------------------------


def write_scan(folder, name: str, mask: np.ndarray) -> None:
    image = ball(SHAPE, 15.0)
    image[LESION] += 60
    write_volume(folder / f"{name}_image.nii.gz", image.astype(np.float32), np.eye(4))
    nib.Nifti1Image(mask, np.eye(4)).to_filename(folder / f"{name}_dseg.nii.gz")


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    write_scan(folder, "a", lesion_mask())
    write_scan(folder, "b", six_classes())
    return folder


@pytest.fixture
def map_sets(tmp_path):
    """Two sets of maps; the lesion of the second one is a label of six."""
    folder = tmp_path / "maps"
    folder.mkdir()
    head = torch.from_numpy(ball(SHAPE, 15.0) > 30).float()
    for name, mask in (("a", lesion_mask()), ("b", six_classes())):
        maps = QuantitativeMaps(*(head * value for value in (80.0, 0.8, 12.0, 18.0, 1.0)))
        save_maps(maps, folder, name, np.eye(4))
        nib.Nifti1Image(mask, np.eye(4)).to_filename(folder / f"{name}_dseg.nii.gz")
    return folder


def test_real_scans_take_the_lesion_of_a_label_map_and_not_the_brain(scans):
    source = RealScans(scans, SIX)
    for _, mask in source.scans:
        assert mask.sum().item() == lesion_mask().sum()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_real_scans_and_their_masks_are_mirrored_along_the_axes_drawn(scans, axis):
    off = {"noise": RicianNoise(0.0), "resolution": Resolution(0.0), "bias": BiasField(0.0)}
    flips = [dict.fromkeys(("probability", "anterior_posterior", "inferior_superior"), 0.0) for _ in range(2)]
    flips[1][list(flips[1])[axis]] = 1.0
    (plain, lesion), (mirrored, other) = (
        RealScans(scans, replace(SIX, crop=48, flip=Flip(**flip), **off)).sample(torch.Generator().manual_seed(1))
        for flip in flips
    )
    torch.testing.assert_close(mirrored, plain.flip(axis + 1))
    assert torch.equal(other, lesion.flip(axis)) and not torch.equal(other, lesion)


def test_map_sets_take_the_lesion_of_a_label_map_and_not_the_brain(map_sets):
    sets = MapsGenerator(map_sets, SIX).sets
    assert [one.lesion.sum().item() for one in (sets[0], sets[1])] == [lesion_mask().sum()] * 2


def test_scores_compare_with_the_lesion_of_a_label_map(scans, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("a", "b"):
        (other / f"{name}.nii.gz").write_bytes((scans / "b_dseg.nii.gz").read_bytes())
    cases = [Case(name, scans / f"{name}_image.nii.gz", scans / f"{name}_dseg.nii.gz", "", name) for name in "ab"]
    method = LesionFolder(LabelFolder("other", other))
    table = on_scans(Ledger(tmp_path / "out", {}), cases, [method], report=lambda line: None)
    assert table["dice"].tolist() == [1, 1]
    spoil_labels(other / "a.nii.gz")
    with pytest.raises(ScanError, match=r"a\.nii\.gz: which label"):
        on_scans(Ledger(tmp_path / "again", {}), cases, [method], report=lambda line: None)


# -- devices -----------------------------------------------------------------------------------------------------------


class Alternating:
    """Samples on this and on that device, as a mixture of scans and of label maps on a GPU has them."""

    config, count = SIX, 0

    def sample(self, rng):
        self.count += 1
        device = META if self.count % 2 else "cpu"
        return torch.zeros(1, 4, 4, 4, device=device), torch.zeros(4, 4, 4, dtype=torch.uint8, device=device)


def test_samples_of_every_source_end_on_the_device_of_the_training(scans, map_sets):
    real, maps = RealScans(scans, SIX), MapsGenerator(map_sets, SIX)
    for source, size in ((real, 1), (maps, 1), (Mixture(real, maps, 0.5), 3), (Alternating(), 3)):
        image, target = _batch(source, size, torch.Generator().manual_seed(0), META)
        assert image.device == target.device == META and target.dtype == torch.int64
        assert image.shape == (size, 1, *target.shape[1:]) and image.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 2, voxel_size=4.0)
    return prepare(folder, folder / "maps.npz")


def recipe(folder, *stages: Stage, kind: str = "scans", **settings) -> Recipe:
    stages = stages or (Stage(steps=1, crop=16, loss="dice_ce", frozen_norm=True),)
    data = DataFolder(str(folder), 0.5, kind)
    return Recipe("stroke", [*stages], task="stroke", network=NETWORK, data=data, **settings)


def test_training_validation_and_norms_see_samples_on_the_device_of_the_training(phantoms, scans, tmp_path):
    class Seen(Exception):
        pass

    def forward(image):
        raise Seen(image.device)

    settings = recipe(scans, held_out=["phantom_02"])
    run, (stage,) = _Run(settings, phantoms, tmp_path, torch.device("cpu"), False), settings.stages
    run.device, run._forward = META, lambda stage: forward
    source = StrokeGenerator(run.training_maps, SIX)  # makes its samples on the CPU
    for step in (
        lambda: run._train_step(source, forward, stage),
        lambda: run._set_norm(stage, source, fresh=True),
        lambda: run.validate(stage),
    ):
        with pytest.raises(Seen) as seen:
            step()
        assert seen.value.args == (META,)


# -- when --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["scans", "maps"])
@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_a_bad_mask_stops_the_command_line_in_one_line_before_training(
    phantoms, scans, map_sets, tmp_path, capsys, kind, spoil
):
    folder = {"scans": scans, "maps": map_sets}[kind]
    spoil(folder / "b_dseg.nii.gz")
    phantoms.save(tmp_path / "maps.npz")
    path = tmp_path / "r.yaml"
    path.write_text(
        f"{{name: s, task: stroke, network: {NETWORK}, data: {{folder: {folder}, kind: {kind}}}, "
        "stages: [{steps: 1, crop: 16}]}"
    )
    out = tmp_path / "out"
    assert main(["fit", str(path), "--maps", str(tmp_path / "maps.npz"), "-o", str(out), "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "b_dseg.nii.gz: " in line and not out.exists()


def test_a_missing_recipe_is_named_with_a_cure(tmp_path, capsys):
    assert main(["fit", "nope.yaml", "--maps", str(tmp_path / "maps.npz"), "-o", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nope.yaml: cannot be read as a recipe (No such file" in line and "Give a YAML or JSON file" in line


def test_a_late_stage_that_real_scans_cannot_follow_is_refused_before_the_first(phantoms, scans, tmp_path):
    stages = [Stage(steps=1, crop=16, loss="dice_ce", voxel_size=size) for size in (1.0, 2.0)]
    with pytest.raises(OptionError, match=r"voxel size is 2\.0 mm"):
        fit(recipe(scans, *stages), phantoms, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["scans", "maps"])
def test_real_data_are_read_once_for_all_stages(phantoms, scans, map_sets, tmp_path, monkeypatch, kind):
    read = []
    module = {"scans": "real", "maps": "from_maps"}[kind]
    name = f"synthseg_training.stroke.{module}.read_lesion"
    monkeypatch.setattr(name, lambda path: read.append(path.name) or read_lesion(path))
    stages = [Stage(steps=2, crop=16, loss="dice_ce", dice_background=False) for _ in range(2)]
    folder = {"scans": scans, "maps": map_sets}[kind]
    fit(recipe(folder, *stages, kind=kind), phantoms, tmp_path / "out", device="cpu")
    assert sorted(read) == ["a_dseg.nii.gz", "b_dseg.nii.gz"]
