"""Which points learn which objects, and how central they are in them (FCOS, arXiv:1904.01355).

Shapes: P points, M objects of an image; boxes are xyxy pixels.
"""

import math

import torch

from panomask.structures import Boxes, pairwise_point_box_distance

MAX_PAIRS = 2**22
"""Pairs of a point and an object that are looked at together: memory is bounded however many there are."""


def assign_points(
    points: torch.Tensor,
    strides: torch.Tensor,
    size_ranges: torch.Tensor,
    gt_boxes: Boxes,
    radius: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The object that each point learns (section 3.2; table 3 for centre sampling).

    A point learns an object if it lies inside of its box, near the centre, and if the largest of its
    distances to the four sides falls into the range of its level. Of several such objects it learns the
    smallest, of equally large ones the first.

    Args:
        points: (P, 2), (x, y).
        strides: (P,), pixels per cell of each point's level.
        size_ranges: (P, 2), the pixels that the largest distance must lie between.
        gt_boxes: M boxes.
        radius: how far from the centre, along x and along y, in strides; infinite: as far as the box reaches.

    Returns:
        (P,) int64, the object (any where there is none), and (P,) bool, whether there is one.
    """
    if len(gt_boxes) == 0:
        return points.new_zeros(len(points), dtype=torch.int64), points.new_zeros(
            len(points), dtype=torch.bool
        )
    areas, size = gt_boxes.area(), max(MAX_PAIRS // len(gt_boxes), 1)
    parts = [part.split(size) for part in (points, radius * strides, size_ranges)]
    smallest, matches = [], []
    for some_points, reach, ranges in zip(*parts, strict=True):
        is_match = _may_learn(some_points, reach, ranges, gt_boxes)
        area, idx = torch.where(is_match, areas, math.inf).min(dim=1)
        smallest.append(area)
        matches.append(idx)
    return torch.cat(matches), torch.cat(smallest) < math.inf


def _may_learn(
    points: torch.Tensor, reach: torch.Tensor, size_ranges: torch.Tensor, gt_boxes: Boxes
) -> torch.Tensor:
    """(P, M) bool: whether a point may learn an object; `reach` (P,) is the radius in pixels."""
    distances = pairwise_point_box_distance(points, gt_boxes)  # (P, M, 4)
    largest = distances.amax(dim=2)
    from_center = (points[:, None] - gt_boxes.get_centers()).abs().amax(dim=2)  # (P, M)
    is_near = (distances.amin(dim=2) > 0) & (from_center < reach[:, None])
    return is_near & (largest > size_ranges[:, :1]) & (largest < size_ranges[:, 1:])


def centerness(distances: torch.Tensor) -> torch.Tensor:
    """How central points are in their objects (equation 3): 1 in the centre, 0 on the border and outside.

    Along each axis the smaller over the larger distance to the two sides; the root of the product.

    Args:
        distances: (..., 4) to the left, top, right and bottom side.
    """
    left, top, right, bottom = distances.clamp(min=0).unbind(-1)
    product = torch.ones_like(left)
    for side, other in ((left, right), (top, bottom)):
        # The larger one is 0 only for a box without extent, of which no point is inside.
        product = product * torch.minimum(side, other) / torch.maximum(side, other).clamp(min=1e-12)
    return product.sqrt()
