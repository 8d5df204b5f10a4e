"""Paste small masks, predicted inside boxes, into the whole image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SAMPLED_PIXELS = 2**26
"""Pixels sampled in one go: about 1 GB with the sampling grid in float32."""


def paste_masks_in_image(
    masks: Tensor, boxes: Tensor, image_shape: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Resize each mask to its box and place it in an image.

    A pixel's value is the mask sampled bilinearly at the pixel's centre; outside the mask everything is 0,
    which softens the outermost half cell.

    Args:
        masks: (N, Hm, Wm) or (N, 1, Hm, Wm), values 0 to 1.
        boxes: (N, 4) xyxy pixels of the image, a tensor or `Boxes`.
        image_shape: (height, width) of the image.
        threshold: pixels of at least this value belong to the mask. Negative: return the soft values as uint8
            0 to 255 instead.

    Returns:
        (N, height, width) bool, or uint8 where `threshold` is negative.
    """
    boxes = getattr(boxes, "tensor", boxes)
    masks = masks[:, 0] if masks.dim() == 4 else masks
    masks = masks.to(torch.promote_types(masks.dtype, torch.float32))
    assert masks.dim() == 3, masks.shape
    assert boxes.shape == (len(masks), 4), (masks.shape, boxes.shape)
    height, width = image_shape
    dtype = torch.bool if threshold >= 0 else torch.uint8
    out = torch.zeros(len(masks), height, width, dtype=dtype, device=masks.device)

    if masks.device.type == "cpu":
        regions = [(i, i + 1, *_pixel_region(box, height, width)) for i, box in enumerate(boxes.tolist())]
    else:  # asking for the boxes would wait for the device: sample every pixel for several masks at once
        step = max(1, MAX_SAMPLED_PIXELS // max(1, height * width))
        regions = [(i, min(i + step, len(masks)), 0, 0, width, height) for i in range(0, len(masks), step)]

    for first, last, x0, y0, x1, y1 in regions:
        rows = max(1, MAX_SAMPLED_PIXELS // max(1, x1 - x0))
        for top in range(y0, y1, rows):
            bottom = min(top + rows, y1)
            soft = _sample_masks(masks[first:last], boxes[first:last], (x0, top, x1, bottom))
            out[first:last, top:bottom, x0:x1] = (
                soft >= threshold if threshold >= 0 else (soft * 255).to(dtype)
            )
    return out


def _pixel_region(box: list[float], height: int, width: int) -> tuple[int, int, int, int]:
    """Whole pixels (x0, y0, x1, y1) that the box touches, one more on each side, inside the image."""
    if not (box[2] > box[0] and box[3] > box[1]):
        return 0, 0, 0, 0
    x0, y0 = math.floor(box[0]) - 1, math.floor(box[1]) - 1
    x1, y1 = math.ceil(box[2]) + 1, math.ceil(box[3]) + 1
    x0, x1 = (min(max(x, 0), width) for x in (x0, x1))
    y0, y1 = (min(max(y, 0), height) for y in (y0, y1))
    return (x0, y0, x1, y1) if x0 < x1 else (0, 0, 0, 0)


def _sample_masks(masks: Tensor, boxes: Tensor, region: tuple[int, int, int, int]) -> Tensor:
    """Masks (N, Hm, Wm) at the pixel centres of `region` (x0, y0, x1, y1) -> (N, y1 - y0, x1 - x0)."""
    left, top, right, bottom = region
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)  # (N, 1) each
    xs = torch.arange(left, right, device=masks.device, dtype=torch.float32) + 0.5
    ys = torch.arange(top, bottom, device=masks.device, dtype=torch.float32) + 0.5
    xs = (xs - x0) / (x1 - x0) * 2 - 1  # (N, W): -1 at the box's left edge, 1 at its right edge
    ys = (ys - y0) / (y1 - y0) * 2 - 1  # (N, H)
    size = (len(masks), ys.shape[1], xs.shape[1])
    grid = torch.stack([xs[:, None, :].expand(size), ys[:, :, None].expand(size)], dim=3)  # (N, H, W, 2)
    return F.grid_sample(masks[:, None], grid.to(masks.dtype), align_corners=False)[:, 0]


def pad_masks(masks: Tensor, padding: int) -> tuple[Tensor, float]:
    """Square masks (N, S, S) with `padding` zeros on each side, and the factor by which they grew."""
    size = masks.shape[-1]
    return F.pad(masks, (padding,) * 4), (size + 2 * padding) / size


def scale_boxes(boxes: Tensor, scale: float) -> Tensor:
    """Boxes (N, 4) about their centres, `scale` times as wide and high."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    half_sizes = (boxes[:, 2:] - boxes[:, :2]) / 2 * scale
    return torch.cat([centers - half_sizes, centers + half_sizes], dim=1)
