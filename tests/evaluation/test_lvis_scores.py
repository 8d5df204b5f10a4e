"""LVIS's rules by hand, and the numbers of the package lvis on a scene made of triangles."""

import math
import random

import numpy as np
import pycocotools.mask as mask_util
import pytest

from panomask.errors import InputError
from panomask.evaluation import evaluate_lvis_json
from panomask.evaluation.lvis_scores import METRICS

CATEGORIES = [{"id": i + 1, "name": f"c{i}", "frequency": f} for i, f in enumerate("rccfff")]


def image(id_, negative=(), not_exhaustive=()):
    return {
        "id": id_,
        "height": 200,
        "width": 240,
        "neg_category_ids": list(negative),
        "not_exhaustive_category_ids": list(not_exhaustive),
    }


def polygon(x, y, w, h):
    """A triangle that fills half of the box."""
    return [[x, y, x + w, y, x, y + h]]


def obj(id_, image_id, category_id, box):
    segmentation = polygon(*box)
    return {
        "id": id_,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(box),
        "area": box[2] * box[3] / 2,
        "segmentation": segmentation,
    }


def detection(image_id, category_id, box, score):
    rle = mask_util.merge(mask_util.frPyObjects(polygon(*box), 200, 240))
    rle["counts"] = rle["counts"].decode()
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(box),
        "score": score,
        "segmentation": rle,
    }


def scene(seed=0):
    """Ground truth and detections; Python's own generator gives the same everywhere."""
    rng = random.Random(seed)
    images, objects, detections = [], [], []
    for image_id in range(1, 21):
        shown = rng.sample(range(1, 7), 3)
        absent = [c for c in range(1, 7) if c not in shown]
        images.append(image(image_id, rng.sample(absent, 2), shown[:1]))
        for category in shown:
            for _ in range(rng.randint(1, 3)):
                box = [rng.randint(0, 30), rng.randint(0, 20), rng.randint(4, 200), rng.randint(4, 160)]
                objects.append(obj(len(objects) + 1, image_id, category, box))
                for _ in range(rng.randint(0, 3)):
                    moved = [
                        max(v + rng.randint(-4, 4), low) for v, low in zip(box, (0, 0, 2, 2), strict=True)
                    ]
                    guess = category if rng.random() < 0.7 else rng.randint(1, 6)
                    detections.append(detection(image_id, guess, moved, round(rng.random(), 2)))
    return {"images": images, "annotations": objects, "categories": CATEGORIES}, detections


EXPECTED = {
    "bbox 300": "31.728859 45.609384 34.426379 21.646315 37.193354 56.880402 32.974683 28.925245 33.18266",
    "bbox 4": "19.889388 28.521521 20.66202 15.891089 20.979221 45.090759 20.644743 17.790626 21.036779",
    "segm 300": "24.798794 40.435865 28.571227 10.772277 30.636872 62.805281 26.333234 22.461412 25.845569",
    "segm 4": "15.680418 26.258437 18.225639 7.610011 16.968097 53.283828 17.007308 14.032571 16.336686",
}
"""Of lvis 0.5.3 (with numpy's old names restored) on `scene`: task and limit -> the nine numbers."""


@pytest.mark.parametrize("case", list(EXPECTED))
def test_the_numbers_of_the_package_lvis(case):
    task, limit = case.split()
    truth, detections = scene()
    key = "segmentation" if task == "segm" else "bbox"
    keep = {"image_id", "category_id", "score", key}
    results = [{k: v for k, v in found.items() if k in keep} for found in detections]
    scores = evaluate_lvis_json(truth, results, task, max_detections=int(limit))
    assert list(scores) == list(METRICS)
    assert list(scores.values()) == pytest.approx(
        [float(number) for number in EXPECTED[case].split()], abs=1e-6
    )


BOX = (10, 10, 50, 50)
FAR = (100, 60, 50, 50)


def score(images, objects, detections, **options):
    truth = {"images": images, "annotations": objects, "categories": CATEGORIES}
    return evaluate_lvis_json(truth, detections, **options)


def test_categories_of_unknown_presence_are_not_scored():
    """Image 2 says nothing of category 1: the detection there is no error. Image 3 has none of it."""
    truth = [obj(1, 1, 1, BOX)]
    right, wrong = detection(1, 1, BOX, 0.5), [detection(i, 1, BOX, 0.9) for i in (2, 3)]
    assert score([image(1), image(2)], truth, [right, wrong[0]])["AP"] == pytest.approx(100)
    assert score([image(1), image(3, negative=[1])], truth, [right, wrong[1]])["AP"] == pytest.approx(50)


def test_unmatched_detections_of_a_category_not_annotated_exhaustively_are_no_error():
    truth = [obj(1, 1, 1, BOX)]
    found = [detection(1, 1, FAR, 0.9), detection(1, 1, BOX, 0.5)]
    assert score([image(1)], truth, found)["AP"] == pytest.approx(50)
    assert score([image(1, not_exhaustive=[1])], truth, found)["AP"] == pytest.approx(100)


def test_the_limit_is_for_all_categories_together():
    truth = [obj(1, 1, 1, BOX), obj(2, 1, 2, BOX)]
    found = [detection(1, 1, BOX, 0.9), detection(1, 2, BOX, 0.8)]
    assert score([image(1)], truth, found, max_detections=2)["AP"] == pytest.approx(100)
    limited = score([image(1)], truth, found, max_detections=1)
    assert limited["AP"] == pytest.approx(50)
    assert (limited["APr"], limited["APc"]) == (pytest.approx(100), 0)
    assert math.isnan(limited["APf"])


def test_what_has_no_area_is_passed_over():
    """An empty mask or box is no error, and an object without area need not be found; lvis 0.5.3 does so."""
    truth = [obj(1, 1, 1, BOX), {**obj(2, 1, 1, FAR), "area": 0}]
    empty = {"size": [200, 240], "counts": mask_util.encode(np.zeros((200, 240), np.uint8, "F"))["counts"]}
    found = [{**detection(1, 1, (5, 5, 0, 9), 0.9), "segmentation": empty}, detection(1, 1, BOX, 0.5)]
    for task in ("bbox", "segm"):
        assert score([image(1)], truth, found, iou_type=task)["AP"] == pytest.approx(100)


def test_no_detections_score_zero():
    scores = score([image(1)], [obj(1, 1, 4, BOX)], [])
    assert (scores["AP"], scores["APf"], scores["APm"]) == (0, 0, 0)
    assert math.isnan(scores["APr"])
    assert math.isnan(scores["APl"])


def test_other_files_are_refused():
    plain = [{"id": 1, "height": 200, "width": 160}]
    with pytest.raises(
        InputError, match="image 1 has no list neg_category_ids and no list not_exhaustive_category_ids"
    ):
        score(plain, [], [])
    with pytest.raises(InputError, match="image 1 has no list neg_category_ids; score"):
        score([image(1) | {"neg_category_ids": None}], [], [])
    with pytest.raises(
        InputError, match=r"image 1: 'not_exhaustive_category_ids' holds .2.; numbers or texts"
    ):
        score([image(1, negative=[1], not_exhaustive=[1, [2]])], [], [])
    with pytest.raises(InputError, match="iou_type 'keypoints'"):
        score([image(1)], [], [], iou_type="keypoints")
    for wrong in ("0.9", None, [0.5]):
        found = [detection(1, 1, BOX, 0.5), detection(1, 1, BOX, wrong)]
        with pytest.raises(InputError, match=r"entry 2: 'score' is .*; a number is needed"):
            score([image(1)], [obj(1, 1, 1, BOX)], found)
    without_mask = [{k: v for k, v in obj(1, 1, 1, BOX).items() if k != "segmentation"}]
    with pytest.raises(InputError, match="no masks"):
        score([image(1)], without_mask, [], iou_type="segm")
