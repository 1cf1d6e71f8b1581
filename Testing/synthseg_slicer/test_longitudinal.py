"""Several timepoints of one head: no preference among them, their changes, files, doubts, errors."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from synthetic import Threshold, ball, rigid

from synthseg_slicer import CancelToken, longitudinal, registration
from synthseg_slicer.change import DECREASE, INCREASE, NOISE
from synthseg_slicer.cli import main
from synthseg_slicer.errors import Cancelled, OptionError, OutputError
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.longitudinal import CHANGE_COLORS, GAINED, LOST, RECORD, segment_timepoints
from synthseg_slicer.rescan import RescanNoise
from synthseg_slicer.scan import Scan, ScanWarning
from synthseg_slicer.weights import Model

SHAPE, VOXEL = (38, 44, 36), 4.6
RADII = np.array([65.0, 84, 62])
SPOTS = (((28, 11, 9), 30, 60), ((-31, 26, -13), 26, 40), ((4, -44, 18), 25, 30), ((9, 41, 26), 18, 50))
pytestmark = [
    pytest.mark.filterwarnings("ignore:Changes cannot be judged"),
    pytest.mark.filterwarnings("ignore:.*symmetrical along all axes"),  # an egg is
]


def visit(pose=None, size=1.0, seed=0, spots=SPOTS, voxel=VOXEL, shape=SHAPE, inverted=False, name=None) -> Scan:
    """Return a bright egg with spots in it, ``size`` times as large in volume, that lay in the scanner as ``pose``."""
    affine = np.diag([voxel, voxel, voxel, 1.0])
    affine[:3, 3] = -voxel * (np.array(shape) - 1) / 2 + 0.6
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    back = np.linalg.inv(np.eye(4) if pose is None else pose)
    world = (world @ back[:3, :3].T + back[:3, 3]) / np.cbrt(size)
    edge = 15 * (1 - np.linalg.norm(world / RADII, axis=-1))  # partial volume at the surface
    egg = np.clip(edge + 0.5, 0, 1)
    image = 100 * egg
    for centre, radius, value in spots:
        image += value * np.clip(radius - np.linalg.norm(world - centre, axis=-1), 0, 4) / 4
    if inverted:
        image = np.where(egg > 0, 260 * egg - image, 0)
    noise = np.random.default_rng(seed).normal(0, 1.5, shape)
    return Scan((image + noise).astype(np.float32), affine, name=name)


POSE = rigid((4, -3, 6), (5, -4, 3))


@pytest.fixture
def model() -> Model:
    """Everything brighter than 0.31 is brain stem; rescans of it differ by a standard error of 0.5 %."""
    network = Threshold()
    network.level.data.fill_(0.31)
    ids = [label.id for label in BRAIN if label.id] + [None]
    noise = RescanNoise([""], ids, [0.5] * len(ids), ["any"], VOXEL, {})
    return Model(network, BRAIN, "", {"voxel_size": 4.0}, rescan=noise)


def stem(timeline, later=2):
    return next(row for row in timeline.changes if row.label == 16 and row.later == later)


@pytest.fixture
def quick(monkeypatch):
    """Registrations that know the answer: by the pose after the @ in a scan's name."""
    poses = {"still": np.eye(4), "moved": POSE, "third": rigid((-5, 2, 3), (-4, 2, 6))}

    def register(moving, fixed):
        return poses[fixed.name.partition("@")[2]] @ np.linalg.inv(poses[moving.name.partition("@")[2]])

    monkeypatch.setattr(registration, "register", register)
    return lambda pose, **options: visit(poses[pose], name=f"{options.pop('name', 'scan')}@{pose}", **options)


def test_an_unchanged_head_that_moved_does_not_change(model):
    timeline = segment_timepoints([visit(seed=1), visit(POSE, seed=2)], model=model)
    row = stem(timeline)
    assert (
        abs(row.change_percent) < 0.5
        and row.verdict == NOISE
        and row.threshold_percent == pytest.approx(1.386, abs=1e-3)
    )
    assert row.first_mm3 == pytest.approx(4 / 3 * np.pi * RADII.prod(), rel=0.03)
    here, there = (one.transform for one in timeline.timepoints)
    spots = np.array([(*centre, 1) for centre, *_ in SPOTS]).T
    assert np.linalg.norm((here @ spots - there @ POSE @ spots)[:3], axis=0).max() < 1.2  # they meet, halfway
    assert timeline.agreement[0, 1] > 0.98 and timeline.correlation[0, 1] > 0.9


@pytest.mark.parametrize(("size", "verdict"), [(1.06, INCREASE), (0.94, DECREASE)])
def test_growth_and_loss_are_measured(model, quick, size, verdict):
    row = stem(segment_timepoints([quick("still"), quick("moved", size=size, seed=1)], model=model, years=[0, 2]))
    assert row.change_percent == pytest.approx(200 * (size - 1) / (size + 1), abs=0.6)
    assert row.percent_per_year == row.change_percent / 2 and row.verdict == verdict


@pytest.mark.filterwarnings("ignore")
def test_exchanged_timepoints_exchange_their_results_to_the_last_bit(random_model, quick, monkeypatch):
    model = replace(random_model, card={"voxel_size": 4.0})
    known, error = registration.register, rigid((0.1, 0.2, -0.1), (0.3, -0.2, 0.1))
    monkeypatch.setattr(registration, "register", lambda a, b: known(a, b) @ error)  # there is not the inverse of back
    scans = [quick("still", seed=1), quick("moved", size=1.05, seed=2)]
    one, other = (segment_timepoints(order, model=model) for order in (scans, scans[::-1]))
    turned = [(row.change_percent, back.change_percent) for row, back in zip(one.changes, other.changes)]
    found = [(here, there) for here, there in turned if here is not None]
    assert all(here == -there for here, there in found) and any(here for here, _ in found)
    for first, second in zip(one.timepoints, other.timepoints[::-1]):
        assert first.segmentation.volumes == second.segmentation.volumes
        assert np.array_equal(first.segmentation.labels, second.segmentation.labels)
        assert np.array_equal(first.transform, second.transform) and np.array_equal(first.image, second.image)
    assert one.provenance["pairs"] == other.provenance["pairs"]


def test_nothing_but_rounding_depends_on_the_order_of_work_either(model, quick, monkeypatch):
    monkeypatch.setattr(longitudinal, "canonical_order", lambda scans: list(range(len(scans))))
    scans = [quick("still"), quick("moved", size=1.05, seed=1), quick("third", size=1.1, seed=2)]
    volumes = {}
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        timeline = segment_timepoints([scans[place] for place in order], model=model)
        for place, one in zip(order, timeline.timepoints):
            volumes.setdefault(place, []).append(one.segmentation.volumes[16])
    for values in volumes.values():
        assert np.ptp(values) / np.mean(values) < 1e-4
    grown = [values[0] for values in volumes.values()]
    assert grown[0] < grown[1] < grown[2]


def test_both_are_interpolated_as_much(model, quick):
    timeline = segment_timepoints([quick("still", seed=1), quick("moved", seed=2)], model=model)
    roughness = [np.std(np.diff(one.image[15:25, 15:30, 15:25])) for one in timeline.timepoints]
    assert roughness[0] == pytest.approx(roughness[1], rel=0.1)


def test_each_timepoint_has_its_own_grid_on_request(model, quick):
    scans = [quick("still"), quick("moved", seed=1)]
    timeline = segment_timepoints(scans, model=model, native=True)
    for scan, one in zip(scans, timeline.timepoints):
        assert one.native.shape == scan.shape
        truth = scan.data > 60
        overlap = 2 * np.sum((one.native == 16) & truth) / (np.sum(one.native == 16) + np.sum(truth))
        assert overlap > 0.97


def test_files(model, quick, tmp_path):
    scans = [quick("still", name="a/x"), quick("moved", size=1.06, seed=1, name="b/x")]
    out = tmp_path / "out"
    timeline = segment_timepoints(
        scans, out, model=model, volumes=out / "change.csv", picture=out / "change.png", years=[0, 1]
    )
    stems = ["1_x@still_synthseg", "2_x@moved_synthseg"]
    expected = {f"{stem}{suffix}" for stem in stems for suffix in (".nii.gz", ".tfm", "_image.nii.gz")}
    assert {path.name for path in out.iterdir()} == expected | {"change.csv", "change.png", RECORD}
    for scan, one, name in zip(scans, timeline.timepoints, stems):
        labels, image = (nib.load(out / f"{name}{suffix}") for suffix in (".nii.gz", "_image.nii.gz"))
        assert np.array_equal(np.asarray(labels.dataobj), one.segmentation.labels)
        np.testing.assert_allclose(labels.affine, image.affine)
        # ITK resamples the scan with the transform to what was written
        moving = sitk.GetImageFromArray(scan.data.transpose(2, 1, 0))
        moving.SetSpacing([VOXEL] * 3)
        moving.SetOrigin([*-scan.affine[:2, 3], scan.affine[2, 3]])
        moving.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
        fixed = sitk.ReadImage(str(out / f"{name}_image.nii.gz"))
        moved = sitk.Resample(moving, fixed, sitk.ReadTransform(str(out / f"{name}.tfm")), sitk.sitkLinear)
        pair = [sitk.GetArrayFromImage(each)[8:-8, 8:-8, 8:-8].ravel() for each in (moved, fixed)]
        assert np.corrcoef(*pair)[0, 1] > 0.99
    with (out / "change.csv").open() as file:
        table = {row["structure"]: row for row in csv.DictReader(file)}
    assert table["Brain-Stem"]["verdict"] == INCREASE and len(table) == 33
    assert float(table["Brain-Stem"]["change_percent"]) == stem(timeline).change_percent
    picture = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "change.png"))).astype(int)
    gained, lost = (((picture == CHANGE_COLORS[kind]).all(-1)).sum() for kind in (GAINED, LOST))
    assert gained > 20 and lost < 0.1 * gained  # what grew is red at its rim
    record = json.loads((out / RECORD).read_text())
    assert [one["input"]["name"] for one in record["timepoints"]] == ["x@still", "x@moved"]
    np.testing.assert_allclose(record["timepoints"][1]["to_midpoint"], timeline.timepoints[1].transform)
    assert record["pairs"][0]["timepoints"] == [1, 2] and record["options"]["years"] == [0, 1]
    assert (
        set(record["outputs"]) >= {"volumes", "picture", "1 labels", "2 transform"}
        and "Reuter" in record["citations"][1]
    )


def test_native_files_are_on_the_scans_grids(model, quick, tmp_path):
    scans = [quick("still"), quick("moved", seed=1)]
    segment_timepoints(scans, tmp_path / "out", model=model, native=True)
    for scan, name in zip(scans, ("1_scan@still_synthseg", "2_scan@moved_synthseg")):
        labels = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        assert labels.shape == scan.shape and not (tmp_path / "out" / f"{name}_image.nii.gz").exists()
        np.testing.assert_allclose(labels.affine, scan.affine, atol=1e-5)


@pytest.mark.parametrize("existing", [False, True])
def test_nothing_is_left_behind_when_one_file_fails(model, quick, tmp_path, monkeypatch, existing):
    def fail(path, *_):
        raise OutputError(f"{path}: the disk is full.")

    out = tmp_path / "out"
    if existing:
        out.mkdir()
        (out / "mine.txt").write_text("kept")
    monkeypatch.setattr(longitudinal, "write_transform", fail)
    with pytest.raises(OutputError, match="disk is full"):
        segment_timepoints([quick("still"), quick("moved", seed=1)], out, model=model, volumes=out / "c.csv")
    assert ([path.name for path in out.iterdir()] == ["mine.txt"]) if existing else not out.exists()


@pytest.mark.parametrize("stage", ["read", "register 2 of 2", "predict 2 of 2", "compare", "write"])
def test_cancelling_leaves_nothing(model, quick, tmp_path, stage):
    token = CancelToken()
    with pytest.raises(Cancelled):
        segment_timepoints(
            [quick("still"), quick("moved", seed=1)], tmp_path / "out", model=model, cancel=token,
            progress=lambda name, _: token.cancel() if name == stage else None,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_progress_rises_to_one(model, quick):
    seen = []
    segment_timepoints([quick("still"), quick("moved", seed=1)], model=model, progress=lambda _, f: seen.append(f))
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == 1


OTHER_HEAD = (((-26, -11, 9), 26, -60), ((31, 26, -13), 26, -60), ((4, 44, 18), 26, -60))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"spots": OTHER_HEAD, "size": 0.55}, "% of the brain is labelled alike"),
        ({"inverted": True}, "differ in contrast"),
        ({"voxel": 3.5, "shape": (50, 58, 48)}, "differ in voxel size"),
    ],
)
def test_what_cannot_be_compared_is_told_and_not_judged(model, quick, second, message):
    with pytest.warns(ScanWarning, match=message):
        timeline = segment_timepoints([quick("still"), quick("moved", seed=1, **second)], model=model)
    assert not stem(timeline).verdict and any(message in text for text in timeline.provenance["warnings"])


def test_registrations_that_contradict_each_other_are_told(model, quick, monkeypatch):
    known, astray = registration.register, rigid((0, 0, 0), (2.5, 0, 0))
    monkeypatch.setattr(
        registration, "register", lambda a, b: known(a, b) @ (astray if "moved" in a.name else np.eye(4))
    )
    with pytest.warns(ScanWarning, match=r"one way and the other, the results differ by 2\.5 mm"):
        segment_timepoints([quick("still"), quick("moved", seed=1)], model=model)


def test_a_brain_cut_off_at_one_timepoint_is_told(model, quick):
    whole, cut = quick("still"), quick("moved", seed=1)
    cut = Scan(cut.data[:, :32], cut.affine, name=cut.name)
    with pytest.warns(ScanWarning, match=r"@moved: .* % of the brain at another timepoint lies outside"):
        segment_timepoints([whole, cut], model=model)


@pytest.mark.parametrize(
    ("settings", "voxel", "message"),
    [
        ({"fast": True}, VOXEL, "with both passes"),
        ({"refined": False}, VOXEL, "with both passes"),
        ({"robust": True}, VOXEL, "needed no smoothing"),
        ({}, 6.0, "voxels of at most 4.6 mm"),
    ],
)
def test_where_the_noise_was_not_measured_nothing_is_judged(model, quick, settings, voxel, message):
    scans = [quick("still", voxel=voxel, size=1.08), quick("moved", voxel=voxel, seed=1)]
    with pytest.warns(ScanWarning, match="cannot be judged against the noise.*" + message):
        timeline = segment_timepoints(scans, model=model, **settings)
    assert not stem(timeline).verdict and stem(timeline).change_percent < -6


def test_weights_without_measured_noise_judge_nothing(model, quick):
    scans = [quick("still", size=1.08), quick("moved", seed=1)]
    for noise in (None, replace(model.rescan, families=["t1"])):
        with pytest.warns(ScanWarning, match="cannot be judged"):
            assert not stem(segment_timepoints(scans, model=replace(model, rescan=noise))).verdict


def test_one_network_segments_all_even_where_their_contrasts_seem_different(model, quick, monkeypatch):
    expert = replace(model, network=Threshold(), sha256="expert")
    scans = [quick("still"), quick("moved", seed=1)]

    def shown(*families):
        turn = iter(families)
        monkeypatch.setattr(
            longitudinal, "expert_for", lambda *_: (expert, "t1") if (f := next(turn)) == "t1" else (model, f)
        )

    shown("t1", "t1")
    record = segment_timepoints(scans, model=model).provenance
    assert record["weights"]["sha256"] == "expert" and record["options"]["contrast"] == "t1"
    shown("any", "t1")
    with pytest.warns(ScanWarning, match="differ in contrast"):
        record = segment_timepoints(scans, model=model).provenance
    assert record["weights"]["sha256"] == "" and record["options"]["contrast"] == "any"
    record = segment_timepoints(scans, model=model, contrast="any").provenance  # nobody looks
    assert record["weights"]["sha256"] == ""


@pytest.mark.parametrize(
    ("scans", "options", "error", "message"),
    [
        ([], {}, OptionError, "no timepoint"),
        (["a.nii"], {}, OptionError, "one timepoint. Give two"),
        ("a.nii", {}, OptionError, "one timepoint. Give two"),
        (["a.nii", "a.nii"], {}, OptionError, "given twice"),
        (["a.nii", "b.nii"], {"years": [2, 1]}, OptionError, "not later than"),
        (["a.nii", "b.nii"], {"contrast": "t2"}, OptionError, "choose auto or any"),
        (["a.nii", "b.nii"], {"volumes": "{}/c.txt"}, OutputError, "unknown suffix"),
        (["a.nii", "b.nii"], {"volumes": "{}/no/c.csv"}, OutputError, "does not exist"),
        (["a.nii", "b.nii"], {"output": "{}/file"}, OutputError, "is a file"),
        (["a.nii", "b.nii"], {"output": "{}/file/deeper"}, OutputError, "cannot be made"),
    ],
)
def test_wrong_calls_are_refused_before_any_work(tmp_path, scans, options, error, message):
    (tmp_path / "file").write_text("")
    filled = {key: value.format(tmp_path) if isinstance(value, str) else value for key, value in options.items()}
    with pytest.raises(error, match=message):
        segment_timepoints(scans, **filled)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two small scans of one name in two folders, and a registration that finds that nothing moved."""
    monkeypatch.setattr(registration, "register", lambda moving, fixed: np.eye(4))
    paths = [tmp_path / f"ses-{number}" / "T1w.nii.gz" for number in (1, 2)]
    for path, radius in zip(paths, (9.0, 9.4)):
        path.parent.mkdir()
        nib.Nifti1Image(ball(radius=radius), np.eye(4)).to_filename(path)
    return paths


def test_command_line(files, tiny_weights, tmp_path, capsys):
    out = tmp_path / "out"
    common = ["segment", "--timepoints", *map(str, files), "--model", str(tiny_weights), "--device", "cpu", "-q"]
    dates = ["--dates", "2020-02-01", "2021-02-01"]
    assert main([*common, "-o", str(out), "--volumes", str(out / "change.csv"), *dates]) == 0
    assert {path.name for path in out.iterdir()} >= {"1_T1w_synthseg.nii.gz", "2_T1w_synthseg.tfm", "change.csv"}
    with (out / "change.csv").open() as file:
        assert any(row["percent_per_year"] for row in csv.DictReader(file))
    assert "warning:" in capsys.readouterr().err
    assert json.loads((out / RECORD).read_text())["options"]["years"] == pytest.approx([0, 1], abs=0.01)


def test_command_line_says_what_changed(tmp_path, monkeypatch, capsys, model, quick):
    monkeypatch.setattr(longitudinal, "load_model", lambda path=None: model)
    scans = {"a.nii": quick("still"), "b.nii": quick("moved", size=1.1, seed=1)}
    monkeypatch.setattr(longitudinal, "read_scan", lambda path: scans[path.name])
    assert main(["segment", "--timepoints", *scans, "-o", str(tmp_path / "out"), "-q"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 to 2: Brain-Stem +9.") and lines[0].endswith("(rescans differ by up to 1.4 %)")
    assert lines[-1] == "0 of 2 changes are within the noise of rescans"  # the stem and the total


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--timepoints", "--posteriors", "p.nii"], "--posteriors does not go with --timepoints"),
        (["--timepoints", "--task", "stroke"], "--task stroke does not go with --timepoints"),
        (["--timepoints", "--skip-existing"], "--skip-existing does not go"),
        (["--timepoints", "--dates", "2020-01-01", "soon"], "'soon' is no date"),
        (["--years", "0", "1"], "Add --timepoints"),
    ],
)
def test_options_that_do_not_go_together_are_refused(files, tmp_path, capsys, options, message):
    assert main(["segment", *map(str, files), "-o", str(tmp_path / "out"), "-q", *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
