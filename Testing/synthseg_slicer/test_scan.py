"""Reading, checking and writing scans."""

import gzip
import hashlib
import os
import resource
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from mixed_scans import write_dicom

from synthseg_slicer import dicom, scan
from synthseg_slicer.errors import OptionError, OutputError, ScanError
from synthseg_slicer.files import atomic, check_output
from synthseg_slicer.scan import WRITE_SUFFIXES, Scan, ScanWarning, read_scan, write_volume

SHAPE = (12, 10, 8)
AFFINE = np.array([[0, -2.0, 0, 11], [3.0, 0, 0, -7], [0, 0, 4.0, 5], [0, 0, 0, 1]])


@pytest.fixture
def data():
    return np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)


@pytest.fixture
def oblique():
    """A left-handed oblique affine with 3 x 2 x 4 mm voxels."""
    a, b = 0.3, -0.2
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tip = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tip @ np.diag([-3.0, 2.0, 4.0])
    affine[:3, 3] = (80.5, -33.3, 12.1)
    return affine


PIXDIM_X, FORM_CODES, SROWS, DIM = 80, 252, 280, 42
"""Byte offsets in the NIfTI-1 header."""


def save_nifti(path, data, patches=()):
    """Save with the usual affine, then overwrite header fields with (offset, array) behind nibabel's back."""
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    content = bytearray(path.read_bytes())
    for offset, values in patches:
        content[offset : offset + values.nbytes] = values.tobytes()
    path.write_bytes(content)
    return path


# ---- reading ----


@pytest.mark.parametrize("suffix", scan.WRITE_SUFFIXES)
def test_every_format_keeps_values_and_geometry(tmp_path, data, oblique, suffix):
    write_volume(tmp_path / f"a.b{suffix}", data, oblique)
    read = read_scan(tmp_path / f"a.b{suffix}")
    assert read.data.dtype == np.int16
    np.testing.assert_array_equal(read.data, data)
    np.testing.assert_allclose(read.affine, oblique, atol=1e-5)  # NIfTI and MGH store single precision
    np.testing.assert_allclose(read.voxel_size, (3, 2, 4), atol=1e-5)
    assert read.voxel_volume == pytest.approx(24, abs=1e-4)
    assert read.sha256 == hashlib.sha256((tmp_path / f"a.b{suffix}").read_bytes()).hexdigest()
    assert [p.name for p in tmp_path.iterdir()] == [f"a.b{suffix}"]


@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd"])
def test_the_hash_of_a_detached_header_covers_its_data(tmp_path, data, name):
    image = sitk.GetImageFromArray(data)
    image.SetSpacing((3, 3, 3))
    sitk.WriteImage(image, str(tmp_path / name))
    before = read_scan(tmp_path / name).sha256
    (data_file,) = (p for p in tmp_path.iterdir() if p.name != name)
    content = bytearray(data_file.read_bytes())
    content[-1] ^= 1
    data_file.write_bytes(content)
    assert (tmp_path / name).exists() and read_scan(tmp_path / name).sha256 != before


def test_a_nifti_pair_is_read_from_either_file(tmp_path, data):
    nib.save(nib.Nifti1Pair(data, AFFINE), tmp_path / "a.img")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.hdr").data, data)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.img").affine, AFFINE)


def test_scaling_of_the_header_is_applied(tmp_path, data):
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_slope_inter(0.5, -10)
    nib.save(image, tmp_path / "a.nii")
    read = read_scan(tmp_path / "a.nii")
    assert read.data.dtype == np.float32
    np.testing.assert_allclose(read.data, nib.load(tmp_path / "a.nii").get_fdata(), atol=1e-4)
    assert read.data.min() < 0


def test_the_sform_counts_before_the_qform(tmp_path, data):
    image = nib.Nifti1Image(data, None)
    image.set_qform(np.diag([3.0, 3, 3, 1]), code=1)
    nib.save(image, tmp_path / "q.nii")
    np.testing.assert_allclose(read_scan(tmp_path / "q.nii").affine, np.diag([3.0, 3, 3, 1]))
    image.set_sform(AFFINE, code=2)
    nib.save(image, tmp_path / "s.nii")
    np.testing.assert_allclose(read_scan(tmp_path / "s.nii").affine, AFFINE)


def test_an_unknown_orientation_is_told(tmp_path, data):
    save_nifti(tmp_path / "a.nii", data, [(FORM_CODES, np.int16([0, 0]))])
    with pytest.warns(ScanWarning, match="how its axes lie"):
        read_scan(tmp_path / "a.nii")
    header = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 12 10 8\nspacings: 3 3 3\nencoding: raw\nendian: little\n\n"
    (tmp_path / "a.nrrd").write_bytes(header + data.tobytes())
    with pytest.warns(ScanWarning, match="how its axes lie"):
        read_scan(tmp_path / "a.nrrd")


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1), (0, 1)])
def test_header_units_are_converted_to_mm(tmp_path, data, unit, factor):
    affine = AFFINE.copy()
    affine[:3] *= factor
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_scan(tmp_path / "a.nii").affine, AFFINE, rtol=1e-6)


def test_a_fourth_dimension_of_one_is_dropped(tmp_path, data):
    save_nifti(tmp_path / "a.nii.gz", data[..., None])
    np.testing.assert_array_equal(read_scan(tmp_path / "a.nii.gz").data, data)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz", ".nrrd", ".mha"])
def test_one_frame_can_be_picked(tmp_path, data, suffix):
    write_volume(tmp_path / f"a{suffix}", np.stack([data, data + 1, data + 2], axis=3), AFFINE)
    np.testing.assert_array_equal(read_scan(tmp_path / f"a{suffix}", frame=2).data, data + 2)
    with pytest.raises(ScanError, match=r"3 frames.*frame=0 to frame=2"):
        read_scan(tmp_path / f"a{suffix}")
    with pytest.raises(OptionError, match="frames 0 to 2"):
        read_scan(tmp_path / f"a{suffix}", frame=3)


def test_one_frame_of_a_four_dimensional_itk_image_can_be_picked(tmp_path, data):
    volumes = [sitk.GetImageFromArray(np.ascontiguousarray((data + i).transpose(2, 1, 0))) for i in range(2)]
    image = sitk.JoinSeries(volumes)
    image.SetSpacing((3, 3, 3, 1))
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    np.testing.assert_array_equal(read_scan(tmp_path / "a.mha", frame=1).data, data + 1)
    with pytest.raises(ScanError, match="2 frames"):
        read_scan(tmp_path / "a.mha")


def test_itk_and_nibabel_agree_on_the_world(tmp_path, data, oblique):
    write_volume(tmp_path / "a.nii.gz", data, oblique)
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    np.testing.assert_allclose(scan.itk_affine(image), oblique, atol=1e-4)


# ---- DICOM ----


@pytest.fixture
def hounsfield():
    return np.random.default_rng(1).integers(-1000, 1500, (12, 10, 9)).astype(np.int16)


LPS_RAS = np.diag([-1.0, -1, 1, 1])


def test_a_dicom_folder_is_read_in_hounsfield_units_and_place(tmp_path, hounsfield, oblique):
    right_handed = oblique @ np.diag([-1, 1, 1, 1])
    folder = write_dicom(tmp_path / "ct", hounsfield, right_handed)
    read = read_scan(folder)
    np.testing.assert_array_equal(read.data, hounsfield)
    np.testing.assert_allclose(read.affine, LPS_RAS @ right_handed, atol=1e-4)  # headers hold six decimals
    assert read_scan(next(folder.iterdir())).sha256 == read.sha256
    content = b"".join(file.read_bytes() for file in sorted(folder.iterdir()))
    assert read.sha256 == hashlib.sha256(content).hexdigest()


def test_small_series_beside_the_scan_are_passed_over_and_two_scans_refused(tmp_path, hounsfield):
    folder = write_dicom(tmp_path / "ct", hounsfield, AFFINE)
    write_dicom(folder, hounsfield[:, :, :3], AFFINE, uid="1.2.3.5")
    assert read_scan(folder).shape == hounsfield.shape
    write_dicom(folder, hounsfield, AFFINE, uid="1.2.3.6")
    with pytest.raises(ScanError, match=r"3 series.*9 slices 'series 1.2.3.\d'"):
        read_scan(folder)
    assert read_scan(folder / "6_07.dcm").shape == hounsfield.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [({"skip": (4,)}, "unevenly spaced.*8.00 mm after slice 4"), ({"drift": 0.5}, "gantry tilt")],
)
def test_a_dicom_series_without_a_regular_grid_is_refused(tmp_path, hounsfield, options, message):
    with pytest.raises(ScanError, match=message):
        read_scan(write_dicom(tmp_path / "ct", hounsfield, AFFINE, **options))


def test_a_dicom_series_of_repeats_is_refused(tmp_path, hounsfield):
    files = list(write_dicom(tmp_path / "a", hounsfield, AFFINE).iterdir())
    files += list(write_dicom(tmp_path / "b", hounsfield, AFFINE).iterdir())
    with pytest.raises(ScanError, match="same place"):
        dicom.series_geometry(files)


def test_dicom_slices_of_different_directions_are_refused(tmp_path, hounsfield):
    turned = AFFINE[:, [1, 2, 0, 3]]
    files = list(write_dicom(tmp_path / "a", hounsfield, AFFINE).iterdir())
    files += list(write_dicom(tmp_path / "b", hounsfield, turned).iterdir())
    with pytest.raises(ScanError, match="differ in size or direction"):
        dicom.series_geometry(files)


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(ScanError, match="no DICOM series"):
        read_scan(tmp_path)


# ---- bad input ----


def damaged_files(folder, data):
    """Yield (name, pattern of the message) of files that no reader can use."""
    yield "missing.nii.gz", "no such file"
    (folder / "empty.nii.gz").write_bytes(b"")
    yield "empty.nii.gz", "0 bytes"
    (folder / "text.nii.gz").write_text("Dear colleague, " * 100)
    yield "text.nii.gz", "cannot be read"
    (folder / "text.nrrd").write_text("Dear colleague, " * 100)
    yield "text.nrrd", "cannot be read"
    (folder / "text.dcm").write_text("Dear colleague, " * 100)
    yield "text.dcm", "cannot be read"
    (folder / "notes.txt").write_text("Dear colleague, " * 100)
    yield "notes.txt", "unknown kind of file.*\\.nii\\.gz"
    for suffix in (".nii.gz", ".nii", ".mgz", ".nrrd", ".mha"):
        write_volume(folder / f"whole{suffix}", data, AFFINE)
        content = (folder / f"whole{suffix}").read_bytes()
        (folder / f"cut{suffix}").write_bytes(content[: len(content) * 2 // 3])
        yield f"cut{suffix}", "cannot be read"
    (folder / "header.nii").write_bytes((folder / "whole.nii").read_bytes()[:200])
    yield "header.nii", "cannot be read"
    save_nifti(folder / "single.nii", data[:, :, 0])
    yield "single.nii", "two-dimensional"
    save_nifti(folder / "slice.nii", data[:, :, :1])
    yield "slice.nii", "two-dimensional"
    sitk.WriteImage(sitk.GetImageFromArray(data[0]), str(folder / "flat.mha"))
    yield "flat.mha", "two-dimensional"
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"] = data % 255
    save_nifti(folder / "colour.nii", rgb)
    yield "colour.nii", "RGB"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((*SHAPE, 3), np.uint8), isVector=True), str(folder / "colour.mha"))
    yield "colour.mha", "RGB"
    save_nifti(folder / "complex.nii", data.astype(np.complex64))
    yield "complex.nii", "complex64"
    save_nifti(folder / "constant.nii", np.full(SHAPE, 7, np.int16))
    yield "constant.nii", "constant.*7"
    save_nifti(folder / "nan.nii", np.full(SHAPE, np.nan, np.float32))
    yield "nan.nii", "no voxel holds a finite number"
    save_nifti(folder / "twofold.nii", np.zeros((*SHAPE, 2, 2), np.int16))
    yield "twofold.nii", "more than one axis"


def test_damaged_and_unfit_files_are_refused_by_name_and_cause(tmp_path, data):
    for name, message in damaged_files(tmp_path, data):
        with pytest.raises(ScanError, match=message) as caught:
            read_scan(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert str(caught.value).rstrip().endswith((".", "folders."))


def affine_of(*columns):
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns, dtype=float).T
    return affine


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.zeros((4, 4)), "4x4 matrix ending"),
        (np.diag([0.0, 0, 0, 1]), "zero or singular"),
        (affine_of([3, 0, 0], [3, 0, 0], [0, 0, 3]), "zero or singular"),
        (np.diag([np.nan, 3, 3, 1]), "not a finite"),
        (affine_of([3, 0, 0], [0.3, 3, 0], [0, 0, 3]), "sheared"),
        (np.diag([1e-3, 1e-3, 1e-3, 1]), "0.001 x 0.001 x 0.001 mm is implausible"),
        (np.diag([0.5, 0.5, 0.6, 1]), "field of view 6 x 5 x 4.8 mm is implausible"),
        (np.diag([30.0, 3, 3, 1]), "voxel size 30 x 3 x 3"),
    ],
)
def test_an_implausible_geometry_is_refused(data, affine, message):
    with pytest.raises(ScanError, match=message):
        Scan(data, affine, Path("some.nii"))


def test_a_singular_sform_in_a_file_is_refused(tmp_path, data):
    save_nifti(tmp_path / "a.nii", data, [(SROWS, np.zeros(12, np.float32))])
    with pytest.raises(ScanError, match="zero or singular"):
        read_scan(tmp_path / "a.nii")


def test_a_voxel_size_of_zero_is_refused_and_not_taken_for_one_mm(tmp_path, data):
    save_nifti(tmp_path / "a.nii", data, [(FORM_CODES, np.int16([0, 0])), (PIXDIM_X, np.float32([0]))])
    with pytest.raises(ScanError, match="0 x 2 x 4 mm is impossible"):
        read_scan(tmp_path / "a.nii")


def test_rounding_in_the_header_is_not_shear(data):
    affine = AFFINE.copy()
    affine[:3] += 1e-4
    np.testing.assert_array_equal(Scan(data, affine).affine, affine)


def test_absurd_dimensions_are_refused_before_memory_is_taken(tmp_path, data):
    save_nifti(tmp_path / "a.nii", data.astype(np.float64), [(DIM, np.int16([30000, 30000, 30000]))])
    (tmp_path / "big.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ScanError, match="too large"):
        read_scan(tmp_path / "big.nii.gz")
    (tmp_path / "big.nrrd").write_bytes(
        b"NRRD0004\ntype: short\ndimension: 3\nsizes: 30000 30000 30000\nencoding: raw\nendian: little\n\n" + bytes(100)
    )
    with pytest.raises(ScanError, match="too large"):
        read_scan(tmp_path / "big.nrrd")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_an_image_without_voxels_is_refused():
    with pytest.raises(ScanError, match="empty"):
        Scan(np.zeros((0, 10, 10), np.float32), AFFINE)


def test_some_nonfinite_voxels_are_replaced_with_a_warning(data):
    values = data.astype(np.float32) + 5
    values[0, 0, :4] = (np.nan, np.inf, -np.inf, np.nan)
    with pytest.warns(ScanWarning, match="4 voxels"):
        cleaned = Scan(values, AFFINE).data
    low, high = np.nanmin(values[1:]), np.nanmax(values[1:])
    np.testing.assert_array_equal(cleaned[0, 0, :4], (low, high, low, low))
    np.testing.assert_array_equal(cleaned[1:], values[1:])
    assert np.isnan(values[0, 0, 0])  # the caller's array is left alone


def test_a_usual_scan_raises_no_warning(tmp_path, data):
    write_volume(tmp_path / "a.nii.gz", data, AFFINE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_scan(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, ">i2", ">f4"])
def test_other_types_become_float32_or_native_integers(data, dtype):
    stored = Scan(data.astype(dtype), AFFINE).data
    assert stored.dtype.isnative and stored.dtype in (np.float32, np.int16)
    np.testing.assert_array_equal(stored, data)


def test_missing_nibabel_is_told_with_the_way_round(tmp_path, data, monkeypatch):
    save_nifti(tmp_path / "a.nii", data)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ScanError, match=r"needs nibabel.*nrrd"):
        read_scan(tmp_path / "a.nii")
    with pytest.raises(OutputError, match="needs nibabel"):
        write_volume(tmp_path / "b.nii", data, AFFINE)
    write_volume(tmp_path / "b.nrrd", data, AFFINE)
    assert read_scan(tmp_path / "b.nrrd").shape == SHAPE


# ---- writing ----


@pytest.mark.parametrize(
    ("given", "stored"),
    [(bool, np.uint8), (np.uint8, np.uint8), (np.int32, np.int32), (np.int64, np.int32), (np.float16, np.float32)],
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz", ".nrrd"])
def test_voxel_types_are_kept_or_widened(tmp_path, data, given, stored, suffix):
    values = (data % 200).astype(given)
    write_volume(tmp_path / f"a{suffix}", values, AFFINE)
    read = read_scan(tmp_path / f"a{suffix}").data
    assert read.dtype == stored
    np.testing.assert_array_equal(read, values)


def test_integers_that_do_not_fit_are_refused(tmp_path, data):
    with pytest.raises(OutputError, match="int64"):
        write_volume(tmp_path / "a.nii", data.astype(np.int64) << 40, AFFINE)


def test_nifti_carries_both_forms_in_mm_and_only_the_sform_under_shear(tmp_path, data, oblique):
    write_volume(tmp_path / "a.nii.gz", data, oblique)
    header = nib.load(tmp_path / "a.nii.gz").header
    assert header["sform_code"] == header["qform_code"] == 1
    assert header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(header.get_qform(), oblique, atol=1e-4)
    sheared = affine_of([3, 0, 0], [1, 3, 0], [0, 0, 3])
    write_volume(tmp_path / "b.nii.gz", data, sheared)
    header = nib.load(tmp_path / "b.nii.gz").header
    assert (header["sform_code"], header["qform_code"]) == (1, 0)
    np.testing.assert_allclose(header.get_sform(), sheared)


def test_the_same_volume_gives_the_same_bytes(tmp_path, data):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, data, AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_targets_that_cannot_be_written_are_refused_and_leave_nothing(tmp_path, data):
    (tmp_path / "folder.nii").mkdir()
    for name, message in [
        ("a.jpg", "unknown suffix.*\\.nii\\.gz"),
        ("folder.nii", "is a folder"),
        ("absent/a.nii", "does not exist"),
    ]:
        with pytest.raises(OutputError, match=message):
            write_volume(tmp_path / name, data, AFFINE)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.nii"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which nobody, root included, may create files")
@pytest.mark.parametrize("suffix", scan.WRITE_SUFFIXES)
def test_a_folder_that_takes_no_files_is_refused(data, suffix):
    with pytest.raises(OutputError, match="/proc"):
        write_volume(f"/proc/a{suffix}", data, AFFINE)


def test_an_unwritable_folder_is_found_before_the_work_starts(tmp_path, monkeypatch):
    assert check_output(tmp_path / "a.NII.GZ", WRITE_SUFFIXES) == ".nii.gz"
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as chmod does not stop root
    with pytest.raises(OutputError, match="not writable"):
        check_output(tmp_path / "a.nii", WRITE_SUFFIXES)


@pytest.mark.parametrize("room", ["0", "5000", "size - 50"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, room):
    """A limit on file size stands in for the full disk: the kernel refuses the write in the same way.

    Lacking only the last bytes is a case of its own: ITK's writers do not notice.
    """
    (tmp_path / "out").mkdir()
    code = f"""
        import resource, numpy as np
        from pathlib import Path
        from synthseg_slicer.errors import OutputError
        from synthseg_slicer.report import overlay_picture
        from synthseg_slicer.scan import write_volume
        data = np.random.default_rng(0).integers(0, 9999, (20, 20, 20)).astype(np.int16)
        affine = np.diag([3., 3, 3, 1])
        for name in ("a.nii.gz", "a.nii", "a.mgz", "a.nrrd", "a.mha", "a.png"):
            def write(folder):
                path = Path({str(tmp_path)!r}) / folder / name
                if path.suffix == ".png":
                    overlay_picture(path, data, data, affine)
                else:
                    write_volume(path, data, affine)
                return path.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            size = write(".")
            resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY))
            try:
                write("out")
            except OutputError as error:
                assert "Nothing was left behind" in str(error), error
            else:
                raise SystemExit(name + " was written")
    """
    (tmp_path / "out" / "a.nrrd").write_text("old")
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + result.stdout
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.nrrd"]
    assert (tmp_path / "out" / "a.nrrd").read_text() == "old"


def test_an_interrupted_block_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
    with atomic(target) as temporary:
        assert temporary.suffix == ".csv" and temporary.parent == tmp_path
        temporary.write_text("new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["new"]
