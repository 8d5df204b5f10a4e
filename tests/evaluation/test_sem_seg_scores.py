"""Counts of pixels and what is measured from them, derived by hand; boundaries against OpenCV's erosion."""

import math

import cv2
import numpy as np
import pytest
import torch

from panomask.evaluation.sem_seg_scores import (
    boundary_region,
    count_boundary_pairs,
    count_pairs,
    semantic_scores,
)


def scores_of(predicted, truth, names="abc", boundary=False):
    predicted, truth = torch.tensor(predicted), torch.tensor(truth)
    counts = count_pairs(predicted, truth, len(names)).numpy()
    on_boundary = count_boundary_pairs(predicted, truth, len(names)).numpy() if boundary else None
    return semantic_scores(counts, names, on_boundary)


def test_scores_derived_by_hand():
    """Truth: 4 pixels of a, 2 of b, 1 of void (3), none of c. a: 3 hit, 1 taken for b; b: 1 hit, 1 as c."""
    scores = scores_of([[0, 0, 0, 1, 1, 2, 2]], [[0, 0, 0, 0, 1, 1, 3]])
    assert scores == {
        "mIoU": pytest.approx(100 * (3 / 4 + 1 / 3) / 2),
        "fwIoU": pytest.approx(100 * (3 / 4 * 4 + 1 / 3 * 2) / 6),
        "IoU-a": pytest.approx(75),
        "IoU-b": pytest.approx(100 / 3),
        "IoU-c": pytest.approx(math.nan, nan_ok=True),  # predicted, but in no truth
        "mACC": pytest.approx(100 * (3 / 4 + 1 / 2) / 2),
        "pACC": pytest.approx(100 * 4 / 6),
        "ACC-a": pytest.approx(75),
        "ACC-b": pytest.approx(50),
        "ACC-c": pytest.approx(math.nan, nan_ok=True),
    }


def test_nothing_but_void_measures_nothing():
    scores = scores_of([[0, 1]], [[3, 3]], boundary=True)
    assert all(math.isnan(score) for score in scores.values())


@pytest.mark.parametrize(("size", "width"), [((9, 11), 1), ((24, 17), 3), ((120, 100), None), ((6, 9), 3)])
def test_boundaries_are_what_erosions_take_away(size, width):
    rng = np.random.default_rng(0)
    labels = cv2.resize(rng.integers(0, 3, (5, 5)).astype(np.uint8), size[::-1], interpolation=0)
    erosions = width or round(0.02 * math.hypot(*size))
    expected = np.zeros(size, dtype=bool)
    for label in range(3):
        mask = np.pad((labels == label).astype(np.uint8), 1)
        eroded = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=erosions)
        expected |= (mask != eroded)[1:-1, 1:-1]
    assert (boundary_region(torch.from_numpy(labels), width).numpy() == expected).all()


def test_boundary_iou_derived_by_hand():
    """20 x 20, width 1 (2 % of 28.3): b is 4 x 10 pixels of which the upper 4 x 8 are predicted.

    The ring of b has 2 * (4 + 10) - 4 = 24 pixels, that of its prediction 20; they share all of the latter
    but its bottom inside, 2 pixels.
    """
    truth, predicted = np.zeros((20, 20), dtype=int), np.zeros((20, 20), dtype=int)
    truth[5:15, 5:9] = 1
    predicted[5:13, 5:9] = 1
    scores = scores_of(predicted, truth, "ab", boundary=True)
    assert scores["BoundaryIoU-b"] == pytest.approx(100 * 18 / (24 + 20 - 18))
    assert scores["IoU-b"] == pytest.approx(80)
    assert scores["min(IoU, B-Iou)-b"] == scores["BoundaryIoU-b"]
    assert scores["mBoundaryIoU"] == pytest.approx((scores["BoundaryIoU-a"] + scores["BoundaryIoU-b"]) / 2)


def test_a_prediction_right_in_every_scored_pixel_has_100():
    """Whatever it says in void, whose edge is an edge of both."""
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 4, (6, 6)), np.ones((10, 10), dtype=int))
    predicted = np.where(truth == 3, rng.integers(0, 3, truth.shape), truth)
    scores = scores_of(predicted, truth, boundary=True)
    assert set(scores.values()) == {100.0}


def test_two_classes_of_one_name_are_told_apart():
    scores = scores_of([[0, 0, 1]], [[0, 1, 1]], names=["things", "things", "sky"])
    assert scores["IoU-things (0)"] == scores["ACC-things (1)"] == pytest.approx(50)
    assert "IoU-sky" in scores
