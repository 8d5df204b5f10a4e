"""Backbones: images to feature maps."""

from panomask.modeling.backbone.backbone import Backbone, select_features
from panomask.modeling.backbone.build import build_backbone
from panomask.modeling.backbone.fpn import (
    FPN,
    LastLevelMaxPool,
    LastLevelP6,
    LastLevelP6P7,
    build_fcos_resnet_fpn_backbone,
    build_regnet_fpn_backbone,
    build_resnet_fpn_backbone,
    build_retinanet_resnet_fpn_backbone,
)
from panomask.modeling.backbone.regnet import RegNet, build_regnet_backbone
from panomask.modeling.backbone.resnet import (
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    ResNet,
    ResNetBlockBase,
    build_resnet_backbone,
    make_stage,
)
from panomask.registry import BACKBONE_REGISTRY

__all__ = [
    "BACKBONE_REGISTRY",
    "FPN",
    "Backbone",
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeformBottleneckBlock",
    "LastLevelMaxPool",
    "LastLevelP6",
    "LastLevelP6P7",
    "RegNet",
    "ResNet",
    "ResNetBlockBase",
    "build_backbone",
    "build_fcos_resnet_fpn_backbone",
    "build_regnet_backbone",
    "build_regnet_fpn_backbone",
    "build_resnet_backbone",
    "build_resnet_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone",
    "make_stage",
    "select_features",
]
