"""Choosing proposals by hand, and adding the truth to them."""

import math

import pytest
import torch

from panomask.layers import batched_nms
from panomask.modeling.proposal_generator import add_ground_truth_to_proposals, find_top_rpn_proposals
from panomask.structures import Boxes, Instances

A, A_SHIFTED, B, OUTSIDE = [0.0, 0, 10, 10], [1.0, 0, 11, 10], [20.0, 20, 40, 30], [60.0, 0, 70, 10]


def _find(boxes, logits, **changes):
    """Two levels of one image of 32 x 50."""
    arguments = {
        "nms_thresh": 0.7,
        "pre_nms_topk": 10,
        "post_nms_topk": 10,
        "min_box_size": 0,
        "training": True,
    }
    proposals = [torch.tensor([level]) for level in boxes]
    scores = [torch.tensor([level]) for level in logits]
    return find_top_rpn_proposals(proposals, scores, [(32, 50)], **{**arguments, **changes})[0]


def test_nms_within_a_level_only():
    """A and A_SHIFTED overlap with IoU 90 / 110."""
    same = _find([[A, A_SHIFTED], [B]], [[1.0, 2.0], [3.0]])
    assert same.objectness_logits.tolist() == [3.0, 2.0]
    assert same.proposal_boxes.tensor.tolist() == [B, A_SHIFTED]
    apart = _find([[A], [A_SHIFTED, B]], [[1.0], [2.0, 3.0]])
    assert apart.objectness_logits.tolist() == [3.0, 2.0, 1.0]
    assert len(_find([[A, A_SHIFTED], [B]], [[1.0, 2.0], [3.0]], nms_thresh=0.85)) == 3


def test_counts():
    assert _find([[A, B], [A]], [[1.0, 2.0], [0.0]], pre_nms_topk=1).objectness_logits.tolist() == [2.0, 0.0]
    assert _find([[A, B], [A]], [[1.0, 2.0], [0.0]], post_nms_topk=2).objectness_logits.tolist() == [2.0, 1.0]


def test_clipping_and_small_boxes():
    result = _find([[OUTSIDE, [-5.0, 30, 10, 60]], [B]], [[3.0, 2.0], [1.0]])
    assert result.proposal_boxes.tensor.tolist() == [[0, 30, 10, 32], B]  # OUTSIDE has no area left
    assert len(_find([[A], [B]], [[3.0], [1.0]], min_box_size=10.0)) == 0  # sides must exceed it


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(value):
    boxes, logits = [[A, [0.0, 0, value, 10]], [B]], [[1.0, 2.0], [3.0]]
    with pytest.raises(FloatingPointError, match="diverged"):
        _find(boxes, logits)
    assert _find(boxes, logits, training=False).objectness_logits.tolist() == [3.0, 1.0]
    with pytest.raises(FloatingPointError, match="diverged"):
        _find([[A, B], [B]], [[1.0, value], [3.0]])


def test_invalid_boxes_count_as_if_taken_out_before():
    """The plain way: only valid boxes go into NMS, image by image. Here they all do, the others last."""
    torch.manual_seed(0)
    sizes, counts = [(40, 50), (30, 60), (5, 5)], (60, 20)
    corners = [torch.rand(3, count, 2) * 60 - 5 for count in counts]
    proposals = [torch.cat([x, x + torch.rand_like(x) * 20], dim=2) for x in corners]
    proposals[0][1, 3:9, 2] = torch.tensor([math.nan, math.inf, -math.inf, math.nan, math.inf, math.nan])
    logits = [torch.randn(3, count) for count in counts]
    logits[0][0, 5:8] = torch.tensor([math.nan, math.inf, -math.inf])
    results = find_top_rpn_proposals(proposals, logits, sizes, 0.5, 50, 12, 2.0, training=False)
    assert [len(x) for x in results][:2] == [12, 12]
    for i, size in enumerate(sizes):
        boxes, scores, levels = [], [], []
        for level, (of_level, of_logits) in enumerate(zip(proposals, logits, strict=True)):
            best, idx = of_logits[i].topk(min(50, len(of_logits[i])))
            clipped = Boxes(of_level[i][idx])
            clipped.clip(size)
            keep = clipped.nonempty(2.0) & best.isfinite() & of_level[i][idx].isfinite().all(dim=1)
            boxes.append(clipped.tensor[keep])
            scores.append(best[keep])
            levels.append(torch.full((int(keep.sum()),), level))
        keep = batched_nms(torch.cat(boxes), torch.cat(scores), torch.cat(levels), 0.5)[:12]
        assert torch.equal(results[i].proposal_boxes.tensor, torch.cat(boxes)[keep])
        assert torch.equal(results[i].objectness_logits, torch.cat(scores)[keep])


def test_no_anchors():
    empty = [torch.zeros(2, 0, 4)], [torch.zeros(2, 0)]
    results = find_top_rpn_proposals(*empty, [(8, 8), (8, 8)], 0.7, 5, 5, 0, True)
    assert [len(result) for result in results] == [0, 0]


def test_ground_truth_is_appended():
    proposals = Instances((32, 50), proposal_boxes=Boxes([B]), objectness_logits=torch.tensor([0.5]))
    targets = Instances((32, 50), gt_boxes=Boxes([A, A_SHIFTED]), gt_classes=torch.tensor([0, 1]))
    for truth in (targets, targets.gt_boxes):
        (result,) = add_ground_truth_to_proposals([truth], [proposals])
        assert result.proposal_boxes.tensor.tolist() == [B, A, A_SHIFTED]
        assert list(result.get_fields()) == ["proposal_boxes", "objectness_logits"]
        logit = math.log((1 - 1e-10) / (1 - (1 - 1e-10)))
        torch.testing.assert_close(result.objectness_logits, torch.tensor([0.5, logit, logit]))
    (result,) = add_ground_truth_to_proposals([targets[:0]], [proposals])
    assert len(result) == 1


def test_a_box_that_is_no_number_does_not_end_suppression():
    """Categories are moved apart by the largest coordinate, which it must not be."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10.5], [math.nan] * 4]])
    (found,) = find_top_rpn_proposals(
        [boxes], [torch.tensor([[1.0, 0.5, 2]])], [(40, 40)], 0.5, 9, 9, 0.0, False
    )
    assert found.objectness_logits.tolist() == [1.0]


def test_a_traced_graph_counts_anew():
    def logits(boxes):
        sizes = torch.zeros(1, boxes.shape[1])
        (found,) = find_top_rpn_proposals([boxes], [sizes], [(40, 40)], 0.5, 9, 9, 0.0, False)
        return found.objectness_logits

    apart = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]]])
    graph = torch.jit.trace(logits, apart, check_trace=False)
    assert len(graph(apart)) == 2
    assert len(graph(torch.zeros(1, 2, 4) + torch.tensor([0.0, 0, 9, 9]))) == 1
