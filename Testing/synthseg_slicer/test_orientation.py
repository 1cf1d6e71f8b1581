"""How the true orientation of a turned head is found and told."""

from __future__ import annotations

from itertools import permutations, product
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from synthseg_slicer import orientation, quality, segment
from synthseg_slicer.conform import Conformed, reorient
from synthseg_slicer.orientation import Turn, message, turns, upright
from synthseg_slicer.scan import Scan

WORLD = ("RL", "AP", "SI")
WIDTH = 20
CODES = ["".join(code) for pairs in permutations(WORLD) for code in product(*pairs)]
STRAIGHT = Turn((0, 1, 2), (False, False, False))


def marked_head() -> np.ndarray:
    """Return ``[x, y, z]`` in RAS+ order, symmetrical from left to right, brightest in front and on top."""
    x, y, z = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (WIDTH, 22, 24)), indexing="ij")
    return (200 - 8 * abs(x - 9.5) + 3 * y + 2 * z).astype(np.float32)


def stored(true: str, said: str) -> Scan:
    """Return the head with its voxel axes along ``true``, under a header that says ``said``."""
    turn = ornt_transform(io_orientation(np.eye(4)), axcodes2ornt(true))
    data = nib.apply_orientation(marked_head(), turn)
    affine = np.eye(4)
    affine[:3, :3] = [[4.0 * (letter == plus) - 4.0 * (letter == minus) for letter in said] for plus, minus in WORLD]
    return Scan(data, affine)


def is_upright(image: np.ndarray) -> bool:
    """Tell whether a head, whatever its sides, is brightest in front and less so on top."""
    slopes = [
        np.polyfit(np.arange(n), image.mean(tuple({0, 1, 2} - {axis})), 1)[0] for axis, n in enumerate(image.shape)
    ]
    return slopes[1] > 2.5 and 1.5 < slopes[2] < 2.5


@pytest.fixture
def judge(monkeypatch):
    """Let upright heads alone have good results; counts what was tried."""
    tried = []

    def scored(image, volume, names, calibration):
        assert calibration is CALIBRATION
        tried.append(image)
        return SimpleNamespace(scan=0.7 if is_upright(image) else 0.1)

    monkeypatch.setattr(orientation, "resample", lambda image, affine, size: (image, affine))
    monkeypatch.setattr(orientation, "crop_to_head", lambda image: (slice(None),) * 3)
    monkeypatch.setattr(orientation, "predict", lambda model, image, **options: image)
    monkeypatch.setattr(orientation, "clean_up", lambda image, topology: image)
    monkeypatch.setattr(quality, "judge", scored)
    return tried


MODEL = SimpleNamespace(topology={}, names={}, calibration=None)  # an expert has none of its own
CALIBRATION = object()


@pytest.mark.parametrize("said", ["RAS", "LIA", "PSR"])
@pytest.mark.parametrize("true", CODES)
def test_the_true_axes_are_among_the_two_that_are_told(judge, said, true):
    scan = stored(true, said)
    image, affine = reorient(scan.data, scan.affine)
    sideways = image.shape.index(WIDTH)
    turn = upright(
        MODEL, CALIBRATION, Conformed(image, affine, scan, False), sideways, own=0.7 if is_upright(image) else 0.1
    )
    if is_upright(image):
        assert turn is None
        return
    assert is_upright(turn(image))
    told, both = turn.codes(scan.affine)
    assert told == said and true in both
    assert f"run {said}, but seem to run {both[0]} or {both[1]}" in message(turn, scan.affine)


def test_every_naming_but_the_headers_own_is_tried_once():
    for sideways in range(3):
        found = turns(sideways)
        assert len(set(found)) == len(found) == 8 - (sideways == 0) and STRAIGHT not in found
        assert all(turn.order[0] == sideways for turn in found)


def test_the_search_ends_at_a_good_result_and_reports_its_steps(judge):
    scan, steps = stored("RPI", "RAS"), []
    turn = upright(MODEL, CALIBRATION, conformed(scan), 0, 0.1, progress=steps.append)
    assert turn == Turn((0, 1, 2), (False, True, True)) and len(judge) == 1 and steps == [0.0]
    assert turn.words() == "front is its back, top is its bottom"


def test_nothing_is_suggested_without_a_better_orientation(judge, monkeypatch):
    scan = stored("RPI", "RAS")
    assert upright(MODEL, CALIBRATION, conformed(scan), None, 0.1) is None and not judge
    assert upright(MODEL, CALIBRATION, conformed(scan), 0, 0.55) is None  # hardly worse as it is
    monkeypatch.setattr(quality, "judge", lambda *_: SimpleNamespace(scan=0.3))
    assert upright(MODEL, CALIBRATION, conformed(scan), 0, 0.05) is None


def test_exchanged_sides_are_put_in_words():
    words = Turn((1, 0, 2), (False, True, False)).words()
    assert words == "front and back are its sides, right is its back"


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(3)), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_a_turn_moves_every_voxel_once(order, flips):
    image = np.arange(24).reshape(2, 3, 4)
    turned = Turn(tuple(order), flips)(image)
    assert turned.shape == tuple(image.shape[axis] for axis in order)
    assert sorted(turned.ravel()) == list(range(24))


def conformed(scan: Scan) -> Conformed:
    image, affine = reorient(scan.data, scan.affine)
    return Conformed(image, affine, scan, False)


def test_a_failed_result_leads_to_the_search_and_its_warning(threshold_model, monkeypatch):
    """Through the pipeline, with a head large enough to be looked at and a verdict that is made up."""
    index = np.meshgrid(*(np.arange(-n / 2, n / 2) for n in (30, 36, 32)), indexing="ij")
    data = 100.0 * (sum((grid / radius) ** 2 for grid, radius in zip(index, (13, 16, 14))) < 1)
    data[:, 26:, 18:] += 60
    scan = Scan(data.astype(np.float32), np.diag([4.0, 4, 4, 1]) + np.eye(4, k=3) * 5)
    turn = Turn((0, 1, 2), (False, False, True))
    monkeypatch.setattr(quality, "judge", lambda *_: quality.Verdict({}, 0.05, {}, [], True))
    monkeypatch.setattr(
        orientation, "upright", lambda model, calibration, conformed, sideways, own, *_: turn if own == 0.05 else None
    )
    told = segment(scan, model=threshold_model, fast=True, refined=False).provenance
    assert any("top is its bottom" in text and "RAS, but seem to run RAI or LAI" in text for text in told["warnings"])
    assert "orientation" in told["seconds"]
