"""Box head: pooled features of a region to one vector.

Shapes: R RoIs, C channels, H x W pooled cells.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.errors import InputError
from panomask.layers import Linear, ShapeSpec, conv3x3_relu, xavier_fill
from panomask.registry import ROI_BOX_HEAD_REGISTRY


@ROI_BOX_HEAD_REGISTRY.register()
class FastRCNNConvFCHead(nn.Sequential):
    """3 x 3 convolutions, then fully connected layers, each followed by ReLU.

    Layers are named conv1, conv2, ..., fc1, fc2, ...

    Args:
        input_shape: channels, height and width of the pooled features.
        conv_dims: output channels of each convolution.
        fc_dims: outputs of each fully connected layer.
        conv_norm: norm of the convolutions, which have a bias only without one.

    Raises:
        InputError: neither a convolution nor a fully connected layer.
    """

    @configurable
    def __init__(
        self, input_shape: ShapeSpec, *, conv_dims: Sequence[int], fc_dims: Sequence[int], conv_norm: Any = ""
    ):
        super().__init__()
        if not conv_dims and not fc_dims:
            raise InputError(
                "MODEL.ROI_BOX_HEAD: NUM_CONV and NUM_FC are both 0; one of them must be positive"
            )
        channels, height, width = input_shape.channels or 0, input_shape.height or 1, input_shape.width or 1
        for idx, conv_dim in enumerate(conv_dims, start=1):
            self.add_module(f"conv{idx}", conv3x3_relu(channels, conv_dim, conv_norm))
            channels = conv_dim
        self._output_shape = ShapeSpec(channels=channels, height=height, width=width)
        features = math.prod((channels, height, width))
        for idx, fc_dim in enumerate(fc_dims, start=1):
            if idx == 1:
                self.add_module("flatten", nn.Flatten())
            fc = Linear(features, fc_dim)
            xavier_fill(fc)
            self.add_module(f"fc{idx}", fc)
            self.add_module(f"fc_relu{idx}", nn.ReLU())
            features = fc_dim
            self._output_shape = ShapeSpec(channels=fc_dim)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        head = cfg.MODEL.ROI_BOX_HEAD
        return {
            "input_shape": input_shape,
            "conv_dims": [head.CONV_DIM] * head.NUM_CONV,
            "fc_dims": [head.FC_DIM] * head.NUM_FC,
            "conv_norm": head.NORM,
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(R, C, H, W) -> (R, fc_dims[-1]), or (R, conv_dims[-1], H, W) without fully connected layers."""
        return super().forward(x)

    @property
    def output_shape(self) -> ShapeSpec:
        """Channels alone after a fully connected layer, else channels, height and width."""
        return self._output_shape


def build_box_head(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """The head that MODEL.ROI_BOX_HEAD.NAME names."""
    return ROI_BOX_HEAD_REGISTRY.get(cfg.MODEL.ROI_BOX_HEAD.NAME)(cfg, input_shape)
