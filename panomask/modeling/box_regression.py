"""From boxes to regression targets and back, and the loss between them.

Shapes: N images, R boxes, K classes; boxes are xyxy pixels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from panomask.errors import InputError, nearest_names
from panomask.layers import (
    at_least_float32,
    cat,
    ciou_loss,
    diou_loss,
    giou_loss,
    iou_loss,
    smooth_l1_loss,
)
from panomask.structures import Boxes

SCALE_CLAMP = math.log(1000.0 / 16)
"""Largest dw, dh that is decoded: a 16-pixel box grows to 1000 pixels at most, and exp cannot overflow."""

IOU_LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "iou": iou_loss,
    "giou": giou_loss,
    "diou": diou_loss,
    "ciou": ciou_loss,
}


class BoxCoding(Protocol):
    """Pairs of boxes to deltas, and deltas to boxes."""

    def get_deltas(self, src_boxes: torch.Tensor, target_boxes: torch.Tensor) -> torch.Tensor: ...

    def apply_deltas(self, deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor: ...


class Box2BoxTransform:
    """Shift of the centre in box sizes and logarithm of the scale (R-CNN, arXiv:1311.2524, appendix C).

    Args:
        weights: factors of (dx, dy, dw, dh), which bring the targets to about unit variance.
        scale_clamp: largest dw, dh (after the weights are taken off) that is decoded.
    """

    def __init__(self, weights: Sequence[float], scale_clamp: float = SCALE_CLAMP):
        self.weights = tuple(weights)
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: torch.Tensor, target_boxes: torch.Tensor) -> torch.Tensor:
        """Deltas (R, 4) that `apply_deltas` turns, with `src_boxes` (R, 4), into `target_boxes` (R, 4)."""
        src_x, src_y, src_w, src_h = _centers_and_sizes(src_boxes)
        target_x, target_y, target_w, target_h = _centers_and_sizes(target_boxes)
        wx, wy, ww, wh = self.weights
        return torch.stack(
            [
                wx * (target_x - src_x) / src_w,
                wy * (target_y - src_y) / src_h,
                ww * torch.log(target_w / src_w),
                wh * torch.log(target_h / src_h),
            ],
            dim=1,
        )

    def apply_deltas(self, deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Boxes (R, K * 4) from deltas (R, K * 4), K for each of `boxes` (R, 4); in float32 or wider."""
        deltas = at_least_float32(deltas)
        x, y, w, h = _centers_and_sizes(boxes.to(deltas.dtype)[:, None])  # (R, 1) each
        wx, wy, ww, wh = self.weights
        dx, dy, dw, dh = deltas.unflatten(1, (-1, 4)).unbind(2)  # (R, K) each
        center_x = dx / wx * w + x
        center_y = dy / wy * h + y
        half_w = 0.5 * w * torch.exp((dw / ww).clamp(max=self.scale_clamp))
        half_h = 0.5 * h * torch.exp((dh / wh).clamp(max=self.scale_clamp))
        corners = [center_x - half_w, center_y - half_h, center_x + half_w, center_y + half_h]
        return torch.stack(corners, dim=2).reshape(deltas.shape)


class Box2BoxTransformLinear:
    """Distances from the source box's centre to the four sides of the target (FCOS, arXiv:1904.01355, eq. 1).

    Args:
        normalize_by_size: measure them in widths and heights of the source box, else in pixels.
    """

    def __init__(self, normalize_by_size: bool = True):
        self.normalize_by_size = normalize_by_size

    def get_deltas(self, src_boxes: torch.Tensor, target_boxes: torch.Tensor) -> torch.Tensor:
        """Distances (left, top, right, bottom) (R, 4), negative where the centre is outside of the target."""
        x, y, w, h = _centers_and_sizes(src_boxes)
        x0, y0, x1, y1 = target_boxes.unbind(-1)
        deltas = torch.stack([x - x0, y - y0, x1 - x, y1 - y], dim=1)
        return deltas / torch.stack([w, h, w, h], dim=1) if self.normalize_by_size else deltas

    def apply_deltas(self, deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Boxes (R, K * 4) from distances (R, K * 4), where negative ones count as 0, and boxes (R, 4).

        Computed in float32 or wider.
        """
        deltas = at_least_float32(deltas)
        x, y, w, h = _centers_and_sizes(boxes.to(deltas.dtype)[:, None])  # (R, 1) each
        left, top, right, bottom = torch.relu(deltas).unflatten(1, (-1, 4)).unbind(2)  # (R, K) each
        if self.normalize_by_size:
            left, top, right, bottom = left * w, top * h, right * w, bottom * h
        corners = [x - left, y - top, x + right, y + bottom]
        return torch.stack(corners, dim=2).reshape(deltas.shape)


def _centers_and_sizes(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    x0, y0, x1, y1 = boxes.unbind(-1)
    width, height = x1 - x0, y1 - y0
    return x0 + 0.5 * width, y0 + 0.5 * height, width, height


def _dense_box_regression_loss(
    anchors: Sequence[Boxes | torch.Tensor],
    box2box_transform: BoxCoding,
    pred_anchor_deltas: Sequence[torch.Tensor],
    gt_boxes: Sequence[torch.Tensor],
    fg_mask: torch.Tensor,
    box_reg_loss_type: str = "smooth_l1",
    smooth_l1_beta: float = 0.0,
) -> torch.Tensor:
    """Sum of the regression loss over the foreground.

    Every anchor takes part in tensor calls of fixed size, so that nothing waits for the device; those outside
    of the foreground are given the target that they are already (delta zero) and are left out of the sum.

    Args:
        anchors: per level (Ri, 4).
        box2box_transform: coding of the deltas.
        pred_anchor_deltas: per level (N, Ri, 4).
        gt_boxes: per image (R, 4), the box each anchor is matched to (anything where not foreground).
        fg_mask: (N, R) bool.
        box_reg_loss_type: "smooth_l1" between deltas; "iou", "giou", "diou" or "ciou" between boxes.
        smooth_l1_beta: where smooth L1 turns from square to linear; 0 for plain L1.

    Raises:
        InputError: an unknown `box_reg_loss_type`.
    """
    check_box_reg_loss_type(box_reg_loss_type, "box_reg_loss_type")
    fg = fg_mask.reshape(-1, 1)  # (N * R, 1)
    sources = cat([boxes.tensor if isinstance(boxes, Boxes) else boxes for boxes in anchors])
    sources = sources.expand(len(fg_mask), -1, -1).reshape(-1, sources.shape[-1])  # (N * R, 4)
    deltas = cat(list(pred_anchor_deltas), dim=1).reshape(-1, pred_anchor_deltas[0].shape[-1])
    deltas = torch.where(fg, at_least_float32(deltas), 0.0)
    targets = torch.where(fg, cat(list(gt_boxes)), sources)
    if box_reg_loss_type == "smooth_l1":
        target_deltas = box2box_transform.get_deltas(sources, targets)
        loss = smooth_l1_loss(deltas, target_deltas, beta=smooth_l1_beta, reduction="none")  # (N * R, 4)
        return torch.where(fg, loss, 0.0).sum()
    boxes = box2box_transform.apply_deltas(deltas, sources)
    loss = IOU_LOSSES[box_reg_loss_type](boxes, targets, reduction="none")  # (N * R,)
    return torch.where(fg[:, 0], loss, 0.0).sum()


def check_box_reg_loss_type(name: str, key: str) -> None:
    """InputError, naming the config `key`, unless `name` is a known loss."""
    known = ["smooth_l1", *IOU_LOSSES]
    if name not in known:
        near = nearest_names(name, known)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{key}: {name!r}: allowed are {known}{hint}")
