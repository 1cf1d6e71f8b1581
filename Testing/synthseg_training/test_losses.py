"""Losses against their textbook definitions, values and gradients."""

import pytest
import torch
from torch.nn import functional as F

from synthseg_training.losses import dice_cross_entropy_loss, logit_loss, merge_healthy, soft_dice_loss

N_LABELS = 5


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return torch.randn(2, N_LABELS, 4, 5, 6, dtype=torch.float32).requires_grad_()


@pytest.fixture
def target():
    torch.manual_seed(1)
    return torch.randint(0, N_LABELS - 1, (2, 4, 5, 6))  # the last label is absent


def one_hot_dice(logits, target, present_only):
    posteriors = logits.softmax(1)
    truth = F.one_hot(target, N_LABELS).movedim(-1, 1).float()
    axes = (0, 2, 3, 4)
    dice = (2 * (posteriors * truth).sum(axes) + 1) / (posteriors.square().sum(axes) + truth.sum(axes) + 1)
    return 1 - (dice[truth.sum(axes) > 0] if present_only else dice).mean()


@pytest.mark.parametrize(
    ("fused", "plain"),
    [
        (soft_dice_loss, lambda z, t: one_hot_dice(z, t, False)),
        (lambda z, t: soft_dice_loss(z, t, present_only=True), lambda z, t: one_hot_dice(z, t, True)),
        (dice_cross_entropy_loss, lambda z, t: one_hot_dice(z, t, True) + F.cross_entropy(z, t)),
    ],
)
def test_fused_loss_equals_the_one_hot_formula_in_value_and_gradient(logits, target, fused, plain):
    (expected,) = torch.autograd.grad(3 * plain(logits, target), logits)
    value = fused(logits, target)
    (gradient,) = torch.autograd.grad(3 * value, logits)
    torch.testing.assert_close(value, plain(logits, target))
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_perfect_prediction_has_no_dice_loss_and_a_wrong_one_nearly_all(target):
    perfect = 50.0 * F.one_hot(target, N_LABELS).movedim(-1, 1).float()
    assert soft_dice_loss(perfect, target) < 1e-5
    assert soft_dice_loss(perfect.roll(1, dims=1), target) > 0.7


def test_logit_loss_vanishes_at_its_target_and_weighs_labels_equally(target):
    ideal = 10.0 * F.one_hot(target, N_LABELS).movedim(-1, 1).float() - 5.0
    assert logit_loss(ideal, target) < 1e-4
    rare = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    rare[0, 0, 0, 0] = 1
    ideal = 10.0 * F.one_hot(rare, 2).movedim(-1, 1).float() - 5.0
    one_missed, many_missed = ideal.clone(), ideal.clone()
    one_missed[0, 1, 0, 0, 0] = -5.0
    many_missed[0, 0][rare[0] == 0] = -5.0
    torch.testing.assert_close(logit_loss(one_missed, rare), logit_loss(many_missed, rare))


def test_merged_healthy_classes_have_their_summed_posterior():
    torch.manual_seed(0)
    logits, target = torch.randn(1, 6, 4, 5, 3), torch.full((1, 4, 5, 3), 255)
    target[:, 1:3] = 4
    merged, two = merge_healthy(logits, target, 4)
    posteriors = logits.softmax(1)
    torch.testing.assert_close(merged.softmax(1)[:, 1], posteriors[:, 4])
    torch.testing.assert_close(merged.softmax(1)[:, 0], 1 - posteriors[:, 4])
    assert torch.equal(two, (target == 4).long())


def test_two_class_targets_leave_the_ratio_of_healthy_classes_alone():
    logits = torch.zeros(1, 3, 2, 2, 2)
    logits[:, 1] = 1.0
    logits.requires_grad_()
    merged, two = merge_healthy(logits, torch.full((1, 2, 2, 2), 255), 2)
    dice_cross_entropy_loss(merged, two).backward()
    gradient = logits.grad[0, :, 0, 0, 0]
    share = logits.detach().softmax(1)[0, :2, 0, 0, 0]
    torch.testing.assert_close(gradient[:2] / gradient[:2].sum(), share / share.sum())
