"""Keypoint head of Mask R-CNN, its loss and its predictions (arXiv:1703.06870, section 5).

Each keypoint has a heatmap over its object's box; the head learns a softmax over its cells.

Shapes: N images, R RoIs of all images (Ri of one), K keypoints of an object, C channels, S cells on each side
of a heatmap.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.event_storage import get_event_storage
from panomask.layers import ConvTranspose2d, ShapeSpec, cat, conv3x3_relu, interpolate, msra_fill
from panomask.registry import ROI_KEYPOINT_HEAD_REGISTRY
from panomask.structures import Instances, heatmaps_to_keypoints

_IGNORED = -100
_SKIPPED = "kpts_num_skipped_batches"


def keypoint_rcnn_loss(
    pred_keypoint_logits: torch.Tensor, instances: Sequence[Instances], normalizer: float | None
) -> torch.Tensor:
    """Sum of the cross-entropies between heatmaps and the cells of the true keypoints.

    Args:
        pred_keypoint_logits: (R, K, S, S).
        instances: N `Instances` of foreground RoIs with `proposal_boxes` and `gt_keypoints`; an image without
            RoIs needs no fields.
        normalizer: what the sum is divided by; None: the number of keypoints that take part, which are those
            labelled and inside their RoI.

    Returns:
        A scalar; zero, attached to the graph, where no keypoint takes part.
    """
    side = pred_keypoint_logits.shape[2]
    assert side == pred_keypoint_logits.shape[3], pred_keypoint_logits.shape
    with_rois = [x for x in instances if len(x) > 0]
    if not with_rois:
        _count_skipped_batch()
        return pred_keypoint_logits.sum() * 0
    targets = [x.gt_keypoints.to_heatmap(x.proposal_boxes.tensor, side) for x in with_rois]
    cells, valid = (cat(parts).flatten() for parts in zip(*targets, strict=True))  # (R * K,) each
    loss = F.cross_entropy(
        pred_keypoint_logits.flatten(2).flatten(0, 1),  # (R * K, S * S)
        cells.masked_fill(valid == 0, _IGNORED),
        ignore_index=_IGNORED,
        reduction="sum",
    )
    return loss / (valid.sum().clamp(min=1) if normalizer is None else normalizer)


def _count_skipped_batch() -> None:
    """Log how many batches of this run had nothing to learn keypoints from."""
    storage = get_event_storage()
    skipped_before, _ = storage.latest().get(_SKIPPED, (0.0, 0))
    storage.put_scalar(_SKIPPED, skipped_before + 1, smoothing_hint=False)


def keypoint_rcnn_inference(pred_keypoint_logits: torch.Tensor, pred_instances: Sequence[Instances]) -> None:
    """Set each image's `pred_keypoints` (Ri, K, 3), rows (x, y, score), and `pred_keypoint_heatmaps`.

    The latter are the logits (Ri, K, S, S). See `heatmaps_to_keypoints` for the rest.

    Args:
        pred_keypoint_logits: (R, K, S, S).
        pred_instances: N `Instances` with `pred_boxes`, R in total.
    """
    if not pred_instances:
        return
    heatmaps = pred_keypoint_logits.detach()
    keypoints = heatmaps_to_keypoints(heatmaps, cat([x.pred_boxes.tensor for x in pred_instances]))
    keypoints = keypoints[..., [0, 1, 3]]  # (R, K, 3)
    counts = [len(x) for x in pred_instances]
    parts = zip(pred_instances, keypoints.split(counts), heatmaps.split(counts), strict=True)
    for instances, image_keypoints, image_heatmaps in parts:
        instances.pred_keypoints = image_keypoints
        instances.pred_keypoint_heatmaps = image_heatmaps


class BaseKeypointRCNNHead(nn.Module, metaclass=ABCMeta):
    """Loss and inference around `layers`, which a subclass defines.

    Args:
        num_keypoints: K.
        loss_weight: factor of the loss.
        loss_normalizer: "visible": divide the loss by the number of keypoints that take part. A number:
            divide it by this times the number of images, so that RoIs with few of them weigh less.

    Raises:
        ValueError: a `loss_normalizer` that is neither.
    """

    @configurable
    def __init__(self, *, num_keypoints: int, loss_weight: float = 1.0, loss_normalizer: float | str = 1.0):
        super().__init__()
        if isinstance(loss_normalizer, str) and loss_normalizer != "visible":
            raise ValueError(f'loss_normalizer is {loss_normalizer!r}; allowed are "visible" and numbers')
        self.num_keypoints = num_keypoints
        self.loss_weight = loss_weight
        self.loss_normalizer = loss_normalizer

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        head, roi_heads = cfg.MODEL.ROI_KEYPOINT_HEAD, cfg.MODEL.ROI_HEADS
        # As many as if all RoIs that may be foreground were, with all their keypoints visible.
        most = head.NUM_KEYPOINTS * roi_heads.BATCH_SIZE_PER_IMAGE * roi_heads.POSITIVE_FRACTION
        return {
            "num_keypoints": head.NUM_KEYPOINTS,
            "loss_weight": head.LOSS_WEIGHT,
            "loss_normalizer": "visible" if head.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS else most,
        }

    def forward(
        self, x: torch.Tensor, instances: list[Instances]
    ) -> dict[str, torch.Tensor] | list[Instances]:
        """Predict keypoints from the pooled features (R, C, H, W) of `instances`, R in total.

        Returns:
            In training {"loss_keypoint"}, see `keypoint_rcnn_loss`; otherwise `instances`, now with
            `pred_keypoints` and `pred_keypoint_heatmaps`, see `keypoint_rcnn_inference`.
        """
        logits = self.layers(x)
        if self.training:
            normalizer = None
            if not isinstance(self.loss_normalizer, str):
                normalizer = self.loss_normalizer * len(instances)
            return {"loss_keypoint": keypoint_rcnn_loss(logits, instances, normalizer) * self.loss_weight}
        keypoint_rcnn_inference(logits, instances)
        return instances

    @abstractmethod
    def layers(self, x: torch.Tensor) -> torch.Tensor:
        """(R, C, H, W) -> keypoint logits (R, K, S, S)."""


@ROI_KEYPOINT_HEAD_REGISTRY.register()
class KRCNNConvDeconvUpsampleHead(BaseKeypointRCNNHead, nn.Sequential):  # type: ignore[misc]
    """3 x 3 convolutions (conv_fcn1, ...), a transposed one to the keypoints, and bilinear upsampling.

    The last two double the grid each.

    Args:
        input_shape: channels of the pooled features.
        num_keypoints: K.
        conv_dims: output channels of each convolution.
    """

    @configurable
    def __init__(
        self, input_shape: ShapeSpec, *, num_keypoints: int, conv_dims: Sequence[int], **kwargs: Any
    ):
        super().__init__(num_keypoints=num_keypoints, **kwargs)
        channels = input_shape.channels or 0
        for idx, conv_dim in enumerate(conv_dims, start=1):
            self.add_module(f"conv_fcn{idx}", conv3x3_relu(channels, conv_dim))
            channels = conv_dim
        self.score_lowres = ConvTranspose2d(channels, num_keypoints, kernel_size=4, stride=2, padding=1)
        msra_fill(self.score_lowres)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        return {
            **super().from_config(cfg, input_shape),
            "input_shape": input_shape,
            "conv_dims": cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS,
        }

    def layers(self, x: torch.Tensor) -> torch.Tensor:
        """(R, C, H, W) -> keypoint logits (R, K, 4 * H, 4 * W)."""
        x = nn.Sequential.forward(self, x)  # (R, K, 2 * H, 2 * W)
        return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def build_keypoint_head(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """The head that MODEL.ROI_KEYPOINT_HEAD.NAME names."""
    return ROI_KEYPOINT_HEAD_REGISTRY.get(cfg.MODEL.ROI_KEYPOINT_HEAD.NAME)(cfg, input_shape)
