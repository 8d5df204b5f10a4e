"""Box, mask and keypoint AP beside pycocotools, on scenes drawn at random with COCO's numbers of objects."""

import argparse
import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from panomask.benchmark.comparison import Comparison
from panomask.evaluation import evaluate_coco_json
from panomask.structures.keypoints import COCO_PERSON_KEYPOINT_NAMES

Scenes = tuple[dict[str, Any], list[dict[str, Any]]]
"""Annotations and results, as read from COCO's files."""

HEIGHT, WIDTH = 480, 640
SMALLEST, LARGEST = 12, 300
"""Sides of objects, in pixels."""
MOST_OBJECTS = 14
CATEGORIES_OF_AN_IMAGE = 3
CORNERS = 16
TOLERANCE = 1e-9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sizes = {
        "box-images": (5000, "images for box AP"),
        "mask-images": (1000, "images for mask AP"),
        "keypoint-images": (1000, "images for keypoint AP"),
        "detections": (100, "detections of an image; of keypoints a fifth"),
        "categories": (80, "categories of boxes and masks"),
    }
    for name, (default, help_) in sizes.items():
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{help_} (%(default)s)"
        )


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    """One row a task; what is drawn for it is let go before the next."""
    sizes = args.detections, args.categories
    yield _comparison("box AP", "bbox", draw_boxes(args.box_images, *sizes), target=4.0, rounds=2)
    yield _comparison("mask AP", "segm", draw_masks(args.mask_images, *sizes), target=4.0, rounds=3)
    people = draw_keypoints(args.keypoint_images, max(args.detections // 5, 1))
    yield _comparison("keypoint AP", "keypoints", people, target=None, rounds=3)


def _comparison(name: str, iou_type: str, scenes: Scenes, target: float | None, rounds: int) -> Comparison:
    truth, results = scenes
    num_images = len(truth["images"])
    return Comparison(
        name=f"{name}, {num_images} images, {len(results) // num_images} detections each",
        ours=lambda: evaluate_coco_json(truth, results, iou_type),
        reference=lambda: plain_pycocotools(truth, results, iou_type),
        reference_name="pycocotools",
        agreement=_agreement,
        target=target,
        rounds=rounds,
    )


def plain_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]], iou_type: str) -> list[float]:
    """Its twelve numbers (keypoints: ten) and the AP of each category in percent, NaN for none.

    Entries are copied, for it writes into them: 0.2 s of the 30 that 500 000 boxes take.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO()
        ground_truth.dataset = {**truth, "annotations": [dict(entry) for entry in truth["annotations"]]}
        ground_truth.createIndex()
        found = ground_truth.loadRes([dict(entry) for entry in results])
        scored = COCOeval(ground_truth, found, iou_type)
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    by_category = np.moveaxis(scored.eval["precision"][:, :, :, 0, -1], -1, 0)
    means = [kept.mean() if (kept := precision[precision > -1]).size else -1 for precision in by_category]
    numbers = np.array([*scored.stats, *means])
    return np.where(numbers == -1, np.nan, 100 * numbers).tolist()


def _agreement(ours: dict[str, float], reference: list[float]) -> str:
    differences = np.abs(np.array(list(ours.values())) - reference)
    np.testing.assert_array_equal(np.isnan(list(ours.values())), np.isnan(reference))
    largest = float(np.nanmax(differences, initial=0.0))
    assert largest <= TOLERANCE, f"the numbers differ by {largest:.3g}"
    return f"{len(reference)} numbers within {largest:.0e} (AP {ours['AP']:.1f})"


def _draw_objects(rng: np.random.Generator, num_categories: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (G, 4), xywh, and categories (G,) of an image's objects, and the categories of the image."""
    present = rng.integers(1, num_categories + 1, CATEGORIES_OF_AN_IMAGE)
    count = rng.integers(1, MOST_OBJECTS + 1)
    sides = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST), (count, 2)))
    boxes = np.concatenate([rng.random((count, 2)) * ((WIDTH, HEIGHT) - sides), sides], axis=1)
    return boxes.round(2), rng.choice(present, count), present


def draw_boxes(num_images: int, num_detections: int, num_categories: int) -> Scenes:
    """Three of ten detections are near an object; most of the others are of a category that the image has."""
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image in range(1, num_images + 1):
        boxes, categories, present = _draw_objects(rng, num_categories)
        for box, category in zip(boxes.tolist(), categories.tolist(), strict=True):
            annotations.append(_annotation(len(annotations) + 1, image, category, box, rng.random() < 0.01))
        source = rng.integers(0, len(boxes), num_detections)
        near = rng.random(num_detections) < 0.3
        moved = boxes[source] + rng.normal(0, 0.08, (num_detections, 4)) * np.tile(boxes[source, 2:], 2)
        corners = rng.random((num_detections, 2)) * (WIDTH - 100, HEIGHT - 100)
        anywhere = np.concatenate([corners, rng.uniform(10, 100, (num_detections, 2))], axis=1)
        guesses = rng.integers(1, num_categories + 1, num_detections)
        guesses = np.where(rng.random(num_detections) < 0.5, rng.choice(present, num_detections), guesses)
        scores = (rng.beta(1, 4, num_detections) + 0.4 * near * rng.random(num_detections)).clip(max=1)
        found = np.where(near[:, None], moved, anywhere)
        found[:, :2] = found[:, :2].clip(0, (WIDTH - 3, HEIGHT - 3))
        found[:, 2:] = found[:, 2:].clip(2, (WIDTH, HEIGHT) - found[:, :2])
        rows = np.where(near, categories[source], guesses), found, scores.astype(np.float32)
        for category, box, score in zip(*(row.tolist() for row in rows), strict=True):
            results.append({"image_id": image, "category_id": category, "bbox": box, "score": score})
    return _file(num_images, annotations, num_categories), results


def draw_masks(num_images: int, num_detections: int, num_categories: int) -> Scenes:
    """The same with polygons in the boxes; results hold RLE and, as Detectron2 scores them, no boxes."""
    truth, results = draw_boxes(num_images, num_detections, num_categories)
    rng = np.random.default_rng(1)
    for annotation in truth["annotations"]:
        annotation["segmentation"] = [_polygon(rng, annotation["bbox"])]
    for result in results:
        (rle,) = mask_util.frPyObjects([_polygon(rng, result.pop("bbox"))], HEIGHT, WIDTH)
        result["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
    return truth, results


def draw_keypoints(num_images: int, num_detections: int) -> Scenes:
    """People whose 17 keypoints are somewhere in their boxes, detected with errors of some pixels."""
    rng = np.random.default_rng(2)
    shape = (len(COCO_PERSON_KEYPOINT_NAMES), 2)
    annotations, results = [], []
    for image in range(1, num_images + 1):
        boxes, _, _ = _draw_objects(rng, 1)
        points = boxes[:, None, :2] + rng.random((len(boxes), *shape)) * boxes[:, None, 2:]  # (G, 17, 2)
        visible = rng.integers(0, 3, (len(boxes), shape[0], 1)).astype(float)
        for box, labelled in zip(boxes.tolist(), np.concatenate([points, visible], axis=-1), strict=True):
            annotation = _annotation(len(annotations) + 1, image, 1, box, rng.random() < 0.01)
            annotation["keypoints"] = labelled.ravel().tolist()
            annotation["num_keypoints"] = int((labelled[:, 2] > 0).sum())
            annotations.append(annotation)
        source = rng.integers(0, len(boxes), num_detections)
        spread = boxes[source, None, 2:] * rng.uniform(0.005, 0.15, (num_detections, 1, 1))
        found = points[source] + rng.normal(size=(num_detections, *shape)) * spread
        found = np.concatenate([found, np.ones((num_detections, shape[0], 1))], axis=-1)
        for keypoints, score in zip(found, rng.random(num_detections).tolist(), strict=True):
            result = {"image_id": image, "category_id": 1, "keypoints": keypoints.ravel().tolist()}
            results.append({**result, "score": score})
    truth = _file(num_images, annotations, 1)
    truth["categories"][0]["keypoints"] = list(COCO_PERSON_KEYPOINT_NAMES)
    return truth, results


def _annotation(id_: int, image: int, category: int, box: list[float], is_crowd: bool) -> dict[str, Any]:
    entry = {"id": id_, "image_id": image, "category_id": category, "bbox": box}
    return {**entry, "area": 0.7 * box[2] * box[3], "iscrowd": int(is_crowd)}


def _polygon(rng: np.random.Generator, box: list[float]) -> list[float]:
    """A rough ellipse in the box (xywh)."""
    x, y, width, height = box
    angles, radii = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False), rng.uniform(0.8, 1, CORNERS)
    columns, rows = (
        x + width / 2 * (1 + radii * np.cos(angles)),
        y + height / 2 * (1 + radii * np.sin(angles)),
    )
    return np.stack([columns, rows], axis=1).ravel().tolist()


def _file(num_images: int, annotations: list[dict[str, Any]], num_categories: int) -> dict[str, Any]:
    return {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(1, num_images + 1)],
        "annotations": annotations,
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, num_categories + 1)],
    }
