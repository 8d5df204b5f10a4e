"""The second stage of C4 models: the last ResNet stage runs on every region (arXiv:1703.06870, figure 4).

Shapes: N images, C channels, R RoIs of all images, P pooled cells along a side, K classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.errors import InputError
from panomask.layers import ShapeSpec
from panomask.modeling.backbone.resnet import BottleneckBlock, make_stage
from panomask.modeling.poolers import ROIPooler
from panomask.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from panomask.modeling.roi_heads.mask_head import build_mask_head
from panomask.modeling.roi_heads.roi_heads import ROIHeads, build_pooler, select_foreground_proposals
from panomask.registry import ROI_HEADS_REGISTRY
from panomask.structures import Boxes, ImageList, Instances

RES5_WIDTH = 8
"""Channels of res5 in those of res2: they double three times."""


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeads(ROIHeads):
    """Pool from one feature map, run res5 on each region, and predict boxes and masks from the same result.

    Args:
        in_features: the name of the one feature map.
        pooler: pools (N, C, H, W) to (R, C, P, P).
        res5: blocks, (R, C, P, P) to (R, C5, P / 2, P / 2).
        box_predictor: (R, C5), the mean over the cells, to scores and deltas.
        mask_head: (R, C5, P / 2, P / 2) to masks; None for no masks.
        kwargs: of `ROIHeads`.
    """

    box_predictor: Any
    mask_head: Any
    keypoint_on = False

    @configurable
    def __init__(
        self,
        *,
        in_features: Sequence[str],
        pooler: ROIPooler,
        res5: nn.Module | Sequence[nn.Module],
        box_predictor: nn.Module,
        mask_head: nn.Module | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.in_features = list(in_features)
        self.pooler = pooler
        self.res5 = res5 if isinstance(res5, nn.Module) else nn.Sequential(*res5)
        self.box_predictor = box_predictor
        self.mask_on = mask_head is not None
        if mask_head is not None:
            self.mask_head = mask_head

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:  # type: ignore[override]
        _check_supported(cfg)
        in_features = list(cfg.MODEL.ROI_HEADS.IN_FEATURES)
        pooler, _ = build_pooler(cfg.MODEL.ROI_BOX_HEAD, in_features, input_shape)
        res5, channels = cls._build_res5_block(cfg)
        given = input_shape[in_features[0]].channels or 0
        taken = getattr(res5[0], "in_channels", given)  # a subclass may have made it of anything
        if given != taken:
            raise InputError(
                f"MODEL.RESNETS.RES2_OUT_CHANNELS: {cfg.MODEL.RESNETS.RES2_OUT_CHANNELS}: with it res5 takes"
                f" {taken} channels, but {in_features[0]} has {given}; set it to {given // 4}"
            )
        side = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
        arguments = {
            **super().from_config(cfg),
            "in_features": in_features,
            "pooler": pooler,
            "res5": res5,
            "box_predictor": FastRCNNOutputLayers(cfg, ShapeSpec(channels=channels, height=1, width=1)),  # type: ignore[call-arg, arg-type]
        }
        if cfg.MODEL.MASK_ON:
            shape = ShapeSpec(channels=channels, height=side, width=side)
            arguments["mask_head"] = build_mask_head(cfg, shape)
        return arguments

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        """res5 as MODEL.RESNETS describes it, and its number of channels; for subclasses to override."""
        res = cfg.MODEL.RESNETS
        channels = res.RES2_OUT_CHANNELS * RES5_WIDTH
        blocks = make_stage(
            BottleneckBlock,
            3,
            stride_per_block=[2, 1, 1],
            in_channels=channels // 2,
            bottleneck_channels=res.NUM_GROUPS * res.WIDTH_PER_GROUP * RES5_WIDTH,
            out_channels=channels,
            num_groups=res.NUM_GROUPS,
            norm=res.NORM,
            stride_in_1x1=res.STRIDE_IN_1X1,
        )
        return nn.Sequential(*blocks), channels

    def _shared_roi_transform(self, features: Sequence[torch.Tensor], boxes: Sequence[Boxes]) -> torch.Tensor:
        """Feature maps, one of them, and N `Boxes` -> (R, C5, P / 2, P / 2)."""
        return self.res5(self.pooler(features, boxes))

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """See `ROIHeads.forward`."""
        if self.training:
            assert targets is not None, "RoI heads need ground truth in training"
            proposals = self.label_and_sample_proposals(proposals, targets)
        maps = [features[name] for name in self.in_features]
        roi_features = self._shared_roi_transform(maps, [x.proposal_boxes for x in proposals])
        predictions = self.box_predictor(roi_features.mean(dim=[2, 3]))
        if not self.training:
            detections, _ = self.box_predictor.inference(predictions, proposals)
            return self.forward_with_given_boxes(features, detections), {}
        losses = self.box_predictor.losses(predictions, proposals)
        if self.mask_on:
            foreground, masks = select_foreground_proposals(proposals, self.num_classes)
            losses.update(self.mask_head(roi_features[torch.cat(masks)], foreground))
        return proposals, losses

    def forward_with_given_boxes(
        self, features: dict[str, torch.Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Predict masks in given boxes; see `StandardROIHeads.forward_with_given_boxes`."""
        assert not self.training, "given boxes are for inference"
        assert all(x.has("pred_boxes") and x.has("pred_classes") for x in instances)
        if not self.mask_on:
            return instances
        maps = [features[name] for name in self.in_features]
        return self.mask_head(self._shared_roi_transform(maps, [x.pred_boxes for x in instances]), instances)


def _check_supported(cfg: CfgNode) -> None:
    """InputError for a setting that these heads could not obey."""
    model = cfg.MODEL
    refused = {
        "ROI_HEADS.IN_FEATURES": (len(model.ROI_HEADS.IN_FEATURES) != 1, "pool from one feature map"),
        "ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": (
            model.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES,
            "predict masks from the features that the boxes come from",
        ),
        "RESNETS.RES5_DILATION": (model.RESNETS.RES5_DILATION != 1, "have a res5 without dilation"),
        "RESNETS.DEFORM_ON_PER_STAGE": (model.RESNETS.DEFORM_ON_PER_STAGE[-1], "have a res5 not deformable"),
    }
    for key, (is_refused, reason) in refused.items():
        if is_refused:
            raise InputError(
                f"MODEL.{key} does not fit MODEL.ROI_HEADS.NAME Res5ROIHeads: these heads {reason};"
                " change one of them, for instance to StandardROIHeads"
            )
