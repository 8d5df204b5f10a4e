"""RPN: head, labels, losses by hand, proposals."""

import math

import pytest
import torch
from torch import nn

from panomask.errors import InputError
from panomask.event_storage import EventStorage
from panomask.layers import ShapeSpec
from panomask.modeling import RPN, DefaultAnchorGenerator, build_proposal_generator, build_rpn_head
from panomask.modeling.box_regression import Box2BoxTransform
from panomask.modeling.matcher import Matcher
from panomask.modeling.proposal_generator import StandardRPNHead
from panomask.structures import Boxes, ImageList, Instances

SHAPES = {f"p{i}": ShapeSpec(channels=8, stride=2**i) for i in range(2, 7)}


def _rpn(**changes) -> RPN:
    """One level of stride 8 with one 8-pixel anchor in each cell, and all anchors sampled."""
    arguments = {
        "in_features": ["p3"],
        "head": StandardRPNHead(in_channels=2, num_anchors=1),
        "anchor_generator": DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0], strides=[8], offset=0.5),
        "anchor_matcher": Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        "box2box_transform": Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        "batch_size_per_image": 10,
        "positive_fraction": 0.5,
        "pre_nms_topk": (10, 20),
        "post_nms_topk": (5, 20),
    }
    return RPN(**{**arguments, **changes})


def _targets(*boxes) -> Instances:
    return Instances((16, 16), gt_boxes=Boxes(list(boxes)))


def test_head_shapes_and_names():
    head = StandardRPNHead(in_channels=4, num_anchors=3)
    assert next(iter(head.state_dict())) == "conv.weight"
    logits, deltas = head([torch.zeros(2, 4, 8, 6), torch.zeros(2, 4, 4, 3)])
    assert [x.shape for x in logits] == [(2, 3, 8, 6), (2, 3, 4, 3)]
    assert [x.shape for x in deltas] == [(2, 12, 8, 6), (2, 12, 4, 3)]
    head = StandardRPNHead(in_channels=4, num_anchors=1, conv_dims=[6, -1])
    names = [name for name, _ in head.named_parameters() if "weight" in name]
    assert names == [
        "conv.conv0.weight",
        "conv.conv1.weight",
        "objectness_logits.weight",
        "anchor_deltas.weight",
    ]
    assert (head([torch.zeros(1, 4, 2, 2)])[0][0] == 0).all()  # zero input, zero biases
    torch.manual_seed(0)
    weight = StandardRPNHead(in_channels=64, num_anchors=3).conv.weight
    assert abs(weight.std().item() / 0.01 - 1) < 0.05


@pytest.mark.parametrize("dims", [[], [0], [-2]])
def test_bad_conv_dims(dims):
    with pytest.raises(InputError, match="CONV_DIMS"):
        StandardRPNHead(in_channels=4, num_anchors=1, conv_dims=dims)


def test_logits_and_deltas_belong_to_their_anchor():
    """A head that writes the anchor's number into its logit and its first delta."""

    class _Counting(nn.Module):
        def forward(self, features):
            height, width = features[0].shape[-2:]
            cell = torch.arange(height * width).reshape(1, 1, height, width).float()
            logits = torch.cat([2 * cell, 2 * cell + 1], dim=1)  # two anchors in each cell
            deltas = torch.zeros(1, 2, 4, height, width)
            deltas[:, :, 0] = logits
            return [logits], [deltas.flatten(1, 2)]

    generator = DefaultAnchorGenerator(sizes=[8], aspect_ratios=[0.5, 2.0], strides=[8], offset=0.5)
    rpn = _rpn(head=_Counting(), anchor_generator=generator, post_nms_topk=(20, 20), nms_thresh=1.0).eval()
    images = ImageList(torch.zeros(1, 3, 16, 24), [(1000, 1000)])
    features = {"p3": torch.zeros(1, 2, 2, 3)}
    (proposals,), losses = rpn(images, features)
    assert not losses
    order = torch.arange(11, -1, -1)
    assert proposals.objectness_logits.tolist() == order.tolist()
    anchors = generator([features["p3"]])[0].tensor
    width = anchors[:, 2] - anchors[:, 0]
    expected = anchors[order] + (order * width[order])[:, None] * torch.tensor([1.0, 0, 1, 0])
    expected[:, 0::2].clamp_(min=0)
    expected[:, 1::2].clamp_(min=0)
    torch.testing.assert_close(proposals.proposal_boxes.tensor, expected)


def test_labels_by_hand():
    """Anchors are the four quarters of a 16 x 16 image."""
    rpn = _rpn()
    anchors = rpn.anchor_generator([torch.zeros(1, 2, 2, 2)])
    assert anchors[0].tensor.tolist() == [[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [8, 8, 16, 16]]
    targets = [_targets([0.0, 0, 8, 7], [10, 9, 16, 13]), _targets()]
    labels, boxes = rpn.label_and_sample_anchors(anchors, targets)
    # IoU of the first: 7 / 8. The second object has 24 / 64 with the last anchor, which is its best.
    assert labels[0].tolist() == [1, 0, 0, 1]
    assert boxes[0][0].tolist() == [0, 0, 8, 7]
    assert boxes[0][3].tolist() == [10, 9, 16, 13]
    assert labels[1].tolist() == [0, 0, 0, 0]
    assert boxes[1].shape == (4, 4)


def test_sample_sizes_and_boundary():
    rpn = _rpn(batch_size_per_image=3, positive_fraction=0.34)
    anchors = rpn.anchor_generator([torch.zeros(1, 2, 2, 2)])
    targets = [_targets([0.0, 0, 8, 8], [8, 8, 16, 16])]
    labels = rpn.label_and_sample_anchors(anchors, targets)[0][0]
    assert sorted(labels.tolist()) == [-1, 0, 0, 1]
    rpn = _rpn(anchor_boundary_thresh=0)
    small = Instances((12, 16), gt_boxes=Boxes([[0.0, 0, 8, 8]]))
    labels = rpn.label_and_sample_anchors(anchors, [small])[0][0]
    assert labels.tolist()[2:] == [-1, -1]  # the lower two reach beyond the image's 12 rows


def test_losses_by_hand():
    rpn = _rpn(loss_weight={"loss_rpn_cls": 2.0, "loss_rpn_loc": 3.0})
    anchors = rpn.anchor_generator([torch.zeros(1, 2, 2, 2)])
    logits = torch.tensor([[0.0, 1.0, -1.0, 5.0]])
    deltas = torch.zeros(1, 4, 4)
    labels = torch.tensor([1, 0, 0, -1], dtype=torch.int8)
    gt_boxes = torch.tensor([[4.0, 0, 12, 8]] * 4)  # half a width to the right of the first anchor
    with EventStorage() as storage:
        losses = rpn.losses(anchors, [logits], [labels], [deltas], [gt_boxes])
    cls = math.log(2) + math.log(1 + math.e) + math.log(1 + 1 / math.e)
    assert math.isclose(losses["loss_rpn_cls"].item(), 2 * cls / 10, rel_tol=1e-6)
    assert math.isclose(losses["loss_rpn_loc"].item(), 3 * 0.5 / 10, rel_tol=1e-6)
    assert storage.latest()["rpn/num_pos_anchors"][0] == 1
    assert storage.latest()["rpn/num_neg_anchors"][0] == 2


def test_training_without_objects():
    rpn = _rpn()
    images = ImageList(torch.zeros(2, 3, 16, 16), [(16, 16), (16, 12)])
    proposals, losses = rpn(images, {"p3": torch.randn(2, 2, 2, 2)}, [_targets(), _targets()])
    assert losses["loss_rpn_loc"] == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in rpn.parameters())
    assert [x.image_size for x in proposals] == [(16, 16), (16, 12)]
    assert not proposals[0].proposal_boxes.tensor.requires_grad


def test_from_config(tiny_cfg):
    cfg = tiny_cfg("MODEL.RPN.BBOX_REG_LOSS_WEIGHT", 4.0, "MODEL.RPN.LOSS_WEIGHT", 0.5)
    rpn = build_proposal_generator(cfg, SHAPES)
    assert isinstance(rpn, RPN)
    assert rpn.loss_weight == {"loss_rpn_cls": 0.5, "loss_rpn_loc": 2.0}
    assert rpn.pre_nms_topk == {True: 100, False: 1000}
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p9"]
    with pytest.raises(InputError, match=r"IN_FEATURES: \['p9'\]"):
        build_proposal_generator(cfg, SHAPES)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    assert build_proposal_generator(cfg, SHAPES) is None
    uneven = [ShapeSpec(channels=8, stride=4), ShapeSpec(channels=4, stride=8)]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8]]
    with pytest.raises(InputError, match="must be the same"):
        build_rpn_head(cfg, uneven)
