"""From polygons to pixels, by COCO's own rule (pycocotools)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

SMALLEST_SIDE = 0.1
"""Boxes count as at least this many pixels wide and high."""


def polygons_to_bitmask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Pixels covered by any of the polygons.

    Args:
        polygons: flat arrays x0, y0, x1, y1, ... of at least three points, pixels; possibly none.

    Returns:
        (height, width) bool.
    """
    if len(polygons) == 0:
        return np.zeros((height, width), dtype=bool)
    return coco_mask.decode(_runs_of(polygons, height, width)).view(bool)


def draw_polygons(mask: np.ndarray, polygons: Sequence[np.ndarray]) -> None:
    """Set the pixels covered by any of the polygons, in place.

    Args:
        mask: (height, width) bool.
        polygons: as of `polygons_to_bitmask`.
    """
    if len(polygons) == 0:
        return
    runs = _runs_of(polygons, *mask.shape)
    # pycocotools' pixels lie column by column; to turn the object's part alone takes a tenth of the time.
    x0, y0, width, height = coco_mask.toBbox(runs).astype(np.int64).tolist()
    window = slice(y0, y0 + height), slice(x0, x0 + width)
    mask[window] |= coco_mask.decode(runs)[window].view(bool)


def _runs_of(polygons: Sequence[np.ndarray], height: int, width: int) -> dict[str, Any]:
    """RLE of what any of the polygons covers."""
    rings = [np.asarray(polygon, dtype=np.float64).ravel().tolist() for polygon in polygons]
    return coco_mask.merge(coco_mask.frPyObjects(rings, height, width))


def rasterize_polygons_within_box(
    polygons: Sequence[np.ndarray], box: np.ndarray | Sequence[float], mask_size: int
) -> Tensor:
    """The polygons' mask inside a box, seen at mask_size x mask_size cells.

    The polygons, not the pixels, are scaled to the grid, so that small objects lose nothing.

    Args:
        polygons: flat arrays x0, y0, x1, y1, ..., pixels of the image.
        box: (x0, y0, x1, y1) in the same pixels.

    Returns:
        (mask_size, mask_size) bool on the CPU.
    """
    # The scale is rounded to float32 as in Detectron2, so that edges at the middle of a cell fall to the same
    # side (88 of 6000 random targets differed in float64).
    corners = np.asarray(box, dtype=np.float32).reshape(2, 2)
    scale = np.float32(mask_size) / np.maximum(corners[1] - corners[0], np.float32(SMALLEST_SIDE))  # (x, y)
    moved = [((np.reshape(polygon, (-1, 2)) - corners[0]) * scale).ravel() for polygon in polygons]
    return torch.from_numpy(polygons_to_bitmask(moved, mask_size, mask_size))
