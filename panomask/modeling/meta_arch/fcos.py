"""FCOS: points instead of anchors, and how central they are (Tian et al. 2019, arXiv:1904.01355).

Shapes: N images, L levels of Hi x Wi cells, Ri = Hi * Wi points of a level, R of all levels, K classes.
Foreground classes 0..K-1, background K. A point is the centre of a cell; where an anchor is asked for, it is
the cell: a square of the level's stride.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.errors import InputError
from panomask.layers import cat
from panomask.modeling.anchor_generator import DefaultAnchorGenerator
from panomask.modeling.backbone import Backbone, build_backbone, select_features
from panomask.modeling.box_regression import (
    Box2BoxTransformLinear,
    BoxCoding,
    _dense_box_regression_loss,
    check_box_reg_loss_type,
)
from panomask.modeling.dense_heads import FCOSHead
from panomask.modeling.dense_heads.dense_predictions import by_anchor
from panomask.modeling.dense_heads.point_assignment import assign_points, centerness
from panomask.modeling.meta_arch.dense_detector import DenseDetector, roi_heads_from_config
from panomask.registry import META_ARCH_REGISTRY
from panomask.structures import Boxes, ImageList, Instances


@META_ARCH_REGISTRY.register()
class FCOS(DenseDetector):
    """Every point is classified and says how far the sides of its object are.

    Args:
        backbone, head_in_features, pixel_mean, pixel_std, kwargs: of `DenseDetector`.
        head: L maps to logits (N, K, Hi, Wi), distances (N, 4, Hi, Wi) and logits of the centre-ness
            (N, 1, Hi, Wi), as `FCOSHead`.
        box2box_transform: coding of the distances; by default in strides.
        num_classes: K.
        center_sampling_radius: see `assign_points`; infinite for no centre sampling.
        focal_loss_alpha, focal_loss_gamma: see `sigmoid_focal_loss`.
        test_score_thresh, test_topk_candidates, test_nms_thresh, max_detections_per_image: see
            `detect_in_image`, in the order score_thresh, topk_per_level, nms_thresh, topk. A score is the
            root of class score times centre-ness.
        box_reg_loss_type: see `_dense_box_regression_loss`.
        size_bounds: L - 1 pixels, the largest distance of a point to the sides up to which a level learns an
            object, and from which the next one does; by default 8 strides of the level.

    Raises:
        InputError: an unknown `box_reg_loss_type`, or another number of bounds.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: Sequence[str] | None = None,
        box2box_transform: BoxCoding | None = None,
        num_classes: int,
        center_sampling_radius: float = 1.5,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        test_score_thresh: float = 0.2,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.6,
        max_detections_per_image: int = 100,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        box_reg_loss_type: str = "giou",
        size_bounds: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            backbone,
            head,
            head_in_features,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            initial_normalizer=300,
            **kwargs,
        )
        check_box_reg_loss_type(box_reg_loss_type, "MODEL.FCOS.LOC_LOSS_TYPE")
        shapes = select_features(backbone, self.head_in_features, "head_in_features")
        strides = [int(shape.stride or 0) for shape in shapes]
        self.size_bounds = (
            [8 * stride for stride in strides[:-1]] if size_bounds is None else list(size_bounds)
        )
        if len(self.size_bounds) != len(strides) - 1:
            raise InputError(
                f"MODEL.FCOS.SIZES_OF_INTEREST: {self.size_bounds}: the {len(strides)} levels of"
                f" MODEL.FCOS.IN_FEATURES have {len(strides) - 1} bounds between them"
            )
        self.anchor_generator = DefaultAnchorGenerator(
            sizes=[[stride] for stride in strides], aspect_ratios=[1.0], strides=strides, offset=0.5
        )
        self.box2box_transform = box2box_transform or Box2BoxTransformLinear(normalize_by_size=True)
        self.num_classes = num_classes
        self.center_sampling_radius = center_sampling_radius
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.box_reg_loss_type = box_reg_loss_type
        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_thresh = test_nms_thresh
        self.max_detections_per_image = max_detections_per_image

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone, fcos = build_backbone(cfg), cfg.MODEL.FCOS
        shapes = select_features(backbone, fcos.IN_FEATURES, "MODEL.FCOS.IN_FEATURES")
        return {
            "backbone": backbone,
            "head": FCOSHead(cfg, shapes),  # type: ignore[call-arg, arg-type]
            "head_in_features": fcos.IN_FEATURES,
            "box2box_transform": Box2BoxTransformLinear(normalize_by_size=fcos.NORM_REG_TARGETS),
            "num_classes": fcos.NUM_CLASSES,
            "center_sampling_radius": fcos.POS_RADIUS if fcos.CENTER_SAMPLE else math.inf,
            "focal_loss_alpha": fcos.LOSS_ALPHA,
            "focal_loss_gamma": fcos.LOSS_GAMMA,
            "test_score_thresh": fcos.INFERENCE_TH_TEST,
            "test_topk_candidates": fcos.PRE_NMS_TOPK_TEST,
            "test_nms_thresh": fcos.NMS_TH,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "box_reg_loss_type": fcos.LOC_LOSS_TYPE,
            "size_bounds": fcos.SIZES_OF_INTEREST,
            "vis_period": cfg.VIS_PERIOD,
            "input_format": cfg.INPUT.FORMAT,
            **roi_heads_from_config(cfg, backbone.output_shape(), fcos.NUM_CLASSES),
        }

    def forward_training(
        self,
        images: ImageList,
        features: list[torch.Tensor],
        predictions: tuple[list[torch.Tensor], ...],
        gt_instances: list[Instances],
    ) -> dict[str, torch.Tensor]:
        """See `DenseDetector.forward_training`; gives what `losses` returns."""
        pred_logits, pred_distances, pred_centerness = by_anchor(predictions, self.num_classes, 4, 1)
        anchors = self.anchor_generator(features)
        gt_labels, gt_boxes = self.label_anchors(anchors, gt_instances)
        return self.losses(anchors, pred_logits, gt_labels, pred_distances, gt_boxes, pred_centerness)

    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What each point learns.

        Args:
            anchors: per level the cells of the points (Ri, 4).
            gt_instances: N `Instances` with `gt_boxes` and `gt_classes`.

        Returns:
            N labels (R,) int64, and N tensors (R, 4) of the true box that each point is in, meaningful where
            the label is a class.
        """
        cells = Boxes.cat(anchors)
        points, strides = cells.get_centers(), cells.tensor[:, 2] - cells.tensor[:, 0]  # (R, 2), (R,)
        ranges = zip([0.0, *self.size_bounds], [*self.size_bounds, math.inf], anchors, strict=True)
        # Made where the points are: a tensor of Python numbers would be copied there, and be waited for.
        size_ranges = torch.cat(
            [
                torch.stack([strides.new_full((len(boxes),), bound) for bound in (low, high)], dim=1)
                for low, high, boxes in ranges
            ]
        )  # (R, 2)
        gt_labels, gt_boxes = [], []
        for instances in gt_instances:
            matches, is_positive = assign_points(
                points, strides, size_ranges, instances.gt_boxes, self.center_sampling_radius
            )
            labels, boxes = self.targets_of_matches(instances, matches, is_positive)
            gt_labels.append(labels)
            gt_boxes.append(boxes)
        return gt_labels, gt_boxes

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[torch.Tensor],
        gt_labels: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        gt_boxes: list[torch.Tensor],
        pred_centerness: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """`loss_fcos_cls`, `loss_fcos_loc` and `loss_fcos_ctr`.

        They are sums, divided by the moving average of the number of positives.

        Args:
            anchors: per level (Ri, 4).
            pred_logits: per level (N, Ri, K).
            gt_labels, gt_boxes: as `label_anchors` returns them.
            pred_anchor_deltas: per level distances (N, Ri, 4).
            pred_centerness: per level logits (N, Ri, 1).
        """
        labels = torch.stack(gt_labels)  # (N, R)
        is_positive = (labels >= 0) & (labels != self.num_classes)
        normalizer = self.update_normalizer(is_positive)
        loc_loss = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            is_positive,
            box_reg_loss_type=self.box_reg_loss_type,
        )
        ctr_loss = F.binary_cross_entropy_with_logits(
            cat(pred_centerness, dim=1)[..., 0].float(),
            self.compute_ctrness_targets(anchors, gt_boxes),
            reduction="none",
        )  # (N, R)
        losses = {
            "loss_fcos_cls": self.classification_loss(pred_logits, labels),
            "loss_fcos_loc": loc_loss,
            "loss_fcos_ctr": torch.where(is_positive, ctr_loss, 0.0).sum(),
        }
        return {name: loss / normalizer for name, loss in losses.items()}

    def compute_ctrness_targets(self, anchors: list[Boxes], gt_boxes: list[torch.Tensor]) -> torch.Tensor:
        """How central each point is in its true box: (N, R), see `centerness`."""
        x, y = Boxes.cat(anchors).get_centers().unbind(1)  # (R,) each
        x0, y0, x1, y1 = torch.stack(gt_boxes).unbind(2)  # (N, R) each
        return centerness(torch.stack([x - x0, y - y0, x1 - x, y1 - y], dim=2))

    def forward_inference(
        self,
        images: ImageList,
        features: list[torch.Tensor],
        predictions: tuple[list[torch.Tensor], ...],
    ) -> list[Instances]:
        """See `DenseDetector.forward_inference`."""
        pred_logits, pred_distances, pred_centerness = by_anchor(predictions, self.num_classes, 4, 1)
        anchors = self.anchor_generator(features)
        results = []
        for i, image_size in enumerate(images.image_sizes):
            levels = zip(pred_logits, pred_centerness, strict=True)
            scores = [(x[i].float().sigmoid() * y[i].float().sigmoid()).sqrt() for x, y in levels]
            distances = [level[i] for level in pred_distances]
            results.append(self.inference_single_image(anchors, scores, distances, image_size))
        return results
