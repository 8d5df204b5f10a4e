"""The mask heads of tables 2b and 2e, against values derived by hand."""

import math

import pytest
import torch
from roi_ablation.mask_heads import MLPMaskHead, SoftmaxMaskHead, softmax_mask_loss

from panomask.errors import InputError
from panomask.layers import ShapeSpec
from panomask.structures import BitMasks, Boxes, Instances

SHAPE = ShapeSpec(channels=3, height=2, width=2)


def truth(classes: list[int]) -> Instances:
    """Objects of a 4 x 4 image that cover its left half, in RoIs that cover the image."""
    masks = torch.zeros(len(classes), 4, 4, dtype=torch.bool)
    masks[:, :, :2] = True
    boxes = Boxes(torch.tensor([[0.0, 0, 4, 4]]).repeat(len(classes), 1))
    return Instances((4, 4), proposal_boxes=boxes, gt_classes=torch.tensor(classes), gt_masks=BitMasks(masks))


def test_softmax_loss_by_hand():
    """Two classes and background, 2 x 2 cells; the left column is the object, the right one background."""
    logits = torch.zeros(2, 3, 2, 2)
    # The first RoI is of class 1. Where its logit is log 2, its probability is 2 / 4; elsewhere it is 1 / 3.
    logits[0, 1, 0, 0] = math.log(2)
    loss = softmax_mask_loss(logits, [truth([1]), truth([0])])
    assert loss.item() == pytest.approx((math.log(2) + 7 * math.log(3)) / 8)
    # Background is right in the right column, whatever the class.
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 2, :, 1] = logits[0, 0, :, 0] = 50.0
    assert softmax_mask_loss(logits, [truth([0])]).item() == pytest.approx(0.0, abs=1e-6)
    assert softmax_mask_loss(logits, [truth([1])]).item() == pytest.approx(25.0)


def test_softmax_loss_without_classes():
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 0, :, 0] = 50.0  # object or background: the class does not matter
    expected = math.log(2) / 2
    for label in (0, 5):
        assert softmax_mask_loss(logits, [truth([label])]).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("make", [SoftmaxMaskHead, MLPMaskHead])
def test_no_rois_give_a_zero_on_the_graph(make):
    widths = {"conv_dims": [4]} if make is SoftmaxMaskHead else {"fc_dims": [4]}
    head = make(SHAPE, num_classes=2, **widths)
    empty = Instances((4, 4))
    empty.proposal_boxes = Boxes(torch.zeros(0, 4))
    loss = head(torch.zeros(0, 3, 2, 2), [empty])["loss_mask"]
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_softmax_masks_are_probabilities_of_the_predicted_class():
    torch.manual_seed(0)
    head = SoftmaxMaskHead(SHAPE, num_classes=4, conv_dims=[4]).eval()
    assert head.predictor.weight.shape == (5, 4, 1, 1)
    torch.nn.init.normal_(head.predictor.weight)
    x = torch.randn(3, 3, 2, 2)
    images = [Instances((4, 4), pred_classes=torch.tensor([2, 0])), Instances((4, 4))]
    images[1].pred_classes = torch.tensor([3])
    head(x, images)
    probabilities = head.layers(x).softmax(dim=1)
    torch.testing.assert_close(images[0].pred_masks, probabilities[[0, 1], [2, 0]][:, None])
    torch.testing.assert_close(images[1].pred_masks, probabilities[2:, 3:4])


def test_mlp_predicts_every_cell_of_every_mask_from_all_of_the_region():
    torch.manual_seed(0)
    head = MLPMaskHead(SHAPE, num_classes=4, fc_dims=[6, 5])
    assert [tuple(p.shape) for p in head.parameters() if p.dim() == 2] == [(6, 12), (5, 6), (64, 5)]
    x = torch.randn(2, 3, 2, 2)
    logits = head.layers(x)
    assert logits.shape == (2, 4, 4, 4)
    by_hand = head.predictor(head.hidden(x.reshape(2, 12))).reshape(2, 4, 4, 4)
    torch.testing.assert_close(logits, by_hand)
    for widths in ([], [0]):
        with pytest.raises(InputError, match="NUM_FC and FC_DIM"):
            MLPMaskHead(SHAPE, num_classes=4, fc_dims=widths)
