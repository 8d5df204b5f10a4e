"""Heads with a ResNet stage of their own."""

import pytest
import torch
from torch import nn

from panomask.errors import InputError
from panomask.layers import ShapeSpec
from panomask.modeling import build_model, build_roi_heads
from panomask.modeling.roi_heads import Res5ROIHeads
from panomask.structures import Boxes, ImageList, Instances

OPTS = """MODEL.BACKBONE.NAME build_resnet_backbone  MODEL.RESNETS.OUT_FEATURES ["res4"]
    MODEL.RPN.IN_FEATURES ["res4"]  MODEL.ANCHOR_GENERATOR.SIZES [[8,16,32]]
    MODEL.ROI_HEADS.NAME Res5ROIHeads  MODEL.ROI_HEADS.IN_FEATURES ["res4"]
    MODEL.RESNETS.DEPTH 50  MODEL.RESNETS.RES2_OUT_CHANNELS 4  MODEL.RESNETS.WIDTH_PER_GROUP 2
    MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION 6""".split()
SHAPES = {"res4": ShapeSpec(channels=16, stride=16)}
IMAGES = ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)])
A, B = [0.0, 0, 20, 20], [20.0, 20, 60, 50]


@pytest.fixture
def heads(tiny_cfg) -> Res5ROIHeads:
    torch.manual_seed(0)
    return build_roi_heads(tiny_cfg(*OPTS), SHAPES)


def _features() -> dict[str, torch.Tensor]:
    return {"res4": torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))}


def _proposals(*boxes) -> Instances:
    return Instances((64, 64), proposal_boxes=Boxes(list(boxes)), objectness_logits=torch.zeros(len(boxes)))


def test_architecture(heads):
    """Three blocks of 8 times the channels of res2, the first at half the resolution."""
    assert len(heads.res5) == 3
    assert heads.res5[0].stride == 2
    assert heads.res5[0].conv2.weight.shape[0] == 2 * 8
    assert heads.res5(torch.zeros(5, 16, 6, 6)).shape == (5, 32, 3, 3)
    assert heads.box_predictor.cls_score.in_features == 32
    assert heads.mask_head.mask_fcn1.in_channels == 32


@pytest.mark.parametrize("is_in_1x1", [True, False])
def test_res5_is_as_the_backbone(tiny_cfg, is_in_1x1):
    keys = {"STRIDE_IN_1X1": is_in_1x1, "NUM_GROUPS": 2, "NORM": "GN", "WIDTH_PER_GROUP": 4}
    opts = [item for key, value in keys.items() for item in (f"MODEL.RESNETS.{key}", value)]
    first = build_roi_heads(tiny_cfg(*OPTS, *opts), SHAPES).res5[0]
    assert (first.conv1.stride[0], first.conv2.stride[0]) == ((2, 1) if is_in_1x1 else (1, 2))
    assert first.conv2.groups == 2
    assert isinstance(first.conv3.norm, nn.GroupNorm)


def test_trains_masks_on_the_features_of_the_boxes(heads, make_instances):
    targets = make_instances(64, 64, 2, 3)
    calls = []
    heads.res5.register_forward_hook(lambda *_: calls.append(1))
    sample, losses = heads(IMAGES, _features(), [_proposals(A, B)], [targets])
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_mask"}
    assert len(calls) == 1
    assert len(sample[0]) == 4
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in heads.parameters() if parameter.requires_grad)


@torch.no_grad()
def test_detects(heads):
    heads.eval()
    heads.box_predictor.test_score_thresh = 0.0
    (found,), losses = heads(IMAGES, _features(), [_proposals(A, B)])
    assert not losses
    assert found.pred_masks.shape == (len(found), 1, 6, 6)
    again = found[:2]
    again.remove("pred_masks")
    (again,) = heads.forward_with_given_boxes(_features(), [again])
    torch.testing.assert_close(again.pred_masks, found.pred_masks[:2])


def test_no_proposals(heads):
    nothing = Instances((64, 64), gt_boxes=Boxes([]), gt_classes=torch.zeros(0, dtype=torch.int64))
    _, losses = heads(IMAGES, _features(), [_proposals()], [nothing])
    assert all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()
    (found,), _ = heads.eval()(IMAGES, _features(), [_proposals()])
    assert found.pred_masks.shape == (0, 1, 6, 6)


def test_without_masks_and_with_blocks_in_a_list(heads):
    plain = Res5ROIHeads(
        num_classes=3,
        batch_size_per_image=8,
        positive_fraction=0.5,
        proposal_matcher=heads.proposal_matcher,
        in_features=["res4"],
        pooler=heads.pooler,
        res5=list(heads.res5),
        box_predictor=heads.box_predictor,
    ).eval()
    assert isinstance(plain.res5, nn.Sequential)
    (found,), _ = plain(IMAGES, _features(), [_proposals(A)])
    assert not found.has("pred_masks")
    assert plain.forward_with_given_boxes(_features(), [found]) == [found]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.KEYPOINT_ON", True], "KEYPOINT_ON .*no keypoints"),
        (["MODEL.ROI_HEADS.IN_FEATURES", ["res3", "res4"]], "one feature map"),
        (["MODEL.RESNETS.RES5_DILATION", 2], "RES5_DILATION .*Res5ROIHeads"),
        (["MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, False, False, True]], "not deformable"),
        (["MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", True], "TRAIN_ON_PRED_BOXES .*masks"),
    ],
)
def test_bad_settings(tiny_cfg, opts, message):
    with pytest.raises(InputError, match=message):
        build_model(tiny_cfg(*OPTS, *opts))


def test_a_backbone_of_another_width(tiny_cfg):
    """A timm model's res4 has any number of channels; res5 is widened by its own key."""
    wide = {"res4": ShapeSpec(channels=32, stride=16)}
    with pytest.raises(
        InputError, match=r"RES2_OUT_CHANNELS: 4: .*takes 16 channels, but res4 has 32; set it to 8"
    ):
        build_roi_heads(tiny_cfg(*OPTS), wide)
    assert (
        build_roi_heads(tiny_cfg(*OPTS, "MODEL.RESNETS.RES2_OUT_CHANNELS", 8), wide).res5[0].in_channels == 32
    )
