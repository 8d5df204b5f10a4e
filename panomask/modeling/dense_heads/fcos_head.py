"""FCOS's head (Tian et al. 2019, arXiv:1904.01355, section 3 and figure 2).

Shapes: N images, L levels of Hi x Wi cells, C channels, K classes; one point a cell.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.layers import ShapeSpec
from panomask.modeling.dense_heads.retinanet_head import RetinaNetHead, conv3x3_of_head

MAX_LOG_DISTANCE = 11.5
"""Distances end at e^11.5, 100,000 pixels, where they are predicted as logarithms: exp cannot overflow."""


class FCOSHead(RetinaNetHead):
    """The two towers with one point a cell, and a third output: how central a point is in its object.

    Args:
        input_shape, conv_dims, kwargs: of `RetinaNetHead`; all but `num_anchors`.
        centerness_on_reg: predict the centre-ness from the tower for boxes, otherwise from that for classes.
        use_scale: multiply the predicted distances by a learnable number of each level.
        exp_distances: the distances' logarithms are predicted, otherwise themselves.
    """

    @configurable
    def __init__(
        self,
        *,
        input_shape: Sequence[ShapeSpec],
        conv_dims: Sequence[int],
        centerness_on_reg: bool = True,
        use_scale: bool = False,
        exp_distances: bool = False,
        **kwargs: Any,
    ):
        super().__init__(input_shape=input_shape, conv_dims=conv_dims, num_anchors=1, **kwargs)
        tower_end = self.bbox_pred if centerness_on_reg else self.cls_score
        self.ctrness = conv3x3_of_head(tower_end.in_channels, 1)
        self.scales = nn.Parameter(torch.ones(len(input_shape))) if use_scale else None
        self.centerness_on_reg = centerness_on_reg
        self.exp_distances = exp_distances

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        fcos, channels = cfg.MODEL.FCOS, input_shape[0].channels
        return {
            "input_shape": input_shape,
            "num_classes": fcos.NUM_CLASSES,
            "conv_dims": [channels] * fcos.NUM_CLS_CONVS,
            "bbox_conv_dims": [channels] * fcos.NUM_BOX_CONVS,
            "norm": fcos.NORM,
            "prior_prob": fcos.PRIOR_PROB,
            "centerness_on_reg": fcos.CENTERNESS_ON_REG,
            "use_scale": fcos.USE_SCALE,
            "exp_distances": not fcos.NORM_REG_TARGETS,
        }

    def forward(self, features: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], ...]:
        """Predict, for each of L maps (N, C, Hi, Wi).

        Returns:
            L logits (N, K, Hi, Wi); L distances (N, 4, Hi, Wi) to the left, top, right and bottom side, where
            negative means 0; L logits (N, 1, Hi, Wi) of the centre-ness.
        """
        assert len(features) == self.num_levels, (len(features), self.num_levels)
        logits, distances, centerness = [], [], []
        for level, feature in enumerate(features):
            of_classes, of_boxes = self.cls_subnet(feature), self.bbox_subnet(feature)
            logits.append(self.cls_score(of_classes))
            distances.append(self._to_distances(self.bbox_pred(of_boxes), level))
            centerness.append(self.ctrness(of_boxes if self.centerness_on_reg else of_classes))
        return logits, distances, centerness

    def _to_distances(self, x: torch.Tensor, level: int) -> torch.Tensor:
        if self.scales is not None:
            x = x * self.scales[level]
        return x.float().clamp(max=MAX_LOG_DISTANCE).exp() if self.exp_distances else x
