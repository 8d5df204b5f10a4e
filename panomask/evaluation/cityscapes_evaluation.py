"""Mask AP and semantic IoU of a model's predictions, by Cityscapes' definitions."""

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from panomask.data.catalog import MetadataCatalog
from panomask.distributed import gather, is_main_process
from panomask.errors import InputError
from panomask.evaluation.cityscapes_scores import (
    THRESHOLDS,
    ImageClass,
    average_precision,
    label_of,
    overlap_prediction,
)
from panomask.evaluation.cityscapes_semantic import (
    CLASS_NAMES,
    NUM_CLASSES,
    SemanticCounts,
    category_scores,
    class_scores,
    count_image,
)
from panomask.evaluation.evaluator import DatasetEvaluator
from panomask.evaluation.results import mean_measured
from panomask.semantic_png import read_cityscapes_ids

logger = logging.getLogger(__name__)

IMAGE_SUFFIX = "leftImg8bit.png"
TRUTH_SUFFIX = "gtFine_instanceIds.png"
LABELS_SUFFIX = "gtFine_labelIds.png"


class CityscapesEvaluator(DatasetEvaluator):
    """What the evaluators of Cityscapes share: where the truth of an image lies."""

    def __init__(self, dataset_name: str) -> None:
        """`dataset_name`: registered with gt_dir, as the built-in cityscapes_fine_... sets are."""
        self._metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        if self._metadata.get("gt_dir") is None:
            raise InputError(
                f"data set {dataset_name!r} does not say where its truth lies (gt_dir), which Cityscapes'"
                " scores need; set it in its metadata"
            )

    def _truth_file(self, file_name: str, suffix: str) -> Path:
        """gt_dir/<city>/<name>_<suffix> of the image .../<city>/<name>_leftImg8bit.png."""
        image = Path(file_name)
        return (
            Path(self._metadata.gt_dir) / image.parent.name / (image.name.removesuffix(IMAGE_SUFFIX) + suffix)
        )


class CityscapesInstanceEvaluator(CityscapesEvaluator):
    """AP of masks at IoU 0.5 to 0.95 and at 0.5, over the classes that have objects.

    Masks are compared with `*_gtFine_instanceIds.png` as they are processed; only the sizes of overlaps are
    kept. Besides gt_dir, the metadata give thing_classes, thing_dataset_id_to_contiguous_id (label id ->
    class) and stuff_dataset_id_to_contiguous_id (all labels that are scored; the others are void).
    """

    def __init__(self, dataset_name: str) -> None:
        super().__init__(dataset_name)
        to_contiguous = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if to_contiguous is None:
            raise InputError(
                f"data set {dataset_name!r} does not say which labels its classes are"
                " (thing_dataset_id_to_contiguous_id); set it in its metadata"
            )
        self._label_ids = {class_id: label_id for label_id, class_id in to_contiguous.items()}
        stuff = self._metadata.get("stuff_dataset_id_to_contiguous_id", ())
        self._scored_ids = {*self._label_ids.values(), *stuff}
        CityscapesInstanceEvaluator.reset(self)  # that of a subclass may need what its constructor sets

    def reset(self) -> None:
        self._images: dict[Any, dict[int, ImageClass]] = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Compare a batch's `pred_masks`, `scores` and `pred_classes`, of the original image's size."""
        for record, output in zip(inputs, outputs, strict=True):
            if "instances" in output:
                self._images[record["file_name"]] = self._compare(record["file_name"], output["instances"])

    def _compare(self, file_name: str, instances: Any) -> dict[int, ImageClass]:
        """Class -> its objects and predictions in one image."""
        if not instances.has("pred_masks"):
            raise InputError("the predictions have no masks, which Cityscapes scores: set MODEL.MASK_ON True")
        ids = read_cityscapes_ids(self._truth_file(file_name, TRUTH_SUFFIX))
        found, counts = np.unique(ids, return_counts=True)
        pixels = dict(zip(found.tolist(), counts.tolist(), strict=True))
        void_ids = {id_ for id_ in pixels if label_of(id_) not in self._scored_ids and id_ == label_of(id_)}
        compared = {
            class_id: ImageClass({id_: n for id_, n in pixels.items() if label_of(id_) == label_id}, [])
            for class_id, label_id in self._label_ids.items()
        }
        classes, scores = instances.pred_classes.tolist(), instances.scores.tolist()
        masks = instances.pred_masks.cpu()
        if len(masks) and tuple(masks.shape[1:]) != ids.shape:
            raise InputError(
                f"{file_name}: predicted masks are of {tuple(masks.shape[1:])} pixels and the truth of"
                f" {ids.shape}; images and truth must be of one size"
            )
        for class_id, score, mask in zip(classes, scores, masks, strict=True):
            if class_id not in compared:
                raise InputError(
                    f"the model predicted class {class_id}, but {self._dataset_name} has {len(compared)}"
                    " classes; use the weights of a model with these classes"
                )
            mask = mask.numpy().astype(bool)
            prediction = overlap_prediction(mask, score, ids, self._label_ids[class_id], void_ids)
            if prediction is not None:
                compared[class_id].predictions.append(prediction)
        return compared

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """`{"segm": {"AP", "AP50", and "AP-class" for each}}` in percent, on the main process."""
        shards = gather(self._images, dst=0)
        if not is_main_process():
            return None
        images = {name: compared for shard in shards for name, compared in shard.items()}
        if not images:
            logger.warning("%s: no predictions were processed; nothing is scored", self._dataset_name)
            return OrderedDict()
        ap = 100 * np.array(
            [
                average_precision([image[class_id] for image in images.values()])
                for class_id in self._label_ids
            ]
        )  # (K, T)
        metrics = {"AP": mean_measured(ap), "AP50": mean_measured(ap[:, np.isclose(THRESHOLDS, 0.5)])}
        for class_id, row in zip(self._label_ids, ap, strict=True):
            metrics[f"AP-{self._metadata.thing_classes[class_id]}"] = mean_measured(row)
        return OrderedDict(segm=metrics)


class CityscapesSemSegEvaluator(CityscapesEvaluator):
    """IoU of the 19 classes and of their 7 categories, and iIoU, which weights objects by their size.

    Pixels are compared with `*_gtFine_labelIds.png` and `*_gtFine_instanceIds.png` as they are processed;
    only counts are kept. (An image that comes twice counts twice.)
    """

    def __init__(self, dataset_name: str) -> None:
        super().__init__(dataset_name)
        CityscapesSemSegEvaluator.reset(self)  # that of a subclass may need what its constructor sets

    def reset(self) -> None:
        self._counts = SemanticCounts()
        self._num_images = 0

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Count the pixels of a batch's `sem_seg`: (19, H, W) scores or logits by train id, in full size."""
        for record, output in zip(inputs, outputs, strict=True):
            if "sem_seg" not in output:
                continue
            scores = output["sem_seg"]
            if len(scores) != NUM_CLASSES:
                raise InputError(
                    f"the model predicts {len(scores)} semantic classes, but Cityscapes scores {NUM_CLASSES};"
                    " use the weights of a model with these classes, by train id"
                )
            best = scores.max(dim=0).indices  # argmax takes 2 to 10 times as long on the CPU
            predicted = best.cpu().numpy()
            labels, ids = (
                read_cityscapes_ids(self._truth_file(record["file_name"], suffix))
                for suffix in (LABELS_SUFFIX, TRUTH_SUFFIX)
            )
            if not predicted.shape == labels.shape == ids.shape:
                raise InputError(
                    f"{record['file_name']}: the predicted map is of {predicted.shape} pixels, the truth of"
                    f" {labels.shape} and {ids.shape}; images and truth must be of one size"
                )
            self._counts += count_image(predicted, labels, ids)
            self._num_images += 1

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """`{"sem_seg": {"IoU", "iIoU", "IoU_sup", "iIoU_sup", and "IoU-class" for each}}` in percent.

        On the main process; `_sup` is the mean over categories. NaN for what occurs nowhere.
        """
        shards = gather((self._counts, self._num_images), dst=0)
        if not is_main_process():
            return None
        if not sum(images for _, images in shards):
            logger.warning("%s: no semantic predictions were processed", self._dataset_name)
            return OrderedDict()
        counts = sum((counts for counts, _ in shards), SemanticCounts())
        iou, instance_iou = class_scores(counts)
        category_iou, category_instance_iou = category_scores(counts)
        metrics = {
            "IoU": 100 * mean_measured(iou),
            "iIoU": 100 * mean_measured(instance_iou),
            "IoU_sup": 100 * mean_measured(category_iou),
            "iIoU_sup": 100 * mean_measured(category_instance_iou),
        }
        metrics |= {f"IoU-{name}": 100 * float(value) for name, value in zip(CLASS_NAMES, iou, strict=True)}
        return OrderedDict(sem_seg=metrics)
