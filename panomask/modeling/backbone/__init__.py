"""Backbones: images to feature maps."""

from panomask.modeling.backbone.backbone import Backbone, build_backbone
from panomask.modeling.backbone.fpn import FPN, LastLevelMaxPool, build_resnet_fpn_backbone
from panomask.modeling.backbone.resnet import (
    BasicBlock,
    BasicStem,
    BottleneckBlock,
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
    "LastLevelMaxPool",
    "ResNet",
    "ResNetBlockBase",
    "build_backbone",
    "build_resnet_backbone",
    "build_resnet_fpn_backbone",
    "make_stage",
]
