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
from panomask.panoptic_png import VOID

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
    run_ids, lengths = pixel_runs(ids)
    positions = find_positions(run_ids, segment_ids)
    run_values = np.where((positions >= 0) & (run_ids != VOID), positions + FIRST_SEGMENT, 0)
    if strict:
        _check(run_ids, run_values, lengths, segment_ids)
    return np.repeat(run_values.astype(np.int32), lengths).reshape(ids.shape)


def pixel_runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values and the lengths of the runs of equal pixels of a map (H, W), row by row, across their ends.

    Segments are areas: there are a hundred times fewer runs than pixels, so whatever is looked up by value
    is looked up by run.
    """
    flat = values.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])[: flat.size]
    return flat[starts], np.diff(starts, append=flat.size)


def find_positions(ids: np.ndarray, listed: Sequence[int] | np.ndarray) -> np.ndarray:
    """The position of each of the ids (of any shape) in a list, the first if it is there twice; else -1."""
    known = np.asarray(listed, dtype=np.int64)
    if not len(known):
        return np.full(ids.shape, -1, dtype=np.int64)
    order = np.argsort(known, kind="stable")
    in_order = known[order]
    # An id larger than all gets the last place; it is not equal to what stands there.
    places = np.minimum(np.searchsorted(in_order, ids), len(known) - 1)
    return np.where(in_order[places] == ids, order[places], -1)


def _check(
    run_ids: np.ndarray, run_values: np.ndarray, lengths: np.ndarray, segment_ids: Sequence[int]
) -> None:
    areas = np.bincount(run_values, weights=lengths, minlength=FIRST_SEGMENT + len(segment_ids))
    absent = [id_ for id_, area in zip(segment_ids, areas[FIRST_SEGMENT:].tolist(), strict=True) if area == 0]
    refuse_difference(run_ids[(run_values == 0) & (run_ids != VOID)], absent, segment_ids)


def refuse_difference(unlisted: np.ndarray, absent: Sequence[int], listed: Sequence[int]) -> None:
    """Raise InputError where the pixels of a map and segments_info have not the same ids.

    Args:
        unlisted: ids of pixels that segments_info does not list, perhaps several times.
        absent: ids in segments_info that no pixel has.
        listed: all ids in segments_info.
    """
    if len(unlisted):
        unlisted = np.unique(unlisted)
        it = "it" if len(unlisted) == 1 else "them"
        swapped = unlisted % 256 * 65536 + unlisted // 256 % 256 * 256 + unlisted // 65536
        remedy = f"list {it} there, or paint these pixels with 0 (void)"
        if np.isin(swapped, listed).all():
            remedy = (
                "it does with red and blue swapped: the map was written as BGR, as cv2.imwrite takes it;"
                " write id = R + 256 G + 65536 B"
            )
        raise InputError(
            f"its pixels have {_listed(unlisted.tolist())}, which segments_info does not list; {remedy}"
        )
    if len(absent):
        these, it = ("this id", "it") if len(absent) == 1 else ("these ids", "them")
        raise InputError(
            f"segments_info lists {_listed(absent)}, but no pixel has {these}; take {it} out there, or mend"
            " the map of segments"
        )


def _listed(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:_MOST_LISTED]))
    more = f" and {len(ids) - _MOST_LISTED} more" if len(ids) > _MOST_LISTED else ""
    return f"segment {'id' if len(ids) == 1 else 'ids'} {shown}{more}"


def segment_masks(segment_map: np.ndarray, positions: Sequence[int]) -> torch.Tensor:
    """(N, H, W) bool: the masks of the segments at `positions` of the annotation."""
    values = np.asarray(positions, dtype=np.int32).reshape(-1, 1, 1) + np.int32(FIRST_SEGMENT)
    return torch.from_numpy(segment_map[None] == values)  # numpy compares several times faster than torch


def segment_extents(
    segment_map: np.ndarray, num_segments: int, *, first: int = FIRST_SEGMENT
) -> tuple[np.ndarray, np.ndarray]:
    """Area and box of each segment of a map (H, W), from its runs: one pass, however many segments there are.

    Args:
        segment_map: `first` + position of the segment, other values where there is none.
        num_segments: S.
        first: the value of segment 0.

    Returns:
        (S,) numbers of pixels and (S, 4) boxes, xyxy, the right and bottom sides after the last pixel, zeros
        where there is none; both int64.
    """
    height, width = segment_map.shape
    is_start = np.ones((height, width), dtype=bool)
    np.not_equal(segment_map[:, 1:], segment_map[:, :-1], out=is_start[:, 1:])
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts, append=segment_map.size)
    positions = segment_map.reshape(-1)[starts] - first
    is_segment = (positions >= 0) & (positions < num_segments)
    starts, lengths, positions = starts[is_segment], lengths[is_segment], positions[is_segment]
    rows, columns = np.divmod(starts, max(width, 1))
    areas = np.bincount(positions, weights=lengths, minlength=num_segments).astype(np.int64)
    low = np.full((num_segments, 2), max(height, width), dtype=np.int64)
    high = np.zeros((num_segments, 2), dtype=np.int64)
    np.minimum.at(low, positions, np.stack([columns, rows], axis=1))
    np.maximum.at(high, positions, np.stack([columns + lengths, rows + 1], axis=1))
    return areas, np.concatenate([low, high], axis=1) * (areas > 0)[:, None]


def areas_and_boxes_xywh(
    segment_map: np.ndarray, num_segments: int, *, first: int = FIRST_SEGMENT
) -> tuple[list[int], list[list[int]]]:
    """`segment_extents` as COCO's files hold them: S areas and S boxes [x, y, width, height]."""
    areas, boxes = segment_extents(segment_map, num_segments, first=first)
    boxes[:, 2:] -= boxes[:, :2]
    return areas.tolist(), boxes.tolist()


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
