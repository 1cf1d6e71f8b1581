"""The experiment of the heart from command line to page, on coarse phantoms of the chest and in one contrast."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.image import imread
from scipy import stats

from synthseg_slicer.errors import OptionError
from synthseg_slicer.scan import read_scan
from synthseg_slicer.weights import load_model
from synthseg_training.cli import main
from synthseg_training.evaluation.metrics import dice
from synthseg_training.experiments import heart_data, trainings
from synthseg_training.experiments.dataset import load_dataset
from synthseg_training.experiments.heart import ALL, MEAN, intervals
from synthseg_training.experiments.heart_data import UNSEEN, Phantoms, check_apart, check_structures
from synthseg_training.experiments.ledger import Ledger
from synthseg_training.heart.phantom import draw_image, draw_thorax, write_thoraxes
from synthseg_training.heart.subdivide import Subdivision, structure_of, subdivide
from synthseg_training.heart.tissues import STRUCTURES
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.training import checkpoint
from synthseg_training.training.recipe import Recipe, Stage, load_recipe

RECIPES = Path(__file__).parents[2] / "SynthSegTraining" / "recipes"
COARSE = 6.0
"""Voxel size in mm of phantoms that take no time."""
STEPS = 250
STAGE = {"crop": 20, "voxel_size": COARSE, "loss": "dice_ce", "rate": 1e-2, "final_rate": 3e-4, "warmup": 10}
SMALL = {
    "network": {"widths": [16, 32], "fine_width": 8},
    "optimizer": "adamw",
    "ema": 0.95,
    "generator": {"spatial": {"surroundings": 40}},
    "stages": [{**STAGE, "steps": STEPS, "difficulty": [0.2, 0.4], "coarse_weight": 0.3}],
}
SPLIT = ("--versions", 2, "--background", 4, 5)


def merged(base: dict, changes: dict) -> dict:
    """Return settings with changes at any depth."""
    return base | {
        key: merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in changes.items()
    }


def priors(folder: Path) -> dict[int, dict]:
    """Return the contrast of the images: within seconds a network learns no other."""
    maps = subdivide(folder, folder / "maps.npz", Subdivision(versions=2, background=(4, 5), voxel_size=COARSE))
    (folder / "maps.npz").unlink()
    found: dict[int, list[float]] = {}
    for name, indices in zip(maps.names, maps.maps):
        image = read_scan(folder / f"{name[:-2]}_image.nii.gz").data
        labels = np.array(maps.labels)[indices.numpy()[1:-1, 1:-1, 1:-1]]
        for label in np.unique(labels):
            found.setdefault(int(label), []).append(float(image[labels == label].mean()))
    return {label: {"mean": [min(means), max(means)], "std": [2.0, 20.0]} for label, means in found.items()}


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A folder with scans to train on, scans to test on, and a recipe."""
    folder = tmp_path_factory.mktemp("room")
    write_thoraxes(folder / "train", 4, voxel_size=COARSE)
    write_thoraxes(folder / "test", 2, contrasts=("mr", "ct"), seed=500, voxel_size=COARSE)
    recipe = yaml.safe_load((RECIPES / "heart.yaml").read_text(encoding="utf-8"))
    changes = {"generator": {"gmm": {"priors": priors(folder / "train")}}}
    recipe = merged(merged(recipe, SMALL), changes)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder


def run(*arguments) -> int:
    return main(["experiment", "heart", *map(str, arguments), "--device", "cpu"])


@pytest.fixture(scope="module")
def arguments(room):
    given = (room / "recipe.yaml", "--train", room / "train", "--scans", room / "test", *SPLIT, "--source", "phantoms")
    return (*given, "-o", room / "out")


@pytest.fixture(scope="module")
def done(room, arguments):
    assert run(*arguments) == 0
    return room / "out"


def times(folder: Path) -> dict[str, int]:
    """Return when each record, map, segmentation and network was written."""
    patterns = ("units/*", "labels/*/*", "*.npz", "trainings/*/network.pt", "phantoms/*/*")
    return {str(path): path.stat().st_mtime_ns for pattern in patterns for path in folder.glob(pattern)}


# -- from command line to page -----------------------------------------------------------------------------------------


def test_one_command_subdivides_trains_segments_and_scores(room, done):
    scores = pd.read_csv(done / "tables" / "scores.csv")
    assert set(scores["structure"]) == set(STRUCTURES.values()) and set(scores["group"]) == {"mr", "ct"}
    assert len(scores) == 2 * 2 * len(STRUCTURES)
    assert scores.loc[scores["group"] == "mr", "dice"].mean() > 0.3  # unseen ones; it was trained for seconds
    for row in scores.itertuples():  # what is kept is what was scored
        labels = read_scan(done / "labels" / "heart" / f"{row.scan}_dseg.nii.gz").data == row.label
        truth = read_scan(room / "test" / f"{row.scan}_dseg.nii.gz").data == row.label
        assert row.dice == pytest.approx(dice(labels, truth))
    means = pd.read_csv(done / "tables" / "mean_dice.csv")
    assert list(means) == ["structure", "ct", "mr", ALL] and list(means["structure"]) == [*STRUCTURES.values(), MEAN]
    numbers = pd.read_csv(done / "tables" / "intervals_dice.csv").set_index(["structure", "group"])
    assert numbers.at[(MEAN, ALL), "mean"] == pytest.approx(scores["dice"].mean(), abs=1e-6)
    assert (numbers["low"] <= numbers["mean"]).all() and (numbers["subjects"].loc[:, "mr"] == 2).all()


def test_the_page_has_figures_tables_and_how_it_was_made(done):
    page = (done / "report.html").read_text(encoding="utf-8")
    # Boxes of Dice and SD95, the first scan of both contrasts, the loss, the training maps; and the worst scan.
    scores = pd.read_csv(done / "tables" / "scores.csv")
    worst = scores.groupby("scan")["dice"].mean().idxmin()
    assert page.count("data:image/png") == 6 + (worst not in ("ct_01", "mr_01"))
    for stem in ("dice_boxes", "sd95_mm_boxes"):
        assert (done / "figures" / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
        boxes = pd.read_csv(done / "figures" / f"{stem}.csv")
        assert set(boxes["structure"]) <= set(STRUCTURES.values())
    assert set(pd.read_csv(done / "figures" / "dice_boxes.csv")["group"]) == {"mr", "ct"}
    training = pd.read_csv(done / "tables" / "training.csv", index_col=0)["value"]
    assert (training["label maps"], training["of scans"], training["steps"]) == ("8", "4", str(STEPS))
    assert training["source"] == "phantoms" and training["CT window (HU)"] == "-200 to 600"
    assert load_model(path=done / training["weights"]).sha256 in page
    (curves,) = done.glob("trainings/*/curves.png")
    assert imread(curves).shape[:2] == (300, 800)  # of the loss alone: no map is held out
    assert "in single passes" in page  # hearts are not mirrored
    assert f"took {STEPS} of {STEPS} steps" in page and "The time limit" not in page


def test_the_same_command_does_nothing_twice(arguments, done):
    before = times(done)
    assert run(*arguments) == 0 and times(done) == before
    gone = next((done / "units").glob("*ct_02*"))
    gone.unlink()
    assert run(*arguments) == 0
    changed = {path for path, time in times(done).items() if before[path] != time}
    assert changed == {str(gone), str(done / "labels" / "heart" / "ct_02_dseg.nii.gz")}


def test_weights_are_tested_without_training_on_phantoms_that_others_were_not_trained_on(done, tmp_path):
    (weights,) = done.glob("trainings/*/network.pt")
    asked = ("--model", weights, "--phantoms", 0, 1, "--phantom-contrasts", "mr", "-o", tmp_path, "--no-sd95")
    assert run(*asked) == 0
    assert not (tmp_path / "trainings").exists() and not list(tmp_path.glob("phantoms/train/*"))
    drawn = draw_image(draw_thorax(UNSEEN, COARSE)[0], "mr", UNSEEN, COARSE)  # of the size that the weights know
    np.testing.assert_array_equal(read_scan(tmp_path / "phantoms" / "test" / "mr_01_image.nii.gz").data, drawn)
    means = pd.read_csv(tmp_path / "tables" / "mean_dice.csv")
    assert list(means) == ["structure", "mr"]  # of one contrast there is no mean over contrasts
    assert "SD95" not in (tmp_path / "report.html").read_text(encoding="utf-8").partition("<h2>Scans")[0]
    assert (pd.read_csv(tmp_path / "tables" / "training.csv", index_col=0)["value"])["steps"] == str(STEPS)


def test_an_interrupted_training_goes_on_and_nothing_before_it_is_redone(room, tmp_path, monkeypatch, capsys):
    given = (room / "recipe.yaml", "--steps", 3, "--phantoms", 2, 1, "--phantom-contrasts", "ct", *SPLIT, "--no-sd95")
    whole = trainings.fit
    monkeypatch.setattr(trainings, "fit", lambda *a, **options: whole(*a, **{**options, "max_minutes": 0}))
    assert run(*given, "-o", tmp_path) == 2
    assert "interrupted after 1 of 3 steps. The same command goes on." in capsys.readouterr().err
    before = times(tmp_path)
    assert {Path(path).suffix for path in before} == {".json", ".gz", ".csv", ".npz"}
    (last,) = tmp_path.glob("trainings/*/last.pt")
    assert checkpoint.load(last)["step"] == 1
    begun: list[int] = []

    def fit(recipe, maps, folder, **options):
        begun.append(checkpoint.load(folder / "last.pt")["step"])
        return whole(recipe, maps, folder, **options)

    monkeypatch.setattr(trainings, "fit", fit)
    assert run(*given, "-o", tmp_path) == 0
    after = times(tmp_path)
    assert begun == [1] and {path: after[path] for path in before} == before
    assert pd.read_csv(tmp_path / "tables" / "scores.csv")["scan"].unique().tolist() == ["ct_01"]
    assert run(*given, "--steps", 4, "-o", tmp_path) == 2
    assert "settings.json was made otherwise: recipe.stages was" in capsys.readouterr().err
    (tmp_path / "maps.npz").unlink()
    assert run(*given, "-o", tmp_path) == 2
    assert re.search(
        r"maps\.npz: is gone since it was made. Delete \S+subdivide\S+ to make it", capsys.readouterr().err
    )


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either a recipe to train by, or --model"),
        (["{recipe}", "--model", "a.pt", "--scans", "{test}"], "either a recipe to train by, or --model"),
        (["{recipe}"], "--phantoms N M"),
        (["{recipe}", "--scans", "{test}"], "training scans by --train"),
        (["--model", "a.pt", "--scans", "{test}", "--train", "{train}"], "training scans by --train"),
        (["{recipe}", "--phantoms", "2", "2", "--scans", "{test}"], "either --phantoms, or --scans"),
        (["{recipe}", "--phantoms", "0", "2"], "at least 1"),
        (["{recipe}", "--phantoms", "2", "0"], "2 phantoms to train on and 0 to test on"),
        (["{recipe}", "--phantoms", "2", "1", "--phantom-contrasts", "pet"], "Unknown contrast pet"),
        (["{recipe}", "--phantoms", "2", "1", "--voxel-size", "-1"], "both must be positive"),
        (["--model", "{train}/a.pt", "--scans", "{test}"], "a.json"),
        (["{recipe}", "--train", "{train}", "--scans", "{train}"], "mr_01_image.nii.gz: is also trained on"),
        (["{recipe}", "--train", "{train}/none", "--scans", "{test}"], "train/none: there is no such file or folder"),
        (["{stroke}", "--train", "{train}", "--scans", "{test}"], "is of the task stroke"),
    ],
)
def test_wrong_options_end_in_one_line_before_anything_is_written(room, tmp_path, capsys, words, message):
    places = {"recipe": room / "recipe.yaml", "train": room / "train", "test": room / "test"}
    words = [word.format(**places, stroke=RECIPES / "stroke.yaml") for word in words]
    assert run(*words, "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_recipe_of_other_structures_is_told_what_to_say(room):
    labels = (0, 1, 2, 20501, 20502, 42001)
    maps = LabelMapSet([torch.zeros(3, 3, 3, dtype=torch.uint8)], labels, ["mr_01-1"])
    anatomy = {"output": {20501: 205, 20502: 205}, "pairs": {}}
    recipe = Recipe("x", [Stage(steps=1)], generator={"anatomy": anatomy})
    with pytest.raises(
        OptionError, match=r"r\.yaml: .* regions 42001 .*output: \{20501: 205, 20502: 205, 42001: 420\}"
    ):
        check_structures(recipe, maps, Path("r.yaml"))
    with pytest.raises(OptionError, match=r"r\.yaml: holds out all 1 label maps"):
        check_structures(replace(recipe, held_out=["mr_01-1"]), maps, Path("r.yaml"))
    whole = load_recipe(room / "recipe.yaml")
    with pytest.raises(OptionError, match=r"r\.yaml: segments 500, 550, 600, 820, 850, which no training scan shows"):
        check_structures(whole, maps, Path("r.yaml"))
    drawn = sorted(stage_output(whole))
    check_structures(whole, replace(maps, labels=(0, 1, *drawn[1:])), Path("r.yaml"))  # one structure has one region
    assert {structure_of(label) for label in drawn} == set(STRUCTURES)


def stage_output(recipe: Recipe) -> dict[int, int]:
    return recipe.generator["anatomy"]["output"]


def test_scans_that_the_recipe_holds_out_may_be_tested_on(room):
    cases, recipe = load_dataset(room / "train"), load_recipe(room / "recipe.yaml")
    held_out = replace(recipe, held_out=["mr_04-1", "mr_04-2"])
    check_apart(held_out, cases, cases[3:], versions=2)
    for versions, tested in ((3, cases[3:]), (2, cases[2:])):
        with pytest.raises(OptionError, match=r"mr_0[34]_image.nii.gz: is also trained on"):
            check_apart(held_out, cases, tested, versions)


def test_phantoms_to_test_on_are_others_than_those_to_train_on(tmp_path, monkeypatch):
    seeds: list[set[int]] = []

    def write(folder, count, *, seed, **options):
        seeds.append(set(range(seed, seed + count)))
        folder.mkdir(parents=True)
        return []

    monkeypatch.setattr(heart_data, "write_thoraxes", write)
    Phantoms(UNSEEN, 50, seed=3).write(Ledger(tmp_path, {}))
    assert len(seeds[0]) == UNSEEN and not seeds[0] & seeds[1]
    with pytest.raises(OptionError, match=f"0 to {UNSEEN}"):
        Phantoms(UNSEEN + 1, 1)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_intervals_are_of_subjects_not_of_scans():
    rows = [
        [f"{group}{subject}", subject, group, structure, 0.5 + 0.1 * subject + offset]
        for subject in range(4)
        for group, structure, offset in (("mr", "a", 0), ("mr", "b", 0.1), ("ct", "a", 0.2), ("ct", "b", np.nan))
    ]
    table = pd.DataFrame(rows, columns=["scan", "subject", "group", "structure", "dice"])
    found = intervals(table, "dice").set_index(["structure", "group"])
    assert ("b", "ct") not in found.index and (found["subjects"] == 4).all()
    by_subject = 0.5 + 0.1 * np.arange(4)
    for key, offset in {("a", "mr"): 0, ("a", ALL): 0.1, (MEAN, "mr"): 0.05, (MEAN, ALL): (0.05 + 0.2) / 2}.items():
        low, high = stats.t.interval(0.95, 3, by_subject.mean() + offset, stats.sem(by_subject))
        row = found.loc[key]
        assert (row["mean"], row["low"], row["high"]) == pytest.approx((by_subject.mean() + offset, low, high))
    alone = intervals(table[table["subject"] == 0], "dice")
    assert alone["low"].isna().all() and (alone["text"].str.len() == 5).all()
