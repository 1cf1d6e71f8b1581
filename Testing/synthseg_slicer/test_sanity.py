"""What is told of a scan before it is segmented, and of its result's size."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthseg_slicer import sanity, segment
from synthseg_slicer.cli import main
from synthseg_slicer.conform import conform
from synthseg_slicer.errors import ScanWarning
from synthseg_slicer.labels import BRAIN, BRAIN_IDS, STROKE
from synthseg_slicer.scan import Scan, read_scan
from synthseg_slicer.stored import contradicting_forms
from synthseg_slicer.stroke import segment_lesions

SHAPE, SIZE = (64, 76, 70), 3.0
AFFINE = np.array([[SIZE, 0, 0, -95.0], [0, SIZE, 0, -115.0], [0, 0, SIZE, -110.0], [0, 0, 0, 1]])


def head() -> np.ndarray:
    """Return something as large, as round and as symmetrical as a head: skull, brain, ventricles, face and neck."""
    index = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    x, y, z = (SIZE * grid + offset for grid, offset in zip(index, AFFINE[:3, 3]))

    def ellipsoid(centre, radii):
        return sum(((axis - c) / r) ** 2 for axis, c, r in zip((x, y, z), centre, radii)) < 1

    data = np.zeros(SHAPE, np.float32)
    for centre, radii, value in (
        ((0, 0, 20), (76, 92, 78), 120),  # scalp
        ((0, 50, -40), (50, 50, 60), 150),  # face
        ((0, 95, -30), (14, 18, 24), 150),  # nose
        ((0, -25, -75), (45, 45, 60), 80),  # neck
        ((0, 0, 20), (70, 86, 72), 20),  # skull
        ((0, 0, 20), (64, 80, 66), 160),  # brain
        ((0, -50, -20), (48, 32, 26), 90),  # cerebellum
        ((0, -15, -35), (16, 14, 30), 200),  # brain stem
        ((14, 5, 25), (7, 30, 12), 40),  # ventricles
        ((-14, 5, 25), (7, 30, 12), 40),
    ):
        data[ellipsoid(centre, radii)] = value
    return data + np.random.default_rng(0).normal(0, 4, SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    return head()


def told(scan: Scan) -> list[str]:
    return sanity.header_findings(scan) + sanity.content_findings(sanity.look(conform(scan).image))


def test_nothing_is_said_of_a_usual_head(data):
    assert told(Scan(data, AFFINE)) == []


@pytest.mark.parametrize(
    ("order", "words"), [((1, 0, 2), "back-front"), ((2, 1, 0), "down-up"), ((1, 2, 0), "down-up"), ((2, 0, 1), "back")]
)
def test_a_head_whose_sides_lie_on_another_axis_is_told(data, order, words):
    (message,) = told(Scan(data.transpose(order), AFFINE))
    assert "axes are probably exchanged" in message and words in message


@pytest.mark.parametrize("flips", [(0,), (1,), (2,), (0, 1, 2)])
def test_mirrored_heads_look_alike(data, flips):
    assert told(Scan(np.flip(data, flips), AFFINE)) == []


@settings(max_examples=10, deadline=None)
@given(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), st.floats(-50, 50), st.floats(0.5, 20))
def test_place_brightness_and_offset_do_not_matter(shift, offset, gain):
    moved = np.roll(head(), shift, (0, 1, 2))
    content = sanity.look(conform(Scan(gain * moved + offset, AFFINE)).image)
    assert sanity.content_findings(content) == [] and content.sideways == 0


@pytest.mark.parametrize(("factor", "words"), [(2.0, "too much for a head"), (0.45, "too little for a head")])
def test_a_head_of_the_wrong_size_is_told(data, factor, words):
    (message,) = told(Scan(data, np.diag([factor, factor, factor, 1]) @ AFFINE))
    assert words in message and "voxel size" in message


def test_a_phantom_is_told(data):
    grid = np.stack(np.meshgrid(*(SIZE * (np.arange(n) - n / 2) for n in SHAPE), indexing="ij"))
    ball = 100.0 * (np.linalg.norm(grid, axis=0) < 80) + np.random.default_rng(0).normal(0, 3, SHAPE)
    (message,) = told(Scan(ball.astype(np.float32), AFFINE))
    assert "phantom" in message


def test_noise_and_emptiness_are_told():
    noise = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    assert "noise" in told(Scan(noise, AFFINE))[0]
    empty = np.zeros(SHAPE, np.float32)
    empty[30, 30:32, 30] = 9
    (message,) = told(Scan(empty, AFFINE))
    assert "empty" in message or "too little" in message


def test_a_slab_and_flat_voxels_are_told(data):
    slab = Scan(data[:, :, 30:45], AFFINE)
    assert "only 45 mm along the down-up axis" in sanity.header_findings(slab)[0]
    needles = AFFINE @ np.diag([0.12 / SIZE, 0.12 / SIZE, 12 / SIZE, 1])
    long = Scan(np.pad(data, ((0, 700), (0, 700), (0, 0)))[::1, ::1, ::4], needles)
    assert any("100 times as long as wide" in message for message in sanity.header_findings(long))


def test_an_affine_without_position_is_told(data):
    (message,) = sanity.header_findings(Scan(data, np.diag([SIZE, SIZE, SIZE, 1])))
    assert "no position" in message and "convert the scan again" in message.lower()
    turned = np.array([[0, SIZE, 0, 0], [SIZE, 0, 0, 0], [0, 0, SIZE, 0], [0, 0, 0, 1]])
    assert sanity.header_findings(Scan(data, turned)) == []  # somebody said how the axes lie


def test_the_size_of_a_brain_tells_of_the_voxel_size():
    usual = {label: 1.4e6 / 32 for label in BRAIN_IDS if label}
    assert sanity.size_findings(usual) == []
    small, large = ({label: volume * f for label, volume in usual.items()} for f in (0.7**3, 1.5**3))
    assert "about 1.4 " in sanity.size_findings(small)[0] and "about 0.7 " in sanity.size_findings(large)[0]
    assert sanity.size_findings(dict.fromkeys(usual, 0.0)) == []  # nothing was segmented, which is told elsewhere
    assert sanity.size_findings({99: 500.0}) == []  # lesions say nothing


def test_an_empty_result_is_asked_about_in_the_words_of_the_weights():
    head = "Nothing was segmented. Is this a head scan, and is its header right?"
    assert sanity.nothing_segmented(BRAIN) == sanity.nothing_segmented(STROKE) == head
    names = ("Left-Ventricle", "Right-Ventricle", "Left-Atrium", "Right-Atrium", "Myocardium")
    heart = [replace(BRAIN[0], id=500 + i, name=name) for i, name in enumerate(names)]
    message = sanity.nothing_segmented([BRAIN[0], *heart])
    assert "head scan" not in message and "(Left-Ventricle, Right-Ventricle, Left-Atrium, Right-Atrium, ...)" in message
    assert "(Left-Ventricle), and is its header right?" in sanity.nothing_segmented([BRAIN[0], heart[0]])


# ---- contradictions of NIfTI headers ----


def turned(degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    turn = np.array([[np.cos(a), -np.sin(a), 0, 3], [np.sin(a), np.cos(a), 0, -8], [0, 0, 1, 2], [0, 0, 0, 1]])
    return turn @ AFFINE


@pytest.mark.parametrize(
    ("qform", "words"),
    [
        (AFFINE @ np.diag([-1.0, 1, 1, 1]), "left and right"),
        (turned(90), "how the axes lie"),
        (AFFINE @ np.diag([1, 1, 3.0, 1]), "voxel size"),
    ],
)
def test_forms_that_contradict_each_other_are_told(tmp_path, data, qform, words):
    image = nib.Nifti1Image(data, AFFINE)
    image.set_sform(AFFINE, 2)
    image.set_qform(qform, 1)
    if words == "voxel size":  # nibabel keeps the voxel size of the last form
        image.header["pixdim"][1:4] = np.linalg.norm(qform[:3, :3], axis=0)
    nib.save(image, tmp_path / "a.nii")
    with pytest.warns(ScanWarning, match=words):
        np.testing.assert_allclose(read_scan(tmp_path / "a.nii").affine, AFFINE)


def test_a_template_space_beside_the_scanner_space_is_no_contradiction():
    assert contradicting_forms(turned(20) @ np.diag([1.2, 1.1, 1.2, 1]), AFFINE) is None
    assert contradicting_forms(AFFINE, np.zeros((4, 4))) is None


@settings(max_examples=60, deadline=None)
@given(
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from((-1, 1))] * 3),
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from((-1, 1))] * 3),
)
def test_handedness_is_compared_for_all_axes(order, signs, other_order, other_signs):
    one, other = (
        np.eye(4)[:, [*order, 3]] * [*signs, 1] for order, signs in ((order, signs), (other_order, other_signs))
    )
    message = contradicting_forms(one, other) or ""
    assert ("left and right" in message) == (np.linalg.det(one) * np.linalg.det(other) < 0)
    assert (message == "") == np.array_equal(one, other)


# ---- through the whole path ----


def test_findings_end_up_in_the_record(scan_file, threshold_model, tmp_path):
    segment(scan_file, tmp_path / "x.nii.gz", model=threshold_model)
    told = json.loads((tmp_path / "x.json").read_text())["warnings"]
    assert any("ball.nii.gz: The field of view is only 32 mm" in message for message in told)
    assert any("intracranial volume is 3 ml" in message for message in told)


def test_other_anatomy_than_heads_is_not_judged(scan_file, threshold_model):
    threshold_model.card["mirrored"] = False
    messages = segment(scan_file, model=threshold_model).provenance["warnings"]
    assert not any("field of view" in message or "for a head" in message for message in messages)


def test_every_scan_of_a_stroke_job_is_looked_at_once(scan_file, stroke_weights):
    named = Scan(read_scan(scan_file).data, read_scan(scan_file).affine, name="second")
    messages = segment_lesions([scan_file, named], anatomy=False, model=stroke_weights).provenance["warnings"]
    slabs = [message for message in messages if "field of view is only 32 mm" in message]
    assert len(slabs) == 2 and any(message.startswith("second: ") for message in slabs)


SLAB = "ball.nii.gz: The field of view is only 32 mm"


def test_findings_of_a_stroke_job_are_told_once_wherever_one_looks(
    scan_file, stroke_weights, threshold_model, tmp_path, monkeypatch, capsys
):
    """With its anatomy, which looks at the first scan itself: on the terminal, in the record and on the page."""
    monkeypatch.setattr("synthseg_slicer.pipeline.load_model", lambda task, path=None: threshold_model)
    out, page = tmp_path / "x.nii.gz", tmp_path / "x.html"
    options = ["--task", "stroke", "--model", str(stroke_weights), "--report", str(page), "--device", "cpu", "-q"]
    assert main(["segment", str(scan_file), "-o", str(out), *options]) == 0
    told = capsys.readouterr().err
    record, shown = json.loads((tmp_path / "x.json").read_text())["warnings"], page.read_text(encoding="utf-8")
    assert told.count(SLAB) == shown.count(SLAB) == sum(SLAB in message for message in record) == 1
    assert "intracranial volume is 3 ml" in told  # of the anatomy


def test_findings_of_a_batch_are_in_its_table_of_problems(scan_file, tiny_weights, tmp_path):
    out = tmp_path / "out"
    options = ["--model", str(tiny_weights), "--device", "cpu", "-q"]
    assert main(["batch", str(scan_file.parent), str(out), *options]) == 0
    problems = (out / "problems.tsv").read_text(encoding="utf-8").splitlines()
    assert any(row.startswith("ball.nii.gz\twarning\tThe field of view is only 32 mm") for row in problems)
