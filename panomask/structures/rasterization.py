"""From polygons to pixels, by COCO's own rule (pycocotools)."""

from collections.abc import Sequence

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
    rings = [np.asarray(polygon, dtype=np.float64).ravel().tolist() for polygon in polygons]
    runs = coco_mask.merge(coco_mask.frPyObjects(rings, height, width))
    return coco_mask.decode(runs).astype(bool)


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
    x0, y0, x1, y1 = (float(value) for value in box)
    scale_x = mask_size / max(x1 - x0, SMALLEST_SIDE)
    scale_y = mask_size / max(y1 - y0, SMALLEST_SIDE)
    moved = [((np.reshape(p, (-1, 2)) - (x0, y0)) * (scale_x, scale_y)).ravel() for p in polygons]
    return torch.from_numpy(polygons_to_bitmask(moved, mask_size, mask_size))
