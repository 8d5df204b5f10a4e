"""RetinaNet's head (Lin et al. 2017, arXiv:1708.02002, section 4 and figure 3), which FCOS's extends.

Shapes: N images, L levels of Hi x Wi cells, C channels, A anchors per cell, K classes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.errors import InputError
from panomask.layers import CycleBatchNormList, ShapeSpec, SyncBatchNorm, get_norm
from panomask.modeling.anchor_generator import build_anchor_generator

_NORMS_BY_LEVEL: dict[str, type[nn.Module]] = {"BN": nn.BatchNorm2d, "SyncBN": SyncBatchNorm}
"""Norms that get statistics of their own for each level, as the head sees another distribution on each."""


class RetinaNetHead(nn.Module):
    """Two towers of 3 x 3 convolutions, one for classes and one for boxes, which all levels share.

    Args:
        input_shape: of each level; all have the same channels.
        num_classes: K.
        num_anchors: A, the same on every level.
        conv_dims: output channels of each convolution of a tower.
        norm: norm behind each of them, by name (see `get_norm`) or a callable given the channels.
        prior_prob: score that every class of every anchor has before training (section 4.1).
        bbox_conv_dims: of the tower for boxes, where it is another.

    Raises:
        InputError: levels of different channels.
    """

    @configurable
    def __init__(
        self,
        *,
        input_shape: Sequence[ShapeSpec],
        num_classes: int,
        num_anchors: int,
        conv_dims: Sequence[int],
        norm: str | Callable[[int], nn.Module] = "",
        prior_prob: float = 0.01,
        bbox_conv_dims: Sequence[int] | None = None,
    ):
        super().__init__()
        channels = {shape.channels or 0 for shape in input_shape}
        if len(channels) != 1:
            raise InputError(
                "all levels (IN_FEATURES of MODEL.RETINANET or MODEL.FCOS) share the head, so their channels"
                f" must be the same, not {sorted(channels)}"
            )
        in_channels = channels.pop()
        bbox_conv_dims = conv_dims if bbox_conv_dims is None else bbox_conv_dims
        self.num_levels = len(input_shape)
        self.cls_subnet = self._tower(in_channels, conv_dims, norm)
        self.bbox_subnet = self._tower(in_channels, bbox_conv_dims, norm)
        self.cls_score = conv3x3_of_head([in_channels, *conv_dims][-1], num_anchors * num_classes)
        self.bbox_pred = conv3x3_of_head([in_channels, *bbox_conv_dims][-1], num_anchors * 4)
        assert self.cls_score.bias is not None
        nn.init.constant_(self.cls_score.bias, math.log(prior_prob / (1 - prior_prob)))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        retinanet = cfg.MODEL.RETINANET
        num_anchors = set(build_anchor_generator(cfg, input_shape).num_cell_anchors)  # type: ignore[arg-type]
        if len(num_anchors) != 1:
            raise InputError(
                "MODEL.ANCHOR_GENERATOR: all levels share the head, so they must have the same number of"
                f" anchors per cell, not {sorted(num_anchors)}"
            )
        return {
            "input_shape": input_shape,
            "num_classes": retinanet.NUM_CLASSES,
            "num_anchors": num_anchors.pop(),
            "conv_dims": [input_shape[0].channels] * retinanet.NUM_CONVS,
            "norm": retinanet.NORM,
            "prior_prob": retinanet.PRIOR_PROB,
        }

    def _tower(
        self, channels: int, conv_dims: Sequence[int], norm: str | Callable[[int], nn.Module]
    ) -> nn.Sequential:
        """3 x 3 convolutions, norms and ReLUs, each an entry by itself: checkpoints have their numbers."""
        layers: list[nn.Module] = []
        for dim in conv_dims:
            layers.append(conv3x3_of_head(channels, dim))
            if isinstance(norm, str) and norm in _NORMS_BY_LEVEL:
                layers.append(CycleBatchNormList(self.num_levels, _NORMS_BY_LEVEL[norm], num_features=dim))
            elif (layer := get_norm(norm, dim)) is not None:
                layers.append(layer)
            layers.append(nn.ReLU())
            channels = dim
        return nn.Sequential(*layers)

    def forward(self, features: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], ...]:
        """L maps (N, C, Hi, Wi) -> L logits (N, A * K, Hi, Wi) and L deltas (N, A * 4, Hi, Wi)."""
        assert len(features) == self.num_levels, (len(features), self.num_levels)
        logits = [self.cls_score(self.cls_subnet(feature)) for feature in features]
        deltas = [self.bbox_pred(self.bbox_subnet(feature)) for feature in features]
        return logits, deltas


def conv3x3_of_head(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A "same" convolution with the weights that dense heads begin with: of deviation 0.01, and no bias."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
