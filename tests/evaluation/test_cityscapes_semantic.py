"""Cityscapes' semantic scores, derived by hand, and `CityscapesSemSegEvaluator` from files to numbers."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from panomask.errors import InputError
from panomask.evaluation import CityscapesSemSegEvaluator
from panomask.evaluation.cityscapes_semantic import (
    CATEGORIES,
    CLASS_NAMES,
    SemanticCounts,
    category_scores,
    class_scores,
    count_image,
)

FILE = "leftImg8bit/val/ulm/ulm_000001_000019_leftImg8bit.png"
ROAD, SIDEWALK, PERSON, CAR, TRUCK = (CLASS_NAMES.index(n) for n in "road sidewalk person car truck".split())
CAR_SIZE = 12794.0202738185

# 10 pixels of road, 4 of ego vehicle (void), a car of 6 and a car of 2 pixels, a group of cars of 2.
LABELS = np.array([[7] * 10 + [1] * 4 + [26] * 10])
INSTANCES = np.array([[7] * 10 + [1] * 4 + [26000] * 6 + [26001] * 2 + [26] * 2])
PREDICTED = np.array(
    [[ROAD] * 8 + [CAR] + [SIDEWALK] + [CAR] * 4 + [CAR] * 3 + [TRUCK] * 3 + [CAR, PERSON] + [CAR, ROAD]]
)


@pytest.fixture
def counts():
    return count_image(PREDICTED, LABELS, INSTANCES)


def test_iou_derived_by_hand(counts):
    iou, _ = class_scores(counts)
    assert iou[CAR] == pytest.approx(5 / (10 + 1))  # 5 of 10 pixels found, one of road taken for it; no void
    assert iou[ROAD] == pytest.approx(8 / (10 + 1))
    assert iou[TRUCK] == iou[SIDEWALK] == iou[PERSON] == 0  # predicted, so measured, though in no truth
    assert np.isnan(iou[CLASS_NAMES.index("sky")])
    by_category, _ = category_scores(counts)
    assert by_category[CATEGORIES.index("vehicle")] == pytest.approx(8 / (10 + 1))
    assert by_category[CATEGORIES.index("flat")] == pytest.approx(9 / (10 + 1))


def test_instance_iou_derived_by_hand(counts):
    """Both cars count as one of average size, of which a half is found (by category: all, and a half)."""
    _, instance_iou = class_scores(counts)
    assert instance_iou[CAR] == pytest.approx(CAR_SIZE / (2 * CAR_SIZE + 1))
    assert math.isnan(instance_iou[ROAD])
    _, by_category = category_scores(counts)
    assert by_category[CATEGORIES.index("vehicle")] == pytest.approx(1.5 * CAR_SIZE / (2 * CAR_SIZE + 1))
    assert math.isnan(by_category[CATEGORIES.index("flat")])


def test_counts_add_up(counts):
    twice, none = counts + counts, SemanticCounts()
    np.testing.assert_allclose(class_scores(twice)[0], class_scores(counts + none)[0])
    assert np.isnan([*class_scores(none), *category_scores(none)][0]).all()


@pytest.fixture
def evaluator(monkeypatch, tmp_path):
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    folder = tmp_path / "cityscapes/gtFine/val/ulm"
    folder.mkdir(parents=True)
    for suffix, pixels, dtype in (("labelIds", LABELS, np.uint8), ("instanceIds", INSTANCES, np.uint16)):
        Image.fromarray(pixels.astype(dtype)).save(folder / f"ulm_000001_000019_gtFine_{suffix}.png")
    return CityscapesSemSegEvaluator("cityscapes_fine_sem_seg_val")


def predict(evaluator, labels, num_classes=19):
    scores = torch.nn.functional.one_hot(torch.from_numpy(labels), num_classes).permute(2, 0, 1)
    evaluator.process([{"file_name": FILE}], [{"sem_seg": scores.float()}])


def test_from_files_to_numbers(evaluator):
    assert evaluator.evaluate() == {}
    predict(evaluator, PREDICTED)
    metrics = evaluator.evaluate()["sem_seg"]
    assert metrics["IoU"] == pytest.approx(100 * (5 / 11 + 8 / 11) / 5)
    assert metrics["iIoU"] == pytest.approx(100 * (CAR_SIZE / (2 * CAR_SIZE + 1)) / 3)
    assert metrics["IoU_sup"] == pytest.approx(100 * (8 / 11 + 9 / 11) / 3)
    assert metrics["iIoU_sup"] == pytest.approx(100 * (1.5 * CAR_SIZE / (2 * CAR_SIZE + 1)) / 2)
    assert metrics["IoU-car"] == pytest.approx(100 * 5 / 11)


def test_errors_are_one_line(evaluator):
    with pytest.raises(InputError, match="predicts 20 semantic classes, but Cityscapes scores 19"):
        predict(evaluator, PREDICTED, 20)
    with pytest.raises(InputError, match=r"map is of \(1, 23\) pixels, the truth of \(1, 24\)"):
        predict(evaluator, PREDICTED[:, :-1])
