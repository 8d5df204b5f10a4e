"""Mask head of Mask R-CNN, its loss and its predictions (arXiv:1703.06870, section 3 and figure 4).

Shapes: N images, R RoIs of all images (Ri of one), K classes (1 when class-agnostic), C channels,
Hm x Wm mask grid.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.errors import InputError
from panomask.event_storage import get_event_storage
from panomask.layers import (
    Conv2d,
    ConvTranspose2d,
    ShapeSpec,
    at_least_float32,
    cat,
    conv3x3_relu,
    msra_fill,
)
from panomask.registry import ROI_MASK_HEAD_REGISTRY
from panomask.structures import Instances


def mask_rcnn_loss(
    pred_mask_logits: torch.Tensor, instances: Sequence[Instances], vis_period: int = 0
) -> torch.Tensor:
    """Mean binary cross-entropy between the true class's mask and the truth cropped to the RoI.

    Args:
        pred_mask_logits: (R, K, Hm, Wm) with Hm = Wm.
        instances: N `Instances` of foreground RoIs with `proposal_boxes`, `gt_classes` and `gt_masks`; an
            image without RoIs needs no fields.
        vis_period: put an image of the masks into the event storage every so many iterations; 0: never.

    Returns:
        A scalar; zero, attached to the graph, for R = 0.
    """
    mask_side = pred_mask_logits.shape[2]
    assert mask_side == pred_mask_logits.shape[3], pred_mask_logits.shape
    with_rois = [x for x in instances if len(x) > 0]
    if not with_rois:
        return pred_mask_logits.sum() * 0
    gt_masks = crop_masks(with_rois, mask_side).to(pred_mask_logits)  # (R, Hm, Wm)
    logits = select_class(pred_mask_logits, cat([x.gt_classes for x in with_rois]))  # (R, Hm, Wm)

    _log_mask_stats(logits.detach(), gt_masks)
    storage = get_event_storage()
    if vis_period > 0 and storage.iter % vis_period == 0:
        pairs = torch.cat([logits.detach().sigmoid(), gt_masks], dim=2)  # (R, Hm, 2 * Wm)
        for idx, pair in enumerate(pairs):
            storage.put_image(f"Left: mask prediction;   Right: mask GT ({idx})", pair.expand(3, -1, -1))
    return F.binary_cross_entropy_with_logits(logits, gt_masks, reduction="mean")


def _log_mask_stats(logits: torch.Tensor, gt_masks: torch.Tensor) -> None:
    """Log the accuracy over all mask cells, and the error rates of the empty and the covered ones."""
    is_fg = gt_masks > 0.5
    is_wrong = (logits > 0) != is_fg
    num_cells, num_fg = is_wrong.numel(), is_fg.sum()
    storage = get_event_storage()
    storage.put_scalar("mask_rcnn/accuracy", 1 - is_wrong.sum() / num_cells)
    storage.put_scalar(
        "mask_rcnn/false_positive", (is_wrong & ~is_fg).sum() / (num_cells - num_fg).clamp(min=1)
    )
    storage.put_scalar("mask_rcnn/false_negative", (is_wrong & is_fg).sum() / num_fg.clamp(min=1))


def mask_rcnn_inference(pred_mask_logits: torch.Tensor, pred_instances: Sequence[Instances]) -> None:
    """Set the `pred_masks` of each image's instances: (Ri, 1, Hm, Wm) scores of the predicted class.

    Args:
        pred_mask_logits: (R, K, Hm, Wm).
        pred_instances: N `Instances` with `pred_classes`, R in total.
    """
    if not pred_instances:
        return
    classes = cat([x.pred_classes for x in pred_instances])
    logits = at_least_float32(select_class(pred_mask_logits, classes))
    scores = logits.sigmoid()[:, None]  # (R, 1, Hm, Wm)
    for instances, masks in zip(pred_instances, scores.split([len(x) for x in pred_instances]), strict=True):
        instances.pred_masks = masks


def crop_masks(instances: Sequence[Instances], mask_side: int) -> torch.Tensor:
    """Each RoI's true mask inside its `proposal_boxes`, (R, Hm, Wm) bool, of at least one RoI."""
    return cat([x.gt_masks.crop_and_resize(x.proposal_boxes.tensor, mask_side) for x in instances])


def select_class(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Of logits (R, K, Hm, Wm) those of the given classes (R,), or the only ones: (R, Hm, Wm)."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(len(classes), device=logits.device), classes]


class BaseMaskRCNNHead(nn.Module, metaclass=ABCMeta):
    """Loss and inference around `layers`, which a subclass defines.

    Args:
        loss_weight: factor of the loss.
        vis_period: see `mask_rcnn_loss`.
    """

    @configurable
    def __init__(self, *, loss_weight: float = 1.0, vis_period: int = 0):
        super().__init__()
        self.vis_period = vis_period
        self.loss_weight = loss_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        return {"vis_period": cfg.VIS_PERIOD}

    def forward(
        self, x: torch.Tensor, instances: list[Instances]
    ) -> dict[str, torch.Tensor] | list[Instances]:
        """Predict masks from the pooled features (R, C, H, W) of `instances`, R in total.

        Returns:
            In training {"loss_mask"}, see `mask_rcnn_loss`; otherwise `instances`, now with `pred_masks`, see
            `mask_rcnn_inference`.
        """
        logits = self.layers(x)
        if self.training:
            return {"loss_mask": mask_rcnn_loss(logits, instances, self.vis_period) * self.loss_weight}
        mask_rcnn_inference(logits, instances)
        return instances

    @abstractmethod
    def layers(self, x: torch.Tensor) -> torch.Tensor:
        """(R, C, H, W) -> mask logits (R, K, Hm, Wm)."""


@ROI_MASK_HEAD_REGISTRY.register()
class MaskRCNNConvUpsampleHead(BaseMaskRCNNHead, nn.Sequential):  # type: ignore[misc]
    """3 x 3 convolutions (mask_fcn1, ...), a transposed one that doubles the grid, and a 1 x 1 predictor.

    Args:
        input_shape: channels of the pooled features.
        num_classes: K; 1 for class-agnostic masks.
        conv_dims: output channels of each convolution, and last of the transposed one.
        conv_norm: norm of the convolutions, which have a bias only without one.

    Raises:
        InputError: `conv_dims` is empty.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: Any = "",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not conv_dims:
            raise InputError(
                "MODEL.ROI_MASK_HEAD: conv_dims must hold at least the transposed convolution's width"
            )
        channels = input_shape.channels or 0
        for idx, conv_dim in enumerate(conv_dims[:-1], start=1):
            self.add_module(f"mask_fcn{idx}", conv3x3_relu(channels, conv_dim, conv_norm))
            channels = conv_dim
        self.deconv = ConvTranspose2d(channels, conv_dims[-1], kernel_size=2, stride=2)
        self.add_module("deconv_relu", nn.ReLU())
        self.predictor = Conv2d(conv_dims[-1], num_classes, kernel_size=1)
        msra_fill(self.deconv)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        head = cfg.MODEL.ROI_MASK_HEAD
        return {
            **super().from_config(cfg, input_shape),
            "input_shape": input_shape,
            "num_classes": 1 if head.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "conv_dims": [head.CONV_DIM] * (head.NUM_CONV + 1),
            "conv_norm": head.NORM,
        }

    def layers(self, x: torch.Tensor) -> torch.Tensor:
        """(R, C, H, W) -> mask logits (R, K, 2 * H, 2 * W)."""
        return nn.Sequential.forward(self, x)


def build_mask_head(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """The head that MODEL.ROI_MASK_HEAD.NAME names."""
    return ROI_MASK_HEAD_REGISTRY.get(cfg.MODEL.ROI_MASK_HEAD.NAME)(cfg, input_shape)
