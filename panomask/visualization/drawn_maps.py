"""The maps that are drawn: segments and labels of a model's output or a dataset dict."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from panomask.data.catalog import Metadata, things_label
from panomask.errors import InputError
from panomask.panoptic_png import read_segment_ids
from panomask.semantic_png import IGNORE_LABEL, read_semantic_labels
from panomask.structures.panoptic_record import (
    lacks_mask,
    objects_of_segments,
    segment_map_of,
    stated_size,
)
from panomask.structures.segment_map import semantic_labels, semantic_map
from panomask.visualization.segment_map_drawing import present_values

_MAPS = ("pan_seg", "pan_seg_file_name", "segments_info", "sem_seg", "sem_seg_file_name")


def has_panoptic_truth(record: dict[str, Any]) -> bool:
    """Whether a dataset dict has segments: a map or a PNG of ids, and what they stand for."""
    return record.get("segments_info") is not None and any(
        record.get(key) is not None for key in ("pan_seg", "pan_seg_file_name")
    )


def panoptic_truth(record: dict[str, Any], metadata: Metadata) -> np.ndarray:
    """(H, W) segment ids: those of "pan_seg", or of the file "pan_seg_file_name".

    Raises:
        InputError: the file is no panoptic PNG of the image's size, or its segments are not those listed.
    """
    ids = _segment_ids(record)
    segment_map_of(record, ids, on_bad=_on_bad(metadata))  # only to check
    return ids


def panoptic_segments(
    panoptic_seg: torch.Tensor | np.ndarray,
    segments_info: Sequence[dict[str, Any]] | None,
    metadata: Metadata,
) -> tuple[np.ndarray, Sequence[dict[str, Any]]]:
    """Ids (H, W) and what they stand for.

    Without `segments_info` they are category * metadata.label_divisor + number of the object, and -1 for no
    segment.

    Raises:
        InputError: the metadata has no `label_divisor`.
    """
    ids = np.asarray(panoptic_seg.detach().cpu() if isinstance(panoptic_seg, torch.Tensor) else panoptic_seg)
    if segments_info is not None:
        return ids, segments_info
    divisor = metadata.get("label_divisor")
    if divisor is None:
        raise InputError(
            f"Panoptic segments of {metadata.name!r} come without segments_info, and its metadata has no"
            " label_divisor to read their ids by; give segments_info, or set label_divisor"
        )
    things = set((metadata.get("thing_dataset_id_to_contiguous_id") or {}).values())
    numbers = [int(number) for number in present_values(ids).tolist() if number >= 0]
    return ids, [
        {"id": number, "category_id": number // divisor, "isthing": number // divisor in things}
        for number in numbers
    ]


def semantic_truth(record: dict[str, Any], metadata: Metadata) -> np.ndarray | None:
    """(H, W) semantic labels of a dataset dict; None if it has none.

    They are in "sem_seg" or the file "sem_seg_file_name", or follow from the panoptic segments:
    `things_label` for things, if there is one, else every segment's own class.

    Raises:
        InputError: a file that cannot be read, or whose segments are not those that are listed.
    """
    if record.get("sem_seg") is not None:
        return np.asarray(record["sem_seg"])
    if record.get("sem_seg_file_name") is not None:
        return read_semantic_labels(record["sem_seg_file_name"], stated_size(record))
    if not has_panoptic_truth(record):
        return None
    labels = semantic_labels(record["segments_info"], things_label(metadata))
    ignored = metadata.get("ignore_label", IGNORE_LABEL)
    return semantic_map(_segment_map(record, metadata), labels, ignored)


def objects_alone(record: dict[str, Any], metadata: Metadata) -> dict[str, Any]:
    """The objects of a dataset dict, without its segments and semantic labels.

    Returns:
        A copy with "annotations", see `objects_of_segments`.
    """
    annotations = record.get("annotations") or []
    if has_panoptic_truth(record) and any(map(lacks_mask, annotations)):
        annotations = objects_of_segments(record, _segment_map(record, metadata))
    rest = {key: value for key, value in record.items() if key not in _MAPS}
    return {**rest, "annotations": annotations}


def _segment_ids(record: dict[str, Any]) -> np.ndarray:
    if record.get("pan_seg") is not None:
        return np.asarray(record["pan_seg"])
    return read_segment_ids(record["pan_seg_file_name"], stated_size(record))


def _segment_map(record: dict[str, Any], metadata: Metadata) -> np.ndarray:
    return segment_map_of(record, _segment_ids(record), on_bad=_on_bad(metadata))


def _on_bad(metadata: Metadata) -> str | None:
    """See `segment_map_of`. What a user's own function has read may leave segments out, crowds for example.

    Detectron2 draws such dicts; `sem_seg_things_label` tells that our reader has read the data set.
    """
    is_ours = metadata.get("sem_seg_things_label") is not None
    return metadata.get("on_bad_annotation") if is_ours else "drop"
