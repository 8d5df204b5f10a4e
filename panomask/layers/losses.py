"""Box regression losses. Each is zero, attached to the graph, for the mean over nothing."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import ops

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
        reduction: "none" gives (R,), "mean" and "sum" a scalar.
        eps: square pixels that are added to both areas of the ratio, so that loss and slope stay finite where
            nothing overlaps.
    """
    sides = torch.minimum(boxes1[:, 2:], boxes2[:, 2:]) - torch.maximum(boxes1[:, :2], boxes2[:, :2])
    shared = sides.clamp(min=0).prod(dim=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (boxes1, boxes2)]
    loss = torch.log(areas[0] + areas[1] - shared + eps) - torch.log(shared + eps)
    if reduction == "mean":
        return loss.mean() if loss.numel() > 0 else 0.0 * loss.sum()
    return loss.sum() if reduction == "sum" else loss


def giou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - generalized IoU of matched boxes (Rezatofighi et al., arXiv:1902.09630).

    Args:
        boxes1, boxes2: (R, 4) xyxy.
        reduction: "none" gives (R,), "mean" and "sum" a scalar.
    """
    return ops.generalized_box_iou_loss(boxes1, boxes2, reduction=reduction, eps=eps)


def diou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - IoU + squared distance of the centres over the squared diagonal of the hull (Zheng et al.,
    arXiv:1911.08287, equation 7). Arguments as for `giou_loss`.
    """
    return ops.distance_box_iou_loss(boxes1, boxes2, reduction=reduction, eps=eps)


def ciou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """`diou_loss` plus a term for differing aspect ratios (Zheng et al., arXiv:1911.08287, equation 10).

    A side below `SMALLEST_SIDE` counts as this, since a box without extent has no aspect ratio.
    """
    grown = [
        torch.cat([boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + SMALLEST_SIDE)], dim=1)
        for boxes in (boxes1, boxes2)
    ]
    return ops.complete_box_iou_loss(*grown, reduction=reduction, eps=eps)
