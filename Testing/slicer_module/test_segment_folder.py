"""The batch script, run as Slicer runs it: with the application there but no window."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import nibabel as nib
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")

SCRIPT = Path(__file__).resolve().parents[2] / "Scripts" / "segment_folder.py"


@pytest.fixture
def run_script(host, loaded, monkeypatch):
    """A function that runs the script and returns its exit code."""
    import slicer

    host.main_window = False

    def run(*arguments) -> int:
        codes = []
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        monkeypatch.setattr(slicer.util, "exit", codes.append)
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return codes[0]

    return run


def test_a_folder_becomes_segmentations_and_tables(run_script, tmp_path, head, capfd):
    import slicerio

    scans, results = tmp_path / "scans", tmp_path / "results"
    scans.mkdir()
    nib.Nifti1Image(*head).to_filename(scans / "one.nii.gz")
    (scans / "broken.nii.gz").write_bytes(b"no scan at all")
    (scans / "notes.txt").write_text("not a scan either")

    assert run_script(scans, results, "--fast", "--device", "cpu") == 1
    written = capfd.readouterr()
    assert "broken.nii.gz" in written.err and "1 of 2 scans done" in written.out
    assert sorted(path.name for path in results.iterdir()) == ["one.seg.nrrd", "one_volumes.csv"]
    segments = {
        segment["labelValue"]: segment for segment in slicerio.read_segmentation(results / "one.seg.nrrd")["segments"]
    }
    assert len(segments) > 15 and segments[3]["name"] == "Left-Cerebral-Cortex"
    lines = (results / "one_volumes.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 34 and lines[0].startswith("Structure,Label,Volume")

    (scans / "broken.nii.gz").unlink()
    before = (results / "one.seg.nrrd").stat().st_mtime_ns
    assert run_script(scans, results, "--skip-existing") == 0
    assert (results / "one.seg.nrrd").stat().st_mtime_ns == before


def test_an_empty_folder_is_told(run_script, tmp_path, capfd):
    assert run_script(tmp_path, tmp_path / "results") == 2
    assert str(tmp_path) in capfd.readouterr().err
    assert not (tmp_path / "results").exists()
