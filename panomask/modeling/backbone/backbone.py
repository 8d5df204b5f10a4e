"""What every backbone promises.

Shapes: N images, Hi x Wi cells of a level, Ci its channels.
"""

import itertools
from abc import ABCMeta, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from panomask.errors import InputError
from panomask.layers import ShapeSpec


class Backbone(nn.Module, metaclass=ABCMeta):
    """A network that turns a batch of images (N, C, H, W) into named feature maps (N, Ci, Hi, Wi).

    A subclass sets `_out_features` (names), `_out_feature_channels` and `_out_feature_strides` (name -> int),
    or overrides `output_shape`.
    """

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    @abstractmethod
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Feature maps by name, each (N, Ci, Hi, Wi)."""

    @property
    def size_divisibility(self) -> int:
        """Image sides must be multiples of this; 0 means any size."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Further wishes for `ImageList.from_tensors`: `size_divisibility`, `square_size`."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map that `forward` returns."""
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }


def select_features(backbone: Backbone, names: Sequence[str], key: str) -> list[ShapeSpec]:
    """Shapes of the feature maps `names`; InputError, naming the config `key`, for one that there is not."""
    shapes = backbone.output_shape()
    if not names or not set(names) <= set(shapes):
        raise InputError(
            f"{key}: {list(names)}: allowed are one or more of {list(shapes)}, which the backbone returns"
        )
    selected = [shapes[name] for name in names]
    if any((fine.stride or 0) >= (coarse.stride or 0) for fine, coarse in itertools.pairwise(selected)):
        raise InputError(f"{key}: {list(names)}: name each level once, the finest first")
    return selected
