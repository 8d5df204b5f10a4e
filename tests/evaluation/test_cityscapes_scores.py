"""Cityscapes' rules by hand, and the numbers of the package cityscapesscripts on a scene of rectangles."""

import math
import random

import numpy as np
import pytest

from panomask.evaluation.cityscapes_scores import (
    THRESHOLDS,
    ImageClass,
    Prediction,
    average_precision,
    overlap_prediction,
)

CAR, PERSON, VOID = 26, 24, {0, 4}
FIRST, SECOND, GROUP = 26000, 26001, 26


def fits(score, id_, pixels=200):
    """A prediction that is the object `id_`, pixel by pixel."""
    return Prediction(score=score, num_pixels=pixels, num_void=0, overlaps={id_: pixels})


def ap(objects, predictions):
    return average_precision([ImageClass(objects, predictions)])[0]


ELSEWHERE = Prediction(score=0.9, num_pixels=200, num_void=0, overlaps={})


def test_an_error_above_and_below_the_hit():
    """At every score precision weighs half of the recall before and half of that after it, (Eq. of the area):

    the error above: precision 1/2, 0, 1 at recall 1, 0, 0 gives 1/2 * 1/2; below, it costs nothing.
    """
    assert ap({FIRST: 200}, [fits(0.5, FIRST)]) == 1
    assert ap({FIRST: 200}, [fits(0.5, FIRST), ELSEWHERE]) == pytest.approx(0.25)
    assert ap({FIRST: 200}, [fits(0.95, FIRST), ELSEWHERE]) == 1


def test_the_second_prediction_of_an_object_is_an_error():
    both = ap({FIRST: 200, SECOND: 200}, [fits(0.9, FIRST), fits(0.8, FIRST), fits(0.7, SECOND)])
    # precision 2/3, 1/2, 1, 1 at recall 1, 1/2, 1/2, 0; steps 1/4, 1/4, 1/4, 1/4
    assert both == pytest.approx((2 / 3 + 1 / 2 + 1 + 1) / 4)


def test_a_missed_object_lowers_recall():
    """Precision 1, 1 at recall 1/2, 0."""
    assert ap({FIRST: 200, SECOND: 200}, [fits(0.9, FIRST)]) == pytest.approx(0.5)
    assert ap({FIRST: 200}, []) == 0


@pytest.mark.parametrize(
    ("overlaps", "num_void", "is_error"),
    [
        ({}, 90, True),
        ({}, 110, False),
        ({GROUP: 110}, 0, False),
        ({GROUP: 60}, 50, False),
        ({GROUP: 90}, 0, True),
    ],
)
def test_void_and_groups_excuse_a_prediction(overlaps, num_void, is_error):
    """More than the threshold (0.5) of its 200 pixels."""
    predictions = [fits(0.5, FIRST), Prediction(0.9, 200, num_void, overlaps)]
    assert ap({FIRST: 200, GROUP: 900}, predictions) == pytest.approx(0.25 if is_error else 1)


def test_small_objects_do_not_count():
    assert math.isnan(ap({FIRST: 99}, [fits(0.9, FIRST, 99)]))
    assert math.isnan(ap({GROUP: 500}, [ELSEWHERE]))
    assert ap({FIRST: 99, SECOND: 200}, [fits(0.9, FIRST, 99), fits(0.8, SECOND)]) == 1
    part = Prediction(0.9, 140, 0, {FIRST: 99})
    assert ap({FIRST: 99, SECOND: 200}, [part, fits(0.8, SECOND)]) == 1


def test_overlaps():
    ids = np.zeros((4, 6), dtype=np.int64)
    ids[:2, :3], ids[:2, 3:], ids[2] = FIRST, 24000, GROUP
    mask = np.zeros((4, 6), dtype=bool)
    mask[:, 2:4] = True
    found = overlap_prediction(mask, 0.5, ids, CAR, VOID)
    assert found == Prediction(score=0.5, num_pixels=8, num_void=2, overlaps={FIRST: 2, GROUP: 2})
    assert overlap_prediction(mask, 0.5, ids, PERSON, VOID).overlaps == {24000: 2}
    assert overlap_prediction(np.zeros_like(mask), 0.5, ids, CAR, VOID) is None


def scene(seed=0):
    """Five images: (ids (60, 90), [(mask, label id, score), ...]); the same on every machine."""
    rng = random.Random(seed)
    images = []
    for _ in range(5):
        ids = np.full((60, 90), 7, dtype=np.int64)
        for k in range(14):
            x, y, w, h = rng.randint(0, 70), rng.randint(0, 45), rng.randint(4, 30), rng.randint(4, 25)
            ids[y : y + h, x : x + w] = rng.choice([26000 + k, 26000 + k, 24000 + k, 24000 + k, 26, 24, 0, 4])
        predictions = []
        for id_ in np.unique(ids).tolist():
            for _ in range(rng.randint(0, 3)):
                shift = (rng.randint(-3, 3), rng.randint(-3, 3))
                mask = np.roll(ids == id_, shift, (0, 1))
                label = id_ if id_ < 1000 else id_ // 1000
                label = label if label in (CAR, PERSON) else rng.choice([CAR, PERSON])
                predictions.append((mask, label, round(rng.random(), 2)))
        images.append((ids, predictions))
    return images


EXPECTED = {
    CAR: "0.277157 0.237384 0.11956 0.11956 0.018171 0.016372 0.0 0.0 0.0 0.0",
    PERSON: "0.183848 0.166339 0.048703 0.035986 0.031252 0.012068 0.002083 0.002016 0.001838 0.001786",
}
"""Of cityscapesscripts 2.3.0 on `scene`: label id -> AP at the ten thresholds."""


@pytest.mark.parametrize("label", list(EXPECTED))
def test_the_numbers_of_the_package_cityscapesscripts(label):
    images = []
    for ids, predictions in scene():
        found, counts = np.unique(ids, return_counts=True)
        objects = {
            id_: count
            for id_, count in zip(found.tolist(), counts.tolist(), strict=True)
            if label in (id_, id_ // 1000)
        }
        compared = [
            overlap_prediction(mask, score, ids, label, VOID)
            for mask, predicted, score in predictions
            if predicted == label
        ]
        images.append(ImageClass(objects, compared))
    assert len(THRESHOLDS) == 10
    assert average_precision(images) == pytest.approx([float(x) for x in EXPECTED[label].split()], abs=1e-6)
