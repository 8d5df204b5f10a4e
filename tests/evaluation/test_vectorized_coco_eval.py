"""Everything that pycocotools computes, to the last bit, on random scenes with all that is odd about them."""

import contextlib
import copy
import io
from collections.abc import Callable

import numpy as np
import pycocotools.mask as mask_util
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from panomask.errors import InputError
from panomask.evaluation import coco_matching, evaluate_coco_json
from panomask.evaluation.vectorized_coco_eval import VectorizedCOCOeval

SIZE = 60
NUM_KEYPOINTS = 3


def _entry(rng: np.random.Generator, image_id, box: np.ndarray) -> dict:
    """A box, a mask in it and keypoints around it."""
    mask = np.zeros((SIZE, SIZE), np.uint8, order="F")
    x, y, w, h = box.astype(int)
    mask[y : y + h, x : x + w] = rng.random((SIZE, SIZE))[y : y + h, x : x + w] < 0.9
    points = np.concatenate([box[:2] + rng.random((NUM_KEYPOINTS, 2)) * box[2:], np.full((3, 1), 2)], axis=1)
    return {
        "image_id": image_id,
        "category_id": int(rng.choice([3, 5, 9])),
        "bbox": box.tolist(),
        "segmentation": mask_util.encode(mask),
        "keypoints": points.ravel().tolist(),
    }


def _box(rng: np.random.Generator) -> np.ndarray:
    size = rng.choice([0, 4, 12, 40], 2) + rng.integers(0, 4, 2)
    return np.append(rng.integers(0, SIZE // 3, 2), size).astype(float)


def _scene(seed: int, make_id: Callable = int) -> tuple[dict, list[dict]]:
    """Objects, some crowds, repeated or without keypoints; detections near them, some with equal scores."""
    rng = np.random.default_rng(seed)
    annotations: list[dict] = []
    results = []
    image_ids = [make_id(i) for i in (7, 2, 11, 4)]
    for image_id in image_ids[:3]:
        objects = [_entry(rng, image_id, _box(rng)) for _ in range(rng.integers(0, 9))]
        objects += copy.deepcopy(objects[:1])
        for found in objects:
            found |= {"id": len(annotations) + 1, "iscrowd": int(rng.random() < 0.2)}
            found |= {"area": found["bbox"][2] * found["bbox"][3] * 0.9}
            if rng.random() < 0.3:
                found["keypoints"] = [0] * 9
            found["num_keypoints"] = sum(v > 0 for v in found["keypoints"][2::3])
            annotations.append(found)
        for _ in range(rng.integers(0, 40)):
            near = objects[rng.integers(len(objects))] if objects else _entry(rng, image_id, _box(rng))
            moved = np.maximum(np.array(near["bbox"]) + rng.integers(-2, 3, 4), 0)
            result = _entry(rng, image_id, moved) | {"score": round(rng.random(), 1)}
            if rng.random() < 0.3:
                result |= {key: near[key] for key in ("bbox", "segmentation", "category_id")}
            points = np.reshape(near["keypoints"], (-1, 3)) + rng.normal(0, 1, (3, 3))
            results.append(result | {"keypoints": points.ravel().tolist()})
    truth = {
        "images": [{"id": i, "height": SIZE, "width": SIZE} for i in image_ids],
        "categories": [{"id": i, "name": str(i)} for i in (9, 3, 5, 4)],
        "annotations": annotations,
    }
    return truth, results


def _both(truth: dict, results: list[dict], iou_type: str, **params) -> list[COCOeval]:
    evaluations = []
    for kind in (COCOeval, VectorizedCOCOeval):
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = copy.deepcopy(truth)
            coco.createIndex()
            found = COCO()
            found.dataset = {**truth, "annotations": []}
            for number, result in enumerate(copy.deepcopy(results), start=1):
                area = result["bbox"][2] * result["bbox"][3]
                found.dataset["annotations"].append({**result, "id": number, "area": area, "iscrowd": 0})
            found.createIndex()
            scored = kind(coco, found, iou_type)
            scored.params.kpt_oks_sigmas = np.array([0.1, 0.05, 0.2])
            for name, value in params.items():
                setattr(scored.params, name, value)
            scored.evaluate()
            scored.accumulate()
            if not params:  # what is printed assumes pycocotools' own thresholds and areas
                scored.summarize()
        evaluations.append(scored)
    return evaluations


def _assert_equal(truth: dict, results: list[dict], iou_type: str, **params) -> None:
    theirs, ours = _both(truth, results, iou_type, **params)
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(ours.eval[name], theirs.eval[name])
    assert ours.eval["counts"] == theirs.eval["counts"]
    assert set(ours.eval) == set(theirs.eval)
    np.testing.assert_array_equal(ours.stats, theirs.stats)
    assert len(ours.stats) == (0 if params else 10 if iou_type == "keypoints" else 12)
    assert ours.params.catIds == theirs.params.catIds


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("iou_type", ["bbox", "segm", "keypoints"])
def test_equal_to_pycocotools(iou_type, seed):
    truth, results = _scene(seed)
    _assert_equal(truth, results, iou_type)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize(
    "params",
    [
        {"useCats": 0},
        {"useCats": 0, "catIds": [9, 3, 5]},
        {"maxDets": [3, 1, 2]},
        {"imgIds": [11, 2, 2, 99]},
        {"imgIds": [4]},
        {"catIds": [9, 5]},
        {"iouThrs": np.array([0.9, 0.2, 1.0])},
        {"recThrs": np.array([0.0, 0.33, 1.0])},
        {"areaRng": [[0, 1e10], [50, 400], [0, 20]], "areaRngLbl": ["all", "medium", "small"]},
    ],
)
def test_equal_to_pycocotools_by_other_parameters(monkeypatch, iou_type, params):
    monkeypatch.setattr(coco_matching, "PAIRS_AT_A_TIME", 30)
    truth, results = _scene(20)
    _assert_equal(truth, results, iou_type, **params)


def test_ids_may_be_texts():
    truth, results = _scene(3, make_id="image {}".format)
    _assert_equal(truth, results, "bbox")


def test_no_detections_and_no_objects():
    truth, results = _scene(4)
    _assert_equal(truth, [], "bbox")
    _assert_equal(truth, [], "segm")
    _assert_equal({**truth, "annotations": []}, results, "bbox")
    _assert_equal({**truth, "annotations": []}, results, "keypoints")
    assert VectorizedCOCOeval().params.maxDets == [1, 10, 100]


def test_scores_of_nan_are_the_worst():
    truth, results = _scene(5)
    results[3]["score"] = results[7]["score"] = float("nan")
    _assert_equal(truth, results, "bbox")


def test_polygons_and_uncompressed_masks():
    truth, results = _scene(6)
    for annotation in truth["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + w, y, x, y + h]]
    results[0]["segmentation"] = {"size": [SIZE, SIZE], "counts": [5, 300, SIZE * SIZE - 305]}
    _assert_equal(truth, results, "segm")


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "keypoints"])
def test_the_choice_of_the_implementation_changes_no_number(iou_type):
    truth, results = _scene(7)
    options = {"oks_sigmas": [0.1] * 3} if iou_type == "keypoints" else {}
    fast, slow = (
        evaluate_coco_json(truth, results, iou_type, use_fast_impl=fast, **options) for fast in (True, False)
    )
    np.testing.assert_array_equal(list(fast.values()), list(slow.values()))
    assert list(fast) == list(slow)
    assert fast["AP"] > 0


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("score", "0.5", "entry 3: 'score' is 0.5; a number is needed"),
        ("score", None, "entry 3: 'score' is None; a number is needed"),
        ("bbox", [1, 2, 3, "4"], "entry 3: 'bbox' is .1, 2, 3, '4'.; four numbers"),
        ("bbox", ["1", 2, 3, 4], "entry 3: 'bbox' is .'1', 2, 3, 4.; 4 numbers are needed"),
        ("segmentation", None, "entry 3: the runs of its RLE are not as many pixels"),
    ],
)
def test_entries_that_are_no_numbers_are_named(key, value, message):
    truth, results = _scene(1)
    found = truth["annotations"][0]
    longer = {"size": [SIZE, SIZE], "counts": found["segmentation"]["counts"] + b"1"}  # compared forever
    results[2] = {**found, "score": 0.5, key: longer if key == "segmentation" else value}
    with pytest.raises(InputError, match=message) as error:
        evaluate_coco_json(truth, results, "segm" if key == "segmentation" else "bbox")
    assert "\n" not in str(error.value)


def test_other_parameters_for_accumulating_are_refused():
    truth, results = _scene(1)
    ours = _both(truth, results, "bbox")[1]
    with pytest.raises(ValueError, match="takes no parameters"):
        ours.accumulate(ours.params)


@pytest.mark.parametrize(
    "name, value",
    [
        ("imgIds", [2, 4]),
        ("catIds", [5, 9]),
        ("useCats", 0),
        ("iouThrs", np.array([0.5])),
        ("areaRng", [[0, 50]] * 4),
    ],
)
def test_parameters_that_the_matches_depend_on_stay(name, value):
    ours = _both(*_scene(1), "bbox")[1]
    setattr(ours.params, name, value)
    with pytest.raises(ValueError, match=rf"params.{name} was changed after evaluate\(\); call evaluate"):
        ours.accumulate()


@pytest.mark.parametrize("use_cats", [0, 1])
def test_accumulating_again_with_other_recalls_and_limits(use_cats):
    changed = {"recThrs": np.array([0.0, 0.5]), "maxDets": [1, 10]}
    evaluations = _both(*_scene(2), "bbox", useCats=use_cats)
    for scored in evaluations:
        scored.params.__dict__.update(changed)
        with contextlib.redirect_stdout(io.StringIO()):
            scored.accumulate()
    theirs, ours = evaluations
    assert ours.eval["precision"].shape[1::3] == (2, 2)
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(ours.eval[name], theirs.eval[name])


def test_without_categories_their_order_decides_about_equal_scores():
    truth, _ = _scene(1)
    box = [0.0, 0, 10, 10]
    truth["annotations"] = [
        {"id": 1, "image_id": 2, "category_id": 9, "bbox": box, "area": 100, "iscrowd": 0}
    ]
    found = {"image_id": 2, "score": 0.5}
    results = [{**found, "category_id": 9, "bbox": box}, {**found, "category_id": 3, "bbox": [40.0, 0, 9, 9]}]
    for category_ids, expected in (([9, 3], 1), ([3, 9], 0.5)):
        theirs, ours = _both(truth, results, "bbox", useCats=0, catIds=category_ids)
        np.testing.assert_array_equal(ours.eval["precision"], theirs.eval["precision"])
        assert ours.eval["precision"][0, 0, 0, 0, 2] == pytest.approx(expected)


def test_boxes_that_are_not_finite_match_nothing():
    truth, results = _scene(1)
    for value in (float("nan"), float("inf")):
        for entry in [*truth["annotations"], *results]:
            entry["bbox"] = [0.0, 0.0, value, value]
        for result in results:
            result["area"] = 1.0
        with np.errstate(invalid="ignore"):
            scores = evaluate_coco_json(truth, results, "bbox")
        assert scores["AP"] == 0
