"""The contrast of a scan, and which network segments it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import Threshold, random_network

from synthseg_slicer import contrast as contrasts
from synthseg_slicer.contrast import ANY, T1, contrast, expert_for, tissue_medians
from synthseg_slicer.errors import OptionError
from synthseg_slicer.labels import BRAIN_IDS
from synthseg_slicer.pipeline import segment

WHITE, GREY, FLUID = 0.8, 0.5, 0.2


@pytest.mark.parametrize(
    ("white", "grey", "fluid", "family"),
    [
        (0.8, 0.5, 0.2, T1),
        (0.3, 0.5, 0.9, ANY),  # T2
        (0.45, 0.55, 0.1, ANY),  # FLAIR
        (0.5, 0.6, 0.8, ANY),  # PD
        (0.6, 0.57, 0.2, ANY),  # hardly any difference between grey and white matter
        (0.24, 0.21, 0.18, ANY),  # hardly any contrast at all
    ],
)
def test_only_fluid_grey_white_from_dark_to_bright_is_t1(white, grey, fluid, family):
    assert contrast({"white matter": white, "grey matter": grey, "fluid": fluid}) == family


def test_a_missing_tissue_leaves_the_contrast_open():
    assert contrast({"white matter": 0.8, "grey matter": 0.5}) == ANY


@pytest.fixture
def tissues(random_model, monkeypatch):
    """A model whose half-resolution part labels by intensity, and an image with three tissues in slabs."""
    network = random_network()
    channel = {tissue: BRAIN_IDS.index(ids[0]) for tissue, ids in contrasts.TISSUES.items()}

    class Coarse(torch.nn.Module):
        def forward(self, blocks):
            mean, logits = blocks.mean(1), torch.zeros(1, len(BRAIN_IDS), *blocks.shape[2:])
            for tissue, value in zip(contrasts.TISSUES, (WHITE, GREY, FLUID)):
                logits[:, channel[tissue]] = 1 - (mean - value).abs() * 10
            return logits

    monkeypatch.setattr(network, "trunk", lambda blocks: blocks)
    network.coarse_head = Coarse()
    image = np.zeros((42, 40, 40), np.float32)  # 42 is no multiple of the network's
    for value, slab in zip((WHITE, GREY, FLUID), (slice(6, 16), slice(16, 26), slice(26, 36))):
        image[slab] = value
    return replace(random_model, network=network), image


def test_medians_are_those_of_the_tissues(tissues):
    model, image = tissues
    medians = tissue_medians(model, image)
    assert medians == pytest.approx({"white matter": WHITE, "grey matter": GREY, "fluid": FLUID}, abs=1e-6)


def test_a_tissue_of_a_few_voxels_has_no_median(tissues):
    model, image = tissues
    image[6:16, 6:] = 0
    assert set(tissue_medians(model, image)) == {"grey matter", "fluid"}


def test_a_t1_scan_goes_to_its_expert_and_others_do_not(tissues):
    model, image = tissues
    expert = replace(model, sha256="expert")
    general = replace(model, experts={T1: expert})
    assert expert_for(general, image, is_ct=False) == (expert, T1)
    assert expert_for(general, image, is_ct=True) == (general, ANY)
    assert expert_for(general, np.where(image == np.float32(FLUID), 0, image), is_ct=False) == (general, ANY)
    assert expert_for(model, image, is_ct=False) == (model, ANY)


def test_the_general_network_goes_on_where_memory_does_not_suffice(tissues, monkeypatch):
    model, image = tissues

    def fail(*args):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(contrasts, "tissue_medians", fail)
    general = replace(model, experts={T1: replace(model, sha256="expert")})
    assert expert_for(general, image, is_ct=False) == (general, ANY)


def test_segment_uses_the_expert_and_records_it(threshold_model, random_model, scan_file, monkeypatch):
    expert = replace(threshold_model, sha256="expert")
    general = replace(random_model, sha256="general", experts={T1: expert})
    monkeypatch.setattr(contrasts, "tissue_medians", lambda *args: dict(zip(contrasts.TISSUES, (WHITE, GREY, FLUID))))
    result = segment(scan_file, model=general)
    assert result.provenance["weights"]["sha256"] == "expert"
    assert result.provenance["options"]["contrast"] == T1
    assert set(np.unique(result.labels)) == {0, 16}  # what the expert finds
    assert segment(scan_file, model=general, contrast="any").provenance["weights"]["sha256"] == "general"


def test_an_unknown_contrast_is_refused(threshold_model, scan_file):
    with pytest.raises(OptionError, match="choose auto or any"):
        segment(scan_file, model=threshold_model, contrast="t3")


def test_a_network_without_half_resolution_part_has_no_expert_to_ask(threshold_model, tissues):
    model = replace(threshold_model, experts={T1: threshold_model})
    assert isinstance(model.network, Threshold)
    assert expert_for(model, tissues[1], is_ct=False) == (model, ANY)
