"""The whole path: results, files, provenance, progress, cancelling."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from synthetic import ball

from synthseg_slicer import CancelToken, pipeline, predict, segment
from synthseg_slicer.cards import bundled_models
from synthseg_slicer.errors import Cancelled, OptionError, OutputError
from synthseg_slicer.labels import BRAIN_IDS
from synthseg_slicer.predict import DeviceWarning
from synthseg_slicer.scan import Scan, read_scan


def outputs(folder) -> dict:
    return {
        "output": folder / "out.nii.gz",
        "posteriors": folder / "post.nii.gz",
        "volumes": folder / "vol.csv",
        "picture": folder / "pic.png",
    }


def test_a_bright_ball_is_found_where_it_is_with_its_volume(scan_file, threshold_model):
    result = segment(scan_file, model=threshold_model)
    assert set(np.unique(result.labels)) == {0, 16}
    centre = result.affine @ [*np.argwhere(result.labels == 16).mean(0), 1]
    expected = nib.load(scan_file).affine @ [15.5, 17.5, 19.5, 1]
    np.testing.assert_allclose(centre, expected, atol=0.2)
    assert result.volumes[16] == pytest.approx(np.count_nonzero(ball() > 60), rel=0.05)
    assert result.intracranial == pytest.approx(sum(result.volumes.values()))
    assert nib.aff2axcodes(result.affine) == ("R", "A", "S")


def test_native_output_has_the_grid_of_the_scan(scan_file, threshold_model, tmp_path):
    segment(scan_file, tmp_path / "native.nii.gz", native=True, model=threshold_model)
    image, labels = nib.load(scan_file), nib.load(tmp_path / "native.nii.gz")
    assert labels.shape == image.shape
    np.testing.assert_allclose(labels.affine, image.affine)
    found = np.asarray(labels.dataobj) == 16
    assert np.mean(found == (ball() > 60)) > 0.99


def test_native_output_of_thick_slices_lies_on_the_scan(threshold_model):
    affine = np.array([[0, 0, -1.1, 9], [0.9, 0, 0, -14], [0, 3.0, 0, 2.0], [0, 0, 0, 1]])
    data = ball((40, 12, 33), 0.0)
    world = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), -1) @ affine[:3, :3].T
    inside = np.linalg.norm(world - world[20, 6, 16], axis=-1) < 11
    scan = Scan(data + 100 * inside.astype(np.float32), affine)
    result = segment(scan, native=True, model=threshold_model)
    assert result.labels.shape == scan.shape
    overlap = 2 * np.sum((result.labels == 16) & inside) / (np.sum(result.labels == 16) + np.sum(inside))
    assert overlap > 0.9


def test_all_outputs_are_written_and_agree(scan_file, threshold_model, tmp_path):
    result = segment(scan_file, **outputs(tmp_path), model=threshold_model)
    labels = nib.load(tmp_path / "out.nii.gz")
    assert np.array_equal(np.asarray(labels.dataobj), result.labels)
    np.testing.assert_allclose(labels.affine, result.affine)
    posteriors = nib.load(tmp_path / "post.nii.gz")
    assert posteriors.shape == (*result.labels.shape, 33) and posteriors.get_data_dtype() == np.float32
    soft = np.asarray(posteriors.dataobj)
    np.testing.assert_allclose(soft.sum(-1), 1, atol=2e-3)
    np.testing.assert_array_equal(soft[..., BRAIN_IDS.index(16)], result.posterior(16))
    assert soft[..., BRAIN_IDS.index(16)].sum() == pytest.approx(result.volumes[16], rel=1e-5)
    with (tmp_path / "vol.csv").open() as file:
        table = {row["structure"]: row for row in csv.DictReader(file)}
    stem = table["Brain-Stem"]
    assert float(stem["volume_mm3"]) == result.volumes[16] and float(stem["quality"]) == result.verdict.structures[16]
    assert float(stem["share"]) == 1.0 and len(table) == 33
    assert (tmp_path / "pic.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        "out.nii.gz", "out.json", "post.nii.gz", "vol.csv", "pic.png",
    }  # fmt: skip


def test_provenance_says_what_was_done(scan_file, tiny_weights, tmp_path):
    result = segment(scan_file, tmp_path / "out.nii.gz", fast=True, model=tiny_weights)
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["input"]["sha256"] == read_scan(scan_file).sha256
    assert record["weights"]["sha256"] == json.loads(tiny_weights.with_suffix(".json").read_text())["sha256"]
    assert record["options"]["fast"] is True and record["device"] == "cpu"
    assert record["outputs"]["output"].endswith("out.nii.gz")
    assert set(record["seconds"]) == {"weights", "read", "conform", "predict", "refine", "clean up"}
    assert list(record["labels"])[:3] == ["0", "2", "3"]
    assert result.provenance["version"] == record["version"]


def test_a_scan_in_memory_is_recorded_by_its_name(random_model):
    record = segment(Scan(ball(), np.eye(4), name="T1 of June"), model=random_model).provenance
    assert record["input"]["name"] == "T1 of June" and record["input"]["path"] is None


def test_fast_means_one_pass(scan_file, random_model, monkeypatch):
    calls = []
    original = pipeline.predict
    monkeypatch.setattr(pipeline, "predict", lambda *a, **k: calls.append(k["flip"]) or original(*a, **k))
    segment(scan_file, model=random_model)
    segment(scan_file, model=random_model, fast=True)
    assert calls == [True, False]


def test_two_runs_give_the_same_result(scan_file, random_model):
    first, second = segment(scan_file, model=random_model), segment(scan_file, model=random_model)
    assert np.array_equal(first.labels, second.labels) and first.volumes == second.volumes


def test_mirrored_scan_gives_mirrored_labels(random_model):
    affine = np.eye(4)
    plain = segment(Scan(ball((33, 36, 40)), affine), model=random_model)
    mirrored = segment(Scan(ball((33, 36, 40))[::-1].copy(), affine), model=random_model)
    for label, partner in random_model.partners.items():
        np.testing.assert_allclose(mirrored.posterior(partner)[::-1], plain.posterior(label), atol=5e-3)


def test_margins_that_the_network_never_sees_are_background_in_the_output(threshold_model):
    data = np.full((90, 80, 70), 10.0, np.float32)
    data[30:62, 20:56, 15:55] = ball()
    result = segment(Scan(data, np.eye(4)), model=threshold_model)
    assert result.labels.shape == data.shape
    np.testing.assert_allclose(np.argwhere(result.labels).mean(0), (45.5, 37.5, 34.5), atol=0.2)


def test_nothing_found_is_a_warning_that_the_provenance_keeps(threshold_model, scan_file):
    threshold_model.network.level.data.fill_(2.0)  # brighter than anything
    with pytest.warns(UserWarning, match="Nothing was segmented"):
        result = segment(scan_file, model=threshold_model)
    assert any("Nothing was segmented" in message for message in result.provenance["warnings"])


def test_fallback_to_the_cpu_is_recorded(scan_file, random_model, monkeypatch):
    compute = predict._predict

    def short_of_memory(model, image, flip, device, *others):
        if device.type == "cuda":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return compute(model, image, flip, device, *others)

    monkeypatch.setattr(predict, "_predict", short_of_memory)
    for module in (pipeline, predict):
        monkeypatch.setattr(module, "resolve_device", torch.device)
    with pytest.warns(DeviceWarning):
        record = segment(scan_file, device="cuda", model=random_model).provenance
    assert record["device"] == "cpu"
    assert "The memory of the device cuda does not suffice; this scan was computed on the CPU." in record["warnings"]


def test_progress_rises_from_zero_to_one_through_the_stages(scan_file, random_model):
    seen = []
    segment(scan_file, model=random_model, progress=lambda stage, fraction: seen.append((stage, fraction)))
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    stages = list(dict.fromkeys(stage for stage, _ in seen))
    assert stages == ["weights", "read", "conform", "predict", "refine", "clean up", "write", "done"]


@pytest.mark.parametrize("stage", ["weights", "read", "conform", "predict", "refine", "clean up", "write"])
def test_cancelling_in_any_stage_leaves_nothing(scan_file, random_model, tmp_path, stage):
    folder = tmp_path / "results"
    folder.mkdir()
    token = CancelToken()
    with pytest.raises(Cancelled):
        segment(
            scan_file,
            **outputs(folder),
            model=random_model,
            cancel=token,
            progress=lambda name, fraction: token.cancel() if name == stage else None,
        )
    assert list(folder.iterdir()) == []


def test_a_failure_while_writing_leaves_nothing(scan_file, random_model, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OutputError("no space left")

    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setattr(pipeline, "overlay_picture", full)
    with pytest.raises(OutputError):
        segment(scan_file, **outputs(folder), model=random_model)
    assert list(folder.iterdir()) == []


def test_outputs_that_collide_or_would_replace_the_scan_are_refused(scan_file, random_model, tmp_path):
    before = scan_file.read_bytes()
    with pytest.raises(OptionError, match="the scan itself"):
        segment(scan_file, scan_file, model=random_model)
    with pytest.raises(OptionError, match="own name"):
        segment(scan_file, tmp_path / "a.nii.gz", posteriors=tmp_path / "a.nii.gz", model=random_model)
    assert scan_file.read_bytes() == before


def test_a_result_has_rows_with_the_names_of_its_structures(scan_file, threshold_model):
    result = segment(scan_file, model=threshold_model)
    stem = next(row for row in result.rows if row.label == 16)
    assert stem.name == result.names[16] == "Brain-Stem" and stem.volume == result.volumes[16] > 0
    assert 0.9 < stem.quality <= 1
    assert result.rows[-1].volume == result.intracranial and len(result.rows) == len(result.structures)


def test_a_result_can_be_saved_later(scan_file, threshold_model, tmp_path):
    result = segment(scan_file, model=threshold_model)
    result.save(tmp_path / "later.nrrd")
    assert np.array_equal(read_scan(tmp_path / "later.nrrd").data, result.labels)
    assert json.loads((tmp_path / "later.json").read_text())["citation"].startswith("Billot")


@pytest.mark.skipif("brain" not in bundled_models(), reason="no bundled weights yet")
def test_bundled_weights_find_a_brain_in_the_template():
    datasets = pytest.importorskip("nilearn.datasets")
    template = datasets.load_mni152_template(resolution=2)
    scan = Scan(template.get_fdata(dtype=np.float32), template.affine)
    result = segment(scan, fast=True)
    assert 1.2e6 < result.intracranial < 2.3e6
    assert 0.7 < result.volumes[3] / result.volumes[42] < 1.4
    assert np.argwhere(result.labels == 17).mean(0)[0] < np.argwhere(result.labels == 53).mean(0)[0]
