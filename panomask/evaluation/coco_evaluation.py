"""Box, mask and keypoint AP of a model's predictions, by COCO's definition."""

import itertools
import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from panomask.data.catalog import MetadataCatalog
from panomask.distributed import gather, is_main_process, synchronize
from panomask.errors import InputError
from panomask.evaluation.box_proposals import PROPOSALS_FILE, box_proposal_recalls, write_box_proposals
from panomask.evaluation.coco_ground_truth import has_masks, load_ground_truth
from panomask.evaluation.coco_json import (
    KEYPOINT_OFFSET,
    convert_to_coco_dict,
    convert_to_coco_json,
)
from panomask.evaluation.coco_keypoints import has_keypoints
from panomask.evaluation.coco_scores import (
    IOU_TYPES,
    MAX_DETECTIONS,
    MAX_KEYPOINT_DETECTIONS,
    category_metrics,
    evaluate_coco_json,
    summary_metrics,
)
from panomask.evaluation.evaluator import DatasetEvaluator
from panomask.evaluation.mask_encoding import encode_masks
from panomask.json_file import collection_paused, write_json
from panomask.structures import BoxMode, Instances

logger = logging.getLogger(__name__)

RESULTS_FILE = "coco_instances_results.json"
_TASK_FIELDS = {"bbox": "pred_boxes", "segm": "pred_masks", "keypoints": "pred_keypoints"}


class COCOEvaluator(DatasetEvaluator):
    """COCO's numbers and the AP of each class, for boxes and, where predicted, masks and keypoints.

    Predictions become COCO results (masks as RLE) as soon as they are processed; that is all that is kept,
    gathered from the processes and written to `output_dir/coco_instances_results.json`.

    Evaluators of research code derive from this one: the names of its members beginning with an underscore
    are Detectron2's where it has them, and `_eval_predictions` is there to be overridden.
    """

    results_file = RESULTS_FILE
    _logger = logger
    _cpu_device = torch.device("cpu")

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
            tasks: some of "bbox", "segm", "keypoints"; by default what the predictions hold. (A config, as
                older Detectron2 code passes, gives kpt_oks_sigmas.)
            distributed: gather predictions from all processes; otherwise each process scores its own.
            output_dir: where to write the predictions; None writes nothing.
            max_dets_per_image: limit on detections per image, 100 by default; or three limits,
                as in [1, 10, 100]. For keypoints it is always COCO's 20.
            use_fast_impl: False scores by pycocotools itself: the same numbers, many times as slow.
            kpt_oks_sigmas: one for each keypoint; () stands for the metadata's `keypoint_oks_sigmas`, else
                those of the annotation file, else COCO's for COCO's 17 keypoints.
            allow_cached_coco: keep an earlier conversion of the dataset dicts found in `output_dir`, unless
                it is seen to be older than the files of a panoptic data set.
        """
        if isinstance(tasks, dict):
            tasks, kpt_oks_sigmas = None, kpt_oks_sigmas or tasks["TEST"]["KEYPOINT_OKS_SIGMAS"]
        unknown = set(tasks or ()) - set(IOU_TYPES)
        if unknown:
            raise InputError(f"tasks {sorted(unknown)} cannot be scored; give some of {list(IOU_TYPES)}")
        self._dataset_name = dataset_name
        self._tasks = None if tasks is None else tuple(tasks)
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_dets_per_image = _detection_limits(max_dets_per_image)
        self._kpt_oks_sigmas = list(kpt_oks_sigmas)
        self._use_fast_impl = use_fast_impl
        self._allow_cached_coco = allow_cached_coco
        self._metadata = MetadataCatalog.get(dataset_name)
        COCOEvaluator.reset(self)  # that of a subclass may need what its constructor sets

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
        sources = [self._metadata.get(key) for key in ("panoptic_json", "panoptic_root")]
        is_current = not _has_changed_since(converted, [source for source in sources if source is not None])
        may_keep = self._allow_cached_coco and is_current
        convert_to_coco_json(self._dataset_name, converted, allow_cached=may_keep)
        return load_ground_truth(converted)

    @property
    def _do_evaluation(self) -> bool:
        """Whether there are annotations to score against; test sets have none."""
        return "annotations" in self._coco_api.dataset

    def reset(self) -> None:
        self._results: OrderedDict[str, dict[str, float]] = OrderedDict()
        self._predictions: list[dict[str, Any]] = []
        self._predicted_tasks: set[str] = set()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Keep a batch's predictions as COCO results.

        Args:
            inputs: dataset dicts with `image_id`.
            outputs: dicts whose `instances` hold `pred_boxes, scores, pred_classes` and perhaps `pred_masks`
                and `pred_keypoints`, in pixels of the original image; or whose `proposals` hold
                `proposal_boxes` and `objectness_logits`.
        """
        for record, output in zip(inputs, outputs, strict=True):
            if not {"instances", "proposals"} & set(output):
                continue
            if "image_id" not in record:
                raise InputError(
                    f"{record.get('file_name')}: the dataset dict has no image_id, which evaluation needs; "
                    "add one that is unique, in the function that returns the data set"
                )
            prediction = {"image_id": record["image_id"]}
            if "proposals" in output:
                prediction["proposals"] = output["proposals"].to("cpu")
            if "instances" in output:
                found = output["instances"]
                self._predicted_tasks |= {task for task, field in _TASK_FIELDS.items() if found.has(field)}
                prediction["instances"] = instances_to_coco_json(found, record["image_id"])
            self._predictions.append(prediction)

    @collection_paused()  # half a million detections are a dict each, and several times
    def evaluate(self, img_ids: Iterable[Any] | None = None) -> OrderedDict[str, dict[str, float]]:
        """Write and score the predictions of all processes.

        Args:
            img_ids: images to score; by default all of the data set, also those that were not processed.

        Returns:
            `{"bbox": metrics, "segm": metrics, "keypoints": metrics}` in percent, as `evaluate_coco_json`
            returns them, or `{"box_proposals": metrics}`, as `box_proposal_recalls` does, on the main
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
        predictions = _once_per_image(predictions)
        self._results, self._predicted_tasks = OrderedDict(), predicted_tasks
        if any("proposals" in prediction for prediction in predictions):
            self._results |= self._evaluate_proposals(predictions, img_ids)
        if any("instances" in prediction for prediction in predictions):
            self._eval_predictions(predictions, img_ids)
        return self._results

    def _evaluate_proposals(
        self, predictions: list[dict[str, Any]], img_ids: Iterable[Any] | None
    ) -> dict[str, dict[str, float]]:
        """Write and score `proposals`; see `evaluate`."""
        proposals = {entry["image_id"]: entry["proposals"] for entry in predictions if "proposals" in entry}
        if self._output_dir is not None:
            path = Path(self._output_dir) / PROPOSALS_FILE
            write_box_proposals(path, proposals)
            logger.info("Proposals of %d images are in %s", len(proposals), path)
        if not self._do_evaluation:
            logger.info("%s has no annotations: its proposals are saved but not scored", self._dataset_name)
            return {}
        if img_ids is not None:
            proposals = {image_id: proposals[image_id] for image_id in img_ids if image_id in proposals}
        return {"box_proposals": box_proposal_recalls(proposals, self._coco_api)}

    def _eval_predictions(
        self, predictions: list[dict[str, Any]], img_ids: Iterable[Any] | None = None
    ) -> None:
        """Write `instances`, and score them into `self._results`; see `evaluate`."""
        results = self._to_dataset_ids(predictions)
        if self._output_dir is not None:
            path = Path(self._output_dir) / self.results_file
            write_json(path, results)
            logger.info("%d predictions are in %s", len(results), path)
        if not self._do_evaluation:
            logger.info("%s has no annotations: its predictions are saved but not scored", self._dataset_name)
            return
        self._warn_of_crowded_images()
        tasks = self._tasks_to_score(self._predicted_tasks or set(self._tasks_from_predictions(results)))
        if "keypoints" in tasks:
            self._warn_of_crowded_keypoints()
        self._results |= {task: self._score(results, task, img_ids) for task in tasks}

    def _warn_of_crowded_images(self) -> None:
        """Objects beyond the limit of detections can only be missed: AP cannot reach 100 then."""
        limit = self._max_dets_per_image[-1]
        objects = Counter(a["image_id"] for a in self._coco_api.dataset["annotations"] if not a["iscrowd"])
        crowded = [count for count in objects.values() if count > limit]
        if crowded:
            logger.warning(
                "%d images of %s have more than %d objects (up to %d), but at most %d detections an image are"
                " scored; TEST.DETECTIONS_PER_IMAGE (max_dets_per_image) raises this limit",
                *(len(crowded), self._dataset_name, limit, max(crowded), limit),
            )

    def _warn_of_crowded_keypoints(self) -> None:
        """The same for keypoints, whose limit is COCO's alone."""
        limit = MAX_KEYPOINT_DETECTIONS[-1]
        annotations = self._coco_api.dataset["annotations"]
        objects = Counter(a["image_id"] for a in annotations if any((a.get("keypoints") or ())[2::3]))
        crowded = sum(count > limit for count in objects.values())
        if crowded:
            logger.warning(
                "%d images of %s have keypoints of more than %d objects, but COCO's rules score those of at"
                " most %d detections an image",
                *(crowded, self._dataset_name, limit, limit),
            )

    def _tasks_to_score(self, predicted: set[str]) -> list[str]:
        """The tasks asked for, or else all that predictions and annotations both hold."""
        if self._tasks is not None:
            return list(self._tasks)
        if "segm" in predicted and not has_masks(self._coco_api):
            logger.warning("%s has no masks in its annotations: only boxes are scored", self._dataset_name)
            predicted = predicted - {"segm"}
        if "keypoints" in predicted and not has_keypoints(self._coco_api):
            logger.warning("%s has no keypoints in its annotations: they are not scored", self._dataset_name)
            predicted = predicted - {"keypoints"}
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
            max_detections=self._max_dets_per_image,
            use_mask_area=True,
            oks_sigmas=self._kpt_oks_sigmas or self._metadata.get("keypoint_oks_sigmas"),
            use_fast_impl=self._use_fast_impl,
        )

    def _tasks_from_predictions(self, predictions: list[dict[str, Any]]) -> list[str]:
        """The tasks that COCO results hold something for."""
        fields = {"segm": "segmentation", "keypoints": "keypoints"}
        return ["bbox", *(t for t, field in fields.items() if any(field in entry for entry in predictions))]

    def _derive_coco_results(
        self, coco_eval: COCOeval | None, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        """The numbers of pycocotools' evaluation, as `evaluate_coco_json` returns them; NaN without one.

        The classes' names are those of the annotations: `class_names` changes nothing.
        """
        if coco_eval is None:
            return {"AP": float("nan")}
        return {**summary_metrics(coco_eval), **category_metrics(coco_eval)}

    def _to_dataset_ids(self, predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """All results in one list, their classes 0..K-1 replaced by the data set's category ids."""
        results = [dict(entry) for prediction in predictions for entry in prediction.get("instances", ())]
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
            `pred_masks` (M, H, W) of the image's size and `pred_keypoints` (M, P, 3): x, y, score.
        img_id: the image's id in the data set.

    Returns:
        One dict an instance: `image_id, category_id` (0..K-1), `bbox` (xywh), `score`, `segmentation` (RLE),
        `keypoints` (3P numbers; x and y as COCO counts them, half a pixel less than continuous coordinates).
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
    if instances.has("pred_keypoints"):
        keypoints = instances.pred_keypoints.detach().cpu().clone()  # (M, P, 3)
        keypoints[..., :2] -= KEYPOINT_OFFSET
        for result, points in zip(results, keypoints.flatten(1).tolist(), strict=True):
            result["keypoints"] = points
    return results


def _tensor(value: Any) -> torch.Tensor:
    """The tensor of a Boxes or BitMasks, or the tensor that came."""
    return value if isinstance(value, torch.Tensor) else value.tensor


def _has_changed_since(file: Path, sources: Iterable[str]) -> bool:
    """Whether any of the sources (of a folder: its list of files) changed after the file was written."""
    if not file.is_file():
        return True
    written = file.stat().st_mtime
    return any(Path(source).stat().st_mtime > written for source in sources)


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
