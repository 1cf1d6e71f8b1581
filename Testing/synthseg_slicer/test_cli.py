"""The command line: what it writes, what it prints, and how it refuses bad input."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from synthetic import ball

from synthseg_slicer import cli, pipeline
from synthseg_slicer.cli import main
from synthseg_slicer.errors import ScanError
from synthseg_slicer.inputs import find_scans, output_names


@pytest.fixture
def run(tiny_weights, capsys):
    """Run ``synthseg-slicer segment`` with tiny weights; return exit code, stdout and stderr."""

    def call(*arguments):
        code = main(["segment", "--model", str(tiny_weights), "--device", "cpu", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_one_scan_gives_all_the_files_asked_for(run, scan_file, out):
    options = ("--volumes", out / "v.csv", "--posteriors", out / "p.nii.gz", "--picture", out / "p.png")
    code, stdout, stderr = run(scan_file, "-o", out / "x.nii.gz", "--native", "--fast", "--no-ct", *options)
    assert code == 0 and stdout == ""
    assert names(out) == {"x.nii.gz", "x.json", "v.csv", "p.nii.gz", "p.png"}
    record = json.loads((out / "x.json").read_text())
    assert record["options"] | {"native": True, "fast": True, "ct": False, "ct_requested": False} == record["options"]
    assert "% predict" in stderr


def test_quiet_prints_nothing_but_warnings(run, scan_file, out):
    code, stdout, stderr = run(scan_file, "-o", out / "x.nii.gz", "-q")
    assert (code, stdout) == (0, "")
    assert all(" warning: " in line for line in stderr.splitlines())  # a ball of 18 mm is no head


def test_on_a_terminal_the_bar_ends_at_one_hundred_percent(run, scan_file, out, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    stderr = run(scan_file, "-o", out / "x.nii.gz")[2]
    assert re.search(r"\[#{30}\] 100% done\n", stderr)


def test_a_folder_of_scans_gives_a_folder_of_labels_and_one_table(run, scan_file, out):
    second = nib.load(scan_file)
    nib.Nifti1Image(np.asarray(second.dataobj) + 1, second.affine).to_filename(scan_file.with_name("other.nii"))
    scan_file.with_name("notes.md").write_text("no scan")
    code, _, stderr = run(scan_file.parent, "-o", out / "all", "--volumes", out / "v.csv")
    assert code == 0 and "2 of 2 scans segmented" in stderr
    assert names(out / "all") == {f"{stem}_synthseg.{end}" for stem in ("ball", "other") for end in ("nii.gz", "json")}
    rows = list(csv.DictReader((out / "v.csv").open()))
    assert [os.path.basename(row["scan"]) for row in rows] == ["ball.nii.gz", "other.nii"]
    assert all(float(row["Total-Intracranial"]) > 0 for row in rows)


def test_a_bad_scan_in_a_list_does_not_stop_the_others(run, scan_file, out):
    scan_file.with_name("broken.nii.gz").write_text("no gzip")
    (scan_file.parent / "list.txt").write_text("# scans\nbroken.nii.gz\n\nball.nii.gz\nabsent.nii\n")
    code, _, stderr = run(scan_file.parent / "list.txt", "-o", out / "all", "--volumes", out / "v.csv", "-q")
    assert code == 1
    assert names(out / "all") == {"ball_synthseg.nii.gz", "ball_synthseg.json"}
    errors = [line for line in stderr.splitlines() if "absent.nii:" in line or "broken.nii.gz:" in line]
    assert len(errors) == 2
    assert "1 of 3 scans segmented, 2 failed" in stderr.splitlines()[-1]
    assert len((out / "v.csv").read_text().splitlines()) == 2


def test_when_every_scan_fails_nothing_is_left(run, scan_file, out):
    scan_file.write_text("no gzip")
    code, _, _ = run(scan_file.parent, "-o", out / "all", "--volumes", out / "v.csv")
    assert code == 2 and names(out) == set()


def test_finished_scans_can_be_skipped(run, scan_file, out):
    assert run(scan_file.parent, "-o", out)[0] == 0
    before = (out / "ball_synthseg.nii.gz").stat().st_mtime_ns
    code, _, stderr = run(scan_file.parent, "-o", out, "--skip-existing")
    assert code == 0 and "1 skipped" in stderr
    assert (out / "ball_synthseg.nii.gz").stat().st_mtime_ns == before


def test_a_dicom_folder_counts_as_one_scan(tmp_path, scan_file):
    series = tmp_path / "patients" / "series"
    series.mkdir(parents=True)
    sitk.WriteImage(sitk.Image(4, 4, 1, sitk.sitkInt16), str(series / "IM1.dcm"))
    assert find_scans([series]) == [series]
    assert find_scans([tmp_path / "patients"]) == [series]
    assert find_scans([scan_file.parent, scan_file]) == [scan_file]


def test_results_are_not_taken_for_scans(run, scan_file):
    assert run(scan_file.parent, "-o", scan_file.parent)[0] == 0
    assert find_scans([scan_file.parent]) == [scan_file]


def test_folders_without_scans_and_clashing_names_are_refused(tmp_path, out):
    with pytest.raises(ScanError, match="no scan found"):
        find_scans([out])
    with pytest.raises(cli.OptionError, match="would both become"):
        output_names([tmp_path / "a" / "x.nii", tmp_path / "b" / "x.nii.gz"], out)


GOOD = np.diag([1.0, 1, 1, 1])


def nifti(data=None, affine=GOOD):
    return lambda path: nib.Nifti1Image(ball() if data is None else data, affine).to_filename(path)


def with_values(*values):
    data = ball()
    for index, value in enumerate(values):
        data[index::2] = value
    return data


def truncated(path):
    nifti()(path)
    path.write_bytes(path.read_bytes()[:2000])


def patched_sform(rows):
    """Write an affine that nibabel itself would refuse to write."""

    def write(path):
        path = path.with_suffix("")  # .nii
        nifti()(path)
        content = bytearray(path.read_bytes())
        content[280:328] = np.array(rows, np.float32).tobytes()
        content[252:254] = np.int16(0).tobytes()
        path.write_bytes(content)
        return path

    return write


def rgb(path):
    path = path.with_suffix("").with_suffix(".nrrd")
    sitk.WriteImage(sitk.Image([20, 20, 20], sitk.sitkVectorUInt8, 3), str(path))
    return path


BAD_SCANS = {
    "missing": lambda path: None,
    "truncated": truncated,
    "text": lambda path: path.write_text("this is no scan\n"),
    "no bytes": lambda path: path.write_bytes(b""),
    "empty": nifti(np.zeros((30, 30, 30), np.float32)),
    "constant": nifti(np.full((30, 30, 30), 7, np.int16)),
    "all NaN": nifti(with_values(np.nan, np.nan)),
    "all infinite": nifti(with_values(np.inf, -np.inf)),
    "two dimensions": nifti(ball()[:, :, 20]),
    "four dimensions": nifti(np.stack([ball()] * 3, -1)),
    "RGB": rgb,
    "zero affine": patched_sform(np.zeros((3, 4))),
    "sheared affine": patched_sform([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]),
    "5 mm cube": nifti(ball((5, 5, 5), 2)),
    "micron voxels": nifti(affine=np.diag([1e-3, 1e-3, 1e-3, 1])),
}


@pytest.mark.parametrize("kind", BAD_SCANS)
def test_a_bad_scan_gives_one_line_and_no_output(kind, run, tmp_path, out):
    path = tmp_path / "bad.nii.gz"
    written = BAD_SCANS[kind](path)
    path = path if written is None or isinstance(written, int) else written  # some kinds need another suffix
    code, stdout, stderr = run(path, "-o", out / "x.nii.gz", "--volumes", out / "v.csv", "-q")
    assert code == 2 and stdout == ""
    assert len(stderr.splitlines()) == 1 and str(path) in stderr and stderr.startswith("synthseg-slicer: ")
    assert names(out) == set()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_some_voxels_that_are_no_number_give_a_warning_and_a_result(value, run, tmp_path, out):
    data = ball()
    data[:2] = value
    nifti(data)(tmp_path / "odd.nii.gz")
    code, _, stderr = run(tmp_path / "odd.nii.gz", "-o", out / "x.nii.gz", "-q")
    assert code == 0 and "warning" in stderr
    assert names(out) == {"x.nii.gz", "x.json"}


@pytest.mark.parametrize("target", ["absent/x.nii.gz", "x.docx", "x", "."])
def test_a_target_that_cannot_be_written_is_refused_before_any_work(target, run, scan_file, out, monkeypatch):
    monkeypatch.setattr(pipeline, "load_model", lambda *a: pytest.fail("work began"))
    code, _, stderr = run(scan_file, "-o", out / target, "-q")
    assert code == 2 and len(stderr.splitlines()) == 1 and str(out) in stderr
    assert names(out) == set()


def test_a_full_disk_is_reported_and_leaves_nothing(run, scan_file, out, monkeypatch):
    def full(path, *arguments):
        path.write_bytes(b"half of the labels")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipeline, "write_volume", full)
    code, _, stderr = run(scan_file, "-o", out / "x.nii.gz", "-q")
    assert code == 2 and "No space left" in stderr and len(stderr.splitlines()) == 1
    assert names(out) == set()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--device", "warp-drive"], "warp-drive"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--threads", "0"], "--threads"),
        (["--model", "absent.pt"], "absent.json"),
    ],
)
def test_wrong_options_give_one_line_and_no_output(options, message, run, scan_file, out):
    code, _, stderr = run(scan_file, "-o", out / "x.nii.gz", "-q", *options)
    assert code == 2 and message in stderr and len(stderr.splitlines()) == 1
    assert names(out) == set()


def test_damaged_weights_give_one_line_and_no_output(run, tiny_weights, scan_file, out):
    tiny_weights.write_bytes(tiny_weights.read_bytes()[:-100])
    code, _, stderr = run(scan_file, "-o", out / "x.nii.gz", "-q")
    assert code == 2 and "damaged" in stderr and len(stderr.splitlines()) == 1
    assert names(out) == set()


def test_one_picture_for_several_scans_is_refused(run, scan_file, out):
    code, _, stderr = run(scan_file.parent, "-o", out, "--picture", out / "p.png")
    assert code == 2 and "one scan" in stderr and names(out) == set()


def test_an_interrupt_leaves_nothing_and_says_so(run, scan_file, out, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "predict", interrupt)
    code, _, stderr = run(scan_file, "-o", out / "x.nii.gz", "-q")
    assert code == 130 and "interrupted" in stderr and names(out) == set()


def test_doctor_names_versions_models_and_speed(capsys, monkeypatch):
    monkeypatch.setattr("synthseg_slicer.doctor.PROBE", (16, 16, 16))
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for expected in ("torch ", "numpy ", "Models in", "Speed on cpu", "GiB"):
        assert expected in text


@pytest.fixture
def template(monkeypatch):
    """A stand-in for nilearn's template, so that the demo's own work is tested quickly."""
    datasets = pytest.importorskip("nilearn.datasets")
    monkeypatch.setattr(datasets, "load_mni152_template", lambda resolution: nib.Nifti1Image(ball(), GOOD))


def test_demo_writes_scan_labels_volumes_and_picture(template, threshold_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("synthseg_slicer.demo.load_model", lambda: threshold_model)
    assert main(["demo", str(tmp_path / "demo"), "--device", "cpu", "-q"]) == 0
    written = {f"mni152_synthseg{end}" for end in (".nii.gz", ".json", ".csv", ".png")} | {"mni152.nii.gz"}
    assert names(tmp_path / "demo") == written
    assert str(tmp_path / "demo") in capsys.readouterr().out


def test_demo_without_nilearn_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    assert main(["demo", str(tmp_path / "demo")]) == 2
    assert "pip install synthseg-slicer[demo]" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_labels_can_be_imported_without_torch():
    code = "import sys, synthseg_slicer.labels, synthseg_slicer.errors; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
