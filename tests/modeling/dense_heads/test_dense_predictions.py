import pytest
import torch

from panomask.modeling.box_regression import Box2BoxTransformLinear
from panomask.modeling.dense_heads.dense_predictions import by_anchor, detect_in_image, permute_to_N_HWA_K
from panomask.structures import Boxes

CODING = Box2BoxTransformLinear(normalize_by_size=False)
CELLS = [Boxes([[0.0, 0, 8, 8], [8, 0, 16, 8], [16, 0, 24, 8]]), Boxes([[0.0, 0, 16, 16]])]


def detect(scores, deltas, **kwargs):
    numbers = {"score_thresh": 0.1, "topk_per_level": 10, "nms_thresh": 0.5, "topk": 10, **kwargs}
    scores = [torch.tensor(x) for x in scores]
    deltas = [torch.tensor(x) for x in deltas]
    return detect_in_image(CELLS, scores, deltas, (16, 24), box_coding=CODING, **numbers)


def test_layout_by_hand():
    # Two anchors of three numbers on a map of 1 x 2 cells; channel 10 a + k at cell x holds 100 x + 10 a + k.
    channels = torch.tensor([0, 1, 2, 10, 11, 12])
    tensor = (channels[:, None, None] + torch.tensor([[0, 100]])).float()[None]  # (1, 6, 1, 2)
    expected = [[0, 1, 2], [10, 11, 12], [100, 101, 102], [110, 111, 112]]
    assert permute_to_N_HWA_K(tensor, 3)[0].tolist() == expected
    of_lists = by_anchor(([tensor], [tensor[:, :2]]), 3, 1)
    assert [[x.shape for x in levels] for levels in of_lists] == [[(1, 4, 3)], [(1, 4, 1)]]


SIDE_4 = [4.0, 4, 4, 4]  # distances that give the cell itself


def test_threshold_classes_and_order():
    found = detect(
        [[[0.3, 0.6], [0.05, 0.1], [0.0, 0.2]], [[0.9, 0.0]]],
        [[SIDE_4] * 3, [[8.0, 8, 8, 8]]],
    )
    assert found.scores.tolist() == pytest.approx([0.9, 0.6, 0.3, 0.2])
    assert found.pred_classes.tolist() == [0, 1, 0, 1]  # one cell gave two classes
    cells = [[0, 0, 16, 16], [0, 0, 8, 8], [0, 0, 8, 8], [16, 0, 24, 8]]
    assert found.pred_boxes.tensor.tolist() == cells
    assert found.image_size == (16, 24)


def test_suppression_is_per_class_and_over_levels():
    deltas = [[SIDE_4] * 3, [[8.0, 8, 0, 0]]]  # the last: (0, 0, 8, 8), as the first cell of the finer level
    found = detect([[[0.3, 0.6], [0, 0], [0, 0]], [[0.9, 0.5]]], deltas)
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert found.pred_classes.tolist() == [0, 1]
    assert len(detect([[[0.3, 0.6], [0, 0], [0, 0]], [[0.9, 0.5]]], deltas, nms_thresh=1.0)) == 4


def test_best_of_each_level_then_of_all():
    scores = [[[0.3, 0.6], [0.5, 0.4], [0.2, 0.0]], [[0.25, 0.0]]]
    deltas = [[SIDE_4] * 3, [[8.0, 8, 8, 8]]]
    assert detect(scores, deltas, topk_per_level=2).scores.tolist() == pytest.approx([0.6, 0.5, 0.25])
    assert detect(scores, deltas, topk=2).scores.tolist() == pytest.approx([0.6, 0.5])
    assert len(detect(scores, deltas, topk=-1)) == 6


def test_nothing_above_the_threshold():
    found = detect([[[0.0, 0.1]] * 3, [[0.0, 0.0]]], [[SIDE_4] * 3, [SIDE_4]])
    assert len(found) == 0
    assert found.pred_boxes.tensor.shape == (0, 4)
    assert found.pred_classes.dtype == torch.int64


def test_what_is_not_finite_is_left_out():
    nan, inf = float("nan"), float("inf")
    scores = [[[0.9, 0.0], [nan, 0.0], [0.8, 0.0]], [[0.7, 0.0]]]
    found = detect(scores, [[[4.0, 4, inf, 4], SIDE_4, [4.0, nan, 4, 4]], [[8.0, 8, 8, 8]]])
    assert found.scores.tolist() == pytest.approx([0.7])
