"""Heads of one-stage detectors: classes and boxes at every cell of every level."""

from panomask.modeling.dense_heads.fcos_head import FCOSHead
from panomask.modeling.dense_heads.retinanet_head import RetinaNetHead

__all__ = ["FCOSHead", "RetinaNetHead"]
