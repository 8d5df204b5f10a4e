"""Non-maximum suppression per class."""

from torch import Tensor
from torchvision import ops


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
    return ops.batched_nms(boxes.float(), scores, idxs, iou_threshold)
