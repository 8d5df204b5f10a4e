import numpy as np
import pytest

from panomask.errors import InputError
from panomask.structures.segment_map import (
    FIRST_SEGMENT,
    build_segment_map,
    segment_areas,
    segment_masks,
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
