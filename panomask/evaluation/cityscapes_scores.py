"""Average precision of masks by the rules of Cityscapes (Cordts et al., CVPR 2016, 4.2).

What differs from COCO: objects below 100 pixels do not count; a prediction without an object is no error
where more of it than the threshold lies on void, on groups of objects or on objects too small to count; of
several predictions that fit an object, all but the best-scored are errors; precision is integrated at every
score, without making it monotone. Numbers are those of the package cityscapesscripts (2.3.0).
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

THRESHOLDS = np.arange(0.5, 1.0, 0.05)
MIN_PIXELS = 100
FIRST_INSTANCE_ID = 1000
"""Smaller numbers in an image of instance ids are label ids: stuff, void, or a group of objects."""


class Prediction(NamedTuple):
    """One predicted mask and what it overlaps of the truth of its class.

    Attributes:
        score: 0..1.
        num_pixels: its area, above 0.
        num_void: how much of it lies on void.
        overlaps: id in the image of instance ids -> shared pixels, objects and groups of its class.
    """

    score: float
    num_pixels: int
    num_void: int
    overlaps: dict[int, int]


class ImageClass(NamedTuple):
    """Truth and predictions of one class in one image; `objects`: instance id (or label id) -> pixels."""

    objects: dict[int, int]
    predictions: list[Prediction]


def overlap_prediction(
    mask: np.ndarray, score: float, ids: np.ndarray, label_id: int, void_ids: Collection[int]
) -> Prediction | None:
    """Compare one predicted mask (H, W) with an image (H, W) of instance ids; None if the mask is empty."""
    num_pixels = int(np.count_nonzero(mask))
    if not num_pixels:
        return None
    found, counts = np.unique(ids[mask], return_counts=True)
    below = dict(zip(found.tolist(), counts.tolist(), strict=True))
    return Prediction(
        score=score,
        num_pixels=num_pixels,
        num_void=sum(count for id_, count in below.items() if id_ in void_ids),
        overlaps={id_: count for id_, count in below.items() if label_of(id_) == label_id},
    )


def label_of(instance_id: int) -> int:
    """The label of a number in an image of instance ids."""
    return instance_id if instance_id < FIRST_INSTANCE_ID else instance_id // FIRST_INSTANCE_ID


def average_precision(images: Sequence[ImageClass]) -> np.ndarray:
    """AP (T,) of one class at the thresholds, fractions; NaN where no object counts in any image."""
    return np.array([_average_precision(images, threshold) for threshold in THRESHOLDS.tolist()])


def _average_precision(images: Sequence[ImageClass], threshold: float) -> float:
    hits: list[float] = []
    errors: list[float] = []
    num_objects = 0
    for objects, predictions in images:
        counted = {id_: pixels for id_, pixels in objects.items() if _counts(id_, pixels)}
        num_objects += len(counted)
        for id_, pixels in counted.items():
            scores = sorted(p.score for p in predictions if _iou(p, id_, pixels) > threshold)
            hits += scores[-1:]
            errors += scores[:-1]
        errors += [p.score for p in predictions if _is_error(p, objects, threshold)]
    if not num_objects:
        return float("nan")
    if not any(image.predictions for image in images):
        return 0.0
    return _area_below_curve(np.array(hits), np.array(errors), num_objects)


def _counts(instance_id: int, pixels: int) -> bool:
    return instance_id >= FIRST_INSTANCE_ID and pixels >= MIN_PIXELS


def _iou(prediction: Prediction, instance_id: int, pixels: int) -> float:
    shared = prediction.overlaps.get(instance_id, 0)
    return shared / (pixels + prediction.num_pixels - shared)


def _is_error(prediction: Prediction, objects: dict[int, int], threshold: float) -> bool:
    """Whether it fits nothing, neither object nor group, and lies on what counts.

    A group below 100 pixels is taken off twice, for being a group and for being small, as in the original.
    """
    if any(_iou(prediction, id_, objects[id_]) > threshold for id_ in prediction.overlaps):
        return False
    ignored = prediction.num_void
    for id_, shared in prediction.overlaps.items():
        ignored += shared * ((id_ < FIRST_INSTANCE_ID) + (objects[id_] < MIN_PIXELS))
    return ignored / prediction.num_pixels <= threshold


def _area_below_curve(hits: np.ndarray, errors: np.ndarray, num_objects: int) -> float:
    """Precision integrated over recall at every score that occurs, each point in the middle of its step."""
    scores = np.unique(np.concatenate([hits, errors]))  # rising, so recall falls
    true = len(hits) - np.searchsorted(np.sort(hits), scores, side="left")
    false = len(errors) - np.searchsorted(np.sort(errors), scores, side="left")
    precision = np.append(true / (true + false), 1.0)
    recall = np.append(true / num_objects, 0.0)
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(np.dot(precision, (padded[:-2] - padded[2:]) / 2))
