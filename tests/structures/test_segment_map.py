import numpy as np
import pycocotools.mask as mask_util
import pytest

from panomask.errors import InputError
from panomask.structures import BitMasks
from panomask.structures.segment_map import (
    FIRST_SEGMENT,
    build_segment_map,
    segment_areas,
    segment_extents,
    segment_masks,
    segment_rles,
    semantic_labels,
    semantic_map,
)

IDS = np.array([[0, 7, 7], [16777215, 7, 300]], dtype=np.int32)
SEGMENT_IDS = [300, 7, 16777215]


def test_pixels_are_numbered_by_the_position_of_their_segment():
    found = build_segment_map(IDS, SEGMENT_IDS)
    np.testing.assert_array_equal(found, [[0, 257, 257], [258, 257, 256]])
    np.testing.assert_array_equal(segment_areas(found, 3), [1, 3, 1])


def test_masks_and_semantic_labels():
    found = build_segment_map(IDS, SEGMENT_IDS)
    masks = segment_masks(found, [1, 0])
    np.testing.assert_array_equal(masks, [[[0, 1, 1], [0, 1, 0]], [[0, 0, 0], [0, 0, 1]]])
    np.testing.assert_array_equal(semantic_map(found, [4, 0, 2], 255), [[255, 0, 0], [2, 0, 4]])


def test_padding_by_an_augmentation_is_no_segment():
    assert FIRST_SEGMENT > 255
    padded = np.pad(build_segment_map(IDS, SEGMENT_IDS), 1, constant_values=255)
    assert segment_areas(padded, 3).sum() == 5
    assert (semantic_map(padded, [4, 0, 2], 255)[0] == 255).all()


def test_no_segments():
    found = build_segment_map(np.zeros((2, 3), dtype=np.int32), [])
    assert segment_masks(found, []).shape == (0, 2, 3)
    assert (semantic_map(found, [], 255) == 255).all()


def test_an_id_of_the_pixels_that_is_not_listed_is_refused():
    with pytest.raises(InputError, match="pixels have segment id 300, which segments_info does not list"):
        build_segment_map(IDS, [7, 16777215])
    np.testing.assert_array_equal(build_segment_map(IDS, [7], strict=False), [[0, 256, 256], [0, 256, 0]])


def test_a_listed_id_without_pixels_is_refused():
    with pytest.raises(InputError, match="lists segment ids 5, 6, but no pixel has these ids"):
        build_segment_map(IDS, [*SEGMENT_IDS, 5, 6])
    assert segment_areas(build_segment_map(IDS, [5], strict=False), 1).tolist() == [0]


def test_areas_and_boxes_from_runs():
    segment_map = np.array([[0, 257, 257, 0], [256, 256, 257, 0], [255, 258, 256, 256]], dtype=np.int32)
    areas, boxes = segment_extents(segment_map, 4)
    assert areas.tolist() == [4, 3, 1, 0]
    assert boxes.tolist() == [[0, 1, 4, 3], [1, 0, 3, 2], [1, 2, 2, 3], [0, 0, 0, 0]]
    assert boxes.dtype == np.float32
    areas, boxes = segment_extents(np.zeros((0, 5), dtype=np.int32), 2)
    assert areas.tolist() == [0, 0]
    assert boxes.tolist() == [[0] * 4] * 2


def test_extents_agree_with_masks():
    ids = np.random.default_rng(3).integers(0, 6, (13, 17))
    segment_map = build_segment_map(ids, [5, 3, 1, 4, 2])
    areas, boxes = segment_extents(segment_map, 5)
    masks = BitMasks(segment_masks(segment_map, range(5)))
    assert areas.tolist() == masks.area().tolist()
    assert boxes.tolist() == masks.get_bounding_boxes().tensor.tolist()


def test_semantic_labels_of_segments():
    segments = [{"category_id": 3, "isthing": True}, {"category_id": 2, "isthing": False}]
    assert semantic_labels(segments, 0) == [0, 2]
    assert semantic_labels(segments, None) == [3, 2]


def test_rles_equal_those_of_masks():
    generator = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 7), (5, 1), (4, 6), (9, 8)):
        ids = generator.integers(0, 5, size=(height, width))
        found = build_segment_map(ids, [3, 1, 2, 9], strict=False)  # 4 is void, and 9 has no pixel
        for id_, rle in zip([3, 1, 2, 9], segment_rles(found, 4), strict=True):
            expected = mask_util.encode(np.asfortranarray(ids == id_, dtype=np.uint8))
            assert rle == {"size": [height, width], "counts": expected["counts"].decode()}
    assert segment_rles(np.full((2, 3), 256, dtype=np.int32), 1) == [{"size": [2, 3], "counts": "06"}]
    assert segment_rles(np.zeros((2, 3), dtype=np.int32), 0) == []
