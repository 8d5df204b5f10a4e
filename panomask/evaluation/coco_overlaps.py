"""How much detections overlap objects, pair by pair: IoU of boxes and masks, and OKS, as in pycocotools.

P pairs, N detections, G objects, J keypoints. With a crowd, IoU is the share of the detection that is in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from panomask.errors import InputError
from panomask.evaluation.coco_masks import are_readable, fill_their_images, rle_areas, rle_boxes


class BoxOverlaps:
    """IoU of boxes (N, 4) and (G, 4), xywh."""

    def __init__(self, boxes: np.ndarray, objects: np.ndarray, is_crowd: np.ndarray) -> None:
        self._boxes, self._objects, self._is_crowd = boxes, objects, is_crowd

    def __call__(self, detection: np.ndarray, object_: np.ndarray) -> np.ndarray:
        boxes, objects = self._boxes[detection], self._objects[object_]
        common = common_area(boxes, objects)
        areas = boxes[:, 2] * boxes[:, 3], objects[:, 2] * objects[:, 3]
        return _iou(common, *areas, self._is_crowd[object_])


@dataclass(frozen=True)
class Masks:
    """Masks as compressed RLE.

    Args:
        rles: of all of them.
        name: index -> what to call it in an error.
    """

    rles: Sequence[dict[str, Any]]
    name: Callable[[int], str]

    def readable(self, indices: np.ndarray) -> list[dict[str, Any]]:
        """Their RLEs; InputError where the text of one is broken."""
        rles = self.chosen(indices)
        self._require(are_readable(rles), indices, "the text of its RLE ('counts') is broken")
        return rles

    def comparable(self, indices: np.ndarray) -> dict[int, dict[str, Any]]:
        """Index -> RLE; InputError where the runs of one do not fill its image."""
        rles = dict(zip(indices.tolist(), self.chosen(indices), strict=True))
        reason = "the runs of its RLE are not as many pixels as its 'size' says"
        self._require(fill_their_images(list(rles.values())), indices, reason)
        return rles

    def chosen(self, indices: np.ndarray) -> list[dict[str, Any]]:
        """Their RLEs, not looked at."""
        return [self.rles[i] for i in indices.tolist()]

    def _require(self, is_right: np.ndarray, indices: np.ndarray, reason: str) -> None:
        if not is_right.all():
            raise InputError(f"{self.name(int(indices[is_right.argmin()]))}: {reason}; write the file again")


class MaskOverlaps:
    """IoU of masks.

    Runs are compared only for pairs that may reach `at_least`: two masks have in common no more than their
    boxes have, nor than the smaller one. Others are said to overlap by 0.
    """

    def __init__(self, masks: Masks, objects: Masks, is_crowd: np.ndarray, at_least: float) -> None:
        self._masks, self._objects, self._is_crowd, self._at_least = masks, objects, is_crowd, at_least

    def __call__(self, detection: np.ndarray, object_: np.ndarray) -> np.ndarray:
        close = self._close(detection, object_)
        close = close[np.argsort(object_[close], kind="stable")]
        masks = self._masks.comparable(np.unique(detection[close]))
        objects = self._objects.comparable(np.unique(object_[close]))
        overlaps = np.zeros(len(detection))
        first = np.flatnonzero(np.diff(object_[close], prepend=-1)).tolist()
        for start, stop in pairwise([*first, len(close)]):
            pairs, partner = close[start:stop], int(object_[close[start]])
            rles = [masks[i] for i in detection[pairs].tolist()]
            overlaps[pairs] = mask_util.iou(rles, [objects[partner]], [int(self._is_crowd[partner])])[:, 0]
        return overlaps

    def _close(self, detection: np.ndarray, object_: np.ndarray) -> np.ndarray:
        """Which pairs may reach `at_least` by their areas and, of these, by their boxes."""
        area = _measured(detection, lambda i: rle_areas(self._masks.readable(i)))
        object_area = _measured(object_, lambda i: rle_areas(self._objects.readable(i)))
        is_crowd, common = self._is_crowd[object_], np.minimum(area, object_area)
        close = np.flatnonzero(_iou(common, area, object_area, is_crowd) >= self._at_least)
        box = _measured(detection[close], lambda i: rle_boxes(self._masks.chosen(i)))
        object_box = _measured(object_[close], lambda i: rle_boxes(self._objects.chosen(i)))
        common = np.minimum(common[close], common_area(box, object_box))
        highest = _iou(common, area[close], object_area[close], is_crowd[close])
        return close[highest >= self._at_least]


class KeypointOverlaps:
    """OKS of keypoints; where an object has none labelled, by how far they are from about its box.

    Args:
        keypoints, objects: (N, J, 3) and (G, J, 3): x, y, and the object's visibility.
        boxes, areas: of the objects, (G, 4) xywh and (G,).
        sigmas: (J,).
    """

    def __init__(
        self,
        keypoints: np.ndarray,
        objects: np.ndarray,
        *,
        boxes: np.ndarray,
        areas: np.ndarray,
        sigmas: np.ndarray,
    ) -> None:
        self._keypoints, self._objects, self._areas = keypoints[..., :2], objects[..., :2], areas
        self._is_labelled = objects[..., 2] > 0
        self._low, self._high = boxes[:, :2] - boxes[:, 2:], boxes[:, :2] + boxes[:, 2:] * 2
        self._variances = (sigmas * 2) ** 2

    def __call__(self, detection: np.ndarray, object_: np.ndarray) -> np.ndarray:
        points, is_labelled = self._keypoints[detection], self._is_labelled[object_]  # (P, J, 2), (P, J)
        has_labelled = is_labelled.any(axis=1)
        low, high = self._low[object_, None], self._high[object_, None]
        outside = np.maximum(0, low - points) + np.maximum(0, points - high)
        offsets = np.where(has_labelled[:, None, None], points - self._objects[object_], outside)
        squared = (offsets**2).sum(axis=-1) / self._variances
        error = squared / (self._areas[object_, None] + np.spacing(1)) / 2
        counts = is_labelled | ~has_labelled[:, None]
        return (np.exp(-error) * counts).sum(axis=1) / counts.sum(axis=1)


def _measured(indices: np.ndarray, measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What is measured of each index, once if it occurs often."""
    chosen = np.flatnonzero(np.bincount(indices))  # sorted, each once; np.unique sorts for it
    measured = measure(chosen)
    table = np.empty((indices.max(initial=-1) + 1, *measured.shape[1:]))
    table[chosen] = measured
    return table[indices]


def common_area(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Area that boxes (P, 4), xywh, have in common pair by pair: (P,)."""
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    return np.maximum(high - low, 0).prod(axis=1)


def _iou(common: np.ndarray, area: np.ndarray, other: np.ndarray, is_crowd: np.ndarray) -> np.ndarray:
    union = np.where(is_crowd, area, area + other - common)
    return np.divide(common, union, out=np.zeros(len(common)), where=common > 0)
