"""Non-maximum suppression per class."""

from torch import Tensor
from torchvision import ops

MAX_MOVED = 100_000
"""Coordinates up to which moving the categories apart is quicker than going through them one by one."""


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression within each category.

    Args:
        boxes: (R, 4) xyxy, any float type; computed in float32, in which half-precision corners do not
            overflow once they are moved apart by category.
        scores: (R,).
        idxs: (R,) category of each box; boxes of different categories never suppress each other.
        iou_threshold: a box goes when its IoU with a better one exceeds this.

    Returns:
        (K,) int64 indices of the boxes that stay, best score first.
    """
    assert boxes.shape[-1] == 4, boxes.shape
    boxes = boxes.float()
    if boxes.device.type == "cpu" or not 0 < boxes.numel() <= MAX_MOVED:
        return ops.batched_nms(boxes, scores, idxs, iou_threshold)
    # What torchvision does too, but for a constant that it copies to the device, waiting for it.
    offsets = idxs.to(boxes) * (boxes.max() + 1)
    return ops.nms(boxes + offsets[:, None], scores, iou_threshold)
