"""Looking a backbone up by its name."""

import pytest

from panomask.errors import InputError
from panomask.modeling import build_backbone
from panomask.registry import BACKBONE_REGISTRY

RES = "MODEL.RESNETS."


def test_build_backbone(tiny_cfg):
    cfg = tiny_cfg("MODEL.BACKBONE.NAME", "build_resnet_backbone", RES + "OUT_FEATURES", ["res2"])
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [1.0, 1.0]
    assert build_backbone(cfg).stem.conv1.in_channels == 2
    assert "build_resnet_backbone" in BACKBONE_REGISTRY
    cfg.MODEL.BACKBONE.NAME = "build_resnet_bacbone"
    with pytest.raises(InputError, match="Did you mean build_resnet_backbone"):
        build_backbone(cfg)
