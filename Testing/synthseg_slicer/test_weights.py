"""Saving, checking and loading weights."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import pytest
import torch
from synthetic import TINY, random_network

from synthseg_slicer import cards, weights
from synthseg_slicer.calibration import FEATURES, Calibration
from synthseg_slicer.cards import bundled_models
from synthseg_slicer.errors import WeightsError
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.network import fold_batch_norm
from synthseg_slicer.weights import load_model, save_model


def test_saved_weights_give_the_same_network_back(tiny_weights):
    model = load_model(path=tiny_weights)
    image = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(model.network(image), fold_batch_norm(random_network())(image), rtol=0.02, atol=0.02)
    assert model.labels == BRAIN
    assert model.partners[17] == 53
    assert model.card["version"] == "0.0.1"
    assert not model.network.training


def test_weights_are_stored_in_half_precision_and_statistics_in_full(tiny_weights):
    state = torch.load(tiny_weights, weights_only=True)["state"]
    assert state["fine_image.weight"].dtype == torch.float16
    assert state["fine_norm.running_var"].dtype == torch.float32


def test_a_single_changed_byte_is_noticed(tiny_weights):
    content = bytearray(tiny_weights.read_bytes())
    content[len(content) // 2] ^= 1
    tiny_weights.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        load_model(path=tiny_weights)


def test_a_file_that_could_run_code_is_refused_even_with_a_matching_card(tiny_weights):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the weight file ran code",))

    torch.save({"state": Bomb()}, tiny_weights)
    card = json.loads(tiny_weights.with_suffix(".json").read_text())
    card["sha256"] = weights.hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    tiny_weights.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(WeightsError, match="do not fit their card"):
        load_model(path=tiny_weights)


def test_weights_of_another_architecture_are_refused(tiny_weights):
    card = json.loads(tiny_weights.with_suffix(".json").read_text())
    card["options"] = {"widths": [4, 16]}
    tiny_weights.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(WeightsError, match="do not fit their card"):
        load_model(path=tiny_weights)


def test_a_card_with_another_number_of_labels_is_refused(tiny_weights):
    card = json.loads(tiny_weights.with_suffix(".json").read_text())
    del card["labels"][5]
    tiny_weights.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(WeightsError, match="33 channels, but their card 32 labels"):
        load_model(path=tiny_weights)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text[:40], "damaged"),
        (lambda text: "[]", "lacks"),
        (lambda text: text.replace('"sha256"', '"sha1"'), "lacks sha256"),
        (lambda text: text.replace('"format": 1', '"format": 99'), "another version"),
    ],
)
def test_a_damaged_card_is_refused(tiny_weights, change, message):
    card = tiny_weights.with_suffix(".json")
    card.write_text(change(card.read_text()))
    with pytest.raises(WeightsError, match=message):
        load_model(path=tiny_weights)


def test_missing_weights_and_missing_cards_are_named(tiny_weights):
    with pytest.raises(WeightsError, match="No bundled weights for the task 'unicorn'"):
        load_model("unicorn")
    tiny_weights.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match=r"tiny\.json"):
        load_model(path=tiny_weights)


def test_bundled_models_are_found_in_the_resources_of_the_source_tree(tiny_weights, monkeypatch):
    assert cards.MODEL_FOLDERS[0].parts[-3:] == ("SynthSegSlicer", "Resources", "Models")
    monkeypatch.setattr(cards, "MODEL_FOLDERS", (tiny_weights.parent,))
    assert bundled_models() == {"tiny": tiny_weights}
    assert load_model("tiny").sha256 == json.loads(tiny_weights.with_suffix(".json").read_text())["sha256"]


def test_an_expert_comes_with_its_model_and_is_no_task_of_its_own(tiny_weights, monkeypatch):
    expert = save_model(
        tiny_weights.with_name("tiny-t1.pt"), random_network(), {"architecture": "fast", "options": TINY}
    )
    monkeypatch.setattr(cards, "MODEL_FOLDERS", (tiny_weights.parent,))
    assert bundled_models() == {"tiny": tiny_weights}
    assert load_model("tiny").experts["t1"].sha256 == load_model(path=expert).sha256


def test_a_calibration_holds_only_for_the_weights_it_was_made_with(tiny_weights):
    sha256, one = load_model(path=tiny_weights).sha256, [1.0]
    parts = [[sha256], [2], one, one, [[0.0] * 3], [[1.0] * 3], 0.0, 1.0, [0.0] * len(FEATURES), one, one, one * 2, {}]
    made = Calibration(*parts)
    made.save(tiny_weights.with_name("tiny-quality.json"))
    assert load_model(path=tiny_weights).calibration == made
    save_model(tiny_weights.with_name("tiny-t1.pt"), random_network(), {"architecture": "fast", "options": TINY})
    assert load_model(path=tiny_weights).calibration is None  # results of the expert were not looked at


def test_an_expert_for_other_labels_is_refused(tiny_weights):
    card = {"architecture": "fast", "options": TINY, "labels": [replace(label, color=(1, 2, 3)) for label in BRAIN]}
    save_model(tiny_weights.with_name("tiny-t1.pt"), random_network(), card)
    with pytest.raises(WeightsError, match="have other labels"):
        load_model(path=tiny_weights)


@pytest.mark.skipif("brain" not in bundled_models(), reason="no bundled weights yet")
def test_bundled_brain_model_is_undamaged_and_labels_the_brain():
    assert load_model("brain").labels == BRAIN


# ---- tampering ----


def with_card(path, **changes):
    """Change entries of the card; its checksum is made to fit the weights."""
    card = json.loads(path.with_suffix(".json").read_text())
    card |= {"sha256": weights.hashlib.sha256(path.read_bytes()).hexdigest()} | changes
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


def test_weights_that_unpack_to_more_than_they_weigh_are_refused(tiny_weights):
    with zipfile.ZipFile(tiny_weights) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tiny_weights, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content + bytes(10**7))
    with pytest.raises(WeightsError, match="the archive is compressed"):
        load_model(path=with_card(tiny_weights))


def test_weights_that_are_no_archive_are_refused_unread(tiny_weights):
    tiny_weights.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")  # a pickle as torch wrote it before 1.6
    with pytest.raises(WeightsError, match=r"do not fit their card.*not a zip file"):
        load_model(path=with_card(tiny_weights))


@pytest.mark.parametrize("options", [{"widths": [4, 10**6]}, {"n_labels": 10**9, **TINY}, {"widths": [10**12, 4]}])
def test_cards_of_absurd_networks_are_refused_before_memory_is_taken(tiny_weights, options):
    with pytest.raises(WeightsError, match=r"a network that .* bytes cannot fill"):
        load_model(path=with_card(tiny_weights, options=options))


@pytest.mark.parametrize(
    "changes", [{"voxel_size": 0}, {"voxel_size": 1e-3}, {"voxel_size": 99}, {"ct_window": [80, 0]}]
)
def test_cards_of_absurd_images_are_refused(tiny_weights, changes):
    with pytest.raises(WeightsError, match="the card speaks of voxels"):
        load_model(path=with_card(tiny_weights, **changes))


@pytest.mark.parametrize(
    "changes",
    [{"architecture": ["fast"]}, {"architecture": None}, {"options": [1, 2]}, {"options": {"widths": "many"}},
     {"labels": 7}, {"labels": [{}]}, {"voxel_size": "thin"}, {"ct_window": 3}],
)  # fmt: skip
def test_entries_of_a_wrong_kind_are_refused(tiny_weights, changes):
    with pytest.raises(WeightsError):
        load_model(path=with_card(tiny_weights, **changes))


@pytest.mark.parametrize(
    "text", ["[" * 10**5, '["format", "sha256", "architecture", "options", "labels"]', "7", "null"]
)
def test_a_card_that_is_no_table_is_refused(tiny_weights, text):
    tiny_weights.with_suffix(".json").write_text(text)
    with pytest.raises(WeightsError, match="damaged"):
        load_model(path=tiny_weights)


def test_larger_files_than_any_weights_are_not_opened(tiny_weights, monkeypatch):
    monkeypatch.setattr(weights, "MAX_WEIGHTS_BYTES", 1000)
    with pytest.raises(WeightsError, match="larger than"):
        load_model(path=tiny_weights)
    monkeypatch.setattr(cards, "MAX_CARD_BYTES", 1000)
    with pytest.raises(WeightsError, match="damaged: it is larger than"):
        load_model(path=tiny_weights)


def test_a_calibration_of_words_is_refused(tmp_path):
    one = [1.0]
    parts = [
        ["a"],
        [2],
        one,
        one,
        [[0.0] * 3],
        [[1.0] * 3],
        0.0,
        1.0,
        [0.0] * len(FEATURES),
        one,
        one,
        ["many", 1.0],
        {},
    ]
    Calibration(*parts).save(tmp_path / "a-quality.json")
    with pytest.raises(WeightsError, match=r"calibration .* is damaged"):
        Calibration.load(tmp_path / "a-quality.json")
