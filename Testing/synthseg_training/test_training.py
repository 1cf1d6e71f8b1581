"""The training loop on phantoms: it learns, resumes, stops in time, and what it exports segments."""

import csv
import math
import os
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from synthseg_slicer.errors import DeviceError
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.network import FastUNet
from synthseg_slicer.weights import load_model
from synthseg_training.cli import main
from synthseg_training.export import card_labels, export
from synthseg_training.labelmaps import prepare
from synthseg_training.losses import LOSSES, dice_cross_entropy_loss
from synthseg_training.phantom import write_phantoms
from synthseg_training.training import checkpoint
from synthseg_training.training.averaging import WeightAverage, batch_norms, estimate_norm_statistics
from synthseg_training.training.distributed import resume_random
from synthseg_training.training.loop import deepest_edge, fit, has_bfloat16, precision, training_names
from synthseg_training.training.recipe import Recipe, Stage

TINY = {"architecture": "fast", "widths": [4, 8], "fine_width": 4}
EASY = {
    "crop": 16,
    "voxel_size": 4.0,
    "loss": "dice_ce",
    "rate": 1e-2,
    "difficulty": (0.0, 0.0),
    "realistic_share": (1.0, 1.0),
    "generator": {"gmm": {"contrasts": ["t1"], "realistic_spread": 0.0}},
}


WRITTEN = """
name: tiny
network: {architecture: fast, widths: [4, 8], fine_width: 4}
stages: [{steps: 2, crop: 16, voxel_size: 4.0, loss: dice_ce}]
"""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 3, voxel_size=4.0)
    return prepare(folder, folder / "maps.npz", source="phantoms", licence="none")


def recipe(*stages, **settings):
    return Recipe("tiny", list(stages), **{"network": TINY, "optimizer": "adamw", "seed": 5, **settings})


def rows(folder):
    with (folder / "curves.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_training_learns_and_leaves_curves_and_weights(phantoms, tmp_path):
    stages = (Stage(steps=160, **EASY),)
    settings = recipe(*stages, held_out=["phantom_03"], ema=0.9, validate_every=80, validation_samples=2)
    fit(settings, phantoms, tmp_path, device="cpu")
    table = rows(tmp_path)
    assert float(table[-1]["loss"]) < 0.8 * float(table[0]["loss"])
    scores = [float(row["validation_dice"]) for row in table if row["validation_dice"]]
    assert len(scores) == 2 and scores[1] > max(0.15, scores[0])
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert (tmp_path / "weights.pt").stat().st_size < 0.3 * (tmp_path / "last.pt").stat().st_size


def test_a_resumed_training_equals_an_uninterrupted_one(phantoms, tmp_path):
    settings = recipe(Stage(steps=6, **EASY), ema=0.9)
    whole = checkpoint.load(fit(settings, phantoms, tmp_path / "whole", device="cpu"))
    half = fit(recipe(Stage(steps=3, **EASY), ema=0.9), phantoms, tmp_path / "half", device="cpu")
    parts = checkpoint.load(fit(settings, phantoms, tmp_path / "parts", resume=half, device="cpu"))
    assert parts["step"] == whole["step"] == 6
    for kind in ("network", "ema"):
        for name, value in whole[kind].items():
            torch.testing.assert_close(parts[kind][name], value, msg=f"{kind} {name}")


def test_the_same_seed_trains_the_same_network(phantoms, tmp_path):
    settings = recipe(Stage(steps=3, **EASY))
    states = [
        checkpoint.load(fit(settings, phantoms, tmp_path / name, device="cpu"))["network"] for name in ("one", "two")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_time_box_stops_and_saves(phantoms, tmp_path):
    path = fit(recipe(Stage(steps=10_000, **EASY)), phantoms, tmp_path, max_minutes=0.02, device="cpu")
    assert 0 < checkpoint.load(path)["step"] < 10_000


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs PyTorch 2.9")
def test_muon_trains_resumes_and_moves_kernels_by_orthogonal_steps(phantoms, tmp_path):
    network = {"architecture": "fast", "widths": [16, 16], "fine_width": 16}
    settings = recipe(Stage(steps=6, **EASY), optimizer="muon", network=network, ema=0.9)
    whole = checkpoint.load(fit(settings, phantoms, tmp_path / "whole", device="cpu"))
    half = recipe(Stage(steps=3, **EASY), optimizer="muon", network=network, ema=0.9)
    parts = fit(half, phantoms, tmp_path / "half", device="cpu")
    resumed = checkpoint.load(fit(settings, phantoms, tmp_path / "parts", resume=parts, device="cpu"))
    for name, value in whole["network"].items():
        torch.testing.assert_close(resumed["network"][name], value, msg=name)
    before = checkpoint.load(parts)["network"]["encoder.1.1.conv.weight"]
    after = checkpoint.load(fit(half, phantoms, tmp_path / "half", max_minutes=0, device="cpu"))["network"]
    assert torch.equal(after["encoder.1.1.conv.weight"], before)  # the recipe had ended
    start = checkpoint.load(fit(half, phantoms, tmp_path / "zero", max_minutes=0, device="cpu"))["network"]
    step = (before - start["encoder.1.1.conv.weight"]).flatten(1)
    singular = torch.linalg.svdvals(step)
    assert singular.min() > 0.1 * singular.max()  # gradients of so small a batch have a few large ones only


def test_moments_of_another_optimizer_are_left_behind(phantoms, tmp_path):
    path = fit(recipe(Stage(steps=2, **EASY), optimizer="adamw"), phantoms, tmp_path, device="cpu")
    content = checkpoint.load(path)
    content["optimizer"] = {"muon": {}, "adamw": {}}
    checkpoint.save(path, content)
    settings = recipe(Stage(steps=3, **EASY), optimizer="adamw")
    assert checkpoint.load(fit(settings, phantoms, tmp_path, device="cpu"))["step"] == 3


def test_snapshots_of_the_weights_stay(phantoms, tmp_path):
    last = fit(recipe(Stage(steps=5, **EASY), ema=0.9), phantoms, tmp_path, device="cpu", keep_every=2)
    assert sorted(path.name for path in tmp_path.glob("weights-*.pt")) == ["weights-000002.pt", "weights-000004.pt"]
    early, late = checkpoint.load(tmp_path / "weights-000002.pt"), checkpoint.load(last)
    assert early["step"] == 2 and late["step"] == 5
    assert any(not torch.equal(value, late["ema"][name].half()) for name, value in early["state"].items())


def test_training_goes_on_in_its_own_folder(phantoms, tmp_path):
    settings = recipe(Stage(steps=4, **EASY))
    fit(settings, phantoms, tmp_path, max_minutes=0, device="cpu")
    assert checkpoint.load(fit(settings, phantoms, tmp_path, device="cpu"))["step"] == 4


def test_trunk_then_whole_then_still_statistics(phantoms, tmp_path):
    trunk = Stage(steps=2, trunk_only=True, **{**EASY, "crop": 8, "voxel_size": 8.0})
    whole = Stage(steps=2, coarse_weight=0.3, **EASY)
    still = Stage(steps=2, frozen_norm=True, **EASY)
    first = checkpoint.load(fit(recipe(trunk), phantoms, tmp_path / "a", device="cpu"))["network"]
    second = checkpoint.load(fit(recipe(trunk, whole), phantoms, tmp_path / "b", device="cpu"))["network"]
    third = checkpoint.load(fit(recipe(trunk, whole, still), phantoms, tmp_path / "c", device="cpu"))["network"]
    torch.manual_seed(5)
    untrained = FastUNet(widths=(4, 8), fine_width=4).state_dict()
    assert torch.equal(first["fine.conv.weight"], untrained["fine.conv.weight"])
    assert not torch.equal(first["encoder.0.0.conv.weight"], untrained["encoder.0.0.conv.weight"])
    assert not torch.equal(second["fine.conv.weight"], first["fine.conv.weight"])
    assert not torch.equal(third["fine.conv.weight"], second["fine.conv.weight"])
    # Re-estimated once when the stage began, then still: as many batches as the estimate took, not one more.
    assert int(third["fine.norm.num_batches_tracked"]) == 32
    # A second still stage keeps the statistics that the first was trained with.
    longer = recipe(trunk, whole, still, still)
    fourth = checkpoint.load(fit(longer, phantoms, tmp_path / "c", device="cpu"))["network"]
    assert torch.equal(fourth["fine.norm.running_var"], third["fine.norm.running_var"])
    assert not torch.equal(fourth["fine.conv.weight"], third["fine.conv.weight"])


def test_an_interruption_does_not_renew_still_statistics(phantoms, tmp_path):
    first = checkpoint.load(fit(recipe(Stage(steps=2, frozen_norm=True, **EASY)), phantoms, tmp_path, device="cpu"))
    longer = recipe(Stage(steps=4, frozen_norm=True, **EASY))
    second = checkpoint.load(fit(longer, phantoms, tmp_path, device="cpu"))
    assert second["step"] == 4
    assert torch.equal(first["network"]["fine.norm.running_var"], second["network"]["fine.norm.running_var"])


def test_an_exploding_loss_stops_with_advice(phantoms, tmp_path):
    stage = Stage(steps=60, **{**EASY, "rate": 1e30})
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        fit(recipe(stage), phantoms, tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": 18}, "crop 18 is no multiple of 4"),
        ({"crop": 17, "trunk_only": True}, "crop 17 is no multiple of 2"),
        ({"generator": {"anatomy": {"output": {2: 2}}}}, "33 channels .* outputs 2 labels"),
        ({"generator": {"flip": {"chance": 1}}}, "unknown setting chance"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_training(phantoms, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        fit(recipe(Stage(steps=1), Stage(steps=1, **{**EASY, **change})), phantoms, tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("background", [True, False])
def test_the_dice_of_a_stage_counts_background_or_not(phantoms, tmp_path, monkeypatch, background):
    seen = []

    def spy(logits, target, **options):
        seen.append(dice_cross_entropy_loss(logits, target, **options))
        assert seen[-1] == dice_cross_entropy_loss(logits, target, background=background)
        assert seen[-1] != dice_cross_entropy_loss(logits, target, background=not background)
        return seen[-1]

    monkeypatch.setitem(LOSSES, "dice_ce", spy)
    stage = Stage(steps=1, dice_background=background, coarse_weight=0.5, **EASY)
    fit(recipe(stage), phantoms, tmp_path, device="cpu")
    assert len(seen) == 2  # fine and coarse


def test_held_out_maps_and_those_beyond_the_number_are_not_trained_on(phantoms):
    assert training_names(recipe(Stage(steps=1)), phantoms) == ["phantom_01", "phantom_02", "phantom_03"]
    settings = recipe(Stage(steps=1), held_out=["phantom_01"], n_maps=1)
    assert training_names(settings, phantoms) == ["phantom_02"]


def test_bfloat16_is_used_only_where_the_processor_has_it(monkeypatch):
    for capabilities, expected in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False)
        assert has_bfloat16(torch.device("cpu")) is expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # torch 2.4 has no such question
    assert not has_bfloat16(torch.device("cpu"))
    assert has_bfloat16(torch.device("cuda")) and not has_bfloat16(torch.device("mps"))


@pytest.mark.parametrize("trunk_only", [False, True])
@pytest.mark.parametrize("deepest", [1, 2, 3])
def test_gradients_of_the_smallest_feature_maps_are_those_of_float32(deepest, trunk_only):
    """oneDNN leaves those of 2 x 2 x 2 in bfloat16 to chance; read after memory was filled with NaN."""
    torch.manual_seed(0)
    network = FastUNet(n_labels=3, widths=(8, 16, 32, 64), fine_width=8)
    stage = Stage(steps=1, crop=deepest * network.multiple // (2 if trunk_only else 1), trunk_only=trunk_only)
    assert deepest_edge(network, stage) == deepest
    network.eval()
    image = torch.randn(1, 1, *[stage.crop] * 3)
    kernel = next(weight for weight in network.parameters() if weight.shape[:2] == (64, 64))
    gradients = []
    for context in (nullcontext(), precision(torch.device("cpu"), deepest)):
        with context:
            output = network.forward_coarse(image) if trunk_only else network(image)
        scraps = [torch.full((64 * 64 * size,), math.nan) for size in (9, 27, 54)]
        del scraps
        gradients += torch.autograd.grad(output.float().square().mean(), kernel)
    assert (gradients[1] - gradients[0]).norm() < 0.2 * gradients[0].norm()


def test_an_absent_device_is_named(phantoms, tmp_path):
    with pytest.raises(DeviceError, match="'cuda:77'"):
        fit(recipe(Stage(steps=1, **EASY)), phantoms, tmp_path, device="cuda:77")


def test_the_card_of_another_anatomy_names_its_own_labels():
    anatomy = {"output": {1: 1, 2: 2, 3: 3}, "pairs": {1: 2}}
    settings = recipe(
        Stage(steps=1), generator={"anatomy": anatomy}, names={1: "Left-Lung", 2: "Right-Lung", 3: "Heart"}
    )
    labels = card_labels(settings)
    assert [label.name for label in labels] == ["Background", "Left-Lung", "Right-Lung", "Heart"]
    assert [label.partner for label in labels] == [0, 2, 1, 3]
    assert [label.side for label in labels] == ["none", "left", "right", "none"]
    assert len({label.topology for label in labels}) == 4
    assert labels[1].color == labels[2].color != labels[3].color
    assert card_labels(recipe(Stage(steps=1))) == BRAIN


@pytest.mark.parametrize("step", [1, 50, 89, 100])
def test_colours_of_made_up_labels_differ_whatever_their_ids(step):
    ids = [step * count for count in range(1, 8)]
    anatomy = {"output": dict(zip(ids, ids)), "pairs": {}}
    settings = recipe(Stage(steps=1), generator={"anatomy": anatomy})
    colors = np.array([label.color for label in card_labels(settings)[1:]], float)
    apart = np.linalg.norm(colors[:, None] - colors, axis=-1)[np.triu_indices(len(colors), 1)]
    assert apart.min() > 40


def test_average_of_weights_follows_its_definition():
    network = torch.nn.Linear(2, 2, bias=False)
    average = WeightAverage(network, decay=0.5)
    start = average.state["weight"].clone()
    with torch.no_grad():
        network.weight.add_(1.0)
    average.update(network)
    torch.testing.assert_close(average.state["weight"], start + 1 - 2 / 21)


def test_norm_statistics_become_the_mean_over_samples():
    network = torch.nn.Sequential(torch.nn.BatchNorm3d(1))
    images = [torch.full((1, 1, 2, 2, 2), value) for value in (1.0, 2.0, 6.0)]
    estimate_norm_statistics(network, network, images)
    (layer,) = batch_norms(network)
    assert layer.running_mean.item() == pytest.approx(3.0)
    assert layer.momentum == 0.1


def test_a_foreign_file_is_no_checkpoint(tmp_path):
    torch.save({"weights": 1}, tmp_path / "foreign.pt")
    with pytest.raises(ValueError, match="is no checkpoint"):
        checkpoint.load(tmp_path / "foreign.pt")


def test_exported_weights_are_the_averaged_ones_and_training_goes_on_from_them(phantoms, tmp_path):
    settings = recipe(Stage(steps=3, **EASY), ema=0.9)
    last = fit(settings, phantoms, tmp_path / "run", device="cpu")
    path = export(settings, last, tmp_path / "tiny.pt", maps=phantoms, norm_samples=2, facts={"note": "test"})
    model = load_model(path=path)
    assert model.card["steps"] == 3
    assert model.card["label_maps"]["source"] == "phantoms"
    assert model.card["note"] == "test"
    averaged = checkpoint.load(last)["ema"]["coarse_head.weight"]
    torch.testing.assert_close(model.network.coarse_head.weight, averaged, rtol=1e-3, atol=1e-4)
    onward = fit(settings, phantoms, tmp_path / "onward", resume=path, device="cpu")
    assert checkpoint.load(onward)["step"] == 3


def test_the_command_line_prepares_generates_trains_and_exports(tmp_path, capsys):
    settings = tmp_path / "recipe.yaml"
    settings.write_text(WRITTEN)
    maps = ["--maps", str(tmp_path / "maps.npz")]
    assert main(["phantom", str(tmp_path / "heads"), "-n", "2", "--voxel-size", "4"]) == 0
    assert main(["prepare", str(tmp_path / "heads"), "-o", maps[1]]) == 0
    assert main(["generate", str(settings), *maps, "-o", str(tmp_path / "samples"), "-n", "2", "--volumes", "1"]) == 0
    assert main(["fit", str(settings), *maps, "-o", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert main(["export", str(settings), str(tmp_path / "run/last.pt"), *maps, "-o", str(tmp_path / "tiny.pt")]) == 0
    assert (tmp_path / "samples/sheet.png").exists()
    assert (tmp_path / "samples/sample-000_dseg.nii.gz").exists()
    assert load_model(path=tmp_path / "tiny.pt").card["steps"] == 2
    capsys.readouterr()
    assert main(["fit", str(settings), "--maps", "nowhere.npz", "-o", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "nowhere.npz" in error and "Traceback" not in error


def test_training_needs_nothing_but_torch_and_numpy(phantoms, tmp_path):
    """A borrowed GPU machine has no nibabel or SimpleITK, maybe no PyYAML, tqdm or matplotlib."""
    (tmp_path / "recipe.json").write_text(
        '{"name": "tiny", "network": {"architecture": "fast", "widths": [4, 8], "fine_width": 4},'
        ' "stages": [{"steps": 2, "crop": 16, "voxel_size": 4.0, "loss": "dice_ce"}]}'
    )
    phantoms.save(tmp_path / "maps.npz")
    script = (
        "import sys\n"
        "for name in ('nibabel', 'SimpleITK', 'scipy', 'pandas', 'matplotlib', 'yaml', 'tqdm'):\n"
        "    sys.modules[name] = None\n"
        "from synthseg_training.cli import main\n"
        "sys.exit(main(['fit', 'recipe.json', '--maps', 'maps.npz', '-o', 'run', '--device', 'cpu']))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=_environment(), capture_output=True, encoding="utf-8"
    )
    assert result.returncode == 0, result.stderr
    assert checkpoint.load(tmp_path / "run" / "last.pt")["step"] == 2
    assert "step 2 of 2" in result.stdout


def test_processes_that_resume_draw_numbers_of_their_own():
    state = torch.Generator().manual_seed(5).get_state()
    generators = [torch.Generator() for _ in range(3)]
    for rank, rng in enumerate(generators):
        resume_random(rng, state, rank)
    drawn = [torch.rand(4, generator=rng) for rng in generators]
    assert torch.equal(drawn[0], torch.rand(4, generator=torch.Generator().manual_seed(5)))
    assert not any(torch.equal(drawn[a], drawn[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_two_processes_under_torchrun_train_one_network(phantoms, tmp_path):
    (tmp_path / "recipe.yaml").write_text(WRITTEN)
    phantoms.save(tmp_path / "maps.npz")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [
        "-m",
        "synthseg_training.cli",
        "fit",
        "recipe.yaml",
        "--maps",
        "maps.npz",
        "-o",
        "run",
        "--device",
        "cpu",
    ]
    result = subprocess.run(command, cwd=tmp_path, env=_environment(), capture_output=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    together = checkpoint.load(tmp_path / "run" / "last.pt")
    assert together["step"] == 2
    alone = fit(
        recipe(Stage(steps=2, crop=16, voxel_size=4.0, loss="dice_ce"), seed=0),
        phantoms,
        tmp_path / "one",
        device="cpu",
    )
    name = "coarse_head.weight"
    assert not torch.equal(together["network"][name], checkpoint.load(alone)["network"][name])


def _environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
