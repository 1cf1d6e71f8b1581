"""The two networks: shapes, sizes, folding, and what the streamed prediction relies on."""

from __future__ import annotations

import pytest
import torch
from synthetic import random_network

from synthseg_slicer.network import (
    build,
    depth_to_space,
    fold_batch_norm,
    parameter_count,
    space_to_depth,
    upsample,
)


@pytest.mark.parametrize("architecture, options", [("fast", {}), ("paper", {"features": 2, "levels": 3})])
def test_logits_have_one_channel_a_label_at_the_image_resolution(architecture, options):
    network = build(architecture, **options)
    side = network.multiple
    with torch.no_grad():
        assert network.eval()(torch.rand(1, 1, side, 2 * side, side)).shape == (1, 33, side, 2 * side, side)


def test_papers_network_has_the_papers_size():
    assert parameter_count(build("paper")) == pytest.approx(13.24e6, rel=1e-3)


def test_depth_to_space_inverts_space_to_depth():
    image = torch.rand(2, 1, 4, 6, 8)
    blocks = space_to_depth(image)
    assert torch.equal(blocks[0, 5, 1, 2, 3], image[0, 0, 2 * 1 + 1, 2 * 2 + 0, 2 * 3 + 1])
    assert torch.equal(depth_to_space(blocks), image)


def test_folding_batch_normalisation_changes_nothing_but_rounding():
    network = random_network()
    image = torch.rand(1, 1, 8, 8, 12)
    with torch.no_grad():
        before = network(image)
        after = fold_batch_norm(network)(image)
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in network.encoder.modules())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_fine_branch_looks_no_further_than_its_reach():
    network = random_network()
    image, trunk = torch.rand(1, 1, 16, 4, 4), torch.rand(1, 4, 8, 2, 2)
    changed = image.clone()
    changed[:, :, 8] += 1
    with torch.no_grad():
        moved = (network.fine_logits(image, trunk) != network.fine_logits(changed, trunk)).any(1)[0].any(-1).any(-1)
    assert moved.nonzero().flatten().tolist() == list(range(8 - network.reach, 8 + network.reach + 1))


def test_upsampling_keeps_a_linear_ramp_away_from_the_border():
    ramp = torch.arange(6.0)[None, None, :, None, None].expand(1, 1, 6, 2, 2)
    fine = upsample(ramp)[0, 0, 1:-1, 0, 0]
    torch.testing.assert_close(fine, (torch.arange(12.0) / 2 - 0.25)[1:-1])
