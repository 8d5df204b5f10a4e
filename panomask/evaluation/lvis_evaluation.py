"""Box and mask AP of a model's predictions, by LVIS's definition."""

import logging
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

from panomask.errors import InputError
from panomask.evaluation.coco_evaluation import COCOEvaluator
from panomask.evaluation.lvis_scores import IOU_TYPES, MAX_DETECTIONS, evaluate_lvis_json

logger = logging.getLogger(__name__)


class LVISEvaluator(COCOEvaluator):
    """AP, AP by size and AP of rare, common and frequent categories, for boxes and, where predicted, masks.

    The data set's metadata name its annotations (`json_file`), which must be LVIS's. Predictions are written
    to `output_dir/lvis_instances_results.json`.
    """

    results_file = "lvis_instances_results.json"

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | PathLike | None = None,
        *,
        max_dets_per_image: int | None = None,
    ) -> None:
        """
        Args:
            dataset_name: a registered data set in LVIS's format.
            tasks: "bbox", "segm" or both; by default what the predictions hold.
            distributed, output_dir: see `COCOEvaluator`.
            max_dets_per_image: how many detections of an image are scored, LVIS's 300 by default.
        """
        super().__init__(dataset_name, tasks, distributed, output_dir)
        unknown = set(self._tasks or ()) - set(IOU_TYPES)
        if unknown:
            raise InputError(f"tasks {sorted(unknown)} cannot be scored; give some of {list(IOU_TYPES)}")
        if self._metadata.get("json_file") is None:
            raise InputError(
                f"data set {dataset_name!r} names no annotation file (json_file), which LVIS's scores need;"
                " register it by register_lvis_instances"
            )
        self._limit = MAX_DETECTIONS if max_dets_per_image is None else max_dets_per_image

    def _warn_of_crowded_images(self) -> None:
        """LVIS's limit is above the objects of its images."""

    def _score(
        self, results: list[dict[str, Any]], task: str, img_ids: Iterable[Any] | None
    ) -> dict[str, float]:
        if img_ids is not None:
            raise InputError("img_ids: LVIS's scores are those of all images; evaluate without img_ids")
        if not results:
            logger.warning("The model predicted no object at all: every %s score is 0", task)
        return evaluate_lvis_json(self._coco_api, results, task, max_detections=self._limit)
