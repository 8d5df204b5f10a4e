"""Box regression losses. Each is zero, attached to the graph, for the mean over nothing."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from panomask.layers.wrappers import empty_input_loss_func_wrapper

SMALLEST_BETA = 1e-5
SMALLEST_SIDE = 1e-2
"""Pixels."""


def smooth_l1_loss(input: Tensor, target: Tensor, beta: float, reduction: str = "none") -> Tensor:
    """Smooth L1 (Girshick, Fast R-CNN, arXiv:1504.08083, equation 3), with d = |input - target|:
    0.5 d^2 / beta where d < beta, else d - 0.5 beta.

    `beta` below 1e-5 means plain L1. `reduction`: "none", "mean" or "sum".
    """
    beta = beta if beta >= SMALLEST_BETA else 0.0
    return empty_input_loss_func_wrapper(F.smooth_l1_loss)(input, target, reduction=reduction, beta=beta)


def iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1.0) -> Tensor:
    """-log(IoU) of matched boxes (UnitBox, Yu et al., arXiv:1608.01471, section 3.1).

    Args:
        boxes1, boxes2: (R, 4) xyxy.
        reduction: "none" gives (R,), "mean" and "sum" a scalar; ValueError for another.
        eps: square pixels that are added to both areas of the ratio, so that loss and slope stay finite where
            nothing overlaps.
    """
    shared, union = _shared_and_union(boxes1, boxes2)
    return _reduce(torch.log(union + eps) - torch.log(shared + eps), reduction)


def giou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - generalized IoU of matched boxes (Rezatofighi et al., arXiv:1902.09630).

    Args:
        boxes1, boxes2: (R, 4) xyxy.
        reduction: "none" gives (R,), "mean" and "sum" a scalar; ValueError for another.
        eps: keeps denominators above 0.
    """
    shared, union = _shared_and_union(boxes1, boxes2)
    hull = _hull(boxes1, boxes2).prod(dim=1)
    return _reduce(1 - shared / (union + eps) + (hull - union) / (hull + eps), reduction)


def diou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - IoU + squared distance of the centres over the squared diagonal of the hull (Zheng et al.,
    arXiv:1911.08287, equation 7). Arguments as for `giou_loss`.
    """
    shared, union = _shared_and_union(boxes1, boxes2)
    centers = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (boxes1, boxes2)]
    distance = (centers[0] - centers[1]).square().sum(dim=1)
    diagonal = _hull(boxes1, boxes2).square().sum(dim=1)
    return _reduce(1 - shared / (union + eps) + distance / (diagonal + eps), reduction)


def ciou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """`diou_loss` plus a term for differing aspect ratios (Zheng et al., arXiv:1911.08287, equation 10).

    A side below `SMALLEST_SIDE` counts as this in the ratio, which a box without extent does not have.
    """
    angles = []
    for boxes in (boxes1, boxes2):
        width, height = (boxes[:, 2:] - boxes[:, :2]).clamp(min=SMALLEST_SIDE).unbind(dim=1)
        angles.append(torch.atan(width / height))
    difference = 4 / math.pi**2 * (angles[1] - angles[0]).square()  # v of the paper
    with torch.no_grad():
        shared, union = _shared_and_union(boxes1, boxes2)
        weight = difference / (1 - shared / (union + eps) + difference + eps)  # its alpha
    return _reduce(diou_loss(boxes1, boxes2, eps=eps) + weight * difference, reduction)


def _shared_and_union(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Areas (R,). Unlike torchvision's by tensor calls of fixed size: nothing waits for the device."""
    low, high = torch.maximum(boxes1[:, :2], boxes2[:, :2]), torch.minimum(boxes1[:, 2:], boxes2[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (boxes1, boxes2)]
    return shared, areas[0] + areas[1] - shared


def _hull(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """(R, 2) width and height of the smallest box around both."""
    return torch.maximum(boxes1[:, 2:], boxes2[:, 2:]) - torch.minimum(boxes1[:, :2], boxes2[:, :2])


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction {reduction!r}: allowed are 'none', 'mean' and 'sum'")
    if reduction == "mean":
        return loss.sum() / max(loss.numel(), 1)
    return loss.sum() if reduction == "sum" else loss
