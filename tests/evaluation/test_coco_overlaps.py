"""Overlaps pair by pair, by hand; that they are pycocotools' is in test_vectorized_coco_eval."""

import math

import numpy as np
import pycocotools.mask as mask_util
import pytest

from panomask.errors import InputError
from panomask.evaluation.coco_overlaps import (
    BoxOverlaps,
    KeypointOverlaps,
    MaskOverlaps,
    Masks,
    common_area,
)


def test_boxes():
    boxes = np.array([[0, 0, 10, 10], [20, 0, 10, 10], [np.nan, 0, 10, 10]])
    objects = np.array([[5, 0, 10, 10], [0.0, 0, 100, 100]])
    overlaps = BoxOverlaps(boxes, objects, np.array([False, True]))
    pairs = np.array([0, 0, 1, 2]), np.array([0, 1, 0, 1])
    # of the crowd, the detection's share; for a box of NaN, nothing
    assert overlaps(*pairs) == pytest.approx([50 / 150, 1, 0, 0])
    assert common_area(boxes[:1], objects[:1]).tolist() == [50]


def _rle(rows: slice, columns: slice) -> dict:
    mask = np.zeros((20, 30), np.uint8, order="F")
    mask[rows, columns] = 1
    return mask_util.encode(mask)


def _masks(*rles: dict) -> Masks:
    return Masks(rles, lambda i: f"mask {i}")


MASKS = (
    _rle(slice(0, 10), slice(0, 10)),
    _rle(slice(0, 10), slice(5, 15)),
    _rle(slice(0, 2), slice(0, 1)),
    _rle(slice(0), slice(0)),
)


def test_masks():
    """Pairs below the limit may be said not to overlap at all; those from it on are measured."""
    detection, object_ = (indices.ravel() for indices in np.indices((4, 3)))
    objects = _masks(MASKS[0], MASKS[1], _rle(slice(None), slice(None)))
    expected = [1, 1 / 3, 1, 1 / 3, 1, 1, 0.02, 0, 1, 0, 0, 0]
    is_crowd = np.array([False, False, True])
    for at_least in (0.0, 1 / 3, 0.5):
        found = MaskOverlaps(_masks(*MASKS), objects, is_crowd, at_least)(detection, object_)
        assert [x if x >= at_least else 0 for x in found] == pytest.approx(
            [x if x >= at_least else 0 for x in expected]
        )


@pytest.mark.parametrize(
    "counts, message", [(b"h", "text of its RLE"), (b"", "text of its RLE"), (b"0d30", "are not as many")]
)
def test_masks_that_cannot_be_compared_are_named(counts, message):
    """Each alone would crash pycocotools or keep it busy forever."""
    for masks in ((0, 1), (1, 0)):
        both = MASKS[0], {"size": [20, 30], "counts": counts}
        overlaps = MaskOverlaps(_masks(both[masks[0]]), _masks(both[masks[1]]), np.zeros(1, bool), 0.0)
        with pytest.raises(InputError, match=f"mask 0: .*{message}"):
            overlaps(np.zeros(1, int), np.zeros(1, int))


def test_keypoints():
    """One of two keypoints is labelled, 5 pixels off: exp(-25 / (2 * 100 * (2 * 0.25)^2))."""
    objects = np.array([[[10.0, 10, 2], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    overlaps = KeypointOverlaps(
        np.array([[[13.0, 14, 1], [99, 99, 1]], [[2.0, 0, 1], [-4, -10, 1]]]),
        objects,
        boxes=np.array([[0.0, 0, 5, 5], [0, 0, 4, 10]]),
        areas=np.array([100.0, 100]),
        sigmas=np.array([0.25, 0.25]),
    )
    found = overlaps(np.array([0, 1]), np.array([0, 1]))
    # without a labelled one: 0 off a box of thrice the size
    assert found == pytest.approx([math.exp(-25 / (2 * 100 * 0.25)), 1])
