import numpy as np
import pycocotools.mask as mask_util
import pytest

from panomask.errors import InputError
from panomask.structures import BitMasks
from panomask.structures.segment_map import (
    FIRST_SEGMENT,
    areas_and_boxes_xywh,
    build_segment_map,
    find_positions,
    pixel_runs,
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


def test_runs_and_positions():
    values, lengths = pixel_runs(IDS)  # a run goes on at the end of a row
    assert values.tolist() == [0, 7, 16777215, 7, 300]
    assert lengths.tolist() == [1, 2, 1, 1, 1]
    assert [part.size for part in pixel_runs(IDS[:0])] == [0, 0]
    assert find_positions(np.array([7, 8, -1, 9, 5]), [9, 5, 7, 5]).tolist() == [2, -1, -1, 0, 1]
    assert find_positions(np.array([[7], [0]]), []).tolist() == [[-1], [-1]]
    assert find_positions(np.zeros(0, int), [1]).tolist() == []


def test_masks_and_semantic_labels():
    found = build_segment_map(IDS, SEGMENT_IDS)
    masks = segment_masks(found, [1, 0])
    np.testing.assert_array_equal(masks, [[[0, 1, 1], [0, 1, 0]], [[0, 0, 0], [0, 0, 1]]])
    np.testing.assert_array_equal(semantic_map(found, [4, 0, 2], 255), [[255, 0, 0], [2, 0, 4]])


def test_padding_by_an_augmentation_is_no_segment():
    assert FIRST_SEGMENT > 255
    padded = np.pad(build_segment_map(IDS, SEGMENT_IDS), 1, constant_values=255)
    assert segment_extents(padded, 3)[0].sum() == 5
    assert (semantic_map(padded, [4, 0, 2], 255)[0] == 255).all()


def test_no_segments():
    found = build_segment_map(np.zeros((2, 3), dtype=np.int32), [])
    assert segment_masks(found, []).shape == (0, 2, 3)
    assert (semantic_map(found, [], 255) == 255).all()


def test_an_id_of_the_pixels_that_is_not_listed_is_refused():
    with pytest.raises(InputError, match="pixels have segment id 300, which segments_info does not list"):
        build_segment_map(IDS, [7, 16777215])
    np.testing.assert_array_equal(build_segment_map(IDS, [7], strict=False), [[0, 256, 256], [0, 256, 0]])


def test_a_map_written_as_bgr_is_recognized():
    swapped = np.array([[70000 % 256 * 65536 + 70000 // 256 % 256 * 256 + 1, 300 // 256 * 256 + 44 * 65536]])
    with pytest.raises(InputError, match="red and blue swapped: the map was written as BGR"):
        build_segment_map(swapped, [70000, 300])
    with pytest.raises(InputError, match="list them there"):
        build_segment_map(swapped, [70000, 301])


def test_a_listed_id_without_pixels_is_refused():
    with pytest.raises(InputError, match="lists segment id 0, but no pixel has this id"):
        build_segment_map(IDS, [*SEGMENT_IDS, 0])  # 0 is void, never a segment
    with pytest.raises(InputError, match="lists segment ids 5, 6, but no pixel has these ids"):
        build_segment_map(IDS, [*SEGMENT_IDS, 5, 6])
    assert not build_segment_map(IDS, [5], strict=False).any()


def test_areas_and_boxes_from_runs():
    segment_map = np.array([[0, 257, 257, 0], [256, 256, 257, 0], [255, 258, 256, 256]], dtype=np.int32)
    areas, boxes = segment_extents(segment_map, 4)
    assert areas.tolist() == [4, 3, 1, 0]
    assert boxes.tolist() == [[0, 1, 4, 3], [1, 0, 3, 2], [1, 2, 2, 3], [0, 0, 0, 0]]
    assert areas_and_boxes_xywh(segment_map, 2) == ([4, 3], [[0, 1, 4, 2], [1, 0, 2, 2]])
    assert areas_and_boxes_xywh(segment_map - 255, 2, first=1) == areas_and_boxes_xywh(segment_map, 2)
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
    assert semantic_labels([{"category_id": 3}], 0) == [0]  # as in Detectron2, a thing unless it is said


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
