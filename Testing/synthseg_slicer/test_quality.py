"""The confidence in each structure, and the calibrated quality of a result."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from synthseg_slicer.calibration import FEATURES, Calibration
from synthseg_slicer.errors import WeightsError
from synthseg_slicer.postprocess import label_map
from synthseg_slicer.predict import TopPosteriors
from synthseg_slicer.quality import confidence, describe, features, judge


def posteriors(channels: list, probabilities: list, ids=(0, 17, 18)) -> TopPosteriors:
    """Posteriors of a row of voxels, one list of up to four labels each."""
    arrays = np.zeros((4, len(channels), 1, 1), np.uint8), np.zeros((4, len(channels), 1, 1), np.float16)
    for array, rows in zip(arrays, (channels, probabilities)):
        for voxel, row in enumerate(rows):
            array[: len(row), voxel, 0, 0] = row
    shape = arrays[0].shape[1:]
    return TopPosteriors(*arrays, tuple(slice(0, n) for n in shape), shape, ids)


def test_confidence_is_the_mean_posterior_over_the_voxels_that_a_label_won():
    top = posteriors([[1, 0], [1, 2], [0, 1], [2, 1]], [[0.75, 0.25], [0.5, 0.25], [0.875, 0.125], [1.0, 0.0]])
    assert confidence(top) == {17: 0.625, 18: 1.0}


def test_the_winner_need_not_come_first():
    top = posteriors([[1, 2], [0, 1]], [[0.25, 0.75], [0.25, 0.75]])  # clean-up may leave such an order
    assert confidence(top) == {17: 0.75, 18: 0.75}


def test_labels_that_won_nothing_and_background_have_no_confidence():
    top = posteriors([[0, 1], [0], [1]], [[0.75, 0.25], [1.0], [0.0]])  # the last voxel is not background, but empty
    assert confidence(top) == {}


def test_an_empty_box_has_no_confidence():
    top = TopPosteriors(np.zeros((4, 0, 0, 0), np.uint8), np.zeros((4, 0, 0, 0), np.float16), (), (9, 9, 9), (0, 17))
    assert confidence(top) == {}


def test_confidence_agrees_with_the_label_map():
    rng = np.random.default_rng(0)
    channels = rng.permuted(np.tile(np.arange(6, dtype=np.uint8), (500, 1)), axis=1)[:, :4]
    top = posteriors(channels.tolist(), rng.dirichlet(np.ones(4), 500).tolist(), (0, 2, 3, 17, 18, 41))
    labels, found = label_map(top), confidence(top)
    assert set(found) == {2, 3, 17, 18, 41}
    for label, value in found.items():
        assert value == pytest.approx(top.posterior(top.ids.index(label))[labels == label].mean(), rel=1e-6)


# -- calibrated quality ------------------------------------------------------------------------------------------------

IDS = (0, 2, 41, 16)
NAMES = {2: "Left-White", 41: "Right-White", 16: "Brain-Stem"}


def head(certainty: float = 0.9, upside_down: bool = False, cut: int = 0) -> TopPosteriors:
    """Two halves of white matter side by side, a small brain stem below them."""
    labels = np.zeros((24, 20, 30), np.uint8)
    labels[4:12, 4:16, 10:26] = 1
    labels[12:20, 4:16, 10:26] = 2
    labels[9:15, 8:12, 4:10] = 3
    labels = labels[:, :, ::-1] if upside_down else labels
    labels = np.ascontiguousarray(labels[cut:])
    channels, probabilities = np.zeros((4, *labels.shape), np.uint8), np.zeros((4, *labels.shape), np.float16)
    channels[0], probabilities[0], probabilities[1] = labels, certainty, 1 - certainty
    return TopPosteriors(channels, probabilities, tuple(slice(0, n) for n in labels.shape), labels.shape, IDS)


@pytest.fixture
def calibration() -> Calibration:
    """One that knows the head above, and takes quality for what is certain and where it belongs."""
    shape = describe(head(), IDS[1:])
    weight = {"expected Dice": 0.9, "place": -0.1, "size": -0.1, "cut": -1.0, "missing": -0.5}
    return Calibration(
        weights=["a"],
        ids=list(IDS[1:]),
        share=np.log(shape.share).tolist(),
        share_sd=[0.1] * 3,
        place=shape.place.tolist(),
        place_sd=[[0.1] * 3] * 3,
        brain=float(np.log(shape.brain)),
        brain_sd=0.2,
        coefficients=[weight.get(name, 0.0) for name in FEATURES],
        intercepts=[0.05] * 3,
        usual=[0.95] * 3,
        spread=[0.5, 0.5, 1.0, 0.2],
        facts={},
    )


def test_expected_dice_is_that_of_the_posteriors_and_places_are_relative_to_the_brain(calibration):
    values, present = features(head(0.8), 1.0, calibration)
    assert present.all()
    own = dict(zip(FEATURES, values[0]))
    assert own["expected Dice"] == pytest.approx(2 * 0.8 / (1 + 0.8), abs=1e-3)
    assert own["confidence"] == pytest.approx(0.8, abs=1e-3)
    assert own["size"] == own["place"] == own["cut"] == own["missing"] == 0
    moved = dict(zip(FEATURES, features(head(0.8, upside_down=True), 1.0, calibration)[0][2]))
    assert moved["place"] == 6.0 and moved["size"] == 0  # as far as counts, but no larger
    assert dict(zip(FEATURES, features(head(cut=6), 1.0, calibration)[0][0]))["cut"] > 0.05


def test_a_good_result_gets_a_high_score_an_interval_and_no_warning(calibration):
    verdict = judge(head(), 1.0, NAMES, calibration)
    assert verdict.calibrated and not verdict.warnings
    assert 0.85 < verdict.scan < 1 and verdict.scan == pytest.approx(np.mean(list(verdict.structures.values())))
    assert verdict.intervals[2] == pytest.approx(np.exp(0.5 * (1.05 - verdict.structures[2])))
    assert verdict.intervals[16] > verdict.intervals[2] > verdict.intervals[None] > 1


@pytest.mark.parametrize("spoiled", [{"upside_down": True}, {"cut": 10}, {"certainty": 0.5}])
def test_a_spoiled_result_is_called_doubtful_in_plain_words(calibration, spoiled):
    verdict = judge(head(**spoiled), 1.0, NAMES, calibration)
    assert verdict.warnings and verdict.scan < judge(head(), 1.0, NAMES, calibration).scan
    assert any(text in verdict.warnings[0] for text in ("probably wrong", "expected Dice is low"))


def test_a_cut_brain_is_called_cut_however_good_the_rest_is(calibration):
    good = dataclasses.replace(calibration, coefficients=[0.0] * len(FEATURES), intercepts=[0.95] * 3)
    (warning,) = judge(head(cut=5), 1.0, NAMES, good).warnings
    assert "reaches the border" in warning
    assert judge(head(cut=3), 1.0, NAMES, good).warnings == []


def test_a_single_bad_structure_is_named(calibration):
    top = head()
    stem = top.channels[0] == 3
    top.probabilities[0][stem], top.probabilities[1][stem] = 0.5, 0.5
    verdict = judge(top, 1.0, NAMES, calibration)
    assert (
        len(verdict.warnings) == 1 and "Brain-Stem (0.6" in verdict.warnings[0] and "White" not in verdict.warnings[0]
    )


def test_nothing_found_is_bad_but_warned_of_elsewhere(calibration):
    top = head()
    top.channels[:] = 0
    verdict = judge(top, 1.0, NAMES, calibration)
    assert verdict.scan == 0 and verdict.structures == {} and not verdict.warnings


def test_without_calibration_quality_is_the_confidence():
    verdict = judge(head(), 1.0, NAMES, None)
    assert verdict.structures == confidence(head()) and verdict.scan is None and not verdict.intervals
    assert not verdict.calibrated


def test_a_calibration_reads_back_and_a_damaged_one_is_refused(calibration, tmp_path):
    path = tmp_path / "x-quality.json"
    calibration.save(path)
    assert Calibration.load(path) == calibration
    path.write_text(path.read_text().replace('"usual": [', '"usual": [0.5,'))
    with pytest.raises(WeightsError, match="is damaged"):
        Calibration.load(path)
    path.write_text("{}")
    with pytest.raises(WeightsError, match="is damaged"):
        Calibration.load(path)


def test_a_large_image_takes_little_time():
    rng = np.random.default_rng(0)
    shape = (4, 128, 128, 128)
    channels = rng.integers(0, 33, shape, dtype=np.uint8)
    probabilities = rng.integers(0, 15361, shape, dtype=np.uint16).view(np.float16)  # 15360 are the bits of 1.0
    top = TopPosteriors(channels, probabilities, tuple(slice(0, n) for n in shape[1:]), shape[1:], tuple(range(33)))
    times = []
    for _ in range(3):
        start = time.process_time()
        confidence(top)
        times.append(time.process_time() - start)
    assert min(times) < 0.5  # 0.1 s on a free machine; float16 arithmetic takes a second
