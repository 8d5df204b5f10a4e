"""One object's mask in whatever form it came."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_coding

__all__ = ["GenericMask", "masks_union"]


class GenericMask:
    """A mask as polygons and as pixels; the other form is made when asked for.

    Args:
        mask_or_polygons: COCO polygons (list of flat [x0, y0, x1, y1, ...]), COCO RLE (compressed or not), or
            pixels (H, W).
        height, width: of the image.
    """

    def __init__(self, mask_or_polygons: Any, height: int, width: int) -> None:
        self.height, self.width = height, width
        self._mask: np.ndarray | None = None
        self._polygons: list[np.ndarray] | None = None
        self._has_holes: bool | None = None
        if isinstance(mask_or_polygons, dict):
            self._mask = _decode(mask_or_polygons, height, width)
        elif isinstance(mask_or_polygons, (list, tuple)):
            self._polygons = [np.asarray(p, dtype=np.float64).reshape(-1) for p in mask_or_polygons]
            self._has_holes = False
        else:
            self._mask = np.asarray(mask_or_polygons).astype(np.uint8)
            assert self._mask.shape == (height, width), (self._mask.shape, height, width)

    @property
    def from_polygons(self) -> bool:
        """Whether the polygons are what was given (they are finer than pixels then)."""
        return self._has_holes is False and self._mask is None

    @property
    def mask(self) -> np.ndarray:
        """(H, W) uint8, 0 or 1."""
        if self._mask is None:
            return self.polygons_to_mask(self.polygons)
        return self._mask

    @property
    def polygons(self) -> list[np.ndarray]:
        """Flat [x0, y0, x1, y1, ...] of each outline, without holes."""
        if self._polygons is None:
            self._polygons, self._has_holes = self.mask_to_polygons(self.mask)
        return self._polygons

    @property
    def has_holes(self) -> bool:
        if self._has_holes is None:
            self._polygons, self._has_holes = self.mask_to_polygons(self.mask)
        return self._has_holes

    def mask_to_polygons(self, mask: np.ndarray) -> tuple[list[np.ndarray], bool]:
        """Outlines of `mask` (H, W) through the centres of its border pixels; whether it has holes."""
        pixels = np.ascontiguousarray(mask, dtype=np.uint8)
        contours, hierarchy = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        if hierarchy is None:  # nothing there
            return [], False
        parents = hierarchy.reshape(-1, 4)[:, 3]
        outer = [c for c, parent in zip(contours, parents, strict=True) if parent < 0]
        return [c.reshape(-1) + 0.5 for c in outer if len(c) >= 3], bool((parents >= 0).any())

    def polygons_to_mask(self, polygons: list[np.ndarray]) -> np.ndarray:
        """(H, W) uint8 of the union of polygons, by COCO's rule."""
        usable = [np.asarray(p).tolist() for p in polygons if len(p) >= 6]
        if not usable:
            return np.zeros((self.height, self.width), dtype=np.uint8)
        return mask_coding.decode(mask_coding.merge(mask_coding.frPyObjects(usable, self.height, self.width)))

    def area(self) -> int:
        """Number of pixels."""
        return int(self.mask.sum())

    def bbox(self) -> np.ndarray:
        """(4,) xyxy of the pixels; zeros for an empty mask."""
        cols, rows = np.flatnonzero(self.mask.any(axis=0)), np.flatnonzero(self.mask.any(axis=1))
        if len(cols) == 0:
            return np.zeros(4)
        return np.array([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1], dtype=np.float64)


def masks_union(masks: Sequence[GenericMask], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the pixels of any mask."""
    union = np.zeros(size, dtype=bool)
    for mask in masks:
        union |= mask.mask > 0
    return union


def _decode(rle: dict[str, Any], height: int, width: int) -> np.ndarray:
    if isinstance(rle["counts"], list):
        rle = mask_coding.frPyObjects(rle, height, width)
    mask = mask_coding.decode(rle)
    assert mask.shape == (height, width), (mask.shape, height, width)
    return mask
