"""Cascade R-CNN (Cai and Vasconcelos 2017, arXiv:1712.00726): box heads in a row.

Shapes: N images, L levels (N, C, Hi, Wi), R proposals of all images (Ri of one), K classes, S stages.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.event_storage import get_event_storage
from panomask.layers import ShapeSpec
from panomask.modeling.box_regression import Box2BoxTransform
from panomask.modeling.matcher import Matcher
from panomask.modeling.poolers import ROIPooler
from panomask.modeling.roi_heads.box_head import build_box_head
from panomask.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference
from panomask.modeling.roi_heads.roi_heads import StandardROIHeads, build_pooler
from panomask.registry import ROI_HEADS_REGISTRY
from panomask.structures import Boxes, Instances, pairwise_iou

Predictions = tuple[torch.Tensor, torch.Tensor]


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by `scale`."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: float) -> torch.Tensor:  # type: ignore[override]
        ctx.scale = scale
        return x

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return grad * ctx.scale, None


@ROI_HEADS_REGISTRY.register()
class CascadeROIHeads(StandardROIHeads):
    """S box heads, each trained on better boxes by a stricter IoU; masks and keypoints as in the base class.

    At test time the class scores are the mean over the stages and the boxes are the last stage's. In training
    the mask and keypoint heads learn from the sample that the first stage learns from.

    Args:
        box_in_features, box_pooler: as for `StandardROIHeads`, shared by all stages.
        box_heads, box_predictors: S of each; the predictors regress class-agnostic boxes.
        proposal_matchers: S, which label each stage's boxes by their IoU with the objects.
        kwargs: of `StandardROIHeads`, but neither `proposal_matcher` nor `train_on_pred_boxes`: the stages
            have matchers of their own and train on predicted boxes anyway.
    """

    box_head: nn.ModuleList
    box_predictor: nn.ModuleList

    @configurable
    def __init__(
        self,
        *,
        box_in_features: Sequence[str],
        box_pooler: ROIPooler,
        box_heads: Sequence[nn.Module],
        box_predictors: Sequence[nn.Module],
        proposal_matchers: Sequence[Matcher],
        **kwargs: Any,
    ):
        counts = len(box_heads), len(box_predictors), len(proposal_matchers)
        assert len(set(counts)) == 1, f"heads, predictors and matchers of {counts} stages"
        assert not kwargs.keys() & {"proposal_matcher"}, "each stage has a matcher of its own"
        super().__init__(
            box_in_features=box_in_features,
            box_pooler=box_pooler,
            box_head=nn.ModuleList(box_heads),
            box_predictor=nn.ModuleList(box_predictors),
            proposal_matcher=proposal_matchers[0],
            **kwargs,
        )
        assert not self.train_on_pred_boxes, "a cascade trains on predicted boxes in its own way"
        self.num_cascade_stages = len(box_heads)
        self.proposal_matchers = list(proposal_matchers)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:  # type: ignore[override]
        arguments = super().from_config(cfg, input_shape)
        del arguments["proposal_matcher"]
        return arguments

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Constructor arguments of the box branch; for subclasses to override."""
        return _build_cascade_branch(cfg, input_shape)

    def _box_losses(
        self, features: dict[str, torch.Tensor], proposals: list[Instances], targets: list[Instances]
    ) -> dict[str, torch.Tensor]:
        return self._forward_box(features, proposals, targets)

    def _forward_box(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> Any:
        """In training the losses of every stage, `loss_cls_stage0`, ...; else N `Instances` of detections."""
        maps = [features[name] for name in self.box_in_features]
        outputs: list[tuple[Predictions, list[Instances]]] = []
        for stage in range(self.num_cascade_stages):
            if stage > 0:
                boxes = self.box_predictor[stage - 1].predict_boxes(*outputs[-1])  # type: ignore[operator]
                proposals = self._create_proposals_from_boxes(boxes, [x.image_size for x in proposals])
                if self.training:
                    assert targets is not None, "the stages' boxes are labelled by the ground truth"
                    proposals = self._match_and_label_boxes(proposals, stage, targets)
            outputs.append((self._run_stage(maps, proposals, stage), proposals))
        return self._stage_losses(outputs) if self.training else self._detect(outputs)

    def _stage_losses(
        self, outputs: Sequence[tuple[Predictions, list[Instances]]]
    ) -> dict[str, torch.Tensor]:
        losses = {}
        for stage, (predictor, output) in enumerate(zip(self.box_predictor, outputs, strict=True)):
            with get_event_storage().name_scope(f"stage{stage}"):
                stage_losses = predictor.losses(*output)  # type: ignore[operator]
            losses.update({f"{name}_stage{stage}": loss for name, loss in stage_losses.items()})
        return losses

    def _detect(self, outputs: Sequence[tuple[Predictions, list[Instances]]]) -> list[Instances]:
        stages = zip(self.box_predictor, outputs, strict=True)
        scores = [predictor.predict_probs(*output) for predictor, output in stages]  # type: ignore[operator]
        last: Any = self.box_predictor[-1]
        return fast_rcnn_inference(
            last.predict_boxes(*outputs[-1]),
            [sum(of_image) / self.num_cascade_stages for of_image in zip(*scores, strict=True)],
            [x.image_size for x in outputs[-1][1]],
            last.test_score_thresh,
            last.test_nms_thresh,
            last.test_topk_per_image,
        )[0]

    def _run_stage(
        self, features: Sequence[torch.Tensor], proposals: list[Instances], stage: int
    ) -> Predictions:
        """Logits (R, K + 1) and deltas (R, 4) of one stage, from L feature maps."""
        pooled = self.box_pooler(features, [x.proposal_boxes for x in proposals])
        if self.training:
            # Every head learns at the full rate; the features hear the mean of the stages, not their sum.
            pooled = _ScaleGradient.apply(pooled, 1.0 / self.num_cascade_stages)
        return self.box_predictor[stage](self.box_head[stage](pooled))

    def _create_proposals_from_boxes(
        self, boxes: Sequence[torch.Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[Instances]:
        """The next stage's proposals: each image's predicted boxes (Ri, 4), clipped and taken as given.

        Training drops what clipping left empty. Testing keeps it, so that the rows of all stages correspond.
        """
        proposals = []
        for image_boxes, image_size in zip(boxes, image_sizes, strict=True):
            clipped = Boxes(image_boxes.detach())
            clipped.clip(image_size)
            kept = clipped[clipped.nonempty()] if self.training else clipped
            proposals.append(Instances(image_size, proposal_boxes=kept))
        return proposals

    @torch.no_grad()
    def _match_and_label_boxes(
        self, proposals: list[Instances], stage: int, targets: list[Instances]
    ) -> list[Instances]:
        """Give every proposal the `gt_classes` (K for background) and `gt_boxes` of its stage, in place.

        No sample is drawn: all of the first stage's take part in the later ones.
        """
        num_fg = torch.zeros((), device=proposals[0].proposal_boxes.device)
        for image_proposals, image_targets in zip(proposals, targets, strict=True):
            iou = pairwise_iou(image_targets.gt_boxes, image_proposals.proposal_boxes)  # (M, Ri)
            matches, labels = self.proposal_matchers[stage](iou)
            if len(image_targets) > 0:
                classes = image_targets.gt_classes[matches].masked_fill(labels == 0, self.num_classes)
                image_proposals.gt_boxes = image_targets.gt_boxes[matches]
            else:
                classes = torch.full_like(matches, self.num_classes)
                image_proposals.gt_boxes = image_proposals.proposal_boxes  # of background: not looked at
            image_proposals.gt_classes = classes
            num_fg += (classes != self.num_classes).sum()

        mean_fg = num_fg / len(proposals)
        storage = get_event_storage()
        storage.put_scalar(f"stage{stage}/roi_head/num_fg_samples", mean_fg)
        mean_samples = sum(len(x) for x in proposals) / len(proposals)
        storage.put_scalar(f"stage{stage}/roi_head/num_bg_samples", mean_samples - mean_fg)
        return proposals


def _build_cascade_branch(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
    in_features = list(cfg.MODEL.ROI_HEADS.IN_FEATURES)
    cascade = cfg.MODEL.ROI_BOX_CASCADE_HEAD
    pooler, pooled_shape = build_pooler(cfg.MODEL.ROI_BOX_HEAD, in_features, input_shape)
    heads = [build_box_head(cfg, pooled_shape) for _ in cascade.IOUS]
    predictors = [
        FastRCNNOutputLayers(cfg, head.output_shape, box2box_transform=Box2BoxTransform(weights=weights))  # type: ignore[call-arg, arg-type, misc]
        for head, weights in zip(heads, cascade.BBOX_REG_WEIGHTS, strict=True)
    ]
    return {
        "box_in_features": in_features,
        "box_pooler": pooler,
        "box_heads": heads,
        "box_predictors": predictors,
        "proposal_matchers": [Matcher([iou], [0, 1]) for iou in cascade.IOUS],
    }
