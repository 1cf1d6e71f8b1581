"""Group study from the files that a user has: volumes as the product writes them and a BIDS participants.tsv."""

import numpy as np
import pandas as pd
import pytest

from synthseg_slicer.labels import BRAIN
from synthseg_slicer.measure import INTRACRANIAL, write_volumes_table
from synthseg_training.evaluation.cohort import join, read_participants, read_volumes
from synthseg_training.evaluation.group import compare, corrected_volumes, draw, group_study
from synthseg_training.evaluation.statistics import cohens_d

NAMES = {label.id: label.name for label in BRAIN}
EFFECT = 1.5
"""Of the disease on the hippocampi, in standard deviations."""


@pytest.fixture
def study(tmp_path):
    """Forty healthy people and forty patients who are six years older, whose hippocampi alone are ill."""
    rng = np.random.default_rng(5)
    scans, people = {}, []
    for i in range(80):
        ill = i >= 40
        age, sex, size = rng.normal(70 + 6 * ill, 6), rng.choice(["F", "M"]), rng.normal(1, 0.08)
        hippocampi = 3800 * size - 25 * (age - 70) + rng.normal(0, 250, 2) - EFFECT * 250 * ill
        others = [1.4e6 * size, 400_000 * size + rng.normal(0, 10_000), 20_000 * size + rng.normal(0, 900)]
        volumes = dict(zip((17, 53, 24, 2, 16), [*hippocampi, *others]))
        scans[f"/data/sub-{i:02}/anat/sub-{i:02}_T1w.nii.gz"] = volumes
        people.append((f"sub-{i:02}", f"{age:.1f}", sex, "AD" if ill else "CN"))
    people.append(("sub-80", "66.0", "F", "MCI"))  # of another group and without a scan
    write_volumes_table(tmp_path / "volumes.csv", scans, NAMES)
    rows = ["\t".join(row) for row in [("participant_id", "age", "sex", "group"), *people]]
    (tmp_path / "participants.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture
def tables(study):
    return read_volumes(study / "volumes.csv"), read_participants(study / "participants.tsv")


def test_the_known_effect_is_found_where_it_is_and_nowhere_else(tables):
    table = group_study(*tables, groups=("CN", "AD")).set_index("structure")
    assert INTRACRANIAL not in table.index
    assert (table["n_a"] == 40).all() and (table["n_b"] == 40).all()
    for name in ("Left-Hippocampus", "Right-Hippocampus"):
        row = table.loc[name]
        assert row["d_low"] < EFFECT < row["d_high"] and row["d_low"] > 0.5
        assert row["stars"] == "***" and row["difference_percent"] < -5
    for name in ("Left-Cerebral-White-Matter", "Brain-Stem"):
        row = table.loc[name]
        assert row["d_low"] < 0 < row["d_high"] and row["stars"] == "" and row["p_corrected"] > 0.05
    np.testing.assert_allclose(table["p_corrected"], np.minimum(len(table) * table["p"], 1))


def test_uncorrected_volumes_exaggerate_the_effect_because_patients_are_older(tables):
    plain = group_study(*tables, groups=("CN", "AD"), covariates=(), intracranial=None).set_index("structure")
    volumes, people = tables
    ill = people["group"].eq("AD").to_numpy()[:80]
    left = volumes["Left-Hippocampus"].to_numpy()
    assert plain.loc["Left-Hippocampus", "d"] == pytest.approx(cohens_d(left[~ill], left[ill]).d)
    assert plain.loc["Left-Hippocampus", "mean_b_mm3"] == pytest.approx(left[ill].mean())
    assert INTRACRANIAL in plain.index


def test_hippocampi_are_added_up(tables):
    volumes, _ = tables
    cohort = join(*tables, groups=("CN", "AD"), sum_sides=True)
    assert list(cohort.volumes) == ["Hippocampus", "CSF", "Cerebral-White-Matter", "Brain-Stem"]
    expected = volumes["Left-Hippocampus"] + volumes["Right-Hippocampus"]
    np.testing.assert_allclose(cohort.volumes["Hippocampus"], expected)
    effect = compare(cohort).set_index("structure").loc["Hippocampus"]
    assert effect["d_low"] < EFFECT * np.sqrt(2) < effect["d_high"]  # two hippocampi with independent noise


def test_corrected_volumes_are_what_the_effect_is_computed_from(tables):
    cohort = join(*tables, groups=("CN", "AD"))
    long = corrected_volumes(cohort)
    part = long[long["structure"].eq("Left-Hippocampus")]
    a, b = (part.loc[part["group"].eq(name), "corrected_mm3"] for name in ("CN", "AD"))
    effect = compare(cohort).set_index("structure").loc["Left-Hippocampus"]
    pooled = np.sqrt((39 * a.var() + 39 * b.var()) / 78)
    assert (a.mean() - b.mean()) / pooled == pytest.approx(effect["d"])
    assert part.loc[part["group"].eq("CN"), "percent"].mean() == pytest.approx(100)
    assert part["corrected_mm3"].std() < part["volume_mm3"].std()


def test_figures_and_tables_are_written(tables, tmp_path):
    cohort = join(*tables, groups=("CN", "AD"))
    table = compare(cohort)
    written = draw(cohort, table, tmp_path / "figures")
    assert all(path.stat().st_size for paths in written.values() for path in paths)
    np.testing.assert_allclose(pd.read_csv(written["effects"][2])["d"], table["d"])
    boxes = pd.read_csv(written["volumes"][2])
    assert list(boxes["structure"].unique()) == list(cohort.volumes)
    assert list(boxes["group"][:2]) == ["CN", "AD"]


def test_people_without_a_value_are_left_out_and_named(study, tables):
    text = (study / "participants.tsv").read_text().splitlines()
    fields = text[1].split("\t")
    text[1] = "\t".join([fields[0], "n/a", *fields[2:]])
    (study / "participants.tsv").write_text("\n".join(text))
    cohort = join(tables[0], read_participants(study / "participants.tsv"), groups=("CN", "AD"))
    assert cohort.left_out == ("sub-00",) and len(cohort.people) == 79
    assert compare(cohort)["n_a"].eq(39).all()


def test_groups_may_be_numbers_and_scans_named_as_people(tables):
    volumes, people = tables
    volumes = volumes.assign(scan=[f"sub-{i:02}" for i in range(80)])
    people = people.assign(group=people["group"].map({"CN": 0, "AD": 1, "MCI": 2}))
    table = group_study(volumes, people, groups=(0, 1))
    assert table["d"].tolist() == pytest.approx(group_study(*tables, groups=("CN", "AD"))["d"].tolist())
    # swapped groups: the same, with the other sign
    assert group_study(volumes, people, groups=(1, 0))["d"].tolist() == pytest.approx((-table["d"]).tolist())


def test_the_intracranial_volume_may_come_from_elsewhere(tables):
    volumes, people = tables
    icv = people["participant_id"].map(dict(zip(people["participant_id"], volumes[INTRACRANIAL])))
    other = group_study(
        volumes.drop(columns=INTRACRANIAL), people.assign(etiv=icv), groups=("CN", "AD"), intracranial="etiv"
    )
    assert other["d"].tolist() == pytest.approx(group_study(*tables, groups=("CN", "AD"))["d"].tolist())


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda v, p: (v, p.drop(columns="group")), {}, "no column group"),
        (lambda v, p: (v, p), {"covariates": ["iq"]}, "no column iq; it has participant_id, age"),
        (lambda v, p: (v, p), {"groups": ("CN", "CN")}, "two different groups"),
        (lambda v, p: (v, p), {"groups": ("CN", "FTD")}, "nobody of group FTD.*AD, CN, MCI"),
        (lambda v, p: (v, p), {"intracranial": "eTIV"}, "neither table has a column eTIV"),
        (lambda v, p: (v, p[10:]), {}, r"nobody for the scan /data/sub-00.*10 of 80"),
        (lambda v, p: (pd.concat([v, v[:1]]), p), {}, "sub-00 has several scans"),
        (lambda v, p: (v.assign(age=1.0), p), {}, "both tables have a column age"),
        (lambda v, p: (v, p.assign(age=["89+", *p["age"][1:]])), {}, r"age is a number for some and 89\+"),
        (lambda v, p: (v[38:42], p), {}, "too few"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tables, change, options, message):
    volumes, people = change(*tables)
    with pytest.raises(ValueError, match=message):
        group_study(volumes, people, **{"groups": ("CN", "AD"), **options})


def test_files_of_another_kind_are_refused(study):
    (study / "a.csv").write_text("structure,volume_mm3\nx,1\n")
    (study / "b.csv").write_text("scan,Brain-Stem\nx,big\n")
    (study / "c.tsv").write_text("participant_id\tgroup\nsub-1\tCN\nsub-1\tAD\n")
    for read, name, message in (
        (read_volumes, "a.csv", r"a\.csv: has no column scan"),
        (read_volumes, "b.csv", r"b\.csv: Brain-Stem should hold volumes"),
        (read_volumes, "missing.csv", r"missing\.csv: cannot be read"),
        (read_participants, "volumes.csv", "has no column participant_id"),
        (read_participants, "c.tsv", "sub-1 is there twice"),
    ):
        with pytest.raises(ValueError, match=message):
            read(study / name)
