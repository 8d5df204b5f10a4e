"""Semantic segmentation: a class for every pixel.

Shapes: N images, K classes, C channels, H x W padded image, Hi x Wi feature map of level i, s common stride.
Input: a list of N dicts, each with "image" (C, H0, W0) in the range and channel order of INPUT.FORMAT; in
training "sem_seg" (H0, W0) int64 labels 0..K-1 or the ignored value; optionally "height" and "width" of the
output.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.errors import InputError
from panomask.layers import Conv2d, ShapeSpec, get_norm, msra_fill
from panomask.modeling.backbone import Backbone, build_backbone
from panomask.modeling.meta_arch.image_model import ImageModel, output_size
from panomask.modeling.postprocessing import sem_seg_postprocess
from panomask.registry import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY


def build_sem_seg_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The semantic head that MODEL.SEM_SEG_HEAD.NAME names, on feature maps of these shapes."""
    return SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, input_shape)


@META_ARCH_REGISTRY.register()
class SemanticSegmentor(ImageModel):
    """Backbone and semantic head.

    Args:
        backbone, pixel_mean, pixel_std: images to feature maps.
        sem_seg_head: feature maps and targets to logits and losses; its `ignore_value` pads the targets.
    """

    sem_seg_head: Any

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        super().__init__(backbone=backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.sem_seg_head = sem_seg_head

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, backbone.output_shape()),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """In training a dict of losses; otherwise N dicts {"sem_seg": (K, height, width) logits}."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        targets = None
        if self.training:
            targets = self._semantic_truth(batched_inputs, self.sem_seg_head.ignore_value)
        logits, losses = self.sem_seg_head(features, targets)
        if self.training:
            return losses
        results = zip(logits, batched_inputs, images.image_sizes, strict=True)
        return [
            {"sem_seg": sem_seg_postprocess(image_logits, size, *output_size(batched_input, size))}
            for image_logits, batched_input, size in results
        ]


@SEM_SEG_HEADS_REGISTRY.register()
class SemSegFPNHead(nn.Module):
    """Semantic branch of panoptic FPN (Kirillov et al. 2019, arXiv:1901.02446, section 3.1, figure 3).

    Each level goes through 3 x 3 convolutions, each followed by a doubling of its size, until it has the
    common stride; the sum of all levels goes through a 1 x 1 convolution.

    Args:
        input_shape: channels and stride of each level to use, by name.
        num_classes: K.
        conv_dims: C between the convolutions.
        common_stride: s, that of the finest level; coarser ones are s times a power of two.
        loss_weight: factor of the loss.
        norm: norm behind each convolution but the last ("" for none: they then have a bias).
        ignore_value: label of pixels that are in no loss.

    Raises:
        InputError: no level, or a stride that doubling cannot bring to the common one.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        conv_dims: int,
        common_stride: int,
        loss_weight: float = 1.0,
        norm: str | Callable[[int], nn.Module] | None = None,
        ignore_value: int = -1,
    ):
        super().__init__()
        if not input_shape:
            raise InputError("MODEL.SEM_SEG_HEAD.IN_FEATURES is empty; name one or more feature maps")
        by_stride = sorted(input_shape.items(), key=lambda item: item[1].stride or 0)
        self.in_features = [name for name, _ in by_stride]
        self.ignore_value = ignore_value
        self.common_stride = common_stride
        self.loss_weight = loss_weight
        self.scale_heads = []  # a plain list; the modules by name own the weights
        for name, shape in by_stride:
            num_doublings = _count_doublings(name, shape.stride or 0, common_stride)
            head = _scale_head(shape.channels or 0, conv_dims, num_doublings, norm)
            self.add_module(name, head)
            self.scale_heads.append(head)
        self.predictor = Conv2d(conv_dims, num_classes, kernel_size=1)
        msra_fill(self.predictor)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        missing = [name for name in head.IN_FEATURES if name not in input_shape]
        if missing:
            raise InputError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES: {list(head.IN_FEATURES)}: the backbone returns"
                f" {list(input_shape)}"
            )
        return {
            "input_shape": {name: input_shape[name] for name in head.IN_FEATURES},
            "num_classes": head.NUM_CLASSES,
            "conv_dims": head.CONVS_DIM,
            "common_stride": head.COMMON_STRIDE,
            "loss_weight": head.LOSS_WEIGHT,
            "norm": head.NORM,
            "ignore_value": head.IGNORE_VALUE,
        }

    def forward(
        self, features: dict[str, torch.Tensor], targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """Segment.

        Args:
            features: maps (N, Ci, Hi, Wi) by name.
            targets: (N, H, W) labels, in training.

        Returns:
            In training (None, losses), otherwise (float32 logits (N, K, H, W), no losses).
        """
        logits = self.layers(features)
        if self.training:
            assert targets is not None, "the semantic head needs targets in training"
            return None, self.losses(logits, targets)
        return self._to_image_stride(logits), {}

    def layers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Feature maps by name -> logits (N, K, H / s, W / s)."""
        total: torch.Tensor | None = None
        for name, head in zip(self.in_features, self.scale_heads, strict=True):
            scaled = head(features[name])
            if total is not None and scaled.shape != total.shape:
                raise InputError(
                    f"MODEL.SEM_SEG_HEAD.IN_FEATURES: {name} has {tuple(scaled.shape[-2:])} cells at stride"
                    f" {self.common_stride}, finer levels have {tuple(total.shape[-2:])}: the backbone does"
                    f" not pad images to a multiple of the stride of {name}; take it out of the list"
                )
            total = scaled if total is None else total + scaled
        return self.predictor(total)

    def losses(self, predictions: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cross-entropy at the images' resolution, a mean over the pixels that are not ignored.

        Args:
            predictions: (N, K, H / s, W / s) logits.
            targets: (N, H, W) labels.

        Returns:
            {"loss_sem_seg"}; zero, attached to the graph, where every pixel is ignored.
        """
        logits = self._to_image_stride(predictions)
        loss = F.cross_entropy(logits, targets, reduction="sum", ignore_index=self.ignore_value)
        num_pixels = (targets != self.ignore_value).sum().clamp(min=1)
        return {"loss_sem_seg": loss / num_pixels * self.loss_weight}

    def _to_image_stride(self, logits: torch.Tensor) -> torch.Tensor:
        """(N, K, H / s, W / s) -> (N, K, H, W) in float32, which sums over an image need."""
        scale = float(self.common_stride)
        return F.interpolate(logits.float(), scale_factor=scale, mode="bilinear", align_corners=False)


def _count_doublings(name: str, stride: int, common_stride: int) -> int:
    """How often the map `name` is doubled to come from `stride` to `common_stride`."""
    doublings = math.log2(stride / common_stride) if stride > 0 else -1.0
    if doublings < 0 or doublings != int(doublings):
        raise InputError(
            f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE is {common_stride}, to which doubling does not bring {name} of"
            f" MODEL.SEM_SEG_HEAD.IN_FEATURES, whose stride is {stride}"
        )
    return int(doublings)


def _scale_head(
    in_channels: int, conv_dims: int, num_doublings: int, norm: str | Callable[[int], nn.Module] | None
) -> nn.Sequential:
    """Convolutions with norm and ReLU, each but that of the finest level followed by a doubling."""
    layers: list[nn.Module] = []
    for idx in range(max(1, num_doublings)):
        conv = Conv2d(
            in_channels if idx == 0 else conv_dims,
            conv_dims,
            kernel_size=3,
            padding=1,
            bias=not norm,
            norm=get_norm(norm, conv_dims),
            activation=F.relu,
        )
        msra_fill(conv)
        layers.append(conv)
        if num_doublings > 0:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)
