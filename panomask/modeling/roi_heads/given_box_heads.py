"""Masks and keypoints in boxes that a one-stage detector has found, without a box head.

Shapes: N images.
"""

from typing import Any

import torch

from panomask.config import CfgNode
from panomask.layers import ShapeSpec
from panomask.modeling.roi_heads.roi_heads import StandardROIHeads
from panomask.registry import ROI_HEADS_REGISTRY
from panomask.structures import Instances


@ROI_HEADS_REGISTRY.register()
class GivenBoxROIHeads(StandardROIHeads):
    """The mask and keypoint heads of Mask R-CNN, fed by boxes that are detections already.

    They learn as in Mask R-CNN, in boxes of this step and (with `proposal_append_gt`) in true boxes, sampled
    and labelled by their overlap with the objects.
    """

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        return {}

    def _forward_box(self, features: dict[str, torch.Tensor], proposals: list[Instances]) -> Any:
        """No losses in training; otherwise the proposals, which have classes and scores, as detections."""
        if self.training:
            return {}
        return [
            Instances(x.image_size, pred_boxes=x.proposal_boxes, scores=x.scores, pred_classes=x.pred_classes)
            for x in proposals
        ]
