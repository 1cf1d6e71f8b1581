"""The overlay picture."""

import numpy as np
import pytest
import SimpleITK as sitk

from synthseg_slicer.errors import OutputError
from synthseg_slicer.report import COLORS, GAP, overlay_picture

RED, BLUE, GREEN = (250, 0, 0), (0, 0, 250), (0, 250, 0)


def picture_of(tmp_path, labels, affine, **options):
    """Draw one slice a plane over a black image and return the picture ``[row, column, colour]``."""
    image = np.zeros(labels.shape, np.float32)
    options = {"slices": 1, "pixel_size": 1.0, "opacity": 1.0, **options}
    overlay_picture(tmp_path / "a.png", image, labels, affine, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    return sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.png")))


def pixels(picture, color, rows=slice(None)):
    """Return the (row, column) of all pixels of a colour."""
    return np.argwhere((picture[rows] == color).all(axis=-1))


def ball(shape, centre, radius, size):
    grid = np.indices(shape)
    return sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, size)) < radius**2


@pytest.mark.parametrize("flip", [1, -1])
def test_patient_right_is_at_picture_left_and_anterior_on_top(tmp_path, flip):
    """Whatever way the array runs, the world decides."""
    affine = np.diag([flip, 1.0, 1.0, 1.0])
    labels = np.zeros((40, 40, 40), np.uint8)
    right = slice(24, 32) if flip == 1 else slice(8, 16)
    left = slice(8, 16) if flip == 1 else slice(24, 32)
    labels[right, 10:30, 10:30] = 1
    labels[left, 10:30, 10:30] = 2
    labels[16:24, 22:30, 10:30] = 3
    picture = picture_of(tmp_path, labels, affine, colors={1: RED, 2: BLUE, 3: GREEN})
    axial = slice(0, picture.shape[0] // 3)
    (red_row, red), (blue_row, blue), (green_row, green) = (
        pixels(picture, c, axial).mean(axis=0) for c in (RED, BLUE, GREEN)
    )
    assert red < green < blue
    assert green_row < red_row == blue_row


def test_superior_is_on_top_and_anterior_at_the_left_of_sagittal_slices(tmp_path):
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[10:30, 10:30, 10:20] = 1
    labels[10:30, 10:20, 20:30] = 2
    labels[10:30, 20:30, 20:30] = 3
    picture = picture_of(tmp_path, labels, np.eye(4), colors={1: RED, 2: BLUE, 3: GREEN})
    sagittal = slice(2 * picture.shape[0] // 3, None)
    (red_row, _), (blue_row, blue), (green_row, green) = (
        pixels(picture, c, sagittal).mean(axis=0) for c in (RED, BLUE, GREEN)
    )
    assert green_row == blue_row < red_row
    assert green < blue


def test_a_ball_is_round_in_every_plane_of_an_anisotropic_scan(tmp_path):
    size = (1.0, 0.5, 4.0)
    labels = ball((60, 120, 15), (30, 60, 7), 20, size).astype(np.uint8)
    picture = picture_of(tmp_path, labels, np.diag([*size, 1]), colors={1: RED}, pixel_size=0.5)
    found = pixels(picture, RED)
    rows = np.flatnonzero(np.bincount(found[:, 0], minlength=picture.shape[0]))
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    assert len(runs) == 3
    for run in runs:
        width = np.ptp(found[np.isin(found[:, 0], run), 1]) + 1
        assert len(run) == pytest.approx(80, abs=8) and width == pytest.approx(80, abs=8)  # 40 mm; a slice is 4 mm


def test_the_plain_half_shows_the_image_and_the_other_half_the_labels(tmp_path):
    labels = np.zeros((30, 30, 30), np.int16)
    labels[8:22, 8:22, 8:22] = 17
    image = np.random.default_rng(0).random((30, 30, 30), dtype=np.float32)
    overlay_picture(tmp_path / "a.png", image, labels, np.eye(4), slices=1, pixel_size=1.0, opacity=0.5)
    picture = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.png"))).astype(int)
    tile = 30 + GAP
    plain, painted = picture[:30, :30], picture[:30, tile : tile + 30]
    assert (np.ptp(plain, axis=2) == 0).all() and plain.std() > 30
    changed = (plain != painted).any(axis=2)
    assert changed[9:21, 9:21].all() and not changed[:7].any()
    np.testing.assert_allclose(painted[12:18, 12:18], (plain[12:18, 12:18] + COLORS[17]) / 2, atol=1)


def test_no_label_at_all_gives_the_whole_image(tmp_path):
    picture = picture_of(tmp_path, np.zeros((30, 40, 50), np.uint8), np.eye(4))
    assert picture.shape == (40 + 50 + 50 + 3 * GAP, 2 * (40 + GAP), 3)


def test_unknown_labels_are_drawn_too(tmp_path):
    labels = np.zeros((30, 30, 30), np.uint16)
    labels[10:20, 10:20, 10:20] = 1234
    assert len(pixels(picture_of(tmp_path, labels, np.eye(4)), (255, 0, 0))) == 3 * 100


def test_tiles_carry_letters_and_only_letters_beside_a_black_scan(tmp_path):
    picture = picture_of(tmp_path, np.zeros((100, 90, 80), np.uint8), np.eye(4))
    axial = picture[:90, :100]
    assert set(np.unique(axial)) == {0, 255}
    drawn = np.flatnonzero(axial.any(axis=(0, 2)))
    assert drawn.min() < 12 and drawn.max() > 88 and not ((drawn > 12) & (drawn < 87)).any()
    assert (axial[:, :50] != axial[:, :49:-1]).any()  # R is no mirrored L


def test_a_bad_target_or_grid_is_refused(tmp_path):
    labels = np.zeros((20, 20, 20), np.uint8)
    with pytest.raises(OutputError, match="unknown suffix"):
        overlay_picture(tmp_path / "a.jpg", labels, labels, np.eye(4))
    with pytest.raises(OutputError, match="does not exist"):
        overlay_picture(tmp_path / "absent" / "a.png", labels, labels, np.eye(4))
    with pytest.raises(ValueError, match="one grid"):
        overlay_picture(tmp_path / "a.png", labels, labels[1:], np.eye(4))
    assert not list(tmp_path.iterdir())


def test_a_region_widens_the_view_but_slices_stay_on_the_labels(tmp_path):
    labels = np.zeros((40, 44, 48), np.uint8)
    labels[10:14, 20:24, 30:34] = 1
    region = np.zeros(labels.shape, bool)
    region[2:38, 2:42, 2:46] = True
    small = picture_of(tmp_path, labels, np.eye(4), colors={1: RED})
    wide = picture_of(tmp_path, labels, np.eye(4), colors={1: RED}, region=region)
    assert wide.shape[1] > 1.3 * small.shape[1]
    assert len(pixels(wide, RED)) == len(pixels(small, RED)) == 3 * 16
