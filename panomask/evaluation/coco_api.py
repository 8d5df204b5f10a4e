"""COCO's evaluation by the names under which Detectron2's users call it, where they score for themselves."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from panomask.errors import InputError
from panomask.evaluation.coco_scores import MAX_DETECTIONS, score_coco_json, summary_metrics
from panomask.evaluation.vectorized_coco_eval import VectorizedCOCOeval

COCOeval_opt = VectorizedCOCOeval
"""As in Detectron2 a second implementation of equal numbers; here nothing is compiled for it."""


def _evaluate_predictions_on_coco(
    coco_gt: COCO,
    coco_results: list[dict[str, Any]],
    iou_type: str,
    kpt_oks_sigmas: Sequence[float] | None = None,
    cocoeval_fn: Callable[..., COCOeval] = COCOeval_opt,
    img_ids: Iterable[Any] | None = None,
    max_dets_per_image: Sequence[int] | None = None,
    *,
    use_fast_impl: bool = True,
) -> COCOeval:
    """Score COCO results; `evaluate_coco_json` returns the numbers themselves.

    Args:
        coco_gt: annotations.
        coco_results: left as they are; may be empty.
        iou_type: "bbox", "segm" or "keypoints".
        kpt_oks_sigmas: of keypoints; see `evaluate_coco_json`.
        cocoeval_fn, use_fast_impl: the choice between two implementations of equal numbers: `COCOeval_opt`,
            or pycocotools' slower COCOeval, which either can demand.
        img_ids: images to score; all by default.
        max_dets_per_image: three limits, [1, 10, 100] by default. For keypoints it is always COCO's 20.

    Returns:
        pycocotools' evaluation, accumulated, with `stats` (0..1, -1 where nothing was to be found).
    """
    if cocoeval_fn not in (COCOeval, COCOeval_opt):
        raise InputError(f"cocoeval_fn {cocoeval_fn!r:.80}: give COCOeval_opt, or pycocotools' COCOeval")
    scored = score_coco_json(
        coco_gt,
        coco_results,
        iou_type,
        img_ids=img_ids,
        max_detections=max_dets_per_image or MAX_DETECTIONS,
        use_mask_area=True,
        oks_sigmas=kpt_oks_sigmas,
        use_fast_impl=use_fast_impl and cocoeval_fn is COCOeval_opt,
    )
    scored.stats = np.nan_to_num(np.array(list(summary_metrics(scored).values())) / 100, nan=-1.0)
    return scored
