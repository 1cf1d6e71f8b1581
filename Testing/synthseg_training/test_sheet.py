"""The PNG sheet of samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from synthseg_slicer.errors import OutputError
from synthseg_training.evaluation.lesions import PatientSlice
from synthseg_training.generation import Generator, GeneratorConfig
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.sheet import write_sheet, write_trial_sheet


@pytest.fixture
def generator() -> Generator:
    label_map = torch.zeros(20, 20, 20, dtype=torch.uint8)
    label_map[4:16, 4:16, 4:16] = 1
    label_map[8:12, 8:12, 8:12] = 2
    return Generator(LabelMapSet([label_map], (0, 3, 10), ["cubes"]), GeneratorConfig(crop=20))


def test_the_sheet_shows_images_and_coloured_contours(tmp_path, generator):
    write_sheet(tmp_path / "sheet.png", generator, count=3, columns=2)
    picture = imread(tmp_path / "sheet.png")[..., :3]
    assert picture.shape[:2] == (640, 600)
    assert np.unique(picture.round(2)).size > 20
    colourful = np.ptp(picture, axis=2) > 0.2
    assert 0.001 < colourful.mean() < 0.3


def test_one_seed_gives_one_sheet(tmp_path, generator):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_sheet(tmp_path / name, generator, count=1, columns=1, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_nothing_is_left_behind_where_the_sheet_cannot_be_written(tmp_path, generator):
    with pytest.raises(OutputError):
        write_sheet(tmp_path / "nowhere" / "sheet.png", generator, count=1, columns=1)
    assert not list(tmp_path.iterdir())


def patient(number: int, dice: float, found: bool) -> PatientSlice:
    image = np.linspace(-1, 2, 900).reshape(30, 30).astype(np.float32)
    lesion = np.zeros((30, 30), bool)
    lesion[8:20, 8:20] = True
    return PatientSlice(number, 12.0, lesion, {name: (image, lesion & found, dice) for name in ("T1", "FLAIR")})


def blue(path) -> np.ndarray:
    """Return for each of the rows of a sheet how much of it has the colour of what was found."""
    picture = imread(path)[..., :3]
    return (picture[..., 2] - picture[..., 0] > 0.3).mean(1)


def test_a_trials_sheet_contours_what_was_found_best_patients_first(tmp_path):
    write_trial_sheet(tmp_path / "a.png", [patient(0, 0.1, found=False), patient(1, 0.9, found=True)])
    rows = blue(tmp_path / "a.png")
    half = len(rows) // 2
    assert rows[:half].sum() > 0 == rows[half:].sum()


def test_a_trials_sheet_keeps_best_and_worst_of_many_patients(tmp_path):
    many = [patient(number, number / 40, found=number in (0, 39)) for number in range(40)]
    write_trial_sheet(tmp_path / "a.png", many, most=4)
    parts = np.array_split(blue(tmp_path / "a.png"), 4)
    assert [bool(part.sum() > 0) for part in parts] == [True, False, False, True]
