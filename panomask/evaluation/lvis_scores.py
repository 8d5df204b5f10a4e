"""LVIS's average precision of boxes and masks: COCO's, on a federated data set (Gupta et al., CVPR 2019, 3).

Of an image, only the categories are scored that are annotated on it or verified to be absent
(`neg_category_ids`); where a category is not annotated exhaustively (`not_exhaustive_category_ids`), a
detection without a match is no error. At most 300 detections an image count, of all categories together.
Numbers are those of the package lvis (0.5.3, which no longer runs with current numpy).

T IoU thresholds (.50:.05:.95), R recall points (0:.01:1), K categories, A area ranges (all, small, medium,
large).
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from panomask.errors import InputError
from panomask.evaluation.coco_ground_truth import (
    ID_TYPES,
    JsonSource,
    has_masks,
    index_silently,
    load_ground_truth,
    load_results,
    with_masks_only,
)
from panomask.evaluation.coco_scores import mean_percent
from panomask.evaluation.vectorized_coco_eval import Scene, VectorizedCOCOeval
from panomask.json_file import collection_paused

IOU_TYPES = ("bbox", "segm")
MAX_DETECTIONS = 300
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
AREAS = {"AP": 0, "APs": 1, "APm": 2, "APl": 3}
FREQUENCIES = ("r", "c", "f")
"""Categories on 1-10, 11-100 and more than 100 images of the training set: rare, common, frequent."""


@collection_paused()
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
    keys = ("neg_category_ids", "not_exhaustive_category_ids")
    for image in truth.dataset["images"]:
        missing = [key for key in keys if not isinstance(image.get(key), list)]
        if missing:
            raise InputError(
                f"the ground truth is no LVIS file: image {image.get('id')!r} has no"
                f" list {' and no list '.join(missing)}; score it by COCO's rules (evaluator_type 'coco')"
            )
        for key in keys:
            wrong = [id_ for id_ in image[key] if not isinstance(id_, ID_TYPES)]
            if wrong:
                raise InputError(
                    f"the ground truth: image {image['id']!r}: {key!r} holds {wrong[0]!s:.60}; numbers or"
                    " texts, ids of categories, are needed"
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


class _FederatedEval(VectorizedCOCOeval):
    """COCO's matching of what LVIS scores; see the module's head."""

    def __init__(self, truth: COCO, predictions: COCO, iou_type: str) -> None:
        super().__init__(truth, predictions, iou_type)
        self.params.maxDets = [len(predictions.anns)]  # no limit for a category of its own

    def _scene(self) -> Scene:
        scene = super()._scene()
        # lvis passes over what has no area, such as an empty mask
        objects, truth = scene.objects, scene.truth
        keep = np.flatnonzero(objects.area > 0)
        objects, truth = objects.chosen(keep), [truth[i] for i in keep]
        detections, predictions = scene.detections, scene.predictions
        is_scored = np.isin(detections.group, objects.group)
        is_scored |= np.isin(detections.group, self._groups("neg_category_ids"))
        keep = np.flatnonzero(is_scored & (detections.area > 0))
        detections, predictions = detections.chosen(keep), [predictions[i] for i in keep]
        is_excused = np.isin(detections.group, self._groups("not_exhaustive_category_ids"))
        return Scene(truth, objects, predictions, replace(detections, is_excused=is_excused))

    def _groups(self, key: str) -> np.ndarray:
        """The groups (a category and an image) that images list under this key."""
        image_ids, row = self.params.imgIds, {id_: k for k, id_ in enumerate(self.params.catIds)}
        groups = [
            row[category_id] * len(image_ids) + image
            for image, image_id in enumerate(image_ids)
            for category_id in self.cocoGt.imgs[image_id][key]
            if category_id in row
        ]
        return np.array(groups, np.int64)


def _summarize(scored: _FederatedEval) -> dict[str, float]:
    scored.evaluate()
    scored.accumulate()
    precision, thresholds = scored.eval["precision"][..., 0], scored.params.iouThrs  # (T, R, K, A)
    metrics = {name: mean_percent(precision[..., area]) for name, area in AREAS.items()}
    for iou in (0.5, 0.75):
        metrics[f"AP{round(100 * iou)}"] = mean_percent(precision[np.isclose(thresholds, iou)][..., 0])
    categories = scored.cocoGt.loadCats(scored.params.catIds)
    for frequency in FREQUENCIES:
        chosen = [category.get("frequency") == frequency for category in categories]
        metrics[f"AP{frequency}"] = mean_percent(precision[:, :, chosen, 0])
    return {name: metrics[name] for name in METRICS}
