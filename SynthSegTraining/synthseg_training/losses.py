"""Segmentation losses that never build a one-hot target.

The sums over a label's voxels that Dice needs are scatter-adds of the posterior at the target's channel, and the
gradient of Dice and cross-entropy with respect to the logits has a closed form. No ``[voxels, labels]`` volume is kept
but the logits and their gradient (``Testing/benchmarks/training.py`` compares it with the usual chain of operations).
"""

from __future__ import annotations

import torch
from torch import Tensor

CACHED_ROWS = 1 << 16
"""Voxels whose posteriors are in work at a time on a CPU."""
SHORT_ROW = 16
"""Labels up to which a softmax on a CPU is faster along columns: 2 and 6 labels take a fifth, 33 twice the time."""


def soft_dice_loss(logits: Tensor, target: Tensor, *, present_only: bool = False, background: bool = True) -> Tensor:
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
    background : bool
        Whether channel 0 is one of the labels that are averaged over.

    Returns
    -------
    Tensor
        Scalar in [0, 1]; 0 where no label is left to average over.
    """
    return _DiceCrossEntropy.apply(_rows(logits), target.reshape(-1), 0.0, present_only, background)


def dice_cross_entropy_loss(logits: Tensor, target: Tensor, *, background: bool = True) -> Tensor:
    """Mean cross-entropy over voxels plus the soft Dice loss over the labels present in the target.

    Shapes and ``background`` as for :func:`soft_dice_loss`: without it, the Dice of two classes is the second one's
    alone, and a target of background has no Dice, cross-entropy only. Cross-entropy gives every voxel a gradient from
    the first step, which shortens the long plateau (background everywhere) in which training by Dice alone begins.
    """
    return _DiceCrossEntropy.apply(_rows(logits), target.reshape(-1), 1.0, True, background)


UNKNOWN_HEALTHY = 255
"""In a target: not lesion, the healthy class unknown. Real scans come with lesion masks only."""


def merge_healthy(logits: Tensor, target: Tensor, lesion: int) -> tuple[Tensor, Tensor]:
    """Turn logits of several classes, and a target that knows the lesion only, into a problem of two classes.

    The logit of "not lesion" is the logarithm of the summed exponentials of all other logits, so its posterior is the
    sum of theirs: a network of six classes learns from two-class targets. Nothing is said about which healthy class a
    voxel has; whatever the loss, its gradient reaches each healthy logit in proportion to the class's posterior.

    Parameters
    ----------
    logits : Tensor
        ``[B, classes, X, Y, Z]``.
    target : Tensor
        int64 ``[B, X, Y, Z]``: ``lesion`` or anything else.
    lesion : int
        Channel of the lesion.

    Returns
    -------
    logits : Tensor
        ``[B, 2, X, Y, Z]``: not lesion, lesion.
    target : Tensor
        int64 ``[B, X, Y, Z]``, 0 or 1.
    """
    others = torch.cat([logits[:, :lesion], logits[:, lesion + 1 :]], 1).float().logsumexp(1, keepdim=True)
    return torch.cat([others, logits[:, lesion : lesion + 1].float()], 1), (target == lesion).long()


def logit_loss(logits: Tensor, target: Tensor, *, margin: float = 5.0) -> Tensor:
    """Weighted squared distance of the logits to +/- ``margin``; the first epoch of the reference implementation.

    Shapes as for :func:`soft_dice_loss`. In each channel the voxels of its label and all other voxels weigh the same,
    so that small structures are not drowned by background; channels whose label is absent only learn to stay low.
    """
    rows, target = _rows(logits).float(), target.reshape(-1)
    at_target = rows.gather(1, target[:, None])[:, 0]
    counts = torch.bincount(target, minlength=rows.shape[1])
    hit = _sum_by_label((at_target - margin) ** 2, target, counts) / counts.clamp_min(1)
    elsewhere = (rows + margin).square().sum(0) - _sum_by_label((at_target + margin) ** 2, target, counts)
    return (hit + elsewhere / (len(target) - counts).clamp_min(1)).mean()


def _rows(logits: Tensor) -> Tensor:
    """Return logits as ``[voxels, labels]``, a view when they are channels-last."""
    return logits.movedim(1, -1).reshape(-1, logits.shape[1])


def _sum_by_label(values: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    return torch.zeros_like(counts, dtype=values.dtype).index_add(0, target, values)


class _DiceCrossEntropy(torch.autograd.Function):
    """``weight`` x mean cross-entropy + soft Dice loss, for rows of logits ``[V, K]`` and targets ``[V]``.

    With posteriors p, Dice d_k = (2 I_k + 1) / (S_k + 1), I_k the sum of p_k over the label's voxels and S_k the sum of
    p_k^2 plus the label's size (the 1 makes a label absent from both perfect instead of 0/0), and label weights w that
    sum to 1: dL/dp_k = 2 w_k d_k / (S_k + 1) p_k - 2 w_k / (S_k + 1) [target = k], sent through the softmax's Jacobian
    p_k (g_k - sum_j p_j g_j); cross-entropy adds weight (p_k - [target = k]) / V. Where no label is left to average
    over, all w are 0 and there is no Dice loss.

    Only the logits are kept. Posteriors are made twice, block by block, because a block stays in the processor's cache.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, target: Tensor, weight: float, present_only: bool, background: bool) -> Tensor:
        n_labels = rows.shape[1]
        counts = torch.bincount(target, minlength=n_labels)
        overlap, squares = rows.new_zeros(2, n_labels, dtype=torch.float32)
        cross_entropy = torch.zeros((), device=rows.device)
        for logits, true in _blocks(rows, target):
            posteriors = _posteriors(logits)
            at_target = posteriors.gather(1, true[:, None])[:, 0]
            overlap.index_add_(0, true, at_target)
            squares += torch.ones(len(true), device=rows.device) @ posteriors.square_()
            if weight:
                cross_entropy -= at_target.clamp_min_(1e-12).log_().sum()
        size = squares + counts + 1
        dice = (2 * overlap + 1) / size
        chosen = counts > 0 if present_only else torch.ones_like(counts, dtype=torch.bool)
        chosen[0] &= background
        label_weight = chosen / chosen.sum().clamp_min(1)
        ctx.save_for_backward(rows, target, 2 * label_weight * dice / size, 2 * label_weight / size)
        ctx.weight = weight
        return weight * cross_entropy / len(target) + chosen.any().float() - (label_weight * dice).sum()

    @staticmethod
    def backward(ctx, upstream: Tensor):
        rows, target, slope, pull = ctx.saved_tensors
        share = ctx.weight / len(target)
        gradient = torch.empty_like(rows)
        blocks = _blocks(rows, target)
        for (logits, true), part in zip(blocks, gradient.split(_block_rows(rows))):
            posteriors = _posteriors(logits)
            true = true[:, None]
            at_target = posteriors.gather(1, true)
            pulled = at_target * pull[true]
            expected = (posteriors.square() @ slope)[:, None] - pulled
            slopes = (posteriors * slope).sub_(expected - share).mul_(posteriors)
            part.copy_(slopes.scatter_add_(1, true, -share - pulled).mul_(upstream))
        return gradient, None, None, None, None


def _posteriors(rows: Tensor) -> Tensor:
    """Return the softmax of rows of logits in float32.

    On a CPU rows of few labels are turned into columns, since a softmax along short rows does not fill the processor's
    vectors: six labels take a fifth of the time so. Nor does ``softmax(dtype=float32)``.
    """
    if rows.device.type == "cpu" and rows.shape[1] <= SHORT_ROW:
        return rows.T.float().contiguous().softmax(0).T
    return rows.float().softmax(1)


def _blocks(rows: Tensor, target: Tensor):
    size = _block_rows(rows)
    return zip(rows.split(size), target.split(size))


def _block_rows(rows: Tensor) -> int:
    """Return the rows of a block: what a processor's cache holds; all of them on a GPU, which wants few kernels."""
    return CACHED_ROWS if rows.device.type == "cpu" else len(rows)


LOSSES = {"dice": soft_dice_loss, "dice_ce": dice_cross_entropy_loss, "logits": logit_loss}
"""Losses by the name that a recipe gives."""
DICE_LOSSES = ("dice", "dice_ce")
"""Those with a Dice, which may leave out the background."""
