"""Keypoint head: layers, loss and predictions by hand."""

import math

import pytest
import torch

from panomask.errors import InputError
from panomask.event_storage import EventStorage
from panomask.layers import ShapeSpec
from panomask.modeling.roi_heads import KRCNNConvDeconvUpsampleHead, build_keypoint_head
from panomask.modeling.roi_heads.keypoint_head import keypoint_rcnn_inference, keypoint_rcnn_loss
from panomask.structures import Boxes, Instances, Keypoints

POOLED = ShapeSpec(channels=4, height=3, width=3)


def _rois(*objects: list[list[float]]) -> Instances:
    """RoIs of 8 x 8 pixels around objects with keypoints (x, y, visibility)."""
    return Instances(
        (8, 8),
        proposal_boxes=Boxes([[0.0, 0, 8, 8]] * len(objects)),
        gt_keypoints=Keypoints(torch.tensor(objects).reshape(len(objects), -1, 3)),
    )


def _nothing() -> Instances:
    return Instances((8, 8), proposal_boxes=Boxes([]))


def test_layers_and_shapes():
    head = KRCNNConvDeconvUpsampleHead(POOLED, num_keypoints=5, conv_dims=[6, 7])
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    assert shapes == {
        "conv_fcn1.weight": (6, 4, 3, 3),
        "conv_fcn1.bias": (6,),
        "conv_fcn2.weight": (7, 6, 3, 3),
        "conv_fcn2.bias": (7,),
        "score_lowres.weight": (7, 5, 4, 4),
        "score_lowres.bias": (5,),
    }
    assert head.layers(torch.randn(2, 4, 3, 3)).shape == (2, 5, 12, 12)
    assert head.layers(torch.randn(0, 4, 3, 3)).shape == (0, 5, 12, 12)


def test_loss_by_hand():
    """Logits are 0 but for a 1 in the top left cell: ln(e + 15) - 1 there, ln(e + 15) in the 15 others.

    Of the keypoints of the first object the first lies in the top left cell, the second in another; of the
    second object one is not labelled and one is outside.
    """
    logits = torch.zeros(2, 2, 4, 4)
    logits[:, :, 0, 0] = 1.0
    instances = [
        _rois([[1.0, 1, 2], [7, 3, 1]]),
        _nothing(),
        _rois([[1.0, 1, 0], [9, 3, 2]]),
    ]
    total = 2 * math.log(math.e + 15) - 1
    assert math.isclose(keypoint_rcnn_loss(logits, instances, None).item(), total / 2, rel_tol=1e-6)
    assert math.isclose(keypoint_rcnn_loss(logits, instances, 8.0).item(), total / 8, rel_tol=1e-6)


def test_keypoints_that_do_not_take_part_have_no_gradient():
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    keypoint_rcnn_loss(logits, [_rois([[1.0, 1, 2], [9, 3, 2]])], None).backward()
    assert logits.grad[0, 0].any()
    assert not logits.grad[0, 1].any()


@pytest.mark.parametrize("normalizer", [None, 8.0])
def test_loss_without_a_keypoint(normalizer):
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    loss = keypoint_rcnn_loss(logits, [_rois([[9.0, 1, 2]])], normalizer)
    assert loss == 0
    loss.backward()
    assert not logits.grad.any()


def test_loss_of_nothing():
    logits = torch.zeros(0, 3, 4, 4, requires_grad=True)
    with EventStorage() as storage:
        for _ in range(2):
            loss = keypoint_rcnn_loss(logits, [_nothing()], None)
        assert storage.latest()["kpts_num_skipped_batches"][0] == 2
    assert loss == 0
    loss.backward()
    assert keypoint_rcnn_loss(logits, [], None) == 0


def test_predictions():
    """The peak of a map without slope around it stays in its cell; its score is e^9 / (e^9 + 15)."""
    logits = torch.zeros(3, 1, 4, 4)
    logits[torch.arange(3), 0, 1, torch.arange(3)] = 9.0
    boxes = ([[0.0, 0, 4, 4], [10, 20, 14, 24]], [], [[1.0, 1, 5, 5]])
    instances = [Instances((32, 32), pred_boxes=Boxes(rows)) for rows in boxes]
    keypoint_rcnn_inference(logits, instances)
    score = math.exp(9) / (math.exp(9) + 15)
    expected = torch.tensor([[[0.5, 1.5, score]], [[11.5, 21.5, score]]])
    torch.testing.assert_close(instances[0].pred_keypoints, expected)
    assert instances[1].pred_keypoints.shape == (0, 1, 3)
    torch.testing.assert_close(instances[2].pred_keypoints[0, 0, :2], torch.tensor([3.5, 2.5]))
    assert torch.equal(instances[2].pred_keypoint_heatmaps, logits[2:])
    keypoint_rcnn_inference(logits[:0], [])


@pytest.mark.parametrize(("normalizer", "divisor"), [("visible", 2), (5.0, 10.0)])
def test_forward(normalizer, divisor):
    """Biases and input are zero: each keypoint costs the logarithm of the 144 cells. There are 2 images."""
    head = KRCNNConvDeconvUpsampleHead(
        POOLED, num_keypoints=1, conv_dims=[4], loss_weight=3.0, loss_normalizer=normalizer
    )
    losses = head(torch.zeros(2, 4, 3, 3), [_rois([[1.0, 1, 2]]), _rois([[2.0, 2, 1]])])
    assert set(losses) == {"loss_keypoint"}
    assert math.isclose(losses["loss_keypoint"].item(), 3 * 2 * math.log(144) / divisor, rel_tol=1e-6)
    head.eval()
    instances = [Instances((8, 8), pred_boxes=Boxes([[0.0, 0, 8, 8]]))]
    assert head(torch.zeros(1, 4, 3, 3), instances) is instances
    assert instances[0].pred_keypoints.shape == (1, 1, 3)


def test_from_config(tiny_cfg):
    options = ["MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 5, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [8, 8]]
    head = build_keypoint_head(tiny_cfg(*options), POOLED)
    assert isinstance(head, KRCNNConvDeconvUpsampleHead)
    assert (head.num_keypoints, head.conv_fcn2.out_channels, head.score_lowres.out_channels) == (5, 8, 5)
    assert head.loss_normalizer == "visible"
    options += [
        *("MODEL.ROI_KEYPOINT_HEAD.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS", False),
        *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16, "MODEL.ROI_HEADS.POSITIVE_FRACTION", 0.25),
    ]
    options += ["MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT", 0.5]
    head = build_keypoint_head(tiny_cfg(*options), POOLED)
    assert (head.loss_normalizer, head.loss_weight) == (5 * 16 * 0.25, 0.5)
    with pytest.raises(ValueError, match="'all'; allowed are"):
        KRCNNConvDeconvUpsampleHead(POOLED, num_keypoints=1, conv_dims=[], loss_normalizer="all")
    with pytest.raises(InputError, match="KRCNNConvDeconvUpsampleHead"):
        build_keypoint_head(tiny_cfg("MODEL.ROI_KEYPOINT_HEAD.NAME", "KRCNNConvDeconvUpsampleHed"), POOLED)
