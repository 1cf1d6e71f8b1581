"""Which scans a batch finds, and how BIDS names and mirrored paths come about."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mixed_scans import head, write_scan

from synthseg_slicer.batch import bids
from synthseg_slicer.batch.discovery import Filters, find
from synthseg_slicer.errors import OptionError, ScanError


@pytest.fixture
def dataset(tmp_path):
    """A BIDS dataset of empty files."""
    root = tmp_path / "raw"
    names = (
        "sub-01/ses-a/anat/sub-01_ses-a_acq-mprage_run-1_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T2starw.nii.gz",
        "sub-02/anat/sub-02_T2w.nii",
        "sub-02/anat/sub-02_desc-preproc_T1w.nii.gz",
        "sub-02/ct/sub-02_ct.nii.gz",
        "sub-02/func/sub-02_task-rest_bold.nii.gz",
        "sub-02/anat/notes.nii.gz",
        "sub-02/anat/sub-03_T1w.nii.gz",  # another subject's
        "derivatives/other/sub-01/anat/sub-01_T1w.nii.gz",
    )
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "dataset_description.json").write_text(json.dumps({"Name": "raw", "BIDSVersion": "1.10.0"}))
    return root


def found(dataset, **filters) -> dict[str, str]:
    return {item.key: item.labels for item in find(dataset, dataset / "derivatives" / "x", Filters(**filters)).items}


def test_a_bids_dataset_becomes_derivatives(dataset):
    assert found(dataset) == {
        "sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii.gz": (
            "sub-01/ses-a/anat/sub-01_ses-a_seg-synthseg_desc-FLAIR_dseg.nii.gz"
        ),
        "sub-01/ses-a/anat/sub-01_ses-a_acq-mprage_run-1_T1w.nii.gz": (
            "sub-01/ses-a/anat/sub-01_ses-a_acq-mprage_run-1_seg-synthseg_desc-T1w_dseg.nii.gz"
        ),
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz": (
            "sub-01/ses-b/anat/sub-01_ses-b_seg-synthseg_desc-T1w_dseg.nii.gz"
        ),
        "sub-02/anat/sub-02_T2w.nii": "sub-02/anat/sub-02_seg-synthseg_desc-T2w_dseg.nii.gz",
        "sub-02/anat/sub-02_desc-preproc_T1w.nii.gz": ("sub-02/anat/sub-02_seg-synthseg_desc-preprocT1w_dseg.nii.gz"),
        "sub-02/ct/sub-02_ct.nii.gz": "sub-02/anat/sub-02_seg-synthseg_desc-CT_dseg.nii.gz",
    }


def test_images_without_bids_names_are_counted_and_left_out(dataset):
    assert find(dataset, dataset / "out").unnamed == ["sub-02/anat/notes.nii.gz", "sub-02/anat/sub-03_T1w.nii.gz"]


@pytest.mark.parametrize(
    "filters, count",
    [
        ({"suffixes": ["T1w"]}, 3),
        ({"suffixes": ["T2starw"]}, 1),
        ({"suffixes": ["ct"]}, 1),
        ({"participants": ["sub-01"]}, 3),
        ({"participants": ["01", "02"]}, 6),
        ({"sessions": ["b"]}, 1),
        ({"entities": {"acq": {"mprage"}, "run": {"1", "2"}}}, 1),
        ({"entities": {"desc": {"preproc"}}, "participants": ["02"]}, 1),
    ],
)
def test_filters_pick_scans_by_their_entities(dataset, filters, count):
    assert len(found(dataset, **filters)) == count


def test_filters_that_leave_nothing_and_unknown_participants_are_refused(dataset, tmp_path):
    with pytest.raises(ScanError, match=r"no participant 07, nobody"):
        found(dataset, participants=["01", "nobody", "07"])
    with pytest.raises(ScanError, match=r"no scan found in this BIDS dataset \(suffix T1rho"):
        found(dataset, suffixes=["T1rho"])
    with pytest.raises(OptionError, match="filters need a BIDS dataset"):
        find(dataset / "sub-02", tmp_path, Filters(participants=["01"]))
    with pytest.raises(ScanError, match="is no BIDS dataset"):
        find(dataset / "sub-02", tmp_path, is_bids=True)


def test_two_scans_with_one_result_are_refused(dataset, tmp_path):
    (dataset / "sub-02/anat/sub-02_T2w.nii.gz").touch()
    with pytest.raises(OptionError, match=r"sub-02_T2w.nii and .*sub-02_T2w.nii.gz would both become"):
        find(dataset, tmp_path)


LABEL = st.text("abzABZ019+", min_size=1, max_size=6)
ENTITY = st.sampled_from(["acq", "ce", "rec", "run", "echo", "part", "space", "res", "desc"])


@given(LABEL, st.none() | LABEL, st.dictionaries(ENTITY, LABEL), st.sampled_from([*bids.SUFFIXES, "ct"]))
def test_derived_names_keep_all_entities_and_are_bids_names(subject, session, others, suffix):
    entities = {"sub": subject, **({"ses": session} if session else {}), **others}
    name = bids.Name.parse("_".join([*(f"{e}-{label}" for e, label in entities.items()), f"{suffix}.nii.gz"]))
    derived = bids.Name.parse(f"{name.derived('dseg')}.nii.gz")
    assert derived.suffix == "dseg" and derived.folder == name.folder
    kept = {entity: label for entity, label in derived.entities.items() if entity not in ("seg", "desc")}
    assert kept == {entity: label for entity, label in entities.items() if entity != "desc"}
    assert derived.entities["desc"] == others.get("desc", "") + name.suffix
    assert list(derived.entities)[-1] == "desc"


@pytest.mark.parametrize(
    "name",
    ["T1w.nii.gz", "sub-01.nii.gz", "sub-01_T1w.mgz", "sub-_T1w.nii", "sub-01_sub-02_T1w.nii", "ses-1_T1w.nii",
     "sub-../../x_T1w.nii", "sub-01_acq-a/b_T1w.nii", "sub-01__T1w.nii", "sub-01_T1w.nii.gz\n"],
)  # fmt: skip
def test_other_names_are_no_bids_names(name):
    assert bids.Name.parse(name) is None


def test_a_tree_is_searched_and_mirrored(tmp_path):
    root, data = tmp_path / "in", head(0, (1, 1, 1), "RAS")
    for folder, suffix in (("", ".nrrd"), ("a/b", ".nii.gz"), ("a", "")):
        (root / folder).mkdir(parents=True, exist_ok=True)
        write_scan(root / folder, "scan", suffix, *data)
    (root / "a" / "notes.txt").write_text("no scan")
    (root / "a" / "old_synthseg.nii.gz").touch()  # a result
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.nii").touch()
    (root / "out").mkdir()
    (root / "out" / "y.nii").touch()
    result = find(root, root / "out")
    assert {item.key: item.labels for item in result.items} == {
        "a/b/scan.nii.gz": "a/b/scan_synthseg.nii.gz",
        "a/scan": "a/scan_synthseg.nii.gz",
        "scan.nrrd": "scan_synthseg.nii.gz",
    }
    assert not result.is_bids and result.root == root.resolve()
    with pytest.raises(OptionError, match="would both become"):
        (root / "scan.mha").touch()
        find(root, root / "out")


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_links_are_followed_but_no_folder_is_entered_twice(tmp_path):
    root, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (elsewhere / "x.nii").touch()
    (root / "link").symlink_to(elsewhere)
    (root / "loop").symlink_to(root)
    (root / "again").symlink_to(elsewhere)
    (root / "absent.nii").symlink_to(tmp_path / "nothing")
    assert [item.key for item in find(root, tmp_path / "out").items] == ["absent.nii", "again/x.nii"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions, which root does not have")
def test_a_folder_that_cannot_be_searched_is_named(tmp_path):
    (tmp_path / "in" / "locked").mkdir(parents=True)
    (tmp_path / "in" / "x.nii").touch()
    (tmp_path / "in" / "locked").chmod(0)
    with pytest.raises(ScanError, match=r"locked: cannot be searched for scans \(Permission denied\)"):
        find(tmp_path / "in", tmp_path / "out")


def test_a_list_may_name_scans_anywhere_but_results_stay_in_the_output(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.nii").touch()
    listing = tmp_path / "lists" / "scans.txt"
    listing.write_text(f"../data/x.nii\n{tmp_path}/data/absent.nii.gz\ny.mgz\n../data/x.nii\n")
    result = find(listing, tmp_path / "out")
    assert {item.key: item.labels for item in result.items} == {
        "../data/absent.nii.gz": "data/absent_synthseg.nii.gz",
        "../data/x.nii": "data/x_synthseg.nii.gz",
        "y.mgz": "y_synthseg.nii.gz",
    }
    assert all((result.root / item.key).parent.is_dir() for item in result.items)


@given(st.lists(st.sampled_from(["..", "a", "b.nii", ".", "c d"]), max_size=5))
def test_no_path_in_a_list_leads_out_of_the_output(parts):
    from synthseg_slicer.batch.discovery import _mirrored

    labels = PurePosixPath(_mirrored("/".join([*parts, "x.nii.gz"])))
    assert not labels.is_absolute() and ".." not in labels.parts


def test_one_scan_or_a_dicom_folder_is_a_batch_too(tmp_path):
    data = head(0, (1, 1, 1), "RAS")
    for suffix in (".nii.gz", ""):
        path = write_scan(tmp_path, f"scan{suffix[:1]}", suffix, *data)
        (item,) = find(path, tmp_path / "out").items
        assert item.key == path.name and re.fullmatch(r"scan\.?_synthseg\.nii\.gz", item.labels)


def test_nothing_found_is_said(tmp_path):
    with pytest.raises(ScanError, match="no scan found"):
        find(tmp_path, Path("out"))
