"""Paste small masks, predicted inside boxes, into the whole image."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from panomask.layers.wrappers import at_least_float32

MAX_SAMPLED_PIXELS = 2**26
"""Pixels sampled in one go: about 1 GB with the sampling grid in float32."""

MAX_RESIZED_PIXELS = 2**16
"""Pixels resized in one go on the CPU: 256 KB of float32, which stay in its cache."""


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
        (N, height, width) bool, or uint8 where `threshold` is negative. On the CPU what lies outside the
        boxes takes no time, and hardly any memory as long as nobody writes to it.
    """
    boxes = getattr(boxes, "tensor", boxes).detach()
    masks = (masks[:, 0] if masks.dim() == 4 else masks).detach()
    masks, boxes = (at_least_float32(x) for x in (masks, boxes))
    assert masks.dim() == 3, masks.shape
    assert boxes.shape == (len(masks), 4), (masks.shape, boxes.shape)
    if masks.device.type == "cpu" and not torch.jit.is_tracing():  # NumPy would end the graph
        return torch.from_numpy(_paste_inside_boxes(masks.numpy(), boxes.numpy(), image_shape, threshold))
    return _paste_everywhere(masks, boxes, image_shape, threshold)


@np.errstate(divide="ignore", invalid="ignore")  # boxes without area, which paste nothing
def _paste_inside_boxes(
    masks: np.ndarray, boxes: np.ndarray, image_shape: tuple[int, int], threshold: float
) -> np.ndarray:
    """The CPU's way: each mask resized in its box alone, along one axis after the other.

    In NumPy: its calls are short and stay on this thread. PyTorch's matrix products are no faster, and wait
    for a second thread hundreds of times an image: ten times as long where others kept the cores busy.
    """
    height, width = image_shape
    # NumPy's zeros come from the system as they are: a page of memory costs nothing before it is written to.
    out = np.zeros((len(masks), height, width), bool if threshold >= 0 else np.uint8)
    padded = np.pad(masks.transpose(0, 2, 1), ((0, 0), (1, 1), (1, 1)))  # 0 around the mask
    padded = np.ascontiguousarray(padded)  # (N, Wm + 2, Hm + 2)
    x_cells, x_shares = _neighbour_cells(boxes[:, 0::2], width, masks.shape[2], masks.dtype)
    y_cells, y_shares = _neighbour_cells(boxes[:, 1::2], height, masks.shape[1], masks.dtype)
    for i, box in enumerate(boxes.tolist()):
        left, top, right, bottom = _pixel_region(box, height, width)
        if left == right:
            continue
        columns = _blend_rows(padded[i], x_cells[i, left:right], x_shares[i, left:right])
        cells = np.ascontiguousarray(columns.T)  # (Hm + 2, right - left)
        step = max(1, MAX_RESIZED_PIXELS // (right - left))
        for first in range(top, bottom, step):
            last = min(first + step, bottom)
            soft = _blend_rows(cells, y_cells[i, first:last], y_shares[i, first:last])
            place = out[i, first:last, left:right]
            if threshold >= 0:
                np.greater_equal(soft, threshold, out=place)
            else:
                place[...] = soft * 255
    return out


def _neighbour_cells(
    sides: np.ndarray, pixels: int, cells: int, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Between which cells, one more added on each side, pixels lie, and how far on the way to the second.

    Computed in the order of `_sample_masks` and `F.grid_sample`, so that it rounds as they do.

    Args:
        sides: (N, 2) low and high side of the boxes along one axis.
        pixels: P, of the image.
        cells: of a mask, without those added.
        dtype: of the masks.

    Returns:
        The first cell's index, 0 to `cells`, and the share of the second, 0 to 1; (N, P) each.
    """
    low, high = sides[:, :1], sides[:, 1:]
    centers = np.arange(pixels, dtype=np.float32) + np.float32(0.5)
    at = ((centers - low) / (high - low) * 2 - 1).astype(dtype)  # -1 at the low side, 1 at the high
    at = np.nan_to_num((at + 1) * (cells / 2) - 0.5).clip(-1, cells)  # 0 at the first cell's centre
    first = np.minimum(np.floor(at).astype(np.int64) + 1, cells)
    return first, at - (first - 1)


def _blend_rows(table: np.ndarray, rows: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Between each of `rows` (P,) of the table (R, C) and the row after it, by shares (P,) -> (P, C)."""
    blended = (table[1:] - table[:-1])[rows]
    blended *= shares[:, None]
    blended += table[rows]
    return blended


def _paste_everywhere(masks: Tensor, boxes: Tensor, image_shape: tuple[int, int], threshold: float) -> Tensor:
    """The way of other devices. Asking for the boxes would wait for the device: every pixel is sampled."""
    height, width = image_shape
    dtype = torch.bool if threshold >= 0 else torch.uint8
    out = torch.zeros(len(masks), height, width, dtype=dtype, device=masks.device)
    step = max(1, MAX_SAMPLED_PIXELS // max(1, height * width))
    rows = max(1, MAX_SAMPLED_PIXELS // max(1, width))
    for first in range(0, len(masks), step):
        some = slice(first, first + step)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            soft = _sample_masks(masks[some], boxes[some], (0, top, width, bottom))
            out[some, top:bottom] = soft >= threshold if threshold >= 0 else (soft * 255).to(dtype)
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
