"""RetinaNet: anchors, classified with a focal loss (Lin et al. 2017, arXiv:1708.02002).

Shapes: N images, L levels of Hi x Wi cells, A anchors per cell, Ri = Hi * Wi * A anchors of a level, R of all
levels, K classes. Foreground classes 0..K-1, background K, ignored -1.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.modeling.anchor_generator import build_anchor_generator
from panomask.modeling.backbone import Backbone, build_backbone, select_features
from panomask.modeling.box_regression import (
    Box2BoxTransform,
    BoxCoding,
    _dense_box_regression_loss,
    check_box_reg_loss_type,
)
from panomask.modeling.dense_heads import RetinaNetHead
from panomask.modeling.dense_heads.dense_predictions import by_anchor
from panomask.modeling.matcher import Matcher
from panomask.modeling.meta_arch.dense_detector import DenseDetector, roi_heads_from_config
from panomask.registry import META_ARCH_REGISTRY
from panomask.structures import Boxes, ImageList, Instances, pairwise_iou


@META_ARCH_REGISTRY.register()
class RetinaNet(DenseDetector):
    """Every anchor of every level is classified and refined.

    Args:
        backbone, pixel_mean, pixel_std, head_in_features, kwargs: of `DenseDetector`.
        head: L maps to logits (N, A * K, Hi, Wi) and deltas (N, A * 4, Hi, Wi), as `RetinaNetHead`.
        anchor_generator: the maps to one `Boxes` a level.
        box2box_transform: coding of the deltas.
        anchor_matcher: labels anchors by their IoU with the objects.
        num_classes: K.
        focal_loss_alpha, focal_loss_gamma: see `sigmoid_focal_loss`.
        smooth_l1_beta, box_reg_loss_type: see `_dense_box_regression_loss`.
        test_score_thresh, test_topk_candidates, test_nms_thresh, max_detections_per_image: see
            `detect_in_image`, in the order score_thresh, topk_per_level, nms_thresh, topk.

    Raises:
        InputError: an unknown `box_reg_loss_type`.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: Sequence[str],
        anchor_generator: nn.Module,
        box2box_transform: BoxCoding,
        anchor_matcher: Matcher,
        num_classes: int,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.5,
        max_detections_per_image: int = 100,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        vis_period: int = 0,
        input_format: str = "BGR",
        **kwargs: Any,
    ):
        super().__init__(
            backbone,
            head,
            head_in_features,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            initial_normalizer=100,
            vis_period=vis_period,
            input_format=input_format,
            **kwargs,
        )
        check_box_reg_loss_type(box_reg_loss_type, "MODEL.RETINANET.BBOX_REG_LOSS_TYPE")
        self.anchor_generator = anchor_generator
        self.box2box_transform = box2box_transform
        self.anchor_matcher = anchor_matcher
        self.num_classes = num_classes
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.smooth_l1_beta = smooth_l1_beta
        self.box_reg_loss_type = box_reg_loss_type
        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_thresh = test_nms_thresh
        self.max_detections_per_image = max_detections_per_image

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone, retinanet = build_backbone(cfg), cfg.MODEL.RETINANET
        shapes = select_features(backbone, retinanet.IN_FEATURES, "MODEL.RETINANET.IN_FEATURES")
        return {
            "backbone": backbone,
            "head": RetinaNetHead(cfg, shapes),  # type: ignore[call-arg, arg-type]
            "head_in_features": retinanet.IN_FEATURES,
            "anchor_generator": build_anchor_generator(cfg, shapes),
            "box2box_transform": Box2BoxTransform(weights=retinanet.BBOX_REG_WEIGHTS),
            "anchor_matcher": Matcher(
                retinanet.IOU_THRESHOLDS, retinanet.IOU_LABELS, allow_low_quality_matches=True
            ),
            "num_classes": retinanet.NUM_CLASSES,
            "focal_loss_alpha": retinanet.FOCAL_LOSS_ALPHA,
            "focal_loss_gamma": retinanet.FOCAL_LOSS_GAMMA,
            "smooth_l1_beta": retinanet.SMOOTH_L1_LOSS_BETA,
            "box_reg_loss_type": retinanet.BBOX_REG_LOSS_TYPE,
            "test_score_thresh": retinanet.SCORE_THRESH_TEST,
            "test_topk_candidates": retinanet.TOPK_CANDIDATES_TEST,
            "test_nms_thresh": retinanet.NMS_THRESH_TEST,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "vis_period": cfg.VIS_PERIOD,
            "input_format": cfg.INPUT.FORMAT,
            **roi_heads_from_config(cfg, backbone.output_shape(), retinanet.NUM_CLASSES),
        }

    def forward_training(
        self,
        images: ImageList,
        features: list[torch.Tensor],
        predictions: tuple[list[torch.Tensor], ...],
        gt_instances: list[Instances],
    ) -> dict[str, torch.Tensor]:
        """See `DenseDetector.forward_training`; gives what `losses` returns."""
        pred_logits, pred_anchor_deltas = by_anchor(predictions, self.num_classes, 4)
        anchors = self.anchor_generator(features)
        gt_labels, gt_boxes = self.label_anchors(anchors, gt_instances)
        return self.losses(anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes)

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[torch.Tensor],
        gt_labels: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        gt_boxes: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """`loss_cls` and `loss_box_reg`: sums, divided by the moving average of the number of positives.

        Args:
            anchors: per level (Ri, 4).
            pred_logits: per level (N, Ri, K).
            gt_labels, gt_boxes: as `label_anchors` returns them.
            pred_anchor_deltas: per level (N, Ri, 4).
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
            smooth_l1_beta=self.smooth_l1_beta,
        )
        cls_loss = self.classification_loss(pred_logits, labels)
        return {"loss_cls": cls_loss / normalizer, "loss_box_reg": loc_loss / normalizer}

    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What each anchor learns.

        Args:
            anchors: per level (Ri, 4).
            gt_instances: N `Instances` with `gt_boxes` and `gt_classes`.

        Returns:
            N labels (R,) int64, and N tensors (R, 4) of the true box that each anchor is matched with,
            meaningful where the label is a class.
        """
        all_anchors = Boxes.cat(anchors)
        gt_labels, gt_boxes = [], []
        for instances in gt_instances:
            matches, match_labels = self.anchor_matcher(pairwise_iou(instances.gt_boxes, all_anchors))
            labels, boxes = self.targets_of_matches(instances, matches, match_labels == 1)
            # Without objects all is background, whatever label the lowest quality has.
            gt_labels.append(labels.masked_fill(match_labels == -1, -1) if len(instances) > 0 else labels)
            gt_boxes.append(boxes)
        return gt_labels, gt_boxes

    def forward_inference(
        self,
        images: ImageList,
        features: list[torch.Tensor],
        predictions: tuple[list[torch.Tensor], ...],
    ) -> list[Instances]:
        """See `DenseDetector.forward_inference`."""
        pred_logits, pred_anchor_deltas = by_anchor(predictions, self.num_classes, 4)
        anchors = self.anchor_generator(features)
        results = []
        for i, image_size in enumerate(images.image_sizes):
            scores = [level[i].float().sigmoid() for level in pred_logits]
            deltas = [level[i] for level in pred_anchor_deltas]
            results.append(self.inference_single_image(anchors, scores, deltas, image_size))
        return results
