"""Containers for boxes, instances, images, masks, keypoints and segments."""

from panomask.structures.boxes import (
    Boxes,
    BoxMode,
    matched_pairwise_iou,
    pairwise_intersection,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)
from panomask.structures.image_list import ImageList
from panomask.structures.instances import Instances
from panomask.structures.keypoints import Keypoints, heatmaps_to_keypoints
from panomask.structures.masks import BitMasks, PolygonMasks, ROIMasks
from panomask.structures.rasterization import polygons_to_bitmask, rasterize_polygons_within_box
from panomask.structures.segment_map import (
    build_segment_map,
    segment_masks,
    semantic_map,
)

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "ImageList",
    "Instances",
    "Keypoints",
    "PolygonMasks",
    "ROIMasks",
    "build_segment_map",
    "heatmaps_to_keypoints",
    "matched_pairwise_iou",
    "pairwise_intersection",
    "pairwise_ioa",
    "pairwise_iou",
    "pairwise_point_box_distance",
    "polygons_to_bitmask",
    "rasterize_polygons_within_box",
    "segment_masks",
    "semantic_map",
]
