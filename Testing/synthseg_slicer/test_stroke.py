"""The path of the stroke task: several scans, logits on one grid, lesions, files, errors."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from lesioned import Bright, head, overlap, truth
from synthetic import TINY, ball, random_network

from synthseg_slicer import CancelToken
from synthseg_slicer.conform import HEAD_MEAN, HEAD_SPREAD, standardise
from synthseg_slicer.errors import Cancelled, OptionError, OutputError
from synthseg_slicer.labels import LESION_ID, STROKE
from synthseg_slicer.network import fold_batch_norm
from synthseg_slicer.scan import Scan
from synthseg_slicer.stroke import segment_lesions
from synthseg_slicer.weights import Model
from synthseg_slicer.windows import window_logits


@pytest.fixture
def model():
    return Model(Bright(), STROKE, "c" * 64, {"name": "stroke", "flips": 2})


def test_the_head_of_a_standardised_image_has_the_usual_mean_and_spread():
    image = torch.from_numpy(np.random.default_rng(0).random((12, 12, 12), dtype=np.float32))
    image[:6] = 0
    result = standardise(image)
    inside = result[image > 0.05]
    assert inside.mean().item() == pytest.approx(HEAD_MEAN, abs=1e-4)
    assert inside.std().item() == pytest.approx(HEAD_SPREAD, abs=1e-4)
    more_air = torch.nn.functional.pad(image, (8,) * 6)
    torch.testing.assert_close(standardise(more_air)[8:-8, 8:-8, 8:-8], result)
    assert not standardise(torch.zeros(3, 3, 3)).any()


def test_a_bright_ball_is_one_lesion_with_its_volume_and_place(model):
    result = segment_lesions(head(), model=model, anatomy=False)
    assert overlap(result.labels == LESION_ID, truth()) > 0.95
    (lesion,) = result.lesions
    assert lesion.volume == pytest.approx(truth().sum(), rel=0.06) and result.volume == lesion.volume
    assert lesion.centre == pytest.approx((20, 14, 20), abs=0.3)
    assert result.loads == [] and result.anatomy is None
    assert ((result.probability >= 0) & (result.probability <= 1)).all()
    assert (result.probability[result.labels == LESION_ID] > 0.4).all()


def test_the_anatomy_gives_side_structure_and_loads(model, threshold_model, monkeypatch):
    monkeypatch.setattr("synthseg_slicer.pipeline.load_model", lambda task, path=None: threshold_model)
    result = segment_lesions(head(), model=model)
    rows = {row.name: row for row in result.loads}
    assert result.lesions[0].structure == "Brain-Stem"
    assert rows["Brain"].lesion == result.volume == rows["Brain-Stem"].lesion
    assert 0 < rows["Brain"].percent <= 100


def resampled(scan: Scan, affine: np.ndarray, shape: tuple[int, int, int]) -> Scan:
    """Return the scan's nearest voxels on another grid."""
    index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)], -1)
    where = np.rint(index @ (np.linalg.inv(scan.affine) @ affine).T)[..., :3].astype(int)
    inside = ((where >= 0) & (where < scan.shape)).all(-1)
    data = scan.data[tuple(np.moveaxis(np.clip(where, 0, np.array(scan.shape) - 1), -1, 0))]
    return Scan(np.where(inside, data, np.float32(0)), affine)


def test_scans_of_other_grids_vote_on_the_first_ones_grid(model, monkeypatch):
    monkeypatch.setattr("synthseg_slicer.lesions.CERTAIN", 0.0)  # scans that contradict each other are unsure
    first, healthy = head(), Scan(ball((40, 36, 40), 15.0), np.eye(4))
    affine = np.diag([1.0, 1, 2, 1])
    affine[:3, 3] = (-3, 2, 1)
    other = resampled(first, affine, (44, 33, 19))
    both = segment_lesions([healthy, other], model=model, anatomy=False, register=False)
    assert both.labels.shape == healthy.shape and len(both.transforms) == 2
    # smaller: at its border the healthy scan's doubt weighs more
    assert overlap(both.labels == LESION_ID, truth()) > 0.7
    registered = segment_lesions([healthy, other], model=model, anatomy=False)
    assert np.abs(registered.transforms[1] - np.eye(4)).max() < 1
    assert overlap(registered.labels == LESION_ID, truth()) > 0.7


def test_scans_that_contradict_each_other_are_averaged(model):
    first, healthy = head(), Scan(ball((40, 36, 40), 15.0), np.eye(4))
    alone = segment_lesions(first, model=model, anatomy=False)
    outvoted = segment_lesions([first, *[healthy] * 12], model=model, anatomy=False)
    assert outvoted.volume < 0.2 * alone.volume


class Doubtful(Bright):
    """Gives what is bright one probability of lesion."""

    def __init__(self, probability: float):
        super().__init__()
        self.logit = float(torch.tensor(probability).logit())

    def forward(self, image):
        logits = super().forward(image)
        lesion = logits[:, [label.id for label in STROKE].index(LESION_ID)]
        lesion[lesion > 0] = self.logit
        return logits


@pytest.mark.parametrize(("probability", "found"), [(0.8, 0), (0.9, 1)])
def test_a_lesion_that_is_nowhere_sure_is_none_but_keeps_its_probability(probability, found):
    result = segment_lesions(head(), model=Model(Doubtful(probability), STROKE, "", {}), anatomy=False)
    assert len(result.lesions) == found
    assert result.probability[20, 14, 20] == pytest.approx(probability, abs=0.01)


def test_native_results_lie_on_the_scan():
    affine = np.array([[0, 0, -1.0, 9], [1.0, 0, 0, -14], [0, 3.0, 0, 2.0], [0, 0, 0, 1]])
    scan = head((20, 6, 20), 7.0, affine, (40, 14, 40))
    model = Model(Bright(0.75), STROKE, "", {})
    result = segment_lesions(scan, model=model, anatomy=False, native=True)
    assert result.labels.shape == scan.shape == result.probability.shape
    np.testing.assert_array_equal(result.affine, scan.affine)
    assert overlap(result.labels == LESION_ID, truth((20, 6, 20), 7.0, scan.shape)) > 0.75


def test_what_looks_like_a_lesion_outside_the_brain_is_none():
    class Head(Bright):
        def forward(self, image):
            logits = super().forward(image)
            grey = [label.id for label in STROKE].index(3)
            logits[:, grey] = torch.where(image[:, 0] > 0.3, 3.0, -20.0)
            return logits

    data = head().data.copy()
    data[2:8, 2:8, 2:8] += 300  # apart from the head
    result = segment_lesions(Scan(data, np.eye(4)), model=Model(Head(), STROKE, "", {}), anatomy=False)
    assert len(result.lesions) == 1 and not result.labels[:10, :10, :10].any()
    assert result.probability[:8, :8, :8].max() < 0.5 < result.probability.max()


def test_small_lesions_are_dropped(model):
    assert segment_lesions(head(), model=model, anatomy=False, fewest=5000.0).lesions == []


def test_all_files_are_written_together(model, tmp_path):
    kinds = {
        "output": tmp_path / "l.nii.gz",
        "probability": tmp_path / "p.nii.gz",
        "volumes": tmp_path / "v.csv",
        "picture": tmp_path / "x.png",
    }
    result = segment_lesions(head(), model=model, anatomy=False, **kinds)
    image = nib.load(kinds["output"])
    assert np.count_nonzero(np.asarray(image.dataobj) == LESION_ID) == np.count_nonzero(result.labels)
    soft = np.asarray(nib.load(kinds["probability"]).dataobj)
    np.testing.assert_allclose(soft[..., 0], result.probability, atol=1e-6)
    with open(kinds["volumes"], encoding="utf-8") as file:
        assert float(next(csv.DictReader(file))["volume_mm3"]) == result.volume
    record = json.loads((tmp_path / "l.json").read_text())
    assert record["options"]["task"] == "stroke" and record["lesions"] == 1 and record["lesion_mm3"] == result.volume
    assert set(record["outputs"]) == set(kinds) and "Chalcroft" in record["citation"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"flips": 3}, OptionError, "3 flips"),
        ({"fast": True, "flips": 8}, OptionError, "not 8 flips"),
        ({"ct": True}, OptionError, "for MR scans"),
        ({"anatomy": False, "loads": "x.csv"}, OptionError, "need the anatomy"),
        ({"output": "nowhere/x.nii.gz"}, OutputError, "does not exist"),
        ({"output": "a.nii.gz", "probability": "a.nii.gz"}, OptionError, "also the target"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(model, tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        segment_lesions(head(), model=model, **options)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_task_are_refused(threshold_model):
    with pytest.raises(OptionError, match="segment no lesions"):
        segment_lesions(head(), model=threshold_model, anatomy=False)
    with pytest.raises(OptionError, match="no scan"):
        segment_lesions([], model=threshold_model)


def test_a_cancelled_job_writes_nothing(model, tmp_path):
    token = CancelToken()

    def stop(stage, fraction):
        if stage == "predict":
            token.cancel()

    with pytest.raises(Cancelled):
        segment_lesions(head(), tmp_path / "l.nii.gz", model=model, anatomy=False, progress=stop, cancel=token)
    assert not list(tmp_path.iterdir())


def test_progress_climbs_to_the_end(model):
    seen = []
    segment_lesions([head(), head()], model=model, anatomy=False, progress=lambda stage, f: seen.append(f))
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == 1


def test_logits_do_not_depend_on_where_the_network_was_folded():
    network = random_network("fast", n_labels=len(STROKE), **TINY)
    image = np.random.default_rng(2).random((16, 20, 12), dtype=np.float32)
    plain = window_logits(network, image, flips=1)
    np.testing.assert_allclose(window_logits(fold_batch_norm(network), image, flips=1), plain, rtol=1e-3, atol=1e-3)
