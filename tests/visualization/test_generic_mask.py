"""Masks in every form give the same pixels."""

import numpy as np
import pycocotools.mask as mask_coding
import pytest

from panomask.visualization import GenericMask

PIXELS = np.zeros((8, 10), dtype=np.uint8)
PIXELS[2:6, 3:9] = 1


@pytest.mark.parametrize(
    "source",
    [
        PIXELS,
        PIXELS.astype(bool),
        [[3, 2, 9, 2, 9, 6, 3, 6]],
        mask_coding.encode(np.asfortranarray(PIXELS)),
        {"counts": [26, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 10], "size": [8, 10]},
    ],
)
def test_forms(source: object) -> None:
    mask = GenericMask(source, 8, 10)
    assert np.array_equal(mask.mask, PIXELS)
    assert mask.area() == 24
    assert mask.bbox().tolist() == [3, 2, 9, 6]
    assert not mask.has_holes
    (polygon,) = mask.polygons
    corners = polygon.reshape(-1, 2)
    assert (corners.min(axis=0) >= (3, 2)).all()
    assert (corners.max(axis=0) <= (9, 6)).all()


def test_holes_and_nothing() -> None:
    pixels = np.ones((5, 5), dtype=np.uint8)
    pixels[2, 2] = 0
    assert GenericMask(pixels, 5, 5).has_holes
    for empty in (np.zeros((5, 5)), []):
        mask = GenericMask(empty, 5, 5)
        assert mask.polygons == []
        assert mask.area() == 0
        assert mask.bbox().tolist() == [0, 0, 0, 0]
