"""AP derived by hand, and equality with plain pycocotools on random data."""

import contextlib
import copy
import io
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from panomask.errors import InputError
from panomask.evaluation import evaluate_coco_json

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def _truth(*boxes: list[float], **more) -> dict:
    """One image of 400 x 400 with objects of one class; `more` are keys of the last object."""
    annotations = [
        {"id": i, "image_id": 1, "category_id": 3, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, box in enumerate(boxes, start=1)
    ]
    annotations[-1] |= more
    return {
        "images": [{"id": 1, "height": 400, "width": 400}],
        "categories": [{"id": 3, "name": "thing"}],
        "annotations": annotations,
    }


def _found(*boxes_and_scores: tuple[list[float], float]) -> list[dict]:
    return [{"image_id": 1, "category_id": 3, "bbox": box, "score": score} for box, score in boxes_and_scores]


SMALL, MEDIUM = [10.0, 10.0, 20.0, 20.0], [100.0, 100.0, 50.0, 50.0]


def test_every_object_found_exactly():
    scores = evaluate_coco_json(_truth(SMALL, MEDIUM), _found((SMALL, 0.9), (MEDIUM, 0.8)))
    assert list(scores) == [*METRICS, "AP-thing"]
    assert [scores["AP"], scores["AP-thing"]] == pytest.approx([100, 100])
    assert [scores["APs"], scores["APm"]] == pytest.approx([100, 100])
    assert math.isnan(scores["APl"])  # no large object to find
    assert scores["AR1"] == pytest.approx(50)  # one detection can find one of two
    assert [scores["AR10"], scores["AR100"]] == pytest.approx([100, 100])


def test_one_of_two_found_at_iou_0_6():
    """A box of 30 of the object's 50 columns: IoU 0.6, right at .50, .55, .60 and wrong at the seven above.

    Where right, precision is 1 up to recall 0.5: 51 of 101 recall points.
    """
    part = [100.0, 100.0, 30.0, 50.0]
    scores = evaluate_coco_json(_truth(SMALL, MEDIUM), _found((part, 0.9)))
    assert scores["AP50"] == pytest.approx(100 * 51 / 101)
    assert scores["AP75"] == 0
    assert scores["AP"] == pytest.approx(100 * 0.3 * 51 / 101)
    assert scores["AR100"] == pytest.approx(100 * 0.3 * 0.5)
    assert scores["APs"] == 0
    assert scores["APm"] == pytest.approx(30)


def test_a_duplicate_is_a_false_positive_that_costs_what_comes_after():
    """Right, duplicate, right: precision 1 up to recall 1/2, then 2/3: (51 + 50 * 2/3) / 101."""
    scores = evaluate_coco_json(_truth(SMALL, MEDIUM), _found((SMALL, 0.9), (SMALL, 0.8), (MEDIUM, 0.7)))
    assert scores["AP"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    after = evaluate_coco_json(_truth(SMALL, MEDIUM), _found((SMALL, 0.9), (MEDIUM, 0.8), (SMALL, 0.7)))
    assert after["AP"] == pytest.approx(100)


def test_detections_in_a_crowd_count_for_nothing():
    crowd = [100.0, 100.0, 200.0, 200.0]
    inside = [([120.0 + 20 * i, 120.0, 10.0, 10.0], 0.9) for i in range(3)]
    as_crowd = evaluate_coco_json(_truth(SMALL, crowd, iscrowd=1), _found((SMALL, 0.5), *inside))
    as_object = evaluate_coco_json(_truth(SMALL, crowd), _found((SMALL, 0.5), *inside))
    assert as_crowd["AP"] == pytest.approx(100)
    assert as_object["AP"] == pytest.approx(100 * 51 / 101 / 4)  # the only right one is fourth


def test_limit_on_detections():
    wrong = [([300.0, 4.0 * i, 3.0, 3.0], 0.9) for i in range(4)]
    results = _found(*wrong, (SMALL, 0.5))
    scores = evaluate_coco_json(_truth(SMALL), results, max_detections=(1, 2, 4))
    assert scores["AP"] == scores["AR4"] == 0
    assert evaluate_coco_json(_truth(SMALL), results, max_detections=(1, 2, 5))["AR5"] == pytest.approx(100)
    with pytest.raises(InputError, match="three limits"):
        evaluate_coco_json(_truth(SMALL), results, max_detections=(100,))


def test_no_prediction_at_all_scores_zero():
    scores = evaluate_coco_json(_truth(SMALL), [])
    assert scores["AP"] == scores["AR100"] == scores["AP-thing"] == 0
    assert math.isnan(scores["APl"])


def test_chosen_images_only():
    truth = _truth(SMALL)
    truth["images"].append({"id": 2, "height": 400, "width": 400})
    truth["annotations"].append({**truth["annotations"][0], "id": 2, "image_id": 2})
    results = _found((SMALL, 0.9))
    assert evaluate_coco_json(truth, results)["AP"] == pytest.approx(100 * 51 / 101)
    assert evaluate_coco_json(truth, results, img_ids=[1])["AP"] == pytest.approx(100)


def test_the_truth_fed_back_scores_100_even_where_ids_start_at_zero():
    truth = _random_truth()
    for number, annotation in enumerate(truth["annotations"]):
        annotation["id"] = number
    results = [
        {"score": 1.0, **{key: a[key] for key in ("image_id", "category_id", "bbox", "segmentation")}}
        for a in truth["annotations"]
        if not a["iscrowd"]
    ]
    for iou_type in ("bbox", "segm"):
        scores = evaluate_coco_json(
            truth, results, iou_type, max_detections=(1, 10, 1000), use_mask_area=True
        )
        assert [scores["AP"], scores["AP75"]] == pytest.approx([100, 100])
        assert all(scores[f"AP-{name}"] == pytest.approx(100) for name in "ab")


def test_masks_are_needed_for_mask_scores():
    with pytest.raises(InputError, match="has no masks"):
        evaluate_coco_json(_truth(SMALL), _found((SMALL, 1.0)), "segm")
    with pytest.raises(InputError, match="'panoptic' is not supported"):
        evaluate_coco_json(_truth(SMALL), _found((SMALL, 1.0)), "panoptic")
    with pytest.raises(InputError, match="no 'annotations'"):
        evaluate_coco_json({"images": [], "categories": []}, [])


def _polygon(box: list[float]) -> list[list[float]]:
    """A diamond in the box."""
    x, y, w, h = box
    return [[x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h / 2]]


def _random_truth(images: int = 6, objects: int = 12) -> dict:
    random = np.random.default_rng(0)
    annotations = []
    for image in range(1, images + 1):
        for _ in range(objects):
            box = [*random.uniform(0, 200, 2).tolist(), *random.uniform(8, 180, 2).tolist()]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(random.integers(2, 4)),
                    "bbox": box,
                    "area": box[2] * box[3] / 2,
                    "iscrowd": int(random.random() < 0.1),
                    "segmentation": _polygon(box),
                }
            )
    return {
        "images": [{"id": i, "height": 400, "width": 400} for i in range(1, images + 1)],
        "categories": [{"id": 2, "name": "a"}, {"id": 3, "name": "b"}],
        "annotations": annotations,
    }


def _random_results(truth: dict) -> list[dict]:
    random = np.random.default_rng(1)
    results = []
    for annotation in truth["annotations"]:
        for _ in range(2):
            box = (np.array(annotation["bbox"]) + random.normal(0, 6, 4)).clip(1).tolist()
            category = annotation["category_id"] if random.random() < 0.8 else 2
            score = round(random.random(), 1)  # with ties
            results.append(
                {"image_id": annotation["image_id"], "category_id": category, "score": score, "bbox": box}
            )
    return results


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_equal_to_plain_pycocotools(iou_type, capsys):
    truth = _random_truth()
    results = _random_results(truth)
    if iou_type == "segm":
        plain = COCO()
        plain.imgs = {image["id"]: image for image in truth["images"]}
        for result in results:
            result["segmentation"] = plain.annToRLE({**result, "segmentation": _polygon(result.pop("bbox"))})
    scores = evaluate_coco_json(truth, results, iou_type)
    assert capsys.readouterr().out == ""

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        plain_eval = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), iou_type)
        plain_eval.evaluate()
        plain_eval.accumulate()
        plain_eval.summarize()
    assert 5 < scores["AP"] < 95
    assert [scores[name] for name in METRICS] == pytest.approx((100 * plain_eval.stats).tolist(), abs=1e-10)
