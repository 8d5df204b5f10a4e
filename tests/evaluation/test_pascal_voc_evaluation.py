"""VOC's AP by hand."""

import math

import numpy as np
import pytest
import torch

from panomask.data import MetadataCatalog
from panomask.errors import InputError
from panomask.evaluation import PascalVOCDetectionEvaluator
from panomask.evaluation.pascal_voc_evaluation import voc_ap
from panomask.structures import Boxes, Instances

CLASSES = ["dog", "cat", "cow"]
OBJECT = (
    "<object><name>{0}</name><difficult>{2}</difficult><bndbox><xmin>{1[0]}</xmin><ymin>{1[1]}</ymin>"
    "<xmax>{1[2]}</xmax><ymax>{1[3]}</ymax></bndbox></object>"
)


@pytest.fixture
def evaluator(tmp_path):
    """Makes an evaluator of images given as name -> [(class, box as in the file, difficult), ...]."""

    def make(images, year=2012):
        (tmp_path / "Annotations").mkdir()
        (tmp_path / "ImageSets/Main").mkdir(parents=True)
        (tmp_path / "ImageSets/Main/val.txt").write_text("\n".join(images))
        for name, objects in images.items():
            body = "".join(OBJECT.format(*each) for each in objects)
            (tmp_path / f"Annotations/{name}.xml").write_text(f"<annotation>{body}</annotation>")
        MetadataCatalog.get("voc_test_set").set(
            dirname=str(tmp_path), split="val", year=year, thing_classes=CLASSES
        )
        return PascalVOCDetectionEvaluator("voc_test_set")

    yield make
    MetadataCatalog.pop("voc_test_set", None)


def predict(evaluator, image, detections):
    """`detections`: (class, box as in the file, score)."""
    instances = Instances((100, 100))
    boxes = torch.tensor([box for _, box, _ in detections], dtype=torch.float32).reshape(-1, 4)
    boxes[:, :2] -= 1
    instances.pred_boxes = Boxes(boxes)
    instances.scores = torch.tensor([score for _, _, score in detections])
    instances.pred_classes = torch.tensor([CLASSES.index(c) for c, _, _ in detections], dtype=torch.int64)
    evaluator.process([{"image_id": image}], [{"instances": instances}])


def test_area_and_eleven_points():
    """Recall 1/2 at precision 1, then recall 1 at 2/3; the dip to 1/2 in between is filled."""
    recall, precision = np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])
    assert voc_ap(recall, precision) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert voc_ap(recall, precision, use_07_metric=True) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert voc_ap(np.zeros(0), np.zeros(0)) == 0
    assert voc_ap(np.zeros(0), np.zeros(0), use_07_metric=True) == 0
    assert math.isnan(voc_ap(np.array([math.nan]), np.zeros(1)))


A, B, FAR = [1, 1, 10, 10], [21, 21, 40, 40], [61, 61, 80, 80]


@pytest.mark.parametrize(("year", "ap"), [(2012, 0.5 + 0.5 * 2 / 3), (2007, (6 + 5 * 2 / 3) / 11)])
def test_a_wrong_box_between_two_right_ones(evaluator, year, ap):
    scored = evaluator({"1": [("dog", A, 0)], "2": [("dog", B, 0)]}, year)
    predict(scored, "1", [("dog", A, 0.9), ("dog", FAR, 0.8)])
    predict(scored, "2", [("dog", B, 0.7)])
    metrics = scored.evaluate()["bbox"]
    assert [metrics[key] for key in ("AP", "AP50", "AP75", "AP-dog")] == pytest.approx([100 * ap] * 4)
    assert math.isnan(metrics["AP-cat"])


def test_the_second_detection_of_an_object_is_wrong(evaluator):
    scored = evaluator({"1": [("dog", A, 0), ("dog", B, 0)]})
    predict(scored, "1", [("dog", B, 0.5), ("dog", A, 0.8), ("dog", A, 0.9)])
    assert scored.evaluate()["bbox"]["AP50"] == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))


def test_difficult_objects_do_not_count(evaluator):
    """Neither missed (cat), nor found, nor an error (dog's second detection)."""
    scored = evaluator({"1": [("dog", A, 0), ("dog", B, 1), ("cat", B, 1)]})
    predict(scored, "1", [("dog", B, 0.9), ("dog", A, 0.5)])
    metrics = scored.evaluate()["bbox"]
    assert metrics["AP50"] == pytest.approx(100)
    assert math.isnan(metrics["AP-cat"])


def test_overlap_counts_the_last_pixel(evaluator):
    """10 x 10 pixels against its 10 x 8: IoU 0.8, right up to threshold 0.75 (6 of 10 thresholds)."""
    scored = evaluator({"1": [("dog", A, 0)]})
    predict(scored, "1", [("dog", [1, 1, 10, 8], 0.9)])
    metrics = scored.evaluate()["bbox"]
    assert (metrics["AP"], metrics["AP75"]) == (pytest.approx(60), pytest.approx(100))


def test_scores_and_boxes_are_rounded_as_in_result_files(evaluator):
    scored = evaluator({"1": [("dog", A, 0)]})
    predict(scored, "1", [("dog", FAR, 0.90001), ("dog", [1.04, 1, 10, 10], 0.9004)])
    ((_, score, _), (_, other, box)) = scored._predictions["1"]
    assert (score, other, box) == (0.9, 0.9, [1.0, 1.0, 10.0, 10.0])


def test_nothing_predicted_scores_zero(evaluator):
    scored = evaluator({"1": [("dog", A, 0)], "2": []})
    for image in ("1", "2"):
        predict(scored, image, [])
    metrics = scored.evaluate()["bbox"]
    assert (metrics["AP"], metrics["AP-dog"]) == (0, 0)
    scored.reset()
    assert scored.evaluate()["bbox"]["AP"] == 0


def test_errors_are_one_line(evaluator):
    MetadataCatalog.get("voc_bad").set(dirname="x", split="val", year=2010, thing_classes=CLASSES)
    with pytest.raises(InputError, match="year is 2010"):
        PascalVOCDetectionEvaluator("voc_bad")
    MetadataCatalog.remove("voc_bad")
    with pytest.raises(InputError, match="does not say its dirname, split, year, thing_classes"):
        PascalVOCDetectionEvaluator("voc_unknown")
    MetadataCatalog.remove("voc_unknown")
    scored = evaluator({"1": [("dog", A, 0)]})
    predict(scored, "1", [("cow", A, 0.5)])
    scored._class_names = CLASSES[:2]
    with pytest.raises(InputError, match="predicted class 2, but voc_test_set has 2 classes"):
        scored.evaluate()
