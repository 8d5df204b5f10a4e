"""Mask head: layers, loss and predictions by hand."""

import math

import numpy as np
import pytest
import torch

from panomask.errors import InputError
from panomask.event_storage import EventStorage
from panomask.layers import ShapeSpec
from panomask.modeling import build_mask_head
from panomask.modeling.roi_heads import MaskRCNNConvUpsampleHead
from panomask.modeling.roi_heads.mask_head import mask_rcnn_inference, mask_rcnn_loss
from panomask.structures import Boxes, Instances, PolygonMasks

POOLED = ShapeSpec(channels=4, height=3, width=3)


def _rois(*classes: int) -> Instances:
    """RoIs of 8 x 8 pixels whose left half is covered."""
    left_half = np.array([0.0, 0, 4, 0, 4, 8, 0, 8])
    return Instances(
        (8, 8),
        proposal_boxes=Boxes([[0.0, 0, 8, 8]] * len(classes)),
        gt_classes=torch.tensor(classes),
        gt_masks=PolygonMasks([[left_half]] * len(classes)),
    )


def test_layers_and_shapes():
    head = MaskRCNNConvUpsampleHead(POOLED, num_classes=5, conv_dims=[6, 7, 8])
    names = [name for name, _ in head.named_parameters() if name.endswith("weight")]
    assert names == ["mask_fcn1.weight", "mask_fcn2.weight", "deconv.weight", "predictor.weight"]
    assert head.deconv.weight.shape == (7, 8, 2, 2)
    assert head.layers(torch.randn(2, 4, 3, 3)).shape == (2, 5, 6, 6)
    assert head.layers(torch.randn(0, 4, 3, 3)).shape == (0, 5, 6, 6)
    normed = MaskRCNNConvUpsampleHead(POOLED, num_classes=1, conv_dims=[32, 32], conv_norm="GN")
    assert normed.mask_fcn1.bias is None
    assert normed.deconv.bias is not None


@pytest.mark.parametrize("num_classes", [1, 3])
def test_loss_by_hand(num_classes):
    """Logit 1 everywhere in the true class's mask: right on one half of the cells, wrong on the other."""
    logits = torch.full((3, num_classes, 4, 4), 9.0)
    logits[:2, -1] = 1.0
    logits[2, 0] = 1.0
    instances = [_rois(2, 2), Instances((8, 8)), _rois(0)]
    instances[1].set("proposal_boxes", Boxes([]))
    with EventStorage() as storage:
        loss = mask_rcnn_loss(logits, instances)
    expected = (math.log(1 + 1 / math.e) + math.log(1 + math.e)) / 2
    assert math.isclose(loss.item(), expected, rel_tol=1e-6)
    logged = {name: value for name, (value, _) in storage.latest().items()}
    assert logged == {
        "mask_rcnn/accuracy": 0.5,
        "mask_rcnn/false_positive": 1.0,
        "mask_rcnn/false_negative": 0.0,
    }


def test_loss_of_nothing():
    logits = torch.zeros(0, 3, 4, 4, requires_grad=True)
    loss = mask_rcnn_loss(logits, [Instances((8, 8), proposal_boxes=Boxes([]))])
    assert loss == 0
    loss.backward()
    assert mask_rcnn_loss(logits, []) == 0


def test_images_of_masks():
    with EventStorage(start_iter=4) as storage:
        mask_rcnn_loss(torch.zeros(1, 1, 4, 4), [_rois(0)], vis_period=3)
        assert not storage._images
        mask_rcnn_loss(torch.zeros(1, 1, 4, 4), [_rois(0)], vis_period=2)
        ((_, image, _),) = storage._images
    assert image.shape == (3, 4, 8)
    assert image[0, 0].tolist() == [0.5] * 4 + [1, 1, 0, 0]


def test_predictions_are_of_the_predicted_class():
    logits = torch.arange(3.0).reshape(1, 3, 1, 1).repeat(3, 1, 2, 2)
    instances = [
        Instances((8, 8), pred_classes=torch.tensor(classes, dtype=torch.int64))
        for classes in ([2, 0], [], [1])
    ]
    mask_rcnn_inference(logits, instances)
    assert [x.pred_masks.shape for x in instances] == [(2, 1, 2, 2), (0, 1, 2, 2), (1, 1, 2, 2)]
    expected = torch.tensor([2.0, 0.0]).sigmoid()
    torch.testing.assert_close(instances[0].pred_masks[:, 0, 0, 0], expected)
    mask_rcnn_inference(logits[:, :1], instances)  # class-agnostic
    assert (instances[0].pred_masks == 0.5).all()
    mask_rcnn_inference(logits[:0], [])


def test_forward():
    head = MaskRCNNConvUpsampleHead(POOLED, num_classes=3, conv_dims=[4], loss_weight=2.0)
    losses = head(torch.zeros(2, 4, 3, 3), [_rois(2, 1)])
    torch.testing.assert_close(
        losses["loss_mask"], torch.tensor(2 * math.log(2))
    )  # biases and input are zero
    head.eval()
    instances = [Instances((8, 8), pred_classes=torch.tensor([0, 1]))]
    assert head(torch.zeros(2, 4, 3, 3), instances) is instances
    assert (instances[0].pred_masks == 0.5).all()


def test_from_config(tiny_cfg):
    head = build_mask_head(tiny_cfg("MODEL.ROI_MASK_HEAD.NUM_CONV", 2), POOLED)
    assert isinstance(head, MaskRCNNConvUpsampleHead)
    assert (head.mask_fcn2.out_channels, head.predictor.out_channels) == (16, 3)
    head = build_mask_head(tiny_cfg("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True), POOLED)
    assert head.predictor.out_channels == 1
    with pytest.raises(InputError, match="conv_dims"):
        MaskRCNNConvUpsampleHead(POOLED, num_classes=3, conv_dims=[])
