"""What all experiments share: finding scans, going on after an interruption, error bars, comparisons, the page."""

import json
import math

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthseg_slicer.errors import OptionError, ScanError
from synthseg_slicer.scan import Scan
from synthseg_training.evaluation.figures import line_plot
from synthseg_training.experiments.comparison import against, fewest_pairs, note
from synthseg_training.experiments.dataset import Case, load_dataset
from synthseg_training.experiments.domains import Domain, domain_of
from synthseg_training.experiments.intervals import crossed_interval
from synthseg_training.experiments.ledger import Ledger, file_digest
from synthseg_training.experiments.pictures import side_by_side, tile
from synthseg_training.experiments.report import Page, cell
from synthseg_training.generation import Resolution
from synthseg_training.training.recipe import from_dict


def volume(path, zooms=(1.0, 1.0, 1.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(np.arange(24**3, dtype=np.int16).reshape(24, 24, 24) % 7, np.diag([*zooms, 1.0])).to_filename(path)
    return path


# -- scans -------------------------------------------------------------------------------------------------------------


def test_scans_of_a_folder_are_paired_by_name(tmp_path):
    for name in ("fs01_image", "fs01_dseg", "ms07-flair_image", "ms07-flair_dseg", "bare_image"):
        volume(tmp_path / f"{name}.nii.gz")
    first, second = load_dataset(tmp_path)
    assert (first.name, first.dataset, first.contrast, first.subject) == ("fs01", "fs", "", "fs01")
    assert (second.contrast, second.subject, second.group) == ("flair", "ms07", "ms flair")
    assert second.reference == tmp_path / "ms07-flair_dseg.nii.gz"
    with pytest.raises(ScanError, match="no reference for bare"):
        load_dataset(tmp_path, names=["bare"])
    with pytest.raises(ScanError, match="no scan named fs02"):
        load_dataset(tmp_path, names=["fs02"])


def test_lesion_masks_of_a_folder_come_before_label_maps(tmp_path):
    for name in ("a_image", "a_lesion", "a_dseg", "b_image", "b_dseg"):
        volume(tmp_path / f"{name}.nii.gz")
    assert [case.reference.name for case in load_dataset(tmp_path, kind="lesion")] == [
        "a_lesion.nii.gz",
        "b_dseg.nii.gz",
    ]


def test_scans_of_a_table_lie_relative_to_it(tmp_path):
    volume(tmp_path / "scans" / "x.nii.gz"), volume(tmp_path / "truth" / "x.nii")
    table = tmp_path / "scans.tsv"
    table.write_text(
        "name\timage\treference\tdataset\tmodality\tconvention\nx\tscans/x.nii.gz\ttruth/x.nii\tADNI\tFLAIR\taseg\n"
    )
    (case,) = load_dataset(table)
    assert case == Case(
        "x", tmp_path / "scans/x.nii.gz", tmp_path / "truth/x.nii", "ADNI", "FLAIR", "x", convention="aseg"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,image\na,b\n", "lacks the column reference"),
        ("name,image,reference\na,nowhere.nii,\n", "line 2: the image .*nowhere.nii is no file"),
        ("name,image,reference\na,,\n", "line 2 names no image"),
        ("name,image,reference\na,x.nii,x.nii\na,x.nii,x.nii\n", "two scans are named a"),
        ("name,image,reference\na,x.nii,\n", "none of the 1 scans has a reference"),
        ('name,image,reference\n"a,x\n', "cannot be read as a table|lacks the column|line 2"),
    ],
)
def test_a_wrong_table_is_refused_with_its_name_and_line(tmp_path, text, message):
    volume(tmp_path / "x.nii")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ScanError, match=rf"t\.csv: .*({message})"):
        load_dataset(tmp_path / "t.csv")


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(ScanError, match=r"sub-\* folders"):
        load_dataset(tmp_path)
    with pytest.raises(ScanError, match="no such file or folder"):
        load_dataset(tmp_path / "absent")
    with pytest.raises(ScanError, match="no table of scans"):
        load_dataset(volume(tmp_path / "x.nii.gz"))


@pytest.fixture
def bids(tmp_path):
    root = tmp_path / "study"
    for name in (
        "sub-1/ses-a/anat/sub-1_ses-a_T1w",
        "sub-1/ses-a/anat/sub-1_ses-a_FLAIR",
        "sub-1/ses-b/anat/sub-1_ses-b_acq-thick_T2w",
        "sub-2/anat/sub-2_T1w",
        "sub-2/func/sub-2_bold",
        "derivatives/fs/sub-1/ses-a/anat/sub-1_ses-a_desc-aseg_dseg",
        "derivatives/fs/sub-1/ses-a/anat/sub-1_ses-a_space-MNI152NLin6Asym_dseg",
        "derivatives/fs/sub-1/ses-a/anat/sub-1_ses-a_seg-synthseg_desc-T1w_dseg",
        "derivatives/fs/sub-1/ses-b/anat/sub-1_ses-b_acq-thick_desc-aseg_dseg",
        "derivatives/fs/sub-1/ses-b/anat/sub-1_ses-b_acq-thick_desc-other_dseg",
        "derivatives/lesions/sub-2/anat/sub-2_label-L_desc-T1lesion_mask",
        "derivatives/lesions/sub-2/anat/sub-2_desc-brain_mask",
    ):
        volume(root / f"{name}.nii.gz")
    return root


def test_bids_references_serve_the_scans_whose_entities_they_have(bids):
    cases = {case.name: case for case in load_dataset(bids, desc="aseg")}
    assert set(cases) == {"sub-1_ses-a_T1w", "sub-1_ses-a_FLAIR", "sub-1_ses-b_acq-thick_T2w"}
    assert cases["sub-1_ses-a_FLAIR"].reference.name == "sub-1_ses-a_desc-aseg_dseg.nii.gz"
    assert cases["sub-1_ses-a_T1w"].subject == "sub-1_ses-a"
    assert cases["sub-1_ses-a_T1w"].group == "study T1w"


def test_the_most_specific_bids_reference_is_taken_and_a_tie_refused(bids):
    with pytest.raises(ScanError, match=r"sub-1_ses-b_acq-thick_T2w.*several references.*desc-aseg.*desc-other"):
        load_dataset(bids)
    (bids / "derivatives/fs/sub-1/ses-b/anat/sub-1_ses-b_acq-thick_desc-other_dseg.nii.gz").unlink()
    volume(bids / "derivatives/fs/sub-1/sub-1_dseg.nii.gz")
    cases = {case.name: case for case in load_dataset(bids)}
    # rather than those of the whole subject, in MNI space, and made by this package
    assert cases["sub-1_ses-a_T1w"].reference.name == "sub-1_ses-a_desc-aseg_dseg.nii.gz"


def test_bids_lesion_masks_are_told_from_brain_masks(bids):
    (case,) = load_dataset(bids, kind="lesion")
    assert (case.name, case.reference.name) == ("sub-2_T1w", "sub-2_label-L_desc-T1lesion_mask.nii.gz")


@pytest.mark.parametrize(
    ("zooms", "contrast", "expected"),
    [
        ((1, 1, 1), "T1w", Domain("t1", 1.0)),
        ((1, 1, 4.9), "FLAIR", Domain("flair", 5.0, "axial")),
        ((6, 1, 1), "t2", Domain("t2", 6.0, "sagittal")),
        ((1.8, 1.8, 1.8), "pd", Domain("pd", 2.0)),
    ],
)
def test_a_scans_domain_comes_from_its_header_and_contrast(tmp_path, zooms, contrast, expected):
    case = Case("x", volume(tmp_path / "x.nii.gz", zooms), None, contrast=contrast)
    assert domain_of(case) == expected
    resolution = from_dict(Resolution, expected.resolution_settings, "resolution")
    drawn = resolution.draw(torch.Generator().manual_seed(0))
    axes = {"isotropic": [0, 1, 2] if expected.spacing > 1.2 else [], "axial": [2], "sagittal": [0]}[expected.direction]
    assert drawn.axes == axes
    if axes:
        assert drawn.spacing == drawn.thickness == expected.spacing


def test_an_unknown_contrast_is_refused_only_where_it_matters(tmp_path):
    case = Case("x", volume(tmp_path / "x.nii.gz"), None)
    with pytest.raises(OptionError, match=r"x\.nii\.gz: the contrast is not known.*--contrast"):
        domain_of(case)
    assert domain_of(case, needed=False).resolution == "1 mm"
    assert domain_of(case, "T2").contrast == "t2"


# -- what is done ------------------------------------------------------------------------------------------------------


def test_a_unit_is_done_once_and_read_back_as_it_was(tmp_path):
    calls = []

    def work():
        calls.append(1)
        return [{"dice": np.float64(0.5), "sd95_mm": math.nan, "label": np.int64(3), "pair": (1, 2)}]

    for _ in range(2):
        (row,) = Ledger(tmp_path, {"fast": True}).once("fs01/axial 5", {"image": "abc"}, work)
        assert row["dice"] == 0.5 and math.isnan(row["sd95_mm"]) and row["label"] == 3 and row["pair"] == [1, 2]
    assert calls == [1]
    assert not [path for path in (tmp_path / "units").iterdir() if path.name.startswith(".")]


def test_work_that_fails_leaves_no_record(tmp_path):
    ledger = Ledger(tmp_path, {})
    with pytest.raises(ZeroDivisionError):
        ledger.once("a", {}, lambda: 1 / 0)
    assert not ledger.path("a").exists() and ledger.once("a", {}, lambda: 1) == 1


def test_other_settings_inputs_and_damage_are_refused_with_file_and_cure(tmp_path):
    ledger = Ledger(tmp_path, {"recipe": {"steps": 100, "seed": 0}})
    ledger.once("a", {"weights": "12"}, lambda: 1)
    with pytest.raises(ValueError, match=r"settings\.json was made otherwise: recipe\.steps was 100, is 200\. Give"):
        Ledger(tmp_path, {"recipe": {"steps": 200, "seed": 0}})
    with pytest.raises(ValueError, match=r"made otherwise: weights was 12, is 34\. Delete .*a-.*\.json"):
        ledger.once("a", {"weights": "34"}, lambda: 1)
    ledger.path("a").write_text(json.dumps({"key": "a"})[:5])
    with pytest.raises(ValueError, match=r"a-.*\.json: damaged.*Delete it"):
        ledger.once("a", {"weights": "12"}, lambda: 1)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    return Ledger(tmp_path_factory.mktemp("ledger"), {})


@given(names=st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=6, unique=True))
def test_units_of_different_names_have_different_files_in_one_folder(ledger, names):
    files = {ledger.path(name) for name in names}
    assert len({file.name.lower() for file in files}) == len(names)  # also where upper and lower case are the same
    assert {file.parent for file in files} == {ledger.units}


def test_a_files_digest_follows_its_content(tmp_path):
    path = tmp_path / "x"
    path.write_text("one")
    before = file_digest(path)
    assert before == file_digest(path)
    path.write_text("other")
    assert file_digest(path) != before


# -- error bars and comparisons ----------------------------------------------------------------------------------------


def test_an_interval_over_trainings_and_scans_holds_the_truth_as_often_as_it_says():
    rng, inside, runs = np.random.default_rng(1), 0, 400
    for _ in range(runs):
        values = 0.8 + rng.normal(0, 0.02, (4, 1)) + rng.normal(0, 0.03, (1, 8)) + rng.normal(0, 0.01, (4, 8))
        interval = crossed_interval(values)
        inside += interval.low <= 0.8 <= interval.high
    assert 0.91 < inside / runs < 0.98
    naive = 2 * rng.normal(0, 0.03, (4, 8)).std() / np.sqrt(32)
    assert interval.high - interval.mean > naive  # 32 scores are not 32 independent ones


def test_an_interval_of_one_training_is_students_over_scans():
    values = np.array([0.7, 0.8, 0.85, 0.75])
    half = 3.182446305 * values.std(ddof=1) / 2  # t of 3 degrees of freedom
    interval = crossed_interval(values[None])
    assert interval.high - interval.mean == pytest.approx(half) and interval == crossed_interval(values[:, None])
    bounded = crossed_interval(np.array([[0.1, 0.9]]), bounds=(0, 1))
    assert (bounded.low, bounded.high) == (0, 1) and crossed_interval(np.array([[0.1, 0.9]])).high > 1
    assert math.isnan(crossed_interval(np.array([[0.5]])).low) and str(crossed_interval(np.array([[0.5]]))) == "0.500"
    with pytest.raises(ValueError, match="without gaps"):
        crossed_interval(np.array([[0.5, np.nan]]))


def test_levels_are_compared_with_the_baseline_over_pairs_of_means():
    rng = np.random.default_rng(0)
    rows = [
        {"arm": arm, "scan": f"s{scan}", "structure": structure, "dice": 0.8 + shift + 0.01 * rng.normal()}
        for arm, shift in (("worse", -0.1), ("full", 0.0), ("same", 0.0))
        for scan in range(10)
        for structure in "ab"
    ]
    tests = against(pd.DataFrame(rows), of="arm", baseline="full", value="dice", pair="scan").set_index("arm")
    assert list(tests.index) == ["worse", "same"] and set(tests["pairs"]) == {10}
    assert tests.at["worse", "median_difference"] == pytest.approx(-0.1, abs=0.02)
    assert tests.at["worse", "p"] == pytest.approx(2 / 2**10) and tests.at["worse", "p_corrected"] == pytest.approx(
        4 / 2**10
    )
    assert tests.at["worse", "stars"] == "**" and tests.at["same", "stars"] == ""
    assert "***" in note(tests, "scans")


def test_too_few_pairs_are_said_to_be_too_few():
    assert fewest_pairs(1) == 6 and fewest_pairs(9) == 9
    rows = [{"arm": arm, "scan": scan, "dice": scan + (arm == "a")} for arm in "ab" for scan in range(3)]
    text = note(against(pd.DataFrame(rows), of="arm", baseline="a", value="dice", pair="scan"), "scans")
    assert "With 3 pairs none can be significant: it takes 6" in text


# -- the page ----------------------------------------------------------------------------------------------------------


def test_a_page_stands_alone_and_says_how_it_was_made(tmp_path):
    page = Page(tmp_path, "A <title>", {"weights": {"general": "abc123"}})
    table = pd.DataFrame({"name": ["a<b", "c"], "dice": [0.81234, math.nan], "count": [3, 4]})
    page.table(table, "scores", "Dice & more", best=[(0, "dice")])
    png = tmp_path / "figures" / "x.png"
    png.parent.mkdir()
    png.write_bytes(b"\x89PNG not really")
    page.figure([png], "A figure")
    text = page.save("synthseg-train experiment x -o 'a b'").read_text(encoding="utf-8")
    assert "A &lt;title&gt;" in text and "a&lt;b" in text and "<b>0.812</b>" in text and "–" in text
    assert "data:image/png;base64,iVBOR" in text and 'src="http' not in text
    assert "abc123" in text and "synthseg-train experiment x -o &#x27;a b&#x27;" in text and "torch" in text
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "tables" / "scores.csv"), table)


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (-12.345, "-12.35"), (12345.6, "12346"), (7, "7"), (None, "–"), ("x", "x")]
)
def test_cells_show_the_digits_that_matter(value, text):
    assert cell(value) == text


def test_a_tile_is_radiological_and_paints_known_labels_only():
    grey, labels = np.zeros((6, 4)), np.zeros((6, 4), int)
    grey[1, 3] = 1  # towards the left, in front
    labels[4, 0], labels[5, 0] = 3, 999  # towards the right, at the back
    picture = tile(grey, labels, {3: (255, 0, 0)})
    assert picture.shape == (4, 6, 3)
    assert [tuple(place) for place in np.argwhere(picture.sum(2) > 0)] == [(0, 4), (3, 1)]
    assert tuple(picture[0, 4]) == (1, 1, 1) and picture[3, 1, 0] > 0 == picture[3, 1, 1]


def test_label_maps_of_any_grid_are_shown_side_by_side(tmp_path):
    labels = np.zeros((40, 40, 20), np.int16)
    labels[4:36, 4:36, 4:16] = 3
    mirror = np.diag([-1.0, 1, 2, 1])
    scan = Scan((labels[::-1] > 0).astype(np.float32), mirror)
    path = side_by_side(
        tmp_path / "x.png", scan, [("a", labels[::-1], mirror), ("a", labels[::2], np.diag([2, 1, 2, 1]))]
    )
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_lines_have_their_numbers_beside_them(tmp_path):
    table = pd.DataFrame({"maps": [1, 5, 1], "group": ["a", "a", "b"], "dice": [0.5, 0.7, 0.4]})
    table = table.assign(low=table["dice"] - 0.1, high=[0.6, math.nan, 0.5])
    paths = line_plot(table, tmp_path / "figures" / "x", x="maps", value="dice", hue="group")
    assert [path.suffix for path in paths] == [".pdf", ".png", ".csv"]
    assert paths[0].read_bytes().startswith(b"%PDF") and paths[1].read_bytes().startswith(b"\x89PNG")
    pd.testing.assert_frame_equal(pd.read_csv(paths[2]), table)
    with pytest.raises(ValueError, match="no value of dice"):
        line_plot(table.assign(dice=math.nan), tmp_path / "y", x="maps", value="dice", hue="group")
