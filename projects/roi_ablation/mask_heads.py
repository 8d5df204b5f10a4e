"""Mask heads that Mask R-CNN was compared with (He et al., arXiv:1703.06870, tables 2b and 2e).

Shapes: N images, R RoIs of all images, K classes (1 when class-agnostic), C channels, H x W pooled features,
Hm x Wm mask grid.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.errors import InputError
from panomask.layers import ShapeSpec, cat, xavier_fill
from panomask.modeling.roi_heads.mask_head import (
    BaseMaskRCNNHead,
    MaskRCNNConvUpsampleHead,
    crop_masks,
    select_class,
)
from panomask.registry import ROI_MASK_HEAD_REGISTRY
from panomask.structures import Instances


@ROI_MASK_HEAD_REGISTRY.register()
class SoftmaxMaskHead(MaskRCNNConvUpsampleHead):
    """A class for each cell of the grid, among K and background, as in semantic segmentation (table 2b).

    Where the sigmoids of Mask R-CNN let each class have its mask, here the classes compete for the cells: the
    mask depends on the class that wins in each of them. The layers are those of `MaskRCNNConvUpsampleHead`,
    with one more channel, the last, for background.
    """

    @configurable
    def __init__(self, input_shape: ShapeSpec, *, num_classes: int, **kwargs: Any):
        super().__init__(input_shape, num_classes=num_classes + 1, **kwargs)

    def forward(
        self, x: torch.Tensor, instances: list[Instances]
    ) -> dict[str, torch.Tensor] | list[Instances]:
        """See `BaseMaskRCNNHead.forward`; `pred_masks` are probabilities of the predicted class."""
        logits = self.layers(x)  # (R, K + 1, Hm, Wm)
        if self.training:
            return {"loss_mask": softmax_mask_loss(logits, instances) * self.loss_weight}
        if not instances:
            return instances
        scores = select_class(logits.softmax(dim=1)[:, :-1], cat([x.pred_classes for x in instances]))
        of_images = scores[:, None].split([len(x) for x in instances])  # (Ri, 1, Hm, Wm) each
        for of_image, masks in zip(instances, of_images, strict=True):
            of_image.pred_masks = masks
        return instances


def softmax_mask_loss(logits: torch.Tensor, instances: Sequence[Instances]) -> torch.Tensor:
    """Mean cross-entropy over all cells; a cell's truth is the RoI's class in the object, else background.

    Args:
        logits: (R, K + 1, Hm, Wm) with Hm = Wm, background last.
        instances: see `mask_rcnn_loss`.

    Returns:
        A scalar; zero, attached to the graph, for R = 0.
    """
    with_rois = [x for x in instances if len(x) > 0]
    if not with_rois:
        return logits.sum() * 0
    is_object = crop_masks(with_rois, logits.shape[2]).bool()  # (R, Hm, Wm)
    background = logits.shape[1] - 1
    classes = cat([x.gt_classes for x in with_rois])  # (R,)
    if background == 1:  # class-agnostic: object or not
        classes = torch.zeros_like(classes)
    target = torch.where(is_object, classes[:, None, None], background)
    return F.cross_entropy(logits, target)


@ROI_MASK_HEAD_REGISTRY.register()
class MLPMaskHead(BaseMaskRCNNHead):
    """Fully connected layers that predict all cells of all masks at once (table 2e, as DeepMask does).

    Args:
        input_shape: channels, height and width of the pooled features.
        num_classes: K; 1 for class-agnostic masks.
        fc_dims: outputs of each hidden layer; the paper has (1024, 1024) and (1024, 1024, 1024).

    Raises:
        InputError: `fc_dims` is empty or holds no positive numbers.
    """

    @configurable
    def __init__(self, input_shape: ShapeSpec, *, num_classes: int, fc_dims: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        if not fc_dims or min(fc_dims) < 1:
            raise InputError(
                f"MODEL.ROI_MASK_HEAD: an MLPMaskHead of the layers {list(fc_dims)}; NUM_FC and FC_DIM are at"
                " least 1"
            )
        height, width = input_shape.height or 0, input_shape.width or 0
        # Twice the pooled grid, as the transposed convolution of the FCN gives it.
        self.mask_size = (num_classes, 2 * height, 2 * width)
        self.hidden = nn.Sequential()
        width_before = (input_shape.channels or 0) * height * width
        for idx, fc_dim in enumerate(fc_dims, start=1):
            layer = nn.Linear(width_before, fc_dim)
            xavier_fill(layer)
            width_before = fc_dim
            self.hidden.add_module(f"mask_fc{idx}", layer)
            self.hidden.add_module(f"mask_fc_relu{idx}", nn.ReLU())
        self.predictor = nn.Linear(width_before, num_classes * self.mask_size[1] * self.mask_size[2])
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        head = cfg.MODEL.ROI_MASK_HEAD
        return {
            **super().from_config(cfg, input_shape),
            "input_shape": input_shape,
            "num_classes": 1 if head.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "fc_dims": [head.FC_DIM] * head.NUM_FC,
        }

    def layers(self, x: torch.Tensor) -> torch.Tensor:
        """(R, C, H, W) -> mask logits (R, K, 2 * H, 2 * W)."""
        logits = self.predictor(self.hidden(x.flatten(start_dim=1)))
        return logits.reshape(-1, *self.mask_size)
