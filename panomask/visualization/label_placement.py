"""Where labels go: inside the picture, beside their object, not on top of each other."""

from collections.abc import Sequence

import numpy as np


def place_labels(
    boxes: np.ndarray, sizes: Sequence[tuple[int, int]], canvas_size: tuple[int, int]
) -> list[tuple[float, float]]:
    """The top left corner of each label.

    Tried for each object in turn: on the upper edge of its box, below the lower edge, inside at the top and
    at the bottom; flush left, then flush right. The place that covers the least of earlier labels is taken,
    the first of equals.

    Args:
        boxes: (N, 4) xyxy, canvas pixels.
        sizes: N (width, height).
        canvas_size: width, height.
    """
    taken = np.zeros((0, 4))
    places = []
    for (x0, y0, x1, y1), (width, height) in zip(boxes.tolist(), sizes, strict=True):
        candidates = np.array(
            [(x, y) for y in (y0 - height, y1, y0, y1 - height) for x in (x0, x1 - width)], dtype=np.float64
        )
        limit = np.array([canvas_size[0] - width, canvas_size[1] - height]).clip(min=0)
        inside = candidates.clip(0, limit)
        corners = np.concatenate([inside, inside + (width, height)], axis=1)
        overlap = _intersection(corners, taken).sum(axis=1)
        moved = np.abs(inside - candidates).sum(axis=1)  # off its object a little, when that was outside
        best = int(np.argmin(overlap + 0.01 * height * moved))
        taken = np.concatenate([taken, corners[best : best + 1]])
        places.append((float(inside[best, 0]), float(inside[best, 1])))
    return places


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) common area of boxes (N, 4) and (M, 4)."""
    upper = np.minimum(a[:, None, 2:], b[None, :, 2:])
    lower = np.maximum(a[:, None, :2], b[None, :, :2])
    return (upper - lower).clip(min=0).prod(axis=2)
