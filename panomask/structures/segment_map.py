"""Panoptic segments in one map: which pixel belongs to which segment, and what is derived from it.

Shapes: H x W image, S segments of its annotation.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch

from panomask.errors import InputError

VOID = 0
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
    # Once for each run of equal pixels: a hundredth of the pixels.
    flat = ids.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])[: flat.size]
    lengths, run_ids = np.diff(starts, append=flat.size), flat[starts]
    numbers = np.asarray(segment_ids, dtype=np.int64)
    order = np.argsort(numbers)
    order = np.append(order, len(numbers))  # beyond the greatest id
    sorted_ids = np.append(numbers, VOID)[order]
    place = np.searchsorted(sorted_ids[:-1], run_ids)
    is_known = (sorted_ids[place] == run_ids) & (run_ids != VOID)
    run_values = np.where(is_known, order[place] + FIRST_SEGMENT, 0).astype(np.int32)
    if strict:
        _check(run_ids, run_values, lengths, segment_ids)
    return np.repeat(run_values, lengths).reshape(ids.shape)


def _check(
    run_ids: np.ndarray, run_values: np.ndarray, lengths: np.ndarray, segment_ids: Sequence[int]
) -> None:
    unknown = np.unique(run_ids[(run_values == 0) & (run_ids != VOID)])
    if len(unknown):
        raise InputError(
            f"its pixels have {_listed(unknown.tolist())}, which segments_info does not list; list"
            f" {'it' if len(unknown) == 1 else 'them'} there, or paint these pixels with 0 (void)"
        )
    areas = np.bincount(run_values, weights=lengths, minlength=FIRST_SEGMENT + len(segment_ids))
    areas = areas[FIRST_SEGMENT:]
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
    values = np.asarray(positions, dtype=np.int32).reshape(-1, 1, 1) + np.int32(FIRST_SEGMENT)
    return torch.from_numpy(segment_map[None] == values)  # numpy compares several times faster than torch


def segment_extents(segment_map: np.ndarray, num_segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Area and box of each segment of a map (H, W), from its runs: one pass, however many segments there are.

    Returns:
        (S,) int64 numbers of pixels; (S, 4) float32 boxes, xyxy, the right and bottom sides after the last
        pixel, zeros where there is none.
    """
    height, width = segment_map.shape
    is_start = np.ones((height, width), dtype=bool)
    np.not_equal(segment_map[:, 1:], segment_map[:, :-1], out=is_start[:, 1:])
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts, append=segment_map.size)
    positions = segment_map.reshape(-1)[starts] - FIRST_SEGMENT
    is_segment = (positions >= 0) & (positions < num_segments)
    starts, lengths, positions = starts[is_segment], lengths[is_segment], positions[is_segment]
    rows, columns = np.divmod(starts, max(width, 1))
    areas = np.bincount(positions, weights=lengths, minlength=num_segments).astype(np.int64)
    low = np.full((num_segments, 2), max(height, width), dtype=np.int64)
    high = np.zeros((num_segments, 2), dtype=np.int64)
    np.minimum.at(low, positions, np.stack([columns, rows], axis=1))
    np.maximum.at(high, positions, np.stack([columns + lengths, rows + 1], axis=1))
    boxes = np.concatenate([low, high], axis=1) * (areas > 0)[:, None]
    return areas, boxes.astype(np.float32)


def segment_rles(segment_map: np.ndarray, num_segments: int) -> list[dict[str, Any]]:
    """S compressed RLEs of COCO: {"size": [H, W], "counts": text}, in the order of the annotation.

    The map's runs are found once, down the columns, and sorted by segment: the cost does not grow with S
    times H x W, as it does for masks that are encoded one by one.
    """
    height, width = segment_map.shape
    pixels = segment_map.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = np.concatenate([[0], changes])[: pixels.size]
    ends = np.concatenate([changes, [pixels.size]])[: pixels.size]
    values = pixels[starts]
    order = np.argsort(values, kind="stable")
    edges = np.stack([starts, ends], axis=1)[order]  # (runs, 2), those of a segment in a row
    runs_up_to = np.cumsum(np.bincount(values, minlength=FIRST_SEGMENT + num_segments))
    bounds = runs_up_to[FIRST_SEGMENT - 1 :].tolist()
    rles = []
    for first, last in pairwise(bounds):
        counts = np.diff(edges[first:last].reshape(-1), prepend=0, append=pixels.size).tolist()
        if len(counts) > 1 and counts[-1] == 0:  # pycocotools writes no empty run at the end
            counts.pop()
        rle = mask_util.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        rles.append({"size": [height, width], "counts": rle["counts"].decode("ascii")})
    return rles


def semantic_map(segment_map: np.ndarray, labels: Sequence[int], ignore_label: int) -> np.ndarray:
    """(H, W) int64 semantic labels: that of each pixel's segment, `ignore_label` where there is none.

    Args:
        segment_map: of `build_segment_map`.
        labels: S labels, in the order of the annotation; those of crowds and void may be `ignore_label`.
    """
    table = np.full(FIRST_SEGMENT + len(labels), ignore_label, dtype=np.int64)
    table[FIRST_SEGMENT:] = labels
    return table.take(segment_map, mode="clip")  # twice as fast as with a check of the range


def semantic_labels(segments_info: Sequence[Mapping[str, Any]], things_label: int | None) -> list[int]:
    """The semantic label of each segment of a dataset dict, for `semantic_map`.

    Args:
        segments_info: S dicts with `category_id` (contiguous) and `isthing`.
        things_label: of every thing, crowds too (metadata `sem_seg_things_label`: Panoptic FPN's label 0);
            None: things and stuff share one list of classes, and each segment has its own category's.
    """
    if things_label is None:
        return [segment["category_id"] for segment in segments_info]
    return [
        things_label if segment.get("isthing", True) else segment["category_id"] for segment in segments_info
    ]
