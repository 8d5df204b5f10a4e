"""pycocotools' evaluation with all images and categories in one go: the same numbers, many times as fast."""

import copy
import datetime
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from panomask.errors import InputError
from panomask.evaluation.coco_curves import precision_recall
from panomask.evaluation.coco_matching import Detections, Matches, Objects, Overlaps, match
from panomask.evaluation.coco_overlaps import BoxOverlaps, KeypointOverlaps, MaskOverlaps, Masks

Annotations = list[dict[str, Any]]
FIXED = ("imgIds", "catIds", "useCats", "iouThrs", "areaRng")
"""Parameters that say what `evaluate` matches."""
TRUTH, RESULTS = "the ground truth: annotation", "the results: entry"


@dataclass(frozen=True)
class Scene:
    """What is scored: annotations and the same as arrays, in the same order; see `coco_matching`."""

    truth: Annotations
    objects: Objects
    predictions: Annotations
    detections: Detections


class VectorizedCOCOeval(COCOeval):
    """Takes pycocotools' place: construct, set `params`, `evaluate()`, `accumulate()`, `summarize()`.

    Silent until `summarize`. `eval` and `stats` are filled as pycocotools fills them; its records of single
    images, `evalImgs`, are not made. What differs is where pycocotools goes wrong: a match with an annotation
    whose id is 0 counts; a box of NaN or infinity matches nothing (there: everything, or others that are);
    keypoints are found with `useCats` 0 too (there: never); and parameters changed between `evaluate` and
    `accumulate` are refused where they would need other matches.
    """

    def evaluate(self) -> None:
        """Match detections to objects."""
        params = self.params
        if params.useSegm is not None:  # deprecated, but pycocotools still obeys it
            params.iouType = "segm" if params.useSegm == 1 else "bbox"
        params.imgIds = sorted(set(params.imgIds))
        if params.useCats:  # else their order decides about equal scores
            params.catIds = sorted(set(params.catIds))
        params.maxDets = sorted(params.maxDets)
        self._paramsEval = copy.deepcopy(params)
        self.scene = self._scene()
        self.matches = self._match(self.scene)

    def accumulate(self, p: Any = None) -> None:
        """Fill `eval` with `precision` and `scores` (T, R, K, A, M) and `recall` (T, K, A, M).

        Args:
            p: nothing: other parameters than those of `evaluate` are not supported.

        Raises:
            ValueError: parameters on which the matches depend were changed after `evaluate`.
        """
        if p is not None:
            raise ValueError("accumulate() takes no parameters; set `params` before evaluate()")
        self._require_unchanged()
        params = self.params
        params.catIds = params.catIds if params.useCats else [-1]
        curves = precision_recall(
            self.scene.detections,
            self.scene.objects,
            self.matches,
            num_categories=len(params.catIds),
            num_images=len(params.imgIds),
            recalls=np.asarray(params.recThrs),
            area_ranges=self._area_ranges(),
            limits=params.maxDets,
        )
        self.eval = {
            "params": params,
            "counts": list(curves.precision.shape),
            "date": datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            "precision": curves.precision,
            "recall": curves.recall,
            "scores": curves.scores,
        }

    def _require_unchanged(self) -> None:
        for name in FIXED:
            if name == "catIds" and not self._paramsEval.useCats:
                continue  # they are not asked for any more, and `accumulate` itself writes [-1]
            if not np.array_equal(getattr(self.params, name), getattr(self._paramsEval, name)):
                raise ValueError(f"params.{name} was changed after evaluate(); call evaluate() again")

    def _area_ranges(self) -> np.ndarray:
        return np.asarray(self._paramsEval.areaRng, np.float64).reshape(-1, 2)

    def _scene(self) -> Scene:
        is_oks = self.params.iouType == "keypoints"
        truth, object_group, _ = self._grouped(self.cocoGt)
        is_crowd = np.array([bool(a.get("iscrowd")) for a in truth], bool)
        is_empty = np.array([is_oks and a["num_keypoints"] == 0 for a in truth], bool)
        objects = Objects(object_group, _numbers(truth, "area", TRUTH), is_crowd, is_crowd | is_empty)
        predictions, group, score = self._grouped(self.cocoDt, is_scored=True)
        excused = np.zeros(len(group), bool)
        detections = Detections(group, score, _numbers(predictions, "area", RESULTS), excused)
        if self.params.maxDets:
            best = np.flatnonzero(detections.rank < self.params.maxDets[-1])
            predictions, detections = [predictions[i] for i in best], detections.chosen(best)
        return Scene(truth, objects, predictions, detections)

    def _grouped(self, coco: COCO, is_scored: bool = False) -> tuple[Annotations, np.ndarray, np.ndarray]:
        """Annotations of what is evaluated, sorted by group (and score), their groups and scores, if any."""
        params = self.params
        row = {category_id: k for k, category_id in enumerate(params.catIds)}
        by_image = [
            [
                annotation
                for annotation in coco.imgToAnns.get(image_id, ())
                if annotation["category_id"] in row
            ]
            for image_id in params.imgIds
        ]
        found = [annotation for annotations in by_image for annotation in annotations]
        image = np.repeat(np.arange(len(by_image)), [len(annotations) for annotations in by_image])
        category = np.array([row[annotation["category_id"]] for annotation in found], np.int64)
        group = (category if params.useCats else 0) * len(by_image) + image
        score = _numbers(found, "score", RESULTS) if is_scored else np.zeros(len(found))
        order = np.lexsort((category, -score, group))
        return [found[i] for i in order], group[order], score[order]

    def _match(self, scene: Scene) -> Matches:
        return match(
            scene.detections,
            scene.objects,
            self._overlaps(scene),
            thresholds=self.params.iouThrs,
            area_ranges=self._area_ranges(),
        )

    def _overlaps(self, scene: Scene) -> Overlaps:
        is_crowd, params = scene.objects.is_crowd, self.params
        if params.iouType == "segm":
            masks = _masks(scene.predictions, self.cocoDt, RESULTS)
            at_least = float(np.min(params.iouThrs, initial=1 - 1e-10))
            return MaskOverlaps(masks, _masks(scene.truth, self.cocoGt, TRUTH), is_crowd, at_least)
        boxes = _numbers(scene.truth, "bbox", TRUTH, 4)
        if params.iouType == "bbox":
            return BoxOverlaps(_numbers(scene.predictions, "bbox", RESULTS, 4), boxes, is_crowd)
        sigmas = np.asarray(params.kpt_oks_sigmas, np.float64)
        shape = (-1, len(sigmas), 3)
        keypoints = _numbers(scene.predictions, "keypoints", RESULTS, 3 * len(sigmas)).reshape(shape)
        objects = _numbers(scene.truth, "keypoints", TRUTH, 3 * len(sigmas)).reshape(shape)
        return KeypointOverlaps(keypoints, objects, boxes=boxes, areas=scene.objects.area, sigmas=sigmas)


def _masks(annotations: Annotations, coco: COCO, what: str) -> Masks:
    """Polygons and uncompressed RLEs become compressed ones by the size of their image."""

    masks = (annotation["segmentation"] for annotation in annotations)
    rles = [
        mask if isinstance(mask, dict) and not isinstance(mask["counts"], list) else coco.annToRLE(annotation)
        for mask, annotation in zip(masks, annotations, strict=True)
    ]
    return Masks(rles, partial(_name, annotations, what))


def _name(annotations: Annotations, what: str, i: int) -> str:
    """What to call an annotation in an error."""
    return f"{what} {annotations[i].get('id')}"


def _numbers(annotations: Annotations, key: str, what: str, length: int | None = None) -> np.ndarray:
    """One number of each annotation, (N,), or lists of so many, (N, length).

    Raises:
        InputError: something else than that.
    """
    shape = (len(annotations),) if length is None else (len(annotations), length)
    values = [annotation[key] for annotation in annotations]
    try:
        array = np.array(values) if values else np.zeros(shape)
    except ValueError:  # lists of different lengths
        array = np.empty(0, object)
    if array.shape == shape and array.dtype.kind in "biuf":
        return array.astype(np.float64)
    wrong = next((i for i, v in enumerate(values) if not _is_numbers(v, length)), 0)
    needed = "a number is" if length is None else f"{length} numbers are"
    raise InputError(f"{_name(annotations, what, wrong)}: {key!r} is {values[wrong]!s:.60}; {needed} needed")


def _is_numbers(value: Any, length: int | None) -> bool:
    try:
        array = np.array(value)
    except ValueError:
        return False
    return array.dtype.kind in "biuf" and array.shape == (() if length is None else (length,))
