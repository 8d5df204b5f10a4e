"""From MODEL.BACKBONE.NAME to a backbone."""

from panomask.config import CfgNode
from panomask.layers import ShapeSpec
from panomask.modeling.backbone import timm_backbone
from panomask.modeling.backbone.backbone import Backbone
from panomask.modeling.backbone.fpn import build_pyramid
from panomask.registry import BACKBONE_REGISTRY


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """The backbone that MODEL.BACKBONE.NAME names, for images of as many channels as MODEL.PIXEL_MEAN has.

    "timm/<model>[.<tag>]" is a model of the package timm, below MODEL.FPN unless FPN.IN_FEATURES is empty;
    any other name is looked up in `BACKBONE_REGISTRY`.
    """
    name = cfg.MODEL.BACKBONE.NAME
    if input_shape is None:
        input_shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    if name.startswith(timm_backbone.PREFIX):
        bottom_up = timm_backbone.build_timm_backbone(cfg, input_shape)
        return build_pyramid(cfg, bottom_up) if cfg.MODEL.FPN.IN_FEATURES else bottom_up
    backbone = BACKBONE_REGISTRY.get(name)(cfg, input_shape)
    assert isinstance(backbone, Backbone), f"{name} returned no Backbone"
    return backbone
