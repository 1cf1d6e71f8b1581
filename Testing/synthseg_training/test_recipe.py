"""Recipes: what is in the file is what trains, and what is wrong in it is named."""

from pathlib import Path

import pytest

from synthseg_training.physics import SequenceDraw
from synthseg_training.stroke.model import clinical_draw
from synthseg_training.training.loop import stage_config
from synthseg_training.training.recipe import Recipe, Stage, load_recipe, merged
from synthseg_training.training.schedule import learning_rate, ramp

FOLDER = Path(__file__).parents[2] / "SynthSegTraining" / "recipes"
RECIPES = sorted(set(FOLDER.glob("*.yaml")) - set(FOLDER.glob("*estimator*")))  # those have a test of their own


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_its_generator_settings_exist(path):
    recipe = load_recipe(path)
    for stage in recipe.stages:
        config = stage_config(recipe, stage, stage.steps)
        assert config.crop == stage.crop
        assert len(config.output_ids) == recipe.network["n_labels"]


def test_the_paper_recipe_is_the_paper():
    recipe = load_recipe(next(path for path in RECIPES if path.stem == "synthseg-paper"))
    logits, dice = recipe.stages
    assert recipe.network == {"architecture": "paper", "n_labels": 33, "features": 24, "levels": 5}
    assert (recipe.optimizer, recipe.betas, recipe.ema, recipe.clip) == ("adam", (0.9, 0.999), None, None)
    assert (dice.loss, dice.steps, dice.rate, dice.final_rate, dice.batch, dice.crop) == (
        "dice",
        300_000,
        1e-4,
        None,
        1,
        160,
    )
    assert logits.loss == "logits"
    config = stage_config(recipe, dice)
    assert config.gmm.realistic_share == 0
    assert config.spatial.step == 2


def test_overrides_change_nested_settings(write):
    path = write("name: a\nstages: [{steps: 5, rate: 1e-3}]\n")
    recipe = load_recipe(path, ["stages.0.steps=7", "generator.flip.probability=0.25", "seed=3"])
    assert recipe.stages[0].steps == 7
    assert recipe.stages[0].rate == 1e-3
    assert stage_config(recipe, recipe.stages[0]).flip.probability == 0.25
    assert recipe.seed == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nstages: [{steps: 5, rats: 1}]", "unknown setting rats"),
        ("stages: [{steps: 5}]", "name missing"),
        ("name: a\nstages: [{steps: many}]", r"stages\[0\]: steps must be of type int"),
        ("name: a\nstages: [{steps: 5, loss: l1}]", "loss 'l1' is none of"),
        ("name: a\nstages: [{steps: 5, loss: logits, dice_background: false}]", "'logits' has no Dice"),
        ("name: a\nstages: [{steps: 5, difficulty: [1]}]", "difficulty must have 2 entries"),
        ("name: a\nstages: {steps: 5}", "stages must be a list"),
        ("name: [a", "not YAML"),
        ("- a", "a recipe is a mapping"),
    ],
)
def test_a_wrong_recipe_names_the_file_or_the_setting(write, text, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(write(text))


def test_a_recipe_that_cannot_be_read_is_named_with_a_cure(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\x1f\x8b\xff\xfe")
    for name in ("nope.yaml", "binary.yaml", "."):
        with pytest.raises(ValueError, match=r"cannot be read as a recipe .*Give a YAML or JSON file") as caught:
            load_recipe(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_an_override_without_a_value_is_refused(write):
    with pytest.raises(ValueError, match="key=value"):
        load_recipe(write("name: a\nstages: [{steps: 5}]"), ["seed"])


def test_merging_replaces_leaves_and_keeps_the_rest():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}}) == {"a": {"b": 5, "c": 2}, "d": 3}


def test_stages_follow_each_other():
    recipe = Recipe("a", [Stage(steps=3, name="one"), Stage(steps=2, name="two")])
    assert [recipe.stage_at(step)[1:] for step in range(5)] == [
        *((recipe.stages[0], step) for step in range(3)),
        *((recipe.stages[1], step) for step in range(2)),
    ]
    with pytest.raises(IndexError):
        recipe.stage_at(5)


def test_rate_warms_up_then_falls_along_a_half_cosine():
    stage = Stage(steps=110, rate=1.0, final_rate=0.1, warmup=10)
    rates = [learning_rate(stage, step) for step in range(110)]
    assert rates[:2] == pytest.approx([0.1, 0.2])
    assert rates[10] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.55)
    assert rates[109] == pytest.approx(0.1, abs=1e-3)
    assert learning_rate(Stage(steps=10, rate=0.5), 9) == 0.5


def test_curriculum_moves_linearly_then_stays():
    stage = Stage(steps=100, difficulty_steps=50)
    assert [ramp((0.2, 1.0), stage, step) for step in (0, 25, 50, 99)] == pytest.approx([0.2, 0.6, 1.0, 1.0])


def test_difficulty_and_share_reach_the_generator():
    stage = Stage(steps=10, difficulty=(0.0, 1.0), realistic_share=(1.0, 0.0), generator={"bias": {"probability": 0.0}})
    recipe = Recipe("a", [stage], generator={"spatial": {"rotation": 10.0}})
    start, end = stage_config(recipe, stage, 0), stage_config(recipe, stage, 10)
    assert (start.spatial.rotation, end.spatial.rotation) == (0.0, 10.0)
    assert (start.gmm.realistic_share, end.gmm.realistic_share) == (1.0, 0.0)
    assert end.bias.probability == 0


def test_a_polynomial_rate_falls_as_the_power_of_what_is_left():
    stage = Stage(steps=100, rate=1e-4, power=0.9)
    assert learning_rate(stage, 0) == 1e-4
    assert learning_rate(stage, 50) == pytest.approx(1e-4 * 0.5**0.9)
    assert 0 < learning_rate(stage, 99) < 2e-6


@pytest.mark.parametrize("name", ["baseline", "synth", "synth-real", "qatlas", "qsynth", "qsynth-real"])
def test_the_stroke_papers_recipes_are_the_paper(name):
    recipe = load_recipe(next(path for path in RECIPES if path.stem == f"stroke-{name}"))
    (stage,) = recipe.stages
    assert (recipe.optimizer, recipe.betas, recipe.weight_decay) == ("adamw", (0.9, 0.999), 0.01)
    assert (stage.steps, stage.crop, stage.rate, stage.power, stage.batch) == (700_000, 192, 1e-4, 0.9, 1)
    assert (stage.loss, stage.dice_background) == ("dice_ce", False)
    assert recipe.network["n_labels"] == (2 if name in ("baseline", "qatlas") else 6)
    assert (recipe.data is not None) == (name not in ("synth", "qsynth"))
    flip = stage_config(recipe, stage).flip
    assert (flip.probability, flip.anterior_posterior, flip.inferior_superior) == (0.8, 0.8, 0.8)
    if recipe.data:
        assert recipe.data.kind == ("maps" if name == "qatlas" else "scans")
        assert recipe.data.share == (1.0 if name in ("baseline", "qatlas") else 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {folder: a, kind: movies}\ntask: stroke", "kind 'movies'"),
        ("data: {folder: a, share: 2.0}\ntask: stroke", "share 2.0"),
        ("data: {folder: a, kind: maps}", "only the task stroke"),
        ("data: {folder: a, tesla: 1.5}\ntask: stroke", "field strength"),
    ],
)
def test_wrong_data_folders_are_named(write, text, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(write(f"name: a\nstages: [{{steps: 5}}]\n{text}\n"))


def test_nested_settings_change_the_generators_own_defaults():
    recipe = Recipe("r", [Stage(1)], task="stroke", generator={"clinical": {"weights": {"gre": 1.0}}})
    clinical = stage_config(recipe, recipe.stages[0]).clinical
    assert clinical.weights == {"gre": 1.0}
    assert clinical.distributions == clinical_draw().distributions != SequenceDraw().distributions
