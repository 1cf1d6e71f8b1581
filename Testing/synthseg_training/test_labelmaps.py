"""The label-map cache: what goes in comes out, in RAS, and bad maps are refused."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from synthseg_slicer.errors import OptionError, OutputError, ScanError
from synthseg_training.labelmaps import LabelMapSet, prepare


def block(*labels: int) -> np.ndarray:
    """Return a small asymmetric map with the given labels in a box away from the borders."""
    volume = np.zeros((9, 8, 7), np.int16)
    volume[2:6, 3:6, 2:4] = labels[0]
    volume[2, 3, 2:5] = labels[-1]
    return volume


def save(volume: np.ndarray, path, affine=None) -> None:
    nib.save(nib.Nifti1Image(volume, np.eye(4) if affine is None else affine), path)


def test_prepared_maps_come_back_as_they_were_but_cropped(tmp_path):
    save(block(3, 515), tmp_path / "a.nii.gz")
    save(block(41), tmp_path / "b.nii.gz")
    written = prepare(tmp_path, tmp_path / "maps.npz", source="a source", licence="a licence")
    read = LabelMapSet.load(tmp_path / "maps.npz")
    assert read.labels == written.labels == (0, 3, 41, 515)
    assert read.names == ["a", "b"]
    assert (read.voxel_size, read.source, read.licence) == (1.0, "a source", "a licence")
    np.testing.assert_array_equal(np.array(read.labels)[read.maps[0].numpy()], block(3, 515)[1:7, 2:7, 1:6])
    np.testing.assert_array_equal(np.array(read.labels)[read.maps[1].numpy()], block(41)[1:7, 2:7, 1:6])
    assert read.maps[0].dtype == torch.uint8


def test_a_map_that_touches_the_border_gets_a_layer_of_background(tmp_path):
    save(np.full((3, 4, 5), 2, np.uint8), tmp_path / "a.nii")
    label_map = prepare(tmp_path, tmp_path / "maps.npz").maps[0]
    assert tuple(label_map.shape) == (5, 6, 7)
    assert label_map.sum() == 3 * 4 * 5


def test_maps_in_lia_order_are_brought_to_ras(tmp_path):
    lia = np.array([[-1, 0, 0, 8], [0, 0, 1, -3], [0, -1, 0, 5], [0, 0, 0, 1.0]])
    stored = block(3, 515).transpose(0, 2, 1)[::-1, ::-1]  # x -> L, y' = z -> I, z' = y -> A
    for name, volume, affine in (("ras", block(3, 515), np.eye(4)), ("lia", stored, lia)):
        (tmp_path / name).mkdir()
        save(np.ascontiguousarray(volume), tmp_path / name / "a.nii.gz", affine)
    maps = [prepare(tmp_path / name, tmp_path / f"{name}.npz").maps[0] for name in ("ras", "lia")]
    assert torch.equal(*maps)


def test_a_subset_keeps_the_labels_and_the_order_asked_for(tmp_path):
    for name, label in (("a", 2), ("b", 3), ("c", 4)):
        save(block(label), tmp_path / f"{name}.nii.gz")
    maps = prepare(tmp_path, tmp_path / "maps.npz")
    subset = maps.subset(["c", 0])
    assert subset.names == ["c", "a"]
    assert subset.labels == maps.labels
    assert torch.equal(subset.maps[1], maps.maps[0])
    with pytest.raises(OptionError, match="nobody"):
        maps.subset(["nobody"])
    with pytest.raises(OptionError):
        maps.subset([3])


@pytest.mark.parametrize(
    ("volume", "affine", "message"),
    [
        (np.full((4, 4, 4), 1.5, np.float32), np.eye(4), "whole numbers"),
        (np.full((4, 4, 4), -1, np.int16), np.eye(4), "whole numbers"),
        (np.full((4, 4, 4), np.nan, np.float32), np.eye(4), "whole numbers"),
        (np.zeros((4, 4, 4), np.int16), np.eye(4), "background only"),
        (np.ones((4, 4, 4, 2), np.int16), np.eye(4), "3D"),
        (np.ones((4, 4, 4), np.int16), np.diag([1, 1, 3, 1.0]), "isotropic"),
        (np.arange(1000, dtype=np.int16).reshape(10, 10, 10), np.eye(4), "at most 256"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_what_is_no_label_map_is_refused_and_nothing_is_written(tmp_path, volume, affine, message):
    (tmp_path / "maps").mkdir()
    save(volume, tmp_path / "maps" / "bad.nii.gz", affine)
    with pytest.raises(ScanError, match=message):
        prepare(tmp_path / "maps", tmp_path / "out.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["maps"]


def test_maps_of_different_voxel_size_are_refused(tmp_path):
    save(block(2), tmp_path / "a.nii.gz")
    save(block(2), tmp_path / "b.nii.gz", np.diag([2, 2, 2, 1.0]))
    with pytest.raises(ScanError, match="differ in voxel size"):
        prepare(tmp_path, tmp_path / "out.npz")


def test_an_empty_folder_and_a_broken_file_are_named_in_the_error(tmp_path):
    with pytest.raises(ScanError, match="No label maps"):
        prepare(tmp_path, tmp_path / "out.npz")
    (tmp_path / "broken.nii.gz").write_text("no volume")
    with pytest.raises(ScanError, match=r"broken\.nii\.gz"):
        prepare(tmp_path, tmp_path / "out.npz")


def test_a_cache_that_is_missing_or_damaged_is_refused(tmp_path):
    save(block(2), tmp_path / "a.nii.gz")
    prepare(tmp_path, tmp_path / "maps.npz")
    content = (tmp_path / "maps.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.npz").write_text("no cache")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("absent.npz", "half.npz", "text.npz", "other.npz"):
        with pytest.raises(ScanError, match=name):
            LabelMapSet.load(tmp_path / name)


def test_a_folder_that_does_not_exist_cannot_be_written_to(tmp_path):
    save(block(2), tmp_path / "a.nii.gz")
    with pytest.raises(OutputError):
        prepare(tmp_path, tmp_path / "nowhere" / "maps.npz")
