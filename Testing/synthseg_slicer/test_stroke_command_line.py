"""``segment --task stroke``: what it writes, which options it takes and refuses, scans that are CT."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from lesioned import Bright, head, truth
from synthetic import TINY, Threshold, ball, random_network

from synthseg_slicer.cli import main
from synthseg_slicer.labels import BRAIN, LESION_ID, STROKE
from synthseg_slicer.scan import Scan
from synthseg_slicer.stroke import segment_lesions
from synthseg_slicer.weights import Model, save_model


class Sides(Threshold):
    """The head is white matter, left in the first half of the image and right in the second; counts its passes."""

    passes = 0

    def __init__(self):
        super().__init__()
        self.level.data.fill_(0.15)

    def forward(self, image):
        self.passes += 1
        middle = image.shape[2] // 2
        logits = super().forward(image)
        ids = [label.id for label in BRAIN]
        bright = logits[:, ids.index(16)].clone()
        logits[:, ids.index(16)] = -20.0
        logits[:, ids.index(2), :middle] = bright[:, :middle]
        logits[:, ids.index(41), middle:] = bright[:, middle:]
        return logits


class Counted(Bright):
    """Counts its passes."""

    passes = 0

    def forward(self, image):
        self.passes += 1
        return super().forward(image)


@pytest.fixture
def networks(monkeypatch):
    """Foreseeable networks of both tasks in place of the bundled ones."""
    lesions, brain = Counted(), Sides()
    monkeypatch.setattr(
        "synthseg_slicer.stroke.load_model", lambda task, path=None: Model(lesions, STROKE, "", {"flips": 2})
    )
    monkeypatch.setattr("synthseg_slicer.pipeline.load_model", lambda task, path=None: Model(brain, BRAIN, "", {}))
    return lesions, brain


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def run(out, capsys):
    """Run ``segment``, by default the task stroke; return exit code, standard output and error."""

    def call(*arguments, task="stroke"):
        options = ["-o", out / "l.nii.gz", "--task", task, "--device", "cpu", "-q"]
        return main(["segment", *map(str, (*arguments, *options))]), *capsys.readouterr()

    return call


CENTRE = (22, 14, 20)
"""Of the lesion: in both halves of 20 voxels, and more in the second, which is right."""


@pytest.fixture
def t1(tmp_path):
    """A scan of a head with a lesion, in a file."""
    path = tmp_path / "t1.nii.gz"
    nib.Nifti1Image(head(CENTRE).data, np.eye(4)).to_filename(path)
    return path


def ct() -> np.ndarray:
    """A ball of brain in a shell of bone, in Hounsfield units."""
    shape = (40, 36, 40)
    data = np.where(ball(shape, 15.0) > 60, 500, np.where(ball(shape, 15.0) > -100, -1000, 0)).astype(np.float32)
    data[ball(shape, 13.0) > 60] = 35
    return data + np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)


@pytest.fixture
def ct_file(tmp_path):
    path = tmp_path / "ct.nii.gz"
    nib.Nifti1Image(ct(), np.eye(4)).to_filename(path)
    return path


def record(out) -> dict:
    return json.loads((out / "l.json").read_text())


def rows(path) -> list[dict]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_all_scans_are_of_one_head(tmp_path, t1, out, run):
    network = random_network("fast", n_labels=len(STROKE), **TINY)
    card = {"architecture": "fast", "options": {"n_labels": len(STROKE), **TINY}, "labels": STROKE}
    weights = save_model(tmp_path / "stroke.pt", network, card)
    flair = t1.with_name("flair.nii.gz")
    flair.write_bytes(t1.read_bytes())
    code, stdout, _ = run(t1, flair, "--no-anatomy", "--model", weights, "--volumes", out / "v.csv")
    assert code == 0 and "ml" in stdout and nib.load(out / "l.nii.gz").shape == (40, 36, 40)
    assert record(out)["options"]["scans"] == ["t1.nii.gz", "flair.nii.gz"]  # without folders


def test_loads_add_up_to_the_lesion(networks, t1, out, run):
    code, stdout, _ = run(t1, "--loads", out / "loads.csv", "--volumes", out / "v.csv")
    labels = np.asarray(nib.load(out / "l.nii.gz").dataobj)
    volume = np.count_nonzero(labels == LESION_ID)
    assert code == 0 and stdout == f"1 lesion, {volume / 1000:.1f} ml\n"
    assert volume == pytest.approx(np.sum(truth(CENTRE)), rel=0.06)
    (lesion,) = rows(out / "v.csv")
    assert float(lesion["volume_mm3"]) == volume and lesion["side"] == "both"
    table = {row["structure"]: row for row in rows(out / "loads.csv")}
    lesions = {name: float(row["lesion_mm3"]) for name, row in table.items()}
    assert sum(lesions[name] for name, row in table.items() if row["label"]) == volume
    left, right = np.count_nonzero(labels[:20]), np.count_nonzero(labels[20:])
    assert 0 < left < right
    assert lesions["Left-Cerebral-White-Matter"] == lesions["Left-Hemisphere"] == left
    assert lesions["Right-Cerebral-White-Matter"] == lesions["Right-Hemisphere"] == right
    assert lesions["Brain"] == volume
    head_volume = np.count_nonzero(head(CENTRE).data > 60)
    assert float(table["Brain"]["volume_mm3"]) == pytest.approx(head_volume, rel=0.02)
    assert float(table["Brain"]["lesion_percent"]) == pytest.approx(100 * volume / head_volume, rel=0.02)


def test_fast_is_one_pass_a_scan_and_one_for_the_anatomy(networks, t1, out, run):
    def passes(*options):
        before = [network.passes for network in networks]
        assert run(t1, *options)[0] == 0
        return [network.passes - b for network, b in zip(networks, before)]

    assert passes() == [2, 2] and record(out)["options"]["flips"] == 2
    assert passes("--fast") == passes("--fast", "--flips", 1) == [1, 1]
    assert record(out)["options"]["flips"] == 1 and record(out)["options"]["fast"] is True
    assert passes("--flips", 1) == [1, 2]
    assert passes("--fast", "--no-anatomy") == [1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ct"], "Leave out --ct"),
        (["--contrast", "any"], "--contrast belongs to the task brain. Leave it out"),
        (["--no-refine"], "--no-refine belongs to the task brain"),
        (["--robust"], "--robust belongs to the task brain"),
        (["--no-robust"], "--no-robust belongs to the task brain"),
        (["--fast", "--flips", "8"], "one pass, not 8 flips. Leave out --fast, or --flips."),
    ],
)
def test_options_of_the_brain_task_are_refused(options, message, networks, t1, out, run):
    code, stdout, stderr = run(t1, *options)
    assert code == 2 and stdout == "" and message in stderr and len(stderr.splitlines()) == 1
    assert not list(out.iterdir()) and not networks[0].passes


@pytest.mark.parametrize(
    "options", [["--loads", "x.csv"], ["--flips", "1"], ["--flips", "0"], ["--no-anatomy"], ["--no-register"]]
)
def test_options_of_the_stroke_task_are_refused_elsewhere(options, networks, t1, out, run):
    code, _, stderr = run(t1, *options, task="brain")
    assert code == 2 and f"{options[0]} belongs to the task stroke. Add --task stroke" in stderr
    code, _, stderr = run(t1, *options, "--timepoints", task="brain")
    assert code == 2 and f"{options[0]} does not go with --timepoints" in stderr
    assert not list(out.iterdir()) and not networks[1].passes


@pytest.mark.parametrize("anatomy", [[], ["--no-anatomy"]], ids=["with anatomy", "lesions only"])
def test_a_scan_that_is_ct_is_named_in_a_warning(networks, t1, ct_file, out, run, anatomy):
    code, _, stderr = run(t1, ct_file, *anatomy)
    told = [line for line in stderr.splitlines() if "looks like CT" in line]
    assert code == 0 and len(told) == 1
    assert told[0].startswith("synthseg-slicer: warning: ") and "ct.nii.gz: " in told[0] and "MR only" in told[0]
    assert [one["ct"] for one in record(out)["inputs"]] == [False, True]
    assert any("ct.nii.gz: This looks like CT" in message for message in record(out)["warnings"])


def test_a_scan_that_is_said_to_be_mr_is_taken_as_such(networks, ct_file, out, run):
    code, _, stderr = run(ct_file, "--no-ct", "--picture", out / "p.png")
    assert code == 0 and "looks like CT" not in stderr
    assert [one["ct"] for one in record(out)["inputs"]] == [False] and record(out)["options"]["ct_requested"] is False


@pytest.mark.parametrize("said", [None, False])
def test_what_a_scan_is_said_to_be_holds_for_the_anatomy_too(networks, said):
    with pytest.warns(UserWarning):  # it is far too small for a head
        result = segment_lesions(Scan(ct(), np.eye(4), name="ct"), ct=said)
    assert result.anatomy.provenance["options"]["ct"] is (said is None)
    assert result.provenance["inputs"][0]["ct"] is (said is None)


@pytest.mark.parametrize("kind", ["nii.gz", "mgz"])
def test_a_file_of_several_volumes_is_refused_with_a_way_out(networks, tmp_path, out, run, kind):
    roi = pytest.importorskip("nibabel.cmdline.roi")
    series = np.stack([ball(), head().data[:32, :, :40], ball()], -1)
    path = tmp_path / f"series.{kind}"
    (nib.MGHImage if kind == "mgz" else nib.Nifti1Image)(series, np.eye(4)).to_filename(path)
    code, _, stderr = run(path)
    assert code == 2 and len(stderr.splitlines()) == 1 and str(path) in stderr
    assert "nib-roi -t 0:1 IN OUT.nii.gz" in stderr and "frame=0 to frame=2" in stderr
    assert roi.main(["-t", "1:2", str(path), str(tmp_path / "one.nii.gz")]) == 0  # what the message says
    assert run(tmp_path / "one.nii.gz", "--no-anatomy")[:2] == (0, "1 lesion, 0.9 ml\n")
