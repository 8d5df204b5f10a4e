"""COCO's average precision and recall of boxes and masks, as pycocotools computes them.

T IoU thresholds (.50:.05:.95), R recall points (0:.01:1), K categories, A = 4 area ranges (all, small below
32^2 pixels, medium, large above 96^2), M limits on the detections of an image.
"""

import io
import logging
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from panomask.errors import InputError
from panomask.evaluation.coco_ground_truth import (
    JsonSource,
    has_masks,
    load_ground_truth,
    load_results,
    with_masks_only,
)

logger = logging.getLogger(__name__)

IOU_TYPES = ("bbox", "segm")
MAX_DETECTIONS = (1, 10, 100)
AREA_SUFFIXES = ("s", "m", "l")
ALL_AREAS = 0


def evaluate_coco_json(
    ground_truth: JsonSource | dict[str, Any] | COCO,
    results: JsonSource | list[dict[str, Any]],
    iou_type: str = "bbox",
    *,
    img_ids: Iterable[Any] | None = None,
    max_detections: Sequence[int] = MAX_DETECTIONS,
    use_mask_area: bool = False,
) -> dict[str, float]:
    """Score predictions in COCO's results format against COCO annotations.

    Args:
        ground_truth: annotation file, its content, or a `COCO` object.
        results: results file or its content; may be empty (every score of a class that occurs is 0).
        iou_type: "bbox" or "segm".
        img_ids: images to score, all by default. An image without predictions counts, with all its objects
            missed.
        max_detections: three ascending limits on the best detections of an image and category; AP and the AR
            by size go by the last.
        use_mask_area: measure predicted masks, not the boxes beside them, for the scores by size. Detectron2
            does; pycocotools does not. Irrelevant where results hold masks without boxes.

    Returns:
        The twelve COCO numbers in percent (AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl), then
        `AP-name` for every category; NaN where there is no ground truth to find.
    """
    if iou_type not in IOU_TYPES:
        raise InputError(f"iou_type {iou_type!r} is not supported; give one of {', '.join(IOU_TYPES)}")
    truth = load_ground_truth(ground_truth)
    if "annotations" not in truth.dataset:
        raise InputError("the ground truth has no 'annotations'; there is nothing to score against")
    if iou_type == "segm":
        if not has_masks(truth):
            raise InputError("the ground truth has no masks; score the boxes alone (iou_type 'bbox')")
        truth = with_masks_only(truth)
    predictions = load_results(truth, results, iou_type, use_mask_area=use_mask_area)
    scored = run_coco_eval(truth, predictions, iou_type, img_ids=img_ids, max_detections=max_detections)
    return {**summary_metrics(scored), **category_metrics(scored)}


def run_coco_eval(
    ground_truth: COCO,
    predictions: COCO,
    iou_type: str,
    *,
    img_ids: Iterable[Any] | None = None,
    max_detections: Sequence[int] = MAX_DETECTIONS,
) -> COCOeval:
    """Evaluate and accumulate, silently.

    Returns:
        pycocotools' evaluation, whose `eval` holds `precision` (T, R, K, A, M) and `recall` (T, K, A, M).
    """
    if len(max_detections) != len(MAX_DETECTIONS):
        raise InputError(
            f"max_detections {list(max_detections)}: three limits are needed, as in [1, 10, 100]"
        )
    with redirect_stdout(io.StringIO()):
        scored = COCOeval(ground_truth, predictions, iou_type)
        scored.params.maxDets = list(max_detections)
        if img_ids is not None:
            scored.params.imgIds = list(img_ids)
        scored.evaluate()
        scored.accumulate()
    return scored


def summary_metrics(scored: COCOeval) -> dict[str, float]:
    """The twelve COCO numbers of an accumulated evaluation, in percent."""
    precision, recall, limits = scored.eval["precision"], scored.eval["recall"], scored.params.maxDets
    at_most = len(limits) - 1
    thresholds = scored.params.iouThrs
    metrics = {"AP": _mean(precision[:, :, :, ALL_AREAS, at_most])}
    for iou in (0.5, 0.75):
        chosen = np.isclose(thresholds, iou)
        metrics[f"AP{round(100 * iou)}"] = _mean(precision[chosen, :, :, ALL_AREAS, at_most])
    for area, suffix in enumerate(AREA_SUFFIXES, start=1):
        metrics[f"AP{suffix}"] = _mean(precision[:, :, :, area, at_most])
    for limit, max_dets in enumerate(limits):
        metrics[f"AR{max_dets}"] = _mean(recall[:, :, ALL_AREAS, limit])
    for area, suffix in enumerate(AREA_SUFFIXES, start=1):
        metrics[f"AR{suffix}"] = _mean(recall[:, :, area, at_most])
    return metrics


def category_metrics(scored: COCOeval) -> dict[str, float]:
    """`AP-name` -> AP in percent for every category, in the order of their ids."""
    precision = scored.eval["precision"][:, :, :, ALL_AREAS, -1]  # (T, R, K)
    categories = scored.cocoGt.loadCats(scored.params.catIds)
    return {f"AP-{category['name']}": _mean(precision[:, :, k]) for k, category in enumerate(categories)}


def _mean(values: np.ndarray) -> float:
    """Mean in percent of what was measured; pycocotools marks with -1 what has no ground truth."""
    measured = values[values > -1]
    return float(100 * np.mean(measured)) if measured.size else float("nan")
