"""After training: a sheet of images with truth and prediction side by side."""

import logging
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from panomask import distributed
from panomask.data import DatasetCatalog, MetadataCatalog
from panomask.data.detection_utils import read_image
from panomask.engine.train_loop import HookBase
from panomask.evaluation import inference_context
from panomask.visualization import comparison_sheet

logger = logging.getLogger(__name__)

MAX_LOOKED_AT = 20
"""So many images in a row are read in search of one with objects."""


def draw_predictions(
    model: nn.Module, dataset_name: str, data_loader: Any, num_images: int, path: str
) -> None:
    """Predict on images spread evenly over a data set, with objects if they can be, and draw them.

    Nothing is drawn for research models whose output, or samples, are their own: a run does not end there.

    Args:
        model: with the loader's samples as input; its mode is restored.
        dataset_name: for the truth and the class names.
        data_loader: a test loader of that data set; its `dataset` gives mapped samples.
        num_images: how many, at most.
        path: the picture to write.
    """
    samples = data_loader.dataset
    num_images = min(num_images, len(samples))
    if num_images == 0:
        return
    records = DatasetCatalog.get(dataset_name)
    truths = {record["file_name"]: record for record in records if "file_name" in record}
    if samples[0].get("file_name") not in truths:
        return
    bounds = [i * len(samples) // num_images for i in range(num_images + 1)]
    rows = []
    with inference_context(model), torch.no_grad():
        for start, stop in pairwise(bounds):
            sample, truth = _first_with_objects(samples, range(start, stop), truths)
            prediction = comparable_output(_first_output(model([sample])), truth)
            if prediction is None:
                return
            rows.append((read_image(sample["file_name"], "RGB"), truth, prediction))
    comparison_sheet(rows, MetadataCatalog.get(dataset_name), path)
    logger.info(f"Truth and prediction on {num_images} images of {dataset_name} are drawn in {path}")


def _first_output(outputs: Any) -> dict[str, Any]:
    """That of the first image; empty unless `outputs` is a list of dicts."""
    first = outputs[0] if isinstance(outputs, Sequence) and outputs else None
    return first if isinstance(first, dict) else {}


def comparable_output(output: dict[str, Any], truth: dict[str, Any]) -> dict[str, Any] | None:
    """The first kind of output that the truth has too, on the CPU; None if there is no such kind."""
    has_segments = truth.get("segments_info") is not None
    has_labels = has_segments or "sem_seg_file_name" in truth
    if "panoptic_seg" in output and (has_segments or (has_labels and "annotations" in truth)):
        ids, infos = output["panoptic_seg"]
        return {"panoptic_seg": (torch.as_tensor(ids).cpu(), infos)}
    if "instances" in output and "annotations" in truth:
        return {"instances": output["instances"].to("cpu")}
    if "sem_seg" in output and has_labels and output["sem_seg"].ndim == 3:  # not a map of labels
        return {"sem_seg": torch.as_tensor(output["sem_seg"]).cpu()}
    return None


def _first_with_objects(
    samples: Sequence[dict[str, Any]], positions: range, truths: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first sample with annotations at one of the middle `positions` or after it, else the middle one.

    Returns:
        The sample and its truth.
    """
    middle = positions[len(positions) // 2 :]
    for position in middle[:MAX_LOOKED_AT]:
        sample = samples[position]
        truth = truths[sample["file_name"]]
        if truth.get("annotations"):
            return sample, truth
    sample = samples[middle[0]]
    return sample, truths[sample["file_name"]]


class ComparisonSheet(HookBase):
    """Writes `output_dir/predictions.jpg` after the last iteration, in the main process."""

    def __init__(
        self, dataset_name: str, build_loader: Callable[[], Any], num_images: int, output_dir: str
    ) -> None:
        """
        Args:
            dataset_name: whose images.
            build_loader: makes the test loader of that data set.
            num_images: how many.
            output_dir: folder of the picture.
        """
        self._dataset_name = dataset_name
        self._build_loader = build_loader
        self._num_images = num_images
        self._path = os.path.join(output_dir, "predictions.jpg")

    def after_train(self) -> None:
        if self.trainer.iter < self.trainer.max_iter:
            return
        if distributed.is_main_process():
            model = self.trainer.model  # type: ignore[attr-defined]
            model = getattr(model, "module", model)
            draw_predictions(model, self._dataset_name, self._build_loader(), self._num_images, self._path)
        distributed.synchronize()
