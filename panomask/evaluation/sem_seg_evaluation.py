"""Semantic IoU and pixel accuracy of a model's `sem_seg`, by Detectron2's definitions."""

import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panomask.data.catalog import DatasetCatalog, MetadataCatalog, things_label
from panomask.distributed import gather, is_main_process, synchronize
from panomask.errors import InputError
from panomask.evaluation.evaluator import DatasetEvaluator
from panomask.evaluation.sem_seg_scores import count_boundary_pairs, count_pairs, semantic_scores
from panomask.json_file import write_json
from panomask.semantic_png import IGNORE_LABEL, read_semantic_labels
from panomask.structures.panoptic_record import read_segment_map
from panomask.structures.segment_map import FIRST_SEGMENT, segment_rles, semantic_labels, semantic_map

logger = logging.getLogger(__name__)

RESULTS_FILE = "sem_seg_predictions.json"


def load_image_into_numpy_array(filename: str, dtype: Any = None) -> np.ndarray:
    """The labels (H, W) of an image in grey-scale or with a palette, see `read_semantic_labels`."""
    return np.array(read_semantic_labels(filename), dtype=dtype)


class SemSegEvaluator(DatasetEvaluator):
    """mIoU, frequency-weighted IoU, mean and pixel accuracy, and the IoU and accuracy of each class.

    Pixels are counted as they are processed, on the device of the prediction: what is kept is one matrix of
    classes, however many images there are. (An image that comes twice counts twice.) With an `output_dir`,
    the predictions are also kept as RLE, as in Detectron2, until they are written to
    `sem_seg_predictions.json`.

    Evaluators of research code derive from this one: the names of its members beginning with an underscore
    are Detectron2's where it has them.
    """

    _logger = logger
    _cpu_device = torch.device("cpu")

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | PathLike | None = None,
        *,
        sem_seg_loading_fn: Callable[..., np.ndarray] = load_image_into_numpy_array,
        num_classes: int | None = None,
        ignore_label: int | None = None,
        boundary_iou: bool = False,
    ) -> None:
        """
        Args:
            dataset_name: a registered data set with `stuff_classes` in its metadata. Its dicts have a
                `sem_seg_file_name`, or a `pan_seg_file_name` with `segments_info`, from which labels follow.
            distributed: sum over all processes; otherwise each scores its own.
            output_dir: where to write the predictions; None writes nothing.
            sem_seg_loading_fn: (file name, dtype=int) -> (H, W) labels.
            num_classes: as many as the metadata has; Detectron2 has it from earlier times.
            ignore_label: that of void pixels; by default the metadata's, else 255.
            boundary_iou: also measure boundary IoU, at several times the cost.
        """
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = output_dir
        self._metadata = MetadataCatalog.get(dataset_name)
        if self._metadata.get("stuff_classes") is None and dataset_name in DatasetCatalog:
            DatasetCatalog.get(dataset_name)  # readers take the names from the files
        names = self._metadata.get("stuff_classes")
        if not names:
            raise InputError(
                f"data set {dataset_name!r}: its metadata has no names of semantic classes;"
                f" set MetadataCatalog.get({dataset_name!r}).stuff_classes"
            )
        if num_classes not in (None, len(names)):
            raise InputError(
                f"data set {dataset_name!r} has {len(names)} semantic classes (stuff_classes in its"
                f" metadata), but num_classes is {num_classes}; leave num_classes out"
            )
        to_contiguous = self._metadata.get("stuff_dataset_id_to_contiguous_id")
        if to_contiguous is not None and things_label(self._metadata) is None:  # one list with the things
            to_contiguous = {
                **self._metadata.get("thing_dataset_id_to_contiguous_id", {}),
                **to_contiguous,
            }
        self._contiguous_id_to_dataset_id = (
            None if to_contiguous is None else {label: id_ for id_, label in to_contiguous.items()}
        )
        self._class_names = list(names)
        self._num_classes = len(names)
        default = self._metadata.get("ignore_label", IGNORE_LABEL)
        self._ignore_label = default if ignore_label is None else ignore_label
        self._compute_boundary_iou = boundary_iou
        self.sem_seg_loading_fn = sem_seg_loading_fn
        SemSegEvaluator.reset(self)  # that of a subclass may need what its constructor sets

    def reset(self) -> None:
        side = self._num_classes + 1
        self._conf_matrix = np.zeros((side, side), dtype=np.int64)  # [predicted, true]
        self._b_conf_matrix = np.zeros_like(self._conf_matrix)
        self._predictions: list[dict[str, Any]] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Count a batch's pixels.

        Args:
            inputs: dataset dicts.
            outputs: dicts whose `sem_seg` is (K, H, W) scores or logits of the original image's size; others
                are passed over.
        """
        for record, output in zip(inputs, outputs, strict=True):
            if "sem_seg" in output:
                self._count(record, output["sem_seg"])

    def _count(self, record: dict[str, Any], scores: torch.Tensor) -> None:
        if len(scores) != self._num_classes:
            raise InputError(
                f"the model predicts {len(scores)} semantic classes, but {self._dataset_name} has"
                f" {self._num_classes}; use the weights of a model with these classes"
            )
        labels = self._truth(record)
        if labels.shape != tuple(scores.shape[1:]):
            raise InputError(
                f"{record.get('file_name')}: the predicted map is of {tuple(scores.shape[1:])} pixels"
                f" (height, width) and the truth of {labels.shape}; images and truth must be of one size"
            )
        truth = torch.from_numpy(labels).to(scores.device, non_blocking=True)
        predicted = scores.max(dim=0).indices  # argmax takes 2 to 10 times as long on the CPU
        self._conf_matrix += count_pairs(predicted, truth, self._num_classes).cpu().numpy()
        if self._compute_boundary_iou:
            self._b_conf_matrix += count_boundary_pairs(predicted, truth, self._num_classes).cpu().numpy()
        if self._output_dir is not None:
            self._predictions += self.encode_json_sem_seg(predicted.cpu().numpy(), record["file_name"])

    def _truth(self, record: dict[str, Any]) -> np.ndarray:
        """(H, W) int32 labels of an image; `_num_classes` where it is void."""
        path = record.get("sem_seg_file_name")
        if path is None and not self._is_panoptic_only:
            path = self.input_file_to_gt_file.get(str(record.get("file_name")))
        if path is not None:
            labels = self.sem_seg_loading_fn(path, dtype=int)
            if labels.ndim != 2:
                raise InputError(
                    f"{path}: sem_seg_loading_fn returned an array of shape {labels.shape}; semantic truth is"
                    " (height, width) labels"
                )
        elif record.get("pan_seg_file_name") is not None:
            path = record["pan_seg_file_name"]
            segment_map = read_segment_map(record, on_bad=self._metadata.get("on_bad_annotation"))
            of_segments = semantic_labels(record["segments_info"], things_label(self._metadata))
            labels = semantic_map(segment_map, of_segments, self._ignore_label)
        else:
            raise InputError(
                f"{record.get('file_name')}: data set {self._dataset_name!r} has no semantic truth of it; its"
                " dicts need 'sem_seg_file_name', or 'pan_seg_file_name' with 'segments_info'"
            )
        labels = np.where(labels == self._ignore_label, self._num_classes, labels)
        if labels.size and not 0 <= labels.min() <= labels.max() <= self._num_classes:
            wrong = labels.max() if labels.max() > self._num_classes else labels.min()
            raise InputError(
                f"{path}: has label {wrong}, but {self._dataset_name} has {self._num_classes} classes (0 to"
                f" {self._num_classes - 1}) and ignores {self._ignore_label}; mend the file, stuff_classes or"
                " ignore_label"
            )
        return labels.astype(np.int32, copy=False)

    @property
    def _is_panoptic_only(self) -> bool:
        """Whether the data set is known to have no label files: its dicts need not be read again then."""
        known = self._metadata
        return known.get("sem_seg_things_label") is not None and known.get("sem_seg_root") is None

    @cached_property
    def input_file_to_gt_file(self) -> dict[str, str]:
        """File name of an image -> its label file; mappers take the latter out of what a model gets."""
        dicts = DatasetCatalog.get(self._dataset_name)
        return {str(d["file_name"]): d["sem_seg_file_name"] for d in dicts if "sem_seg_file_name" in d}

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """`{"sem_seg": metrics}` of `semantic_scores`, in percent, on the main process; None on others."""
        found = [(self._conf_matrix, self._b_conf_matrix, self._predictions)]
        if self._distributed:
            synchronize()
            found = gather(found[0], dst=0)
            if not is_main_process():
                return None
        matrices, boundary_matrices, predictions = zip(*found, strict=True)
        matrix = sum(matrices)
        if not matrix.any():  # where `process` is overridden, nothing else tells
            logger.warning("%s: no semantic predictions were processed", self._dataset_name)
            return OrderedDict()
        if self._output_dir is not None:
            path = Path(self._output_dir) / RESULTS_FILE
            write_json(path, list(itertools.chain.from_iterable(predictions)))
            logger.info("Semantic predictions are in %s", path)
        boundary = sum(boundary_matrices) if self._compute_boundary_iou else None
        return OrderedDict(sem_seg=semantic_scores(matrix, self._class_names, boundary))

    def encode_json_sem_seg(self, sem_seg: np.ndarray, input_file_name: str) -> list[dict[str, Any]]:
        """A label map (H, W) as entries `file_name, category_id, segmentation`, one for each label in it.

        `category_id` is the data set's, by `stuff_dataset_id_to_contiguous_id`; without one it is the label.
        Label 0 of all things together is left out where it has no id of its own.
        """
        ids = self._contiguous_id_to_dataset_id
        rles = segment_rles(np.asarray(sem_seg) + FIRST_SEGMENT, self._num_classes)
        entries = []
        for label in np.unique(sem_seg).tolist():
            category = label if ids is None else ids.get(label)
            if category is None and label == things_label(self._metadata):
                continue
            if category is None:
                raise InputError(
                    f"{self._dataset_name}: label {label} has no category id; add it to the metadata's"
                    " stuff_dataset_id_to_contiguous_id"
                )
            entries.append(
                {"file_name": input_file_name, "category_id": category, "segmentation": rles[label]}
            )
        return entries
