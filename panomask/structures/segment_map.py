"""Panoptic segments in one map: which pixel belongs to which segment, and what is derived from it.

Shapes: H x W image, S segments of its annotation.
"""

from collections.abc import Sequence

import numpy as np
import torch

from panomask.errors import InputError

_NUM_IDS = 2**24  # an id is a colour of 24 bits
_MOST_LISTED = 5

FIRST_SEGMENT = 256
"""Values below it are no segment in a segment map, so that an augmentation may pad with 0 or with 255."""


def build_segment_map(ids: np.ndarray, segment_ids: Sequence[int], *, strict: bool = True) -> np.ndarray:
    """Number the pixels by the position of their segment in the annotation.

    Args:
        ids: (H, W) integer segment ids in [0, 2^24), as in a panoptic PNG; 0 is void.
        segment_ids: S ids, unique and not 0.
        strict: raise where the two disagree. Otherwise pixels of an unknown id are void, and a segment
            without pixels stays without.

    Returns:
        (H, W) int32: `FIRST_SEGMENT` + position, 0 where there is no segment. Segments are told apart by
        these values after any augmentation that picks pixels (flips, crops, nearest-neighbour resizing).

    Raises:
        InputError: a pixel's id is not among `segment_ids`, or a segment has no pixel.
    """
    # The table is as long as there are colours, but memory is touched only where ids are.
    table = np.zeros(_NUM_IDS, dtype=np.int32)
    table[np.asarray(segment_ids, dtype=np.int64)] = np.arange(len(segment_ids)) + FIRST_SEGMENT
    table[0] = 0
    segment_map = table[ids]
    if strict:
        _check(ids, segment_ids, segment_map)
    return segment_map


def _check(ids: np.ndarray, segment_ids: Sequence[int], segment_map: np.ndarray) -> None:
    unknown = np.unique(ids[(segment_map == 0) & (ids != 0)])
    if len(unknown):
        raise InputError(
            f"its pixels have {_listed(unknown.tolist())}, which segments_info does not list; list"
            f" {'it' if len(unknown) == 1 else 'them'} there, or paint these pixels with 0 (void)"
        )
    areas = segment_areas(segment_map, len(segment_ids))
    empty = [segment_id for segment_id, area in zip(segment_ids, areas.tolist(), strict=True) if area == 0]
    if empty:
        raise InputError(
            f"segments_info lists {_listed(empty)}, but no pixel has"
            f" {'this id' if len(empty) == 1 else 'these ids'}; take"
            f" {'it' if len(empty) == 1 else 'them'} out of the JSON file, or mend the PNG"
        )


def _listed(ids: list[int]) -> str:
    shown = ", ".join(map(str, ids[:_MOST_LISTED]))
    more = f" and {len(ids) - _MOST_LISTED} more" if len(ids) > _MOST_LISTED else ""
    return f"segment {'id' if len(ids) == 1 else 'ids'} {shown}{more}"


def segment_areas(segment_map: np.ndarray, num_segments: int) -> np.ndarray:
    """(S,) int64: the number of pixels of each segment of a map (H, W)."""
    return np.bincount(segment_map.reshape(-1), minlength=FIRST_SEGMENT + num_segments)[FIRST_SEGMENT:]


def segment_masks(segment_map: np.ndarray, positions: Sequence[int]) -> torch.Tensor:
    """(N, H, W) bool: the masks of the segments at `positions` of the annotation."""
    values = torch.as_tensor(positions, dtype=torch.int32).reshape(-1, 1, 1) + FIRST_SEGMENT
    return torch.from_numpy(np.ascontiguousarray(segment_map)) == values


def semantic_map(segment_map: np.ndarray, labels: Sequence[int], ignore_label: int) -> np.ndarray:
    """(H, W) int64 semantic labels: that of each pixel's segment, `ignore_label` where there is none.

    Args:
        segment_map: of `build_segment_map`.
        labels: S labels, in the order of the annotation; those of crowds and void may be `ignore_label`.
    """
    table = np.full(FIRST_SEGMENT + len(labels), ignore_label, dtype=np.int64)
    table[FIRST_SEGMENT:] = labels
    return table[segment_map]
