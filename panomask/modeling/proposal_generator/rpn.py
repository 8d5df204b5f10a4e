"""Region proposal network (Faster R-CNN, arXiv:1506.01497, section 3.1).

Shapes: N images, L levels of Hi x Wi cells, A anchors per cell, Ri = Hi * Wi * A anchors of a level, R of all
levels, M objects of an image, C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.errors import InputError
from panomask.event_storage import get_event_storage
from panomask.layers import Conv2d, ShapeSpec, cat
from panomask.modeling.anchor_generator import build_anchor_generator
from panomask.modeling.box_regression import (
    Box2BoxTransform,
    BoxCoding,
    _dense_box_regression_loss,
    check_box_reg_loss_type,
)
from panomask.modeling.dense_heads.dense_predictions import permute_to_N_HWA_K
from panomask.modeling.matcher import Matcher
from panomask.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from panomask.modeling.sampling import subsample_masks
from panomask.registry import PROPOSAL_GENERATOR_REGISTRY, RPN_HEAD_REGISTRY
from panomask.structures import Boxes, ImageList, Instances, pairwise_iou


def build_rpn_head(cfg: CfgNode, input_shape: list[ShapeSpec]) -> nn.Module:
    """The head that MODEL.RPN.HEAD_NAME names."""
    return RPN_HEAD_REGISTRY.get(cfg.MODEL.RPN.HEAD_NAME)(cfg, input_shape)


@RPN_HEAD_REGISTRY.register()
class StandardRPNHead(nn.Module):
    """3 x 3 convolutions shared by all levels, then 1 x 1 for objectness and for box deltas.

    Args:
        in_channels: C of every level.
        num_anchors: A, the same for every level.
        box_dim: numbers that describe a box.
        conv_dims: output channels of each 3 x 3 convolution, -1 for as many as come in.

    Raises:
        InputError: no convolution, or a width that is neither -1 nor positive.
    """

    @configurable
    def __init__(
        self, *, in_channels: int, num_anchors: int, box_dim: int = 4, conv_dims: Sequence[int] = (-1,)
    ):
        super().__init__()
        if not conv_dims or any(dim != -1 and dim <= 0 for dim in conv_dims):
            raise InputError(f"MODEL.RPN.CONV_DIMS: {list(conv_dims)}: expected positive widths or -1")
        convs, channels = [], in_channels
        for dim in conv_dims:
            out_channels = channels if dim == -1 else dim
            convs.append(Conv2d(channels, out_channels, kernel_size=3, padding=1, activation=nn.ReLU()))
            channels = out_channels
        # One convolution is named `conv`, several `conv.conv0`, ...: the keys that checkpoints have.
        self.conv: nn.Module = convs[0]
        if len(convs) > 1:
            self.conv = nn.Sequential()
            for idx, conv in enumerate(convs):
                self.conv.add_module(f"conv{idx}", conv)
        self.objectness_logits = nn.Conv2d(channels, num_anchors, kernel_size=1)
        self.anchor_deltas = nn.Conv2d(channels, num_anchors * box_dim, kernel_size=1)
        for layer in [*convs, self.objectness_logits, self.anchor_deltas]:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        channels = {shape.channels for shape in input_shape}
        anchor_generator = build_anchor_generator(cfg, input_shape)
        num_anchors = set(anchor_generator.num_anchors)  # type: ignore[arg-type]
        if len(channels) != 1 or len(num_anchors) != 1:
            raise InputError(
                f"MODEL.RPN.IN_FEATURES: all feature maps share the head, so their channels ({channels}) and"
                f" anchors per cell ({num_anchors}) must be the same"
            )
        return {
            "in_channels": channels.pop(),
            "num_anchors": num_anchors.pop(),
            "box_dim": anchor_generator.box_dim,
            "conv_dims": cfg.MODEL.RPN.CONV_DIMS,
        }

    def forward(self, features: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """L maps (N, C, Hi, Wi) -> L logits (N, A, Hi, Wi) and L deltas (N, A * box_dim, Hi, Wi)."""
        hidden = [self.conv(feature) for feature in features]
        return [self.objectness_logits(x) for x in hidden], [self.anchor_deltas(x) for x in hidden]


@PROPOSAL_GENERATOR_REGISTRY.register()
class RPN(nn.Module):
    """Scores and refines anchors; the best become proposals.

    Args:
        in_features: names of the feature maps to use.
        head: features to logits and deltas, as `StandardRPNHead`.
        anchor_generator: features to one `Boxes` a level.
        anchor_matcher: labels anchors by their IoU with the objects.
        box2box_transform: coding of the deltas.
        batch_size_per_image: anchors sampled for the loss.
        positive_fraction: at most this part of them is foreground.
        pre_nms_topk, post_nms_topk: (train, test), see `find_top_rpn_proposals`.
        nms_thresh, min_box_size: likewise.
        anchor_boundary_thresh: anchors further outside of the image than this many pixels take no part in
            training; negative: all do.
        loss_weight: one factor, or one for each of "loss_rpn_cls" and "loss_rpn_loc".
        box_reg_loss_type, smooth_l1_beta: see `_dense_box_regression_loss`.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: nn.Module,
        anchor_generator: nn.Module,
        anchor_matcher: Matcher,
        box2box_transform: BoxCoding,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_topk: tuple[int, int],
        post_nms_topk: tuple[int, int],
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        anchor_boundary_thresh: float = -1.0,
        loss_weight: float | dict[str, float] = 1.0,
        box_reg_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
    ):
        super().__init__()
        check_box_reg_loss_type(box_reg_loss_type, "MODEL.RPN.BBOX_REG_LOSS_TYPE")
        if not isinstance(loss_weight, dict):
            loss_weight = {"loss_rpn_cls": loss_weight, "loss_rpn_loc": loss_weight}
        self.in_features = list(in_features)
        self.rpn_head = head
        self.anchor_generator = anchor_generator
        self.anchor_matcher = anchor_matcher
        self.box2box_transform = box2box_transform
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.pre_nms_topk = {True: pre_nms_topk[0], False: pre_nms_topk[1]}
        self.post_nms_topk = {True: post_nms_topk[0], False: post_nms_topk[1]}
        self.nms_thresh = nms_thresh
        self.min_box_size = float(min_box_size)
        self.anchor_boundary_thresh = anchor_boundary_thresh
        self.loss_weight = loss_weight
        self.box_reg_loss_type = box_reg_loss_type
        self.smooth_l1_beta = smooth_l1_beta

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        rpn = cfg.MODEL.RPN
        missing = [name for name in rpn.IN_FEATURES if name not in input_shape]
        if missing:
            raise InputError(f"MODEL.RPN.IN_FEATURES: {missing}: the backbone returns {list(input_shape)}")
        shapes = [input_shape[name] for name in rpn.IN_FEATURES]
        return {
            "in_features": rpn.IN_FEATURES,
            "head": build_rpn_head(cfg, shapes),
            "anchor_generator": build_anchor_generator(cfg, shapes),
            "anchor_matcher": Matcher(rpn.IOU_THRESHOLDS, rpn.IOU_LABELS, allow_low_quality_matches=True),
            "box2box_transform": Box2BoxTransform(weights=rpn.BBOX_REG_WEIGHTS),
            "batch_size_per_image": rpn.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": rpn.POSITIVE_FRACTION,
            "pre_nms_topk": (rpn.PRE_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST),
            "post_nms_topk": (rpn.POST_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TEST),
            "nms_thresh": rpn.NMS_THRESH,
            "min_box_size": cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE,
            "anchor_boundary_thresh": rpn.BOUNDARY_THRESH,
            "loss_weight": {
                "loss_rpn_cls": rpn.LOSS_WEIGHT,
                "loss_rpn_loc": rpn.BBOX_REG_LOSS_WEIGHT * rpn.LOSS_WEIGHT,
            },
            "box_reg_loss_type": rpn.BBOX_REG_LOSS_TYPE,
            "smooth_l1_beta": rpn.SMOOTH_L1_BETA,
        }

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """Propose.

        Args:
            images: N images; their sizes without padding are what is used.
            features: maps (N, C, Hi, Wi) by name.
            gt_instances: N `Instances` with `gt_boxes`, in training.

        Returns:
            N `Instances` with `proposal_boxes` and `objectness_logits`, and the losses (none outside of
            training).
        """
        maps = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(maps)
        logits, deltas = self.rpn_head(maps)
        box_dim = anchors[0].tensor.shape[1]
        logits = [permute_to_N_HWA_K(x, 1)[..., 0] for x in logits]  # (N, Hi * Wi * A)
        deltas = [permute_to_N_HWA_K(x, box_dim) for x in deltas]  # (N, Hi * Wi * A, box_dim)

        losses = {}
        if self.training:
            assert gt_instances is not None, "RPN needs ground truth in training"
            gt_labels, gt_boxes = self.label_and_sample_anchors(anchors, gt_instances)
            losses = self.losses(anchors, logits, gt_labels, deltas, gt_boxes)
        return self.predict_proposals(anchors, logits, deltas, images.image_sizes), losses

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Targets of all anchors, per image.

        Returns:
            N labels (R,) int8: 1 foreground, 0 background, -1 not in the sample; and N tensors (R, 4) of the
            true box each anchor is matched with, meaningful where the label is 1.
        """
        all_anchors = Boxes.cat(anchors)
        gt_labels, matched_boxes = [], []
        for instances in gt_instances:
            gt_boxes = instances.gt_boxes
            matches, labels = self.anchor_matcher(pairwise_iou(gt_boxes, all_anchors))
            if self.anchor_boundary_thresh >= 0:
                inside = all_anchors.inside_box(instances.image_size, self.anchor_boundary_thresh)
                labels = labels.masked_fill(~inside, -1)
            gt_labels.append(self._subsample_labels(labels))
            # Without objects all matches are 0, and the row of zeros at the end is there for them.
            matched_boxes.append(F.pad(gt_boxes.tensor, (0, 0, 0, 1))[matches])
        return gt_labels, matched_boxes

    def _subsample_labels(self, label: torch.Tensor) -> torch.Tensor:
        """Labels (R,), -1 for what the random sample leaves out; for subclasses to override."""
        positive, negative = subsample_masks(label, self.batch_size_per_image, self.positive_fraction, 0)
        return positive.to(label.dtype) - (~(positive | negative)).to(label.dtype)

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        gt_labels: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        gt_boxes: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """`loss_rpn_cls` and `loss_rpn_loc`: sums over the sample, divided by its nominal size.

        Args:
            anchors: per level (Ri, 4).
            pred_objectness_logits: per level (N, Ri).
            gt_labels, gt_boxes: as `label_and_sample_anchors` returns them.
            pred_anchor_deltas: per level (N, Ri, 4).
        """
        num_images = len(gt_labels)
        labels = torch.stack(gt_labels)  # (N, R)
        is_positive = labels == 1
        storage = get_event_storage()
        storage.put_scalar("rpn/num_pos_anchors", is_positive.sum() / num_images)
        storage.put_scalar("rpn/num_neg_anchors", (labels == 0).sum() / num_images)

        loc_loss = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            is_positive,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        logits = cat(pred_objectness_logits, dim=1)  # (N, R)
        cls_loss = F.binary_cross_entropy_with_logits(logits, is_positive.to(logits.dtype), reduction="none")
        cls_loss = torch.where(labels >= 0, cls_loss, 0.0).sum()
        losses = {"loss_rpn_cls": cls_loss, "loss_rpn_loc": loc_loss}
        normalizer = self.batch_size_per_image * num_images
        return {name: loss / normalizer * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Decode (without gradients: the second stage treats proposals as given) and choose the best."""
        return find_top_rpn_proposals(
            self._decode_proposals(anchors, pred_anchor_deltas),
            pred_objectness_logits,
            image_sizes,
            self.nms_thresh,
            self.pre_nms_topk[self.training],
            self.post_nms_topk[self.training],
            self.min_box_size,
            self.training,
        )

    def _decode_proposals(
        self, anchors: list[Boxes], pred_anchor_deltas: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Per level (N, Ri, 4)."""
        proposals = []
        for boxes, deltas in zip(anchors, pred_anchor_deltas, strict=True):
            sources = boxes.tensor.expand(deltas.shape[0], -1, -1).reshape(-1, deltas.shape[2])  # (N * Ri, 4)
            decoded = self.box2box_transform.apply_deltas(deltas.reshape(-1, deltas.shape[2]), sources)
            proposals.append(decoded.reshape(deltas.shape))
        return proposals
