"""Segmentation losses that never build a one-hot target.

The sums over a label's voxels that Dice needs are scatter-adds of the posterior at the target's channel, and the
gradient of Dice and cross-entropy with respect to the logits has a closed form. One fused step keeps a single
``[voxels, labels]`` volume, the posteriors, and takes less than half the time of the usual chain of operations
(``Testing/benchmarks/training.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor


def soft_dice_loss(logits: Tensor, target: Tensor, *, present_only: bool = False) -> Tensor:
    """Soft Dice loss with squared denominators, eq. 27 of Billot et al. 2023, averaged over labels.

    Parameters
    ----------
    logits : Tensor
        ``[B, labels, X, Y, Z]``.
    target : Tensor
        Channel index of the true label, int64 ``[B, X, Y, Z]``.
    present_only : bool
        Average over the labels that occur in the target only. On small crops most labels are absent; without this they
        all add a constant 1 with a gradient that merely pushes their posteriors down.

    Returns
    -------
    Tensor
        Scalar in [0, 1].
    """
    return _DiceCrossEntropy.apply(_rows(logits), target.reshape(-1), 0.0, present_only)


def dice_cross_entropy_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over voxels plus the soft Dice loss over the labels present in the target.

    Shapes as for :func:`soft_dice_loss`. Cross-entropy gives every voxel a gradient from the first step, which shortens
    the long plateau (background everywhere) in which training by Dice alone begins.
    """
    return _DiceCrossEntropy.apply(_rows(logits), target.reshape(-1), 1.0, True)


def logit_loss(logits: Tensor, target: Tensor, *, margin: float = 5.0) -> Tensor:
    """Weighted squared distance of the logits to +/- ``margin``; the first epoch of the reference implementation.

    Shapes as for :func:`soft_dice_loss`. In each channel the voxels of its label and all other voxels weigh the same,
    so that small structures are not drowned by background; channels whose label is absent only learn to stay low.
    """
    rows, target = _rows(logits), target.reshape(-1)
    at_target = rows.gather(1, target[:, None])[:, 0]
    counts = torch.bincount(target, minlength=rows.shape[1])
    hit = _sum_by_label((at_target - margin) ** 2, target, counts) / counts.clamp_min(1)
    elsewhere = (rows + margin).square().sum(0) - _sum_by_label((at_target + margin) ** 2, target, counts)
    return (hit + elsewhere / (len(target) - counts).clamp_min(1)).mean()


def _rows(logits: Tensor) -> Tensor:
    """Return logits as ``[voxels, labels]``, a view when they are channels-last."""
    return logits.movedim(1, -1).reshape(-1, logits.shape[1]).float()


def _sum_by_label(values: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    return torch.zeros_like(counts, dtype=values.dtype).index_add(0, target, values)


class _DiceCrossEntropy(torch.autograd.Function):
    """``weight`` x mean cross-entropy + soft Dice loss, for rows of logits ``[V, K]`` and targets ``[V]``.

    With posteriors p, Dice d_k = (2 I_k + 1) / (S_k + 1), I_k the sum of p_k over the label's voxels and S_k the sum of
    p_k^2 plus the label's size (the 1 makes a label absent from both perfect instead of 0/0), and label weights w that
    sum to 1: dL/dp_k = 2 w_k d_k / (S_k + 1) p_k - 2 w_k / (S_k + 1) [target = k], sent through the softmax's Jacobian
    p_k (g_k - sum_j p_j g_j); cross-entropy adds weight (p_k - [target = k]) / V.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, target: Tensor, weight: float, present_only: bool) -> Tensor:
        posteriors = rows.softmax(1)
        at_target = posteriors.gather(1, target[:, None])[:, 0]
        counts = torch.bincount(target, minlength=rows.shape[1])
        # The norm reduces without writing p^2 anywhere.
        size = torch.linalg.vector_norm(posteriors, dim=0).square() + counts + 1
        dice = (2 * _sum_by_label(at_target, target, counts) + 1) / size
        chosen = counts > 0 if present_only else torch.ones_like(counts, dtype=torch.bool)
        label_weight = chosen / chosen.sum()
        ctx.save_for_backward(posteriors, target, 2 * label_weight * dice / size, 2 * label_weight / size)
        ctx.weight = weight
        cross_entropy = -at_target.clamp_min(1e-12).log().mean() if weight else 0.0
        return weight * cross_entropy + 1 - (label_weight * dice).sum()

    @staticmethod
    def backward(ctx, upstream: Tensor):
        posteriors, target, slope, pull = ctx.saved_tensors
        target = target[:, None]
        pull = pull[target]
        at_target = posteriors.gather(1, target)
        gradient = posteriors * slope
        expected = torch.einsum("vk,vk->v", gradient, posteriors)[:, None] - at_target * pull
        gradient.scatter_add_(1, target, -pull).sub_(expected).mul_(posteriors)
        if ctx.weight:
            share = ctx.weight / len(target)
            gradient.add_(posteriors, alpha=share).scatter_add_(1, target, torch.full_like(at_target, -share))
        return gradient.mul_(upstream), None, None, None


LOSSES = {"dice": soft_dice_loss, "dice_ce": dice_cross_entropy_loss, "logits": logit_loss}
"""Losses by the name that a recipe gives."""
