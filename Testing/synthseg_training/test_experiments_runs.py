"""The experiments from command line to page, in miniature: phantoms of 4 mm taken for 1 mm, tiny networks."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic import TINY

from synthseg_slicer.scan import write_volume
from synthseg_slicer.weights import load_model
from synthseg_training.cli import main
from synthseg_training.evaluation.scans import THIN
from synthseg_training.experiments import ablation, maps, trainings
from synthseg_training.experiments.arms import ARMS, BOTH, FULL, RESOLUTION, Arm, arms_for, with_steps
from synthseg_training.experiments.dataset import Case
from synthseg_training.experiments.domains import Domain
from synthseg_training.experiments.ledger import Ledger, digest
from synthseg_training.experiments.maps import capped, subset
from synthseg_training.experiments.projections import packed, unpacked
from synthseg_training.experiments.stroke import LesionNetwork
from synthseg_training.experiments.trainings import Bench
from synthseg_training.labelmaps import LabelMapSet, prepare
from synthseg_training.phantom import write_phantoms
from synthseg_training.training import checkpoint
from synthseg_training.training.loop import stage_config
from synthseg_training.training.recipe import Recipe, Stage, load_recipe

RECIPE = """
name: miniature
network: {architecture: fast, widths: [4, 8], fine_width: 4}
held_out: [phantom_03]
optimizer: adamw
ema: 0.5
generator: {spatial: {step: 8.0, surroundings: 4.0, velocity: 1.0}}
stages:
  - {steps: 2, crop: 16, loss: dice_ce, rate: 1.0e-3, difficulty: [0.5, 1.0]}
  - {steps: 3, crop: 16, loss: dice_ce, rate: 1.0e-3, realistic_share: [0.5, 0.5]}
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A folder with a recipe, three small label maps, and two scans with references."""
    folder = tmp_path_factory.mktemp("room")
    write_phantoms(folder / "maps", 3, voxel_size=4.0)
    maps = replace(prepare(folder / "maps", folder / "maps.npz"), voxel_size=1.0)
    maps.save(folder / "maps.npz")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "scans").mkdir()
    rng = np.random.default_rng(0)
    ids = np.array(maps.labels)
    for name, index in (("fs01-t1", 0), ("nm02-t2", 1)):
        labels = ids[maps.maps[index].numpy()][3:35, 6:38, 18:50]
        image = rng.uniform(40, 220, labels.max() + 1)[labels] + rng.normal(0, 4, labels.shape)
        write_volume(folder / "scans" / f"{name}_image.nii.gz", image.astype(np.float32), np.eye(4))
        write_volume(folder / "scans" / f"{name}_dseg.nii.gz", np.where(labels < 61, labels, 0), np.eye(4))
    return folder


def run(*arguments) -> int:
    return main(["experiment", *map(str, arguments)])


def records(folder) -> dict[str, int]:
    """Return when each unit was recorded."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "units").glob("*.json")}


# -- arms --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(room):
    return load_recipe(room / "recipe.yaml")


def settings(arm: Arm, recipe: Recipe):
    """Return the generative model at the end of the arm's last stage."""
    own = arm.recipe(recipe, seed=4)
    return stage_config(own, own.stages[-1], own.stages[-1].steps)


def test_arms_change_what_the_paper_changes_and_nothing_else(recipe):
    domains = [Domain("t1"), Domain("flair", 5.0, "axial"), Domain("t1", 5.0, "axial")]
    arms = {arm.name: settings(arm, recipe) for arm in arms_for(ARMS, domains)}
    full = arms[FULL]
    assert full.gmm.mean == (0, 255) and full.gmm.std == (0, 35)
    expected = {
        "tight": replace(full, gmm=replace(full.gmm, mean=(10, 240), std=(1, 25))),
        "tighter": replace(full, gmm=replace(full.gmm, mean=(50, 200), std=(1, 15))),
        "no-lesions": replace(full, lesions=replace(full.lesions, probability=0)),
        "no-bias": replace(full, bias=replace(full.bias, probability=0)),
        "no-deformation": replace(full, spatial=replace(full.spatial, probability=0)),
        "R 1 mm": replace(full, resolution=replace(full.resolution, probability=0)),
    }
    thick = {"probability": 1, "isotropic_share": 0, "anisotropic": (5, 5), "directions": (2,)}
    expected["R 5 mm axial"] = replace(full, resolution=replace(full.resolution, **thick))
    for domain in domains:
        gmm = replace(full.gmm, realistic_share=1, contrasts=(domain.contrast,))
        same = expected[f"R {domain.resolution}"]
        expected[f"RC {domain}"] = replace(same, gmm=gmm)
    assert set(arms) == {FULL, *expected}
    for name, config in expected.items():
        assert arms[name] == config, name


def test_domain_specific_arms_are_tested_on_their_domain_only():
    thin, thick = Domain("t1"), Domain("t2", 4.0, "coronal")
    arms = arms_for([FULL, RESOLUTION, BOTH], [thin, thick])
    assert [arm.name for arm in arms if arm.serves(thin)] == [FULL, "R 1 mm", "RC t1 1 mm"]
    assert [arm.name for arm in arms if arm.serves(thick)] == [FULL, "R 4 mm coronal", "RC t2 4 mm coronal"]


@pytest.mark.parametrize("steps", [2, 3, 7, 100])
def test_a_budget_of_steps_is_shared_by_the_stages(steps):
    stages = [Stage(steps=30, warmup=10, difficulty_steps=15), Stage(steps=70)]
    short = with_steps(Recipe("x", stages), steps)
    assert short.steps == steps and all(stage.steps >= 1 for stage in short.stages)
    assert abs(short.stages[0].steps - 0.3 * steps) <= 0.7
    assert short.stages[0].warmup == round(0.1 * steps)


def test_numbers_of_maps_are_capped_and_choices_nested():
    assert capped([1, 5, 10, 15, 20], 12) == [1, 5, 10, 12]
    names = [f"m{i}" for i in range(12)]
    for seed in range(5):
        few, many = subset(names, 3, seed), subset(names, 8, seed)
        assert len(set(few)) == 3 and set(few) < set(many)
    assert len({tuple(subset(names, 3, seed)) for seed in range(5)}) > 1
    assert subset(names, 12, 0) == names


# -- trainings ---------------------------------------------------------------------------------------------------------


def test_an_ablation_runs_from_recipe_to_page(room, tmp_path):
    arguments = ("ablation", room / "recipe.yaml", "--maps", room / "maps.npz", "-o", tmp_path, "--no-sd95")
    arguments += (
        "--scans",
        room / "scans",
        "--arms",
        FULL,
        RESOLUTION,
        BOTH,
        "no-bias",
        "--seeds",
        2,
        "--device",
        "cpu",
    )
    assert run(*arguments) == 0
    table = pd.read_csv(tmp_path / "tables" / "arms.csv")
    assert list(table["arm"]) == ["SynthSeg", "SynthSeg-R", "SynthSeg-RC", "no bias field"]
    assert set(table["steps"]) == {5} and table["difference (95 %)"].notna().sum() == 3
    every = pd.read_csv(tmp_path / "tables" / "trainings.csv")
    assert len(every) == 2 * 5 and every["sha256"].nunique() == 10  # RC takes one network for each contrast
    scores = pd.read_csv(tmp_path / "tables" / "scores.csv")
    rc = scores[scores["kind"] == BOTH]
    assert set(zip(rc["arm"], rc["scan"])) == {("RC t1 1 mm", "fs01-t1"), ("RC t2 1 mm", "nm02-t2")}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 1 and "Every network was trained for 5 steps" in page
    assert "With 2 pairs none can be significant" in page
    assert (tmp_path / "figures" / "dice_boxes.pdf").read_bytes().startswith(b"%PDF")
    before = records(tmp_path)
    assert run(*arguments) == 0 and records(tmp_path) == before  # nothing is done twice


def test_the_number_of_maps_runs_on_synthetic_scans_and_survives_being_killed(room, tmp_path):
    arguments = ["maps", room / "recipe.yaml", "--maps", room / "maps.npz", "-o", tmp_path, "--numbers", 1, 20]
    arguments += [
        "--seeds",
        2,
        "--synthetic-scans",
        2,
        "--synthetic-contrasts",
        "t1",
        "--synthetic-crop",
        32,
        "--fast",
        "--device",
        "cpu",
    ]
    command = [sys.executable, "-m", "synthseg_training.cli", "experiment", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while not list((tmp_path / "units").glob("train_*")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()
    process.stderr.close()
    before = records(tmp_path)
    assert 0 < len(before) < 12 and not (tmp_path / "report.html").exists()
    assert run(*arguments) == 0
    after = records(tmp_path)
    assert len(after) == 4 + 4 * 2 and {name: after[name] for name in before} == before
    curve = pd.read_csv(tmp_path / "tables" / "dice_by_maps.csv")
    assert list(curve["maps"]) == [1, 2] and (curve["low"] <= curve["dice"]).all() and curve["low"].notna().all()
    assert len(pd.read_csv(tmp_path / "scans" / "scans.csv")) == 2
    assert "SHA-256" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_training_goes_on_where_it_was_interrupted_and_ends_the_same(room, tmp_path, monkeypatch, capsys):
    def arguments(folder):
        common = ["--arms", FULL, "--seeds", 1, "--scans", room / "scans", "--fast", "--no-sd95", "--device", "cpu"]
        return ["ablation", room / "recipe.yaml", "--maps", room / "maps.npz", "-o", tmp_path / folder, *common]

    whole = trainings.fit
    monkeypatch.setattr(trainings, "fit", lambda *a, **options: whole(*a, **{**options, "max_minutes": 0}))
    assert run(*arguments("parts")) == 2
    assert "interrupted after 1 of 5 steps. The same command goes on." in capsys.readouterr().err
    (last,) = (tmp_path / "parts").glob("trainings/*/last.pt")
    assert checkpoint.load(last)["step"] == 1 and not records(tmp_path / "parts")
    monkeypatch.setattr(trainings, "fit", whole)
    assert run(*arguments("parts")) == run(*arguments("whole")) == 0
    states = [
        torch.load(next((tmp_path / name).glob("trainings/*/network.pt")), weights_only=True)["state"]
        for name in ("parts", "whole")
    ]
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
    assert not last.exists()


def test_other_settings_in_the_same_folder_are_refused(room, tmp_path, capsys):
    arguments = ["maps", room / "recipe.yaml", "--maps", room / "maps.npz", "-o", tmp_path, "--scans", room / "scans"]
    arguments += ["--numbers", 1, "--seeds", 1, "--no-sd95", "--fast", "--device", "cpu"]
    assert run(*arguments) == 0
    assert run(*arguments, "--steps", 4) == 2
    assert "settings.json was made otherwise: recipe.stages was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablation", "{recipe}", "--maps", "{maps}", "--arms", "R"], "name each once, and 'full'"),
        (["ablation", "{recipe}", "--maps", "{maps}", "--arms", "full", "S"], "Unknown arm S"),
        (["maps", "{recipe}", "--maps", "{maps}", "--steps", "1"], "too few for the 2 stages"),
        (["maps", "{recipe}", "--maps", "{maps}", "--synthetic-contrasts", "t9"], "Unknown contrast t9"),
        (["maps", "{recipe}", "--maps", "{maps}", "--set", "held_out=[]"], "'held_out'"),
        (["stroke"], "either --scans"),
        (["contrast", "{scans}", "--method", "A"], "NAME=FOLDER"),
        (["contrast", "{scans}", "--method", "A=/nowhere"], "no folder /nowhere"),
        (["contrast", "{scans}", "--method", "A={scans}:asegg"], "unknown convention asegg"),
        (["resolution", "{scans}", "--model", "a.pt"], "a.json"),
    ],
)
def test_wrong_options_end_in_one_line(room, tmp_path, capsys, arguments, message):
    paths = {"recipe": room / "recipe.yaml", "maps": room / "maps.npz", "scans": room / "scans"}
    words = [word.format(**paths) for word in arguments]
    assert run(*words, "-o", tmp_path) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


class KnownScores(Bench):
    """Trains nothing: Dice is .8 and what the arm's name adds, with a spread over seeds, scans and both."""

    effects: ClassVar = {"no-bias": -0.1, "1 maps": -0.2, "2 maps": -0.05}

    def train(self, training):
        return {"weights": "", "sha256": "", "steps": training.recipe.steps, "minutes": 1.0}

    def score(self, training, trained, cases):
        rows = []
        for case in cases:
            names = (("seed", training.seed), ("scan", case.name), ("rest", training.key, case.name))
            spread = [np.random.default_rng(int(digest(name)[:8], 16)).normal() for name in names]
            dice = 0.8 + self.effects.get(training.arm, 0.0) + np.dot(spread, [0.02, 0.03, 0.005])
            facts = {"arm": training.arm, "seed": training.seed, "scan": case.name, "group": case.group}
            rows += [{**facts, "structure": name, "dice": dice, "sd95_mm": 2.0} for name in ("a", "b")]
        return pd.DataFrame(rows)


@pytest.fixture
def bench(tmp_path):
    return KnownScores(Ledger(tmp_path, {}), report=lambda line: None)


@pytest.fixture
def cases(room):
    image = room / "scans" / "fs01-t1_image.nii.gz"
    return [Case(f"s{index}", image, image, contrast="T1w") for index in range(10)]


def numbers(text: str) -> list[float]:
    """Return mean, low and high of a cell."""
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def test_an_ablation_finds_the_differences_that_are_there(bench, cases, recipe):
    page = ablation.run(bench, recipe, None, cases, kinds=[FULL, "tight", "no-bias"], seeds=3)
    page.save("")
    table = pd.read_csv(bench.ledger.folder / "tables" / "arms.csv").set_index("arm")
    for arm, effect in (("tighter priors (10-240, 1-25)", 0.0), ("no bias field", -0.1)):
        mean, low, high = numbers(table.at[arm, "difference (95 %)"])
        assert low <= effect <= high and abs(mean - effect) < 0.005 and high - low < 0.02  # seeds and scans are paired
    _, low, high = numbers(table.at["SynthSeg", "Dice (95 %)"])
    assert low < 0.8 < high and high - low > 0.03  # those of other seeds and scans are not
    assert table.at["no bias field", "p"] == pytest.approx(2 * 2 / 2**10, rel=1e-6)


def test_a_curve_over_numbers_of_maps_shows_what_is_there(bench, cases, recipe, room):
    page = maps.run(bench, recipe, LabelMapSet.load(room / "maps.npz"), cases, numbers=[1, 2, 5], seeds=3)
    page.save("")
    curve = pd.read_csv(bench.ledger.folder / "tables" / "dice_by_maps.csv").set_index("maps")
    assert list(curve.index) == [1, 2]
    assert curve.at[2, "dice"] - curve.at[1, "dice"] == pytest.approx(0.15, abs=0.01)
    assert (curve["low"] < [0.6, 0.75]).all() and (curve["high"] > [0.6, 0.75]).all()
    tests = pd.read_csv(bench.ledger.folder / "tables" / "tests.csv")
    assert numbers(tests["difference (95 %)"].iloc[0])[2] < -0.1 and tests["stars"].iloc[0] == "**"


# -- weights and label maps --------------------------------------------------------------------------------------------


def test_resolution_runs_from_scans_to_page(room, tiny_weights, tmp_path):
    thick = room / "scans" / "thick-t1"
    write_volume(
        f"{thick}_image.nii.gz", np.random.default_rng(0).random((20, 20, 20), np.float32), np.diag([2, 2, 2, 1])
    )
    write_volume(
        f"{thick}_dseg.nii.gz", np.full((20, 20, 20), 16, np.uint8) * np.tri(20, dtype=np.uint8), np.diag([2, 2, 2, 1])
    )
    arguments = ("resolution", room / "scans", "--model", tiny_weights, "-o", tmp_path, "--spacings", 3, 5, "--fast")
    arguments += ("--no-refine", "--device", "cpu", "--pairs", "structure")
    try:
        assert run(*arguments) == 0
    finally:
        for suffix in ("image", "dseg"):
            os.unlink(f"{thick}_{suffix}.nii.gz")
    assert len(records(tmp_path)) == 2 * 7
    scores = pd.read_csv(tmp_path / "tables" / "scores.csv")
    means = pd.read_csv(tmp_path / "tables" / "mean_dice.csv")
    by_scan = scores[scores["direction"].eq("axial") & scores["spacing_mm"].eq(5)].groupby("scan")["dice"].mean()
    assert means["axial"].iloc[-1] == pytest.approx(by_scan.mean())
    assert means["average"].iloc[-1] == pytest.approx(means.iloc[-1][["axial", "coronal", "sagittal"]].mean())
    assert means["change"].iloc[-1] == pytest.approx(means["average"].iloc[-1] - means["average"].iloc[0])
    tests = pd.read_csv(tmp_path / "tables" / "tests_dice.csv")
    assert list(tests["setting"])[-2:] == ["3 mm average", "5 mm average"] and len(tests) == 8
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"larger than {THIN:g} mm: thick-t1" in page and page.count("data:image/png") == 2


def test_contrast_compares_networks_with_other_tools(room, tiny_weights, tmp_path, capsys):
    for case in ("fs01-t1", "nm02-t2"):
        source = room / "scans" / f"{case}_dseg.nii.gz"
        target = tmp_path / "perfect" / f"{case}_aseg.nii.gz"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source.read_bytes())
    out = tmp_path / "out"
    arguments = ["contrast", room / "scans", "--model", f"mine={tiny_weights}", "-o", out, "--fast", "--no-refine"]
    arguments += ["--method", f"Perfect={tmp_path / 'perfect'}:aseg", "--device", "cpu"]
    arguments += ["--convention", "aseg"]  # lesions in the references are white matter, as in the other tool's maps
    assert run(*arguments) == 0
    means = pd.read_csv(out / "tables" / "mean_dice.csv")
    assert list(means.columns) == ["group", "mine", "Perfect"] and list(means["group"]) == ["fs t1", "nm t2"]
    assert (means["Perfect"] == 1).all() and (means["mine"] < 0.5).all()
    assert sorted(path.name for path in (out / "labels" / "mine").iterdir()) == [
        "fs01-t1_dseg.nii.gz",
        "nm02-t2_dseg.nii.gz",
    ]
    assert sorted(path.name for path in (out / "figures").glob("*t?.png")) == ["fs-t1.png", "nm-t2.png"]
    page = (out / "report.html").read_text(encoding="utf-8")
    sha = json.loads(tiny_weights.with_suffix(".json").read_text())["sha256"]
    assert sha in page and page.count("data:image/png") == 4
    (tmp_path / "perfect" / "fs01-t1_aseg.nii.gz").unlink()
    capsys.readouterr()
    assert run(*arguments) == 2
    assert re.search(r"perfect: no label map of fs01-t1 for the method Perfect", capsys.readouterr().err)


# -- stroke ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def patients(tmp_path):
    """Two subjects with two sequences each, one without a lesion."""
    folder = tmp_path / "patients"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for subject in ("a1", "a2"):
        lesion = np.zeros((32, 32, 16), np.uint8)
        lesion[8:16, 8:16, 4:8] = subject == "a1"
        for contrast in ("T1w", "FLAIR"):
            name = folder / f"{subject}-{contrast}"
            image = rng.normal(100, 5, lesion.shape) * np.pad(np.ones((28, 28, 12)), 2) + 40 * lesion
            write_volume(f"{name}_image.nii.gz", image.astype(np.float32), np.diag([1, 1, 2, 1]))
            write_volume(f"{name}_lesion.nii.gz", lesion, np.diag([1, 1, 2, 1]))
    return folder


def test_stroke_tables_have_medians_with_intervals_by_modality(patients, stroke_weights, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in patients.glob("*_lesion.nii.gz"):
        (masks / path.name.replace("_lesion", "")).write_bytes(path.read_bytes())
    arguments = ["stroke", "--scans", patients, "--model", f"net={stroke_weights}", "--method", f"Perfect={masks}"]
    assert run(*arguments, "-o", tmp_path / "out", "--ensemble", "--flips", 1, "--device", "cpu") == 0
    scores = pd.read_csv(tmp_path / "out" / "tables" / "scores.csv").set_index(["modality", "model", "scan"])
    assert scores.loc[("T1w", "Perfect", "a1-T1w"), "dice"] == 1
    assert scores.loc[("T1w", "Perfect", "a2-T1w"), "hd95_mm"] == 0  # both empty
    assert set(scores.index) >= {("ensemble", "net", "a1"), ("ensemble", "net", "a2")}
    assert ("ensemble", "Perfect", "a1") not in scores.index
    table = pd.read_csv(tmp_path / "out" / "tables" / "table_FLAIR.csv")
    assert list(table.columns) == ["model", "scans", "Dice", "HD95 (mm)", "AVD (ml)", "ALD", "LF1"]
    assert table["Dice"].iloc[1].startswith("1.000 (1.000 to 1.000)")
    figures = tmp_path / "out" / "figures"
    assert {path.name for path in figures.glob("lesions_*")} == {
        f"lesions_{model}.{kind}" for model in ("net", "Perfect") for kind in ("png", "pdf")
    }
    assert "views" not in pd.read_csv(tmp_path / "out" / "tables" / "scores.csv").columns
    (record,) = (tmp_path / "out" / "units").glob("Perfect_T1w_a1*")
    views = {name: unpacked(view) for name, view in json.loads(record.read_text())["result"]["views"].items()}
    assert views["true"][2].sum() == 64  # 8 x 8 x 8 mm
    for true, found, outline in zip(views["true"], views["found"], views["outline"]):
        assert np.array_equal(true, found) and 64 <= true.sum() <= 100  # slices of 2 mm leave soft ends
        assert not (true & ~outline).any() and outline.sum() > 400
    # a record of a version that drew nothing is read, and its row left out of the figure
    content = json.loads(record.read_text())
    del content["result"]["views"]
    record.write_text(json.dumps(content))
    assert run(*arguments, "-o", tmp_path / "out", "--ensemble", "--flips", 1, "--device", "cpu") == 0


def test_networks_are_scored_with_the_flips_that_they_know(stroke_weights):
    model = load_model("stroke", stroke_weights)
    known = replace(model, card={**model.card, "flips": 8})
    flips = [LesionNetwork("net", *rest).inputs([])["flips"] for rest in ((model,), (known,), (known, 1))]
    assert flips == [2, 8, 1]


def test_projections_survive_packing():
    mask = np.random.default_rng(0).random((5, 9, 13)) > 0.97
    for axis, view in enumerate(unpacked(json.loads(json.dumps(packed(mask))))):
        assert np.array_equal(view, mask.any(axis))


def test_stroke_on_synthetic_patients_is_recorded_patient_by_patient(room, stroke_weights, tmp_path):
    recipe = tmp_path / "stroke.yaml"
    network = f"{{architecture: fast, n_labels: 6, widths: {list(TINY['widths'])}, fine_width: {TINY['fine_width']}}}"
    recipe.write_text(
        f"name: s\ntask: stroke\nnetwork: {network}\nheld_out: [phantom_03]\n"
        "stages: [{steps: 1, crop: 32, loss: dice_ce}]\n"
    )
    arguments = ["stroke", "--recipe", recipe, "--maps", room / "maps.npz", "--model", f"net={stroke_weights}"]
    arguments += ["-o", tmp_path / "out", "--patients", 2, "--crop", 32, "--smallest", 0.01, "--flips", 1]
    assert run(*arguments) == 0
    scores = pd.read_csv(tmp_path / "out" / "tables" / "scores.csv")
    assert set(scores["scan"]) == {"patient 0", "patient 1"} and scores["modality"].nunique() == 7
    assert len(records(tmp_path / "out")) == 2 and (scores["lesion_ml"] > 0).all()


# -- group -------------------------------------------------------------------------------------------------------------


def test_a_group_study_finds_the_effect_that_was_put_in(tmp_path):
    rng, count = np.random.default_rng(0), 60
    group, age = np.repeat(["control", "AD"], count), rng.uniform(60, 85, 2 * count)
    people = pd.DataFrame({"participant_id": [f"sub-{i:03d}" for i in range(2 * count)], "group": group, "age": age})
    people.assign(sex=rng.choice(["F", "M"], 2 * count)).to_csv(tmp_path / "participants.tsv", sep="\t", index=False)
    for name, noise in (("T1", 0.0), ("FLAIR", 300.0)):
        hippocampus = 4000 - 20 * (age - 70) - 400 * (group == "AD") + rng.normal(0, np.hypot(400, noise), 2 * count)
        volumes = {"scan": [f"{p}_T1w" for p in people["participant_id"]], "Hippocampus": hippocampus}
        volumes |= {
            "Amygdala": rng.normal(1500, 100, 2 * count),
            "Total-Intracranial": rng.normal(1.5e6, 1e5, 2 * count),
        }
        pd.DataFrame(volumes).to_csv(tmp_path / f"{name}.csv", index=False)
    out = tmp_path / "out"
    arguments = ["group", f"T1={tmp_path / 'T1.csv'}", tmp_path / "FLAIR.csv", "--groups", "control", "AD", "-o", out]
    assert run(*arguments, "--participants", tmp_path / "participants.tsv") == 0
    effects = pd.read_csv(out / "tables" / "effects_T1.csv").set_index("structure")
    assert effects.at["Hippocampus", "d_low"] < 1 < effects.at["Hippocampus", "d_high"]
    assert effects.at["Hippocampus", "stars"] == "***" and pd.isna(effects.at["Amygdala", "stars"])
    both = pd.read_csv(out / "tables" / "effect_sizes.csv").set_index("structure")
    assert both.at["Hippocampus", "FLAIR"] < both.at["Hippocampus", "T1"]
    assert (out / "report.html").read_text(encoding="utf-8").count("data:image/png") == 5
