"""Box and mask AP of a model's predictions, by COCO's definition."""

import itertools
import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from pycocotools.coco import COCO

from panomask.data.catalog import MetadataCatalog
from panomask.distributed import gather, is_main_process, synchronize
from panomask.errors import InputError
from panomask.evaluation.coco_ground_truth import has_masks, load_ground_truth
from panomask.evaluation.coco_json import convert_to_coco_dict, convert_to_coco_json
from panomask.evaluation.coco_scores import IOU_TYPES, MAX_DETECTIONS, evaluate_coco_json
from panomask.evaluation.evaluator import DatasetEvaluator
from panomask.json_file import write_json
from panomask.structures import BoxMode, Instances

logger = logging.getLogger(__name__)

RESULTS_FILE = "coco_instances_results.json"


class COCOEvaluator(DatasetEvaluator):
    """The twelve COCO numbers and the AP of each class, for boxes and, where predicted, masks.

    Predictions become COCO results (masks as RLE) as soon as they are processed; that is all that is kept,
    gathered from the processes and written to `output_dir/coco_instances_results.json`.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | PathLike | None = None,
        *,
        max_dets_per_image: int | Sequence[int] | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: Sequence[float] = (),
        allow_cached_coco: bool = True,
    ) -> None:
        """
        Args:
            dataset_name: a registered data set. Its annotations are the metadata's `json_file`. Without
                one, or where its `on_bad_annotation` is "drop", they are converted from the dataset dicts.
            tasks: "bbox", "segm" or both; by default what the predictions hold.
            distributed: gather predictions from all processes; otherwise each process scores its own.
            output_dir: where to write the predictions; None writes nothing.
            max_dets_per_image: limit on detections per image, 100 by default; or three limits,
                as in [1, 10, 100].
            use_fast_impl: Detectron2's choice between two implementations of equal numbers; here is one.
            kpt_oks_sigmas: only () so far, for this version does not score keypoints.
            allow_cached_coco: keep an earlier conversion of the dataset dicts found in `output_dir`.
        """
        if len(kpt_oks_sigmas):
            raise InputError("kpt_oks_sigmas: keypoints are not scored by this version; leave it empty")
        tasks = None if isinstance(tasks, dict) else tasks  # a config, as older Detectron2 code passes
        unknown = set(tasks or ()) - set(IOU_TYPES)
        if unknown:
            raise InputError(f"tasks {sorted(unknown)} cannot be scored; give some of {list(IOU_TYPES)}")
        self._dataset_name = dataset_name
        self._tasks = None if tasks is None else tuple(tasks)
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_detections = _detection_limits(max_dets_per_image)
        self._allow_cached_coco = allow_cached_coco
        self._metadata = MetadataCatalog.get(dataset_name)
        self.reset()

    @cached_property
    def _coco_api(self) -> COCO:
        """The ground truth, read when it is first needed: on the main process, after inference."""
        json_file = self._metadata.get("json_file")
        leaves_out_bad = self._metadata.get("on_bad_annotation") == "drop"
        if json_file is not None and not leaves_out_bad:
            return load_ground_truth(json_file)
        if self._output_dir is None or leaves_out_bad:
            return load_ground_truth(convert_to_coco_dict(self._dataset_name))
        converted = Path(self._output_dir) / f"{self._dataset_name}_coco_format.json"
        convert_to_coco_json(self._dataset_name, converted, allow_cached=self._allow_cached_coco)
        return load_ground_truth(converted)

    def reset(self) -> None:
        self._predictions: list[dict[str, Any]] = []
        self._predicted_tasks: set[str] = set()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Keep a batch's predictions as COCO results.

        Args:
            inputs: dataset dicts with `image_id`.
            outputs: dicts whose `instances` hold `pred_boxes, scores, pred_classes` and perhaps `pred_masks`,
                in pixels of the original image.
        """
        for record, output in zip(inputs, outputs, strict=True):
            if "instances" not in output:
                continue
            if "image_id" not in record:
                raise InputError(
                    f"{record.get('file_name')}: the dataset dict has no image_id, which evaluation needs; "
                    "add one that is unique, in the function that returns the data set"
                )
            instances = output["instances"]
            self._predicted_tasks |= {"bbox", "segm"} if instances.has("pred_masks") else {"bbox"}
            results = instances_to_coco_json(instances, record["image_id"])
            self._predictions.append({"image_id": record["image_id"], "instances": results})

    def evaluate(self, img_ids: Iterable[Any] | None = None) -> OrderedDict[str, dict[str, float]]:
        """Write and score the predictions of all processes.

        Args:
            img_ids: images to score; by default all of the data set, also those that were not processed.

        Returns:
            `{"bbox": metrics, "segm": metrics}` in percent, as `evaluate_coco_json` returns them, on the main
            process; empty on the others, and where nothing was processed or the data set has no annotations.
        """
        predictions, predicted_tasks = self._predictions, self._predicted_tasks
        if self._distributed:
            synchronize()
            shards = gather((predictions, predicted_tasks), dst=0)
            if not is_main_process():
                return OrderedDict()
            predictions = list(itertools.chain.from_iterable(shard for shard, _ in shards))
            predicted_tasks = set().union(*(found for _, found in shards))
        if not predictions:
            logger.warning("%s: no predictions were processed; nothing is scored", self._dataset_name)
            return OrderedDict()
        results = self._to_dataset_ids(_once_per_image(predictions))
        if self._output_dir is not None:
            path = Path(self._output_dir) / RESULTS_FILE
            write_json(path, results)
            logger.info("%d predictions are in %s", len(results), path)
        if "annotations" not in self._coco_api.dataset:
            logger.info("%s has no annotations: its predictions are saved but not scored", self._dataset_name)
            return OrderedDict()
        self._warn_of_crowded_images()
        return OrderedDict(
            (task, self._score(results, task, img_ids)) for task in self._tasks_to_score(predicted_tasks)
        )

    def _warn_of_crowded_images(self) -> None:
        """Objects beyond the limit of detections can only be missed: AP cannot reach 100 then."""
        limit = self._max_detections[-1]
        objects = Counter(a["image_id"] for a in self._coco_api.dataset["annotations"] if not a["iscrowd"])
        crowded = [count for count in objects.values() if count > limit]
        if crowded:
            logger.warning(
                "%d images of %s have more than %d objects (up to %d), but at most %d detections an image are"
                " scored; TEST.DETECTIONS_PER_IMAGE (max_dets_per_image) raises this limit",
                *(len(crowded), self._dataset_name, limit, max(crowded), limit),
            )

    def _tasks_to_score(self, predicted: set[str]) -> list[str]:
        """The tasks asked for, or else all that predictions and annotations both hold."""
        if self._tasks is not None:
            return list(self._tasks)
        if "segm" in predicted and not has_masks(self._coco_api):
            logger.warning("%s has no masks in its annotations: only boxes are scored", self._dataset_name)
            predicted = predicted - {"segm"}
        return [task for task in IOU_TYPES if task in predicted]

    def _score(
        self, results: list[dict[str, Any]], task: str, img_ids: Iterable[Any] | None
    ) -> dict[str, float]:
        if not results:
            logger.warning("The model predicted no object at all: every %s score is 0", task)
        return evaluate_coco_json(
            self._coco_api,
            results,
            task,
            img_ids=img_ids,
            max_detections=self._max_detections,
            use_mask_area=True,
        )

    def _to_dataset_ids(self, predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """All results in one list, their classes 0..K-1 replaced by the data set's category ids."""
        results = [dict(entry) for prediction in predictions for entry in prediction["instances"]]
        to_contiguous = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if to_contiguous is None:
            return results
        to_dataset_id = {contiguous: dataset_id for dataset_id, contiguous in to_contiguous.items()}
        for result in results:
            predicted = result["category_id"]
            if predicted not in to_dataset_id:
                raise InputError(
                    f"the model predicted class {predicted}, but {self._dataset_name} has"
                    f" {len(to_dataset_id)} classes; use the weights of a model with these classes"
                )
            result["category_id"] = to_dataset_id[predicted]
        return results


def instances_to_coco_json(instances: Instances, img_id: Any) -> list[dict[str, Any]]:
    """Predicted instances of one image as COCO results.

    Args:
        instances: with `pred_boxes` (Boxes or a (M, 4) tensor, xyxy), `scores`, `pred_classes`, and perhaps
            `pred_masks` (M, H, W) of the image's size.
        img_id: the image's id in the data set.

    Returns:
        One dict an instance: `image_id, category_id` (0..K-1), `bbox` (xywh), `score`, `segmentation` (RLE).
    """
    if len(instances) == 0:
        return []
    boxes_xyxy = _tensor(instances.pred_boxes).detach().cpu()
    boxes = BoxMode.convert(boxes_xyxy, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
    scores, classes = instances.scores.tolist(), instances.pred_classes.tolist()
    results = [
        {"image_id": img_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in zip(classes, boxes, scores, strict=True)
    ]
    if instances.has("pred_masks"):
        for result, rle in zip(results, encode_masks(_tensor(instances.pred_masks)), strict=True):
            result["segmentation"] = rle
    return results


def encode_masks(masks: torch.Tensor) -> list[dict[str, Any]]:
    """Binary masks (M, H, W) as compressed RLE whose counts are text, one at a time to spare memory."""
    rles = [
        mask_util.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8)) for mask in masks.detach().cpu()
    ]
    return [{"size": rle["size"], "counts": rle["counts"].decode("ascii")} for rle in rles]


def _tensor(value: Any) -> torch.Tensor:
    """The tensor of a Boxes or BitMasks, or the tensor that came."""
    return value if isinstance(value, torch.Tensor) else value.tensor


def _detection_limits(max_dets_per_image: int | Sequence[int] | None) -> tuple[int, ...]:
    if max_dets_per_image is None:
        return MAX_DETECTIONS
    if isinstance(max_dets_per_image, int):
        return (*MAX_DETECTIONS[:-1], max_dets_per_image)
    return tuple(max_dets_per_image)


def _once_per_image(predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first predictions of every image: samplers that pad give some images twice."""
    first: dict[Any, dict[str, Any]] = {}
    for prediction in predictions:
        first.setdefault(prediction["image_id"], prediction)
    if len(first) < len(predictions):
        logger.warning("%d images came more than once; their first is scored", len(predictions) - len(first))
    return list(first.values())
