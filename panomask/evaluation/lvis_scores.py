"""LVIS's average precision of boxes and masks: COCO's, on a federated data set (Gupta et al., CVPR 2019, 3).

Of an image, only the categories are scored that are annotated on it or verified to be absent
(`neg_category_ids`); where a category is not annotated exhaustively (`not_exhaustive_category_ids`), a
detection without a match is no error. At most 300 detections an image count, of all categories together.
Numbers are those of the package lvis (0.5.3, which no longer runs with current numpy).

T IoU thresholds (.50:.05:.95), R recall points (0:.01:1), K categories, A area ranges (all, small, medium,
large).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from panomask.errors import InputError
from panomask.evaluation.coco_ground_truth import (
    JsonSource,
    has_masks,
    index_silently,
    load_ground_truth,
    load_results,
    with_masks_only,
)
from panomask.evaluation.coco_scores import mean_percent

IOU_TYPES = ("bbox", "segm")
MAX_DETECTIONS = 300
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
AREAS = {"AP": 0, "APs": 1, "APm": 2, "APl": 3}
FREQUENCIES = ("r", "c", "f")
"""Categories on 1-10, 11-100 and more than 100 images of the training set: rare, common, frequent."""


def evaluate_lvis_json(
    ground_truth: JsonSource | dict[str, Any] | COCO,
    results: JsonSource | list[dict[str, Any]],
    iou_type: str = "bbox",
    *,
    max_detections: int = MAX_DETECTIONS,
) -> dict[str, float]:
    """Score predictions in COCO's results format against LVIS annotations.

    Args:
        ground_truth: annotation file, its content, or a `COCO` object of it.
        results: results file or its content; may be empty (every score of a category that occurs is 0).
        iou_type: "bbox" or "segm"; masks count as small, medium or large by their own area.
        max_detections: the best so many of an image are scored; a negative number takes all.

    Returns:
        AP AP50 AP75 APs APm APl APr APc APf in percent; NaN where there is no ground truth to find.

    Raises:
        InputError: an unreadable file, or ground truth without LVIS's fields or, for "segm", without masks.
    """
    if iou_type not in IOU_TYPES:
        raise InputError(f"iou_type {iou_type!r} is not supported; give one of {', '.join(IOU_TYPES)}")
    truth = load_ground_truth(ground_truth)
    _check_federated(truth)
    if iou_type == "segm":
        if not has_masks(truth):
            raise InputError("the ground truth has no masks; score the boxes alone (iou_type 'bbox')")
        truth = with_masks_only(truth)
    predictions = load_results(truth, results, iou_type, use_mask_area=True)
    best = _best_of_each_image(predictions.anns.values(), max_detections)
    predictions = index_silently({**predictions.dataset, "annotations": best})
    return _summarize(_FederatedEval(truth, predictions, iou_type))


def _check_federated(truth: COCO) -> None:
    for image in truth.dataset["images"]:
        keys = ("neg_category_ids", "not_exhaustive_category_ids")
        missing = [key for key in keys if not isinstance(image.get(key), list)]
        if missing:
            raise InputError(
                f"the ground truth is no LVIS file: image {image.get('id')!r} has no"
                f" list {' and no list '.join(missing)}; score it by COCO's rules (evaluator_type 'coco')"
            )


def _best_of_each_image(detections: Iterable[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for detection in detections:
        by_image[detection["image_id"]].append(detection)
    if limit < 0:
        limit = max(map(len, by_image.values()), default=0)
    return [
        detection
        for group in by_image.values()
        for detection in sorted(group, key=lambda d: d["score"], reverse=True)[:limit]
    ]


class _FederatedEval(COCOeval):
    """pycocotools' matching of one image and category, called only where there is anything to match.

    A full loop over 1203 categories times 20 000 images spends hours on empty pairs.
    """

    def __init__(self, truth: COCO, predictions: COCO, iou_type: str) -> None:
        super().__init__(truth, predictions, iou_type)
        self.params.maxDets = [len(predictions.anns)]  # no limit for a category of its own
        self._prepare()  # fills _gts and _dts: (image id, category id) -> annotations
        for groups in (self._gts, self._dts):  # lvis passes over what has no area, such as an empty mask
            groups.update({key: [x for x in group if x["area"] > 0] for key, group in groups.items()})
        present: dict[Any, set[int]] = defaultdict(set)
        for (image_id, category_id), annotations in self._gts.items():
            if annotations:
                present[image_id].add(category_id)
        images = truth.imgs
        self._pairs: dict[int, list[Any]] = defaultdict(list)
        for image_id, category_id in sorted({*self._gts, *self._dts}):
            is_annotated = category_id in present[image_id]
            if is_annotated or category_id in images[image_id]["neg_category_ids"]:
                self._pairs[category_id].append(image_id)

    def matches(self, category_id: int, area: list[float]) -> list[dict[str, Any]]:
        """pycocotools' record of each image on which the category is scored."""
        records = []
        for image_id in self._pairs[category_id]:
            key = (image_id, category_id)
            if key not in self.ious:
                self.ious[key] = self.computeIoU(*key)
            record = self.evaluateImg(image_id, category_id, area, self.params.maxDets[-1])
            if record is None:
                continue
            if category_id in self.cocoGt.imgs[image_id]["not_exhaustive_category_ids"]:
                record["dtIgnore"] = np.logical_or(record["dtIgnore"], record["dtMatches"] == 0)
            records.append(record)
        return records

    def precision(self) -> np.ndarray:
        """(T, R, K, A), -1 where there is no ground truth."""
        thresholds, recalls = self.params.iouThrs, self.params.recThrs
        shape = (len(thresholds), len(recalls), len(self.params.catIds), len(self.params.areaRng))
        found = -np.ones(shape)
        for (k, category_id), (a, area) in product(
            enumerate(self.params.catIds), enumerate(self.params.areaRng)
        ):
            records = self.matches(category_id, area)
            num_objects = sum(int(np.count_nonzero(record["gtIgnore"] == 0)) for record in records)
            if num_objects:
                found[:, :, k, a] = list(_curves(records, num_objects, recalls))
        return found


def _curves(records: list[dict[str, Any]], num_objects: int, recalls: np.ndarray) -> Iterator[np.ndarray]:
    """For each threshold, the precision (R,) at the recalls: the best at that recall or a higher one."""
    scores = np.concatenate([record["dtScores"] for record in records])
    order = np.argsort(-scores, kind="mergesort")
    is_matched = np.concatenate([record["dtMatches"] for record in records], axis=1)[:, order] > 0
    is_ignored = np.concatenate([record["dtIgnore"] for record in records], axis=1)[:, order].astype(bool)
    for matched, ignored in zip(is_matched, is_ignored, strict=True):
        true = np.cumsum(matched & ~ignored)
        false = np.cumsum(~matched & ~ignored)
        precision = true / (true + false + np.spacing(1))
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        yield envelope[np.searchsorted(true / num_objects, recalls, side="left")]


def _summarize(scored: _FederatedEval) -> dict[str, float]:
    precision, thresholds = scored.precision(), scored.params.iouThrs
    metrics = {name: mean_percent(precision[..., area]) for name, area in AREAS.items()}
    for iou in (0.5, 0.75):
        metrics[f"AP{round(100 * iou)}"] = mean_percent(precision[np.isclose(thresholds, iou)][..., 0])
    categories = scored.cocoGt.loadCats(scored.params.catIds)
    for frequency in FREQUENCIES:
        chosen = [category.get("frequency") == frequency for category in categories]
        metrics[f"AP{frequency}"] = mean_percent(precision[:, :, chosen, 0])
    return {name: metrics[name] for name in METRICS}
