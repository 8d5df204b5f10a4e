"""Precision over recall by hand; that it is pycocotools' is in test_vectorized_coco_eval."""

import numpy as np
import pytest

from panomask.evaluation.coco_curves import Curves, precision_recall
from panomask.evaluation.coco_matching import Detections, Matches, Objects

RECALLS = np.array([0, 0.5, 0.6, 1.0])


def _curves(scores, matched, *, excused=False, num_objects=2, limits=(100,), area=1.0) -> Curves:
    """Of one category and image; `matched` (N,) are the detections that match an object each."""
    size = len(scores)
    detections = Detections(
        np.zeros(size, int), np.array(scores), np.full(size, area), np.full(size, excused, bool)
    )
    objects = Objects(np.zeros(num_objects, int), np.ones(num_objects), *np.zeros((2, num_objects), bool))
    which = np.flatnonzero(matched)
    is_matched = np.ones((len(which), 1, 1), bool)
    return precision_recall(
        detections,
        objects,
        Matches(which, is_matched, ~is_matched),
        num_categories=2,
        num_images=1,
        recalls=RECALLS,
        area_ranges=np.array([[0, 10.0]]),
        limits=limits,
    )


def test_right_wrong_right():
    """Precision 1 at recall 1/2, then 2/3. The second category has nothing to find."""
    curves = _curves([0.9, 0.8, 0.7], [True, False, True])
    assert curves.precision[0, :, 0, 0, 0] == pytest.approx([1, 1, 2 / 3, 2 / 3])
    assert curves.scores[0, :, 0, 0, 0] == pytest.approx([0.9, 0.9, 0.7, 0.7])
    assert curves.recall[0, :, 0, 0].tolist() == [1, -1]
    assert (curves.precision[:, :, 1] == -1).all()
    assert (curves.scores[:, :, 1] == -1).all()


def test_precision_never_falls_behind_what_comes_after():
    """Wrong, right, right: precision 1/2, then 2/3, which holds from the start; the first score is 0.9."""
    curves = _curves([0.9, 0.8, 0.7], [False, True, True])
    assert curves.precision[0, :, 0, 0, 0] == pytest.approx([2 / 3] * 4)
    assert curves.scores[0, :, 0, 0, 0] == pytest.approx([0.9, 0.8, 0.7, 0.7])


def test_errors_that_do_not_count():
    """An unmatched detection is no error when it is excused or of another size."""
    for case in ({"excused": True}, {"area": 99.0}):
        curves = _curves([0.9, 0.8], [False, True], **case)
        assert curves.precision[0, :, 0, 0, 0] == pytest.approx([1, 1, 0, 0])


def test_limits():
    curves = _curves([0.9, 0.8, 0.7], [False, True, True], limits=(1, 2, 3))
    assert curves.recall[0, 0, 0].tolist() == [0, 0.5, 1]
    assert curves.precision[0, 0, 0, 0] == pytest.approx([0, 1 / 2, 2 / 3])


def test_nothing_found_and_nothing_there():
    curves = _curves([], [])
    assert (curves.precision[:, :, 0] == 0).all()
    assert (curves.scores[:, :, 0] == 0).all()
    assert curves.recall[0, 0, 0, 0] == 0
    assert (_curves([0.5], [False], num_objects=0).precision == -1).all()
