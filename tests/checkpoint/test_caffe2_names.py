import pytest
import torch

from panomask.checkpoint.caffe2_names import (
    convert_basic_c2_names,
    convert_c2_detectron_names,
    is_caffe2,
)

BACKBONE = {
    "conv1_w": "stem.conv1.weight",
    "res_conv1_bn_s": "stem.conv1.norm.weight",
    "res_conv1_bn_b": "stem.conv1.norm.bias",
    "conv1_gn_s": "stem.conv1.norm.weight",
    "res2_0_branch1_w": "res2.0.shortcut.weight",
    "res2_0_branch1_bn_b": "res2.0.shortcut.norm.bias",
    "res2_0_branch2a_w": "res2.0.conv1.weight",
    "res4_22_branch2b_bn_s": "res4.22.conv2.norm.weight",
    "res4_22_branch2c_bn_b": "res4.22.conv3.norm.bias",
    "res5_2_branch2c_bn_rm": "res5.2.conv3.norm.running_mean",
    "res5_2_branch2c_bn_riv": "res5.2.conv3.norm.running_var",
    "res5_2_branch2c_bn_beta": "res5.2.conv3.norm.bias",
    "res5_2_branch2c_bn_gamma": "res5.2.conv3.norm.weight",
    "res5_2_branch2c_gn_b": "res5.2.conv3.norm.bias",
    "pred_w": "linear.weight",
    "fc1000_b": "fc1000.bias",
}
DETECTOR = {
    "conv_rpn_fpn2_w": "proposal_generator.rpn_head.conv.weight",
    "conv_rpn_b": "proposal_generator.rpn_head.conv.bias",
    "rpn_bbox_pred_fpn2_w": "proposal_generator.rpn_head.anchor_deltas.weight",
    "rpn_cls_logits_fpn2_b": "proposal_generator.rpn_head.objectness_logits.bias",
    "rpn_cls_logits_w": "proposal_generator.rpn_head.objectness_logits.weight",
    "fpn_inner_res5_2_sum_w": "fpn_lateral5.weight",
    "fpn_inner_res2_2_sum_lateral_w": "fpn_lateral2.weight",
    "fpn_inner_res2_2_sum_lateral_gn_s": "fpn_lateral2.norm.weight",
    "fpn_res4_5_sum_b": "fpn_output4.bias",
    "fpn_res4_22_sum_gn_b": "fpn_output4.norm.bias",
    "fc6_w": "box_head.fc1.weight",
    "fc7_b": "box_head.fc2.bias",
    "head_conv3_w": "box_head.conv3.weight",
    "head_conv3_gn_s": "box_head.conv3.norm.weight",
    "_[mask]_fcn4_w": "mask_head.mask_fcn4.weight",
    "_[mask]_fcn1_gn_s": "mask_head.mask_fcn1.norm.weight",
    "conv5_mask_w": "mask_head.deconv.weight",
    "conv_fcn8_b": "roi_heads.keypoint_head.conv_fcn8.bias",
    "kps_score_lowres_w": "roi_heads.keypoint_head.score_lowres.weight",
}


@pytest.mark.parametrize("blob, ours", BACKBONE.items())
def test_names_of_backbones(blob, ours):
    assert is_caffe2([blob])
    assert convert_basic_c2_names([blob]) == [ours]


@pytest.mark.parametrize("blob, ours", (BACKBONE | DETECTOR).items())
def test_names_of_detectors(blob, ours):
    assert is_caffe2([blob])
    weight = torch.ones(3)
    renamed, original = convert_c2_detectron_names({blob: weight})
    assert list(renamed) == [ours]
    assert original == {ours: blob}
    assert renamed[ours] is weight


def test_the_background_moves_from_first_to_last():
    rows = torch.arange(3.0)
    blobs = {
        "cls_score_w": rows[:, None],
        "bbox_pred_b": rows.repeat_interleave(4),
        "mask_fcn_logits_w": rows[:, None, None, None],
    }
    renamed, _ = convert_c2_detectron_names(blobs)
    assert renamed["cls_score.weight"][:, 0].tolist() == [1, 2, 0]
    assert renamed["bbox_pred.bias"].tolist() == [1] * 4 + [2] * 4
    assert renamed["mask_head.predictor.weight"].flatten().tolist() == [1, 2]


def test_other_names_are_not_of_caffe2():
    assert not is_caffe2([])
    assert not is_caffe2(["conv1.weight"])
    assert not is_caffe2(["conv1_w", "bn1.bias"])
    assert not is_caffe2(["scale", "epoch"])
