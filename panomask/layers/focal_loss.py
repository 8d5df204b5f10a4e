"""Focal loss of many classes and few objects, in the memory of its gradient alone.

Shapes: R predictions, K classes.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_SIZES = {"cpu": 2**18}
"""Logits that are worked on at once, by device: 1 MiB on a CPU, which its cache holds (twice as fast)."""

CHUNK_SIZE = 2**22
"""The same elsewhere: 16 MiB, enough that starting the kernels costs nothing beside running them."""


def sigmoid_focal_loss(logits: Tensor, gt_classes: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss of one sigmoid a class (Lin et al. 2017, arXiv:1708.02002, equation 5), summed.

    -a (1 - p)^gamma log(p), where p is what the sigmoid gives to the truth: its value with a = alpha for the
    class of the object, 1 minus its value with a = 1 - alpha for every other class and for background.

    Kept for the backward pass are `logits` itself and `gt_classes`; neither pass makes one-hot targets or
    keeps an intermediate result of the size of `logits` but the gradient. Float16 and bfloat16 are computed
    in float32. It can be differentiated once.

    Args:
        logits: (R, K).
        gt_classes: (R,) int64: 0..K-1, K for background, -1 for a prediction in no loss.
        alpha: weight of the objects, from 0 to 1; negative: neither side is weighted.
        gamma: 0 for the cross-entropy; higher, and what is classified well counts less.

    Returns:
        A scalar in float32 or wider; zero, attached to the graph, for R = 0.
    """
    assert logits.dim() == 2, logits.shape
    assert gt_classes.shape == logits.shape[:1], (gt_classes.shape, logits.shape)
    return _FocalLoss.apply(logits, gt_classes, alpha, gamma)


class _FocalLoss(torch.autograd.Function):
    """All classes are taken for negatives first; then the one of each object is taken right.

    With z = x for a negative and z = -x for a positive, q = sigmoid(z) is the part of the score that is
    wrong, and the loss is a q^gamma softplus(z).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, gt_classes: Tensor, alpha: float, gamma: float) -> Tensor:
        ctx.save_for_backward(logits, gt_classes)
        ctx.alpha, ctx.gamma = alpha, gamma
        positive, negative = _weights(alpha)
        total = torch.zeros((), dtype=_wide(logits.dtype), device=logits.device)
        for rows in _chunks(logits):
            x, classes = logits[rows].to(total.dtype), gt_classes[rows]
            is_valid, is_object, idx = _truth(classes, x.shape[1])
            total += torch.where(is_valid, negative * _loss(x, gamma).sum(dim=1), 0.0).sum()
            of_class = x.gather(1, idx)[:, 0]  # (chunk,)
            correction = positive * _loss(-of_class, gamma) - negative * _loss(of_class, gamma)
            total += torch.where(is_object, correction, 0.0).sum()
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        logits, gt_classes = ctx.saved_tensors
        positive, negative = _weights(ctx.alpha)
        grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
        for rows in _chunks(logits):
            x, classes = logits[rows].to(_wide(logits.dtype)), gt_classes[rows]
            is_valid, is_object, idx = _truth(classes, x.shape[1])
            slope = negative * _slope(x, ctx.gamma)
            of_class = -positive * _slope(-x.gather(1, idx), ctx.gamma)  # (chunk, 1)
            slope.scatter_(1, idx, torch.where(is_object[:, None], of_class, slope.gather(1, idx)))
            grad[rows] = torch.where(is_valid[:, None], slope, 0.0) * grad_output
        return grad, None, None, None


def _loss(z: Tensor, gamma: float) -> Tensor:
    return z.sigmoid().pow_(gamma).mul_(F.softplus(z))


def _slope(z: Tensor, gamma: float) -> Tensor:
    """The derivative of `_loss`: q^gamma (gamma (1 - q) softplus(z) + q)."""
    q = z.sigmoid()
    inner = F.softplus(z).mul_(1 - q).mul_(gamma).add_(q)
    return q.pow_(gamma).mul_(inner)


def _weights(alpha: float) -> tuple[float, float]:
    """Of positives and of negatives."""
    return (alpha, 1 - alpha) if alpha >= 0 else (1.0, 1.0)


def _truth(classes: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """What counts (R,), what is an object (R,), and an index (R, 1) of its class, any where it is none."""
    is_valid = classes >= 0
    is_object = is_valid & (classes < num_classes)
    return is_valid, is_object, classes.clamp(0, num_classes - 1)[:, None]


def _chunks(logits: Tensor) -> Iterator[slice]:
    num_rows = max(CHUNK_SIZES.get(logits.device.type, CHUNK_SIZE) // max(logits.shape[1], 1), 1)
    return (slice(start, start + num_rows) for start in range(0, len(logits), num_rows))


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Half precision cannot hold the sum over a hundred thousand predictions."""
    return torch.promote_types(dtype, torch.float32)
