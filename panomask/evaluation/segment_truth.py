"""Truth made of the panoptic PNG that a dataset dict names: semantic labels, and objects with masks.

For data sets that have no label images and no file of instances.
"""

from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from panomask.data.catalog import Metadata, things_label
from panomask.errors import InputError
from panomask.panoptic_png import read_segment_ids
from panomask.structures import BoxMode
from panomask.structures.segment_map import (
    build_segment_map,
    segment_rles,
    semantic_labels,
    semantic_map,
)


def semantic_truth(record: dict[str, Any], metadata: Metadata, ignore_label: int) -> np.ndarray:
    """(H, W) semantic labels of a panoptic dataset dict; void has `ignore_label`.

    A segment has its category's label, or that of `things_label`.

    Raises:
        InputError: names the PNG, which cannot be read, or whose segments are not those of `segments_info`.
            Where the data set's `on_bad_annotation` is "drop", pixels of no known segment are void.
    """
    labels = semantic_labels(record["segments_info"], things_label(metadata))
    return semantic_map(_segment_map(record, metadata), labels, ignore_label)


def has_objects_in_png(record: dict[str, Any]) -> bool:
    """Whether the objects' masks are those of panoptic segments: `annotations` have none of their own."""
    if not {"pan_seg_file_name", "segments_info"} <= record.keys():
        return False
    annotations = record.get("annotations")
    return annotations is None or any(_lacks_mask(annotation) for annotation in annotations)


def objects_of_segments(
    record: dict[str, Any], metadata: Metadata
) -> tuple[list[dict[str, Any]], tuple[int, int]]:
    """The annotations of a dict of `has_objects_in_png`, with mask (RLE), box and area of their segments.

    Where the dict has no `annotations`, there is one for each thing among its segments.

    Returns:
        the annotations, and (height, width) of the PNG.

    Raises:
        InputError: as of `semantic_truth`; or an annotation names no segment.
    """
    segments = record["segments_info"]
    segment_map = _segment_map(record, metadata)
    rles = segment_rles(segment_map, len(segments))
    rle_of = {segment["id"]: rle for segment, rle in zip(segments, rles, strict=True)}
    annotations = record.get("annotations")
    if annotations is None:
        annotations = [
            {"segment_id": s["id"], "category_id": s["category_id"], "iscrowd": s.get("iscrowd", 0)}
            for s in segments
            if s.get("isthing", True)
        ]
    objects = []
    for annotation in annotations:
        if _lacks_mask(annotation):
            rle = rle_of.get(annotation["segment_id"])
            if rle is None:
                raise InputError(
                    f"{record['pan_seg_file_name']}: an object has segment_id {annotation['segment_id']!r},"
                    " which segments_info does not list"
                )
            box, area = mask_util.toBbox(rle).tolist(), float(mask_util.area(rle))
            annotation = {**annotation, "bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "area": area}
            annotation["segmentation"] = rle
        objects.append(annotation)
    return objects, (segment_map.shape[0], segment_map.shape[1])


def _lacks_mask(annotation: dict[str, Any]) -> bool:
    return "segment_id" in annotation and not annotation.get("segmentation")


def _segment_map(record: dict[str, Any], metadata: Metadata) -> np.ndarray:
    path, segments = record["pan_seg_file_name"], record["segments_info"]
    has_size = record.get("height") is not None and record.get("width") is not None
    ids = read_segment_ids(path, (record["height"], record["width"]) if has_size else None)
    is_strict = metadata.get("on_bad_annotation") != "drop"
    try:
        return build_segment_map(ids, [segment["id"] for segment in segments], strict=is_strict)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
