"""Losses against their textbook definitions, values and gradients."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from synthseg_training import losses
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


def one_hot_dice(logits, target, present_only, background=True):
    posteriors = logits.softmax(1)
    truth = F.one_hot(target, N_LABELS).movedim(-1, 1).float()
    axes = (0, 2, 3, 4)
    dice = (2 * (posteriors * truth).sum(axes) + 1) / (posteriors.square().sum(axes) + truth.sum(axes) + 1)
    chosen = truth.sum(axes) > 0 if present_only else torch.ones(N_LABELS, dtype=torch.bool)
    chosen[0] &= background
    return 1 - dice[chosen].mean()


@pytest.mark.parametrize("short", [0, losses.SHORT_ROW], ids=["rows", "columns"])
@pytest.mark.parametrize(
    ("fused", "plain"),
    [
        (soft_dice_loss, lambda z, t: one_hot_dice(z, t, False)),
        (lambda z, t: soft_dice_loss(z, t, present_only=True), lambda z, t: one_hot_dice(z, t, True)),
        (dice_cross_entropy_loss, lambda z, t: one_hot_dice(z, t, True) + F.cross_entropy(z, t)),
        (partial(soft_dice_loss, background=False), lambda z, t: one_hot_dice(z, t, False, False)),
        (
            partial(dice_cross_entropy_loss, background=False),
            lambda z, t: one_hot_dice(z, t, True, False) + F.cross_entropy(z, t),
        ),
    ],
)
def test_fused_loss_equals_the_one_hot_formula_in_value_and_gradient(monkeypatch, logits, target, fused, plain, short):
    monkeypatch.setattr(losses, "SHORT_ROW", short)
    (expected,) = torch.autograd.grad(3 * plain(logits, target), logits)
    value = fused(logits, target)
    (gradient,) = torch.autograd.grad(3 * value, logits)
    torch.testing.assert_close(value, plain(logits, target))
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_without_background_the_dice_of_two_classes_is_the_lesions_alone():
    torch.manual_seed(2)
    logits, target = torch.randn(1, 2, 6, 6, 6), torch.zeros(1, 6, 6, 6, dtype=torch.long)
    target[:, 2:4] = 1
    lesion, truth = logits.softmax(1)[:, 1], target.float()
    dice = (2 * (lesion * truth).sum() + 1) / (lesion.square().sum() + truth.sum() + 1)
    loss = dice_cross_entropy_loss(logits, target, background=False) - F.cross_entropy(logits, target)
    torch.testing.assert_close(loss, 1 - dice)


def test_a_target_of_background_alone_has_cross_entropy_only_without_background(logits):
    healthy = torch.zeros(2, 4, 5, 6, dtype=torch.long)
    (expected,) = torch.autograd.grad(F.cross_entropy(logits, healthy), logits)
    value = dice_cross_entropy_loss(logits, healthy, background=False)
    (gradient,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(value, F.cross_entropy(logits, healthy))
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
    assert dice_cross_entropy_loss(logits, healthy) > value + 0.1  # with background its Dice counts


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


@pytest.mark.parametrize("background", [True, False])
def test_two_class_targets_reach_healthy_logits_in_proportion_to_their_posteriors(background):
    """So a step favours the likelier class; which one is true they do not say."""
    torch.manual_seed(3)
    logits, target = torch.randn(1, 4, 3, 3, 3).requires_grad_(), torch.full((1, 3, 3, 3), 255)
    target[:, :1] = 2
    merged, two = merge_healthy(logits, target, 2)
    dice_cross_entropy_loss(merged, two, background=background).backward()
    healthy = [0, 1, 3]
    posteriors = logits.detach().softmax(1)[:, healthy]
    gradient = logits.grad[:, healthy]
    assert (gradient.sum(1).abs() > 1e-4).all()
    torch.testing.assert_close(
        gradient / gradient.sum(1, keepdim=True), posteriors / posteriors.sum(1, keepdim=True), rtol=1e-4, atol=1e-5
    )
    likeliest = posteriors.argmax(1, keepdim=True)
    assert (gradient.abs().argmax(1, keepdim=True) == likeliest).all()
