import pytest
import torch

from panomask.layers import batched_nms

BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5], [20, 20, 30, 30]])
SCORES = torch.tensor([0.8, 0.9, 0.7, 0.1])


def test_within_one_class():
    # IoU with the best box (the second): 0.9, then 5 / 9, then 0.
    classes = torch.zeros(4, dtype=torch.int64)
    assert batched_nms(BOXES, SCORES, classes, 0.5).tolist() == [1, 3]
    assert batched_nms(BOXES, SCORES, classes, 0.6).tolist() == [1, 2, 3]


def test_classes_do_not_suppress_each_other():
    assert batched_nms(BOXES, SCORES, torch.tensor([0, 1, 0, 0]), 0.4).tolist() == [1, 0, 3]


def test_no_boxes():
    none = batched_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5)
    assert none.shape == (0,)
    assert none.dtype == torch.int64


def test_half_precision_boxes_do_not_overflow():
    boxes = torch.tensor([[0, 0, 1200, 1200], [0, 0, 1200, 1190]]).half()
    assert batched_nms(boxes, torch.tensor([0.5, 0.6]), torch.tensor([79, 79]), 0.5).tolist() == [1]
    assert batched_nms(boxes, torch.tensor([0.5, 0.6]), torch.tensor([79, 78]), 0.5).tolist() == [1, 0]


@pytest.mark.parametrize("count", [200, 1500])
def test_many_boxes_equal_a_plain_loop(count):
    """Whichever way is taken for few and for many boxes, the result is that of the definition."""
    generator = torch.Generator().manual_seed(count)
    corners = torch.rand(count, 2, generator=generator) * 300
    boxes = torch.cat([corners, corners + 10 + 60 * torch.rand(count, 2, generator=generator)], dim=1)
    scores = torch.rand(count, generator=generator)
    classes = torch.randint(0, 3, (count,), generator=generator)

    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    sides = torch.min(boxes[:, None, 2:], boxes[:, 2:]) - torch.max(boxes[:, None, :2], boxes[:, :2])
    shared = sides.clamp(min=0).prod(2)
    clash = (shared / (area[:, None] + area - shared) > 0.3) & (classes[:, None] == classes)
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if not clash[i, kept].any():
            kept.append(i)
    assert batched_nms(boxes, scores, classes, 0.3).tolist() == kept
