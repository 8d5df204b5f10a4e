"""No key of a model is read for nothing: each, set to another value, changes what is built from the config.

What is built is told by the modules' types, numbers, texts and shapes; nothing is run.
"""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from panomask.config import get_cfg
from panomask.config.node import flatten
from panomask.modeling import build_model

M = "MODEL."
KEYPOINTS = (M + "KEYPOINT_ON", True, M + "ROI_KEYPOINT_HEAD.CONV_DIMS", [8])
CASCADE = (M + "ROI_HEADS.NAME", "CascadeROIHeads", M + "ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)
BOTTLENECK = (M + "RESNETS.DEPTH", 50, M + "RESNETS.WIDTH_PER_GROUP", 8)
DEFORMABLE = (*BOTTLENECK, M + "RESNETS.DEFORM_ON_PER_STAGE", [False, False, False, True])
REGNET = (
    *(M + "BACKBONE.NAME", "build_regnet_backbone", M + "REGNET.OUT_FEATURES", ["s3"]),
    *(
        M + "RPN.IN_FEATURES",
        ["s3"],
        M + "ROI_HEADS.IN_FEATURES",
        ["s3"],
        M + "ANCHOR_GENERATOR.SIZES",
        [[8]],
    ),
    *(M + "REGNET.DEPTH", 6, M + "REGNET.STEM_WIDTH", 8, M + "REGNET.GROUP_WIDTH", 4),
    *(M + "REGNET.W_0", 8, M + "REGNET.W_A", 8.0, M + "REGNET.W_M", 2.0),
)
PANOPTIC = (M + "META_ARCHITECTURE", "PanopticFPN")
SIGMOID = (M + "ROI_BOX_HEAD.USE_SIGMOID_CE", True)
RETINANET = (M + "META_ARCHITECTURE", "RetinaNet", M + "MASK_ON", False, M + "RETINANET.NUM_CLASSES", 3)
RETINANET += (M + "BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone")
FCOS = (M + "META_ARCHITECTURE", "FCOS", M + "MASK_ON", False, M + "FPN.OUT_CHANNELS", 32)
FCOS += (M + "BACKBONE.NAME", "build_fcos_resnet_fpn_backbone", M + "FCOS.NUM_CLASSES", 3)
CONVS = (M + "ROI_BOX_HEAD.NUM_CONV", 1, M + "ROI_BOX_HEAD.CONV_DIM", 8)

OTHER: dict[str, tuple] = {
    "BACKBONE.FREEZE_AT": (2,),
    "RESNETS.DEPTH": (34,),
    "RESNETS.NORM": ("BN",),
    "RESNETS.NUM_GROUPS": (2, *BOTTLENECK),
    "RESNETS.WIDTH_PER_GROUP": (4, *BOTTLENECK),
    "RESNETS.STRIDE_IN_1X1": (False, *BOTTLENECK),
    "RESNETS.RES5_DILATION": (2, *BOTTLENECK, M + "FPN.IN_FEATURES", ["res2", "res3", "res4"])
    + (M + "RPN.IN_FEATURES", ["p2", "p3", "p4"], M + "ROI_HEADS.IN_FEATURES", ["p2", "p3", "p4"])
    + (M + "ANCHOR_GENERATOR.SIZES", [[8], [16], [32]]),
    "RESNETS.STEM_OUT_CHANNELS": (8,),
    "RESNETS.RES2_OUT_CHANNELS": (8,),
    "RESNETS.DEFORM_ON_PER_STAGE": ([False, True, False, False], *BOTTLENECK),
    "RESNETS.DEFORM_MODULATED": (True, *DEFORMABLE),
    "RESNETS.DEFORM_NUM_GROUPS": (2, *DEFORMABLE),
    "REGNET.STEM": ("ResStem", *REGNET),
    "REGNET.STEM_WIDTH": (16, *REGNET),
    "REGNET.BLOCK": ("VanillaBlock", *REGNET),
    "REGNET.DEPTH": (7, *REGNET),
    "REGNET.W_A": (16.0, *REGNET),
    "REGNET.W_0": (16, *REGNET),
    "REGNET.W_M": (2.2, *REGNET),
    "REGNET.GROUP_WIDTH": (8, *REGNET),
    "REGNET.BOTTLENECK_RATIO": (2.0, *REGNET),
    "REGNET.SE_RATIO": (0.25, *REGNET),
    "REGNET.NORM": ("BN", *REGNET),
    "FPN.OUT_CHANNELS": (8,),
    "FPN.NORM": ("BN",),
    "FPN.FUSE_TYPE": ("avg",),
    "ANCHOR_GENERATOR.SIZES": ([[9], [16], [32], [64], [128]],),
    "ANCHOR_GENERATOR.ASPECT_RATIOS": ([[0.5, 1.0, 3.0]],),
    "ANCHOR_GENERATOR.OFFSET": (0.5,),
    "PROPOSAL_GENERATOR.NAME": ("PrecomputedProposals",),
    "PROPOSAL_GENERATOR.MIN_SIZE": (3,),
    "RPN.IN_FEATURES": (["p2", "p3", "p4", "p5"], M + "ANCHOR_GENERATOR.SIZES", [[8]]),
    "RPN.CONV_DIMS": ([8],),
    "RPN.BOUNDARY_THRESH": (0,),
    "RPN.IOU_THRESHOLDS": ([0.2, 0.7],),
    "RPN.IOU_LABELS": ([-1, 0, 1],),
    "RPN.BATCH_SIZE_PER_IMAGE": (7,),
    "RPN.POSITIVE_FRACTION": (0.4,),
    "RPN.BBOX_REG_LOSS_TYPE": ("giou",),
    "RPN.BBOX_REG_WEIGHTS": ((1.0, 2.0, 1.0, 1.0),),
    "RPN.SMOOTH_L1_BETA": (0.1,),
    "RPN.BBOX_REG_LOSS_WEIGHT": (2.0,),
    "RPN.LOSS_WEIGHT": (2.0,),
    "RPN.PRE_NMS_TOPK_TRAIN": (33,),
    "RPN.PRE_NMS_TOPK_TEST": (33,),
    "RPN.POST_NMS_TOPK_TRAIN": (33,),
    "RPN.POST_NMS_TOPK_TEST": (33,),
    "RPN.NMS_THRESH": (0.6,),
    "ROI_HEADS.NAME": CASCADE[1:],
    "ROI_HEADS.NUM_CLASSES": (4,),
    "ROI_HEADS.IN_FEATURES": (["p2", "p3"],),
    "ROI_HEADS.IOU_THRESHOLDS": ([0.4],),
    "ROI_HEADS.IOU_LABELS": ([-1, 1],),
    "ROI_HEADS.BATCH_SIZE_PER_IMAGE": (7,),
    "ROI_HEADS.POSITIVE_FRACTION": (0.4,),
    "ROI_HEADS.PROPOSAL_APPEND_GT": (False,),
    "ROI_HEADS.SCORE_THRESH_TEST": (0.1,),
    "ROI_HEADS.NMS_THRESH_TEST": (0.4,),
    "ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlign",),
    "ROI_BOX_HEAD.POOLER_RESOLUTION": (5,),
    "ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": (2,),
    "ROI_BOX_HEAD.NUM_CONV": (2, *CONVS),
    "ROI_BOX_HEAD.CONV_DIM": (4, *CONVS),
    "ROI_BOX_HEAD.NUM_FC": (1,),
    "ROI_BOX_HEAD.FC_DIM": (16,),
    "ROI_BOX_HEAD.NORM": ("BN", *CONVS),
    "ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": (True,),
    "ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": (True,),
    "ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": ("giou",),
    "ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": (2.0,),
    "ROI_BOX_HEAD.BBOX_REG_WEIGHTS": ((1.0, 2.0, 1.0, 1.0),),
    "ROI_BOX_HEAD.SMOOTH_L1_BETA": (0.1,),
    "ROI_BOX_HEAD.USE_SIGMOID_CE": (True,),
    "ROI_BOX_HEAD.USE_FED_LOSS": (True, *SIGMOID),
    "ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES": (2, *SIGMOID),
    "ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": (0.7, *SIGMOID),
    "ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": ([[1.0, 2.0, 3.0, 4.0]] * 3, *CASCADE),
    "ROI_BOX_CASCADE_HEAD.IOUS": ([0.5, 0.6, 0.8], *CASCADE),
    "ROI_MASK_HEAD.POOLER_TYPE": ("ROIAlign",),
    "ROI_MASK_HEAD.POOLER_RESOLUTION": (5,),
    "ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": (2,),
    "ROI_MASK_HEAD.NUM_CONV": (1,),
    "ROI_MASK_HEAD.CONV_DIM": (8,),
    "ROI_MASK_HEAD.NORM": ("BN",),
    "ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": (True,),
    "ROI_KEYPOINT_HEAD.POOLER_TYPE": ("ROIAlign", *KEYPOINTS),
    "ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": (5, *KEYPOINTS),
    "ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO": (2, *KEYPOINTS),
    "ROI_KEYPOINT_HEAD.CONV_DIMS": ([4], *KEYPOINTS),
    "ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": (5, *KEYPOINTS),
    "ROI_KEYPOINT_HEAD.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS": (False, *KEYPOINTS),
    "ROI_KEYPOINT_HEAD.LOSS_WEIGHT": (2.0, *KEYPOINTS),
    "SEM_SEG_HEAD.IN_FEATURES": (["p2", "p4"], *PANOPTIC),
    "SEM_SEG_HEAD.IGNORE_VALUE": (254, *PANOPTIC),
    "SEM_SEG_HEAD.NUM_CLASSES": (4, *PANOPTIC),
    "SEM_SEG_HEAD.CONVS_DIM": (32, *PANOPTIC),
    "SEM_SEG_HEAD.COMMON_STRIDE": (2, *PANOPTIC),
    "SEM_SEG_HEAD.NORM": ("BN", *PANOPTIC),
    "SEM_SEG_HEAD.LOSS_WEIGHT": (0.5, *PANOPTIC),
    "PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT": (2.0, *PANOPTIC),
    "PANOPTIC_FPN.COMBINE.ENABLED": (False, *PANOPTIC),
    "PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": (0.4, *PANOPTIC),
    "PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": (64, *PANOPTIC),
    "PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": (0.4, *PANOPTIC),
    "RETINANET.NUM_CLASSES": (4, *RETINANET),
    "RETINANET.IN_FEATURES": (["p2", "p3", "p4", "p5", "p6"], *RETINANET),
    "RETINANET.NUM_CONVS": (2, *RETINANET),
    "RETINANET.NORM": ("BN", *RETINANET),
    "RETINANET.PRIOR_PROB": (0.02, *RETINANET),
    "RETINANET.IOU_THRESHOLDS": ([0.3, 0.5], *RETINANET),
    "RETINANET.IOU_LABELS": ([-1, 0, 1], *RETINANET),
    "RETINANET.BBOX_REG_WEIGHTS": ((1.0, 2.0, 1.0, 1.0), *RETINANET),
    "RETINANET.BBOX_REG_LOSS_TYPE": ("giou", *RETINANET),
    "RETINANET.SMOOTH_L1_LOSS_BETA": (0.2, *RETINANET),
    "RETINANET.FOCAL_LOSS_GAMMA": (1.5, *RETINANET),
    "RETINANET.FOCAL_LOSS_ALPHA": (0.5, *RETINANET),
    "RETINANET.SCORE_THRESH_TEST": (0.1, *RETINANET),
    "RETINANET.TOPK_CANDIDATES_TEST": (33, *RETINANET),
    "RETINANET.NMS_THRESH_TEST": (0.4, *RETINANET),
    "FCOS.NUM_CLASSES": (4, *FCOS),
    "FCOS.IN_FEATURES": (["p2", "p3", "p4", "p5", "p7"], *FCOS),
    "FCOS.TOP_LEVELS": (1, M + "BACKBONE.NAME", "build_fcos_resnet_fpn_backbone"),
    "FCOS.NUM_CLS_CONVS": (2, *FCOS),
    "FCOS.NUM_BOX_CONVS": (2, *FCOS),
    "FCOS.NORM": ("BN", *FCOS),
    "FCOS.PRIOR_PROB": (0.02, *FCOS),
    "FCOS.CENTERNESS_ON_REG": (False, *FCOS),
    "FCOS.USE_SCALE": (True, *FCOS),
    "FCOS.NORM_REG_TARGETS": (False, *FCOS),
    "FCOS.SIZES_OF_INTEREST": ([32, 64, 128, 256], *FCOS),
    "FCOS.CENTER_SAMPLE": (False, *FCOS),
    "FCOS.POS_RADIUS": (2.0, *FCOS),
    "FCOS.LOSS_ALPHA": (0.5, *FCOS),
    "FCOS.LOSS_GAMMA": (1.5, *FCOS),
    "FCOS.LOC_LOSS_TYPE": ("iou", *FCOS),
    "FCOS.INFERENCE_TH_TEST": (0.1, *FCOS),
    "FCOS.PRE_NMS_TOPK_TEST": (33, *FCOS),
    "FCOS.NMS_TH": (0.4, *FCOS),
}
"""Key below MODEL -> another value for it, and overrides without which the key would not matter."""

ELSEWHERE = {
    *("RESNETS.OUT_FEATURES", "REGNET.OUT_FEATURES", "FPN.IN_FEATURES"),  # what is asked for is built
    *("BACKBONE.NAME", "ANCHOR_GENERATOR.NAME", "RPN.HEAD_NAME"),  # looked up in registries
    *("ROI_BOX_HEAD.NAME", "ROI_MASK_HEAD.NAME", "ROI_KEYPOINT_HEAD.NAME", "SEM_SEG_HEAD.NAME"),
    *("ANCHOR_GENERATOR.ANGLES", "ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE"),  # not obeyed; of the data
}
GROUPS = {key.partition(".")[0] for key in OTHER}


def _told(value: Any, seen: frozenset[int] = frozenset()) -> Iterator[Any]:
    """What an object is made of: types, plain values, shapes; objects of ours are looked into."""
    if id(value) in seen:
        return
    seen |= {id(value)}
    yield type(value).__name__
    if isinstance(value, torch.Tensor):
        yield tuple(value.shape), value.requires_grad, value.tolist() if value.numel() < 20 else None
    elif isinstance(value, (bool, int, float, str)):
        yield value
    elif isinstance(value, functools.partial):
        yield from _told([*value.args, value.keywords], seen)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield str(name)
            yield from _told(item, seen)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _told(item, seen)
    elif isinstance(value, nn.Module) or type(value).__module__.startswith("panomask"):
        yield from _told(vars(value), seen)


@pytest.fixture(scope="module")
def built(tiny_cfg):
    """What is built from the tiny config with overrides."""
    known: dict[str, list[Any]] = {}

    def build(*overrides: Any, anew: bool = False) -> list[Any]:
        if anew or repr(overrides) not in known:
            torch.manual_seed(0)
            known[repr(overrides)] = list(_told(build_model(tiny_cfg(*overrides))))
        return known[repr(overrides)]

    return build


def test_the_same_config_builds_the_same_model(built):
    assert built() == built(anew=True)


@pytest.mark.parametrize("key", list(OTHER))
def test_another_value_builds_another_model(built, key):
    value, *context = OTHER[key]
    assert built(*context, M + key, value) != built(*context)


def test_no_key_is_left_out():
    keys = {key.removeprefix(M) for key, _ in flatten(get_cfg()) if key.startswith(M)}
    assert {key for key in keys if key.partition(".")[0] in GROUPS} == {*OTHER, *ELSEWHERE}
