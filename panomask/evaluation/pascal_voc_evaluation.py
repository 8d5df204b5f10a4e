"""Average precision by the rules of PASCAL VOC (Everingham et al., IJCV 2010, 4.2).

A detection is right if its box overlaps an object by more than the threshold and is the best-scored to do so;
objects marked "difficult" count neither as found nor as missed. Boxes are here as VOC's files have them:
pixel indices from 1, the last included, hence every "+ 1" in an area.
"""

import logging
from collections import OrderedDict, defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from panomask.data.catalog import MetadataCatalog
from panomask.distributed import gather, is_main_process
from panomask.errors import InputError
from panomask.evaluation.evaluator import DatasetEvaluator
from panomask.evaluation.results import mean_measured
from panomask.xml_file import read_xml

logger = logging.getLogger(__name__)

THRESHOLDS = tuple(range(50, 100, 5))
"""Overlaps in percent: VOC's own is 50, the others are COCO's."""


class Truth(NamedTuple):
    """Objects of one class in one image: boxes (M, 4) as in the file, is_difficult (M,)."""

    boxes: np.ndarray
    is_difficult: np.ndarray


class Detections(NamedTuple):
    """Detections of one class in all images: N image names, scores (N,), boxes (N, 4) as VOC has them."""

    images: list[str]
    scores: np.ndarray
    boxes: np.ndarray


class PascalVOCDetectionEvaluator(DatasetEvaluator):
    """AP of boxes at overlaps 0.5 to 0.95, of VOC's 11 points in 2007 and of the whole curve since.

    Numbers are Detectron2's: scores are rounded to three decimals and boxes to one, as in a file of VOC's
    results. They differ slightly from COCO's for the same boxes.
    """

    def __init__(self, dataset_name: str) -> None:
        """`dataset_name`: registered with dirname, split, year (2007 or 2012) and thing_classes."""
        metadata = MetadataCatalog.get(dataset_name)
        missing = [key for key in ("dirname", "split", "year", "thing_classes") if metadata.get(key) is None]
        if missing:
            raise InputError(
                f"data set {dataset_name!r} does not say its {', '.join(missing)}, which VOC's scores need;"
                " register it by register_pascal_voc"
            )
        if metadata.year not in (2007, 2012):
            raise InputError(
                f"data set {dataset_name!r}: year is {metadata.year!r}; allowed are 2007 and 2012"
            )
        self._dataset_name = dataset_name
        self._root = Path(metadata.dirname)
        self._split = metadata.split
        self._class_names = list(metadata.thing_classes)
        self._is_2007 = metadata.year == 2007
        PascalVOCDetectionEvaluator.reset(self)  # that of a subclass may need what its constructor sets

    def reset(self) -> None:
        self._predictions: dict[Any, list[tuple[int, float, list[float]]]] = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Keep a batch's `pred_boxes`, `scores` and `pred_classes`, in pixels of the original image."""
        for record, output in zip(inputs, outputs, strict=True):
            if "instances" not in output:
                continue
            found = output["instances"].to("cpu")
            boxes = found.pred_boxes.tensor.numpy().copy()
            boxes[:, :2] += 1  # what the reader subtracted
            self._predictions[record["image_id"]] = [
                (class_id, float(f"{score:.3f}"), [float(f"{value:.1f}") for value in box])
                for class_id, score, box in zip(
                    found.pred_classes.tolist(), found.scores.tolist(), boxes.tolist(), strict=True
                )
            ]

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """`{"bbox": {"AP", "AP50", "AP75", and "AP-class" for each}}` in percent, on the main process.

        NaN for a class without objects that count; the mean leaves it out.
        """
        shards = gather(self._predictions, dst=0)
        if not is_main_process():
            return None
        by_class: dict[int, list[tuple[str, float, list[float]]]] = defaultdict(list)
        for image, predictions in {image: p for shard in shards for image, p in shard.items()}.items():
            for class_id, score, box in predictions:
                by_class[class_id].append((image, score, box))
        unknown = set(by_class) - set(range(len(self._class_names)))
        if unknown:
            raise InputError(
                f"the model predicted class {max(unknown)}, but {self._dataset_name} has"
                f" {len(self._class_names)} classes; use the weights of a model with these classes"
            )
        ap = np.array([self._class_ap(i, by_class[i]) for i in range(len(self._class_names))])  # (K, T)
        metrics = {"AP": mean_measured(ap)}
        metrics |= {f"AP{t}": mean_measured(ap[:, THRESHOLDS.index(t)]) for t in (50, 75)}
        metrics |= {f"AP-{name}": mean_measured(row) for name, row in zip(self._class_names, ap, strict=True)}
        return OrderedDict(bbox=metrics)

    def _class_ap(self, class_id: int, found: list[tuple[str, float, list[float]]]) -> list[float]:
        """AP in percent at each threshold."""
        detections = Detections(
            [image for image, _, _ in found],
            np.array([score for _, score, _ in found], dtype=float),
            np.array([box for _, _, box in found], dtype=float).reshape(-1, 4),
        )
        curves = precision_recall(detections, self._truth[self._class_names[class_id]], THRESHOLDS)
        return [100 * voc_ap(recall, precision, self._is_2007) for recall, precision in curves]

    @cached_property
    def _truth(self) -> dict[str, dict[str, Truth]]:
        """Class name -> image name -> objects."""
        listed = self._root / "ImageSets" / "Main" / f"{self._split}.txt"
        try:
            images = [line.split()[0] for line in listed.read_text("utf-8-sig").splitlines() if line.strip()]
        except OSError as error:
            raise InputError(
                f"{listed}: cannot be read ({error.strerror}); it lists the images to score"
            ) from None
        objects: dict[str, dict[str, list[tuple[list[float], bool]]]]
        objects = {name: defaultdict(list) for name in self._class_names}
        for image in images:
            path = self._root / "Annotations" / f"{image}.xml"
            for entry in read_xml(path).findall("object"):
                name, box, is_difficult = _parse_object(entry, path)
                if name in objects:
                    objects[name][image].append((box, is_difficult))
        return {
            name: {
                image: Truth(np.array([box for box, _ in group]), np.array([flag for _, flag in group]))
                for image, group in by_image.items()
            }
            for name, by_image in objects.items()
        }


def _parse_object(entry: Element, path: Path) -> tuple[str, list[float], bool]:
    try:
        box = [float(entry.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
        is_difficult = bool(int(entry.findtext("difficult") or 0))
    except ValueError as error:
        raise InputError(f"{path}: an object's <bndbox> or <difficult> is no number ({error})") from None
    return (entry.findtext("name") or "").strip(), box, is_difficult


def precision_recall(
    detections: Detections, truth: dict[str, Truth], thresholds: tuple[int, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each threshold (percent of overlap), recall (N,) and precision (N,) of the best 1, 2, ... N.

    Where no object counts, one point of which recall is NaN.
    """
    num_objects = sum(int((~objects.is_difficult).sum()) for objects in truth.values())
    if not num_objects:
        return [(np.full(1, np.nan), np.zeros(1)) for _ in thresholds]
    order = np.argsort(-detections.scores, kind="stable")
    overlaps, claimed, is_difficult = _best_overlaps(detections, truth)
    overlaps, claimed, is_difficult = overlaps[order], claimed[order], is_difficult[order]
    curves = []
    for threshold in thresholds:
        is_over = overlaps > threshold / 100
        counts = is_over & ~is_difficult
        first = np.zeros(len(order), dtype=bool)  # the best-scored detection of each object
        candidates = np.flatnonzero(counts)
        first[candidates[np.unique(claimed[candidates], return_index=True)[1]]] = True
        true = np.cumsum(first)
        false = np.cumsum(~first & ~(is_over & is_difficult))
        precision = true / np.maximum(true + false, np.finfo(np.float64).eps)
        curves.append((true / num_objects, precision))
    return curves


def _best_overlaps(
    detections: Detections, truth: dict[str, Truth]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each detection (N,): best overlap in its image, that object's number, whether it is difficult."""
    count = len(detections.scores)
    overlaps, claimed = np.full(count, -np.inf), np.zeros(count, dtype=np.int64)
    is_difficult = np.zeros(count, dtype=bool)
    rows = defaultdict(list)
    for row, image in enumerate(detections.images):
        rows[image].append(row)
    num_before = 0
    for image, objects in truth.items():
        found = rows.get(image, [])
        if found:
            iou = _overlap(detections.boxes[found], objects.boxes)  # (n, M)
            best = iou.argmax(axis=1)
            overlaps[found] = iou.max(axis=1)
            claimed[found] = num_before + best
            is_difficult[found] = objects.is_difficult[best]
        num_before += len(objects.boxes)
    return overlaps, claimed, is_difficult


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU (N, M) of boxes whose last row and column of pixels are included."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.maximum(high - low + 1, 0).prod(axis=2)
    areas, other_areas = ((b[:, 2:] - b[:, :2] + 1).prod(axis=1) for b in (boxes, others))
    return shared / (areas[:, None] + other_areas[None] - shared)


def voc_ap(rec: np.ndarray, prec: np.ndarray, use_07_metric: bool = False) -> float:
    """AP of a precision-recall curve, a fraction.

    Args:
        rec, prec: (N,) after the best 1, 2, ... N detections. NaN recall gives NaN.
        use_07_metric: VOC 2007's mean of 11 points (recall 0, 0.1, ... 1); otherwise the area below the
            curve, which is made monotone first.
    """
    if np.isnan(rec).any():
        return float("nan")
    if use_07_metric:
        points = [prec[rec >= t].max(initial=0.0) for t in np.arange(0.0, 1.1, 0.1)]
        return float(sum(points) / 11)
    rec = np.concatenate([[0.0], rec, [1.0]])
    prec = np.maximum.accumulate(np.concatenate([[0.0], prec, [0.0]])[::-1])[::-1]
    return float(np.sum(np.diff(rec) * prec[1:]))
