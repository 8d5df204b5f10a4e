"""COCO's average precision and recall of boxes, masks and keypoints, as pycocotools computes them.

T IoU thresholds (.50:.05:.95), R recall points (0:.01:1), K categories, A = 4 area ranges (all, small below
32^2 pixels, medium, large above 96^2; keypoints have no small ones), M limits on the detections of an image.
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
from panomask.evaluation.coco_keypoints import (
    check_predictions,
    has_keypoints,
    resolve_oks_sigmas,
    with_keypoints,
)
from panomask.evaluation.vectorized_coco_eval import VectorizedCOCOeval
from panomask.json_file import collection_paused

logger = logging.getLogger(__name__)

IOU_TYPES = ("bbox", "segm", "keypoints")
MAX_DETECTIONS = (1, 10, 100)
MAX_KEYPOINT_DETECTIONS = (20,)
"""COCO's only limit for keypoints, whatever that for boxes is."""
ALL_AREAS = 0


def evaluate_coco_json(
    ground_truth: JsonSource | dict[str, Any] | COCO,
    results: JsonSource | list[dict[str, Any]],
    iou_type: str = "bbox",
    *,
    img_ids: Iterable[Any] | None = None,
    max_detections: Sequence[int] = MAX_DETECTIONS,
    use_mask_area: bool = False,
    oks_sigmas: Sequence[float] | None = None,
    use_fast_impl: bool = True,
) -> dict[str, float]:
    """Score predictions in COCO's results format against COCO annotations.

    Args:
        ground_truth: annotation file, its content, or a `COCO` object.
        results: results file or its content; may be empty (every score of a class that occurs is 0).
        iou_type: "bbox", "segm" or "keypoints".
        img_ids: images to score, all by default. An image without predictions counts, with all its objects
            missed.
        max_detections: three ascending limits on the best detections of an image and category; AP and the AR
            by size go by the last. For keypoints it is always COCO's 20.
        use_mask_area: measure predicted masks, not the boxes beside them, for the scores by size. Detectron2
            does; pycocotools does not. Irrelevant where results hold masks without boxes.
        oks_sigmas: for keypoints, see `resolve_oks_sigmas`; by default what the ground truth's categories
            declare as "sigmas", or COCO's for COCO's 17 keypoints.
        use_fast_impl: False scores by pycocotools itself: the same numbers, many times as slow.

    Returns:
        The twelve COCO numbers in percent (AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl) or, for
        keypoints, the ten (AP AP50 AP75 APm APl AR AR50 AR75 ARm ARl), then `AP-name` for every category; NaN
        where there is no ground truth to find.

    Raises:
        InputError: unreadable or unfitting files, or keypoints whose sigmas nobody says.
    """
    scored = score_coco_json(
        ground_truth,
        results,
        iou_type,
        img_ids=img_ids,
        max_detections=max_detections,
        use_mask_area=use_mask_area,
        oks_sigmas=oks_sigmas,
        use_fast_impl=use_fast_impl,
    )
    return {**summary_metrics(scored), **category_metrics(scored)}


@collection_paused()
def score_coco_json(
    ground_truth: JsonSource | dict[str, Any] | COCO,
    results: JsonSource | list[dict[str, Any]],
    iou_type: str,
    *,
    img_ids: Iterable[Any] | None,
    max_detections: Sequence[int],
    use_mask_area: bool,
    oks_sigmas: Sequence[float] | None,
    use_fast_impl: bool = True,
) -> COCOeval:
    """As `evaluate_coco_json`, but returns the evaluation itself; see `run_coco_eval`."""
    if iou_type not in IOU_TYPES:
        raise InputError(f"iou_type {iou_type!r} is not supported; give one of {', '.join(IOU_TYPES)}")
    truth = load_ground_truth(ground_truth)
    if "annotations" not in truth.dataset:
        raise InputError("the ground truth has no 'annotations'; there is nothing to score against")
    if iou_type == "segm":
        if not has_masks(truth):
            raise InputError("the ground truth has no masks; score the boxes alone (iou_type 'bbox')")
        truth = with_masks_only(truth)
    sigmas: list[float] = []
    if iou_type == "keypoints":
        if not has_keypoints(truth):
            raise InputError("the ground truth has no keypoints; score the boxes alone (iou_type 'bbox')")
        sigmas = resolve_oks_sigmas(truth, oks_sigmas)
        truth = with_keypoints(truth, len(sigmas))
    predictions = load_results(truth, results, iou_type, use_mask_area=use_mask_area)
    if sigmas:
        check_predictions(predictions, len(sigmas))
    return run_coco_eval(
        truth,
        predictions,
        iou_type,
        img_ids=img_ids,
        max_detections=max_detections,
        oks_sigmas=sigmas,
        use_fast_impl=use_fast_impl,
    )


def run_coco_eval(
    ground_truth: COCO,
    predictions: COCO,
    iou_type: str,
    *,
    img_ids: Iterable[Any] | None = None,
    max_detections: Sequence[int] = MAX_DETECTIONS,
    oks_sigmas: Sequence[float] = (),
    use_fast_impl: bool = True,
) -> COCOeval:
    """Evaluate and accumulate, silently. `oks_sigmas` (K) are those of keypoints, `max_detections` is not.

    Returns:
        pycocotools' evaluation (ours, which derives from it, or itself), whose `eval` holds `precision`
        (T, R, K, A, M) and `recall` (T, K, A, M).
    """
    is_oks = iou_type == "keypoints"
    if not is_oks and len(max_detections) != len(MAX_DETECTIONS):
        raise InputError(
            f"max_detections {list(max_detections)}: three limits are needed, as in [1, 10, 100]"
        )
    with redirect_stdout(io.StringIO()):
        evaluation = VectorizedCOCOeval if use_fast_impl else COCOeval
        scored = evaluation(ground_truth, predictions, iou_type)
        scored.params.maxDets = list(MAX_KEYPOINT_DETECTIONS if is_oks else max_detections)
        if is_oks:
            scored.params.kpt_oks_sigmas = np.asarray(oks_sigmas, dtype=np.float64)
        if img_ids is not None:
            scored.params.imgIds = list(img_ids)
        scored.evaluate()
        scored.accumulate()
    return scored


def summary_metrics(scored: COCOeval) -> dict[str, float]:
    """The twelve COCO numbers (keypoints: ten) of an accumulated evaluation, in percent."""
    precision, recall = scored.eval["precision"], scored.eval["recall"]
    precision_in_all, recall_in_all = precision[..., ALL_AREAS, -1], recall[..., ALL_AREAS, -1]
    areas = [(area, label[0]) for area, label in enumerate(scored.params.areaRngLbl) if area != ALL_AREAS]
    thresholds = [(f"{round(100 * iou)}", np.isclose(scored.params.iouThrs, iou)) for iou in (0.5, 0.75)]
    metrics = {"AP": mean_percent(precision_in_all)}
    metrics |= {f"AP{percent}": mean_percent(precision_in_all[chosen]) for percent, chosen in thresholds}
    metrics |= {f"AP{suffix}": mean_percent(precision[..., area, -1]) for area, suffix in areas}
    if scored.params.iouType == "keypoints":
        metrics["AR"] = mean_percent(recall_in_all)
        metrics |= {f"AR{percent}": mean_percent(recall_in_all[chosen]) for percent, chosen in thresholds}
    else:
        for limit, max_dets in enumerate(scored.params.maxDets):
            metrics[f"AR{max_dets}"] = mean_percent(recall[:, :, ALL_AREAS, limit])
    metrics |= {f"AR{suffix}": mean_percent(recall[..., area, -1]) for area, suffix in areas}
    return metrics


def category_metrics(scored: COCOeval) -> dict[str, float]:
    """`AP-name` (AP-id without one) -> AP in percent for every category, in the order of their ids."""
    precision = scored.eval["precision"][:, :, :, ALL_AREAS, -1]  # (T, R, K)
    categories = scored.cocoGt.loadCats(scored.params.catIds)
    names = [category.get("name", category["id"]) for category in categories]
    return {f"AP-{name}": mean_percent(precision[:, :, k]) for k, name in enumerate(names)}


def mean_percent(values: np.ndarray) -> float:
    """Mean in percent of what was measured; pycocotools marks with -1 what has no ground truth."""
    measured = values[values > -1]
    return float(100 * np.mean(measured)) if measured.size else float("nan")
