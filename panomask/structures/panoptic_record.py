"""Dataset dicts whose truth is a panoptic PNG (`pan_seg_file_name`) and its segments (`segments_info`).

Mapper, evaluators and drawing read such dicts by these functions, so that they see the same truth.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from panomask.errors import InputError
from panomask.panoptic_png import read_segment_ids
from panomask.structures.boxes import BoxMode
from panomask.structures.segment_map import build_segment_map, segment_rles

Record = Mapping[str, Any]


def has_segments(record: Record) -> bool:
    """Whether the dict names a panoptic PNG and its segments."""
    return record.get("pan_seg_file_name") is not None and record.get("segments_info") is not None


def lacks_mask(annotation: Mapping[str, Any]) -> bool:
    """Whether the annotation of an object names a segment in place of a mask."""
    return "segment_id" in annotation and not annotation.get("segmentation")


def has_masks_in_png(record: Record) -> bool:
    """Whether masks of its annotations are in the panoptic PNG."""
    return has_segments(record) and any(map(lacks_mask, record.get("annotations") or ()))


def stated_size(record: Record) -> tuple[int, int] | None:
    """(height, width) of the image if the dict says both."""
    height, width = record.get("height"), record.get("width")
    return None if height is None or width is None else (height, width)


def read_segment_map(
    record: Record, size: tuple[int, int] | None = None, *, on_bad: str | None = None
) -> np.ndarray:
    """The segment map (H, W) of the dict's PNG, see `build_segment_map`.

    Args:
        record: see `has_segments`.
        size: (height, width) of the image, by default `stated_size`.
        on_bad: see `segment_map_of`.

    Raises:
        InputError: names the PNG, which is missing, not in colour, of another size, or has other segments
            than `segments_info`.
    """
    ids = read_segment_ids(record["pan_seg_file_name"], size or stated_size(record))
    return segment_map_of(record, ids, on_bad=on_bad)


def segment_map_of(record: Record, ids: np.ndarray, *, on_bad: str | None = None) -> np.ndarray:
    """The segment map (H, W) of segment ids (H, W) that are read already.

    Args:
        record: with `segments_info`.
        ids: as in a panoptic PNG.
        on_bad: the `on_bad_annotation` of the data set. If it, or that of the dict, is "drop", segments were
            dropped, and pixels of those that are not listed are void.

    Raises:
        InputError: ids and `segments_info` disagree.
    """
    is_strict = "drop" not in (on_bad, record.get("on_bad_annotation"))
    try:
        return build_segment_map(
            ids, [segment["id"] for segment in record["segments_info"]], strict=is_strict
        )
    except InputError as error:
        raise InputError(f"{record.get('pan_seg_file_name', 'pan_seg')}: {error}") from error


def objects_of_segments(record: Record, segment_map: np.ndarray) -> list[dict[str, Any]]:
    """The dict's annotations; those without a mask get mask (RLE), box and area of their segments.

    Where the dict has no `annotations`, there is one for each thing among its segments.

    Raises:
        InputError: an annotation names no segment of `segments_info`.
    """
    segments = record["segments_info"]
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
        if lacks_mask(annotation):
            rle = rle_of.get(annotation["segment_id"])
            if rle is None:
                raise InputError(
                    f"{record.get('pan_seg_file_name', 'pan_seg')}: an object has segment_id"
                    f" {annotation['segment_id']!r}, which segments_info does not list"
                )
            box, area = mask_util.toBbox(rle).tolist(), float(mask_util.area(rle))
            annotation = {**annotation, "bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "area": area}
            annotation["segmentation"] = rle
        objects.append(annotation)
    return objects
