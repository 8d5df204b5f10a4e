"""Panoptic quality: which segments of an image match, and what the sums over all images give.

The definition is that of Kirillov et al., "Panoptic Segmentation" (arXiv:1801.00868), equation 1 and section
4.1; where it leaves a choice, the rules are those of COCO's panopticapi:

- A pair of segments of one class matches above IoU 0.5, strictly. Pixels of the prediction on void count
  neither for nor against it. Crowds of the truth never match.
- What stays unmatched is a miss, except crowds, or a false positive, except a predicted segment that lies by
  more than half, strictly, on void and on the crowd of its class; of several crowds of one class in an image
  the last listed counts.
- A class that occurs neither in truth nor in predictions is left out of the means.
- Areas are counted in the maps. (panopticapi believes the `area` that the truth states; sound files agree.)

T segments of the truth, P predicted ones, K classes, H x W image, R overlapping pairs of segments.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from panomask.errors import InputError
from panomask.panoptic_png import MAX_SEGMENT_ID, VOID
from panomask.structures.segment_map import find_positions, refuse_difference

MATCH_IOU = 0.5
IGNORED_SHARE = 0.5

IOU, TP, FP, FN = range(4)
"""The columns of counts (K, 4): the sum of the matches' IoU, and numbers of segments."""

_BLOCK = 2**16
"""Pixels compared at a time: they stay in the processor's cache, and a run's length fits into 16 bits."""


class Segments(NamedTuple):
    """The segments that an annotation lists for one image."""

    ids: np.ndarray
    """(S,) int64, unique, not 0."""
    classes: np.ndarray
    """(S,) int64 in 0..K-1."""
    is_crowd: np.ndarray
    """(S,) bool; not looked at in predictions."""


class _Overlaps(NamedTuple):
    """Pixels by pair of segments; -1 is void."""

    truth: np.ndarray  # (R,) positions in 0..T-1
    predicted: np.ndarray  # (R,) positions in 0..P-1
    pixels: np.ndarray  # (R,) float64, whole numbers


def count_pairs(
    truth_ids: np.ndarray, predicted_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the pixels of each pair (id in the truth, id in the prediction) that occurs.

    Segments are mostly wide, so runs of equal pairs are found first and only these are sorted.

    Args:
        truth_ids: (H, W) integers of 24 bits.
        predicted_ids: (H, W) likewise.

    Returns:
        (R,) int64 ids in the truth, (R,) int64 ids in the prediction, (R,) float64 numbers of pixels.
    """
    assert truth_ids.shape == predicted_ids.shape, (truth_ids.shape, predicted_ids.shape)
    truth, predicted = truth_ids.reshape(-1), predicted_ids.reshape(-1)
    if not truth.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    ends = _ends_of_runs(truth, predicted)
    # Both ids and the length of the run, less one, are one number of 24 + 24 + 16 bits.
    runs = truth[ends].astype(np.uint64) << np.uint64(40)
    runs |= predicted[ends].astype(np.uint64) << np.uint64(16)
    runs[0] |= np.uint64(ends[0])
    runs[1:] |= (ends[1:] - ends[:-1] - 1).view(np.uint64)
    runs.sort()
    pairs = (runs >> np.uint64(16)).view(np.int64)
    firsts = np.concatenate([[0], np.flatnonzero(pairs[1:] != pairs[:-1]) + 1])
    pixels = np.add.reduceat((runs & np.uint64(_BLOCK - 1)).astype(np.float64) + 1, firsts)
    found = pairs[firsts]
    return found >> 24, found & MAX_SEGMENT_ID, pixels


def _ends_of_runs(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The last pixels of runs of equal pairs; every block ends one."""
    ends = []
    for start in range(0, truth.size, _BLOCK):
        t, p = truth[start : start + _BLOCK], predicted[start : start + _BLOCK]
        is_end = np.ones(len(t), dtype=bool)
        np.not_equal(t[1:], t[:-1], out=is_end[:-1])
        is_end[:-1] |= p[1:] != p[:-1]
        ends.append(np.flatnonzero(is_end) + start)
    return np.concatenate(ends)


def compare_segments(
    truth_ids: np.ndarray,
    truth: Segments,
    predicted_ids: np.ndarray,
    predicted: Segments,
    num_classes: int,
    *,
    unlisted_is_void: bool = False,
    names: tuple[str, str] = ("the truth", "the prediction"),
) -> np.ndarray:
    """Match the segments of one image.

    Args:
        truth_ids: (H, W) segment ids, 0 is void.
        truth: what its annotation lists.
        predicted_ids: (H, W) segment ids, 0 is void.
        predicted: what the prediction lists.
        num_classes: K.
        unlisted_is_void: take what the truth's annotation does not list for void and pass over segments that
            have no pixel, for annotations that bad segments were dropped from; otherwise both are errors.
        names: what messages call truth and prediction.

    Returns:
        (K, 4) float64 counts of this image, to be summed over images.

    Raises:
        InputError: the maps are of two sizes, or ids of pixels and those listed are not the same.
    """
    if truth_ids.shape != predicted_ids.shape:
        raise InputError(
            f"{names[1]} is of {_size(predicted_ids)} pixels, but {names[0]} of {_size(truth_ids)} (width x"
            " height); predict at the original image's size"
        )
    in_truth, in_prediction, pixels = count_pairs(truth_ids, predicted_ids)
    overlaps = _Overlaps(
        _positions(in_truth, truth.ids, names[0], strict=not unlisted_is_void),
        _positions(in_prediction, predicted.ids, names[1], strict=True),
        pixels,
    )
    return _match(overlaps, truth, predicted, num_classes)


def _size(ids: np.ndarray) -> str:
    return " x ".join(map(str, reversed(ids.shape)))


def _positions(found: np.ndarray, ids: np.ndarray, name: str, *, strict: bool) -> np.ndarray:
    """For each id of the map, its position in the annotation; -1 for void."""
    positions = find_positions(found, ids)
    if strict:
        _check(found, positions, ids, name)
    return positions


def _check(found: np.ndarray, positions: np.ndarray, ids: np.ndarray, name: str) -> None:
    """Raise InputError where the ids of pixels and those listed are not the same."""
    is_absent = np.ones(len(ids), dtype=bool)
    is_absent[positions[positions >= 0]] = False
    try:
        refuse_difference(found[(positions < 0) & (found != VOID)], ids[is_absent].tolist(), ids.tolist())
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _match(overlaps: _Overlaps, truth: Segments, predicted: Segments, num_classes: int) -> np.ndarray:
    """(K, 4) counts from the overlaps of an image's segments."""
    in_truth, in_prediction = overlaps.truth >= 0, overlaps.predicted >= 0
    truth_areas = _sums(overlaps.truth[in_truth], overlaps.pixels[in_truth], len(truth.ids))
    predicted_areas = _sums(
        overlaps.predicted[in_prediction], overlaps.pixels[in_prediction], len(predicted.ids)
    )
    on_void = ~in_truth & in_prediction
    void_areas = _sums(overlaps.predicted[on_void], overlaps.pixels[on_void], len(predicted.ids))

    of_both = in_truth & in_prediction
    t, p, pixels = (column[of_both] for column in overlaps)
    unions = truth_areas[t] + predicted_areas[p] - pixels - void_areas[p]
    ious = pixels / unions
    is_match = (ious > MATCH_IOU) & (truth.classes[t] == predicted.classes[p]) & ~truth.is_crowd[t]
    # Above one half, a segment can match one other at most.
    is_found, is_right = np.zeros(len(truth.ids), dtype=bool), np.zeros(len(predicted.ids), dtype=bool)
    is_found[t[is_match]] = True
    is_right[p[is_match]] = True

    crowd_of_class = np.full(num_classes, -1)
    crowds = np.flatnonzero(truth.is_crowd)
    crowd_of_class[truth.classes[crowds]] = crowds  # the last of several stays
    on_crowd = crowd_of_class[predicted.classes[p]] == t
    ignored = void_areas + _sums(p[on_crowd], pixels[on_crowd], len(predicted.ids))
    is_wrong = ~is_right & (ignored <= IGNORED_SHARE * predicted_areas)
    is_missed = ~is_found & ~truth.is_crowd & (truth_areas > 0)

    counts = np.zeros((num_classes, 4))
    counts[:, IOU] = _sums(truth.classes[t[is_match]], ious[is_match], num_classes)
    counts[:, TP] = np.bincount(truth.classes[is_found], minlength=num_classes)
    counts[:, FP] = np.bincount(predicted.classes[is_wrong], minlength=num_classes)
    counts[:, FN] = np.bincount(truth.classes[is_missed], minlength=num_classes)
    return counts


def _sums(positions: np.ndarray, values: np.ndarray, length: int) -> np.ndarray:
    """(length,) float64: the sum of the values at each position."""
    return np.bincount(positions, weights=values, minlength=length)


def panoptic_metrics(
    counts: np.ndarray, class_names: Sequence[str], is_thing: Sequence[bool] | np.ndarray
) -> dict[str, float]:
    """PQ, its factors SQ (mean IoU of the matches) and RQ (F1 of the segments) from summed counts.

    Args:
        counts: (K, 4), see `compare_segments`.
        class_names: K unique names.
        is_thing: K.

    Returns:
        "PQ", "SQ", "RQ" as means over the classes that occur, "PQ_th" ... over things, "PQ_st" ... over
        stuff, then "PQ-name", "SQ-name", "RQ-name" of each class; in percent, NaN where nothing occurs.
    """
    iou, tp, fp, fn = counts.T
    segments = tp + fp / 2 + fn / 2
    occurs = segments > 0
    with np.errstate(invalid="ignore"):
        of_class = {
            "PQ": 100 * iou / segments,
            "SQ": np.where(occurs, 100 * iou / np.maximum(tp, 1), np.nan),
            "RQ": 100 * tp / segments,
        }
    things = np.asarray(is_thing, dtype=bool)
    metrics = {}
    for suffix, group in (("", occurs), ("_th", occurs & things), ("_st", occurs & ~things)):
        for name, values in of_class.items():
            metrics[name + suffix] = float(values[group].mean()) if group.any() else float("nan")
    for k, class_name in enumerate(class_names):
        metrics |= {f"{name}-{class_name}": float(values[k]) for name, values in of_class.items()}
    return metrics
