import math

import numpy as np
import pytest
import torch

from panomask.structures import (
    Boxes,
    BoxMode,
    matched_pairwise_iou,
    pairwise_intersection,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)


@pytest.fixture
def two_boxes() -> Boxes:
    return Boxes([[0, 0, 4, 2], [1, 1, 3, 5]])


def test_modes_keep_detectron2s_numbers():
    assert [mode.value for mode in BoxMode] == [0, 1, 2, 3, 4]
    assert (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS) == (0, 1, 4)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_convert_keeps_type_and_argument(kind):
    xywh = kind([5.0, 6.0, 10.0, 20.0])
    xyxy = BoxMode.convert(xywh, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert type(xyxy) is type(xywh)
    assert list(xyxy) == [5, 6, 15, 26]
    assert list(xywh) == [5, 6, 10, 20]
    assert list(BoxMode.convert(xyxy, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)) == [5, 6, 10, 20]


@pytest.mark.parametrize("array", [np.zeros((0, 4), np.float32), torch.zeros(0, 4)])
def test_convert_of_no_boxes(array):
    out = BoxMode.convert(array, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    assert out.shape == (0, 4)
    assert out.dtype == array.dtype


def test_convert_takes_plain_numbers_for_modes():
    assert BoxMode.convert([1, 2, 3, 4], 1, 0) == [1, 2, 4, 6]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_convert_rotated_box_to_the_box_around_it(kind):
    quarter = BoxMode.convert(kind([10.0, 20.0, 8.0, 2.0, 90.0]), BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS)
    np.testing.assert_allclose(list(quarter), [9, 16, 11, 24], atol=1e-5)
    eighth = BoxMode.convert(kind([0.0, 0.0, 2.0, 2.0, -45.0]), BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS)
    np.testing.assert_allclose(list(eighth), [-math.sqrt(2)] * 2 + [math.sqrt(2)] * 2, atol=1e-6)


def test_convert_refuses_relative_modes():
    with pytest.raises(ValueError, match="XYXY_REL"):
        BoxMode.convert([0, 0, 1, 1], BoxMode.XYXY_REL, BoxMode.XYXY_ABS)


def test_area_centers_and_nonempty(two_boxes: Boxes):
    assert two_boxes.area().tolist() == [8, 8]
    assert two_boxes.get_centers().tolist() == [[2, 1], [2, 3]]
    assert two_boxes.nonempty().tolist() == [True, True]
    assert two_boxes.nonempty(threshold=2).tolist() == [False, False]
    assert Boxes([[3, 0, 1, 5], [0, 0, 0, 5]]).nonempty().tolist() == [False, False]


def test_clip_takes_height_then_width():
    boxes = Boxes([[-3, -4, 30, 40], [2, 3, 4, 5]])
    boxes.clip((10, 20))
    assert boxes.tensor.tolist() == [[0, 0, 20, 10], [2, 3, 4, 5]]


def test_inside_box():
    boxes = Boxes([[0, 0, 19, 9], [-1, 0, 5, 5], [0, 0, 20, 9]])
    assert boxes.inside_box((10, 20)).tolist() == [True, False, False]
    assert boxes.inside_box((10, 20), boundary_threshold=1).tolist() == [True, True, True]


def test_scale_changes_the_boxes_themselves(two_boxes: Boxes):
    two_boxes.scale(2, 10)
    assert two_boxes.tensor.tolist() == [[0, 0, 8, 20], [2, 10, 6, 50]]


def test_clone_has_its_own_memory(two_boxes: Boxes):
    two_boxes.clone().scale(2, 2)
    assert two_boxes.tensor[0].tolist() == [0, 0, 4, 2]


def test_indexing(two_boxes: Boxes):
    assert two_boxes[1].tensor.tolist() == [[1, 1, 3, 5]]
    assert two_boxes[-1:].tensor.tolist() == [[1, 1, 3, 5]]
    assert two_boxes[torch.tensor([True, False])].tensor.tolist() == [[0, 0, 4, 2]]
    assert len(two_boxes[torch.tensor([1, 0, 1])]) == 3
    assert [box.tolist() for box in two_boxes] == two_boxes.tensor.tolist()


def test_tensors_are_float32(two_boxes: Boxes):
    assert Boxes(np.zeros((2, 4), np.float64)).tensor.dtype == torch.float32
    assert Boxes(torch.zeros(2, 4, dtype=torch.float16)).tensor.dtype == torch.float32
    assert two_boxes.to("cpu").tensor.dtype == torch.float32
    assert "Boxes" in repr(two_boxes)


def test_cat(two_boxes: Boxes):
    assert len(Boxes.cat([two_boxes, two_boxes[:1]])) == 3
    assert Boxes.cat([]).tensor.shape == (0, 4)


@pytest.mark.parametrize("empty", [[], torch.zeros(0), np.zeros((0, 4))])
def test_no_boxes(empty, two_boxes: Boxes):
    none = Boxes(empty)
    none.clip((5, 5))
    assert none.tensor.shape == (0, 4)
    assert none.area().shape == none.nonempty().shape == none.inside_box((5, 5)).shape == (0,)
    assert pairwise_iou(none, two_boxes).shape == (0, 2)
    assert pairwise_ioa(two_boxes, none).shape == (2, 0)
    assert matched_pairwise_iou(none, none).shape == (0,)


def test_pairwise_measures_by_hand(two_boxes: Boxes):
    other = Boxes([[0, 0, 4, 2], [2, 1, 4, 2], [4, 2, 9, 9]])
    # The second pair: width 4 - 2, height 2 - 1; (1, 0) shares x 1..3 and y 1..2; (1, 1) x 2..3 and y 1..2.
    assert pairwise_intersection(two_boxes, other).tolist() == [[8, 2, 0], [2, 1, 0]]
    expected = torch.tensor([[1, 2 / 8, 0], [2 / 14, 1 / 9, 0]])
    torch.testing.assert_close(pairwise_iou(two_boxes, other), expected)
    torch.testing.assert_close(pairwise_ioa(two_boxes, other), torch.tensor([[1, 1, 0], [2 / 8, 1 / 2, 0]]))


def test_pairs_of_boxes_without_area_give_zero():
    point = Boxes([[3, 3, 3, 3]])
    assert pairwise_iou(point, point).tolist() == [[0]]
    assert pairwise_ioa(point, point).tolist() == [[0]]
    assert matched_pairwise_iou(point, point).tolist() == [0]


def test_matched_iou_is_the_diagonal():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 50, 2, generator=generator) * 10
    first, second = (Boxes(torch.cat([c, c + 1 + 5 * torch.rand(50, 2)], dim=1)) for c in corners)
    torch.testing.assert_close(matched_pairwise_iou(first, second), pairwise_iou(first, second).diagonal())


def test_point_box_distance():
    points = torch.tensor([[1.0, 1.0], [5.0, 0.0]])
    distances = pairwise_point_box_distance(points, Boxes([[0, 0, 4, 2]]))
    assert distances.tolist() == [[[1, 1, 3, 1]], [[5, 0, -1, 2]]]
